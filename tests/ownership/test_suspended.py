"""What is suspended when its biz leaves: tasks, coroutines, generators and async generators, whatever they catch."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from tests.conftest import until

if TYPE_CHECKING:
    from tests.ownership.conftest import LoopThread, TinyBiz

SLEEP = "await asyncio.sleep(0.01)"


def loop_around(*lines: str, caught: str = "BaseException", rest: str = "pass") -> str:
    body = "\n            ".join(lines)
    return f"""
async def main():
    while True:
        try:
            {body}
        except {caught}:
            {rest}
"""


CAUGHT = {
    "ended when task 'it' at /biz/": loop_around(
        SLEEP, caught="asyncio.CancelledError", rest="caught.append(1)\n            if len(caught) > 1: raise"
    ),
    "was interrupted": loop_around(SLEEP, caught="asyncio.CancelledError"),
}
INNER = "async def inner():" + loop_around(SLEEP).partition(":")[2]
CATCH_EVERYTHING = [
    loop_around(SLEEP),
    loop_around("await asyncio.get_running_loop().create_future()"),
    loop_around("await asyncio.sleep(0)"),
    f"{INNER}async def middle():\n    await inner()\n" + loop_around("await middle()"),
    INNER + loop_around("await asyncio.create_task(inner())"),
    INNER + loop_around("it = inner()", "await it"),
    "async def numbers():"
    + loop_around("yield 1", SLEEP).partition(":")[2]
    + loop_around("async for _ in numbers(): pass"),
]


def start(loop: LoopThread, biz: TinyBiz, source: str, **given: Any) -> None:
    def run() -> None:
        biz.run(source, asyncio=asyncio, **given)

    loop.run(run, scope=biz.scope)


async def turns() -> int:
    """Count how often the loop runs what is ready in a while."""
    ends, count = time.monotonic() + 0.1, 0
    while time.monotonic() < ends:
        await asyncio.sleep(0.02)
        count += 1
    return count


def make_task(loop: LoopThread, biz: TinyBiz, source: str, **given: Any) -> None:
    """Have a task of the biz run ``main``, until it is in the middle of it."""
    start(loop, biz, f"{source}\nit = asyncio.get_running_loop().create_task(main(), name='it')", **given)
    loop.run(asyncio.sleep, 0.03)


@pytest.mark.parametrize("said", CAUGHT)
def test_a_task_that_catches_its_cancellation_is_told_again(biz: TinyBiz, loop: LoopThread, said: str) -> None:
    make_task(loop, biz, CAUGHT[said], caught=[])
    report = biz.leave(1.0)
    assert report.clean, report.summary()
    assert [said in ended for ended in report.ended] == [True], report.ended
    assert not loop.run(others)


def test_a_task_that_catches_everything_is_finalised_on_its_loop(
    biz: TinyBiz, loop: LoopThread, caplog: pytest.LogCaptureFixture
) -> None:
    for source in CATCH_EVERYTHING:
        make_task(loop, biz, source)
    report = biz.leave(1.0)
    assert report.clean, report.summary()
    assert all("was finalised, since task " in ended for ended in report.ended), report.ended
    assert " ".join(report.ended).count("task 'it' at /biz/") == len(CATCH_EVERYTHING)
    assert not loop.run(others)
    assert loop.run(turns)
    gc.collect()
    assert [record.getMessage() for record in caplog.records if record.name == "asyncio"] == []


async def others() -> set[Any]:
    return asyncio.all_tasks() - {asyncio.current_task()}


def test_a_task_that_is_interrupted_can_still_wait_for_its_end(biz: TinyBiz, loop: LoopThread) -> None:
    ended: list[str] = []
    cleaning = loop_around(SLEEP, caught="asyncio.CancelledError").replace("main", "inner")
    source = f"""
{cleaning}
async def main():
    try:
        await inner()
    finally:
        await asyncio.sleep(0.01)
        ended.append(reach().__name__)
"""
    make_task(loop, biz, source, ended=ended)
    report = biz.leave(2.0)
    assert report.clean, report.summary()
    assert ended == ["K"], report


def test_what_cannot_be_ended_does_not_run_any_more(
    biz: TinyBiz, loop: LoopThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the interpreter does not let anybody finalise: the task is named, and its loop has nothing to do for it."""
    monkeypatch.setattr("koupleless.recorders.loops.stubborn.finalise", lambda _: False)
    beats: list[int] = []
    make_task(loop, biz, loop_around("beats.append(1)", SLEEP), beats=beats)
    (failure,) = biz.undo(0.8)
    assert "task 'it' at /biz/" in str(failure)
    assert "did not end when it was cancelled" in str(failure)
    count = len(beats)
    assert loop.run(turns)
    assert len(beats) == count


GENERATORS = {
    "waits for a value": ("yield 1", ""),
    "has something to close": (
        """
    try:
        yield 1
    finally:
        await asyncio.sleep(0.01)
        ended.append(1)
""",
        "",
    ),
    "fails at its end": (
        """
    try:
        yield 1
    finally:
        raise ValueError('no')
""",
        "close numbers: ValueError: no",
    ),
    "yields once more": (
        """
    try:
        yield 1
    finally:
        yield 2
""",
        "async generator ignored GeneratorExit",
    ),
    "waits for ever": (
        """
    try:
        yield 1
    except BaseException:
        pass
    while True:
        try:
            beats.append(1)
            await asyncio.sleep(0.01)
        except BaseException:
            pass
""",
        "",
    ),
}


@pytest.mark.parametrize("kind", GENERATORS)
def test_an_async_generator_is_closed_on_its_loop(biz: TinyBiz, loop: LoopThread, kind: str) -> None:
    body, failure = GENERATORS[kind]
    ended: list[int] = []
    beats: list[int] = []
    source = (
        f"async def numbers():\n    {body}\nasync def main():\n    global it\n    it = numbers()\n    await anext(it)"
    )
    start(loop, biz, f"{source}\nmade = asyncio.get_running_loop().create_task(main())", ended=ended, beats=beats)
    until(lambda: not loop.run(others))
    report = biz.leave(0.8)
    assert failure or report.undone["async generator"] == 1
    assert not report.held, report.summary()
    assert [failure in said for said in report.failures] == ([True] if failure else []), report.failures
    assert not loop.run(others)
    count = len(beats)
    assert loop.run(turns)
    assert len(beats) == count
    assert ended == ([1] if kind == "has something to close" else [])


def test_an_async_generator_of_the_base_goes_on(biz: TinyBiz, loop: LoopThread) -> None:
    async def numbers() -> Any:
        yield 1
        yield 2

    it = numbers()
    assert loop.run(anext, it) == 1
    start(loop, biz, "it = 1")
    assert biz.leave().clean
    assert loop.run(anext, it) == 2
    loop.run(it.aclose)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(
    "source",
    [
        loop_around(SLEEP) + "it = main()\nit.send(None)",
        loop_around("await asyncio.get_running_loop().create_future()") + "it = main()\nit.send(None)",
        loop_around("yield 1").removeprefix("\nasync ") + "it = main()\nnext(it)",
    ],
    ids=["coroutine", "coroutine that waits for a future", "generator"],
)
def test_what_no_task_runs_ends_where_it_is_collected(
    biz: TinyBiz, loop: LoopThread, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    """Away from any loop it would be told again and again that there is none, and catch that, too."""
    monkeypatch.setattr("sys.unraisablehook", lambda _: None)
    start(loop, biz, source)
    left: list[Any] = []
    leaving = threading.Thread(target=lambda: left.append(biz.leave(1.0)), daemon=True)
    leaving.start()
    leaving.join(10)
    assert not leaving.is_alive()
    assert not left[0].held, left[0].summary()
