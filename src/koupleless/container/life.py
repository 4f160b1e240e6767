"""One life of one biz: the set-up, the start, and the leaving, step by step.

`Life.start` reads downwards, `Life.leave` is the reverse. Leaving takes down everything that exists, so a start that
fails half way takes the same way out as an uninstall, and a failure of one step never keeps the others from being done.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import logging
import math
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar

from koupleless.adapters.own import LoopCalls
from koupleless.adapters.releasers import call_releasers
from koupleless.changes.changes import NOTHING_CHANGED, Watch, changes
from koupleless.container.leaving.rescue import rescue
from koupleless.container.stage import DeadlineMissed
from koupleless.container.starting.entry import load_entry, refuse_application
from koupleless.container.starting.failure import in_words, own_traceback
from koupleless.container.starting.prepare import words
from koupleless.context import Scope, entered, life_context
from koupleless.errors import ContainerClosed, StartFailed, StartTimeout
from koupleless.exits import EXITS, in_place_of
from koupleless.isolation.environment.venv import VirtualEnvironment
from koupleless.isolation.interpreter import all_of_base
from koupleless.isolation.libraries.holding import Speakers, Wishes
from koupleless.isolation.namespace import Namespace
from koupleless.isolation.policy import Policy
from koupleless.ownership.collect import held_back
from koupleless.ownership.ledger import Ledger
from koupleless.ownership.purge import PurgeReport, Survey, purge
from koupleless.recorders.door import SWEEPS
from koupleless.recorders.loops.stubborn import loop_at_hand
from koupleless.recorders.loops.tasks import AwaitedTasks
from koupleless.recorders.registries.interpreter.finalizers import values_by_thread
from koupleless.recorders.running.forks import OwnCode
from koupleless.router.asgi import unmounted
from koupleless.router.gate import Gate
from koupleless.router.gateway import FORWARDS, read_rules
from koupleless.router.lifespan import Lifespan
from koupleless.service.crossing import PrivateLibraries
from koupleless.variables import await_in
from koupleless.view.children import Interpreter
from koupleless.view.config import Configuration
from koupleless.view.data import VARIABLE, DataDirectory
from koupleless.view.environ import Environment
from koupleless.view.logging.logs import LogSpace
from koupleless.view.own import Own
from koupleless.view.shared.zone import other_zone
from koupleless.view.standard.warning import Warnings

if TYPE_CHECKING:
    import threading
    from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
    from contextvars import Context

    from koupleless.container.starting.prepare import Prepared
    from koupleless.container.surroundings import Surroundings
    from koupleless.descriptions import Library
    from koupleless.router.face import Face
    from koupleless.router.gateway import Rule
    from koupleless.visits import Visits

T = TypeVar("T")

ENTRY_OVERRIDE: Final = "sofa.ark.biz.main.class"
"""The key of ``envs`` that names another entry for this install, as the field spells it."""

_log: Final = logging.getLogger("koupleless")

_GRACE_S: Final = 1.0
"""Seconds given to a step beyond its own deadline, to report the missed deadline."""

_MOMENT_S: Final = 0.2
"""Seconds given to all daemon threads with a way to stop, together, before the process ends."""

_FLOOR_S: Final = 0.1
"""Seconds given to a stop hook in any case, however long the hooks before took."""


_Inside: TypeAlias = "Gate | Visits | AwaitedTasks"
_End: TypeAlias = "Callable[[Sequence[_Inside], float], Coroutine[Any, Any, list[int]]]"


class Life:
    """Everything that was set up for one biz.

    Owned by the container's entry of the biz; made, started and left by one thread at a time. After `leave`, a life
    refers to nothing of the biz.
    """

    def __init__(self, prepared: Prepared, around: Surroundings) -> None:
        self.biz = prepared.id
        self.scope = Scope(prepared.id, around.ground)
        self.gate: Gate | None = None
        self.forwards: tuple[Rule, ...] = ()
        """The forward rules in the configuration of the biz."""
        self.libraries: tuple[Library, ...] = ()
        """The libraries imported by the end of the start, and how the biz holds each."""
        self.warnings: tuple[str, ...] = ()
        """Texts for the end of the start, first of all about changes that the biz has made for everybody."""
        self.remains: Survey | None = None
        """After `leave`: a survey with weak references to objects still alive; ``None`` if there were none."""
        self._prepared = prepared
        self._around = around
        self._namespace: Namespace | None = None
        self._lifespan: Lifespan | None = None
        self._left = NOTHING_CHANGED
        self._daemons_s = math.inf
        self._failures: list[str] = []
        self._notes: list[str] = []
        self._ended: list[str] = []

    # --- in ------------------------------------------------------------------------------------------------------

    def start(self, *, args: Sequence[str], envs: Mapping[str, str]) -> None:
        """Set the biz up, import the entry and start the application; the gate is open afterwards.

        Raises ``StartFailed`` or ``StartTimeout``; the caller then calls `leave`.
        """
        deadline = time.monotonic() + self._around.deadlines.start_s
        entry = envs.get(ENTRY_OVERRIDE) or self._prepared.manifest.entry
        failure: StartFailed | None = None
        try:
            self._set_up(args, envs)
            # The imported face gets no name here: the failure keeps this frame, and with the frame its names.
            self._start_application(self._imported(entry, deadline), entry, deadline)
            assert self._namespace is not None
            self.warnings = (*self._told_of_files(), *self.scope.facet(Watch).check(), *self._told_of_zone())
            self.libraries = self._namespace.libraries()
        except BaseException as error:  # noqa: BLE001 - whatever a biz raises, SystemExit too, is a failed start
            failure = self._explain(error)
        if failure is not None:
            raise failure  # outside of the handler, so that the biz's exception, with frames, is not the context

    def _set_up(self, args: Sequence[str], envs: Mapping[str, str]) -> None:
        manifest, around, scope = self._prepared.manifest, self._around, self.scope
        scope.attach(Ledger(scope))
        scope.attach(around.services.space(scope))
        made: dict[str, Callable[[], str]] = {}
        if around.data_dir is not None:
            place = envs.get(VARIABLE) or around.data_dir / self.biz.name
            directory = DataDirectory(Path(place).absolute(), self._prepared.unpacked.path)
            made[VARIABLE] = directory.variable
            scope.attach(directory)
        scope.attach(Environment(scope, envs=envs, args=args, made=made))
        scope.attach(Warnings())
        scope.attach(Own())
        configuration = Configuration.load(
            self.biz.name,
            profile=around.profile,
            directories=around.config_dirs,
            own=[place for root in self._prepared.unpacked.class_path[:1] for place in (root / "config", root)],
            args=args,
            envs=envs,
            shared=around.shared_config,
        )
        scope.attach(configuration)
        self.forwards = read_rules(configuration, origin=f"{self.biz}: {FORWARDS}")
        scope.attach(LogSpace.from_configuration(scope, configuration, directory=around.log_dir))
        policy = Policy(
            declared=frozenset(manifest.declared_libraries),
            deny=manifest.deny_imports,
            requirements=manifest.requirements,
        )
        speakers = Speakers(
            module=Wishes.of(manifest.own, manifest.shared),
            base=around.wishes,
            application=around.application,
            words=words(),
        )
        paths = [str(path) for path in self._prepared.unpacked.class_path]
        scope.attach(OwnCode(paths[0], paths[1:]))
        self._namespace = Namespace(scope, paths, policy, speakers)
        prefix = self._prepared.unpacked.scratch / f"{self.biz.name}-{scope.generation}"
        venv = VirtualEnvironment(prefix, paths, policy)
        scope.attach(venv)
        scope.attach(Interpreter(str(venv.prefix), str(venv.executable), venv.make))
        scope.attach(PrivateLibraries(self._namespace.library_of))
        stores = self._namespace.stores
        watch = changes.watch(scope, all_of_base, builtins=self._namespace.builtins, storing=stores)
        stores.when_first(watch.begin)

    def _imported(self, entry: str, deadline: float) -> Face:
        return self._around.stage.run(
            lambda: self._import(entry), name=f"import {self.biz}", timeout_s=_left(deadline), may_interrupt=True
        )

    def _import(self, entry: str) -> Face:
        assert self._namespace is not None
        of_loop = LoopCalls()
        self.scope.attach(of_loop)
        face = self.scope.variables.context.run(load_entry, self._namespace, entry, biz=self.biz)
        # Without a base, the importing thread is the loop's thread, which has the thread locals of the import.
        values, calls = self._namespace.thread_values(), of_loop.take()
        if values or calls:
            with entered(self.scope):
                self._around.stage.call(functools.partial(_enter_values, values, calls), timeout_s=_GRACE_S)
        return face

    def _start_application(self, face: Face, entry: str, deadline: float) -> None:
        if face.start is not None:
            refuse_application(
                self._call(
                    face.start,
                    self.scope.variables.context,
                    name="start",
                    timeout_s=_left(deadline),
                    may_interrupt=True,
                ),
                entry=entry,
                biz=self.biz,
            )
        self.scope.variables.settle()
        if face.asgi is not None:
            app = unmounted(face.asgi) if self._prepared.manifest.strips_path else face.asgi
            lifespan = Lifespan(app, scope=self.scope)
            watch = self.scope.facet(Watch)
            self.gate = Gate(self.scope, app, state=lifespan.state, close=face.close, after_first=watch.check_soon)
            self._lifespan = lifespan
            timeout_s = _left(deadline)
            self._around.stage.call(
                lambda: lifespan.startup(timeout_s), timeout_s=timeout_s + _GRACE_S, may_interrupt=True
            )

    def _told_of_files(self) -> tuple[str, ...]:
        notice = self._prepared.unpacked.notice
        if notice is None:
            return ()
        _log.warning("biz %s: %s", self.biz, notice)
        return (notice,)

    def _told_of_zone(self) -> tuple[str, ...]:
        with entered(self.scope):
            told = other_zone()
        if told is None:
            return ()
        _log.warning("biz %s: %s", self.biz, told)
        return (told,)

    def _explain(self, error: BaseException) -> StartFailed:
        """Make the failure anew without the exception: the frames of the exception hold the biz to be removed."""
        if isinstance(error, StartTimeout | DeadlineMissed):
            return StartTimeout(self.biz, self._around.deadlines.start_s)
        if isinstance(error, ContainerClosed):
            return StartFailed(self.biz, "was not started: the base is shutting down")
        damage = self._prepared.unpacked.damage()
        because = "" if damage is None else f"; {damage}"
        if isinstance(error, StartFailed):
            return StartFailed(self.biz, error.reason + because, traceback=error.traceback)
        reason = f"did not start: {in_words(error, self.scope)}{because}"
        return StartFailed(self.biz, reason, traceback=own_traceback(error))

    # --- out -----------------------------------------------------------------------------------------------------

    def leave(self, *, with_process: bool = False) -> PurgeReport:
        """Take the biz down and prove that the biz is gone. Never raises; all errors are in the report. Idempotent.

        The caller has withdrawn the biz's routes before, so that no new request arrives. ``with_process`` tells that
        the process ends next, and daemon threads with the process: they are asked to stop and hardly awaited.
        """
        self._daemons_s = _MOMENT_S if with_process else math.inf
        for step in (
            self._drain,
            self._withdraw_services,
            self._stop_application,
            self._close_entrance,
        ):
            self._attempt(step.__name__.strip("_").replace("_", " "), step)
        for step in (
            self._undo_registrations,
            self._take_changes_back,
            self._rescue_files,
        ):
            name = step.__name__.strip("_").replace("_", " ")
            self._attempt(name, functools.partial(self._aside, name, step))
        try:
            with held_back():
                survey = self._aside("let go", self._let_go, several=3)
                report = self._aside("purge", lambda: self._purge(survey), several=2)
        except BaseException as error:  # noqa: BLE001 - it looks at objects of anybody's making
            failures = (*self._failures, f"purge: {in_words(error, self.scope)}")
            return PurgeReport(self.biz, clean=False, held=(), undone={}, failures=failures, elapsed_ms=0.0)
        self.remains = survey if report.held else None
        return report

    def _aside(self, what: str, step: Callable[[], T], *, several: int = 1) -> T:
        """Take a step of leaving on a thread; a thread without an end is left behind, and the other steps go on.

        The step may run code of the biz, a finaliser say, wait for a lock of a thread of the biz, or for a file system.
        ``several`` is the number of times that the step may wait for `Deadlines.stop_s`. Returns the step's result.
        """
        timeout_s = several * self._around.deadlines.stop_s + _GRACE_S
        return self._around.stage.run(step, name=f"{what} {self.biz}", timeout_s=timeout_s)

    def _purge(self, survey: Survey) -> PurgeReport:
        with loop_at_hand():
            report = purge(
                survey, failures=tuple(self._failures), sweeps=SWEEPS, left=self._left, ended=tuple(self._ended)
            )
        return replace(report, notes=tuple(self._notes))

    def _drain(self) -> None:
        """Wait for requests in flight and calls of the services; an unfinished request or call gets an error."""
        drain_s, stop_s, calls = self._around.deadlines.drain_s, self._around.deadlines.stop_s, self.scope.calls
        ends = time.monotonic() + drain_s
        calls.shut()
        inside: dict[str, _Inside] = {} if self.gate is None else {"requests": self.gate}
        if calls:
            inside["calls of its services"] = calls
        left = self._left_of(inside, _drained, drain_s)
        self._tell_aborted(left)
        stubborn = self._left_of({kind: inside[kind] for kind in left}, _aborted, stop_s)
        if stubborn.pop("calls of its services", 0):  # the callers get an answer all the same
            stubborn |= self._left_of({"calls of its services": calls}, _aborted, _GRACE_S)
        self._failures += [f"{count} of the {kind} ignore that and go on" for kind, count in stubborn.items()]
        awaited = AwaitedTasks(self.scope, self._around.stage.loop)
        if awaited:
            tasks: dict[str, _Inside] = {"tasks that others wait for": awaited}
            self._tell_aborted(self._left_of(tasks, _drained, _left(ends)))
            self._left_of(tasks, _aborted, 0.0)

    def _left_of(self, inside: Mapping[str, _Inside], end: _End, timeout_s: float) -> dict[str, int]:
        """Return the number, by kind, of requests and calls that have not ended in time."""
        if not inside:
            return {}
        begin = functools.partial(end, tuple(inside.values()), timeout_s)
        counts = self._around.stage.call(begin, timeout_s=timeout_s + _GRACE_S)
        return {kind: count for kind, count in zip(inside, counts, strict=True) if count}

    def _tell_aborted(self, left: Mapping[str, int]) -> None:
        drain_s = self._around.deadlines.drain_s
        self._failures += [
            f"{count} {kind} had not ended after {drain_s:g} s and were aborted" for kind, count in left.items()
        ]

    def _withdraw_services(self) -> None:
        """Withdraw the services, on a thread, because closing services is code of the biz."""
        services, stop_s = self._around.services, self._around.deadlines.stop_s
        self._failures += self._around.stage.run(
            lambda: services.withdraw(self.scope), name=f"withdraw {self.biz}", timeout_s=stop_s
        )

    def _stop_application(self) -> None:
        """Shut the application down, then call the stop hooks; one deadline for all."""
        deadline = time.monotonic() + self._around.deadlines.stop_s
        self._attempt("shut application down", self._shut_application_down)
        for hook in self.scope.take_stop_hooks():
            timeout_s = max(_left(deadline), _FLOOR_S)
            call = functools.partial(self._call, hook, life_context(self.scope), name="stop", timeout_s=timeout_s)
            self._attempt(f"stop hook {getattr(hook, '__qualname__', type(hook).__qualname__)}", call)

    def _shut_application_down(self) -> None:
        lifespan, self._lifespan = self._lifespan, None
        if lifespan is not None:
            stop_s = self._around.deadlines.stop_s
            self._around.stage.call(lambda: lifespan.shutdown(stop_s), timeout_s=stop_s + _GRACE_S)

    def _close_entrance(self) -> None:
        gate, self.gate = self.gate, None
        if gate is not None:
            self._failures += [f"worker thread {name} is still busy" for name in gate.close()]

    def _undo_registrations(self) -> None:
        ledger = self.scope.find_facet(Ledger)
        if ledger is not None:
            around = self._around
            failures = ledger.undo_all(around.deadlines.stop_s, daemons_s=self._daemons_s, by_force=around.ends_threads)
            self._ended += ledger.ended
            self._failures += [str(failure) for failure in failures]

    def _take_changes_back(self) -> None:
        watch = self.scope.find_facet(Watch)
        if watch is not None:
            self._left = watch.leave()

    def _rescue_files(self) -> None:
        directory = self.scope.find_facet(DataDirectory)
        if directory is None:
            return
        try:
            note = rescue(self._prepared.unpacked, directory.path)
        except OSError as error:
            note = f"{self.biz} may have written below its code; that was not copied to {directory.path}: {error}"
        if note is not None:
            _log.warning("%s", note)
            self._notes.append(note)

    def _let_go(self) -> Survey:
        """Drop the container's last references; returns a survey, which refers weakly to all that must be gone now."""
        scope, namespace = self.scope, self.scope.find_facet(Namespace)
        self._namespace = None
        with contextlib.ExitStack() as closing:  # from the last to the first, each despite errors of the others
            closing.callback(scope.close)
            if namespace is not None:
                closing.callback(namespace.drop)
            venv = scope.find_facet(VirtualEnvironment)
            if venv is not None:
                closing.callback(self._attempt, "remove environment", lambda: self._aside("unlink", venv.remove))
            interpreter = scope.find_facet(Interpreter)
            if interpreter is not None:
                closing.callback(interpreter.close)
            shown = scope.find_facet(Warnings)
            if shown is not None:
                closing.callback(shown.close)
            logs = scope.find_facet(LogSpace)
            if logs is not None:
                closing.callback(self._attempt, "close logs", lambda: self._failures.extend(logs.close()))
            survey = Survey(scope, {}) if namespace is None else Survey(scope, namespace.table, namespace.namesakes())
            released, failures = call_releasers(survey, deadline_s=self._around.deadlines.stop_s)
            survey.undone = {**survey.undone, **released}
            self._failures += failures
            return survey

    # --- both ----------------------------------------------------------------------------------------------------

    def _call(
        self,
        function: Callable[[], object],
        context: Context,
        *,
        name: str,
        timeout_s: float,
        may_interrupt: bool = False,
    ) -> object:
        """Call a function of the biz on a thread, in ``context``; an awaitable result is awaited there on the loop."""
        deadline = time.monotonic() + timeout_s
        as_biz, stage = functools.partial(context.run, function), self._around.stage
        result = stage.run(as_biz, name=f"{name} {self.biz}", timeout_s=timeout_s, may_interrupt=may_interrupt)
        if inspect.isawaitable(result):
            finish = functools.partial(_finish, result, context, str(self.biz))
            with entered(self.scope):  # the task is the biz's: the task inherits the context of the calling code
                result = stage.call(finish, timeout_s=_left(deadline), may_interrupt=may_interrupt)
        return result

    def _attempt(self, what: str, step: Callable[[], object]) -> None:
        try:
            step()
        except BaseException as error:  # noqa: BLE001 - a biz may raise SystemExit here; it goes into the report
            self._failures.append(f"{what}: {in_words(error, self.scope)}")


async def _drained(inside: Sequence[_Inside], timeout_s: float) -> list[int]:
    return await asyncio.gather(*(one.drain(timeout_s) for one in inside))


async def _aborted(inside: Sequence[_Inside], timeout_s: float) -> list[int]:
    return await asyncio.gather(*(one.abort(timeout_s) for one in inside))


async def _enter_values(
    values: list[tuple[threading.local, dict[str, Any]]], calls: list[Callable[[], object]]
) -> None:
    """Give the loop's thread the thread locals of the importing thread, where the loop's thread has none.

    Values set by the ``__init__`` of a class of thread locals, at the first use on the loop's thread, do not count.
    """
    for local, table in values:
        before = {id(known) for known in values_by_thread(local)}
        here = vars(local)
        is_new = id(here) not in before
        here.update({name: value for name, value in table.items() if is_new or name not in here})
    for call in calls:
        call()


def _left(deadline: float) -> float:
    return max(deadline - time.monotonic(), 0.001)


async def _finish(result: Awaitable[object], context: Context, name: str) -> object:
    try:
        return await await_in(context, lambda: result)
    except EXITS as error:
        # In a task, an exit would end the event loop, and with the loop every other biz.
        raise in_place_of(error, name, "in a hook") from error
