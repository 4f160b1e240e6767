"""The tools people debug with see a module as they see any program: its files, lines, frames and variables."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pstats
import re
import signal
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import coverage
import httpx
import pytest
from tests.conftest import free_port, unmeasured

from koupleless.artifact.build import Options, build_project

if TYPE_CHECKING:
    from collections.abc import Iterator
    from concurrent.futures import Future

DEADLINE_S = 90
"""For what comes at once unless the machine is loaded."""

PROJECT = """
[project]
name = "debugged"
version = "1.0.0"

[tool.koupleless.module]
entry = "debugged.web:app"
"""

WEB = """
import asyncio
import cProfile
import faulthandler
import io
import os
import pstats
import tempfile
from debugged import logic

def dumped():
    with tempfile.TemporaryFile("w+") as file:
        faulthandler.dump_traceback(file, all_threads=False)
        file.seek(0)
        return file.read()

def profiled():
    profile = cProfile.Profile()
    profile.enable()
    logic.price(2)
    profile.disable()
    out = io.StringIO()
    pstats.Stats(profile, stream=out).print_stats()
    return out.getvalue()

def stopped():
    amount = 7
    breakpoint()
    return str(logic.price(amount))

def failed():
    return logic.fail("no such thing")

PAGES = {
    "/price": lambda: str(logic.price(5)),
    "/fail": failed,
    "/dump": dumped,
    "/profile": profiled,
    "/stop": stopped,
    "/file": lambda: logic.__file__,
}

async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    page = PAGES.get(scope["path"].removeprefix(scope.get("root_path", "")), lambda: "")
    where = dict(scope["headers"]).get(b"where")
    answer = (await asyncio.to_thread(page) if where == b"thread" else page()).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": answer})
"""

LOGIC = """
def price(amount):
    total = amount * 3
    total += 1  # the line with a breakpoint
    return total

def fail(reason):
    wanted = [reason]
    raise LookupError(wanted[0])  # the line that fails

def never():
    return None  # the line that no request reaches
"""

BREAKPOINT_LINE = LOGIC.splitlines().index("    total += 1  # the line with a breakpoint") + 1
FAILING_LINE = LOGIC.splitlines().index("    raise LookupError(wanted[0])  # the line that fails") + 1
UNREACHED_LINE = LOGIC.splitlines().index("    return None  # the line that no request reaches") + 1


def build(directory: Path) -> Path:
    package = directory / "project" / "debugged"
    package.mkdir(parents=True)
    (package.parent / "pyproject.toml").write_text(PROJECT)
    (package / "__init__.py").write_text("")
    (package / "web.py").write_text(WEB)
    (package / "logic.py").write_text(LOGIC)
    return build_project(package.parent, Options(out=directory / "dist")).path


@pytest.fixture(scope="module")
def artefact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("debugged"))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One store directory for all bases of these tests."""
    return tmp_path_factory.mktemp("shared") / "store"


class Dialogue:
    """A base whose standard streams are pipes: what it prints is waited for, what it is told is typed in."""

    def __init__(self, tool: list[str], *, artefact: Path, store: Path, cwd: Path) -> None:
        self.port, self.arklet_port = free_port(), free_port()
        command = [sys.executable, "-P", *tool, "-m", "koupleless", "serve", "--module", str(artefact)]
        command += ["--port", str(self.port), "--arklet-port", str(self.arklet_port)]
        environment = {**unmeasured(), "PYTHONUNBUFFERED": "1", "KOUPLELESS_BASE_STORE_DIR": str(store)}
        self.popen = subprocess.Popen(
            command,
            cwd=cwd,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            bufsize=1,
        )
        self.said = ""
        self._heard = 0
        self._changed = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.expect("Uvicorn running on")

    def _read(self) -> None:
        assert self.popen.stdout is not None
        while piece := os.read(self.popen.stdout.fileno(), 65536):
            with self._changed:
                self.said += piece.decode(errors="replace")
                self._changed.notify_all()
        with self._changed:
            self._heard = -1 - self._heard
            self._changed.notify_all()

    def expect(self, text: str) -> str:
        """What was said up to and with ``text``, since the last time."""
        with self._changed:
            came = self._changed.wait_for(lambda: self._heard < 0 or text in self.said[self._heard :], DEADLINE_S)
            assert came, f"{text!r} did not come:\n{self.said}"
            assert self._heard >= 0, f"it ended before {text!r}:\n{self.said}"
            start, self._heard = self._heard, self.said.index(text, self._heard) + len(text)
            return self.said[start : self._heard]

    def type(self, line: str) -> None:
        assert self.popen.stdin is not None
        self.popen.stdin.write(line + "\n")
        self.popen.stdin.flush()

    def arkctl(self, *arguments: str) -> str:
        command = [sys.executable, "-P", "-m", "koupleless", *arguments, "--port", str(self.arklet_port)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
        assert done.returncode == 0, done.stdout + done.stderr + self.said
        return done.stdout

    def get(self, path: str, *, where: str = "loop") -> str:
        url = f"http://127.0.0.1:{self.port}/debugged{path}"
        return httpx.get(url, timeout=DEADLINE_S, headers={"where": where}).text

    @contextlib.contextmanager
    def asked(self, path: str, *, where: str) -> Iterator[Future[str]]:
        """The answer to a request that is on its way meanwhile."""
        with ThreadPoolExecutor(1) as pool:
            answer = pool.submit(self.get, path, where=where)
            try:
                yield answer
            except BaseException:
                self.popen.kill()  # so that the request ends
                raise

    def end(self) -> None:
        """Ctrl-C, as in a terminal."""
        self.popen.send_signal(signal.SIGINT)
        assert self.popen.wait(DEADLINE_S) == 0, self.said

    def close(self) -> None:
        if self.popen.poll() is None:
            self.popen.kill()
        self.popen.wait()
        self._reader.join(DEADLINE_S)
        for stream in (self.popen.stdin, self.popen.stdout):
            assert stream is not None
            stream.close()


@pytest.fixture(scope="module")
def start(store, artefact, tmp_path_factory):
    """``start("-m", "cProfile")`` starts a base with the module in it, below that tool."""
    running: list[Dialogue] = []

    def make(*tool: str) -> Dialogue:
        running.append(Dialogue([*tool], artefact=artefact, store=store, cwd=tmp_path_factory.mktemp("base")))
        return running[-1]

    yield make
    for dialogue in running:
        dialogue.close()


@pytest.fixture(scope="module")
def plain(start):
    """A base below no tool."""
    return start()


FRAME = re.compile(r'  File "(?P<file>[^"]+)", line (?P<line>\d+), in (?P<function>\w+)\n    (?P<text>.*)')


def frames_of_module(text: str) -> list[tuple[str, int, str, str]]:
    """File, line, function and shown text of the frames of the module's own code, outermost first."""
    found = [(m["file"], int(m["line"]), m["function"], m["text"]) for m in FRAME.finditer(text)]
    return [frame for frame in found if "/debugged/" in frame[0]]


# --- tracebacks ----------------------------------------------------------------------------------------------------


def test_a_traceback_names_files_that_an_editor_can_open_at_that_line(plain):
    plain.get("/fail")

    frames = frames_of_module(plain.expect("LookupError: no such thing"))
    assert [function for _, _, function, _ in frames] == ["app", "failed", "fail"]
    for file, line, _, text in frames:
        assert Path(file).read_text().splitlines()[line - 1].strip() == text
    assert frames[-1][:2] == (plain.get("/file"), FAILING_LINE)


def test_the_paths_are_the_same_after_a_redeploy_and_in_every_base_with_that_store(plain, start, artefact, tmp_path):
    path = plain.get("/file")
    again = build(tmp_path)  # the same content, from another directory
    assert again != artefact

    plain.arkctl("undeploy", "debugged", "--all-versions")
    plain.arkctl("deploy", str(again))

    for dialogue in (plain, start()):
        assert dialogue.get("/file") == path
        dialogue.get("/fail")
        assert frames_of_module(dialogue.expect("LookupError: no such thing"))[-1][:2] == (path, FAILING_LINE)


# --- pdb -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["loop", "thread"])
def test_breakpoint_stops_in_the_frame_of_the_module_and_pdb_breaks_at_its_lines(start, where):
    dialogue = start()
    path = dialogue.get("/file")
    with dialogue.asked("/stop", where=where) as answer:
        dialogue.expect("(Pdb) ")
        for command, expected in [
            ("p amount, __name__", "(7, 'debugged.web')"),
            ("where", "stopped()"),
            (f"break {path}:{BREAKPOINT_LINE}", "Breakpoint 1 at"),
            ("break debugged/logic.py:5", "Breakpoint 2 at"),
            ("continue", "-> total += 1"),
            ("p total", "21"),
            ("p __import__('debugged.logic').logic.__file__", "logic.py"),
            ("total = 100", "(Pdb) "),
            ("continue", "-> return total"),
            ("clear 1 2", "Deleted breakpoint 2"),
        ]:
            dialogue.type(command)
            dialogue.expect(expected)
            if expected != "(Pdb) ":
                dialogue.expect("(Pdb) ")
        dialogue.type("continue")
        assert answer.result(DEADLINE_S) == "101"
    assert dialogue.get("/price") == "16"
    left = dialogue.arkctl("undeploy", "debugged", "--all-versions")
    assert "not undone" not in left
    if sys.version_info < (3, 13):  # there a frame that pdb has stopped in is never freed, in any process
        assert "nothing left behind" in left


# --- profilers -----------------------------------------------------------------------------------------------------


def test_cprofile_of_a_base_shows_the_functions_of_modules_with_their_files(start, tmp_path):
    dialogue = start("-m", "cProfile", "-o", str(tmp_path / "profile"))
    path = dialogue.get("/file")
    for _ in range(3):
        assert dialogue.get("/price") == "16"

    dialogue.end()
    out = io.StringIO()
    pstats.Stats(str(tmp_path / "profile"), stream=out).print_stats(r"logic\.py")
    assert re.search(rf"^ +3 .* {re.escape(path)}:2\(price\)$", out.getvalue(), re.MULTILINE), out.getvalue()


@pytest.mark.parametrize("where", ["loop", "thread"])
def test_a_module_profiles_itself(plain, where):
    path = plain.get("/file")

    assert re.search(rf"\b1\b.* {re.escape(path)}:2\(price\)", plain.get("/profile", where=where))


# --- faulthandler --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["loop", "thread"])
def test_faulthandler_shows_the_frames_of_a_module(plain, where):
    path = Path(plain.get("/file")).parent / "web.py"
    line = WEB.splitlines().index("        faulthandler.dump_traceback(file, all_threads=False)") + 1

    assert f'File "{path}", line {line} in dumped' in plain.get("/dump", where=where)


# --- coverage ------------------------------------------------------------------------------------------------------


def test_coverage_of_a_base_counts_the_lines_of_modules(start, store, tmp_path):
    dialogue = start("-m", "coverage", "run", f"--include={store}/*", f"--data-file={tmp_path / 'data'}")
    path = dialogue.get("/file")
    dialogue.get("/price", where="thread")

    dialogue.end()
    data = coverage.Coverage(data_file=str(tmp_path / "data"))
    data.load()
    _, statements, _, missing, _ = data.analysis2(path)
    assert BREAKPOINT_LINE in statements
    assert BREAKPOINT_LINE not in missing
    assert {FAILING_LINE, UNREACHED_LINE} <= set(missing)


# --- debugpy -------------------------------------------------------------------------------------------------------


class Adapter:
    """An editor's side of the debug adapter protocol."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=DEADLINE_S)
        self._stream = self._socket.makefile("rb")
        self._sent = 0
        self._seen: list[dict[str, Any]] = []

    def send(self, command: str, **arguments: Any) -> int:
        self._sent += 1
        body = {"seq": self._sent, "type": "request", "command": command, "arguments": arguments}
        text = json.dumps(body).encode()
        self._socket.sendall(b"Content-Length: %d\r\n\r\n" % len(text) + text)
        return self._sent

    def _read(self) -> dict[str, Any]:
        length = 0
        while (line := self._stream.readline().strip()) or not length:
            assert line, f"the connection ended after {self._seen}"
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        message: dict[str, Any] = json.loads(self._stream.read(length))
        return message

    def _wait(self, **wanted: Any) -> dict[str, Any]:
        """The body of the first message, among those not waited for yet, that is so."""
        while True:
            for message in self._seen:
                if wanted.items() <= message.items():
                    self._seen.remove(message)
                    assert message.get("success", True), message
                    body: dict[str, Any] = message.get("body") or {}
                    return body
            self._seen.append(self._read())

    def event(self, name: str) -> dict[str, Any]:
        return self._wait(type="event", event=name)

    def reply(self, sent: int) -> dict[str, Any]:
        return self._wait(type="response", request_seq=sent)

    def ask(self, command: str, **arguments: Any) -> dict[str, Any]:
        return self.reply(self.send(command, **arguments))

    def close(self) -> None:
        self._stream.close()
        self._socket.close()


@pytest.fixture
def debugged(start):
    """A base below debugpy, and an editor that is attached to it."""
    port = free_port()
    dialogue = start("-Xfrozen_modules=off", "-m", "debugpy", "--listen", f"127.0.0.1:{port}")
    adapter = Adapter(port)
    adapter.ask("initialize", clientID="test", adapterID="debugpy", pathFormat="path", linesStartAt1=True)
    attached = adapter.send("attach", justMyCode=True)
    adapter.event("initialized")
    yield dialogue, adapter, attached
    adapter.close()
    dialogue.close()


def stop_and_go_on(dialogue: Dialogue, adapter: Adapter, path: str, *, where: str) -> None:
    with dialogue.asked("/price", where=where) as answer:
        stopped = adapter.event("stopped")
        assert stopped["reason"] == "breakpoint"
        frame = adapter.ask("stackTrace", threadId=stopped["threadId"])["stackFrames"][0]
        assert (frame["name"], frame["source"]["path"], frame["line"]) == ("price", path, BREAKPOINT_LINE)
        for expression, value in [
            ("total * 2", "30"),
            ("__import__('debugged.logic').logic.price.__module__", "'debugged.logic'"),
        ]:
            evaluated = adapter.ask("evaluate", expression=expression, frameId=frame["id"], context="repl")
            assert evaluated["result"] == value
        adapter.ask("next", threadId=stopped["threadId"])
        stopped = adapter.event("stopped")
        assert (stopped["reason"], answer.done()) == ("step", False)
        adapter.ask("continue", threadId=stopped["threadId"])
        assert answer.result(DEADLINE_S) == "16"


def test_a_breakpoint_of_an_editor_stops_requests_of_a_module_before_and_after_a_redeploy(debugged, artefact):
    dialogue, adapter, attached = debugged
    path = dialogue.get("/file")
    lines = [{"line": BREAKPOINT_LINE}]
    broken = adapter.ask("setBreakpoints", source={"path": path}, breakpoints=lines)["breakpoints"]
    assert [(each["verified"], each["line"]) for each in broken] == [(True, BREAKPOINT_LINE)]
    adapter.ask("configurationDone")
    adapter.reply(attached)

    for where in ("loop", "thread"):
        stop_and_go_on(dialogue, adapter, path, where=where)
    assert "nothing left behind" in dialogue.arkctl("undeploy", "debugged", "--all-versions")
    dialogue.arkctl("deploy", str(artefact))
    for where in ("loop", "thread"):
        stop_and_go_on(dialogue, adapter, path, where=where)
    assert "DEBUGGER WARNING" not in dialogue.said
