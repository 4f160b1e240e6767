"""From the deletion of a Pod to the end of its modules: hooks, then requests in flight, within the grace."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from koupleless.controller.tunnels.tunnel import NoAnswer
from koupleless.controller.vpods.hooks import NoHook, Sleep, hooks_of

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from koupleless.controller.bases.knowledge import Knowledge
    from koupleless.controller.tunnels.tunnel import Tunnel
    from koupleless.controller.vpods.hooks import Hook
    from koupleless.controller.vpods.pod import VPod


class Farewells:
    """The leaving Pods of one base. All on one event loop.

    A hook that was cancelled by the end of the leadership is run again by the next leader, as after a restart of a
    kubelet. The grace counts from the moment at which this controller has first seen the deletion: clocks differ.
    """

    def __init__(
        self,
        news: Knowledge,
        tunnel: Tunnel,
        *,
        start: Callable[[Coroutine[None, None, None]], object],
        tell: Callable[[VPod, str, str, str], object],
        wake: Callable[[], object],
        clock: Callable[[], float],
    ) -> None:
        """``start`` begins a task of the owner, ``tell`` records an Event, ``wake`` is called after the last hook."""
        self._news = news
        self._tunnel = tunnel
        self._start = start
        self._tell = tell
        self._wake = wake
        self._clock = clock
        self._seen: dict[str, float] = {}
        """The time at which the deletion of each Pod was first seen, by UID."""
        self._is_over: dict[str, bool] = {}
        """Whether all hooks of a Pod have ended, by UID."""

    def is_staying(self, pod: VPod) -> bool:
        """Whether the modules of a Pod have to stay for its hooks, which are begun with the first call."""
        if not pod.is_leaving or pod.has_ended:
            return False
        if pod.uid not in self._is_over:
            hooks = hooks_of(pod)
            self._is_over[pod.uid] = not hooks
            if hooks:
                self._start(self._take_leave(pod, hooks))
        return not self._is_over[pod.uid]

    def left_s(self, pod: VPod) -> float | None:
        """Return the seconds left of the grace of a leaving Pod; ``None`` for a Pod that stays."""
        if not pod.is_leaving:
            return None
        now = self._clock()
        return max(self._seen.setdefault(pod.uid, now) + pod.grace_s - now, 0.0)

    def keep(self, uids: set[str]) -> None:
        """Forget all Pods but these."""
        self._seen = {uid: seen for uid, seen in self._seen.items() if uid in uids}
        self._is_over = {uid: is_over for uid, is_over in self._is_over.items() if uid in uids}

    def forget(self) -> None:
        """Forget all Pods; their hooks were cancelled."""
        self._seen.clear()
        self._is_over.clear()

    async def _take_leave(self, pod: VPod, hooks: tuple[Hook, ...]) -> None:
        try:
            async with asyncio.timeout(pod.grace_s), asyncio.TaskGroup() as tasks:
                for hook in hooks:
                    tasks.create_task(self._run(pod, hook))
        except TimeoutError:
            self._fail(pod, f"the hooks did not end within the grace of {pod.grace_s} s")
        finally:
            self._is_over[pod.uid] = True
            self._wake()

    async def _run(self, pod: VPod, hook: Hook) -> None:
        if isinstance(hook, Sleep):
            await asyncio.sleep(hook.seconds)
        elif isinstance(hook, NoHook):
            self._fail(pod, hook.message)
        else:
            try:
                await self._tunnel.visit(self._news.base, hook)
            except NoAnswer as error:
                self._fail(pod, str(error))

    def _fail(self, pod: VPod, message: str) -> None:
        self._tell(pod, "Warning", "FailedPreStopHook", message)
