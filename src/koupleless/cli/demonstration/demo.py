"""``arkctl demo``: a base at work, in a few steps. All figures are measured while the demonstration runs.

Starts a base, and a server to compare with, on free ports of the loopback address, and works in a temporary directory.
Processes and directory are removed at the end in any case.
"""

from __future__ import annotations

import contextlib
import http
import http.client
import signal
import sqlite3
import statistics
import string
import sys
import time
from importlib import resources
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final

from koupleless.artifact.building.options import Options
from koupleless.artifact.temporary import temporary_directory
from koupleless.biz import BizId
from koupleless.cli.demonstration.processes import Ended, Server, Traffic, free_ports, get, leaving_nothing_behind
from koupleless.cli.demonstration.screen import Screen, Step
from koupleless.cli.deploying.deploy import Deployment, DeployOptions
from koupleless.cli.deploying.target import DeployTarget, build_target
from koupleless.cli.showing.render import mebibytes
from koupleless.cli.showing.suggestions import exit_status, report
from koupleless.client import ArkletClient
from koupleless.errors import KouplelessError
from koupleless.settings.client import ClientSettings

if TYPE_CHECKING:
    from collections.abc import Mapping
    from importlib.resources.abc import Traversable
    from pathlib import Path

    from koupleless.artifact.build import Built

_LINE: Final = 240
"""Characters shown of one purge report."""
_TRAFFIC_S: Final = 0.5
"""Seconds of requests before and after the swap."""


class StepFailed(KouplelessError):
    """A step of the demonstration with another result than promised."""


def run(*, copies: int) -> int:
    """Run the demonstration with ``copies`` copies of a module; returns the exit status."""
    with leaving_nothing_behind():
        try:
            with temporary_directory("arkctl-demo-") as directory:
                _Demo(directory, Screen(), copies=copies).run()
        except KouplelessError as error:
            for line in report(error):
                print(line, file=sys.stderr)
            return exit_status(error)
        except Ended as ended:
            print("interrupted; everything that was started is stopped", file=sys.stderr)
            return 128 + ended.number
    return 0


class _Demo:
    """The steps of the demonstration, in order. Writes only into ``directory``; used once."""

    def __init__(self, directory: Path, screen: Screen, *, copies: int) -> None:
        self._directory = directory
        self._screen = screen
        self._names = [f"hello-{number:02}" for number in range(1, copies + 1)]
        self._deployed: list[BizId] = []

    def run(self) -> None:
        """Run all steps, from an empty directory to an empty base."""
        _check_installed("fastapi", "flask")
        _write_template("demo_base.py", self._directory)
        port, arklet_port = free_ports(2)
        self._settings = ClientSettings(port=arklet_port)
        self._client = ArkletClient(self._settings.host, arklet_port)
        with self._screen.step("A base starts, with FastAPI and Flask imported once") as step:
            command = ["-m", "koupleless", "serve", "demo_base:app", "--name", "demo", "--ephemeral"]
            command += ["--port", str(port), "--arklet-port", str(arklet_port)]
            self._base = Server(command, directory=self._directory, log=self._directory / "base.log", port=port)
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
            options = Options(requirements=("httpbin",), entry="httpbin:app", out=self._directory)
            artefact = build_target(None, options)
            step.tell(f"built in {time.perf_counter() - begin:.1f} s, {mebibytes(artefact.size)}")
            self._deploy(step, artefact)
            self._expect(step, "/httpbin/get", '"headers"')
        with self._screen.step("datasette, an ASGI application from the package index, with an entry file") as step:
            begin = time.perf_counter()
            entry = _write_template("datasette_entry.py", self._directory)
            options = Options(requirements=("datasette",), name="datasette", out=self._directory)
            artefact = build_target(DeployTarget.of(str(entry)), options)
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
            (port,) = free_ports(1)
            command = ["-m", "uvicorn", "hello.app:app", "--port", str(port), "--log-level", "warning"]
            log = self._directory / "uvicorn.log"
            alone = Server(command, directory=self._directory / "hello-1.0", log=log, port=port)
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
            with Traffic(self._base.port, "/hello/") as traffic:
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
        return build_target(DeployTarget.of(str(project)), Options(name=name, out=self._directory))

    def _deploy(self, step: Step, artefact: Built, *, envs: Mapping[str, str] | None = None) -> None:
        before = self._base.memory()
        taken = self._install(artefact, envs=envs)
        grown = mebibytes(max(0, self._base.memory() - before))
        step.tell(f"{artefact.manifest.id} deployed in {taken:.1f} ms, {grown} more memory")

    def _install(self, artefact: Built, *, envs: Mapping[str, str] | None = None) -> float:
        options = DeployOptions(envs=envs or {})
        target = DeployTarget.of(str(artefact.path))
        done = Deployment(self._client, self._settings, target, options, say=lambda _: None).run()
        self._deployed.append(artefact.manifest.id)
        return done.install_ms

    def _expect(self, step: Step, path: str, text: str, *, is_told: bool = True) -> None:
        status, body = get(self._base.port, path)
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
