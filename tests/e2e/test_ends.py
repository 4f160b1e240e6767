"""`arkctl serve` ends with modules that leave threads, executors and children behind as these end alone."""

from __future__ import annotations

import contextlib
import http.server
import threading
import time
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.e2e.conftest import BaseProcess

APP = """

def app(environ, start_response):
    start_response("200 OK", [])
    return [str(answer()).encode()]
"""

DAEMON = """
import _thread, threading, time

def loop():
    while True:
        time.sleep(0.05)

def answer():
    threading.Thread(target=loop, daemon=True).start()
    _thread.start_new_thread(loop, ())
    return "ok"

answer()
"""

THREADS = """
import atexit, multiprocessing, threading, time
from concurrent.futures import ThreadPoolExecutor

import koupleless

KINDS = [threading.Thread().daemon]
ending = threading.Event()

@koupleless.on_stop
def stop():
    KINDS.append(threading.Thread().daemon)
    print("kinds", KINDS, flush=True)
    ending.set()

def late(seconds, text):
    ending.wait()
    time.sleep(seconds)
    print(text, flush=True)

atexit.register(print, "exit", flush=True)
pool = ThreadPoolExecutor(1)
pool.submit(late, 0.2, "work")
threading.Thread(target=late, args=(0.6, "thread")).start()

def answer():
    KINDS.append(threading.Thread().daemon)
    return KINDS
"""


@pytest.fixture
def base(serve: Callable[..., BaseProcess], tmp_path: Path) -> BaseProcess:
    return serve(cwd=tmp_path)


def end(base: BaseProcess) -> tuple[int, float]:
    began = time.monotonic()
    return base.end(), time.monotonic() - began


def test_daemon_threads_do_not_keep_a_base_from_ending(base: BaseProcess, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / f"{name}.py").write_text(DAEMON + APP)
        base.deploy(tmp_path / f"{name}.py")
        assert base.get(f"/{name}/").text == "ok"
    status, seconds = end(base)
    assert status == 0
    assert seconds < 5


def test_other_threads_are_awaited_before_exit_functions_run(base: BaseProcess, tmp_path: Path) -> None:
    """And a thread that a module starts is no daemon unless it says so, wherever it starts it."""
    (tmp_path / "one.py").write_text(THREADS + APP)
    base.deploy(tmp_path / "one.py")
    assert base.get("/one/").text == "[False, False]"
    assert end(base)[0] == 0
    expected = ["kinds [False, False, False]", "work", "thread", "exit"]
    assert [line for line in base.log.read_text().splitlines() if line in expected] == expected


PARKED = """
import queue, threading, time

KINDS = {
    "sleep loop": lambda: [time.sleep(0.05) for _ in iter(int, 1)],
    "queue": queue.Queue().get,
    "event": threading.Event().wait,
    "computing": lambda: sum(number for number in iter(int, 1)),
}
for name, work in KINDS.items():
    threading.Thread(target=work, name=name, daemon=True).start()

def answer():
    return "ok"
"""


def test_threads_that_nobody_stops_end_with_their_module_and_the_report_says_how(
    base: BaseProcess, tmp_path: Path
) -> None:
    (tmp_path / "one.py").write_text(PARKED + APP)
    base.deploy(tmp_path / "one.py")
    assert base.get("/one/").text == "ok"
    said = base.undeploy("one")
    assert "nothing left behind; did not end by itself: thread " in said
    for words in (
        "was interrupted at ",
        "ended when the queue of the thread was ended",
        "ended when the event of the thread was set",
    ):
        assert words in said
    assert "Traceback" not in base.log.read_text()
    base.deploy(tmp_path / "one.py")


def test_threads_are_left_alone_where_the_settings_say_so(serve: Callable[..., BaseProcess], tmp_path: Path) -> None:
    (tmp_path / "koupleless.toml").write_text("[base]\nend-threads = false\nstop-timeout = 0.5\n")
    (tmp_path / "one.py").write_text(DAEMON + APP)
    base = serve(cwd=tmp_path)
    base.deploy(tmp_path / "one.py")
    assert "still runs at" in base.undeploy("one")


STUCK = """
import contextlib
import http.server
import threading
import time

class Ends:
    def __del__(self):
        while True:
            time.sleep(0.01)

ends = Ends()
ends.cycle = ends

def answer():
    return "ok"
"""


def test_a_base_ends_beside_an_uninstall_that_does_not(serve: Callable[..., BaseProcess], tmp_path: Path) -> None:
    """And one that is stuck keeps none of the workers, nor the name."""
    (tmp_path / "koupleless.toml").write_text("[base]\ndrain-timeout = 0.5\nstop-timeout = 0.5\n")
    (tmp_path / "one.py").write_text(STUCK + APP)
    base = serve(cwd=tmp_path)
    base.deploy(tmp_path / "one.py")
    assert "still runs at" in base.undeploy("one")
    base.deploy(tmp_path / "one.py")
    assert base.get("/one/").text == "ok"
    status, seconds = end(base)
    assert status == 0
    assert seconds < 15


CATCHES_ALL = """
import asyncio

async def catches_all():
    while True:
        try:
            await asyncio.sleep(0.05)
        except BaseException:
            pass

async def app(scope, receive, send):
    if scope["type"] == "http":
        global task
        task = asyncio.create_task(catches_all())
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"ok"})
"""


@pytest.mark.parametrize("is_undeployed", [True, False])
def test_a_base_ends_beside_a_coroutine_that_catches_everything(
    serve: Callable[..., BaseProcess], tmp_path: Path, is_undeployed: bool
) -> None:
    (tmp_path / "koupleless.toml").write_text("[base]\ndrain-timeout = 0.5\nstop-timeout = 0.5\n")
    (tmp_path / "one.py").write_text(CATCHES_ALL)
    base = serve(cwd=tmp_path)
    base.deploy(tmp_path / "one.py")
    assert base.get("/one/").text == "ok"
    if is_undeployed:
        said = base.undeploy("one")
        assert "nothing left behind" in said
        assert "was finalised" in said
        base.deploy(tmp_path / "one.py")
    status, seconds = end(base)
    assert status == 0
    assert seconds < 10


def test_a_base_ends_beside_a_download_that_does_not(serve: Callable[..., BaseProcess], tmp_path: Path) -> None:
    asked, ended = threading.Event(), threading.Event()

    class Slow(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            with contextlib.suppress(OSError):
                while not ended.is_set():
                    self.wfile.write(b"PK\x03\x04")
                    asked.set()
                    time.sleep(0.05)

        def log_message(self, *_: object) -> None:
            pass

    base = serve(cwd=tmp_path)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Slow) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,)).start()
        try:
            body = {
                "bizName": "one",
                "bizVersion": "1.0",
                "bizUrl": f"http://127.0.0.1:{server.server_address[1]}/x.zip",
            }
            asking = threading.Thread(target=ignore_errors(lambda: base.ask("installBiz", **body)))
            asking.start()
            assert asked.wait(20)
            status, seconds = end(base)
            asking.join()
        finally:
            ended.set()
            server.shutdown()
    assert status == 0
    assert seconds < 10


def ignore_errors(function: Callable[[], object]) -> Callable[[], None]:
    def call() -> None:
        with contextlib.suppress(Exception):
            function()

    return call
