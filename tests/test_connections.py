"""Connections that bring no request: how long they last, and who gives way when there are too many."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import resource
import socket
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any, cast

import pytest
import uvicorn
from tests.conftest import until

from koupleless import connections
from koupleless.connections import BoundedH11, Bounds, Door, _fast_class

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SOON = 0.3
HEAD = b"GET / HTTP/1.1\r\nHost: x\r\n"
DEADLINE_S = 20.0


class Site:
    """An application on a server of its own thread; ``/slow`` is answered when told to."""

    def __init__(self, implementation: type[Any], loop: str, **bounds: Any) -> None:
        self.may_answer = asyncio.Event()
        self.running = 0
        self._opened: list[socket.socket] = []
        door = Door(
            Bounds(**({"header_timeout_s": SOON, "connections": 100, "backlog": 64} | bounds)),
            name="the application",
            setting="max-connections",
            logger=logging.getLogger("koupleless.base"),
        )
        self.door = door

        def protocol(*arguments: Any, **options: Any) -> Any:
            return implementation(*arguments, **options, door=door)

        config = uvicorn.Config(
            self._answer,
            port=0,
            http=cast("Any", protocol),
            lifespan="off",
            loop=cast("Any", loop),
            log_config=None,
            interface="asgi3",
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run)
        self._thread.start()
        until(lambda: self._server.started)
        self.port = self._server.servers[0].sockets[0].getsockname()[1]
        self.connections = self._server.server_state.connections

    async def _answer(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.accept"})
            while (message := await receive())["type"] != "websocket.disconnect":
                await send({"type": "websocket.send", "text": message["text"]})
            return
        self.running += 1
        if scope["path"] == "/slow":
            async with asyncio.timeout(DEADLINE_S):
                await self.may_answer.wait()
        if scope["path"] == "/whole":
            while (await receive()).get("more_body", False):
                pass
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})

    def connect(self, first: bytes = b"") -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=DEADLINE_S)
        self._opened.append(connection)
        connection.sendall(first)
        return connection

    def let_go(self) -> None:
        """Let the slow requests be answered."""
        next(iter(self.connections)).loop.call_soon_threadsafe(self.may_answer.set)

    def begin_to_end(self) -> None:
        """Have the server end, and wait until no connection is accepted."""
        self._server.should_exit = True
        until(lambda: not any(server.is_serving() for server in self._server.servers))

    def end(self) -> None:
        for connection in self._opened:
            connection.close()
        self._server.should_exit = True
        self._thread.join(DEADLINE_S)
        assert not self._thread.is_alive()


@pytest.fixture(params=["h11, asyncio", "httptools, uvloop"])
def serve(request: pytest.FixtureRequest) -> Iterator[Callable[..., Site]]:
    implementation: type[Any] = BoundedH11
    loop = "asyncio"
    if request.param == "httptools, uvloop":
        pytest.importorskip("httptools")
        pytest.importorskip("uvloop")
        implementation, loop = _fast_class(), "uvloop"
    sites: list[Site] = []

    def start(**bounds: Any) -> Site:
        sites.append(Site(implementation, loop, **bounds))
        return sites[-1]

    yield start
    for site in sites:
        site.end()


def rest(connection: socket.socket) -> bytes:
    """Everything until the server closes."""
    got = b""
    try:
        while part := connection.recv(65536):
            got += part
    except ConnectionResetError:
        pass
    connection.close()
    return got


def answer(connection: socket.socket) -> bytes:
    got = b""
    while not got.endswith(b"\r\n\r\nok"):
        part = connection.recv(65536)
        assert part, got
        got += part
    return got


@pytest.mark.parametrize(
    ("first", "said"),
    [
        pytest.param(b"", b"", id="nothing is sent"),
        pytest.param(b"G", b"HTTP/1.1 408", id="one letter"),
        pytest.param(HEAD + b"X: y", b"HTTP/1.1 408", id="half a header"),
    ],
)
def test_a_connection_without_whole_headers_is_closed(serve: Callable[..., Site], first: bytes, said: bytes) -> None:
    site = serve()
    begun = time.monotonic()
    got = rest(site.connect(first))

    assert got.startswith(said)
    assert bool(got) is bool(said)
    assert SOON * 0.9 < time.monotonic() - begun < SOON + 5


def test_headers_that_drip_do_not_prolong_the_time(serve: Callable[..., Site]) -> None:
    site = serve()
    connection = site.connect(HEAD)
    begun = time.monotonic()
    try:
        while time.monotonic() - begun < 10:
            connection.sendall(b"X: y\r\n")
            time.sleep(0.02)
    except OSError:
        pass

    assert time.monotonic() - begun < SOON + 5


def test_the_second_request_of_a_connection_has_the_same_time(serve: Callable[..., Site]) -> None:
    site = serve()
    connection = site.connect(HEAD + b"\r\n")
    answer(connection)
    connection.sendall(b"G")

    assert rest(connection).startswith(b"HTTP/1.1 408")


def test_a_request_that_takes_long_is_left_alone(serve: Callable[..., Site]) -> None:
    site = serve()
    slow = site.connect(HEAD.replace(b" / ", b" /slow ") + b"\r\n")
    uploading = site.connect(b"POST /whole HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\na")
    time.sleep(3 * SOON)
    site.let_go()
    uploading.sendall(b"b")

    assert answer(slow)
    assert answer(uploading)


def test_requests_of_one_connection_in_a_row(serve: Callable[..., Site]) -> None:
    site = serve()
    connection = site.connect()
    for _ in range(5):
        time.sleep(SOON / 2)
        connection.sendall(HEAD + b"\r\n")
        answer(connection)
    connection.sendall((HEAD + b"\r\n") * 3)  # at once
    got = b""
    while got.count(b"ok") < 3:
        got += connection.recv(65536)
    connection.close()
    until(lambda: not site.connections)

    assert not site.door._waiting


def test_the_oldest_without_a_request_gives_way(serve: Callable[..., Site], caplog: pytest.LogCaptureFixture) -> None:
    site = serve(connections=10, header_timeout_s=60)
    busy = site.connect(HEAD.replace(b" / ", b" /slow ") + b"\r\n")
    until(lambda: site.running == 1)
    idle = []
    for number in range(30):
        idle.append(site.connect(b"G" * (number % 2)))
        connection = site.connect(HEAD + b"\r\n")
        assert answer(connection)
        connection.close()
    site.let_go()

    assert answer(busy)
    assert rest(idle[0]) == b""
    idle[-1].settimeout(0.05)
    with pytest.raises(TimeoutError):
        idle[-1].recv(1)
    assert len([record for record in caplog.records if "max-connections" in record.getMessage()]) == 1


def test_a_new_connection_is_refused_only_where_all_have_requests(serve: Callable[..., Site]) -> None:
    site = serve(connections=3)
    busy = [site.connect(HEAD.replace(b" / ", b" /slow ") + b"\r\n") for _ in range(3)]
    until(lambda: site.running == 3)

    assert rest(site.connect()).startswith(b"HTTP/1.1 503")
    site.let_go()
    assert all(answer(connection) for connection in busy)
    late = site.connect(HEAD + b"\r\n")
    assert answer(late)


def test_headers_have_a_largest_size(serve: Callable[..., Site]) -> None:
    site = serve(header_timeout_s=60)
    connection = site.connect(HEAD)
    try:
        for _ in range(200):
            connection.sendall(b"X: " + b"y" * 1000 + b"\r\n")
    except OSError:
        pass
    got = rest(connection)

    assert got.startswith((b"HTTP/1.1 431", b"HTTP/1.1 400")) or not got
    until(lambda: not site.connections)


def test_a_websocket_is_no_idle_connection(serve: Callable[..., Site]) -> None:
    site = serve(connections=4)
    upgrade = (
        b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )
    socketed = site.connect(HEAD + upgrade)
    assert socketed.recv(65536).startswith(b"HTTP/1.1 101")
    for _ in range(10):
        site.connect()
    time.sleep(2 * SOON)
    socketed.sendall(b"\x81\x82\x00\x00\x00\x00hi")

    assert socketed.recv(65536).endswith(b"hi")


def test_half_of_the_descriptors_are_for_the_application(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("resource.getrlimit", lambda _: (1024, 4096))

    assert Bounds.of_application(10, None) == Bounds(10, 512, 128)
    assert Bounds.of_application(10, 40).connections == 40
    monkeypatch.setattr("resource.getrlimit", lambda _: (resource.RLIM_INFINITY,) * 2)
    assert Bounds.of_application(10, None).backlog == 2048


def test_what_comes_for_each_connection_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    door = Door(Bounds(1, 1, 1), name="the arklet", setting="x", logger=logging.getLogger("koupleless.arklet"))
    with asyncio.Runner() as runner:
        loop = runner.get_loop()
        door.watch(loop)
        for _ in range(1000):
            error = OSError(24, "Too many open files")
            loop.call_exception_handler({"message": "socket.accept()", "exception": error, "socket": None})
        loop.call_exception_handler({"message": "something else"})

    assert [record.getMessage() for record in caplog.records] == [
        "the arklet takes no connections: the process has no file descriptors left",
        "something else",
    ]


@pytest.mark.parametrize("how", [b"Connection: close\r\n", b""], ids=["closed as asked", "closed as the server ends"])
def test_a_body_that_nobody_reads_does_not_cost_the_answer(serve: Callable[..., Site], how: bytes) -> None:
    site = serve(header_timeout_s=60)
    path = b" / " if how else b" /slow "
    connection = site.connect(b"POST" + path + b"HTTP/1.1\r\nHost: x\r\nContent-Length: 200000\r\n" + how + b"\r\n")
    if not how:
        until(lambda: site.running == 1)
        site.begin_to_end()
        site.let_go()
    got = b"".join(iter(lambda: connection.recv(65536), b""))
    for _ in range(200):
        connection.sendall(bytes(1000))
        time.sleep(0.001)

    assert got.startswith(b"HTTP/1.1 200")
    assert got.endswith(b"ok")
    connection.close()
    until(lambda: not site.connections)


def test_a_body_without_end_is_read_for_a_while_after_the_answer(
    serve: Callable[..., Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "_LINGER_S", SOON)
    site = serve(header_timeout_s=60)
    connection = site.connect(HEAD + b"Content-Length: 200000\r\nConnection: close\r\n\r\n")
    answer(connection)
    begun = time.monotonic()
    with contextlib.suppress(OSError):
        while time.monotonic() < begun + DEADLINE_S:
            connection.sendall(b"x")
            time.sleep(0.01)

    assert SOON * 0.9 < time.monotonic() - begun < SOON + 5
    until(lambda: not site.connections)


def test_a_connection_with_a_body_is_freed_without_the_collector(serve: Callable[..., Site]) -> None:
    site = serve(header_timeout_s=60)
    connection = site.connect(b"POST /whole HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\na")
    until(lambda: site.running == 1)
    gone = weakref.ref(next(iter(site.connections)))
    gc.disable()
    try:
        connection.sendall(b"b")
        answer(connection)
        connection.close()
        until(lambda: gone() is None, otherwise="the connection is kept")
    finally:
        gc.enable()
