"""Real processes: a base, and the same applications alone; every one is ended when its test module is done."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import httpx
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Process:
    """A process that serves something on a port of loopback."""

    def __init__(self, command: Sequence[str], *, port: int, cwd: Path, log: Path) -> None:
        self.port = port
        self.log = log
        environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
        with log.open("wb") as out:
            self.popen = subprocess.Popen(command, cwd=cwd, stdout=out, stderr=subprocess.STDOUT, env=environment)
        self._wait()

    def _wait(self) -> None:
        ends = time.monotonic() + 60
        while time.monotonic() < ends:
            if self.popen.poll() is not None:
                break
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
            try:
                connection.request("GET", "/")
                connection.getresponse().read()
            except (OSError, http.client.HTTPException):
                time.sleep(0.02)
            else:
                return
            finally:
                connection.close()
        self.end()
        raise AssertionError(f"nothing answers on {self.port}:\n{self.log.read_text()}")

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def end(self, with_signal: int = signal.SIGTERM) -> int:
        if self.popen.poll() is None:
            self.popen.send_signal(with_signal)
        try:
            return self.popen.wait(30)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.wait()
            raise AssertionError(f"it did not end:\n{self.log.read_text()}") from None


class BaseProcess(Process):
    """``arkctl serve``, and ``arkctl`` to talk to it."""

    def __init__(self, arguments: Sequence[str], *, cwd: Path, log: Path) -> None:
        self.cwd = cwd
        self.arklet_port = free_port()
        port = free_port()
        command = [sys.executable, "-P", "-m", "koupleless", "serve", *arguments]
        command += ["--port", str(port), "--arklet-port", str(self.arklet_port)]
        super().__init__(command, port=port, cwd=cwd, log=log)

    def arkctl(self, command: str, *arguments: str, status: int = 0) -> str:
        full = [sys.executable, "-P", "-m", "koupleless", command, *arguments, "--port", str(self.arklet_port)]
        done = subprocess.run(full, cwd=self.cwd, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == status, f"{command}: {done.stdout}{done.stderr}\n{self.log.read_text()}"
        return done.stdout

    def get(self, path: str, **options: object) -> httpx.Response:
        return httpx.get(self.url + path, timeout=30, **options)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def run_alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Process]]:
    """``run_alone(command_of_port, cwd)`` starts a server and waits for its first answer."""
    logs = tmp_path_factory.mktemp("alone")
    running: list[Process] = []

    def start(command: Callable[[int], Sequence[str]], cwd: Path) -> Process:
        port = free_port()
        running.append(Process(command(port), port=port, cwd=cwd, log=logs / f"{len(running)}.log"))
        return running[-1]

    yield start
    for process in running:
        process.end()


@pytest.fixture(scope="module")
def serve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., BaseProcess]]:
    """``serve("shop.main:app", cwd=...)`` starts a base and waits until it answers."""
    logs = tmp_path_factory.mktemp("bases")
    running: list[BaseProcess] = []

    def start(*arguments: str, cwd: Path | None = None) -> BaseProcess:
        running.append(BaseProcess(arguments, cwd=cwd or logs, log=logs / f"{len(running)}.log"))
        return running[-1]

    yield start
    for process in running:
        process.end()
