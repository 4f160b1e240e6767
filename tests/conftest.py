"""What several rooms' tests share: real little modules in several versions, built once into artefacts.

And the order of the tests: random, file by file, the slow files first; ``scripts/test`` gives the options for it.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
import random
import runpy
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import pytest

from koupleless.artifact.build import Options, build_project

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

BIZS = Path(__file__).parent / "bizs"

os.environ["KOUPLELESS_BASE_EPHEMERAL"] = "true"
"""Bases of tests keep nothing below the state directory of the user, unless a test names a directory."""

pytest_plugins = ["tests.kube.fixtures", "tests.mqtt.fixtures"]

collect_ignore = ["bizs"]
"""Applications, some with tests of their own, which are run in bizs."""


# --- order and processes ---------------------------------------------------------------------------------------------


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int | None:
    """How many processes ``-n auto`` means: two more than processors that this one may use, where that is known.

    Half of the time of a test is waiting: for a child, an answer, a time limit that has to pass.
    """
    if "PYTEST_XDIST_AUTO_NUM_WORKERS" in os.environ or not hasattr(os, "sched_getaffinity"):
        return None
    return len(os.sched_getaffinity(0)) + 2


@pytest.hookimpl(wrapper=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> Generator[None, Any, Any]:
    """Begin with the files that ask for most time, so that no process is left with one of them alone at the end.

    What shuffles the tests seeds the numbers of `random`, with one seed in all processes; they go on as they were.
    """
    state = random.getstate()
    result = yield
    random.setstate(state)
    seconds: dict[Path, float] = {}
    for item in items:
        seconds[item.path] = max(seconds.get(item.path, 0), *(mark.args[0] for mark in item.iter_markers("timeout")), 0)
    items.sort(key=lambda item: -seconds[item.path])
    return result


def shared_directory(factory: pytest.TempPathFactory, name: str) -> Path:
    """A directory that all processes of one run have together."""
    base = factory.getbasetemp()
    path = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name
    path.mkdir(exist_ok=True)
    return path


def made_once(path: Path, make: Callable[[Path], object]) -> Path:
    """``path``, made by the first process that asks for it; ``make`` is given another name, where nobody looks."""
    with path.with_name(f"{path.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            unfinished = path.with_name(f"{path.name}.unfinished")
            make(unfinished)
            unfinished.rename(path)
    return path


# --- what tests call -------------------------------------------------------------------------------------------------


Found = TypeVar("Found")


def until(condition: Callable[[], Found | None], timeout_s: float = 30, *, otherwise: str = "it is not so") -> Found:
    """What ``condition`` returns, as soon as that is true: for what can be seen and gives no other sign."""
    ends = time.monotonic() + timeout_s
    while not (found := condition()):
        assert time.monotonic() < ends, f"{otherwise} within {timeout_s:g} s"
        time.sleep(0.002)
    return found


def lacks(reason: str) -> NoReturn:
    """Skip the test, for something that the machine lacks. With ``CI=true``, where every test has to run, fail."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"with CI=true no such test is skipped: {reason}")
    pytest.skip(reason)


def program(factory: pytest.TempPathFactory, name: str) -> str:
    """The path of a program, which ``scripts/program`` finds or fetches once a run; as `lacks` without one."""

    def find(path: Path) -> None:
        command = [str(Path(__file__).parents[1] / "scripts" / "program"), name]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=110)
        path.write_text(done.stdout if done.returncode == 0 else f"!{done.stderr}")

    found = made_once(shared_directory(factory, "programs") / name, find).read_text().strip()
    if found.startswith("!"):
        lacks(f"scripts/program found no {name}: {found[1:]}")
    return found


_ports = os.open(Path(tempfile.gettempdir(), f"koupleless-test-ports-{os.getuid()}"), os.O_RDWR | os.O_CREAT, 0o600)
_given: set[int] = set()
_dice = random.SystemRandom()


def free_port() -> int:
    """A port of loopback that nobody listens on, and that no process which runs these tests is given meanwhile.

    A lock on one byte of a file, the port's, says that it is given. It lies below those that the system chooses
    itself, so that it does not become one end of a connection before somebody listens on it.
    """
    while True:
        port = _dice.randrange(15_000, 30_000)
        if port in _given:
            continue
        with contextlib.suppress(OSError), socket.socket() as probe:
            fcntl.lockf(_ports, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
            probe.bind(("127.0.0.1", port))
            _given.add(port)
            return port


def unmeasured() -> dict[str, str]:
    """The environment for a child that is not to be measured, nor to find the data of ``scripts/coverage``.

    One that measures coverage itself would end that measurement, and take its data for its own. Nor is it one of the
    processes that share the tests.
    """
    ours = ("COVERAGE_", "PYTEST_XDIST_")
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)}


@pytest.fixture(scope="session", autouse=True)
def signals_reach_children() -> Iterator[None]:
    """What is ignored, as a hangup under ``nohup`` or an interrupt in the background, children ignore, too.

    What has a handler here is theirs by default.
    """
    ignored = [number for number in (signal.SIGINT, signal.SIGHUP) if signal.getsignal(number) is signal.SIG_IGN]
    for number in ignored:
        signal.signal(number, lambda *_: None)
    yield
    for number in ignored:
        signal.signal(number, signal.SIG_IGN)


@pytest.fixture(scope="session")
def artefact(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """``artefact("hello-1.0")`` is the path of that module's built artefact; each is built once in a run.

    The base of these modules uses their frameworks itself. A library that only modules use comes with the first of them
    and goes with the last, which takes longer than most tests have to do with it.
    """
    for application in ("hello-1.0/hello/app.py", "flasky-1.0/flasky.py"):
        runpy.run_path(str(BIZS / application))
    directory = shared_directory(tmp_path_factory, "artefacts")

    @functools.cache
    def get(name: str) -> Path:
        (path,) = made_once(directory / name, lambda out: build_project(BIZS / name, Options(out=out))).iterdir()
        return path

    return get


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for 127.0.0.1 with its key, made for this run."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl, which makes the certificate, is not here")
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    command = [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(path), "-out", f"{path}.crt"]
    subprocess.run(command, check=True, capture_output=True)
    with path.open("ab") as file:
        file.write(path.with_name(path.name + ".crt").read_bytes())
    return path
