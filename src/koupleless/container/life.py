"""One life of one biz: the steps of the start, as values; the steps out are those of `leaving.departure`.

Leaving takes down everything that exists, so a start that fails half way takes the same way out as an uninstall.
"""

from __future__ import annotations

import functools
import logging
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from koupleless.adapters.own import LoopCalls
from koupleless.changes.changes import Watch, changes
from koupleless.container.leaving.departure import Departure
from koupleless.container.stage import DeadlineMissed, seconds_until
from koupleless.container.starting.entry import load_entry, refuse_application
from koupleless.container.starting.facets import equip
from koupleless.container.starting.failure import in_words
from koupleless.container.starting.portrait import Portrait
from koupleless.container.starting.prepare import words
from koupleless.container.surroundings import GRACE_S
from koupleless.context import Scope, entered
from koupleless.errors import ContainerClosed, InstallCancelled, StartFailed, StartTimeout
from koupleless.isolation.interpreter import all_of_base
from koupleless.isolation.libraries.holding import Speakers, Wishes
from koupleless.isolation.namespace import Namespace
from koupleless.isolation.policy import Policy
from koupleless.recorders.registries.interpreter.finalizers import values_by_thread
from koupleless.recorders.running.forks import OwnCode
from koupleless.router.around.cookies import with_scoped_cookies
from koupleless.router.around.mount import unmounted
from koupleless.router.gate import Gate
from koupleless.router.gateway import FORWARDS, read_rules
from koupleless.router.lifespan import Lifespan
from koupleless.service.crossing import PrivateLibraries
from koupleless.tracebacks import own_traceback
from koupleless.traffic import UNCOUNTED, Traffic
from koupleless.view.config import Configuration
from koupleless.view.data import VARIABLE, DataDirectory
from koupleless.view.environ import Environment
from koupleless.view.logging.logs import LogSpace
from koupleless.view.logging.requests import logged
from koupleless.view.shared.zone import other_zone
from koupleless.view.working import WorkingDirectory

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Mapping, Sequence

    from koupleless.container.starting.environment import Variables
    from koupleless.container.starting.prepare import Prepared
    from koupleless.container.surroundings import Surroundings
    from koupleless.descriptions import Library
    from koupleless.ownership.purge import PurgeReport, Survey
    from koupleless.router.face import Face
    from koupleless.router.gateway import Rule
    from koupleless.router.types import ASGIApp

ENTRY_OVERRIDE: Final = "sofa.ark.biz.main.class"
"""The key of ``envs`` that names another entry for this install, as the field spells it."""

_log: Final = logging.getLogger("koupleless")


class Life:
    """Everything that was set up for one biz.

    Owned by the container's entry of the biz; made, started and left by one thread at a time. After `leave`, a life
    refers to nothing of the biz.
    """

    def __init__(self, prepared: Prepared, around: Surroundings, *, traffic: Traffic = UNCOUNTED) -> None:
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
        self._lifespan: Lifespan | None = None
        self._traffic = traffic
        """The count of the requests, shared with other lives of the same identity."""

    # --- in ------------------------------------------------------------------------------------------------------

    def start(self, *, args: Sequence[str], variables: Variables) -> None:
        """Take the steps of `STARTING`; the gate is open afterwards.

        Raises ``StartFailed`` or ``StartTimeout``; the caller then calls `leave`.
        """
        manifest, around = self._prepared.manifest, self._around
        opening = Opening(args, manifest.entry, time.monotonic() + around.deadlines.start_s)
        failure: StartFailed | None = None
        try:
            opening.envs = variables.folded(
                manifest,
                self._prepared.unpacked.path,
                environments=around.environments,
                directories=around.config_dirs,
            )
            opening.entry = opening.envs.get(ENTRY_OVERRIDE) or manifest.entry
            for step in STARTING:
                step.take(self, opening)
        except BaseException as error:  # noqa: BLE001 - whatever a biz raises, SystemExit too, is a failed start
            failure = self._explain(error)
        finally:
            opening.face = None  # the failure keeps this frame, and with the frame its names
        if failure is not None:
            raise failure  # outside of the handler, so that the biz's exception, with frames, is not the context

    def set_up(self, opening: Opening) -> None:
        """Hang the facets on the scope."""
        args, envs = opening.args, opening.envs
        manifest, around, scope, unpacked = self._prepared.manifest, self._around, self.scope, self._prepared.unpacked
        scope.attach(around.services.space(scope))
        made: dict[str, Callable[[], str]] = {}
        if around.data_dir is not None:
            place = envs.get(VARIABLE) or around.data_dir / self.biz.name
            directory = DataDirectory(Path(place).absolute(), unpacked.path)
            made[VARIABLE] = directory.variable
            scope.attach(directory)
            scope.attach(WorkingDirectory(directory, unpacked.path))
        configuration = Configuration.load(
            self.biz.name,
            profile=around.profile,
            directories=around.config_dirs,
            own=[place for root in unpacked.class_path[:1] for place in (root / "config", root)],
            args=args,
            envs=envs,
            shared=around.shared_config,
        )
        scope.attach(configuration)
        self.forwards = read_rules(configuration, origin=f"{self.biz}: {FORWARDS}")
        paths = [str(path) for path in unpacked.class_path]
        scope.attach(OwnCode(paths[0], paths[1:]))
        namespace = equip(
            scope,
            Environment(scope, envs=envs, args=args, made=made),
            paths,
            Policy(
                declared=frozenset(manifest.declared_libraries),
                deny=manifest.deny_imports,
                requirements=manifest.requirements,
            ),
            speakers=Speakers(
                module=Wishes.of(manifest.own, manifest.shared),
                base=around.wishes,
                application=around.application,
                words=words(),
            ),
            texts=unpacked.text_of,
            prefix=unpacked.scratch / f"{self.biz.name}-{scope.generation}",
            logs=lambda: LogSpace.from_configuration(scope, configuration, logbook=around.logbook),
        )
        scope.attach(PrivateLibraries(namespace.library_of))
        around.watch.follow(scope)
        if self._traffic is not UNCOUNTED:
            scope.attach(self._traffic)  # for threads that work for the biz
        scope.attach(self._portrait(paths))
        watch = changes.watch(scope, all_of_base, builtins=namespace.builtins, storing=namespace.stores)
        namespace.stores.when_first(watch.begin)

    def _portrait(self, paths: Sequence[str]) -> Portrait:
        manifest, around = self._prepared.manifest, self._around
        directory = self.scope.find_facet(DataDirectory)
        return Portrait(
            name=self.biz.name,
            version=self.biz.version,
            paths=tuple(paths),
            scratch=str(self._prepared.unpacked.scratch),
            data_dir="" if directory is None else str(directory.path),
            config_dirs=tuple(str(place.absolute()) for place in around.config_dirs),
            profile=around.profile,
            declared=manifest.declared_libraries,
            deny=manifest.deny_imports,
            requirements=manifest.requirements,
            own=manifest.own,
            shared=manifest.shared,
            own_in_base=tuple(sorted(around.wishes.own)),
            shared_in_base=tuple(sorted(around.wishes.shared)),
        )

    def import_entry(self, opening: Opening) -> None:
        """Import the entry, on a thread."""
        opening.face = self._around.stage.run(
            lambda: self._import(opening.entry),
            name=f"import {self.biz}",
            timeout_s=seconds_until(opening.deadline),
            may_interrupt=True,
            scope=self.scope,
        )

    def _import(self, entry: str) -> Face:
        namespace, of_loop = self.scope.facet(Namespace), LoopCalls()
        self.scope.attach(of_loop)
        face = self.scope.variables.context.run(load_entry, namespace, entry, biz=self.biz)
        # Without a base, the importing thread is the loop's thread, which has the thread locals of the import.
        values, calls = namespace.thread_values(), of_loop.take()
        if values or calls:
            with entered(self.scope):
                self._around.stage.call(functools.partial(_enter_values, values, calls), timeout_s=GRACE_S)
        return face

    def start_application(self, opening: Opening) -> None:
        """Call a callable entry, or start the lifespan of an application and open the gate."""
        stage, face = self._around.stage, opening.face
        assert face is not None
        if face.start is not None:
            timeout_s, context = seconds_until(opening.deadline), self.scope.variables.context
            result = stage.call_as(
                self.scope, face.start, context, name="start", timeout_s=timeout_s, may_interrupt=True
            )
            refuse_application(result, entry=opening.entry, biz=self.biz)
        self.scope.variables.settle()
        if face.asgi is not None:
            app = self._served(face.asgi)
            self._lifespan = lifespan = Lifespan(app, scope=self.scope)
            watch = self.scope.facet(Watch)
            self.gate = Gate(
                self.scope,
                logged(app, self.scope.facet(LogSpace)),
                state=lifespan.state,
                close=face.close,
                after_first=watch.check_soon,
                traffic=self._traffic,
            )
            timeout_s = seconds_until(opening.deadline)
            stage.call(lambda: lifespan.startup(timeout_s), timeout_s=timeout_s + GRACE_S, may_interrupt=True)

    def _served(self, app: ASGIApp) -> ASGIApp:
        """The application, with what its manifest asks for between application and browser."""
        manifest = self._prepared.manifest
        if manifest.strips_path:
            app = unmounted(app)
        return with_scoped_cookies(app) if manifest.scopes_cookies else app

    def take_stock(self, opening: Opening) -> None:  # noqa: ARG002 - as the other steps
        """Note the libraries in use, and changes that everybody sees."""
        self.warnings = (*self._told_of_files(), *self.scope.facet(Watch).check(), *self._told_of_zone())
        self.libraries = self.scope.facet(Namespace).libraries()
        self._prepared.unpacked.forget_texts()

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
        if isinstance(error, InstallCancelled):
            return StartFailed(self.biz, "was not started: the install was cancelled")
        damage = self._prepared.unpacked.damage()
        because = "" if damage is None else f"; {damage}"
        if isinstance(error, StartFailed):
            return StartFailed(self.biz, error.reason + because, traceback=error.traceback)
        reason = f"did not start: {in_words(error, self.scope)}{because}"
        return StartFailed(self.biz, reason, traceback=own_traceback(error))

    # --- out -----------------------------------------------------------------------------------------------------

    def leave(self, *, with_process: bool = False, drain_s: float | None = None) -> PurgeReport:
        """Take the biz down and prove that the biz is gone. Never raises; all errors are in the report. Idempotent.

        The caller has withdrawn the biz's routes before, so that no new request arrives. ``with_process`` tells that
        the process ends next, and daemon threads with the process: they are asked to stop and hardly awaited.
        ``drain_s`` shortens the time for requests in flight.
        """
        departure = Departure(
            self.scope,
            self._around,
            self._prepared.unpacked,
            gate=self.gate,
            lifespan=self._lifespan,
            with_process=with_process,
            drain_s=drain_s,
        )
        self.gate = self._lifespan = None
        report = departure.run()
        self.remains = departure.remains
        return report


@dataclass(slots=True)
class Opening:
    """The start of one life, from step to step."""

    args: Sequence[str]
    entry: str
    deadline: float
    """The end of the time for all steps, by the monotonic clock."""
    envs: Mapping[str, str] = field(default_factory=dict, repr=False)
    """The variables of the biz, folded; values may be secrets."""
    face: Face | None = None
    """The imported entry."""


class Step(NamedTuple):
    """One step of a start."""

    name: str
    take: Callable[[Life, Opening], None]


STARTING: Final = (
    Step("set up", Life.set_up),
    Step("import entry", Life.import_entry),
    Step("start application", Life.start_application),
    Step("take stock", Life.take_stock),
)
"""In the order of a start."""


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
