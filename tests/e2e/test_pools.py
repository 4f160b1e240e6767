"""Pools of processes and threads: of modules, of the base, before, between and after each other; none is left over.

`multiprocessing` has one fork server for a process, whoever was the first to need it. loky, which joblib brings along,
has one executor for a process, and anyio one set of threads for an event loop; a module that holds such a library by
itself has its own, which go with it.
"""

from __future__ import annotations

import multiprocessing
import os
import select
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import joblib  # type: ignore[import-untyped]
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from tests.e2e.conftest import BaseProcess, Inside

WARM = """
import multiprocessing

import joblib
from fastapi import FastAPI

app = FastAPI()


@app.get("/forked")
def forked():
    with multiprocessing.get_context("forkserver").Pool(1) as pool:
        return pool.apply(abs, (-5,))


@app.get("/loky")
def loky():
    return joblib.Parallel(n_jobs=2)(joblib.delayed(abs)(x) for x in (-7, -8))
"""

FORKED = """
import multiprocessing

from fastapi import FastAPI

app = FastAPI()


@app.get("/")
def go():
    with multiprocessing.get_context("forkserver").Pool(1) as pool:
        return pool.apply(abs, (-3,))
"""

OWN = """
import concurrent.futures
import contextlib
import multiprocessing

from fastapi import FastAPI

app = FastAPI()


class Number:
    def __init__(self, value):
        self.value = value


def double(number):
    return Number(2 * number.value)


@app.get("/{method}")
def go(method: str):
    context = multiprocessing.get_context(None if method == "default" else method)
    pool = context.Pool(1)
    first = pool.apply(double, (Number(3),)).value
    pool.close()  # a forked child of uvicorn does not hear that it is terminated, alone neither
    pool.join()
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=None if method == "default" else context) as executor:
        second = executor.submit(double, Number(4)).result().value
    process = context.Process(target=double, args=(Number(5),))
    process.start()
    process.join()
    return [first, second, process.exitcode, context.get_start_method()]
"""

VARIABLES = """
import multiprocessing
import os

from fastapi import FastAPI

app = FastAPI()
os.environ["OF_MODULE"] = "mine"


@app.get("/{method}")
def go(method: str):
    with multiprocessing.get_context(method).Pool(1) as pool:
        return pool.apply(os.getenv, ("OF_MODULE",))
"""

PARALLEL = """
import joblib
from fastapi import FastAPI

app = FastAPI()


def double(number):
    return FACTOR * number


FACTOR = 2


@app.get("/")
def go():
    return joblib.Parallel(n_jobs=2)(joblib.delayed(abs)(x) for x in (-1, -2))


@app.get("/double")
def go_double():
    return joblib.Parallel(n_jobs=2)(joblib.delayed(double)(x) for x in (1, 2))


@app.get("/busy")
def be_busy():
    import time

    from joblib.externals.loky import get_reusable_executor

    executor = get_reusable_executor(max_workers=2)
    for _ in range(4):
        executor.submit(time.sleep, 600)
    return "busy"
"""

THREADED = """
import threading

import anyio.to_thread


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        return
    number = await anyio.to_thread.run_sync(threading.get_native_id)
    whose = "of its own" if "site-packages" not in anyio.__file__ else "of the base"
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": f"{whose}: {number}".encode()})
"""

PROJECT = """
[project]
name = "threaded"
version = "1.0"

[tool.koupleless.module]
entry = "app:app"
"""


def children_of(pid: int) -> dict[int, str]:
    """The command lines of all processes below one, by number."""
    parents = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, IndexError):  # it has ended
            continue
    below: set[int] = set()
    ahead = {pid}
    while ahead:
        ahead = {child for child, parent in parents.items() if parent in ahead} - below
        below |= ahead
    lines = {}
    for child in below:
        try:
            lines[child] = Path(f"/proc/{child}/cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
    return lines


def warm_base(directory: Path, serve: Callable[..., BaseProcess]) -> BaseProcess:
    texts = {"warm": WARM, "forked": FORKED, "own": OWN, "parallel": PARALLEL}
    for name, text in (texts | {"variables": VARIABLES}).items():
        (directory / f"{name}.py").write_text(text)
    return serve("warm:app", cwd=directory)


@pytest.fixture
def warm(tmp_path: Path, serve: Callable[..., BaseProcess]) -> BaseProcess:
    """A base that the test may end, and of which it counts the processes."""
    return warm_base(tmp_path, serve)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, serve: Callable[..., BaseProcess]) -> BaseProcess:
    """A base for all tests that leave it as it was."""
    return warm_base(tmp_path_factory.mktemp("warm"), serve)


@pytest.mark.parametrize("is_first", [False, True], ids=["the module is the first", "the base is the first"])
def test_a_fork_server_is_everybody_s(warm: BaseProcess, is_first: bool) -> None:
    if is_first:
        assert warm.get("/forked").json() == 5
    for _ in range(2):
        warm.deploy(warm.cwd / "forked.py")
        assert warm.get("/forked/").json() == 3
        assert "nothing left behind" in warm.undeploy("forked")
        assert warm.get("/forked").json() == 5
    warm.deploy(warm.cwd / "forked.py")
    assert warm.get("/forked/").json() == 3
    below = children_of(warm.popen.pid)
    assert sum("multiprocessing.forkserver" in line for line in below.values()) == 1
    assert warm.end() == 0
    assert_ended(below)


@pytest.mark.parametrize("method", ["default", "fork", "forkserver", "spawn"])
def test_functions_of_a_module_run_in_its_child_processes(shared: BaseProcess, method: str) -> None:
    """However Python starts them: with the fork server by itself from 3.14 on, which knows nothing of the module."""
    present = multiprocessing.get_start_method() if method == "default" else method
    shared.deploy(shared.cwd / "own.py")
    assert shared.get(f"/own/{method}").json() == [6, 8, 0, present]
    assert "nothing left behind" in shared.undeploy("own")


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_child_processes_have_the_variables_of_their_module(shared: BaseProcess, method: str) -> None:
    shared.deploy(shared.cwd / "variables.py")
    assert shared.get(f"/variables/{method}").json() == "mine"
    assert shared.get("/forked").json() == 5
    assert "nothing left behind" in shared.undeploy("variables")


def test_each_module_has_a_reusable_executor_of_its_own(warm: BaseProcess) -> None:
    for _ in range(2):
        warm.deploy(warm.cwd / "parallel.py")
        assert warm.get("/parallel/").json() == [1, 2]
        assert warm.get("/parallel/double").json() == [2, 4]
        assert warm.get("/loky").json() == [7, 8]
    assert "nothing left behind" in warm.undeploy("parallel")
    workers = [line for line in children_of(warm.popen.pid).values() if "popen_loky" in line]
    assert len(workers) == 2, "those of the base"
    assert warm.get("/loky").json() == [7, 8]
    warm.deploy(warm.cwd / "parallel.py")
    assert warm.get("/parallel/").json() == [1, 2]
    below = children_of(warm.popen.pid)
    assert warm.end() == 0
    assert_ended(below)


def test_a_base_ends_though_a_module_s_worker_processes_never_would(
    tmp_path: Path, serve: Callable[..., BaseProcess]
) -> None:
    (tmp_path / "koupleless.toml").write_text("[base]\nstop-timeout = 1\n")
    (tmp_path / "parallel.py").write_text(PARALLEL)
    base = serve(cwd=tmp_path)
    base.deploy(base.cwd / "parallel.py")
    assert base.get("/parallel/busy").json() == "busy"
    below = children_of(base.popen.pid)
    assert sum("popen_loky" in line for line in below.values()) == 2
    assert base.end() == 0
    assert_ended(below)


def test_a_module_with_a_loky_of_its_own_takes_its_processes_along(inside: Inside) -> None:
    artefact = inside.build("parallel", "1.0", {"app.py": PARALLEL, **files_of(joblib)})
    before = children_of(os.getpid())
    for _ in range(2):
        inside.install(artefact)
        assert inside.get("/parallel/double").json() == [2, 4]
        assert set(children_of(os.getpid())) > set(before)
        report = inside.uninstall("parallel:1.0")
        assert report.clean, report.summary()
        left = {pid: line for pid, line in children_of(os.getpid()).items() if pid not in before}
        # The one that the standard library started is the process's.
        assert all("from multiprocessing.resource_tracker" in line for line in left.values()), left
        assert joblib.Parallel(n_jobs=2)(joblib.delayed(abs)(x) for x in (-7, -8)) == [7, 8]
        joblib.externals.loky.get_reusable_executor().shutdown(kill_workers=True)
        before = children_of(os.getpid())


def test_functions_on_threads_of_anyio_find_the_threads_of_earlier_requests(
    tmp_path: Path, serve: Callable[..., BaseProcess]
) -> None:
    """Threads of the base for all modules, or of the module with an anyio of its own, which takes its threads along."""
    base = serve(cwd=tmp_path)
    for whose, library in (("of the base", {}), ("of its own", files_of(anyio))):
        project = tmp_path / whose / "threaded"
        for place, text in {"app.py": THREADED, "pyproject.toml": PROJECT, **library}.items():
            (project / place).parent.mkdir(parents=True, exist_ok=True)
            (project / place).write_text(text, encoding="utf-8")
        for _ in range(2):
            base.deploy(project)
            (answer,) = {base.get("/threaded/").text for _ in range(3)}
            assert answer.startswith(f"{whose}: ")
            assert "nothing left behind" in base.undeploy("threaded")


def files_of(package: ModuleType) -> dict[str, str]:
    """A library's modules, for a project that brings them along."""
    root = Path(str(package.__file__)).parent
    return {
        str(file.relative_to(root.parent)): file.read_text(encoding="utf-8")
        for file in root.rglob("*.py")
        if "test" not in file.relative_to(root).parts
    }


def assert_ended(processes: dict[int, str]) -> None:
    """None of them lives, but for a moment."""
    for pid, line in processes.items():
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        try:
            ended, _, _ = select.select([descriptor], [], [], 10)
            if not ended:
                os.kill(pid, signal.SIGKILL)
            assert ended, f"{line} goes on"
        finally:
            os.close(descriptor)
