"""Worker processes that a module is the first to need: they are the process's, and serve who comes next."""

from __future__ import annotations

import contextlib
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Final

import psutil  # type: ignore[import-untyped]
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.e2e.conftest import BaseProcess

CASES = Path(__file__).parent.parent / "bizs" / "shared"

BASE: Final = """
import multiprocessing

import joblib
from fastapi import FastAPI

app = FastAPI()


@app.get("/pool/{method}")
def pool(method: str):
    with multiprocessing.get_context(method).Pool(1) as pool:
        return pool.apply(abs, (-4,))


@app.get("/joblib")
def parallel():
    return joblib.Parallel(n_jobs=2)(joblib.delayed(abs)(x) for x in (-3, -4))
"""


@pytest.fixture
def base(serve: Callable[..., BaseProcess], tmp_path: Path) -> Iterator[BaseProcess]:
    """A base with pools of its own, which a test may end; no worker outlives it, even if it had to be killed."""
    (tmp_path / "pools.py").write_text(BASE)
    base = serve("pools:app", cwd=tmp_path)
    yield base
    workers = psutil.Process(base.popen.pid).children(recursive=True) if base.popen.poll() is None else []
    try:
        base.end()
    finally:
        for worker in workers:
            with contextlib.suppress(psutil.NoSuchProcess):
                worker.kill()


@pytest.mark.parametrize("first", ["module", "base"])
def test_the_fork_server_outlives_the_module_that_started_it(base: BaseProcess, first: str) -> None:
    """A pool works in every deployment of a module, and in the base before, meanwhile and afterwards."""
    if first == "base":
        assert base.get("/pool/forkserver").json() == 4
    for _ in range(2):
        base.deploy(CASES / "forked.py")
        assert base.get("/forked/").json() == 3
        assert base.get("/pool/forkserver").json() == 4
        assert "nothing left behind" in base.undeploy("forked")
        assert base.get("/pool/forkserver").json() == 4
    base.deploy(CASES / "forked.py")
    base.deploy(CASES / "forked.py")
    assert base.get("/forked/").json() == 3
    assert base.get("/pool/spawn").json() == 4
    assert base.end(signal.SIGTERM) == 0
    assert "Traceback" not in base.log.read_text()


@pytest.mark.parametrize("first", ["module", "base"])
def test_a_reusable_pool_of_joblib_works_in_every_deployment_and_ends_with_the_base(
    base: BaseProcess, first: str
) -> None:
    """Parallel work gives its results in two deployments and in the base, which then ends at once."""
    if first == "base":
        assert base.get("/joblib").json() == [3, 4]
    for _ in range(2):
        base.deploy(CASES / "parallel.py")
        assert base.get("/parallel/").json() == [1, 2]
        assert base.get("/parallel/").json() == [1, 2]
        assert base.get("/joblib").json() == [3, 4]
    base.undeploy("parallel")
    assert base.get("/joblib").json() == [3, 4]
    base.deploy(CASES / "parallel.py")
    assert base.get("/parallel/").json() == [1, 2]
    assert base.end(signal.SIGTERM) == 0
    assert "Traceback" not in base.log.read_text()
