"""Threads, executors, tasks, timers and what hangs on the base's event loop."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.ownership.conftest import Trial

VARIABLE: contextvars.ContextVar[Any] = contextvars.ContextVar("row", default="base")


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    """An executor of the base with one thread, which runs."""
    with ThreadPoolExecutor(1) as made:
        made.submit(int).result()
        yield made


@pytest.fixture
def beat() -> Iterator[threading.Event]:
    """Set by a timer of the base, when the test has ended at the latest."""
    heard = threading.Event()
    timer = threading.Timer(0.001, heard.set)
    timer.start()
    yield heard
    assert heard.wait(30)
    timer.join()


THREADS = {
    "a thread that ends when its event is set": (
        """
        import atexit, threading
        stop = threading.Event()
        thread = threading.Thread(target=lambda: (K, stop.wait()), daemon=True)
        thread.start()
        atexit.register(stop.set)
        """,
        "atexit",
    ),
    "a timer": ("import threading\nthreading.Timer(3600, reach).start()", "timer"),
    "a timer that renews itself": (
        """
        import threading
        def again():
            shared.VARIABLE, K
            timer = threading.Timer(0.001, again)
            timer.start()
        again()
        """,
        "timer",
    ),
    "an executor of its own": (
        "from concurrent.futures import ThreadPoolExecutor\np = ThreadPoolExecutor(2)\np.submit(reach)\nshared.p = p",
        "executor",
    ),
    "work waiting in an executor of the base": (
        "import threading\nheld = threading.Event()\nshared.pool.submit(held.wait, 0.1)\nshared.pool.submit(reach)",
        "executor task",
    ),
}


@pytest.mark.parametrize(("source", "kind"), THREADS.values(), ids=list(THREADS))
def test_threads(trial: Trial, pool: ThreadPoolExecutor, beat: threading.Event, source: str, kind: str) -> None:
    mine = threading.Thread(target=beat.wait)
    mine.start()
    report = trial(source, pool=pool, VARIABLE=VARIABLE)
    assert report.undone.get(kind, 0) >= (kind != "executor task")
    assert pool.submit(lambda: 1).result(30) == 1
    mine.join(30)
    assert not mine.is_alive()
    vars(trial.shared).pop("p", None)


# --- values of context variables -------------------------------------------------------------------------------------


CONTEXT = {
    "set while it is imported": "shared.VARIABLE.set(K())",
    "set on the base's loop": "async def main():\n    shared.VARIABLE.set(K())",
    "set in a callback of the loop": "import asyncio\nasync def main():\n    done = asyncio.Event()\n"
    "    asyncio.get_running_loop().call_soon(lambda: (shared.VARIABLE.set(K()), done.set()))\n"
    "    await done.wait()",
    "set in an executor of the base": "shared.pool.submit(shared.VARIABLE.set, K()).result()",
    "set in the loop's default executor": "import asyncio\nasync def main():\n"
    "    await asyncio.get_running_loop().run_in_executor(None, lambda: shared.VARIABLE.set(K()))\n"
    "    await asyncio.to_thread(shared.VARIABLE.set, K())",
}


@pytest.mark.parametrize("source", CONTEXT.values(), ids=list(CONTEXT))
def test_values_of_context_variables(trial: Trial, pool: ThreadPoolExecutor, source: str) -> None:
    token = VARIABLE.set("test")
    pool.submit(VARIABLE.set, "pool").result()
    trial(source, VARIABLE=VARIABLE, pool=pool)
    assert VARIABLE.get() == "test"
    assert pool.submit(VARIABLE.get).result() == "pool"
    assert trial.on_loop(VARIABLE.get) == "test"
    VARIABLE.reset(token)


# --- the event loop --------------------------------------------------------------------------------------------------


LOOP = {
    "a task": ("asyncio.create_task(sleep())", "asyncio task"),
    "a task made directly": ("shared.kept.add(asyncio.Task(sleep()))", "asyncio task"),
    "a future with a callback": (
        "f = loop.create_future()\n    f.add_done_callback(reach)\n    globals()['f'] = f",
        "",
    ),
    "call_later": ("loop.call_later(3600, reach)", "loop timer"),
    "call_at": ("loop.call_at(loop.time() + 3600, reach)", "loop timer"),
    "a cancelled timer": ("loop.call_later(3600, reach).cancel()", ""),
    "call_soon": ("loop.call_soon(reach)", ""),
    "an exception handler": ("loop.set_exception_handler(reach)", "loop exception handler"),
    "a task group of its own": ("asyncio.create_task(grouped())", "asyncio task"),
    "a server": ("globals()['s'] = await asyncio.start_server(reach, '127.0.0.1', 0)", "transport"),
    "an asynchronous generator that is suspended": ("g = generate()\n    globals()['g'] = g\n    await anext(g)", ""),
    "a contextvar in a task": ("shared.VARIABLE.set(K())\n    asyncio.create_task(sleep())", "asyncio task"),
}


@pytest.mark.parametrize(("body", "kind"), LOOP.values(), ids=list(LOOP))
def test_the_loop(trial: Trial, body: str, kind: str) -> None:
    async def beat() -> str:
        await ended.wait()
        return "base"

    def begin() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(handler)
        mine.append(loop.create_task(beat()))
        loop.call_later(0.001, fired.set)

    def handler(*_: Any) -> None:
        return None

    async def finish() -> str:
        ended.set()
        asyncio.get_running_loop().set_exception_handler(None)
        return await mine[0]

    mine: list[asyncio.Task[str]] = []
    fired = threading.Event()
    ended = asyncio.Event()
    trial.on_loop(begin)
    source = f"""
import asyncio
async def sleep():
    await asyncio.sleep(3600)
    return K
async def grouped():
    async with asyncio.TaskGroup() as group:
        group.create_task(sleep())
async def generate():
    yield K
    yield K
async def main():
    loop = asyncio.get_running_loop()
    {body}
    await asyncio.sleep(0)
"""
    kept: set[Any] = set()
    identity = trial.install(source, VARIABLE=VARIABLE, kept=kept)
    kept.clear()
    report = trial.leave(identity)
    assert report.clean, report.summary()
    assert not kind or report.undone[kind] >= 1
    assert fired.wait(30)
    assert trial.on_loop(lambda: asyncio.get_running_loop().get_exception_handler()) is handler
    assert trial.stage.call(finish, timeout_s=30) == "base"
