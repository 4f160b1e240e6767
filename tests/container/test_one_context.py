"""One context for a life: what the import of a biz sets in context variables is there wherever its code runs."""

from __future__ import annotations

import contextvars
import decimal
import json
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING

import pytest

from koupleless.testing import loaded

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SEEN = """
import contextvars
import decimal

decimal.getcontext().prec = 50
LANGUAGE = contextvars.ContextVar("language", default="none")
LANGUAGE.set("set at import")


class Kept:
    pass


KEPT = contextvars.ContextVar("kept")
KEPT.set(Kept())  # an object of its own, which must not stay anywhere


def seen():
    KEPT.get()
    return [len(str(decimal.Decimal(1) / decimal.Decimal(3))) - 2, LANGUAGE.get()]

"""
RIGHT = [50, "set at import"]

PLACES = """
import _thread
import asyncio
import queue
import threading
from concurrent.futures import ThreadPoolExecutor

import koupleless
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route

AT_IMPORT = queue.SimpleQueue()
threading.Thread(target=lambda: AT_IMPORT.put(seen())).start()
POOL = ThreadPoolExecutor(2)
POOL_AT_IMPORT = POOL.submit(seen)
LATER = queue.SimpleQueue()
carried = koupleless.carry(seen)


def on(start):
    results = queue.SimpleQueue()
    start(lambda: results.put(seen()))
    return results.get(timeout=10)


def start(work):
    threading.Thread(target=work).start()


def threads():
    return {
        "thread": on(lambda work: threading.Thread(target=work).start()),
        "thread of a thread": on(lambda work: start(lambda: start(work))),
        "bare thread": on(lambda work: _thread.start_new_thread(work, ())),
        "timer": on(lambda work: threading.Timer(0.01, work).start()),
        "pool": POOL.submit(seen).result(),
        "pool of this request": on(lambda work: ThreadPoolExecutor(1).submit(work)),
        "thread at import": AT_IMPORT.get(timeout=10),
        "pool at import": POOL_AT_IMPORT.result(),
    }


async def everywhere(request):
    loop = asyncio.get_running_loop()
    ready = loop.create_future()
    loop.call_later(0.01, lambda: ready.set_result(seen()))
    soon = loop.create_future()
    loop.call_soon(lambda: soon.set_result(seen()))
    safe = loop.create_future()
    threading.Thread(target=lambda: loop.call_soon_threadsafe(lambda: safe.set_result(seen()))).start()
    return JSONResponse({
        "async def": seen(),
        **await asyncio.to_thread(threads),
        "to_thread": await asyncio.to_thread(seen),
        "run_in_executor": await loop.run_in_executor(None, seen),
        "run_in_executor of its own": await loop.run_in_executor(POOL, seen),
        "task": await asyncio.create_task(atask()),
        "call_later": await ready,
        "call_soon": await soon,
        "call_soon_threadsafe of a thread": await safe,
        "run_coroutine_threadsafe": await asyncio.to_thread(
            lambda: asyncio.run_coroutine_threadsafe(atask(), loop).result(10)
        ),
        "asyncio.run in a thread": await asyncio.to_thread(lambda: asyncio.run(atask())),
        "carry": carried(),
    })


async def atask():
    await asyncio.sleep(0)
    return seen()


def sync(request):
    return JSONResponse(seen())


async def stream(request):
    async def chunks():
        for _ in range(2):
            yield (" ".join(map(str, seen())) + ";").encode()
            await asyncio.sleep(0)

    return StreamingResponse(chunks())


async def background(request):
    return JSONResponse("soon", background=BackgroundTask(lambda: LATER.put(seen())))


async def after_background(request):
    return JSONResponse(await asyncio.to_thread(LATER.get, timeout=10))


async def changing(request):
    before = seen()
    LANGUAGE.set("set in a request")
    with decimal.localcontext() as here:
        here.prec = 7
        await asyncio.sleep(0)
        inner = seen()
    return JSONResponse([before, inner, seen()])


app = Starlette(routes=[
    Route("/everywhere", everywhere), Route("/sync", sync), Route("/stream", stream), Route("/background", background),
    Route("/after-background", after_background), Route("/changing", changing),
])
"""


def test_what_the_import_sets_is_there_wherever_a_request_gets_to() -> None:
    with loaded(SEEN + PLACES) as module:
        found = json.loads(module.get("/everywhere").text)
        assert found == dict.fromkeys(found, RIGHT)
        assert len(found) > 15
        assert json.loads(module.get("/sync").text) == RIGHT
        assert module.get("/stream").text == "50 set at import;" * 2
        module.get("/background")
        assert json.loads(module.get("/after-background").text) == RIGHT
        assert module.call("seen") == RIGHT
        assert module.call("atask") == RIGHT


def test_what_a_request_sets_the_next_does_not_see() -> None:
    with loaded(SEEN + PLACES) as module:
        for _ in range(2):
            assert json.loads(module.get("/changing").text) == [
                RIGHT,
                [7, "set in a request"],
                [50, "set in a request"],
            ]


def test_the_base_and_another_module_see_nothing_of_it() -> None:
    plain = SEEN.replace("decimal.getcontext().prec = 50", "").replace('LANGUAGE.set("set at import")', "") + PLACES
    here = decimal.getcontext()
    before = contextvars.copy_context()
    with loaded(SEEN + PLACES, name="precise") as precise, loaded(plain, name="plain") as other:
        assert json.loads(precise.get("/sync").text) == RIGHT
        found = json.loads(other.get("/everywhere").text)
        assert found == {where: [28, "none"] for where in found}
        assert other.call("seen") == [28, "none"]
        assert decimal.getcontext() is here
    assert dict(contextvars.copy_context()) == dict(before)
    assert here.prec == 28


@pytest.mark.parametrize("is_async", [False, True])
def test_a_start_function_sets_for_all(is_async: bool) -> None:
    source = f"""
        import contextvars
        import decimal
        import threading

        LANGUAGE = contextvars.ContextVar("language", default="none")
        HEARD = []

        {"async " * is_async}def main():
            decimal.getcontext().prec = 50
            LANGUAGE.set("set at start")
            thread = threading.Thread(target=lambda: HEARD.append(LANGUAGE.get()))
            thread.start()
            thread.join()

        def seen():
            return [decimal.getcontext().prec, LANGUAGE.get(), HEARD]
    """
    with loaded(source, entry="sample:main") as module:
        assert module.call("seen") == [50, "set at start", ["set at start"]]


@pytest.mark.parametrize("make", ["def make_app():", "app = None\ndef make_app():"])
def test_a_factory_sets_for_all(make: str) -> None:
    source = f"""
import decimal
from flask import Flask

{make}
    app = Flask(__name__)
    decimal.getcontext().prec = 50

    @app.get("/")
    def third():
        return str(decimal.Decimal(1) / decimal.Decimal(3))

    return app
"""
    with loaded(source, entry="sample:make_app()") as module:
        assert len(module.get("/").text) == 52


def test_wsgi_threads_have_it_and_streams_too() -> None:
    source = """
from flask import Flask, Response
import threading

app = Flask(__name__)

@app.get("/")
def third():
    return seen()

@app.get("/stream")
def stream():
    return Response(str(seen()) for _ in range(3))

@app.get("/thread")
def thread():
    heard = []
    one = threading.Thread(target=lambda: heard.append(seen()))
    one.start()
    one.join()
    return heard

@app.get("/change")
def change():
    LANGUAGE.set("changed")
    return seen()
"""
    with loaded(SEEN + source) as module:
        for _ in range(3):
            assert json.loads(module.get("/").text) == RIGHT
            assert module.get("/stream").text == str(RIGHT) * 3
            assert json.loads(module.get("/thread").text) == [RIGHT]
            assert json.loads(module.get("/change").text) == [50, "changed"]


def test_what_is_called_when_a_module_leaves_has_it(tmp_path: Path) -> None:
    told = tmp_path / "told"
    source = f"""
import asyncio
import atexit
import koupleless
import koupleless.service
import weakref


def tell(what):
    with open({str(told)!r}, "a") as file:
        file.write(what + " " + str(seen()) + chr(10))


class Ended:
    def __call__(self, what):
        tell(what)


koupleless.on_stop(lambda: tell("stop hook"))

@koupleless.on_stop
async def stop():
    tell("async stop hook begins")
    await asyncio.sleep(0)
    tell("async stop hook ends")

atexit.register(tell, "atexit")
koupleless.service.offer([1], on_close=lambda: tell("service"))

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        tell("startup")
        LANGUAGE.set("set in the lifespan")
        await send({{"type": "lifespan.startup.complete"}})
        await receive()
        tell("shutdown")
        await send({{"type": "lifespan.shutdown.complete"}})
"""
    with loaded(SEEN + source):
        pass
    lines = told.read_text().splitlines()
    later = "[50, 'set in the lifespan']"
    assert sorted(lines) == sorted(
        [f"startup {RIGHT}", f"shutdown {later}"]
        + [
            f"{what} {RIGHT}"
            for what in ("stop hook", "async stop hook begins", "async stop hook ends", "atexit", "service")
        ]
    )


LIFESPAN = """
import decimal
from contextlib import asynccontextmanager
from contextvars import ContextVar

from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

LANGUAGE = ContextVar("language", default="none")
TOUCHED


@asynccontextmanager
async def lifespan(app):
    decimal.getcontext().prec = 50
    LANGUAGE.set("set in the lifespan")
    yield


async def seen(request):
    return JSONResponse([decimal.getcontext().prec, LANGUAGE.get()])


app = Starlette(routes=[Route("/", seen)], lifespan=lifespan)
"""


@pytest.mark.parametrize(("touched", "right"), [("", [28, "none"]), ("decimal.getcontext()", [50, "none"])])
def test_what_a_lifespan_sets_is_its_own_as_alone(touched: str, right: list[object]) -> None:
    with loaded(LIFESPAN.replace("TOUCHED", touched)) as module:
        assert json.loads(module.get("/").text) == right


@pytest.fixture
def libraries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of what the base has installed."""
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("ctxlib")]:
        del sys.modules[name]


LIBRARY = """
from contextvars import ContextVar

STATE = ContextVar("ctxlib_state")
STATE.set({"made": "at import"})
"""
USER = """
import ctxlib
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

AT_IMPORT = ctxlib.STATE.get()

def sync(request):
    return JSONResponse(ctxlib.STATE.get())

app = Starlette(routes=[Route("/", sync)])
"""


def test_what_a_library_set_when_the_base_imported_it_is_there_in_modules(libraries: Path) -> None:
    (libraries / "ctxlib.py").write_text(LIBRARY)
    import ctxlib  # type: ignore[import-not-found]

    assert ctxlib.STATE.get() == {"made": "at import"}
    for name in ("one", "two"):
        with loaded(USER, name=name) as module:
            assert json.loads(module.get("/").text) == {"made": "at import"}


def test_what_a_library_sets_that_a_module_needed_first_is_there_in_all(libraries: Path) -> None:
    """The base has it installed and has not imported it; however it is held then."""
    (libraries / "ctxlib.py").write_text(LIBRARY)
    with loaded(USER, name="one") as one, loaded(USER, name="two") as two:
        assert json.loads(one.get("/").text) == {"made": "at import"}
        assert json.loads(two.get("/").text) == {"made": "at import"}


def test_a_library_of_the_base_is_not_imported_with_the_precision_of_a_module(libraries: Path) -> None:
    (libraries / "ctxlib.py").write_text("import ctxlib_inner\nTHIRD = ctxlib_inner.THIRD\n")
    (libraries / "ctxlib_inner.py").write_text("import decimal\nTHIRD = decimal.Decimal(1) / decimal.Decimal(3)\n")
    import ctxlib

    del sys.modules["ctxlib_inner"]
    (libraries / "ctxlib_late.py").write_text("def load():\n    import ctxlib_inner\n    return ctxlib_inner.THIRD\n")
    import ctxlib_late  # type: ignore[import-not-found]

    assert ctxlib_late.load.__globals__["__name__"] == "ctxlib_late"
    assert len(str(ctxlib.THIRD)) == 30
    source = """
        import decimal
        decimal.getcontext().prec = 50
        import ctxlib_late

        def third():
            return str(ctxlib_late.load())

        def own():
            return str(decimal.Decimal(1) / decimal.Decimal(3))
    """
    with loaded(source) as module:
        assert len(module.call("own")) == 52
        assert len(module.call("third")) in (30, 52)  # the library's own copy belongs to the module


def test_the_precision_of_the_base_is_a_copy(libraries: Path) -> None:
    """A base that has set its own: modules start from that, and change only theirs."""
    program = f"""
        import decimal
        decimal.getcontext().prec = 40
        from koupleless.testing import loaded

        with loaded({SEEN.replace("decimal.getcontext().prec = 50", "") + PLACES!r}) as module:
            print(module.get("/sync").text)
        with loaded({SEEN + PLACES!r}) as module:
            print(module.get("/sync").text)
        print(decimal.getcontext().prec)
    """
    done = subprocess.run(
        [sys.executable, "-P", "-c", textwrap.dedent(program)], capture_output=True, text=True, timeout=100, check=False
    )
    assert done.stdout.splitlines() == ['[40,"set at import"]', '[50,"set at import"]', "40"], done.stderr
