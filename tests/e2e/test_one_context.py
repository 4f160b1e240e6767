"""What a module sets in context variables is where it is alone: under each server, beside others, after a swap."""

from __future__ import annotations

import asyncio
import concurrent.futures
import functools
import http.client
import json
import socket
import sys
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import websockets
from tests.conftest import free_port
from tests.e2e.conftest import BaseProcess

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

LIBRARY = """
from contextvars import ContextVar

STATE = ContextVar("ctxlib_state")  # without a default: LookupError where it is missing
STATE.set("set when it was imported")
IDENTIFIER = ContextVar("ctxlib_identifier", default="none")
"""

BASE = """
import decimal

import ctxlib
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

decimal.getcontext()  # the base has one of its own, which is changed in place


async def own(request):
    third = str(decimal.Decimal(1) / decimal.Decimal(3))
    return JSONResponse([len(third) - 2, ctxlib.STATE.get(), sorted(var.name for var in ctxlib.here())])


app = Starlette(routes=[Route("/", own), Route("/own", own)])
"""
LIBRARY += """

def here():
    from contextvars import copy_context
    return [var for var in copy_context() if var.name != "koupleless_biz"]
"""

EMBEDDED = """
from base_app import app as inner
from koupleless.base import Base

import ctxlib

base = Base(inner, name="shop")


async def app(scope, receive, send):
    # A middleware of the base's around the whole: what it sets is there in modules, too.
    if scope["type"] == "http":
        ctxlib.IDENTIFIER.set(dict(scope["headers"]).get(b"x-request-id", b"none").decode())
    await base(scope, receive, send)
"""

MODULE = """
import asyncio
import contextvars
import decimal
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

import ctxlib
from fastapi import BackgroundTasks, FastAPI, WebSocket
from fastapi.responses import StreamingResponse

decimal.getcontext().prec = PRECISION


class Kept:
    pass


WHERE = contextvars.ContextVar("where", default="nowhere")
KEPT = contextvars.ContextVar("kept")
KEPT.set([Kept()])
WHERE.set("at import")
POOL = ThreadPoolExecutor(1)
told = []


def seen():
    KEPT.get()
    third = str(decimal.Decimal(1) / decimal.Decimal(3))
    return [len(third) - 2, WHERE.get(), ctxlib.STATE.get()]


@asynccontextmanager
async def lifespan(app):
    told.append(seen())
    WHERE.set("in the lifespan")
    task = asyncio.create_task(in_task())
    await task
    yield


async def in_task():
    await asyncio.sleep(0)
    told.append(seen())


app = FastAPI(lifespan=lifespan)


@app.get("/")
async def index():
    before = seen()
    WHERE.set("in a request")
    with decimal.localcontext() as here:
        here.prec = 7
        await asyncio.sleep(0)
        return [before, seen(), await asyncio.create_task(in_request_task())]


async def in_request_task():
    return seen()


@app.get("/sync")
def sync():
    return seen()


@app.get("/to-thread")
async def to_thread():
    return await asyncio.to_thread(seen)


@app.get("/stream")
async def stream():
    async def chunks():
        for _ in range(3):
            await asyncio.sleep(0.001)
            yield str(seen()) + ";"

    return StreamingResponse(chunks())


@app.get("/background")
async def background(tasks: BackgroundTasks):
    tasks.add_task(lambda: told.append(["background", *seen()]))
    return "soon"


@app.get("/told")
async def what_was_told():
    while len(told) < 3:  # what runs in the background begins when the answer is out
        await asyncio.sleep(0.001)
    return told


@app.get("/identifier")
def identifier():
    return ctxlib.IDENTIFIER.get()


@app.get("/threads")
def threads():
    heard = []
    one = threading.Thread(target=lambda: heard.append(seen()))
    one.start()
    one.join()
    timer = threading.Timer(0.001, lambda: heard.append(seen()))
    timer.start()
    timer.join()
    heard.append(POOL.submit(seen).result())
    return heard


@app.websocket("/ws")
async def ws(socket: WebSocket):
    await socket.accept()
    for _ in range(2):
        await socket.receive_text()
        await socket.send_json(seen())
    await socket.close()
"""

LIBRARY_SET = "set when it was imported"


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("context")
    texts = {"ctxlib": LIBRARY, "base_app": BASE, "embedded": EMBEDDED}
    texts |= {name: MODULE.replace("PRECISION", str(digits)) for name, digits in (("precise", 50), ("coarse", 9))}
    texts["plain"] = MODULE.replace("decimal.getcontext().prec = PRECISION", "").replace('WHERE.set("at import")', "")
    for name, text in texts.items():
        (directory / f"{name}.py").write_text(text)
    return directory


def uvicorn(app: str) -> Callable[[int], list[str]]:
    return lambda port: [sys.executable, "-m", "uvicorn", app, "--port", str(port)]


def hypercorn(app: str) -> Callable[[int], list[str]]:
    return lambda port: [sys.executable, "-m", "hypercorn", app, "--bind", f"127.0.0.1:{port}"]


@pytest.fixture(scope="module")
def right(run_alone: Callable[..., Any], sources: Path) -> Any:
    """What the module answers alone."""
    return everything(run_alone(uvicorn("precise:app"), sources).url)


class Embedded(BaseProcess):
    """A base inside somebody else's server, and ``arkctl`` to talk to it."""

    def __init__(self, process: Any, arklet_port: int, cwd: Path) -> None:  # not super: it runs already
        self.popen, self.port, self.log = process.popen, process.port, process.log
        self.arklet_port, self.cwd = arklet_port, cwd


@pytest.fixture(scope="module")
def base_in(serve: Any, run_alone: Any, sources: Path) -> Callable[[str], BaseProcess]:
    """``base_in(server)`` is the base in this server, with the modules: one for all tests, in any order."""

    @functools.cache
    def start(server: str) -> BaseProcess:
        if server == "arkctl":
            process: BaseProcess = serve("base_app:app", cwd=sources)
        else:
            arklet = free_port()
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("KOUPLELESS_ARKLET_HTTP_PORT", str(arklet))
                command = uvicorn if server == "uvicorn" else hypercorn
                process = Embedded(run_alone(command("embedded:app"), sources), arklet, sources)
        for name in ("precise", "coarse", "plain"):
            process.deploy(sources / f"{name}.py")
        return process

    return start


@pytest.fixture(params=["arkctl", "uvicorn", "hypercorn"])
def base(request: Any, base_in: Callable[[str], BaseProcess]) -> BaseProcess:
    return base_in(request.param)


def everything(url: str) -> dict[str, Any]:
    """Every way into the module, twice, so that what one request sets could be seen by the next."""
    with httpx.Client(base_url=url, timeout=30) as client:
        client.get("/background").raise_for_status()
        found: dict[str, Any] = {}
        for round_ in range(2):
            for path in ("", "sync", "to-thread", "told"):
                answer = client.get(f"/{path}")
                assert answer.status_code == 200, answer.text
                found[f"{path} {round_}"] = answer.json()
            found[f"stream {round_}"] = client.get("/stream").text

    async def talk() -> list[Any]:
        async with websockets.connect(url.replace("http", "ws", 1) + "/ws") as connection:
            heard = []
            for _ in range(2):
                await connection.send("x")
                heard.append(json.loads(await connection.recv()))
            return heard

    found["ws"] = asyncio.run(talk())
    return found


def test_it_is_as_alone_everywhere(base: BaseProcess, right: Any) -> None:
    assert right["sync 1"] == [50, "at import", LIBRARY_SET]
    assert everything(f"{base.url}/precise") == right
    # Threads have the context of the life here, and none alone up to Python 3.13: see the decision in `variables`.
    assert base.get("/precise/threads").json() == [[50, "at import", LIBRARY_SET]] * 3


def test_the_base_and_other_modules_see_nothing_of_it(base: BaseProcess) -> None:
    for _ in range(3):
        assert base.get("/precise/sync").json() == [50, "at import", LIBRARY_SET]
        assert base.get("/coarse/sync").json() == [9, "at import", LIBRARY_SET]
        assert base.get("/plain/sync").json() == [28, "nowhere", LIBRARY_SET]
        digits, state, names = base.get("/own").json()
        assert (digits, state) == (28, LIBRARY_SET)
        assert not {"where", "kept"} & set(names)


def test_many_at_once_do_not_mix(base: BaseProcess) -> None:
    right = {"precise": [50, "at import", LIBRARY_SET], "coarse": [9, "at import", LIBRARY_SET]}

    def ask(name: str) -> int:
        with httpx.Client(base_url=base.url, timeout=60) as client:
            for _ in range(40):
                assert client.get(f"/{name}/sync").json() == right[name]
                assert client.get(f"/{name}/to-thread").json() == right[name]
                assert client.get(f"/{name}/stream").text == f"{right[name]};" * 3
        return 1

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(ask, ["precise", "coarse"] * 2)) == 4


def read_answer(reader: Any) -> Any:
    """The next answer of several on one connection, as JSON."""
    assert reader.readline().split()[1] == b"200"
    return json.loads(reader.read(int(http.client.parse_headers(reader)["content-length"])))


def test_requests_that_wait_on_one_connection_get_nothing_of_each_other(base: BaseProcess) -> None:
    """Servers begin the next one where the one before ends, in that one's context."""
    paths = ["/precise/", "/plain/sync", "/own", "/coarse/", "/precise/sync"]
    with socket.create_connection(("127.0.0.1", base.port), timeout=30) as connection:
        connection.sendall(b"".join(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode() for path in paths))
        with connection.makefile("rb") as reader:
            answers = [read_answer(reader) for _ in paths]
    assert answers[0][0] == [50, "at import", LIBRARY_SET]
    assert answers[1] == [28, "nowhere", LIBRARY_SET]
    assert answers[2][0] == 28
    assert not {"where", "kept"} & set(answers[2][2])
    assert answers[3][0] == [9, "at import", LIBRARY_SET]
    assert answers[4] == [50, "at import", LIBRARY_SET]


def test_what_a_middleware_of_the_base_sets_arrives(base: BaseProcess) -> None:
    expected = "none" if not isinstance(base, Embedded) else "abc"
    assert base.get("/precise/identifier", headers={"x-request-id": "abc"}).json() == expected
    if isinstance(base, Embedded):
        assert base.get("/precise/identifier", headers={"x-request-id": "def"}).json() == "def"
        assert base.get("/precise/identifier").json() == "none"


def test_a_new_version_has_its_own_and_the_old_one_leaves_nothing(base: BaseProcess, sources: Path) -> None:
    with httpx.Client(base_url=base.url, timeout=30) as kept_alive:
        assert kept_alive.get("/precise/sync").json()[0] == 50
        (sources / "precise.py").write_text(MODULE.replace("PRECISION", "60"))
        try:
            base.deploy(sources / "precise.py")
            assert kept_alive.get("/precise/sync").json()[0] == 60
            for _ in range(2):
                kept_alive.get("/precise/stream")
            said = base.say("undeploy", "precise", "--all-versions")
            assert "nothing left behind" in said, said
            assert kept_alive.get("/plain/sync").json() == [28, "nowhere", LIBRARY_SET]
        finally:
            (sources / "precise.py").write_text(MODULE.replace("PRECISION", "50"))
    base.deploy(sources / "precise.py")
    assert base.get("/precise/sync").json()[0] == 50
