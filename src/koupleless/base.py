"""Put a base together, as a server of its own or inside another server, and take the base down in reverse order.

This is the composition root of the base side: settings are read here and nowhere below, every part is made here, and
one function starts the parts in order. The code of a base may import ``koupleless.base``.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import os
import signal
import socket
import sys
from typing import TYPE_CHECKING, Any, Final

from koupleless.arklet.health import BaseMetadata
from koupleless.arklet.operations import Operations
from koupleless.arklet.pages.pages import Pages
from koupleless.arklet.pages.probes import probe_apps
from koupleless.arklet.server import ArkletServer
from koupleless.artifact.fetching.credentials import Credentials
from koupleless.artifact.keeping.cleaning import Retention
from koupleless.artifact.store import Store
from koupleless.artifact.temporary import sweep_all, temporary_directory
from koupleless.biz import BizId
from koupleless.container.container import Container
from koupleless.container.stage import Stage
from koupleless.container.starting.prepare import Preparation, words
from koupleless.container.surroundings import Deadlines, Surroundings
from koupleless.container.terms import Place, Rules
from koupleless.context import as_base
from koupleless.descriptions import BizInfo
from koupleless.errors import BaseStartFailed, ContainerClosed, KouplelessError
from koupleless.health.readiness import Readiness, Status
from koupleless.health.watch import LoopWatch
from koupleless.isolation.libraries.distributions import base_index
from koupleless.isolation.libraries.holding import Speakers, Wishes, decide
from koupleless.isolation.policy import SELF
from koupleless.metrics.exposition import expose
from koupleless.ownership.purge import freeze_base
from koupleless.recorders.running.executors import leave_workers_behind
from koupleless.recorders.running.threads import leave_shared_workers_behind
from koupleless.replay import replay
from koupleless.router.asgi import Front
from koupleless.router.face import face_of, refusing_wsgi
from koupleless.router.gateway import FORWARDS, Forwards, read_rules
from koupleless.router.table import RouteTable
from koupleless.service.registry import default_registry
from koupleless.settings.base import UNNAMED, BaseSettings, load_base
from koupleless.settings.reading import FIRST_ARKLET_PORT
from koupleless.settings.server import server_certificate, server_options
from koupleless.state.book import digests_in
from koupleless.state.environments import Environments
from koupleless.state.holding import Holding
from koupleless.supervisor import Supervisor, address_of, handed_sockets
from koupleless.variables import Ground
from koupleless.view.config import Configuration
from koupleless.view.logging.configured import json_configuration, read_configuration
from koupleless.view.logging.files import Rotation
from koupleless.view.logging.logbook import Console, Logbook, say_alone

if TYPE_CHECKING:
    from collections.abc import Mapping, MutableMapping, Sequence
    from pathlib import Path

    from koupleless.announce.announcer import Announcer
    from koupleless.arklet.reviewer import Reviewer
    from koupleless.router.types import Receive, Send
    from koupleless.settings.base import ArkletSettings
    from koupleless.settings.controller import ReviewSettings

__all__ = ["Base", "serve"]

logger = logging.getLogger("koupleless.base")
_logger: Final = logging.getLogger("koupleless")

_UNPACKED_S: Final = 240.0
"""Seconds for checking and unpacking an artefact after the download."""

_LAST_S: Final = 1.0
"""Seconds for the last tasks to end before the process ends."""

_SEVERAL: Final = (
    "this process is one of several workers, and each worker is a base of its own: a module that is deployed to one "
    "is not in the others, and any worker may answer a request; run one worker, or `arkctl serve`"
)


class Base:
    """A warm process that takes modules: an ASGI application around the application of the base.

    ``app`` is any ASGI or WSGI application, or ``None`` for a base with modules only. The routes of ``app`` work as
    before; modules answer below their paths, operations reach the base through the arklet. ``name`` overrides the name
    in ``settings``; settings not given are read from the environment and the file of the project. ``owns_process``
    allows the collector to pass over all objects loaded before the first module (``gc.freeze``), which keeps an
    uninstall fast beside a large heap, and gives the base a state directory by default; without ``owns_process``
    modules are kept over a restart only with the setting ``state-dir``. ``application`` is the name of the Python
    module of ``app``, by default the calling one: bizs share the distribution of ``app``, as they share code that is
    not installed. ``project_envs`` are the variables in the env-files of projects, by the location of the static module
    that was built from the project.

    Lifetime: made once per process, when the server imports the application, which starts nothing. A base lives from
    the start-up to the shutdown of the server's lifespan, on the server's loop, with the arklet on a thread of its own.

    Raises ``SettingsError`` for unusable settings, ``TypeError`` for an ``app`` that is no application.
    """

    def __init__(
        self,
        app: object = None,
        *,
        name: str | None = None,
        settings: BaseSettings | None = None,
        owns_process: bool = False,
        application: str | None = None,
        project_envs: Mapping[str, Mapping[str, str]] | None = None,
    ) -> None:
        self.settings = load_base({"name": name}) if settings is None else settings
        settings = self.settings
        name = name or settings.name
        face = face_of(app, name=name)
        if app is not None and face.asgi is None:
            raise TypeError(f"{app!r} is neither an ASGI nor a WSGI application")
        self._owns_process = owns_process
        self._closing = contextlib.ExitStack()
        if application is None:
            application = sys._getframe(1).f_globals.get("__name__", "")  # noqa: SLF001
        self._speakers = Speakers(
            base=Wishes.of(settings.own, settings.shared),
            application=frozenset(base_index().owners(application)) - {SELF},
        )
        self._holding = _holding(settings, name, has_default=owns_process)
        self._ground = Ground()
        self._environments = Environments()
        self._project_envs = project_envs or {}
        self._stage = Stage()
        self._store = Store(self._store_dir())
        configuration = Configuration.load("", profile=settings.profile or "", own=settings.config_dirs)
        table = RouteTable(_forwards(settings, configuration))
        self._front = Front(face.asgi, table=table, on_startup=self._begin, on_shutdown=self._end)
        self.services = default_registry()
        logbook = self._logbook()
        self.container = Container(
            base=BizInfo.of_base(BizId.of(name, settings.version)),
            front=self._front,
            preparation=Preparation(
                self._store,
                allowed_prefixes=settings.allowed_sources,
                timeout_s=settings.fetch_timeout_s,
                credentials=Credentials(settings.pull_secrets_file, settings.pull_secrets),
            ),
            around=Surroundings(
                stage=self._stage,
                services=self.services,
                ground=self._ground,
                deadlines=Deadlines(
                    prepare_s=settings.fetch_timeout_s + _UNPACKED_S,
                    start_s=settings.start_timeout_s,
                    drain_s=settings.drain_timeout_s,
                    stop_s=settings.stop_timeout_s,
                    silence_s=settings.silence_before_uninstall_s,
                ),
                profile=settings.profile or "",
                config_dirs=settings.config_dirs,
                logbook=logbook,
                watch=LoopWatch(settings.block_warning_s, logbook),
                data_dir=settings.data_dir,
                environments=self._environments,
                shared_config=_shared_config(settings, configuration),
                wishes=self._speakers.base,
                application=self._speakers.application,
                ends_threads=settings.end_threads,
                counts=settings.arklet.metrics,
            ),
            rules=Rules(
                activate_new=settings.activate_new,
                activate_many=settings.activate_many,
                activate_next=settings.activate_next,
                keep_broken=settings.keep_broken,
            ),
        )
        self._readiness = Readiness(self.container, self._stage.call_as, with_modules=settings.ready_with_modules)
        self._front.fallbacks = probe_apps(self._readiness)
        ops = settings.arklet
        metadata = BaseMetadata.of_this_machine(
            name=name,
            version=settings.version,
            identity=ops.identity,
            cluster=ops.cluster,
            environment=ops.environment,
            local_ip=ops.local_ip,
            bound=ops.host,
        )
        metadata = dataclasses.replace(metadata, service_port=ops.service_port or 0)
        self._operations = Operations(
            self.container,
            metadata,
            environments=self._environments,
            logbook=logbook,
            has_libraries=self._store.has_libraries,
            cancel=self._stage.cancel,
            live=self._front.live.keep,
            end=_end_process if owns_process else None,
            statuses=self._readiness.latest,
            has_consoles=ops.has_consoles(),
        )
        self._announcer = _announcer(ops, metadata, self.container, self._operations)
        self.arklet = ArkletServer(
            self._operations,
            ops.host,
            ops.port,
            ops.read_token(),
            ops.insecure,
            allowed_hosts=ops.allowed_hosts,
            header_timeout_s=ops.header_timeout_s,
            max_connections=ops.max_connections,
            metrics_token=ops.read_metrics_token(),
            reread=None if ops.token_file is None else ops.read_token,
            reviewer=_reviewer(ops.review) if ops.review.accounts else None,
            expose=expose if ops.metrics else None,
            pages=Pages(self._operations, self.container, self._readiness),
            certificate=server_certificate(ops, under="arklet."),
        )

    @refusing_wsgi
    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Serve one connection, as ASGI says. Raises ``TypeError`` if called as WSGI says, with advice."""
        if scope["type"] == "lifespan":
            self._ground.renew()  # the application has been imported; requests find the variables set by the import
        await self._front(scope, receive, send)

    async def _begin(self, loop: asyncio.AbstractEventLoop) -> None:
        self._stage.adopt(loop)
        self._closing.enter_context(
            say_alone(_logger, Console(is_json=self.settings.log_format == "json", name="koupleless"))
        )
        await asyncio.to_thread(self._start)

    def _start(self) -> None:
        """Install the static modules, then start the arklet; on a thread, because modules need the loop."""
        decide(
            base_index(), dataclasses.replace(self._speakers, words=words())
        )  # remembered, so that the first module need not wait
        if self._owns_process:
            freeze_base()
        try:
            for notice in self._holding.load(self.container.book, self._environments):
                logger.warning(notice)
            if self._announcer is not None:
                self._announcer.ask()
            for url in self._static_modules():
                self._install_static(url)
            self._install_wanted()
            self._clean()
            port = self._start_arklet()
            self._readiness.base = Status.UP
            if self._announcer is not None:
                self._announcer.begin(port)
        except BaseException:
            self._stop()
            raise

    def _clean(self) -> None:
        """Remove what killed processes have left, and what nobody needs in a store that stays."""
        sweep_all()
        if self._holding.journal is not None:
            self._store.add_book(self._holding.journal)
        if self._store_path is not None:
            settings = self.settings
            limits = Retention(settings.store_keep, settings.store_age_s, settings.store_bytes)
            self._store.remove_unused(limits, keep=set().union(*map(digests_in, self._store.books())))

    def _start_arklet(self) -> int:
        ops = self.settings.arklet
        try:
            port = self.arklet.start()
        except BaseStartFailed as error:
            if ops.port is not None and _is_one_of_several(range(ops.port, ops.port + 1)):
                raise BaseStartFailed(f"{error}; {_SEVERAL}") from error
            raise
        logger.info(_where(ops.host, port, is_chosen=ops.port is None))
        if ops.port is None and port != FIRST_ARKLET_PORT and _is_one_of_several(range(FIRST_ARKLET_PORT, port)):
            logger.warning(_SEVERAL)
        return port

    def _install_static(self, url: str) -> None:
        goes_on = self.settings.on_broken == "continue"
        try:
            prepared = self.container.prepare(url)
            envs = self._project_envs.get(url)
            self.container.install(prepared, project_envs=envs, place=Place(is_kept=goes_on))
        except ContainerClosed:
            raise
        except KouplelessError as error:
            said = f"static module {url} was not installed"
            if not goes_on:
                raise BaseStartFailed(f"{said}: {error}") from error
            logger.warning("%s, and the base serves without it: %s", said, error)

    def _install_wanted(self) -> None:
        """Install the modules that the controller wants, and those of former times."""
        has_successors = self.settings.activate_next or self.settings.activate_many
        baseline = None if self._announcer is None else self._announcer.baseline
        wanted = () if self._announcer is None else self._announcer.wanted()
        replay(
            self.container,
            has_successors=has_successors,
            wishes=None if baseline is None else baseline.wishes(wanted),
        )
        if baseline is not None and wanted:
            baseline.bring(wanted)

    def _static_modules(self) -> list[str]:
        found = list(self.settings.modules)
        if self.settings.modules_dir is not None:
            found += sorted(str(path) for path in self.settings.modules_dir.glob("**/*-ark-biz.*"))
        return found

    async def _end(self) -> None:
        await asyncio.to_thread(self._stop)

    def _stop(self) -> None:
        self._readiness.base = Status.DOWN
        if self._announcer is not None:
            self._announcer.leave()
        with self._closing as closing:  # from the last to the first, each whatever the others raise
            closing.callback(self._holding.release)
            if self._owns_process:
                closing.callback(self._operations.leave_behind)
                closing.callback(leave_workers_behind, self._readiness.workers)
            closing.callback(self._readiness.close)
            if self._announcer is not None:
                closing.callback(self._announcer.close)
            closing.callback(self.container.close, ends_process=self._owns_process)
            closing.callback(self._operations.close)
            closing.callback(self.arklet.stop)
            closing.callback(self.container.shut)  # first, so that callers waiting for an install get an answer

    def _logbook(self) -> Logbook:
        settings = self.settings
        return Logbook.make(
            settings.log_dir,
            Rotation(settings.log_size, settings.log_keep),
            is_json=settings.log_format == "json",
            level=settings.log_level,
            has_access=settings.access_log,
            has_console=self._owns_process and settings.log_config is None,
        )

    @property
    def _store_path(self) -> Path | None:
        """The directory of a store that stays."""
        state = self._holding.path
        return self.settings.store_dir or (None if state is None else state / "store")

    def _store_dir(self) -> Path:
        if self._store_path is not None:
            return self._store_path
        return self._closing.enter_context(temporary_directory("koupleless-store-"))


def _holding(settings: BaseSettings, name: str, *, has_default: bool) -> Holding:
    """The state directory: that of the settings, else the default one for a base with a process of its own."""
    if settings.ephemeral or (settings.state_dir is None and not has_default):
        return Holding(None)
    if settings.state_dir is not None:
        return Holding(settings.state_dir)
    return Holding.default(name, is_named=name != UNNAMED)


def _reviewer(settings: ReviewSettings) -> Reviewer:
    """The judge of callers with tokens of service accounts. Raises ``SettingsError``."""
    from koupleless.arklet.reviewer import Reviewer  # noqa: PLC0415 - not for a base outside a cluster

    return Reviewer.of(
        settings.address(os.environ),
        ca=settings.ca,
        accounts=settings.accounts,
        audience=settings.audience,
        read_token=settings.read_token,
    )


def _announcer(
    ops: ArkletSettings, metadata: BaseMetadata, container: Container, operations: Operations
) -> Announcer | None:
    """The announcer to the controllers in the settings; ``None`` without a controller. Raises ``SettingsError``."""
    http, mqtt = ops.controller, ops.mqtt
    if http.url is None and not mqtt.is_on:
        return None
    from koupleless.announce.announcer import Announcer  # noqa: PLC0415 - not for a base without a controller
    from koupleless.announce.baseline import Baseline  # noqa: PLC0415 - the same
    from koupleless.announce.controller import Controller, check_names  # noqa: PLC0415 - the same
    from koupleless.announce.session import Broker  # noqa: PLC0415 - the same

    check_names(metadata)
    controller = broker = None
    if http.url is not None:
        controller = Controller.of(http.url, ca=http.ca, read_token=http.read_token)
    if mqtt.is_on:
        broker = Broker.of(
            mqtt.broker or "",
            mqtt.port,
            client_prefix=mqtt.client_prefix,
            username=mqtt.username,
            read_password=mqtt.read_password,
            is_secure=mqtt.tls,
            issuers=mqtt.ca_path,
            certificate=mqtt.client_crt_path,
            key=mqtt.client_key_path,
            has_will=mqtt.last_will,
            obeys_retained=mqtt.retained,
        )
    return Announcer(
        metadata,
        Baseline(container, operations),
        controller=controller,
        patience_s=http.baseline_timeout_s,
        broker=broker,
    )


def _forwards(settings: BaseSettings, configuration: Configuration) -> Forwards:
    """The forward rules of the settings, else of the configuration files of the base, as in the original."""
    listed = settings.forwards
    return Forwards.of(read_rules({FORWARDS: listed}) if listed else read_rules(configuration))


def _shared_config(settings: BaseSettings, configuration: Configuration) -> dict[str, object]:
    """The values of the base's configuration for modules: the keys listed there or in the settings."""
    named = {key: configuration[key] for key in settings.shared_keys if key in configuration}
    return {**configuration.shared(), **named}


def _where(host: str, port: int, *, is_chosen: bool) -> str:
    """The address of the arklet in words, with the way to reach an arklet on another port than the first."""
    said = f"the arklet listens on {host} port {port}"
    if port == FIRST_ARKLET_PORT:
        return said
    if is_chosen:
        said = f"port {FIRST_ARKLET_PORT} is taken, so {said}"
    return f"{said}; to reach this base: arkctl status --port {port}, or ARKCTL_PORT={port} in the environment"


def _is_one_of_several(ports: range) -> bool:
    """Whether this process is one of several workers of a server, and another worker has an arklet at ``ports``."""
    import multiprocessing  # noqa: PLC0415 - where the first port is taken, alone

    import psutil  # type: ignore[import-untyped]  # noqa: PLC0415

    this = psutil.Process()
    try:
        server = this.parent()
        # Workers are spawned through multiprocessing (uvicorn, hypercorn), or forked as they are (gunicorn).
        if server is None or (multiprocessing.parent_process() is None and server.cmdline() != this.cmdline()):
            return False
        return any(
            connection.status == psutil.CONN_LISTEN and connection.laddr.port in ports
            for worker in server.children()
            if worker.pid != this.pid
            for connection in worker.net_connections("tcp")
        )
    except (psutil.Error, OSError):
        return False


def serve(
    app: object,
    settings: BaseSettings,
    *,
    application: str = "",
    project_envs: Mapping[str, Mapping[str, str]] | None = None,
) -> int:
    """Serve ``app`` as a base with uvicorn until a signal ends it; returns the exit status of the process.

    ``arkctl serve`` calls this function with the settings of its flags, on the main thread, which gets the signals.
    Sockets that the service manager has handed over are served in place of the address in ``settings``.
    ``application`` is the name of the Python module of ``app``, ``project_envs`` are those of `Base`.

    Raises ``BaseStartFailed`` for an address or a port that is not free, before anything is started.
    """
    import uvicorn  # noqa: PLC0415 - not needed inside another server

    from koupleless.connections import Bounds, Door, application_protocol  # noqa: PLC0415 - the same

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            door.watch(asyncio.get_running_loop())
            self.config.ssl = None if certificate is None else certificate.context
            await super().startup(sockets)
            if self.started:
                if sockets is not None:  # uvicorn names the addresses of its own sockets alone
                    logger.info(
                        "serving on %s, handed over by the service manager", ", ".join(map(address_of, sockets))
                    )
                supervisor.begin()

        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            supervisor.end()
            base._front.live.close()  # noqa: SLF001 - its streams are answers, for the end of which the server waits
            for each in self.servers:
                each.close()
            await door.hear_out()
            await super().shutdown(sockets)
            await _leave_tasks_behind(_LAST_S)

    supervisor, sockets = Supervisor(os.environ), handed_sockets(os.environ)
    options, certificate = server_options(settings), server_certificate(settings)
    if settings.uds is None and not sockets:
        _check_port(settings.host, settings.port)
    settings = _with_service_port(settings, sockets)
    bounds = Bounds.of_application(settings.header_timeout_s, settings.max_connections)
    base = Base(app, settings=settings, owns_process=True, application=application, project_envs=project_envs)
    door = Door(bounds, name="the application", setting="max-connections", logger=logger)
    server = Server(
        uvicorn.Config(
            base,
            **options,
            lifespan="on",
            http=application_protocol(door),
            backlog=bounds.backlog,
            access_log=settings.access_log,
            **_log_options(settings),
            timeout_graceful_shutdown=max(1, round(settings.drain_timeout_s)),
        )
    )
    # When it is done uvicorn raises the signal that ended it once more. SIGTERM then means that all is well.
    signal.signal(signal.SIGTERM, lambda *_: None)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # a closed terminal ends the base in order, too
        signal.signal(signal.SIGHUP, _hang_up)
    server.run(sockets or None)
    leave_shared_workers_behind()
    return 0 if server.started else 1


def _with_service_port(settings: BaseSettings, sockets: Sequence[socket.socket]) -> BaseSettings:
    """Return the settings with the port to be announced for Services of modules."""
    if settings.arklet.service_port is not None or settings.uds is not None:
        return settings
    internet = [each for each in sockets if each.family in {socket.AF_INET, socket.AF_INET6}]
    port = internet[0].getsockname()[1] if internet else 0 if sockets else settings.port
    return dataclasses.replace(settings, arklet=dataclasses.replace(settings.arklet, service_port=port))


def _log_options(settings: BaseSettings) -> dict[str, Any]:
    """The options of uvicorn for its log. Raises ``SettingsError`` for an unusable file."""
    level = settings.log_level or "INFO"
    if settings.log_config is not None:
        return {"log_config": read_configuration(settings.log_config)}
    if settings.log_format == "json":
        return {"log_config": json_configuration(level)}
    return {"log_level": level.lower()}


def _end_process() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def _hang_up(*_: object) -> None:
    """End the base, as the base: a handler runs in the midst of other code, which may be code of a module."""
    with as_base():
        signal.raise_signal(signal.SIGTERM)


async def _leave_tasks_behind(timeout_s: float) -> None:
    """Let the event loop end without tasks that ignore their cancellation, for which the loop would wait for ever.

    Called when everything has been taken down: every task was asked to end before.
    """
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    if tasks:
        _, stubborn = await asyncio.wait(tasks, timeout=timeout_s)
        for task in stubborn:
            asyncio.tasks._unregister_task(task)  # noqa: SLF001 - the runner of the loop waits for registered tasks


def _check_port(host: str, port: int) -> None:
    """Check the port before the base starts, with advice; the server would fail later, and without."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            reason = error.strerror or str(error)
            raise BaseStartFailed(
                f"the base cannot listen on {host} port {port}: {reason}; choose another with --port or --host"
            ) from error
