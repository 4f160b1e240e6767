"""Who is inside a biz now: counted in and out, nobody let in any more, the last one awaited.

Requests and calls of services are visits alike. Both end in the same way when their biz leaves: they may go on until
the drain deadline, are told to end then, and whoever made them gets an answer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterator


class Visit:
    """One thing inside a biz. Whoever enters makes it, and leaves with it."""

    __slots__ = ("_cancelled_before", "_cancels", "task")

    def __init__(self, task: asyncio.Task[Any] | None) -> None:
        self.task = task
        """The task that runs the biz's code, if one does."""
        self._cancels = 0
        self._cancelled_before = 0

    @property
    def is_aborted(self) -> bool:
        """Whether it was told to end."""
        return self._cancels > 0

    def abort(self, inside: Visits) -> None:
        """Tell it to end. From any thread; a visit without a task is left alone."""
        if self.task is None:
            return
        try:
            self.task.get_loop().call_soon_threadsafe(self._cancel, inside)
        except RuntimeError:
            # Its loop is closed, so it never ends and never leaves by itself.
            inside.leave(self)

    def _cancel(self, inside: Visits) -> None:
        """On the loop of the task, and only while the visit is inside: what the task does later is not ours."""
        task = self.task
        if task is None or self not in inside:
            return
        if not self._cancels:
            self._cancelled_before = task.cancelling()
        self._cancels += 1
        task.cancel("its module is being uninstalled")

    def forgive(self) -> bool:
        """Take our cancellation of the task back, in the task; whether nobody else has cancelled it, too."""
        task = self.task
        if task is None:
            return True
        for _ in range(self._cancels):
            task.uncancel()
        return task.cancelling() <= self._cancelled_before


class Visits:
    """The visits of one biz: of its requests, or of calls of its services.

    Lifetime: as one life of the biz; never opened again. Threads: `drain` and `abort` run on an event loop, which need
    not be that of the visits; the rest may be called from any thread. There is no lock: whoever enters signs in first
    and looks whether it is shut afterwards, whoever shuts it does so first and looks who is inside afterwards, so that
    one of the two sees the other.
    """

    __slots__ = ("_inside", "_waiters", "is_shut")

    def __init__(self) -> None:
        self.is_shut = False
        self._inside: set[Visit] = set()
        self._waiters: set[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = set()

    def enter(self, visit: Visit) -> bool:
        """Sign in; ``False``, and the visit is not inside, once it is shut."""
        self._inside.add(visit)
        if self.is_shut:
            self.leave(visit)
            return False
        return True

    def leave(self, visit: Visit) -> None:
        """Sign out. Idempotent."""
        self._inside.discard(visit)
        if self._waiters and not self._inside:
            for loop, left in tuple(self._waiters):
                if not loop.is_closed():
                    loop.call_soon_threadsafe(left.set)

    def shut(self) -> None:
        """Let nobody in any more. Whoever is inside stays."""
        self.is_shut = True

    async def drain(self, timeout_s: float) -> int:
        """Shut it and wait until the last one has left, at most ``timeout_s``. Returns how many are left."""
        import asyncio  # noqa: PLC0415 - not for whoever imports the public package alone

        self.shut()
        left = asyncio.Event()
        waiter = (asyncio.get_running_loop(), left)
        self._waiters.add(waiter)
        try:
            async with asyncio.timeout(timeout_s):
                while self._inside:
                    await left.wait()
                    left.clear()
        except TimeoutError:
            pass  # not an error: the answer is how many are left
        finally:
            self._waiters.discard(waiter)
        return len(self._inside)

    async def abort(self, timeout_s: float) -> int:
        """Tell all to end and wait for them to leave, at most ``timeout_s``. Returns how many did not."""
        self.shut()
        for visit in self:
            visit.abort(self)
        return await self.drain(timeout_s)

    def __iter__(self) -> Iterator[Visit]:
        return iter(tuple(self._inside))

    def __contains__(self, visit: object) -> bool:
        return visit in self._inside

    def __len__(self) -> int:
        return len(self._inside)

    def __bool__(self) -> bool:
        return bool(self._inside)
