"""A recording arklet that says what it is told to, and ``arkctl`` run in this process."""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from koupleless.cli.commands import main

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

Answer = Any
"""An envelope, raw bytes, a status with bytes, or a function from the request's body to one of those."""


def succeeded(data: object = None) -> dict[str, object]:
    return {"code": "SUCCESS", "data": data} if data is not None else {"code": "SUCCESS"}


def failed(code: str, message: str, *, envelope: str = "it did not work") -> dict[str, object]:
    return {"code": "FAILED", "message": envelope, "data": {"code": code, "message": message}}


def biz(name: str, version: str, state: str = "ACTIVATED", *, message: str = "") -> dict[str, object]:
    record = {"changeTime": 1_718_000_000_123, "state": state, "reason": "Started", "message": message}
    return {
        "bizName": name,
        "bizVersion": version,
        "bizState": state,
        "webContextPath": f"/{name}",
        "mainClass": f"{name}.app:app",
        "bizStateRecords": [record],
    }


def installed(name: str, version: str, state: str = "ACTIVATED", *, message: str = "") -> dict[str, object]:
    info = biz(name, version, state, message=message)
    return succeeded({"code": "SUCCESS", "message": "", "elapsedSpace": 1, "bizInfos": [info]})


@dataclass
class FakeArklet:
    """Answers commands as scripted; ``calls`` is every POST that came, in order."""

    server: http.server.ThreadingHTTPServer
    answers: dict[str, list[Answer]] = field(default_factory=dict)
    calls: list[tuple[str, Any]] = field(default_factory=list)
    server_header: str | None = None
    tokens: list[str | None] = field(default_factory=list)
    changed: threading.Condition = field(default_factory=threading.Condition)

    @property
    def port(self) -> int:
        return self.server.server_address[1]

    @property
    def commands(self) -> list[str]:
        return [command for command, _ in self.calls]

    def says(self, command: str, *answers: Answer) -> None:
        """The answers to one command, in order; the last one is repeated."""
        self.answers[command] = list(answers)

    def next_answer(self, command: str, body: Any) -> Answer:
        known = self.answers.get(command, [{"code": "CMD_NOT_FOUND", "message": "please follow the doc"}])
        answer = known.pop(0) if len(known) > 1 else known[0]
        return answer(body) if callable(answer) else answer

    def wait_for(self, condition: Callable[[], bool], timeout_s: float = 30) -> bool:
        with self.changed:
            return self.changed.wait_for(condition, timeout_s)


@pytest.fixture
def arklet() -> Iterator[FakeArklet]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def version_string(self) -> str:
            return fake.server_header or "elsewhere"

        def do_GET(self) -> None:
            self.answer(500, b"POST http request only supported by arklet")

        def do_POST(self) -> None:
            raw = self.rfile.read(int(self.headers.get("Content-Length", "0")))
            command, body = self.path[1:], json.loads(raw) if raw else None
            with fake.changed:
                fake.calls.append((command, body))
                fake.tokens.append(self.headers.get("Authorization"))
                fake.changed.notify_all()
            answer = fake.next_answer(command, body)
            status, content = answer if isinstance(answer, tuple) else (200, answer)
            self.answer(status, content if isinstance(content, bytes) else json.dumps(content).encode())

        def answer(self, status: int, content: bytes) -> None:
            with contextlib.suppress(OSError):  # a client that gave up has closed
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

        def log_message(self, *args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("0.0.0.0", 0), Handler)
    server.daemon_threads = True
    fake = FakeArklet(server)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield fake
    server.shutdown()
    thread.join()
    server.server_close()


@dataclass(frozen=True)
class Outcome:
    """How one ``arkctl`` ended."""

    status: int
    out: str
    err: str


@pytest.fixture
def quiet_surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current directory, and nobody's settings."""
    for variable in os.environ:
        if variable.startswith(("ARKCTL_", "KOUPLELESS_")):
            monkeypatch.delenv(variable)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "nobody"))
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    return here


@pytest.fixture
def arkctl(quiet_surroundings: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """``arkctl("status", "--port", ...)`` runs a command in this process and returns how it ended."""

    def run(*arguments: object) -> Outcome:
        capsys.readouterr()
        status = main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return Outcome(status, out, err)

    return run


HELLO = """
def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"hello"]
"""


@pytest.fixture
def hello_file(quiet_surroundings: Path) -> Path:
    """A module of one file."""
    path = quiet_surroundings / "hello.py"
    path.write_text(HELLO)
    return path


@pytest.fixture
def hello_zip(hello_file: Path, arkctl: Callable[..., Outcome]) -> Path:
    """The artefact of ``hello:1.0.0``."""
    outcome = arkctl("build", hello_file, "--out", "built")
    assert outcome.status == 0, outcome.err
    return hello_file.parent / outcome.out.strip()
