"""The arklet answers whatever else the process does: installs that hang, a busy loop, a blocked one."""

from __future__ import annotations

import asyncio
import statistics
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

BUDGET_S = 0.05
ROUNDS = 15


def median_answer_s(wire: Any) -> float:
    wire.command("health")
    times = []
    for _ in range(ROUNDS):
        begin = time.perf_counter()
        assert wire.command("health")["code"] == "SUCCESS"
        times.append(time.perf_counter() - begin)
    return statistics.median(times)


@pytest.fixture
def application_loop() -> Iterator[asyncio.AbstractEventLoop]:
    """The loop of an application, running on a thread as it would in its server."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield loop
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


def test_health_answers_while_more_installs_hang_than_there_are_workers(
    wire: Any, container: Any, pause: Callable[[], Any], in_background: Callable[..., Any]
) -> None:
    held = pause()
    starting = threading.Semaphore(0)

    def hang() -> None:
        starting.release()
        held()

    urls = [container.offer(f"slow{number}:1", on_start=hang) for number in range(60)]
    calls = [in_background(lambda url=url: wire.command("installBiz", {"bizUrl": url})) for url in urls]
    for _ in range(50):
        assert starting.acquire(timeout=10)

    answer_s = median_answer_s(wire)
    states = {biz["bizState"] for biz in wire.command("queryAllBiz")["data"]}
    held.let_go()

    assert answer_s < BUDGET_S
    assert states == {"RESOLVED"}
    assert {call()["code"] for call in calls} == {"SUCCESS"}


def test_health_answers_while_the_applications_loop_is_blocked(
    wire: Any, application_loop: asyncio.AbstractEventLoop
) -> None:
    may_go = threading.Event()
    application_loop.call_soon_threadsafe(may_go.wait)

    answer_s = median_answer_s(wire)
    may_go.set()

    assert answer_s < BUDGET_S


def test_health_answers_while_the_application_computes(wire: Any, application_loop: asyncio.AbstractEventLoop) -> None:
    is_enough = threading.Event()

    def compute() -> None:
        while not is_enough.is_set():
            sum(range(1000))

    application_loop.call_soon_threadsafe(compute)
    answer_s = median_answer_s(wire)
    is_enough.set()

    # Every hand-over of the interpreter costs up to its switch interval of 5 ms; this client needs some of them too.
    assert answer_s < 4 * BUDGET_S
