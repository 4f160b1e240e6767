"""A container of the same behaviour without any code of bizs, and a client that sees bytes."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple, Self, cast

import pytest

from koupleless.arklet.health import BaseMetadata
from koupleless.arklet.operations import Operations
from koupleless.arklet.pages.pages import Pages
from koupleless.arklet.server import ArkletServer
from koupleless.artifact.build import Options, build_file
from koupleless.biz import BizId, BizState, ChangeReason, advance
from koupleless.container.host import Host
from koupleless.container.terms import Installed, Located, Rules, Strategy
from koupleless.descriptions import BizInfo, Resident, StateRecord
from koupleless.errors import (
    BizBusy,
    BizNotFound,
    BizRepeated,
    FetchFailed,
    IdentityMismatch,
    IllegalMove,
    MasterBizProtected,
)
from koupleless.health.readiness import Readiness, Status
from koupleless.ownership.purge import Held, PurgeReport
from koupleless.state.book import Book

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from koupleless.container.container import Container
    from koupleless.container.leaving.remains import Zombie

DEADLINE_S = 10.0


@dataclass(eq=False)
class Artefact:
    """What lies at a URL of the fake world."""

    id: BizId
    priority: int = 100
    path: str = "/"
    on_prepare: Callable[[], object] = lambda: None
    on_start: Callable[[], object] = lambda: None
    on_stop: Callable[[], object] = lambda: None
    attributes: Mapping[str, str] = field(default_factory=dict)


@dataclass(eq=False)
class FakePrepared:
    artefact: Artefact
    url: str
    is_discarded: bool = False

    @property
    def id(self) -> BizId:
        return self.artefact.id

    @property
    def priority(self) -> int:
        return self.artefact.priority

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if error is not None:
            self.discard()

    def discard(self) -> None:
        self.is_discarded = True


class FakeContainer:
    """The states, refusals and records of the real one; the code of a biz is a hook of its artefact."""

    def __init__(self) -> None:
        self.base = BizInfo.of_base(BizId.of("base", "1.0.0"))
        self.artefacts: dict[str, Artefact] = {}
        self.left: list[Zombie] = []
        self.brought: list[Resident] = []
        self.book = Book()
        self.prepared: list[FakePrepared] = []
        self.drains: list[float | None] = []
        self.started: list[tuple[str, tuple[str, ...], dict[str, str]]] = []
        self._lock = threading.Lock()
        self._bizs: dict[BizId, tuple[BizInfo, Artefact]] = {}
        self._busy: dict[BizId, str] = {}

    def offer(self, identity: str, **options: Any) -> str:
        """Put an artefact into the world; returns its URL."""
        url = f"file:///{identity.replace(':', '-')}.jar"
        self.artefacts[url] = Artefact(BizId.parse(identity), **options)
        return url

    # --- the container's own interface ---

    def prepare(self, url: str, *, expected: BizId | None = None, digest: str | None = None) -> FakePrepared:
        artefact = self.artefacts.get(url)
        if artefact is None:
            raise FetchFailed(url, "there is no such file")
        artefact.on_prepare()
        if expected is not None and artefact.id != expected:
            raise IdentityMismatch(url, expected=expected, actual=artefact.id)
        prepared = FakePrepared(artefact, url)
        self.prepared.append(prepared)
        return prepared

    def install(
        self,
        source: FakePrepared | Located,
        *,
        args: Sequence[str] = (),
        envs: Mapping[str, str] | None = None,
        project_envs: Mapping[str, str] | None = None,
        strategy: Strategy = Strategy.INSTALL_ONLY,
    ) -> Installed:
        started_at, begin = time.time(), time.perf_counter()
        reports: list[PurgeReport] = []
        with contextlib.ExitStack() as held:
            if not isinstance(source, Located):
                held.enter_context(source)
            held.enter_context(self.reserve(source.id, "installBiz"))
            with self._lock:
                if source.id in self._bizs and strategy is Strategy.INSTALL_ONLY:
                    raise BizRepeated(source.id)
            prepared = self.prepare(source.url, expected=source.id) if isinstance(source, Located) else source
            artefact = prepared.artefact
            if strategy is Strategy.UNINSTALL_THEN_INSTALL:
                reports += [self._remove(biz.id) for biz in self._versions(artefact.id)]
            with self._lock:
                if artefact.id in self._bizs:
                    raise BizRepeated(artefact.id)
                info = BizInfo(
                    artefact.id,
                    BizState.UNRESOLVED,
                    "demo.app:app",
                    web_context_path=artefact.path,
                    priority=artefact.priority,
                    url=prepared.url,
                    work_dir="/srv",
                    class_path=("/srv/app",),
                    attributes=artefact.attributes,
                )
                self._put(info, artefact, BizState.RESOLVED, ChangeReason.CREATED)
            try:
                artefact.on_start()
            except BaseException:
                with self._lock:
                    del self._bizs[artefact.id]
                raise
            with self._lock:
                rivals = [b for b in self._versions(artefact.id) if b.state is BizState.ACTIVATED]
                info = self._bizs[artefact.id][0]
                if rivals and strategy is not Strategy.REPLACE:
                    message = "start but is deactivated"
                    info = self._put(info, artefact, BizState.DEACTIVATED, ChangeReason.STARTED, message)
                else:
                    info = self._put(info, artefact, BizState.ACTIVATED, ChangeReason.STARTED)
            if strategy is Strategy.REPLACE:
                reports += [self._remove(biz.id) for biz in self._versions(artefact.id) if biz.id != artefact.id]
        self.started.append((str(artefact.id), tuple(args), dict(envs or {})))
        elapsed_ms = round((time.perf_counter() - begin) * 1000)
        return Installed(info, elapsed_ms, started_at, 4096, tuple(reports))

    def uninstall(self, biz: BizId, *, drain_s: float | None = None) -> PurgeReport:
        self.drains.append(drain_s)
        if biz.name == self.base.id.name:
            raise MasterBizProtected(biz)
        with self.reserve(biz, "uninstallBiz"):
            return self._remove(biz)

    def switch(self, biz: BizId) -> None:
        with self.reserve(biz, "switchBiz"), self._lock:
            info, artefact = self._entry(biz)
            if not info.state.is_started:
                raise IllegalMove(biz, info.state, BizState.ACTIVATED)
            if info.state is BizState.DEACTIVATED:
                for other in self._versions(biz):
                    if other.state is BizState.ACTIVATED:
                        self._put(other, self._bizs[other.id][1], BizState.DEACTIVATED, ChangeReason.SWITCHED)
                self._put(info, artefact, BizState.ACTIVATED, ChangeReason.SWITCHED)

    def bizs(self) -> tuple[BizInfo, ...]:
        with self._lock:
            return tuple(sorted((info for info, _ in self._bizs.values()), key=lambda info: info.priority))

    def find(self, biz: BizId) -> BizInfo:
        with self._lock:
            return self._entry(biz)[0]

    def zombies(self) -> tuple[Zombie, ...]:
        return tuple(self.left)

    def residents(self) -> tuple[Resident, ...]:
        return tuple(self.brought)

    # --- inside ---

    @contextlib.contextmanager
    def reserve(self, biz: BizId, operation: str) -> Iterator[None]:
        with self._lock:
            if biz in self._busy:
                raise BizBusy(biz, self._busy[biz])
            self._busy[biz] = operation
        try:
            yield
        finally:
            with self._lock:
                del self._busy[biz]

    def _remove(self, biz: BizId) -> PurgeReport:
        with self._lock:
            info, artefact = self._entry(biz)
            if not info.state.is_stoppable:
                raise IllegalMove(biz, info.state, BizState.STOPPED)
        try:
            artefact.on_stop()
        finally:
            with self._lock:
                del self._bizs[biz]
        held = (Held("demo.app", ("functools.lru_cache of shared.cache",), 4096),)
        failures, changed = ("a hook raised",), ("lib.LIMIT",)
        ended = ("thread 'poller' was interrupted",)
        stays = (Resident("numpy", "2.3.5", 31_000_000, 89),)
        return PurgeReport(biz, False, held, {"thread": 1}, failures, 1.5, changed, True, ended, stays)

    def _entry(self, biz: BizId) -> tuple[BizInfo, Artefact]:
        try:
            return self._bizs[biz]
        except KeyError:
            raise BizNotFound(biz) from None

    def _versions(self, biz: BizId) -> list[BizInfo]:
        return [info for info, _ in self._bizs.values() if info.id.name == biz.name]

    def _put(self, info: BizInfo, artefact: Artefact, to: BizState, reason: ChangeReason, message: str = "") -> BizInfo:
        record = StateRecord(time.time_ns() // 1_000_000, to, reason, message)
        moved = replace(info, state=advance(info.id, info.state, to), records=(*info.records, record))
        self._bizs[info.id] = (moved, artefact)
        return moved


@dataclass(frozen=True)
class Reply:
    """One HTTP reply as it came over the wire."""

    raw: bytes
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Wire:
    """Sends bytes to a port and reads until the server closes."""

    def __init__(self, port: int) -> None:
        self.port = port

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=DEADLINE_S)

    def exchange(self, request: bytes) -> Reply:
        with self.connect() as connection:
            connection.sendall(request)
            return self.receive(connection)

    def receive(self, connection: socket.socket) -> Reply:
        raw = b""
        while chunk := connection.recv(65536):
            raw += chunk
        return parse_reply(raw)

    def post(
        self, command: str, body: object = None, *, headers: Mapping[str, str] | None = None, host: str = "127.0.0.1"
    ) -> Reply:
        content = body if isinstance(body, bytes) else json.dumps({} if body is None else body).encode()
        lines = [f"POST /{command} HTTP/1.1", f"Host: {host}:{self.port}", f"Content-Length: {len(content)}"]
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        return self.exchange("\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + content)

    def command(self, command: str, body: object = None) -> Any:
        """The envelope of a command that must be answered with 200."""
        reply = self.post(command, body)
        assert reply.status == 200, reply.raw
        return reply.json


def parse_reply(raw: bytes) -> Reply:
    head, _, body = raw.partition(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
    return Reply(raw, int(lines[0].split()[1]), headers, body)


@pytest.fixture
def container() -> FakeContainer:
    return FakeContainer()


@pytest.fixture
def operations(container: FakeContainer) -> Iterator[Operations]:
    made = Operations(cast("Container", container), BaseMetadata(identity="10.1.2.3"))
    yield made
    made.close()


@pytest.fixture
def serve(operations: Operations) -> Iterator[Callable[..., Wire]]:
    """``serve(**options)`` starts a server on a free port and returns the bytes' way to it."""
    servers: list[ArkletServer] = []

    def start(**options: Any) -> Wire:
        server = ArkletServer(operations, **({"port": 0} | options))
        servers.append(server)
        return Wire(server.start())

    yield start
    for server in servers:
        server.stop()


@pytest.fixture
def wire(serve: Callable[..., Wire]) -> Wire:
    return serve()


class Pause:
    """A hook that holds whoever calls it until it is let go."""

    def __init__(self) -> None:
        self.is_reached = threading.Event()
        self._may_go = threading.Event()

    def __call__(self) -> None:
        self.is_reached.set()
        assert self._may_go.wait(DEADLINE_S)

    def await_reached(self) -> None:
        assert self.is_reached.wait(DEADLINE_S)

    def let_go(self) -> None:
        self._may_go.set()


@pytest.fixture
def pause() -> Iterator[Callable[[], Pause]]:
    """``pause()`` makes a hook to stop an operation in its middle; all are let go at the end of the test."""
    pauses: list[Pause] = []

    def make() -> Pause:
        pauses.append(Pause())
        return pauses[-1]

    yield make
    for made in pauses:
        made.let_go()


@pytest.fixture
def in_background() -> Iterator[Callable[[Callable[[], Any]], Callable[[], Any]]]:
    """``in_background(call)`` runs it on a thread; calling what it returns waits for the result."""
    threads: list[threading.Thread] = []

    def start(call: Callable[[], Any]) -> Callable[[], Any]:
        results: list[Any] = []
        thread = threading.Thread(target=lambda: results.append(call()))
        threads.append(thread)
        thread.start()

        def wait() -> Any:
            thread.join(DEADLINE_S)
            assert results, "the call has not returned, or has raised"
            return results[0]

        return wait

    yield start
    for thread in threads:
        thread.join(DEADLINE_S)


# --- a real base, for the pages ---------------------------------------------------------------------------------------

CHECKED = """
from koupleless import health_check

@health_check
def disk():
    return {"free": 1}

async def app(scope, receive, send):
    raise RuntimeError
"""


class Running(NamedTuple):
    """A base with one module, and the way to its arklet."""

    host: Host
    readiness: Readiness
    start: Callable[..., Wire]


@pytest.fixture
def running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Running]:
    monkeypatch.setattr("koupleless.health.readiness.FRESH_S", 0.0)
    host = Host.make(tmp_path / "store", rules=Rules(keep_broken=True))
    put(host, tmp_path, "shop", CHECKED)
    operations = Operations(host.container, BaseMetadata(identity="10.1.2.3"))
    readiness = Readiness(host.container, host.stage.call_as, with_modules=True)
    readiness.base = Status.UP
    servers: list[ArkletServer] = []

    def start(**options: Any) -> Wire:
        pages = Pages(operations, host.container, readiness)
        servers.append(ArkletServer(operations, port=0, pages=pages, **options))
        return Wire(servers[-1].start())

    yield Running(host, readiness, start)
    for server in servers:
        server.stop()
    operations.close()
    host.container.close()


def put(host: Host, directory: Path, name: str, source: str) -> None:
    path = directory / f"{name}.py"
    path.write_text(source)
    built = build_file(path, Options(out=directory / "built", version="1")).path
    host.container.install(host.container.prepare(str(built)))


def get(wire: Wire, path: str, *, method: str = "GET", host: str = "127.0.0.1", **headers: str) -> Reply:
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}", *(f"{name}: {value}" for name, value in headers.items())]
    return wire.exchange("\r\n".join([*lines, "", ""]).encode())
