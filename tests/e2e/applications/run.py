"""Applications of the package index: all in one base at once, each alone as well, asked the same and compared.

``applications.toml`` beside this file has an entry file, requests and, where one suits, a program of a real client for
each. Every application is built with ``arkctl build``, deployed with the others into one base, and asked there while
the others are asked; then it is asked in a process of its own, under uvicorn or waitress, with the very versions that
the module has. Status, headers and body have to be the same, links below its path included. At the end all are
undeployed, and the purge reports read.

Exits with 1 if an answer differs or a module is named as left behind, where the table does not say so.
``scripts/applications`` runs all of it.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import contextlib
import difflib
import functools
import hashlib
import importlib.metadata
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import tomllib
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import httpx
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from koupleless.suite.furnish import cache

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

HERE: Final = Path(__file__).parent
TABLE: Final = HERE / "applications.toml"
PYTHON: Final = ".".join(map(str, sys.version_info[:2]))
START_S: Final = 90
CLIENT_S: Final = 300
DEPLOY_S: Final = 900
"""Some make a database by hundreds of migrations."""
END_S: Final = 300
"""How long a base may take that ends with all of them in it."""
LEFT_OUT: Final = frozenset(
    {"date", "server", "via", "connection", "keep-alive", "transfer-encoding", "content-length"}
)
"""Headers that belong to the server, or follow from the body."""
SERVERS: Final = ("uvicorn[standard]>=0.34", "waitress>=3")
SAME: Final = {"PYTHONUNBUFFERED": "1", "PYTHONHASHSEED": "0", "PYTHONFAULTHANDLER": "1"}
"""For both servers: some answers are in the order of a set."""
DATA: Final = "APPLICATION_DATA"
"""The variable that names the directory in which an application keeps its data."""

HEADING = """# Applications of the package index, in one base and alone

<!-- written by scripts/applications; the applications are in tests/e2e/applications -->

Each application ran in a base, at once with the other applications of the run, and in a process of its own, under
uvicorn or waitress. `scripts/applications` replaces the rows of the applications in a run; "together" is the number of
applications in the base. The same requests went to both, and to the base while other applications were asked: status,
headers and body had to be the same, links below the path of the module included. "client" is a real client of the
application, which had to print the same. The last column is the report of `arkctl undeploy`.

"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Application:
    """One table of the file."""

    name: str
    requirements: tuple[str, ...]
    """The first is the application itself."""
    interface: str
    entry: str
    requests: tuple[Any, ...]
    """Like ``GET /path``, or a table of ``do`` and of what `ask` takes besides."""
    masks: tuple[str, ...] = ()
    """Regular expressions of what no two processes answer alike."""
    client: str = ""
    """A program in Python; its first argument is the address of the application."""
    client_requirements: tuple[str, ...] = ()
    left: str = ""
    """What stays of the module when it leaves, and why; empty if nothing does."""
    differs: str = ""
    """Why an answer differs, in words for users; empty if none does."""

    @property
    def prefix(self) -> str:
        """The path it answers below, in both places."""
        return f"/{self.name}"

    @property
    def module(self) -> str:
        """The name of the module; the plain one is that of the distribution, whose version it may want to know."""
        return f"{self.name}-here"


@dataclass
class Answers:
    """What an application answered in one of its two places."""

    lines: list[str] = field(default_factory=list)
    """Of all answers, one after the other, without what differs from run to run."""
    count: int = 0
    failures: int = 0
    """Answers that say that the application failed."""
    client: list[str] = field(default_factory=list)


def read_applications() -> dict[str, Application]:
    """All applications, by name."""
    document = tomllib.loads(TABLE.read_text(encoding="utf-8"))
    found = {}
    for name, table in document.items():
        values: dict[str, Any] = {
            key.replace("-", "_"): tuple(value) if isinstance(value, list) else value for key, value in table.items()
        }
        found[name] = Application(name=name, **values)
    return found


# --- what is needed ------------------------------------------------------------------------------------------------


def arkctl(*arguments: object, port: int | None = None) -> str:
    """Run a command to its end; raises ``RuntimeError`` with what it said."""
    command = [sys.executable, "-P", "-m", "koupleless", *map(str, arguments)]
    command += ["--port", str(port), "--timeout", str(DEPLOY_S)] if port is not None else []
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEPLOY_S, check=False)
    if done.returncode:
        raise RuntimeError(f"arkctl {' '.join(map(str, arguments[:2]))}: {done.stdout}{done.stderr}")
    return done.stdout


def build(application: Application, directory: Path) -> Path:
    """The artefact of an application, whose project is laid into ``directory``; kept in the user's cache."""
    project = directory / "project"
    project.mkdir(parents=True)
    needed = ", ".join(f'"{text}"' for text in application.requirements)
    (project / "pyproject.toml").write_text(
        f'[project]\nname = "{application.module}"\nversion = "1.0"\nrequires-python = ">=3.11"\n'
        f"dependencies = [{needed}]\n"
        f'[tool.koupleless.module]\nentry = "entry:app"\nweb-context-path = "{application.prefix}"\n',
        encoding="utf-8",
    )
    (project / "entry.py").write_text(application.entry, encoding="utf-8")
    texts = [file.read_text(encoding="utf-8") for file in sorted(project.iterdir())]
    kept = kept_at([*texts, *environment()])
    if not kept.is_dir():
        with made_at(kept) as made:
            arkctl("build", project, "--out", made)
    (artefact,) = kept.glob("*.zip")
    return artefact


@functools.cache
def environment() -> tuple[str, ...]:
    """The base's distributions, and the very content of the one that builds artefacts."""
    found = importlib.metadata.distributions()
    record = importlib.metadata.distribution("koupleless").read_text("RECORD") or ""
    return (record, *sorted(f"{each.metadata['Name']}=={each.version}" for each in found))


def kept_at(marks: Sequence[str]) -> Path:
    """A directory of the user's cache, for what is made from these texts by this interpreter."""
    digest = hashlib.sha256("\0".join([sys.version, sys.executable, *marks]).encode()).hexdigest()[:16]
    return cache().with_name("applications") / digest


@contextlib.contextmanager
def made_at(place: Path) -> Iterator[Path]:
    """A directory that becomes ``place`` when it is complete."""
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".making-", dir=place.parent) as scratch:
        made = Path(scratch, "made")
        made.mkdir()
        yield made
        with contextlib.suppress(OSError):  # somebody else was faster
            made.rename(place)


def pins_of(artefact: Path) -> list[str]:
    """The versions that a module runs with: its own and the base's."""
    with zipfile.ZipFile(artefact) as opened:
        manifest = tomllib.loads(opened.read("biz.toml").decode())
    pins = list(manifest.get("packed", ()))
    for requirement in map(Requirement, manifest.get("provided", ())):
        extras = f"[{','.join(sorted(requirement.extras))}]" if requirement.extras else ""
        pins.append(f"{requirement.name}{extras}=={importlib.metadata.version(requirement.name)}")
    return sorted(pins)


def installed(requirements: Sequence[str]) -> Path:
    """A directory with these and what they need in turn; kept in the user's cache."""
    place = kept_at(requirements)
    if not place.is_dir():
        with made_at(place) as made:
            command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-warn-conflicts", "--target", str(made)]
            subprocess.run(
                [*command, *requirements], check=True, env=os.environ | {"PIP_NO_INPUT": "1"}, timeout=DEPLOY_S
            )
    return place


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def running(command: Sequence[str], port: int, *, envs: Mapping[str, str], cwd: Path, log: Path) -> Iterator[None]:
    """A server, from when it listens to the end of its process; raises ``RuntimeError`` with its log."""
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, cwd=cwd, env={**os.environ, **SAME, **envs}, stdout=out, stderr=subprocess.STDOUT
        )
    try:
        ends = time.monotonic() + START_S
        while not _listens(port):
            if process.poll() is not None or time.monotonic() > ends:
                raise RuntimeError(f"nothing listens on {port}:\n{log.read_text(errors='replace')[-3000:]}")
            time.sleep(0.05)
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(END_S)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGABRT)  # the log then has the stack of every thread
            process.wait()
            raise RuntimeError(
                f"the server on {port} did not end:\n{log.read_text(errors='replace')[-3000:]}"
            ) from None


def _listens(port: int) -> bool:
    """A request would be seen by an application that counts them."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


# --- asking --------------------------------------------------------------------------------------------------------


def ask(application: Application, port: int, data: Path, client_path: Path | None) -> Answers:
    """Send every request in turn, as one client that keeps its cookies, then run the real client."""
    answers = Answers()
    known: dict[str, str] = {}
    masks = [re.compile(mask) for mask in application.masks]
    url = f"http://127.0.0.1:{port}"
    with httpx.Client(base_url=url, timeout=60, headers={"connection": "keep-alive"}) as client:
        for each in application.requests:
            request: dict[str, Any] = {"do": each} if isinstance(each, str) else dict(each)
            method, path = _filled(request.pop("do"), known).split(" ", 1)
            takes = request.pop("take", {})
            if "auth" in request:
                request["auth"] = httpx.BasicAuth(*request["auth"])
            response = client.request(method, application.prefix + path, **_filled(request, known))
            answers.count += 1
            answers.failures += response.status_code >= 500
            for name, pattern in takes.items():
                taken = re.search(pattern, response.text)
                known[name] = taken[1] if taken else f"no {name}"
            answers.lines += [f"--- {method} {path}", *_masked(_lines(response), port, data, masks)]
    if application.client:
        where = f"{url}{application.prefix}"
        command = [sys.executable, "-P", "-c", application.client, where]
        envs = {**os.environ, "PYTHONPATH": str(client_path or ""), DATA: str(data)}
        done = subprocess.run(
            command, env=envs, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=CLIENT_S, check=False, cwd=data
        )
        said = [*done.stdout.decode(errors="replace").splitlines(), f"status {done.returncode}"]
        answers.client = _masked(said, port, data, masks)
        answers.failures += done.returncode != 0
    return answers


def _filled(value: Any, known: Mapping[str, str]) -> Any:
    """A request with ``{name}`` replaced by what an earlier answer gave."""
    if isinstance(value, str):
        for name, text in known.items():
            value = value.replace(f"{{{name}}}", text)
        return value
    if isinstance(value, dict):
        return {key: _filled(item, known) for key, item in value.items()}
    return value


def _lines(response: httpx.Response) -> list[str]:
    headers = sorted(f"{name.lower()}: {value}" for name, value in response.headers.multi_items())
    kept = [line for line in headers if line.partition(":")[0] not in LEFT_OUT]
    kind = response.headers.get("content-type", "")
    is_text = kind.startswith("text/") or any(word in kind for word in ("json", "xml", "javascript", "urlencoded"))
    body = response.text.splitlines() if is_text else [f"sha256 {hashlib.sha256(response.content).hexdigest()}"]
    return [str(response.status_code), *kept, *body]


def _masked(lines: list[str], port: int, data: Path, masks: Sequence[re.Pattern[str]]) -> list[str]:
    masked = []
    for line in lines:
        text = line.replace(f"127.0.0.1:{port}", "SERVER").replace(str(port), "PORT").replace(str(data), "DATA")
        for mask in masks:
            text = mask.sub("***", text)
        masked.append(text)
    return masked


# --- all of it -----------------------------------------------------------------------------------------------------


@dataclass
class Finding:
    """What became of one application."""

    version: str = ""
    differences: list[str] = field(default_factory=list)
    equal: int = 0
    count: int = 0
    failures: int = 0
    client: str = "-"
    report: str = ""
    failure: str = ""


class Trial:
    """All applications in one base."""

    def __init__(self, applications: Sequence[Application], directory: Path) -> None:
        self._applications = applications
        self._directory = directory
        self.findings = {each.name: Finding() for each in applications}
        self.failure = ""
        """Of the base."""

    def run(self) -> None:
        """Build, deploy, ask, undeploy; what fails is in the findings."""
        artefacts = {}
        for each in self._applications:
            with self._failing(each, "build"):
                artefacts[each.name] = build(each, self._directory / each.name)
                own = Requirement(each.requirements[0]).name
                self.findings[each.name].version = _version(own, pins_of(artefacts[each.name]))
                (self._directory / each.name / "data").mkdir()
        port, arklet = free_port(), free_port()
        (self._directory / "koupleless.toml").write_text(f"[base]\nstart-timeout = {DEPLOY_S}\nstop-timeout = 5\n")
        command = [sys.executable, "-P", "-m", "koupleless", "serve", "--port", str(port), "--arklet-port", str(arklet)]
        inside: dict[str, Answers] = {}
        with (
            self._failing(None, "the base"),
            running(command, port, envs={}, cwd=self._directory, log=self._directory / "base.log"),
        ):
            deployed = []
            for each in self._applications:
                if each.name in artefacts:
                    with self._failing(each, "deploy"):
                        data = self._directory / each.name / "data"
                        said = arkctl("deploy", artefacts[each.name], "--env", f"{DATA}={data}", port=arklet)
                        (self._directory / each.name / "deployed.txt").write_text(said)
                        deployed.append(each)
            with concurrent.futures.ThreadPoolExecutor(4) as pool:
                asked = [pool.submit(self._asked, each, port) for each in deployed]
                for each, future in zip(deployed, asked, strict=True):
                    with self._failing(each, "inside"):
                        inside[each.name] = future.result()
            for each in deployed:
                with self._failing(each, "undeploy"):
                    said = arkctl("undeploy", each.module, port=arklet)
                    (self._directory / each.name / "undeployed.txt").write_text(said)
                    self.findings[each.name].report = said.strip()
        for each in self._applications:
            if each.name in inside:
                with self._failing(each, "alone"):
                    self._compare(each, self._alone(each, artefacts[each.name]), inside[each.name])

    @contextlib.contextmanager
    def _failing(self, application: Application | None, step: str) -> Iterator[None]:
        begin = time.monotonic()
        name = application.name if application is not None else "all"
        try:
            yield
        except Exception as error:  # noqa: BLE001 - whatever an application or its client does: the others go on
            if application is None:
                self.failure = f"{step}: {error}"
            else:
                self.findings[application.name].failure = f"{step}: {error}"
            print(f"{name}: {step} failed: {error}", file=sys.stderr, flush=True)
        else:
            print(f"{name}: {step} ({time.monotonic() - begin:.0f} s)", file=sys.stderr, flush=True)

    def _asked(self, application: Application, port: int) -> Answers:
        client = installed(application.client_requirements) if application.client_requirements else None
        return ask(application, port, self._directory / application.name / "data", client)

    def _alone(self, application: Application, artefact: Path) -> Answers:
        libraries, servers = installed(pins_of(artefact)), installed(SERVERS)
        directory = self._directory / application.name
        data = directory / "data"  # where that of the module was: answers may tell paths, or digests of them
        data.rename(directory / "data-inside")
        data.mkdir()
        port = free_port()
        with bare_python() as python:
            path = os.pathsep.join(map(str, (directory / "project", libraries, servers)))
            command = [python, "-P", str(HERE / "alone.py"), application.interface, application.prefix, str(port)]
            envs = {"PYTHONPATH": path, DATA: str(data)}
            with running(command, port, envs=envs, cwd=directory, log=directory / "alone.log"):
                return self._asked(application, port)

    def _compare(self, application: Application, alone: Answers, inside: Answers) -> None:
        finding = self.findings[application.name]
        finding.count, finding.failures = alone.count, alone.failures
        one, other = ("\n".join(each.lines).split("\n--- ") for each in (alone, inside))
        finding.equal = sum(first == second for first, second in zip(one, other, strict=False))
        finding.differences = _difference(alone.lines, inside.lines)
        if application.client:
            finding.client = "same" if alone.client == inside.client else "differs"
            finding.differences += _difference(alone.client, inside.client)
        directory = self._directory / application.name
        for name, answers in (("alone", alone), ("inside", inside)):
            (directory / f"{name}.txt").write_text("\n".join([*answers.lines, "--- client", *answers.client]))


def _version(name: str, pins: Sequence[str]) -> str:
    found = (Requirement(pin) for pin in pins)
    return next((str(pin.specifier)[2:] for pin in found if canonicalize_name(pin.name) == canonicalize_name(name)), "")


def _difference(alone: Sequence[str], inside: Sequence[str]) -> list[str]:
    return list(difflib.unified_diff(alone, inside, "alone", "inside", lineterm="", n=1))


@contextlib.contextmanager
def bare_python() -> Iterator[str]:
    """An interpreter with nothing installed."""
    import venv

    with tempfile.TemporaryDirectory(prefix="application-") as directory:
        venv.create(directory, symlinks=True)
        yield str(Path(directory, "bin", "python"))


def row(application: Application, finding: Finding, together: int) -> tuple[str, ...]:
    """One application, deployed together with as many, as a row of the table."""
    name = Requirement(application.requirements[0]).name
    place = (name, finding.version, PYTHON, str(together), application.interface.upper())
    if finding.failure:
        return (*place, "-", "-", finding.failure.splitlines()[0])
    asked = f"{finding.equal} of {finding.count} equal"
    if finding.differences and application.differs:
        asked += f": {application.differs}"
    report = finding.report.splitlines()[-1] if finding.report else "-"
    report = "nothing left behind" if "nothing left behind" in finding.report else application.left or report
    return (*place, asked, finding.client, report)


def table(rows: Sequence[tuple[str, ...]]) -> str:
    """Rows as a Markdown table, sorted."""
    head = ("application", "version", "Python", "together", "interface", "requests", "client", "when it left")
    return "\n".join(f"| {' | '.join(each)} |" for each in [head, ("---",) * len(head), *sorted(rows)]) + "\n"


def kept(page: Path, *, without: set[str]) -> list[tuple[str, ...]]:
    """The rows of a page that an earlier run wrote, but for those of some applications."""
    lines = page.read_text(encoding="utf-8").splitlines() if page.exists() else []
    cells = [tuple(cell.strip() for cell in line.strip("|").split(" | ")) for line in lines if line.startswith("| ")]
    return [cell for cell in cells[1:] if cell[0].strip("-") and cell[0] not in without]


def is_as_expected(application: Application, finding: Finding) -> bool:
    """Whether the table says all that was found."""
    return (
        not finding.failure
        and not finding.failures
        and (not finding.differences or bool(application.differs))
        and ("nothing left behind" in finding.report or bool(application.left))
    )


def main(arguments: Sequence[str]) -> int:
    """Run the named applications, or all; returns 1 if something was found that the table does not say."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="only these")
    parser.add_argument("--write", type=Path, metavar="FILE", help="put the rows there; those of others stay")
    parser.add_argument("--scratch", type=Path, metavar="DIR", help="keep answers, logs and artefacts there")
    options = parser.parse_args(arguments)
    everything = read_applications()
    chosen = [everything[name] for name in options.names or everything]
    with tempfile.TemporaryDirectory(prefix="applications-") as temporary:
        directory = options.scratch or Path(temporary)
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
        trial = Trial(chosen, directory.absolute())
        trial.run()
    rows = []
    status = 1 if trial.failure else 0
    for each in chosen:
        finding = trial.findings[each.name]
        rows.append(row(each, finding, len(chosen)))
        if not is_as_expected(each, finding):
            status = 1
            print("\n".join([f"{each.name}:", *finding.differences[:40], finding.failure, finding.report]))
            if finding.failures:
                print(f"{finding.failures} answers alone say that the application failed")
    print(table(rows))
    if options.write:
        rows += kept(options.write, without={each[0] for each in rows})
        options.write.write_text(HEADING + table(rows), encoding="utf-8")
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
