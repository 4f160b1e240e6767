"""Real processes: a base, and the same applications alone; every one is ended when its test module is done.

And a base without a process, for what is asked of its insides: `Inside`.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from tests.conftest import free_port

from koupleless.artifact.build import Options, build_project
from koupleless.biz import BizId
from koupleless.cli.commands import main
from koupleless.container.host import Host
from koupleless.container.surroundings import Deadlines

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from koupleless.container.stage import Stage
    from koupleless.ownership.purge import PurgeReport


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

    _is_asked = False

    def ask_to_end(self, with_signal: int = signal.SIGTERM) -> None:
        """Have it end, once; `end` waits for that."""
        if self.popen.poll() is None and not self._is_asked:
            self._is_asked = True
            self.popen.send_signal(with_signal)

    def end(self, with_signal: int = signal.SIGTERM) -> int:
        self.ask_to_end(with_signal)
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
        full = [sys.executable, "-P", "-m", "koupleless", command, "--port", str(self.arklet_port), *arguments]
        done = subprocess.run(full, cwd=self.cwd, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == status, f"{command}: {done.stdout}{done.stderr}\n{self.log.read_text()}"
        return done.stdout

    def say(self, command: str, *arguments: object, fails: bool = False) -> str:
        """Run ``arkctl`` in this process, which takes a tenth of the time; returns output and messages together."""
        said = io.StringIO()
        full = [command, *map(str, arguments), *([] if command == "build" else ["--port", str(self.arklet_port)])]
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            done = main(full)
        assert (done != 0) is fails, f"{command}: {said.getvalue()}\n{self.log.read_text()}"
        return said.getvalue()

    def deploy(self, source: Path, *options: str) -> str:
        """Deploy a project, a file or an artefact; returns the words of ``arkctl``."""
        return self.say("deploy", source, *options)

    def undeploy(self, name: str) -> str:
        """Undeploy a module; returns the words of ``arkctl``, which are the purge report in one line."""
        return self.say("undeploy", name)

    def get(self, path: str, **options: Any) -> httpx.Response:
        # Everything is on loopback: to load certificates would take longer than the request.
        return httpx.get(self.url + path, timeout=30, verify=False, **options)

    def ask(self, command: str, **body: object) -> Any:
        """The data of the arklet's reply, without the process that `arkctl` takes."""
        url = f"http://127.0.0.1:{self.arklet_port}/{command}"
        reply = httpx.post(url, json=body, timeout=120, verify=False).json()
        assert reply["code"] == "SUCCESS", reply
        return reply.get("data")

    def clear(self) -> None:
        """Uninstall every module that is still there, however it leaves."""
        for biz in self.ask("queryAllBiz") or ():
            self.ask("uninstallBiz", bizName=biz["bizName"], bizVersion=biz["bizVersion"])


def end_all(processes: Sequence[Process]) -> None:
    """End processes at the same time: each waits, for the most part, for threads and timeouts of its own."""
    for process in processes:
        process.ask_to_end()
    for process in processes:
        process.end()


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
    end_all(running)


@pytest.fixture(scope="module")
def serve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., BaseProcess]]:
    """``serve("shop.main:app", cwd=...)`` starts a base and waits until it answers."""
    logs = tmp_path_factory.mktemp("bases")
    running: list[BaseProcess] = []

    def start(*arguments: str, cwd: Path | None = None) -> BaseProcess:
        running.append(BaseProcess(arguments, cwd=cwd or logs, log=logs / f"{len(running)}.log"))
        return running[-1]

    yield start
    end_all(running)


class Inside:
    """A container in this process: requests go straight into its front, and an uninstall shows its purge report."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        host = Host.make(directory / "store", deadlines=Deadlines(start_s=30.0, drain_s=5.0, stop_s=5.0))
        self.container, self.front, self.stage = host.container, host.front, host.stage

    def build(
        self, name: str, version: str, files: Mapping[str, str], *, needs: Sequence[str] = (), entry: str = "app:app"
    ) -> Path:
        """The artefact of a project of these files."""
        project = self.directory / f"{name}-{version}"
        for place, text in files.items():
            (project / place).parent.mkdir(parents=True, exist_ok=True)
            (project / place).write_text(text)
        head = f"[project]\nname = {name!r}\nversion = {version!r}\ndependencies = {list(needs)!r}\n"
        module = f"[tool.koupleless.module]\nentry = {entry!r}\n"
        (project / "pyproject.toml").write_text(head + module)
        return build_project(project, Options(out=self.directory / "dist")).path

    def install(self, artefact: Path, **options: Any) -> None:
        self.container.install(self.container.prepare(str(artefact)), **options)

    def uninstall(self, identity: str) -> PurgeReport:
        return self.container.uninstall(BizId.parse(identity))

    @contextlib.contextmanager
    def client(self) -> Iterator[InsideClient]:
        """A client that keeps cookies."""
        transport = httpx.ASGITransport(self.front, raise_app_exceptions=False)
        client = httpx.AsyncClient(transport=transport, base_url="http://base", timeout=30)
        try:
            yield InsideClient(self.stage, client)
        finally:
            self.stage.call(client.aclose, timeout_s=30)

    def get(self, path: str, **options: Any) -> httpx.Response:
        with self.client() as client:
            return client.request("GET", path, **options)


class InsideClient:
    """Asks a base of this process."""

    def __init__(self, stage: Stage, client: httpx.AsyncClient) -> None:
        self._stage = stage
        self._client = client

    def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        return self._stage.call(lambda: self._client.request(method, path, **options), timeout_s=30)


@pytest.fixture(scope="module")
def inside_all(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Inside]:
    """A container in this process, and what it has built, for all tests of a module."""
    world = Inside(tmp_path_factory.mktemp("inside"))
    yield world
    world.container.close()


@pytest.fixture
def inside(inside_all: Inside) -> Iterator[Inside]:
    """The same for one test, which finds it empty, whatever failed before."""
    yield inside_all
    for info in inside_all.container.bizs():
        inside_all.container.uninstall(info.id)
