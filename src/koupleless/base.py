"""Puts a base together, as its own server or inside somebody else's, and takes it down in reverse.

This is the composition root of the base side: settings are read here and nowhere below, every part is made here, and
one function starts them in order. ``koupleless.base`` is what the code of a base may import.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from koupleless.arklet.health import BaseMetadata
from koupleless.arklet.operations import Operations
from koupleless.arklet.server import ArkletServer
from koupleless.artifact.store import Store
from koupleless.biz import BizId, BizInfo, BizState, ChangeReason, StateRecord
from koupleless.container.container import EMBED_MAIN, Container
from koupleless.container.life import Deadlines, Surroundings
from koupleless.container.prepare import Preparation
from koupleless.container.stage import Stage
from koupleless.container.terms import Rules
from koupleless.errors import BaseStartFailed, KouplelessError
from koupleless.ownership.purge import freeze_base
from koupleless.router.asgi import Front
from koupleless.router.face import face_of
from koupleless.router.gateway import FORWARDS, Forwards, read_rules
from koupleless.router.table import RouteTable
from koupleless.service.registry import default_registry
from koupleless.settings import BaseSettings, load_base
from koupleless.view.config import Configuration

if TYPE_CHECKING:
    from collections.abc import MutableMapping

    from koupleless.router.gate import Receive, Send

__all__ = ["Base", "serve"]

BASE_VERSION: Final = "1.0.0"
"""The version of every base, as the field has it: bases are released by other means than modules."""


class Base:
    """A warm process that takes modules: an ASGI application around the application of the base.

    ``app`` is any ASGI or WSGI application, or ``None`` for a base that has only modules. Its own routes work as
    before; modules answer below their paths, operations reach the base through its arklet. ``name`` overrides that of
    ``settings``, which are read from the environment and the project's file if they are not given. ``owns_process``
    says that nobody minds if the collector stops looking at what is loaded before the first module (``gc.freeze``),
    which keeps an uninstall fast beside a large heap.

    Lifetime: made once per process, when the server imports it, which starts nothing; it lives from the server's
    lifespan start-up to its shutdown, on the server's loop, the arklet on a thread of its own.

    Raises ``SettingsError`` for settings that cannot be used, ``TypeError`` for an ``app`` that is no application.
    """

    def __init__(
        self,
        app: object = None,
        *,
        name: str | None = None,
        settings: BaseSettings | None = None,
        owns_process: bool = False,
    ) -> None:
        self.settings = load_base({"name": name}) if settings is None else settings
        settings = self.settings
        name = name or settings.name
        face = face_of(app, name=name)
        if app is not None and face.asgi is None:
            raise TypeError(f"{app!r} is neither an ASGI nor a WSGI application")
        self._owns_process = owns_process
        self._closing = contextlib.ExitStack()
        self._stage = Stage()
        configuration = Configuration.load("", profile=settings.profile or "", own=settings.config_dirs)
        table = RouteTable(_forwards(settings, configuration))
        self._front = Front(face.asgi, table=table, on_startup=self._begin, on_shutdown=self._end)
        self.services = default_registry()
        self.container = Container(
            base=_describe(name),
            front=self._front,
            preparation=Preparation(
                Store(self._store_dir()),
                allowed_prefixes=settings.allowed_sources,
                timeout_s=settings.fetch_timeout_s,
            ),
            around=Surroundings(
                stage=self._stage,
                services=self.services,
                deadlines=Deadlines(
                    start_s=settings.start_timeout_s, drain_s=settings.drain_timeout_s, stop_s=settings.stop_timeout_s
                ),
                profile=settings.profile or "",
                config_dirs=settings.config_dirs,
                log_dir=settings.log_dir,
                shared_config=_shared_config(settings, configuration),
            ),
            rules=Rules(
                activate_new=settings.activate_new,
                activate_many=settings.activate_many,
                keep_broken=settings.keep_broken,
            ),
        )
        ops = settings.arklet
        metadata = BaseMetadata.of_this_machine(
            name=name, version=BASE_VERSION, identity=ops.identity, cluster=ops.cluster, environment=ops.environment
        )
        self._operations = Operations(self.container, metadata)
        self.arklet = ArkletServer(
            self._operations, ops.host, ops.port, ops.read_token(), ops.insecure, allowed_hosts=ops.allowed_hosts
        )

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Serve one connection, as ASGI says."""
        await self._front(scope, receive, send)

    async def _begin(self, loop: asyncio.AbstractEventLoop) -> None:
        self._stage.adopt(loop)
        await asyncio.to_thread(self._start)

    def _start(self) -> None:
        """On a thread, because modules need the loop: what is installed from the start, then the ops API."""
        if self._owns_process:
            freeze_base()
        try:
            for url in self._static_modules():
                self._install_static(url)
            self.arklet.start()
        except BaseException:
            self._stop()
            raise

    def _install_static(self, url: str) -> None:
        try:
            self.container.install(self.container.prepare(url))
        except KouplelessError as error:
            raise BaseStartFailed(f"static module {url} was not installed: {error}") from error

    def _static_modules(self) -> list[str]:
        found = list(self.settings.modules)
        if self.settings.modules_dir is not None:
            found += sorted(str(path) for path in self.settings.modules_dir.glob("**/*-ark-biz.*"))
        return found

    async def _end(self) -> None:
        await asyncio.to_thread(self._stop)

    def _stop(self) -> None:
        with self._closing as closing:  # from the last to the first, each whatever the others raise
            closing.callback(self.container.close)
            closing.callback(self._operations.close)
            closing.callback(self.arklet.stop)
            closing.callback(self.container.shut)  # first, so that whoever waits for an install still gets an answer

    def _store_dir(self) -> Path:
        if self.settings.store_dir is not None:
            return self.settings.store_dir
        return Path(self._closing.enter_context(tempfile.TemporaryDirectory(prefix="koupleless-")))


def _forwards(settings: BaseSettings, configuration: Configuration) -> Forwards:
    """The base's forward rules: those of its settings, else those of its configuration files, as in the original."""
    listed = settings.forwards
    return Forwards.of(read_rules({FORWARDS: listed}) if listed else read_rules(configuration))


def _shared_config(settings: BaseSettings, configuration: Configuration) -> dict[str, object]:
    """What modules see of the base's own configuration: the keys that it, or the settings, list."""
    named = {key: configuration[key] for key in settings.shared_keys if key in configuration}
    return {**configuration.shared(), **named}


def _describe(name: str) -> BizInfo:
    now = time.time_ns() // 1_000_000
    return BizInfo(
        id=BizId.of(name, BASE_VERSION),
        state=BizState.ACTIVATED,
        entry=EMBED_MAIN,
        records=(StateRecord(now, BizState.ACTIVATED, ChangeReason.STARTED),),
        is_base=True,
    )


def serve(app: object, settings: BaseSettings) -> int:
    """Serve ``app`` as a base with uvicorn until a signal ends it; returns the exit status of the process.

    Raises ``BaseStartFailed`` for an address or port that cannot be had, before anything is started.
    """
    import uvicorn  # noqa: PLC0415 - inside somebody else's server it is not needed

    _check_port(settings.host, settings.port)
    server = uvicorn.Server(
        uvicorn.Config(
            Base(app, settings=settings, owns_process=True),
            host=settings.host,
            port=settings.port,
            lifespan="on",
            timeout_graceful_shutdown=max(1, round(settings.drain_timeout_s)),
        )
    )
    # When it is done uvicorn raises the signal that ended it once more. SIGTERM then means that all is well.
    signal.signal(signal.SIGTERM, lambda *_: None)
    server.run()
    return 0 if server.started else 1


def _check_port(host: str, port: int) -> None:
    """The server would find out too, but only after the base has started, and without advice."""
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
