"""Gates and fronts without a container, and a real server on a free port."""

from __future__ import annotations

import asyncio
import socket
import threading
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import uvicorn

from koupleless.biz import BizId
from koupleless.context import Scope
from koupleless.router.face import face_of
from koupleless.router.gate import Gate
from koupleless.router.table import Route

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from koupleless.router.asgi import Front


def requests_in(gate: Gate) -> int:
    """The number of requests inside a gate."""
    return len(gate._inside)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def gate_of() -> Iterator[Callable[..., Gate]]:
    """``gate_of(app, "name:version")`` is the open gate of a biz with that application."""
    gates: list[Gate] = []

    def make(app: object, identity: str = "hello:1.0", *, state: Mapping[str, object] | None = None) -> Gate:
        face = face_of(app, name=identity)
        assert face.asgi is not None
        gates.append(Gate(Scope(BizId.parse(identity)), face.asgi, state=state, close=face.close))
        return gates[-1]

    yield make
    stuck = [name for gate in gates for name in gate.close(timeout_s=5)]
    assert not stuck


@pytest.fixture
def mount(gate_of: Callable[..., Gate]) -> Callable[..., Gate]:
    """``mount(front, "/hello", app)`` makes a gate and leads the path to it."""

    def do(front: Front, path: str, app: object, identity: str | None = None, **options: Any) -> Gate:
        identity = identity or f"{path.strip('/').replace('/', '_') or 'root'}:1.0"
        gate = gate_of(app, identity)
        front.swap(front.table.with_route(Route.to(gate, path=path, biz=BizId.parse(identity), **options)))
        return gate

    return do


@pytest.fixture
def client() -> Callable[[Any], httpx.AsyncClient]:
    """An HTTP client of an application in this process."""

    def make(app: Any, **options: Any) -> httpx.AsyncClient:
        return httpx.AsyncClient(transport=httpx.ASGITransport(app, **options), base_url="http://base", timeout=10)

    return make


class Served:
    """An application under a real uvicorn, on a thread of its own."""

    def __init__(self, app: Any, **options: Any) -> None:
        listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = listener.getsockname()[1]
        config = uvicorn.Config(
            app,
            log_level="critical",
            ws="websockets-sansio",
            timeout_graceful_shutdown=5,
            **{"lifespan": "on", **options},
        )
        self.server = uvicorn.Server(config)
        self._up = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(listener,), name="uvicorn")
        self._thread.start()
        assert self._up.wait(10)

    def _run(self, listener: socket.socket) -> None:
        async def serve() -> None:
            self.loop = asyncio.get_running_loop()
            serving = asyncio.ensure_future(self.server.serve(sockets=[listener]))
            while not self.server.started and not serving.done():  # noqa: ASYNC110 - uvicorn has no event for it
                await asyncio.sleep(0.005)
            self._up.set()
            await serving

        try:
            asyncio.run(serve())
        finally:
            self._up.set()

    def url(self, path: str, scheme: str = "http") -> str:
        return f"{scheme}://127.0.0.1:{self.port}{path}"

    def run(self, coroutine: Any, timeout_s: float = 10) -> Any:
        """What a coroutine returns that runs on the server's loop."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(timeout_s)

    def stop(self) -> None:
        self.server.should_exit = True
        self._thread.join(15)
        assert not self._thread.is_alive()


@pytest.fixture
def serve() -> Iterator[Callable[..., Served]]:
    """``serve(app)`` runs it under uvicorn until the test ends."""
    running: list[Served] = []

    def start(app: Any, **options: Any) -> Served:
        running.append(Served(app, **options))
        return running[-1]

    yield start
    for served in running:
        served.stop()
