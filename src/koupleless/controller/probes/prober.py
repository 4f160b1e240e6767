"""The probes of one base: sent at their times while the modules run, and their results by container."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from koupleless.controller.probes.probe import Kind, NoProbe, has_probes, probes_of
from koupleless.controller.probes.tally import Tally
from koupleless.controller.times import time_text
from koupleless.controller.vpods.actual import State
from koupleless.controller.vpods.crashes import Fall
from koupleless.controller.vpods.pod import Restart
from koupleless.controller.vpods.status import Signs

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping

    from koupleless.controller.probes.probe import Check, Probe
    from koupleless.controller.vpods.actual import Actual
    from koupleless.controller.vpods.module import ModuleKey
    from koupleless.controller.vpods.plan import Claims, Read
    from koupleless.controller.vpods.pod import VPod

_TELL_EVERY_S: Final = 60.0
_FATAL: Final = (Kind.STARTUP, Kind.LIVENESS)


class Checks(Protocol):
    """The way of single checks to modules."""

    async def check(self, address: str, check: Check) -> str:
        """Send one check to the address of a base; returns the failure in words, or an empty text for a success.

        The call has no time limit of its own.
        """


class _Watched(NamedTuple):
    """One container with probes, and the life of its module."""

    pod: VPod
    container: Mapping[str, Any]
    key: ModuleKey
    started: float
    """The start of the module by the clock of the base."""


@dataclass(slots=True)
class _Round:
    """One probe of a life."""

    probe: Probe
    tally: Tally
    due: float
    told: float = float("-inf")
    """The time of the last Event about a failure."""
    task: asyncio.Task[None] | None = None


@dataclass(slots=True)
class _Watch:
    """The probes of one life of a module, for one container."""

    of: _Watched
    seen: float
    is_started: bool
    rounds: dict[Kind, _Round] = field(default_factory=dict)
    fall: Fall | None = None

    def open(self) -> Iterator[_Round]:
        """Yield the probes that are to be sent at present."""
        for kind, one in self.rounds.items():
            is_its_turn = self.is_started is (kind is not Kind.STARTUP)
            if is_its_turn and one.task is None and not (self.fall is not None and kind in _FATAL):
                yield one

    def signs(self) -> Signs:
        readiness = self.rounds.get(Kind.READINESS)
        if not self.is_started:
            return Signs(is_started=False, is_ready=False)
        return Signs(True, self.fall is None and (None if readiness is None else bool(readiness.tally.verdict)))


class Prober:
    """The probes of one base. All on one event loop.

    Lifetime: of a task that calls `run`, until `forget`. Results are of one life of a module: a module that has started
    again begins anew. A life told in the status of the Pod keeps the told readiness, so that a new controller makes no
    Pod unready.
    """

    def __init__(
        self,
        checks: Checks,
        *,
        clock: Callable[[], float],
        start: Callable[[Coroutine[None, None, None]], asyncio.Task[None]],
        tell: Callable[[VPod, str, str, str], object],
        wake: Callable[[], object],
    ) -> None:
        """``start`` begins a task of the owner, ``tell`` records an Event, ``wake`` is called after new results."""
        self._checks = checks
        self._clock = clock
        self._start = start
        self._tell = tell
        self._wake = wake
        self._address = ""
        self._watches: dict[tuple[str, str], _Watch] = {}
        self._news = asyncio.Event()

    def keep(self, pods: Iterable[Read], claims: Claims, actual: Mapping[ModuleKey, Actual], address: str) -> None:
        """Probe the running modules of these Pods from now on, and no others."""
        self._address = address
        before, self._watches = self._watches, {}
        for one in _watched(pods, claims, actual):
            place = one.pod.uid, one.container["name"]
            known = before.get(place)
            if known is not None and (known.of.key, known.of.started) == (one.key, one.started):
                known.of = one
                self._watches[place] = before.pop(place)
            else:
                self._watches[place] = self._watch(one)
                self.look()
        _cancel(before.values())

    def signs(self) -> dict[tuple[str, str], Signs]:
        """Return the results by the UID of the Pod and the name of the container."""
        return {place: watch.signs() for place, watch in self._watches.items()}

    def falls(self) -> dict[ModuleKey, Fall]:
        """Return the modules that have to start again."""
        return {watch.of.key: watch.fall for watch in self._watches.values() if watch.fall is not None}

    def look(self) -> None:
        """Look at the clock now."""
        self._news.set()

    async def run(self) -> None:
        """Send checks at their times until cancelled."""
        while True:
            self._news.clear()
            due = self._send()
            try:
                async with asyncio.timeout(None if due is None else max(due - self._clock(), 0)):
                    await self._news.wait()
            except TimeoutError:
                continue

    def forget(self) -> None:
        """Forget all results, and cancel checks under way."""
        _cancel(self._watches.values())
        self._watches.clear()

    def _watch(self, one: _Watched) -> _Watch:
        """Begin with a life of a module."""
        now, told = self._clock(), one.pod.container_status(one.container["name"])
        running = (told.get("state") or {}).get("running") or {}
        is_known = running.get("startedAt") == time_text(one.started)
        probes = probes_of(one.container)
        has_startup = False
        watch = _Watch(one, now, is_started=True)
        for probe in probes:
            if isinstance(probe, NoProbe):
                self._tell(one.pod, "Warning", "ProbeRefused", probe.message)
                continue
            has_startup |= probe.kind is Kind.STARTUP
            first = {Kind.READINESS: is_known and bool(told.get("ready")), Kind.LIVENESS: True}.get(probe.kind)
            # A controller that takes over many modules does not probe all of them at once.
            pause_s = random.uniform(0, probe.period_s) if is_known else probe.delay_s  # noqa: S311 - no secret
            watch.rounds[probe.kind] = _Round(probe, Tally(probe, first), now + pause_s)
        watch.is_started = not has_startup or (is_known and bool(told.get("started")))
        return watch

    def _send(self) -> float | None:
        """Begin the checks that are due; returns the time of the next ones."""
        now, later = self._clock(), []
        for watch in self._watches.values():
            for one in watch.open():
                if one.due <= now:
                    one.task = self._start(self._ask(watch, one, now))
                else:
                    later.append(one.due)
        return min(later, default=None)

    async def _ask(self, watch: _Watch, one: _Round, now: float) -> None:
        probe = one.probe
        try:
            async with asyncio.timeout(probe.timeout_s):
                said = await self._checks.check(self._address, probe.check)
        except TimeoutError:
            said = f"no answer within {probe.timeout_s:g} s"
        finally:
            one.task, one.due = None, max(now + probe.period_s, self._clock())
        is_news = one.tally.note(is_success=not said)
        # Each failure up to the threshold, then one a minute: Events are writes to the API server.
        if said and (one.tally.in_a_row <= probe.failures or self._clock() - one.told >= _TELL_EVERY_S):
            one.told = self._clock()
            self._tell(watch.of.pod, "Warning", "Unhealthy", f"{probe.kind.value.capitalize()} probe failed: {said}")
        if is_news:
            self._conclude(watch, probe, is_success=not said)
            self._wake()
        self.look()

    def _conclude(self, watch: _Watch, probe: Probe, *, is_success: bool) -> None:
        if probe.kind is Kind.STARTUP and is_success:
            watch.is_started = True
            readiness = watch.rounds.get(Kind.READINESS)
            if readiness is not None:
                readiness.due = min(readiness.due, max(self._clock(), watch.seen + readiness.probe.delay_s))
        elif probe.kind in _FATAL and not is_success:
            pod, name = watch.of.pod, watch.of.container["name"]
            message = f"container {name} failed its {probe.kind.value} probe, the module {watch.of.key} starts again"
            grace_s = float(pod.grace_s) if probe.grace_s is None else probe.grace_s
            watch.fall = Fall(message, grace_s, self._clock() - watch.seen)
            self._tell(pod, "Normal", "Killing", message)


def _watched(pods: Iterable[Read], claims: Claims, actual: Mapping[ModuleKey, Actual]) -> Iterator[_Watched]:
    """Yield the containers with probes that have a running module; a version that does not answer is asked nothing."""
    for read in pods:
        if not read.pod.is_wanted or read.pod.restart is not Restart.ALWAYS:
            continue
        containers = {one["name"]: one for one in read.pod.containers}
        for module in read.wanted():
            container, found = containers[module.container], actual.get(module.key)
            is_running = found is not None and found.is_listed and found.state is State.ACTIVATED
            if found is not None and is_running and claims.holds(module) and has_probes(container):
                yield _Watched(read.pod, container, module.key, found.changed)


def _cancel(watches: Iterable[_Watch]) -> None:
    for watch in watches:
        for one in watch.rounds.values():
            if one.task is not None:
                one.task.cancel()
