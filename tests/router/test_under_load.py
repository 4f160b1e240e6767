"""With a real server: swaps under load, streams and WebSockets that drain, clients that leave."""

from __future__ import annotations

import asyncio
import concurrent.futures
import socket
import threading
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route as StarletteRoute
from starlette.routing import WebSocketRoute
from tests.conftest import until
from tests.router.conftest import requests_in
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from koupleless.biz import BizId
from koupleless.router.asgi import Front
from koupleless.router.table import Route

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from koupleless.router.gate import Gate

    Mount = Callable[..., Gate]


def version(text: str) -> Starlette:
    async def page(request: Any) -> Any:
        await asyncio.sleep(0.002)
        return PlainTextResponse(text)

    return Starlette(routes=[StarletteRoute("/", page)])


def test_swapping_versions_under_load_fails_no_request(
    serve: Callable[..., Any], mount: Mount, gate_of: Callable[..., Gate]
) -> None:
    front = Front()
    gate = mount(front, "/hello", version("0"), "hello:0")
    served = serve(front)
    stop = threading.Event()
    answered = threading.Semaphore(0)

    def ask() -> list[tuple[int, str]]:
        with httpx.Client() as http:
            answers = []
            while not stop.is_set():
                answer = http.get(served.url("/hello/"))
                answers.append((answer.status_code, answer.text))
                answered.release()
            return answers

    with concurrent.futures.ThreadPoolExecutor(4) as clients:
        asking = [clients.submit(ask) for _ in range(4)]
        try:
            for number in range(1, 21):
                for _ in range(8):
                    assert answered.acquire(timeout=10)
                new = gate_of(version(str(number)), f"hello:{number}")
                route = Route.to(new, path="/hello", biz=BizId.parse(f"hello:{number}"))
                front.swap(front.table.without(gate).with_route(route))
                assert served.run(gate.drain(10)) == 0
                gate.close()
                gate = new
        finally:
            stop.set()
        answers = [answer for client in asking for answer in client.result(10)]

    assert {status for status, _ in answers} == {200}
    assert len({text for _, text in answers}) > 10
    # Each client sees versions in order: nobody ever gets an older one again.
    for client in asking:
        seen = [int(text) for _, text in client.result()]
        assert seen == sorted(seen)


def chat(received: threading.Event) -> Starlette:
    async def socket_endpoint(websocket: Any) -> None:
        await websocket.accept()
        async for text in websocket.iter_text():
            received.set()
            await websocket.send_text(f"echo {text}")

    return Starlette(routes=[WebSocketRoute("/ws", socket_endpoint)])


def test_an_open_websocket_keeps_its_module_until_it_is_closed(serve: Callable[..., Any], mount: Mount) -> None:
    front = Front()
    gate = mount(front, "/chat", chat(threading.Event()))
    served = serve(front)

    with connect(served.url("/chat/ws", "ws")) as client:
        client.send("one")
        assert client.recv(10) == "echo one"
        front.swap(front.table.without(gate))
        draining = asyncio.run_coroutine_threadsafe(gate.drain(10), served.loop)
        client.send("two")
        assert client.recv(10) == "echo two"
        assert not draining.done()
        assert httpx.get(served.url("/chat/ws")).status_code == 404

    assert draining.result(10) == 0


def test_a_websocket_that_outlasts_the_deadline_is_closed_by_the_abort(serve: Callable[..., Any], mount: Mount) -> None:
    front = Front()
    gate = mount(front, "/chat", chat(threading.Event()))
    served = serve(front)

    with connect(served.url("/chat/ws", "ws")) as client:
        client.send("one")
        assert client.recv(10) == "echo one"
        assert served.run(gate.drain(0.05)) == 1
        assert served.run(gate.abort(10)) == 0
        with pytest.raises(ConnectionClosed) as caught:
            client.recv(10)

    assert caught.value.rcvd is not None
    assert (caught.value.rcvd.code, caught.value.rcvd.reason) == (1001, "chat:1.0 was uninstalled")


class Ticking:
    """A stream that goes on for as long as somebody listens."""

    def __init__(self) -> None:
        self.ended = threading.Event()
        self.app = Starlette(routes=[StarletteRoute("/", self.endpoint)])

    async def endpoint(self, request: Any) -> Any:
        return StreamingResponse(self._ticks(), media_type="text/plain")

    async def _ticks(self) -> AsyncIterator[bytes]:
        try:
            while True:
                yield b"tick\n"
                await asyncio.sleep(0.005)
        finally:
            self.ended.set()


def test_a_stream_is_inside_until_its_client_leaves(serve: Callable[..., Any], mount: Mount) -> None:
    ticking = Ticking()
    front = Front()
    gate = mount(front, "/ticks", ticking.app)
    served = serve(front)

    with httpx.stream("GET", served.url("/ticks/"), timeout=10) as answer:
        lines = answer.iter_lines()  # dropping it would close the connection
        assert next(lines) == "tick"
        assert requests_in(gate) == 1
        assert served.run(gate.drain(0.05)) == 1

    assert ticking.ended.wait(10)
    assert served.run(gate.drain(10)) == 0
    until(lambda: requests_in(gate) == 0)


def test_a_stream_that_outlasts_the_deadline_is_cut_off(serve: Callable[..., Any], mount: Mount) -> None:
    ticking = Ticking()
    front = Front()
    gate = mount(front, "/ticks", ticking.app)
    served = serve(front)

    with httpx.stream("GET", served.url("/ticks/"), timeout=10) as answer:
        lines = answer.iter_lines()
        assert next(lines) == "tick"
        assert served.run(gate.abort(10)) == 0
        with pytest.raises(httpx.RemoteProtocolError):
            list(lines)
    assert ticking.ended.is_set()


def test_a_request_that_outlasts_the_deadline_is_answered_503_and_the_connection_lives_on(
    serve: Callable[..., Any], mount: Mount
) -> None:
    arrived = threading.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        arrived.set()
        await asyncio.Event().wait()

    front = Front(version("base"))
    gate = mount(front, "/slow", app)
    served = serve(front)
    with socket.create_connection(("127.0.0.1", served.port), timeout=10) as client:
        client.sendall(b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n")
        assert arrived.wait(10)
        assert served.run(gate.abort(10)) == 0
        assert client.recv(65536).startswith(b"HTTP/1.1 503 ")
        front.swap(front.table.without(gate))
        client.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        assert b"200 OK" in client.recv(65536)


def test_hypercorn_serves_it_too(mount: Mount) -> None:
    from hypercorn.asyncio import serve as hypercorn_serve
    from hypercorn.config import Config

    begun: list[asyncio.AbstractEventLoop] = []
    front = Front(version("base"), on_startup=begun.append)
    mount(front, "/hello", version("hello"))

    async def run() -> tuple[str, str]:
        listener = socket.create_server(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        config = Config()
        config.bind = [f"fd://{listener.detach()}"]
        config.accesslog = config.errorlog = None
        stop = asyncio.Event()
        serving = asyncio.create_task(hypercorn_serve(front, config, shutdown_trigger=stop.wait))  # type: ignore[arg-type]
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
            texts = ((await http.get("/")).text, (await http.get("/hello")).text)
        stop.set()
        await serving
        return texts

    assert asyncio.run(run()) == ("base", "hello")
    assert len(begun) == 1
