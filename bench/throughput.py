"""Requests through the front beside the same application under Starlette's ``Mount`` and alone.

``python bench/throughput.py [SECONDS]``, 0.4 per server and round unless given. Twice over: the ASGI call alone, in
this process, and a real uvicorn on loopback with keep-alive clients. All contenders run in one run and take turns, so
that whatever else the machine does hits them alike.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import socket
import statistics
import sys
import time
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import uvicorn
from harness import Row, http_scope, report
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount
from starlette.routing import Route as StarletteRoute

from koupleless.biz import BizId
from koupleless.context import Scope
from koupleless.router.asgi import Front
from koupleless.router.gate import Gate
from koupleless.router.table import Route

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

CONNECTIONS: Final = 8
ROUNDS: Final = 15
CALLS: Final = 2_000


async def _page(request: Any) -> PlainTextResponse:  # noqa: ARG001
    return PlainTextResponse("hello")


def application() -> Starlette:
    return Starlette(routes=[StarletteRoute("/x", _page)])


def front(modules: int) -> Front:
    """A front with that many modules; the one that is asked is in the middle."""
    made = Front(Starlette())
    table = made.table
    for number in range(modules):
        name = "hello" if number == modules // 2 else f"m{number}"
        biz = BizId.of(name, "1.0")
        scope = Scope(biz)
        scope.variables.settle()  # the module has started
        gate = Gate(scope, application())
        table = table.with_route(Route.to(gate, path=f"/{name}", biz=biz))
    made.swap(table)
    return made


def contenders() -> dict[str, tuple[Any, str]]:
    """Name -> application and the path to ask it for."""
    return {
        "alone": (application(), "/x"),
        "mount": (Starlette(routes=[Mount("/hello", application())]), "/hello/x"),
        "front": (front(1), "/hello/x"),
        "front500": (front(500), "/hello/x"),
    }


# --- the call alone --------------------------------------------------------------------------------------------------


async def call_rate(app: Any, path: str) -> float:
    """Calls per second of processor time of the ASGI application itself, with the scope a server would make."""
    headers = [
        (b"host", b"127.0.0.1:8080"),
        (b"accept", b"*/*"),
        (b"user-agent", b"bench"),
        (b"connection", b"keep-alive"),
    ]
    template = {**http_scope(path, headers), "state": {}}
    statuses = []

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    began = time.thread_time()
    for _ in range(CALLS):
        await app(dict(template), receive, send)
    rate = CALLS / (time.thread_time() - began)
    assert statuses == [200] * CALLS
    return rate


# --- a real server ---------------------------------------------------------------------------------------------------


class Client(asyncio.Protocol):
    """One keep-alive connection that asks again as soon as it is answered; it reads no more than it has to."""

    def __init__(self, path: str) -> None:
        self._request = f"GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n".encode()
        self._transport: Any = None
        self.answers = 0
        self.failed = 0
        self.asking = True

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        if data.startswith(b"HTTP/1.1 200 "):
            self.answers += 1
        elif data.startswith(b"HTTP/"):
            self.failed += 1
        if data.endswith(b"hello"):
            if self.asking:
                self._transport.write(self._request)
            else:
                self._transport.close()


async def served_rate(port: int, path: str, seconds: float) -> float:
    """Answers per second over several connections."""
    loop = asyncio.get_running_loop()
    clients = []
    for _ in range(CONNECTIONS):
        _, client = await loop.create_connection(lambda: Client(path), "127.0.0.1", port)
        clients.append(client)
    await asyncio.sleep(min(0.1, seconds / 4))
    before = sum(client.answers for client in clients)
    began = time.perf_counter()
    await asyncio.sleep(seconds)
    rate = (sum(client.answers for client in clients) - before) / (time.perf_counter() - began)
    for client in clients:
        client.asking = False
    assert not any(client.failed for client in clients)
    return rate


class Served:
    """One contender under uvicorn, in a process forked from this one; it uses no time while it is not asked."""

    def __init__(self, app: Any) -> None:
        listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = listener.getsockname()[1]
        server = uvicorn.Server(uvicorn.Config(app, log_level="critical", access_log=False, lifespan="on"))
        self._process = multiprocessing.get_context("fork").Process(target=server.run, args=([listener],))
        self._process.start()
        self.pid: int = self._process.pid or 0
        listener.close()

    def stop(self) -> None:
        self._process.terminate()
        self._process.join()


# --- both ------------------------------------------------------------------------------------------------------------


async def take_turns(measures: dict[str, Callable[[], Awaitable[float]]], *, rounds: int) -> dict[str, list[float]]:
    """Every contender once per round, in an order that changes; the first round only warms up."""
    rates: dict[str, list[float]] = {name: [] for name in measures}
    names = list(measures)
    for number in range(rounds + 1):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            rate = await measures[name]()
            if number:
                rates[name].append(rate)
    return rates


def rows_of(what: str, rates: dict[str, list[float]], *, alone: float) -> list[Row]:
    def row(figure: str, ours: str, peer: str, budget: float) -> Row:
        # The median of the ratios within a round: the two were measured next to each other.
        ratio = statistics.median(a / b for a, b in zip(rates[ours], rates[peer], strict=True))
        return Row(
            f"{what}: {figure}",
            f"{statistics.median(rates[ours]):,.0f}/s",
            f"{statistics.median(rates[peer]):,.0f}/s",
            f"{ratio:.3f}",
            f">= {budget:g}",
            ratio >= budget,
        )

    return [
        row("one module, beside Mount", "front", "mount", 1.03),
        row("one module, beside the application alone", "front", "alone", alone),
        # "No slower", measured: within what two runs of the same thing differ by.
        row("500 modules, beside one", "front500", "front", 0.97),
    ]


def main(seconds: float) -> None:
    apps = contenders()
    servers = {name: (Served(app), path) for name, (app, path) in apps.items()}
    called = asyncio.run(
        take_turns({name: partial(call_rate, app, path) for name, (app, path) in apps.items()}, rounds=ROUNDS)
    )
    try:
        served = asyncio.run(
            take_turns(
                {name: partial(served_rate, server.port, path, seconds) for name, (server, path) in servers.items()},
                rounds=ROUNDS,
            )
        )
    finally:
        for server, _ in servers.values():
            server.stop()
    details = {"calls_per_s": called, "answers_per_s": served, "connections": CONNECTIONS, "rounds": ROUNDS}
    report("throughput", [*rows_of("ASGI call", called, alone=0.8), *rows_of("uvicorn", served, alone=0.93)], details)


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 0.4)
