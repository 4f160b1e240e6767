"""``arkctl demo``: a base at work, in a few steps. All figures are measured while the demonstration runs.

Starts a base, and a server to compare with, on free ports of the loopback address, and works in a temporary directory.
Processes and directory are removed at the end in any case.
"""

from __future__ import annotations

import contextlib
import http
import http.client
import itertools
import os
import signal
import socket
import sqlite3
import statistics
import string
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

import psutil  # type: ignore[import-untyped]

from koupleless.biz import BizId
from koupleless.cli.deploy import Deployment, Options, Target, built
from koupleless.cli.render import mebibytes
from koupleless.cli.suggestions import exit_status, report
from koupleless.client import ArkletClient
from koupleless.errors import BaseStartFailed, KouplelessError
from koupleless.settings import ClientSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from importlib.resources.abc import Traversable

    from koupleless.artifact.build import Built

_START_S: Final = 60.0
_STOP_S: Final = 15.0
_CLIENTS: Final = 2
_PAUSE_S: Final = 0.004
_LINE: Final = 240
"""Characters shown of one purge report."""
_TRAFFIC_S: Final = 0.5
"""Seconds of requests before and after the swap."""


class StepFailed(KouplelessError):
    """A step of the demonstration with another result than promised."""


class _Ended(BaseException):
    """A signal asked the program to end.

    Not ``KeyboardInterrupt``: if ``KeyboardInterrupt`` cuts short an ``exec`` of a text (dataclasses use ``exec``), the
    interpreter remembers the interrupt and ends as if killed by SIGINT, although the exception was caught.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        super().__init__(number)


def run(*, copies: int) -> int:
    """Run the demonstration with ``copies`` copies of a module; returns the exit status."""
    with _leaving_nothing_behind():
        try:
            with tempfile.TemporaryDirectory(prefix="arkctl-demo-") as directory:
                _Demo(Path(directory), _Screen(), copies=copies).run()
        except KouplelessError as error:
            for line in report(error):
                print(line, file=sys.stderr)
            return exit_status(error)
        except _Ended as ended:
            print("interrupted; everything that was started is stopped", file=sys.stderr)
            return 128 + ended.number
    return 0


@contextlib.contextmanager
def _leaving_nothing_behind() -> Iterator[None]:
    """Turn the first signal that ends a program into `_Ended`; at the end of the block, end all descendants."""
    has_ended = False
    known: set[psutil.Process] = set()

    def stop(number: int, _: object) -> None:
        nonlocal has_ended
        # The children of a child that dies now go to init and cannot be found again, so note all descendants first.
        known.update(_descendants())
        if not has_ended:
            has_ended = True
            raise _Ended(number)

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield
    finally:
        known.update(_descendants())
        for number, handler in before.items():
            signal.signal(number, handler)
        for act in ("terminate", "kill"):
            for process in known:
                with contextlib.suppress(psutil.Error):
                    getattr(process, act)()
            _, known = psutil.wait_procs(known, timeout=_STOP_S)


def _descendants() -> list[psutil.Process]:
    try:
        return psutil.Process().children(recursive=True)  # type: ignore[no-any-return]
    except psutil.Error:
        return []


# --- the display ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Step:
    """One running step."""

    tell: Callable[[str], object]
    """Show one finding of the step."""
    advance: Callable[[], object]
    """Move the bar of the step on by one."""


class _Screen:
    """Steps with their findings: a live display on a terminal, plain lines elsewhere."""

    def __init__(self) -> None:
        self._is_live = sys.stdout.isatty() and os.environ.get("TERM") != "dumb"

    @contextlib.contextmanager
    def step(self, title: str, *, total: int | None = None) -> Iterator[_Step]:
        """Show one step while the context lasts."""
        if not self._is_live:
            print(title, flush=True)
            yield _Step(lambda text: print(f"    {text}", flush=True), lambda: None)
            return
        from rich import console as rich_console  # noqa: PLC0415 - loaded where something is drawn
        from rich import progress as bars  # noqa: PLC0415

        console = rich_console.Console(highlight=False)
        bar = [bars.BarColumn(), bars.MofNCompleteColumn()] if total is not None else []
        findings: list[str] = []
        mark = "[red]✗[/red]"
        try:
            columns = (bars.SpinnerColumn(), bars.TextColumn("{task.description}"), *bar, bars.TimeElapsedColumn())
            with bars.Progress(*columns, console=console, transient=True) as progress:
                task = progress.add_task(title, total=total)
                yield _Step(findings.append, lambda: progress.advance(task))
            mark = "[green]✓[/green]"
        finally:
            console.print(f"{mark} [bold]{title}[/bold]")
            for finding in findings:
                console.print(f"    {finding}", markup=False)


# --- the processes -------------------------------------------------------------------------------------------------


class _Server:
    """A server process started by the demonstration, on the loopback address, with the output in a file."""

    def __init__(self, command: list[str], *, directory: Path, log: Path, port: int) -> None:
        self.port = port
        self._log = log
        begin = time.perf_counter()
        with log.open("wb") as output:
            self._process = subprocess.Popen(  # noqa: S603 - our own interpreter, our own arguments
                [sys.executable, *command],
                cwd=directory,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C reaches only the demonstration, which stops its processes in order
            )
        self._wait_for_answer()
        self.start_ms = (time.perf_counter() - begin) * 1000

    def _wait_for_answer(self) -> None:
        deadline = time.monotonic() + _START_S
        while True:
            with contextlib.suppress(OSError, http.client.HTTPException):
                _get(self.port, "/")
                return
            if self._process.poll() is not None:
                raise BaseStartFailed(f"a server ended with status {self._process.returncode}:\n{self.last_words()}")
            if time.monotonic() > deadline:
                raise BaseStartFailed(f"a server did not answer within {_START_S:g} s:\n{self.last_words()}")
            time.sleep(0.005)

    def memory(self) -> int:
        """Resident memory of the process, in bytes."""
        return int(psutil.Process(self._process.pid).memory_info().rss)

    def last_words(self) -> str:
        """The last lines of the output."""
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-20:])

    def stop(self) -> int:
        """Terminate the process, kill it after a time, and return the exit status."""
        self._process.terminate()
        try:
            return self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()


def _get(port: int, path: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read().decode(errors="replace")
    finally:
        connection.close()


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in sockets]


class _Traffic:
    """Requests to one path, from several clients at once, while the context lasts."""

    def __init__(self, port: int, path: str) -> None:
        self._port = port
        self._path = path
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._ask, daemon=True) for _ in range(_CLIENTS)]
        self.sent = 0
        self.failed: list[str] = []
        self._answered_at: list[float] = []

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    @property
    def longest_gap_ms(self) -> float:
        """The longest time between two answers, in milliseconds."""
        return max((b - a for a, b in itertools.pairwise(self._answered_at)), default=0.0) * 1000

    def _ask(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=30)
        while not self._stop.is_set():
            try:
                connection.request("GET", self._path)
                response = connection.getresponse()
                response.read()
                failure = "" if response.status == http.HTTPStatus.OK else f"HTTP {response.status}"
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                failure = f"{type(error).__name__}: {error}"
            with self._lock:
                self.sent += 1
                if failure:
                    self.failed.append(failure)
                else:
                    self._answered_at.append(time.perf_counter())
            self._stop.wait(_PAUSE_S)
        connection.close()


# --- the script ----------------------------------------------------------------------------------------------------


class _Demo:
    """The steps of the demonstration, in order. Writes only into ``directory``; used once."""

    def __init__(self, directory: Path, screen: _Screen, *, copies: int) -> None:
        self._directory = directory
        self._screen = screen
        self._names = [f"hello-{number:02}" for number in range(1, copies + 1)]
        self._deployed: list[BizId] = []

    def run(self) -> None:
        """Run all steps, from an empty directory to an empty base."""
        _check_installed("fastapi", "flask")
        _write_template("demo_base.py", self._directory)
        port, arklet_port = _free_ports(2)
        self._settings = ClientSettings(port=arklet_port)
        self._client = ArkletClient(self._settings.host, arklet_port)
        with self._screen.step("A base starts, with FastAPI and Flask imported once") as step:
            command = ["-m", "koupleless", "serve", "demo_base:app", "--name", "demo"]
            command += ["--port", str(port), "--arklet-port", str(arklet_port)]
            self._base = _Server(command, directory=self._directory, log=self._directory / "base.log", port=port)
            step.tell(f"first answer after {self._base.start_ms:.0f} ms, {mebibytes(self._base.memory())} resident")
        try:
            self._hello()
            self._from_the_index()
            self._copies()
            self._swap()
            self._leave()
        except (KouplelessError, OSError, http.client.HTTPException) as error:
            print(f"the base said last:\n{self._base.last_words()}", file=sys.stderr)
            if isinstance(error, KouplelessError):
                raise
            raise StepFailed(f"the base does not answer as it should: {error}") from error
        finally:
            self._base.stop()

    def _hello(self) -> None:
        with self._screen.step("hello 1.0, a FastAPI application, is deployed while the base serves") as step:
            self._deploy(step, self._build_hello("hello", "1.0"))
            self._expect(step, "/hello/", '"version":"1.0"')

    def _from_the_index(self) -> None:
        with self._screen.step("httpbin, a Flask application from the package index, unmodified") as step:
            begin = time.perf_counter()
            options = Options(requirements=("httpbin",), entry="httpbin:app")
            artefact = built(None, options, out=self._directory)
            step.tell(f"built in {time.perf_counter() - begin:.1f} s, {mebibytes(artefact.size)}")
            self._deploy(step, artefact)
            self._expect(step, "/httpbin/get", '"headers"')
        with self._screen.step("datasette, an ASGI application from the package index, with an entry file") as step:
            begin = time.perf_counter()
            entry = _write_template("datasette_entry.py", self._directory)
            options = Options(requirements=("datasette",), name="datasette")
            artefact = built(Target.of(str(entry)), options, out=self._directory)
            step.tell(f"built in {time.perf_counter() - begin:.1f} s, {mebibytes(artefact.size)}")
            self._deploy(step, artefact, envs={"DEMO_DATABASE": str(_make_database(self._directory))})
            self._expect(step, "/datasette/planets/planets.json?_shape=array", '"Saturn"')

    def _copies(self) -> None:
        count = len(self._names)
        with self._screen.step(f"{count} more copies of hello, under other names", total=count) as step:
            artefacts = [self._build_hello(name, "1.0") for name in self._names]
            before, times = self._base.memory(), []
            for artefact in artefacts:
                times.append(self._install(artefact))
                step.advance()
            each = (self._base.memory() - before) / count
            for name in (self._names[0], self._names[-1]):
                self._expect(step, f"/{name}/", '"version":"1.0"', is_told=False)
            step.tell(
                f"each: {statistics.median(times):.1f} ms to install (median; slowest {max(times):.1f} ms), "
                f"{mebibytes(each)} of memory"
            )
            (port,) = _free_ports(1)
            command = ["-m", "uvicorn", "hello.app:app", "--port", str(port), "--log-level", "warning"]
            log = self._directory / "uvicorn.log"
            alone = _Server(command, directory=self._directory / "hello-1.0", log=log, port=port)
            try:
                memory = alone.memory()
            finally:
                alone.stop()
            step.tell(
                f"one uvicorn process of the same application: {alone.start_ms:.0f} ms to its first answer, "
                f"{mebibytes(memory)} of memory"
            )
            longer = f"{alone.start_ms / statistics.median(times):.0f} times as long"
            larger = f", and {memory / each:.0f} times as much memory" if each > 0 else ""
            step.tell(f"a process of its own takes {longer}{larger}")

    def _swap(self) -> None:
        with self._screen.step("hello 1.1 replaces 1.0 while requests keep coming") as step:
            artefact = self._build_hello("hello", "1.1")
            with _Traffic(self._base.port, "/hello/") as traffic:
                time.sleep(_TRAFFIC_S)
                self._deploy(step, artefact)
                time.sleep(_TRAFFIC_S)
            self._deployed.remove(BizId.of("hello", "1.0"))
            self._expect(step, "/hello/", '"version":"1.1"')
            step.tell(
                f"{traffic.sent} requests sent, {len(traffic.failed)} failed, "
                f"longest gap between two answers {traffic.longest_gap_ms:.1f} ms"
            )
            if traffic.failed:
                raise StepFailed(f"{len(traffic.failed)} requests failed, the first with {traffic.failed[0]}")

    def _leave(self) -> None:
        with self._screen.step("everything is undeployed", total=len(self._deployed)) as step:
            before, copies_clean = self._base.memory(), 0
            for identity in reversed(self._deployed):
                purge = self._client.uninstall(identity).purge_report
                step.advance()
                if identity.name in self._names and purge and purge.clean:
                    copies_clean += 1
                else:
                    said = purge.summary if purge else "no purge report"
                    step.tell(f"{identity}: {said if len(said) <= _LINE else said[:_LINE] + ' ...'}")
                    for ended in purge.ended if purge else ():
                        step.tell(f"    did not end by itself: {ended}")
            step.tell(f"{copies_clean} of the {len(self._names)} copies: clean")
            left = self._client.query()
            if left:
                raise StepFailed(f"still installed: {', '.join(biz.identity for biz in left)}")
            step.tell(f"memory before {mebibytes(before)}, after {mebibytes(self._base.memory())}")
        with self._screen.step("the base stops") as step:
            status = self._base.stop()
            if status not in (0, -signal.SIGTERM):
                raise StepFailed(f"the base ended with status {status}")
            step.tell("no process is left")

    # --- parts of steps ----------------------------------------------------------------------------------------------

    def _build_hello(self, name: str, version: str) -> Built:
        project = self._directory / f"hello-{version}"
        if not project.exists():
            _write_templates(_modules() / "hello", project, {"version": version})
        return built(Target.of(str(project)), Options(name=name), out=self._directory)

    def _deploy(self, step: _Step, artefact: Built, *, envs: Mapping[str, str] | None = None) -> None:
        before = self._base.memory()
        taken = self._install(artefact, envs=envs)
        grown = mebibytes(max(0, self._base.memory() - before))
        step.tell(f"{artefact.manifest.id} deployed in {taken:.1f} ms, {grown} more memory")

    def _install(self, artefact: Built, *, envs: Mapping[str, str] | None = None) -> float:
        options = Options(envs=envs or {})
        target = Target.of(str(artefact.path))
        done = Deployment(self._client, self._settings, target, options, say=lambda _: None).run()
        self._deployed.append(artefact.manifest.id)
        return done.install_ms

    def _expect(self, step: _Step, path: str, text: str, *, is_told: bool = True) -> None:
        status, body = _get(self._base.port, path)
        # JSON comes with or without blanks.
        if status != http.HTTPStatus.OK or text.replace(" ", "") not in body.replace(" ", ""):
            raise StepFailed(f"GET {path} answered {status}: {body[:500]}")
        if is_told:
            step.tell(f"GET http://127.0.0.1:{self._base.port}{path} -> {status}, {len(body)} characters")


def _check_installed(*packages: str) -> None:
    missing = [package for package in packages if find_spec(package) is None]
    if missing:
        raise StepFailed(f"the demonstration needs {' and '.join(missing)}: pip install {' '.join(missing)}")


def _make_database(directory: Path) -> Path:
    path = directory / "planets.db"
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("create table planets (name text primary key, moons integer)")
        database.executemany("insert into planets values (?, ?)", [("Earth", 1), ("Mars", 2), ("Saturn", 274)])
        database.commit()
    return path


# --- template files ------------------------------------------------------------------------------------------------


def _modules() -> Traversable:
    return resources.files("koupleless.cli") / "demo_modules"


def _write_template(name: str, directory: Path) -> Path:
    path = directory / name
    path.write_text((_modules() / f"{name}.tmpl").read_text(encoding="utf-8"), encoding="utf-8")
    return path


def _write_templates(template: Traversable, directory: Path, words: Mapping[str, str]) -> None:
    directory.mkdir()
    for entry in template.iterdir():
        if entry.is_dir():
            _write_templates(entry, directory / entry.name, words)
        elif entry.name.endswith(".tmpl"):
            text = string.Template(entry.read_text(encoding="utf-8")).substitute(words)
            (directory / entry.name.removesuffix(".tmpl")).write_text(text, encoding="utf-8")
