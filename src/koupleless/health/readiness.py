"""The health of a base and of its modules as values: the states, the checks, and the table that joins them."""

from __future__ import annotations

import contextlib
import enum
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

from koupleless.biz import BizState, ChangeReason
from koupleless.health.checks import Checks

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from concurrent.futures import Future

    from koupleless.biz import BizId
    from koupleless.context import Scope
    from koupleless.descriptions import BizInfo
    from koupleless.health.checks import Caller, Check, Outcome
    from koupleless.health.watch import LoopWatch

FRESH_S: Final = 1.0
"""Seconds for which the answers of checks are given to others who ask."""
DEAD_S: Final = 60.0
"""Seconds for which the event loop may be held until the base counts as dead."""
_AT_ONCE: Final = 16
_WAITING: Final = 2


class Status(enum.Enum):
    """The health of something; the values are the field's."""

    UP = "UP"
    DOWN = "DOWN"
    OUT_OF_SERVICE = "OUT_OF_SERVICE"
    UNKNOWN = "UNKNOWN"


class Source(Protocol):
    """A container, as far as health goes."""

    @property
    def base(self) -> BizInfo:
        """The base."""

    @property
    def watch(self) -> LoopWatch:
        """The watch over the event loop."""

    def bizs(self) -> tuple[BizInfo, ...]:
        """All bizs but the base."""

    def scope_of(self, biz: BizId) -> Scope | None:
        """The life of a biz."""


@dataclass(frozen=True, slots=True)
class ModuleHealth:
    """The health of one module: of the state and of all checks together."""

    status: Status
    checks: Mapping[str, Outcome] = field(default_factory=dict)


class Readiness:
    """The health of one base. Thread-safe; lives as long as the base.

    Everything but the checks is worked out from the present states, so no event can be missed. ``with_modules`` says
    whether the base is ready only when all modules are.
    """

    def __init__(self, source: Source, call: Caller, *, with_modules: bool = False) -> None:
        self.base = Status.UNKNOWN
        """The base's own status: unknown until started, down from the beginning of the end on."""
        self.workers = ThreadPoolExecutor(_WAITING, "koupleless-health")
        """Threads for questions about checks: a check that hangs takes no thread of anybody else."""
        self._source = source
        self._call = call
        self._with_modules = with_modules
        self._lock = threading.Lock()
        self._asked = 0.0
        self._outcomes: dict[BizId, dict[str, Outcome]] = {}
        self._lives: frozenset[int] = frozenset()
        self._refreshing: Future[object] | None = None

    # --- without code of modules ---------------------------------------------------------------------------------

    def is_alive(self) -> bool:
        """Whether the event loop runs, or was held for a short time only."""
        return self._source.watch.lag_s < DEAD_S

    def is_ready(self) -> bool:
        """Whether requests may come."""
        return self.start_up() is Status.UP

    def start_up(self) -> Status:
        """The status of base and modules by their states."""
        return joined(self.base, self.states().values(), with_modules=self._with_modules)

    def states(self) -> dict[BizId, Status]:
        """The status of each module by its state."""
        return {info.id: status_of(info) for info in self._source.bizs()}

    def latest(self) -> dict[BizId, Status]:
        """The status of each module by its state and the last answers of its checks. Returns at once.

        Answers that are not fresh are asked for in the background, for the next call; a check without an answer yet
        says nothing.
        """
        states = self.states()
        lives = {scope.biz: scope.generation for scope, _, _ in self._checks()}
        if not lives:
            return states
        if time.monotonic() - self._asked >= FRESH_S or not self._lives.issuperset(lives.values()):
            self._refresh()
        known, outcomes = self._lives, self._outcomes
        for biz, life in lives.items():
            if life in known and not all(one.is_up for one in outcomes.get(biz, {}).values()):
                states[biz] = worst([states.get(biz, Status.UNKNOWN), Status.DOWN])
        return states

    def _refresh(self) -> None:
        """Ask the checks on a thread, unless they are asked already."""
        if self._refreshing is None or self._refreshing.done():
            with contextlib.suppress(RuntimeError):  # the base ends
                self._refreshing = self.workers.submit(self._checked)

    def close(self) -> None:
        """Answer no more questions about checks. Idempotent."""
        self.workers.shutdown(wait=False, cancel_futures=True)

    # --- with the checks -----------------------------------------------------------------------------------------

    def modules(self) -> dict[BizId, ModuleHealth]:
        """The health of each module. Calls the checks; may take as long as the longest timeout of a check."""
        states, outcomes = self.states(), self._checked()
        return {
            biz: ModuleHealth(
                worst([state, *(Status.UP if one.is_up else Status.DOWN for one in outcomes.get(biz, {}).values())]),
                outcomes.get(biz, {}),
            )
            for biz, state in states.items()
        }

    def overall(self) -> Status:
        """The status of everything. Takes time as `modules`."""
        return first_of([worst(one.status for one in self.modules().values()), self.start_up()])

    def _checked(self) -> dict[BizId, dict[str, Outcome]]:
        with self._lock:  # whoever comes meanwhile waits, and gets the same answers
            todo = list(self._checks())
            lives = frozenset(scope.generation for scope, _, _ in todo)
            if lives == self._lives and time.monotonic() - self._asked < FRESH_S:
                return self._outcomes
            outcomes: dict[BizId, dict[str, Outcome]] = {}
            if todo:
                with ThreadPoolExecutor(min(len(todo), _AT_ONCE), "koupleless-check") as pool:
                    done = pool.map(lambda each: each[2].run(each[0], each[1], self._call), todo)
                    for (scope, name, _), outcome in zip(todo, done, strict=True):
                        outcomes.setdefault(scope.biz, {})[name] = outcome
            self._outcomes, self._lives, self._asked = outcomes, lives, time.monotonic()
            return outcomes

    def _checks(self) -> Iterator[tuple[Scope, str, Check]]:
        for info in self._source.bizs():
            scope = self._source.scope_of(info.id) if info.state.is_started else None
            checks = None if scope is None else scope.find_facet(Checks)
            if scope is not None and checks is not None:
                yield from ((scope, name, check) for name, check in list(checks.by_name.items()))


def status_of(info: BizInfo) -> Status:
    """The status of a biz by its state: unknown before the start is done, down from the decision to leave on."""
    if info.records and info.records[-1].reason is ChangeReason.KILLING:
        return Status.DOWN
    if info.state.is_started:
        return Status.UP
    return Status.UNKNOWN if info.state in (BizState.UNRESOLVED, BizState.RESOLVED) else Status.DOWN


def joined(base: Status, modules: Iterable[Status], *, with_modules: bool) -> Status:
    """The status of a base by the table of the original (``readiness.withAllBizReadiness``)."""
    if not with_modules:
        return base
    found = {base, *modules}
    if found == {Status.UP}:
        return Status.UP
    return Status.UNKNOWN if Status.UNKNOWN in found else Status.DOWN


def worst(statuses: Iterable[Status]) -> Status:
    """Down if one is down, else unknown if one is unknown, else up."""
    found = set(statuses)
    return next((one for one in (Status.DOWN, Status.UNKNOWN) if one in found), Status.UP)


def first_of(statuses: Iterable[Status]) -> Status:
    """The status of a whole with these parts, as in the original, where one part up hides an unknown one."""
    found = set(statuses)
    order = (Status.DOWN, Status.OUT_OF_SERVICE, Status.UP)
    return next((one for one in order if one in found), Status.UNKNOWN)
