"""Modules that would end the base, or stop it: each in a base of its own, and nobody else notices.

Whatever a row does, the base's own page, its arklet, another module and the next install work while the module is there
and when it has left, there is no second process, and the base ends in order. A base is forked for each row from one
process that has imported everything, which takes a fraction of a second; every other one runs on uvloop.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import httpx
import psutil  # type: ignore[import-untyped]
import pytest
from tests.conftest import free_port, unmeasured, until

from koupleless.artifact.build import Options, build_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HEAD = """
import asyncio, atexit, contextvars, faulthandler, gc, importlib, io, json, logging, os, pickle, resource
import signal, socket, sys, threading, time, types, warnings
import koupleless

KEEP = []

def acts():
    print("acting", flush=True)
{act}

async def acting():
    acts()

def nothing():
    pass

async def quiet():
    pass

started = stopped = nothing
requested = quiet
"""

MOMENTS = {
    "import": "acts()",
    "start": "started = acts",
    "failing start": "acts()\nraise LookupError('after all that')",
    "request": "requested = acting",
    "task": "async def requested(): KEEP.append(asyncio.create_task(acting()))",
    "group": """
async def requested():
    async with asyncio.TaskGroup() as group:
        group.create_task(acting())
""",
    "timer": "async def requested(): asyncio.get_running_loop().call_later(0.01, acts)",
    "callback": "async def requested(): asyncio.get_running_loop().call_soon(acts)",
    "future": """
async def requested():
    future = asyncio.get_running_loop().create_future()
    future.add_done_callback(lambda _: acts())
    future.set_result(None)
""",
    "other thread": "async def requested(): threading.Thread(target=acts).start()",
    "threadsafe": """
async def requested():
    loop = asyncio.get_running_loop()
    threading.Thread(target=loop.call_soon_threadsafe, args=(acts,)).start()
""",
    "executor": "async def requested(): await asyncio.to_thread(acts)",
    "shutdown": "stopped = acts",
    "stop hook": "koupleless.on_stop(acts)",
    "async stop hook": "koupleless.on_stop(acting)",
    "exit function": "atexit.register(acts)",
    "wsgi": "",
    "wsgi stream": "",
}

ASGI = """
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        started()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        stopped()
        await send({"type": "lifespan.shutdown.complete"})
        return
    await requested()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"bad"})
"""

WSGI = {
    "wsgi": """
def app(environ, start_response):
    acts()
    start_response("200 OK", [])
    return [b"bad"]
""",
    "wsgi stream": """
def app(environ, start_response):
    start_response("200 OK", [])
    yield b"bad"
    acts()
    yield b"bad"
""",
}

GOOD = """
def app(environ, start_response):
    start_response("200 OK", [])
    return [b"{name}"]
"""


class Row(NamedTuple):
    """A misbehaving module: when it acts, what it does then, and what is said of that, as a pattern."""

    moment: str
    act: str
    says: str = ""


EXIT = r"bad:1\.0\.0 called sys\.exit\(5\) .*, at \S+bad\.py:\d+"
INTERRUPT = EXIT.replace(r"called sys\.exit\(5\)", "raised KeyboardInterrupt")
STOP = (
    r"bad\.py:\d+: RuntimeWarning: biz bad:1\.0\.0 called {} of the event loop, which all modules share; "
    r"the call was ignored"
)
IGNORED = r"bad\.py:\d+: ProcessWideWarning: biz bad:1\.0\.0 called {}.*was ignored"
REFUSED = r"biz bad:1\.0\.0 called {}.*was refused"
OTHERS = "for task in asyncio.all_tasks(): task is asyncio.current_task() or task.cancel()"

ROWS = [
    # What ends a program.
    Row("import", "sys.exit(5)", "SystemExit: 5"),
    Row("start", "sys.exit(5)", EXIT),
    Row("request", "sys.exit(5)", EXIT),
    Row("task", "sys.exit(5)", EXIT),
    Row("group", "sys.exit(5)", EXIT),
    Row("timer", "sys.exit(5)", EXIT),
    Row("callback", "sys.exit(5)", EXIT),
    Row("future", "sys.exit(5)", EXIT),
    Row("threadsafe", "sys.exit(5)", EXIT),
    Row("other thread", "sys.exit(5)"),
    Row("executor", "sys.exit(5)", EXIT),
    Row("wsgi", "sys.exit(5)", EXIT),
    Row("wsgi stream", "sys.exit(5)", EXIT),
    Row("shutdown", "sys.exit(5)", EXIT),
    Row("stop hook", "sys.exit(5)", "SystemExit: 5"),
    Row("async stop hook", "sys.exit(5)", EXIT),
    Row("exit function", "sys.exit(5)", "SystemExit: 5"),
    Row("import", "raise KeyboardInterrupt", "KeyboardInterrupt"),
    Row("start", "raise KeyboardInterrupt", INTERRUPT),
    Row("request", "raise KeyboardInterrupt", INTERRUPT),
    Row("task", "raise KeyboardInterrupt", INTERRUPT),
    Row("group", "raise KeyboardInterrupt", INTERRUPT),
    Row("timer", "raise KeyboardInterrupt", INTERRUPT),
    Row("other thread", "raise KeyboardInterrupt", r"bad\.py.*\n.*raise KeyboardInterrupt"),
    Row("wsgi", "raise KeyboardInterrupt", INTERRUPT),
    Row("wsgi stream", "raise KeyboardInterrupt", INTERRUPT),
    Row("shutdown", "raise KeyboardInterrupt", INTERRUPT),
    Row("async stop hook", "raise KeyboardInterrupt", INTERRUPT),
    Row("request", "raise asyncio.CancelledError"),
    Row("request", "raise BaseException('mine')", "BaseException: mine"),
    Row("task", "raise GeneratorExit"),
    Row("request", "KEEP.append(lambda: KEEP[0]()); KEEP[0]()", "RecursionError"),
    # The event loop, and the tasks of others.
    Row("start", "asyncio.get_running_loop().stop()", STOP.format("stop")),
    Row("request", "asyncio.get_running_loop().stop()", STOP.format("stop")),
    Row("timer", "asyncio.get_running_loop().stop()", STOP.format("stop")),
    Row("shutdown", "asyncio.get_running_loop().stop()", STOP.format("stop")),
    Row("task", "asyncio.get_running_loop().close()", STOP.format("close")),
    Row("request", "KEEP.append(asyncio.ensure_future(asyncio.get_running_loop().shutdown_default_executor()))"),
    Row("request", "KEEP.append(asyncio.ensure_future(asyncio.get_running_loop().shutdown_asyncgens()))"),
    Row("request", OTHERS),
    Row("shutdown", OTHERS),
    Row("async stop hook", OTHERS),
    # Signals, and the life of the process.
    Row("import", "signal.signal(signal.SIGALRM, print); signal.alarm(1)", IGNORED.format(r"signal\.alarm")),
    Row("start", "signal.setitimer(signal.ITIMER_REAL, 0.1); time.sleep(0.2)", IGNORED.format(r"signal\.setitimer")),
    Row("request", "signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})", IGNORED.format("signal")),
    Row("request", "signal.pthread_kill(threading.main_thread().ident, signal.SIGUSR1)", REFUSED.format("signal")),
    Row("request", "signal.raise_signal(signal.SIGTERM)", REFUSED.format("signal")),
    Row("request", "os.kill(os.getpid(), signal.SIGTERM)", REFUSED.format(r"os\.kill")),
    Row("other thread", "os.kill(os.getpid(), signal.SIGKILL)", REFUSED.format(r"os\.kill")),
    Row("request", "os.killpg(0, signal.SIGTERM)", REFUSED.format(r"os\.killpg")),
    Row("request", "os._exit(3)", REFUSED.format(r"os\._exit")),
    Row("request", "os.abort()", REFUSED.format(r"os\.abort")),
    Row("request", "os.execv(sys.executable, [sys.executable, '-c', ''])", REFUSED.format(r"os\.execv")),
    Row("start", "faulthandler.dump_traceback_later(0.1, exit=True); time.sleep(0.2)", IGNORED.format("faulthandler")),
    Row("start", "resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))", IGNORED.format(r"resource\.setrlimit")),
    Row("request", "os.setuid(65534)"),
    # Descriptors.
    Row("request", "os.closerange(3, 200)", REFUSED.format(r"os\.closerange")),
    Row("request", "os.close(1)", REFUSED.format(r"os\.close")),
    Row("request", "os.dup2(os.open(os.devnull, os.O_RDONLY), 2)", REFUSED.format(r"os\.dup2")),
    Row("start", "sys.stderr.close()", IGNORED.format(r"sys\.stderr\.close")),
    Row("start", "sys.stdout.close()", IGNORED.format(r"sys\.stdout\.close")),
    Row("start", "sys.stderr = None"),
    Row("start", "logging.shutdown()"),
    # Children.
    Row("import", "os.fork()"),
    Row("request", "os.fork()"),
    Row("task", "if os.fork() == 0: raise LookupError('in the child')", "LookupError: in the child"),
    Row("timer", "os.fork()"),
    Row("other thread", "os.fork()"),
    Row("wsgi", "os.fork()"),
    # Damage, by one that starts.
    Row("start", "sys.path_hooks.clear(); sys.path_importer_cache.clear()"),
    Row("start", "threading.excepthook = None"),
    Row("start", "logging.Logger.handle = None"),
    Row("start", "asyncio.get_running_loop = lambda: None"),
    Row("start", "sys.modules.clear()"),
    Row("start", "sys.addaudithook(lambda *_: 1 / 0)", "an audit hook of biz bad:1.0.0 is called no more"),
    Row("start", "time.monotonic = time.time = time.sleep = None"),
    Row("start", "gc.callbacks.append(lambda *_: 1 / 0)"),
    # And by one that fails to.
    Row("failing start", "sys.path_hooks.clear(); sys.path_importer_cache.clear()"),
    Row("failing start", "sys.meta_path.clear(); sys.path.clear()"),
    Row("failing start", "threading.excepthook = None; sys.excepthook = None; sys.unraisablehook = None"),
    Row("failing start", "logging.Logger.handle = None; logging.Logger.isEnabledFor = lambda *_: 1 / 0"),
    Row("failing start", "asyncio.get_running_loop = lambda: None; asyncio.create_task = None"),
    Row("failing start", "importlib.import_module = None; importlib.invalidate_caches = None"),
    Row("failing start", "json.loads = json.dumps = pickle.dumps = None"),
    Row("failing start", "threading.Thread.start = None; contextvars.copy_context = None"),
    Row("failing start", "warnings.warn = None; os.getpid = os.stat = None"),
    Row("failing start", "time.monotonic = time.perf_counter = socket.socket = None"),
]


# --- bases --------------------------------------------------------------------------------------------------------


class Base:
    """A base that was forked for one row."""

    def __init__(self, nursery: Nursery, directory: Path, modules: list[Path], loop: str) -> None:
        self.port, self.arklet_port, self.log = free_port(), free_port(), directory / "log"
        self._nursery = nursery
        order = {
            "port": self.port,
            "arklet_port": self.arklet_port,
            "cwd": str(directory),
            "log": str(self.log),
            "modules": [str(module) for module in modules],
            "loop": loop,
        }
        self.pid = int(nursery.say(json.dumps(order)))
        self.client = httpx.Client(timeout=5, trust_env=False, verify=False)
        until(self._answers, 30, otherwise="it does not answer")

    def _answers(self) -> bool:
        with contextlib.suppress(httpx.HTTPError):
            return self.get("/") is not None
        return False

    def get(self, path: str) -> str:
        return self.client.get(f"http://127.0.0.1:{self.port}{path}").text

    def ask(self, command: str, **body: object) -> dict[str, Any]:
        reply = self.client.post(f"http://127.0.0.1:{self.arklet_port}/{command}", json=body)
        decoded: dict[str, Any] = reply.json()
        return decoded

    def others(self) -> list[int]:
        """Processes of the base's group that are not the base."""
        found = []
        for process in psutil.Process(self._nursery.popen.pid).children(recursive=True) + psutil.Process(1).children():
            with contextlib.suppress(psutil.Error, OSError):
                if process.pid != self.pid and os.getpgid(process.pid) == self.pid and process.status() != "zombie":
                    found.append(process.pid)
        return found

    def end(self) -> int:
        os.kill(self.pid, signal.SIGTERM)
        ends = time.monotonic() + 10
        while psutil.Process(self.pid).status() != "zombie":
            if time.monotonic() > ends:
                os.kill(self.pid, signal.SIGKILL)
            time.sleep(0.005)
        return self.leave()

    def leave(self) -> int:
        self.client.close()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        return int(self._nursery.say(f"end {self.pid}").split()[1])


class Nursery:
    """The process that bases are forked from."""

    def __init__(self) -> None:
        script = Path(__file__).parent / "misbehaving" / "nursery.py"
        self.popen = subprocess.Popen(
            [sys.executable, "-P", str(script)],
            env=unmeasured(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )

    def say(self, line: str) -> str:
        assert self.popen.stdin is not None
        assert self.popen.stdout is not None
        self.popen.stdin.write(f"{line}\n")
        self.popen.stdin.flush()
        return self.popen.stdout.readline().strip()

    def close(self) -> None:
        self.popen.communicate(timeout=30)


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    nursery = Nursery()
    yield nursery
    nursery.close()


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """``good("next")``: the artefact of a module that answers with its name; each is built once."""
    directory = tmp_path_factory.mktemp("good")
    names = ("neighbour", "while_there", "afterwards")
    return {name: build(directory, name, GOOD.format(name=name)) for name in names}.__getitem__


def build(directory: Path, name: str, source: str) -> Path:
    path = directory / f"{name}.py"
    path.write_text(source)
    return build_file(path, Options(out=directory)).path


def source_of(row: Row) -> str:
    head = HEAD.format(act=textwrap.indent(row.act, "    "))
    return head + ASGI * (row.moment not in WSGI) + MOMENTS[row.moment] + WSGI.get(row.moment, "")


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("loop", "row"),
    list(zip(itertools.cycle(["uvloop", "asyncio"]), ROWS, strict=False)),
    ids=lambda value: value if isinstance(value, str) else f"{value.moment}: {value.act}"[:90],
)
def test_a_module_neither_ends_nor_stops_the_base(
    loop: str, row: Row, nursery: Nursery, good: Callable[[str], Path], tmp_path: Path
) -> None:
    base = Base(nursery, tmp_path, [good("neighbour")], loop)
    told = []
    status = None
    try:
        artefact = build(tmp_path, "bad", source_of(row))
        told.append(base.ask("installBiz", bizUrl=artefact.as_uri()))
        with contextlib.suppress(httpx.HTTPError):
            base.get("/bad/")
        acts_late = row.moment in {"shutdown", "stop hook", "async stop hook", "exit function"}
        if not acts_late:
            until(lambda: "acting" in base.log.read_text(), 5, otherwise="it did not act")
        is_well(base, good("while_there"))
        told.append(base.ask("uninstallBiz", bizName="bad", bizVersion="1.0.0"))
        assert "acting" in base.log.read_text()
        is_well(base, good("afterwards"))
        status = base.end()
    finally:
        said = base.log.read_text() + json.dumps(told)
        sys.stdout.write(said)  # which pytest shows of a test that fails
        if status is None:
            base.leave()
    assert status == 0, said
    assert re.search(row.says, said), said


def is_well(base: Base, artefact: Path) -> None:
    """What has to be so at any time."""
    for _ in range(2):
        assert base.get("/") == f"base {base.pid}"
        assert base.get("/neighbour/") == "neighbour"
    assert base.ask("health")["code"] == "SUCCESS"
    reply = base.ask("installBiz", bizUrl=artefact.as_uri())
    assert reply["code"] == "SUCCESS", reply
    name = artefact.name.partition("-")[0]
    assert base.get(f"/{name}/") == name
    assert base.others() == []
