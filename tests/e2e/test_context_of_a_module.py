"""One context for a life: what a module sets at import is set in its requests, hooks and tasks, and nowhere else."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.e2e.conftest import BaseProcess, Process

CASES = Path(__file__).parent.parent / "bizs" / "shared"

BASE: Final = """
import decimal

import ambient
import numpy
from fastapi import FastAPI

ambient.VARIABLE.set("by the base")
app = FastAPI()


@app.get("/own")
async def own():
    return {
        "digits": len(str(decimal.Decimal(1) / decimal.Decimal(3))) - 2,
        "division": numpy.geterr()["divide"],
        "variable": ambient.VARIABLE.get(),
    }
"""

AMBIENT: Final = """
from contextvars import ContextVar

VARIABLE = ContextVar("variable")
"""

OF_THE_BASE: Final = {"digits": 28, "division": "warn", "variable": "by the base"}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of the base."""
    place = tmp_path_factory.mktemp("base")
    (place / "ambient.py").write_text(AMBIENT)
    (place / "context_base.py").write_text(BASE)
    return place


@pytest.fixture(scope="module")
def base_process(serve: Callable[..., BaseProcess], place: Path) -> BaseProcess:
    return serve("context_base:app", cwd=place)


@pytest.fixture
def base(base_process: BaseProcess) -> Iterator[BaseProcess]:
    """A base that has set a variable of its own; its context has to be the same at the end."""
    yield base_process
    base_process.clear()
    assert base_process.get("/own").json() == OF_THE_BASE


def test_the_precision_that_a_module_sets_at_import_is_that_of_its_requests(base: BaseProcess) -> None:
    """A module computes with 50 digits in every request while its base goes on with 28."""
    for _ in range(2):
        base.deploy(CASES / "ledger.py")
        for _ in range(2):
            assert base.get("/ledger/").json() == "0." + "3" * 50
            assert base.get("/own").json() == OF_THE_BASE
    assert "nothing left behind" in base.undeploy("ledger")


SETTING: Final = """
import contextvars
import decimal

VARIABLE = contextvars.ContextVar("of the module", default="default")
VARIABLE.set("at import")
decimal.getcontext().prec = 50


def digits():
    return len(str(decimal.Decimal(1) / decimal.Decimal(3))) - 2


def seen():
    return [VARIABLE.get(), digits()]
"""

ASGI: Final = (
    SETTING
    + """
import asyncio
import json
import sys
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import BackgroundTasks, Depends, FastAPI, WebSocket

SEEN = {}


@asynccontextmanager
async def lifespan(app):
    SEEN["start"] = seen()
    yield
    Path(NOTES).write_text(json.dumps(seen()))


app = FastAPI(lifespan=lifespan)


def of_dependency():
    return seen()


@app.get("/async")
async def in_coroutine():
    return seen()


@app.get("/def")
def in_thread_pool():
    return seen()


@app.get("/dependency")
async def in_dependency(answer=Depends(of_dependency)):
    return answer


@app.get("/task")
async def in_task():
    async def task():
        return seen()

    return await asyncio.create_task(task())


@app.get("/thread")
async def in_thread():
    return await asyncio.to_thread(seen)


@app.get("/timer")
async def in_timer():
    future = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_later(0.01, lambda: future.set_result(seen()))
    return await future


@app.get("/background")
async def in_background(tasks: BackgroundTasks):
    async def later():
        SEEN["background"] = seen()

    tasks.add_task(later)
    return seen()


@app.get("/start")
async def in_start_hook():
    return SEEN["start"]


@app.get("/seen")
async def of_background():
    return SEEN.get("background")


@app.get("/set/{value}")
async def set_in_request(value: str):
    before = seen()
    VARIABLE.set(value)
    decimal.getcontext().prec = 7
    return before
"""
)
WAYS: Final = ("async", "def", "dependency", "task", "thread", "timer", "start", "background")
AT_IMPORT: Final = ["at import", 50]


@pytest.fixture
def asgi(base: BaseProcess, tmp_path: Path) -> BaseProcess:
    """The base with a module that shows its context from everywhere; its lifespan writes down how it was at the end."""
    path = tmp_path / "everywhere.py"
    path.write_text(f"NOTES = {str(tmp_path / 'notes')!r}\n{ASGI}")
    base.deploy(path)
    return base


def test_a_context_reaches_everything_that_a_request_may_run(asgi: BaseProcess, tmp_path: Path) -> None:
    """Coroutines, thread pools, dependencies, tasks, timers and the lifespan all see what was set at import."""
    assert {way: asgi.get(f"/everywhere/{way}").json() for way in WAYS} == dict.fromkeys(WAYS, AT_IMPORT)
    assert asgi.get("/everywhere/seen").json() == AT_IMPORT
    assert "nothing left behind" in asgi.undeploy("everywhere")
    assert (tmp_path / "notes").read_text() == '["at import", 50]'


def test_a_request_leaves_nothing_in_the_context_of_the_next(asgi: BaseProcess) -> None:
    """A variable that a request sets is as at import in the next one."""
    for value in "ab":
        assert asgi.get(f"/everywhere/set/{value}").json()[0] == "at import"
        assert asgi.get("/everywhere/async").json()[0] == "at import"


def test_the_same_module_alone_sees_the_same_everywhere(run_alone: Callable[..., Process], tmp_path: Path) -> None:
    """Under its usual server, a module sees in all these places what it has set at import."""
    import httpx

    (tmp_path / "everywhere.py").write_text(f"NOTES = {str(tmp_path / 'notes')!r}\n{ASGI}")
    alone = run_alone(lambda port: [sys.executable, "-m", "uvicorn", "everywhere:app", "--port", str(port)], tmp_path)
    assert {way: httpx.get(f"{alone.url}/{way}").json() for way in WAYS} == dict.fromkeys(WAYS, AT_IMPORT)


WSGI: Final = (
    SETTING
    + """
from flask import Flask

app = Flask(__name__)


@app.get("/")
def show():
    return seen()


@app.get("/stream")
def stream():
    def parts():
        yield VARIABLE.get() + " "
        yield str(digits())

    return parts()
"""
)


def test_a_wsgi_application_has_the_context_of_its_import(base: BaseProcess, tmp_path: Path) -> None:
    """Requests of a WSGI module and the parts of a stream see what was set at import."""
    (tmp_path / "wsgi.py").write_text(WSGI)
    base.deploy(tmp_path / "wsgi.py")
    for _ in range(3):
        assert base.get("/wsgi/").json() == AT_IMPORT
        assert base.get("/wsgi/stream").text == "at import 50"
    assert "nothing left behind" in base.undeploy("wsgi")


NUMPY: Final = """
import ambient
import numpy
from fastapi import FastAPI

numpy.seterr(divide={how!r})
BEFORE = ambient.VARIABLE.get()
ambient.VARIABLE.set({how!r})
app = FastAPI()


@app.get("/")
def division():
    try:
        answer = str(numpy.array([1.0]) / 0)
    except FloatingPointError:
        answer = "raised"
    return [answer, BEFORE, ambient.VARIABLE.get()]
"""


def test_two_modules_have_two_contexts_that_begin_as_that_of_the_base(base: BaseProcess, tmp_path: Path) -> None:
    """Each module finds what the base has set, and its own settings are unknown to the base and to others."""
    for name, how in (("strict", "raise"), ("lenient", "ignore")):
        (tmp_path / f"{name}.py").write_text(NUMPY.format(how=how))
        base.deploy(tmp_path / f"{name}.py")
    for _ in range(2):
        assert base.get("/strict/").json() == ["raised", "by the base", "raise"]
        assert base.get("/lenient/").json() == ["[inf]", "by the base", "ignore"]
        assert base.get("/own").json() == OF_THE_BASE
    for name in ("strict", "lenient"):
        assert "nothing left behind" in base.undeploy(name)
