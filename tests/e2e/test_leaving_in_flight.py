"""Uninstalling a module that is in the middle of something: bounded by the deadlines, and nobody else notices.

Every case would take minutes if it were waited for. Another module is asked all the while, and must never fail.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
import time
from pathlib import Path

import httpx
import pytest
import websockets
from tests.conftest import until
from tests.e2e.conftest import BaseProcess

from koupleless.artifact.build import Options, build_file

BIZS = Path(__file__).parent.parent / "bizs"
LONG_S = 300
"""What the module does takes this long, unless somebody ends it."""
BOUND_S = 60
"""More than all deadlines together on a loaded machine, and much less than that."""

SETTINGS = "[base]\ndrain-timeout = 0.5\nstop-timeout = 0.5\n"

HEAD = f"""
import asyncio, contextlib, select, threading, time
import koupleless
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route, WebSocketRoute

LONG_S = {LONG_S}
app = Starlette()
busy = threading.Event()

async def is_busy(request):
    return PlainTextResponse(str(busy.is_set()))

app.router.routes.append(Route("/busy", is_busy))

def wait_in_c():
    select.select([], [], [], LONG_S)
"""

REQUEST = """
async def hold(request):
    busy.set()
    await asyncio.sleep(LONG_S)

app.router.routes.append(Route("/hold", hold))
"""

STUBBORN_REQUEST = """
async def hold(request):
    busy.set()
    ends = time.monotonic() + LONG_S
    while time.monotonic() < ends:
        try:
            await asyncio.sleep(LONG_S)
        except asyncio.CancelledError:
            pass

app.router.routes.append(Route("/hold", hold))
"""

THREADED_REQUEST = """
def hold(request):
    busy.set()
    time.sleep(LONG_S)

app.router.routes.append(Route("/hold", hold))
"""

WSGI_REQUEST = f"""
import time
is_busy = False

def app(environ, start_response):
    global is_busy
    if environ["PATH_INFO"] == "/hold":
        is_busy = True
        time.sleep({LONG_S})
    start_response("200 OK", [])
    return [str(is_busy).encode()]
"""

STREAM = """
async def hold(request):
    async def lines():
        while True:
            yield "line\\n"
            busy.set()
            await asyncio.sleep(0.01)
    return StreamingResponse(lines())

app.router.routes.append(Route("/hold", hold))
"""

WEBSOCKET = """
async def hold(socket):
    await socket.accept()
    busy.set()
    await socket.receive_text()

app.router.routes.append(WebSocketRoute("/socket", hold))
"""

THREAD_IN_C = """
def work():
    busy.set()
    wait_in_c()

threading.Thread(target=work, name="in C", daemon=False).start()
"""

LOCK = """
lock = threading.Lock()

def work():
    with lock:
        busy.set()
        time.sleep(LONG_S)

threading.Thread(target=work, name="locker", daemon=True).start()

@koupleless.on_stop
def stop():
    with lock:
        pass
"""

IMPORT_LOCK = """
import pathlib, sys
place = pathlib.Path(__file__).parent / "never.py"
place.write_text("import __main__\\nfrom holding import busy, wait_in_c\\nbusy.set()\\nwait_in_c()\\n")

def work():
    import never

threading.Thread(target=work, name="importer", daemon=True).start()
"""

STOP_HOOK = """
busy.set()

@koupleless.on_stop
def stop():
    time.sleep(LONG_S)
"""

LIFESPAN = """
@contextlib.asynccontextmanager
async def lifespan(app):
    busy.set()
    yield
    await asyncio.sleep(LONG_S)

app.router.lifespan_context = lifespan
"""

STUBBORN_LIFESPAN = """
@contextlib.asynccontextmanager
async def lifespan(app):
    busy.set()
    yield
    ends = time.monotonic() + LONG_S
    while time.monotonic() < ends:
        try:
            await asyncio.sleep(LONG_S)
        except asyncio.CancelledError:
            pass

app.router.lifespan_context = lifespan
"""

EXIT_FUNCTION = """
import atexit
busy.set()
atexit.register(time.sleep, LONG_S)
"""

EXECUTOR = """
from concurrent.futures import ThreadPoolExecutor
pool = ThreadPoolExecutor(1, thread_name_prefix="pool")
pool.submit(busy.set)
pool.submit(wait_in_c)
"""

TO_THREAD = """
@contextlib.asynccontextmanager
async def lifespan(app):
    busy.set()
    app.state.task = asyncio.create_task(asyncio.to_thread(wait_in_c))
    await asyncio.sleep(0)
    yield

app.router.lifespan_context = lifespan
"""

TASK = """
async def forever():
    busy.set()
    while True:
        try:
            await asyncio.sleep(LONG_S)
        except asyncio.CancelledError:
            pass

@contextlib.asynccontextmanager
async def lifespan(app):
    app.state.task = asyncio.create_task(forever(), name="forever")
    yield

app.router.lifespan_context = lifespan
"""

SERVICE = """
import koupleless.service

koupleless.service.offer(object(), name="slow", on_close=lambda: time.sleep(LONG_S))
busy.set()
"""


class Neighbour:
    """Asks another module without pause, and keeps what was not as it should be."""

    def __init__(self, url):
        self._url = url
        self._stop = threading.Event()
        self.answers = 0
        self.problems = []
        self._threads = [threading.Thread(target=self._ask) for _ in range(2)]

    def _ask(self):
        with httpx.Client(timeout=30) as client:
            while not self._stop.wait(0.002):
                try:
                    answer = client.get(f"{self._url}/hello/")
                except httpx.HTTPError as error:
                    self.problems.append(repr(error))
                    continue
                if answer.status_code != 200:
                    self.problems.append(answer.text)
                self.answers += 1

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        for thread in self._threads:
            thread.join(60)


@pytest.fixture(scope="module")
def base(serve, tmp_path_factory):
    directory = tmp_path_factory.mktemp("base")
    (directory / "koupleless.toml").write_text(SETTINGS)
    return serve("--module", str(BIZS / "hello-1.0"), cwd=directory)


@pytest.fixture
def deploy(tmp_path):
    """``deploy(base, source)`` installs a module and waits until it is in the middle of what it does."""

    def run(process, source, *, hold=None):
        path = tmp_path / "holding.py"
        path.write_text(source if "def app(" in source else HEAD + source)
        artefact = build_file(path, Options(out=tmp_path / "out")).path
        process.ask("installBiz", bizUrl=artefact.as_uri())
        if hold is not None:
            hold.start()
        until(lambda: process.get("/holding/busy").text == "True", BOUND_S)

    return run


def uninstall(process):
    """The purge report, which has to come in time."""
    begin = time.monotonic()
    report = process.ask("uninstallBiz", bizName="holding", bizVersion="1.0.0")["purgeReport"]
    assert time.monotonic() - begin < BOUND_S
    return report


class Asking(threading.Thread):
    """A request that is in flight; ``outcome`` is its status, or what was raised."""

    def __init__(self, url):
        super().__init__(daemon=True)
        self.url = url
        self.outcome = None

    def run(self):
        try:
            self.outcome = httpx.get(self.url, timeout=LONG_S).status_code
        except httpx.HTTPError as error:
            self.outcome = type(error).__name__


@pytest.mark.parametrize(
    ("source", "outcome", "says"),
    [
        (REQUEST, 503, ["1 requests had not ended after 0.5 s and were aborted"]),
        (STUBBORN_REQUEST, None, ["1 requests had not ended", "1 of the requests ignore their end and go on"]),
        (THREADED_REQUEST, None, ["1 requests had not ended"]),
        (WSGI_REQUEST, None, ["1 requests had not ended", "is still busy"]),
        (STREAM, "RemoteProtocolError", ["1 requests had not ended"]),
    ],
    ids=["request", "stubborn request", "request in a thread", "wsgi request", "stream"],
)
def test_a_request_in_flight(base, deploy, source, outcome, says):
    request = Asking(f"{base.url}/holding/hold")
    with Neighbour(base.url) as neighbour:
        deploy(base, source, hold=request)
        report = uninstall(base)
        gone = base.get("/holding/")
        if outcome is not None:
            request.join(BOUND_S)
            assert request.outcome == outcome

    assert all(any(words in failure for failure in report["failures"]) for words in says), report
    assert gone.status_code == 404
    assert neighbour.problems == []
    assert neighbour.answers > 0


def test_a_websocket_in_flight(base, deploy):
    async def converse():
        async with websockets.connect(f"{base.url}/holding/socket".replace("http:", "ws:")) as socket:
            with contextlib.suppress(websockets.ConnectionClosed):
                await socket.recv()
            return socket.close_code

    codes = []
    with Neighbour(base.url) as neighbour:
        deploy(base, WEBSOCKET, hold=threading.Thread(target=lambda: codes.append(asyncio.run(converse()))))
        report = uninstall(base)
        until(lambda: codes, BOUND_S)

    assert codes == [1001]
    assert any("1 requests had not ended" in failure for failure in report["failures"])
    assert neighbour.problems == []


@pytest.mark.parametrize(
    ("source", "says"),
    [
        (THREAD_IN_C, "'in C'"),
        (LOCK, "stop hook stop"),
        (IMPORT_LOCK, "importer"),
        (STOP_HOOK, "stop hook stop: koupleless.container.stage.DeadlineMissed"),
        (LIFESPAN, "shut application down"),
        (STUBBORN_LIFESPAN, "shut application down"),
        (EXIT_FUNCTION, "atexit"),
        (EXECUTOR, "pool_0"),
        (TO_THREAD, "executor"),
        (SERVICE, "withdraw services"),
    ],
    ids=[
        *("thread in C", "lock", "import", "stop hook", "lifespan", "stubborn lifespan"),
        *("exit function", "executor", "to_thread", "service"),
    ],
)
def test_something_that_does_not_end(base, deploy, source, says):
    with Neighbour(base.url) as neighbour:
        deploy(base, source)
        report = uninstall(base)
        deploy(base, "busy.set()")  # the next one of that name comes and goes as if nothing had been
        assert uninstall(base)["failures"] == []

    assert any(says in failure for failure in report["failures"]), report
    assert neighbour.problems == []
    assert neighbour.answers > 0


def test_a_task_that_catches_every_cancellation_is_ended(base, deploy):
    with Neighbour(base.url) as neighbour:
        deploy(base, TASK)
        report = uninstall(base)

    assert (report["clean"], report["failures"]) == (True, []), report
    assert any("forever" in ended for ended in report["ended"]), report
    assert neighbour.problems == []


def test_what_is_left_is_named_in_health_with_its_holder_and_hinders_nobody(base, deploy):
    deploy(base, THREAD_IN_C)
    uninstall(base)
    deploy(base, "busy.set()")
    uninstall(base)

    zombies = base.ask("health")["healthData"]["zombies"]
    said = base.arkctl("health")

    (left,) = [zombie for zombie in zombies if zombie["name"] == "holding" and "'in C'" in zombie["holders"][0]][-1:]
    assert left["biz"] == "holding:1.0.0"
    assert left["since"] <= time.time() * 1000
    assert "REMOVED" in said
    assert "thread 'in C' running wait_in_c at" in said


def test_a_base_with_all_of_that_left_behind_still_ends(tmp_path, deploy):
    (tmp_path / "koupleless.toml").write_text(SETTINGS)
    process = BaseProcess(["--module", str(BIZS / "hello-1.0")], cwd=tmp_path, log=tmp_path / "log")
    try:
        for source in (THREAD_IN_C, STOP_HOOK, EXECUTOR, TO_THREAD, STUBBORN_LIFESPAN):
            deploy(process, source)
            uninstall(process)
        deploy(process, THREAD_IN_C)  # and one that is there to the end
    except BaseException:
        process.popen.kill()
        raise

    assert process.end(signal.SIGTERM) == 0
