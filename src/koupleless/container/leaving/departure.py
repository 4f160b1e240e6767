"""The departure of a biz: the steps out, as values, then the proof that the biz is gone.

Every step takes down all that exists, so a start that failed half way takes the same way out as an uninstall, and a
failure of one step never keeps the others from being taken.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import math
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias, TypeVar

from koupleless.adapters.releasers import call_releasers
from koupleless.changes.changes import NOTHING_CHANGED, Watch
from koupleless.container.leaving.rescue import rescue
from koupleless.container.stage import Errand, seconds_until
from koupleless.container.starting.failure import in_words
from koupleless.container.surroundings import GRACE_S
from koupleless.context import life_context
from koupleless.isolation.environment.venv import VirtualEnvironment
from koupleless.isolation.namespace import Namespace, namesakes
from koupleless.ownership.collect import held_back
from koupleless.ownership.ledger import Ledger
from koupleless.ownership.purge import PurgeReport, Survey, purge
from koupleless.recorders.door import SWEEPS
from koupleless.recorders.loops.stubborn import loop_at_hand
from koupleless.recorders.loops.tasks import AwaitedTasks
from koupleless.view.data import DataDirectory

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping, Sequence

    from koupleless.artifact.store import Unpacked
    from koupleless.container.surroundings import Surroundings
    from koupleless.context import Scope
    from koupleless.router.gate import Gate
    from koupleless.router.lifespan import Lifespan
    from koupleless.visits import Visits

T = TypeVar("T")

_log: Final = logging.getLogger("koupleless")

_MOMENT_S: Final = 0.2
"""Seconds given to all daemon threads with a way to stop, together, before the process ends."""

_FLOOR_S: Final = 0.1
"""Seconds given to a stop hook in any case, however long the hooks before took."""

_Inside: TypeAlias = "Gate | Visits | AwaitedTasks"
_End: TypeAlias = "Callable[[Sequence[_Inside], float], Coroutine[Any, Any, list[int]]]"


class Departure:
    """The departure of one life of one biz.

    Lifetime: for one `run`, by one thread. Afterwards, a departure refers to nothing of the biz.
    """

    def __init__(
        self,
        scope: Scope,
        around: Surroundings,
        unpacked: Unpacked,
        *,
        gate: Gate | None,
        lifespan: Lifespan | None,
        with_process: bool,
        drain_s: float | None = None,
    ) -> None:
        self.scope = scope
        self.remains: Survey | None = None
        """A survey with weak references to objects of the biz; after `run` only if there are objects still alive."""
        self._around = around
        self._unpacked = unpacked
        self._gate = gate
        self._lifespan = lifespan
        self._drain_s = around.deadlines.drain_s if drain_s is None else min(drain_s, around.deadlines.drain_s)
        self._daemons_s = _MOMENT_S if with_process else math.inf
        self._left = NOTHING_CHANGED
        self._failures: list[str] = []
        self._notes: list[str] = []
        self._ended: list[str] = []
        self._report: PurgeReport | None = None

    def run(self) -> PurgeReport:
        """Take all steps of `LEAVING`, let go of the biz, and purge. Never raises; all errors are in the report."""
        aside: list[tuple[str, Errand]] = []
        with contextlib.ExitStack() as holding:
            for step in LEAVING:
                take = functools.partial(self._attempt, step.name, functools.partial(step.take, self))
                if step.is_aside:
                    aside.append((step.name, self._errand(step.name, take)))
                else:
                    self._take_aside(aside)
                    take()
            aside.append(("purge", self._errand("let go", functools.partial(self._let_go, holding), several=3)))
            self._take_aside(aside)
            # On a thread of its own: thread locals set by code of the biz have ended with the thread before.
            if self.remains is not None:
                self._take_aside([("purge", self._errand("purge", self._purge, several=2))])
        report, self._report = self._report, None
        if report is None or not report.held:
            self.remains = None
        if report is None:
            failures = tuple(self._failures)
            return PurgeReport(self.scope.biz, clean=False, held=(), undone={}, failures=failures, elapsed_ms=0.0)
        return report

    # --- the steps -----------------------------------------------------------------------------------------------

    def drain(self) -> None:
        """Wait for requests in flight and calls of the services; an unfinished request or call gets an error."""
        drain_s, stop_s, calls = self._drain_s, self._around.deadlines.stop_s, self.scope.calls
        ends = time.monotonic() + drain_s
        calls.shut()
        inside: dict[str, _Inside] = {} if self._gate is None else {"requests": self._gate}
        if calls:
            inside["calls of its services"] = calls
        left = self._left_of(inside, _drained, drain_s)
        self._tell_aborted(left)
        stubborn = self._left_of({kind: inside[kind] for kind in left}, _aborted, stop_s)
        if stubborn.pop("calls of its services", 0):  # the callers get an answer all the same
            stubborn |= self._left_of({"calls of its services": calls}, _aborted, GRACE_S)
        self._failures += [f"{count} of the {kind} ignore their end and go on" for kind, count in stubborn.items()]
        awaited = AwaitedTasks(self.scope, self._around.stage.loop)
        if awaited:
            tasks: dict[str, _Inside] = {"tasks that others wait for": awaited}
            self._tell_aborted(self._left_of(tasks, _drained, seconds_until(ends)))
            self._left_of(tasks, _aborted, 0.0)

    def _left_of(self, inside: Mapping[str, _Inside], end: _End, timeout_s: float) -> dict[str, int]:
        """Return the number, by kind, of requests and calls that have not ended in time."""
        if not inside:
            return {}
        begin = functools.partial(end, tuple(inside.values()), timeout_s)
        counts = self._around.stage.call(begin, timeout_s=timeout_s + GRACE_S)
        return {kind: count for kind, count in zip(inside, counts, strict=True) if count}

    def _tell_aborted(self, left: Mapping[str, int]) -> None:
        self._failures += [
            f"{count} {kind} had not ended after {round(self._drain_s, 2):g} s and were aborted"
            for kind, count in left.items()
        ]

    def withdraw_services(self) -> None:
        """Withdraw the services, on a thread, because closing services is code of the biz."""
        services, stop_s = self._around.services, self._around.deadlines.stop_s
        if not services.has_offers(self.scope):
            return
        self._failures += self._around.stage.run(
            lambda: services.withdraw(self.scope), name=f"withdraw {self.scope.biz}", timeout_s=stop_s
        )

    def stop_application(self) -> None:
        """Shut the application down, then call the stop hooks; one deadline for all."""
        deadline = time.monotonic() + self._around.deadlines.stop_s
        self._attempt("shut application down", self._shut_application_down)
        for hook in self.scope.take_stop_hooks():
            timeout_s = max(seconds_until(deadline), _FLOOR_S)
            call = functools.partial(
                self._around.stage.call_as, self.scope, hook, life_context(self.scope), name="stop", timeout_s=timeout_s
            )
            self._attempt(f"stop hook {getattr(hook, '__qualname__', type(hook).__qualname__)}", call)

    def _shut_application_down(self) -> None:
        lifespan, self._lifespan = self._lifespan, None
        if lifespan is not None:
            stop_s = self._around.deadlines.stop_s
            self._around.stage.call(lambda: lifespan.shutdown(stop_s), timeout_s=stop_s + GRACE_S)

    def close_entrance(self) -> None:
        """Close the gate, which ends the worker threads of a WSGI application."""
        gate, self._gate = self._gate, None
        if gate is not None:
            self._failures += [f"worker thread {name} is still busy" for name in gate.close()]

    def undo_registrations(self) -> None:
        """Undo all that the ledger has recorded: threads, processes, hooks and so on."""
        ledger = self.scope.find_facet(Ledger)
        if ledger is not None:
            around = self._around
            failures = ledger.undo_all(around.deadlines.stop_s, daemons_s=self._daemons_s, by_force=around.ends_threads)
            self._ended += ledger.ended
            self._failures += [str(failure) for failure in failures]

    def take_changes_back(self) -> None:
        """Take changes of shared Python modules back."""
        watch = self.scope.find_facet(Watch)
        if watch is not None:
            self._left = watch.leave()

    def rescue_files(self) -> None:
        """Copy files written below the code into the data directory."""
        directory = self.scope.find_facet(DataDirectory)
        if directory is None:
            return
        try:
            note = rescue(self._unpacked, directory.path)
        except OSError as error:
            note = (
                f"{self.scope.biz} may have written files below its code, which were not copied to {directory.path}: "
                f"{error}"
            )
        if note is not None:
            _log.warning("%s", note)
            self._notes.append(note)

    def remove_environment(self) -> None:
        """Remove the virtual environment of child processes from the disk."""
        venv = self.scope.find_facet(VirtualEnvironment)
        if venv is not None:
            venv.remove()

    # --- the proof -----------------------------------------------------------------------------------------------

    def _let_go(self, holding: contextlib.ExitStack) -> None:
        """Drop the container's last references; a survey refers weakly to all that must be gone now.

        Automatic collections are held back from here on, until ``holding`` ends.
        """
        holding.enter_context(held_back())
        scope, namespace = self.scope, self.scope.find_facet(Namespace)
        survey = Survey(scope, {}) if namespace is None else Survey(scope, namespace.table, namesakes)
        try:
            released, failures = call_releasers(survey, deadline_s=self._around.deadlines.stop_s)
            survey.undone = {**survey.undone, **released}
            self._failures += failures
        finally:
            self._failures += scope.close()
        self.remains = survey

    def _purge(self) -> None:
        assert self.remains is not None
        with loop_at_hand():
            report = purge(
                self.remains, failures=tuple(self._failures), sweeps=SWEEPS, left=self._left, ended=tuple(self._ended)
            )
        self._report = replace(report, notes=tuple(self._notes))

    def _errand(self, what: str, step: Callable[[], object], *, several: int = 1) -> Errand:
        """Make a step of leaving one for a thread aside.

        The step may run code of the biz, a finaliser say, wait for a lock of a thread of the biz, or for a file system.
        ``several`` is the number of times that the step may wait for `Deadlines.stop_s`.
        """
        return Errand(f"{what} {self.scope.biz}", step, several * self._around.deadlines.stop_s + GRACE_S)

    def _take_aside(self, errands: list[tuple[str, Errand]]) -> None:
        """Take steps on a thread; a step without an end keeps the thread, and the other steps go on. Empties the list.

        The failure of a step is told before the step after it begins.
        """
        names = [name for name, _ in errands]
        outcomes = self._around.stage.run_in_turn([errand for _, errand in errands])
        errands.clear()
        for name, outcome in zip(names, outcomes, strict=True):
            error = outcome.exception()
            if error is not None:
                self._failures.append(f"{name}: {in_words(error, self.scope)}")
            del outcome, error

    def _attempt(self, what: str, step: Callable[[], object]) -> None:
        try:
            step()
        except BaseException as error:  # noqa: BLE001 - a biz may raise SystemExit here; it goes into the report
            self._failures.append(f"{what}: {in_words(error, self.scope)}")


class Step(NamedTuple):
    """One step of leaving."""

    name: str
    """The name of the step, as in failures of the report."""
    take: Callable[[Departure], None]
    is_aside: bool = False
    """Whether the step goes on a thread of its own, which is left behind at the deadline: the step may run code of the
    biz, or wait for a lock of the biz or for a file system. The other steps have deadlines of their own."""


LEAVING: Final = (
    Step("drain", Departure.drain),
    Step("withdraw services", Departure.withdraw_services),
    Step("stop application", Departure.stop_application),
    Step("close entrance", Departure.close_entrance),
    Step("undo registrations", Departure.undo_registrations, is_aside=True),
    Step("take changes back", Departure.take_changes_back, is_aside=True),
    Step("rescue files", Departure.rescue_files, is_aside=True),
    Step("remove environment", Departure.remove_environment, is_aside=True),
)
"""In the order of leaving."""


async def _drained(inside: Sequence[_Inside], timeout_s: float) -> list[int]:
    return await asyncio.gather(*(one.drain(timeout_s) for one in inside))


async def _aborted(inside: Sequence[_Inside], timeout_s: float) -> list[int]:
    return await asyncio.gather(*(one.abort(timeout_s) for one in inside))
