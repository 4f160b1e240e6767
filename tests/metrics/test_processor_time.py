"""Processor time of a module, wherever its code runs: on the loop, on threads of its own, on shared ones."""

from __future__ import annotations

import asyncio
import sys
import time
from typing import Any

import pytest
from tests.metrics.conftest import APP, Scraped, Small

from koupleless import traffic as traffics
from koupleless.traffic import Traffic

BURN = """
import time
def burn(seconds):
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        sum(range(1000))
"""
CASES = {
    "on the loop": BURN
    + APP.replace(
        "    status = int", "    burn(0.1)\n    await asyncio.sleep(0)\n    burn(0.1)\n    status = int"
    ).replace("async def app", "import asyncio\nasync def app"),
    "on threads of WSGI": BURN
    + """
def app(environ, start_response):
    burn(0.2)
    start_response("200 OK", [])
    return [b""]
""",
    "on a thread of anyio": BURN
    + """
from fastapi import FastAPI
app = FastAPI()
@app.get("/{rest:path}")
def page():
    burn(0.2)
""",
    "on a thread of asyncio": BURN
    + APP.replace("    status = int", "    await asyncio.to_thread(burn, 0.2)\n    status = int").replace(
        "async def app", "import asyncio\nasync def app"
    ),
    "on a thread of its own": BURN
    + APP.replace(
        "    status = int",
        "    t = threading.Thread(target=burn, args=(0.2,)); t.start()\n"
        "    while t.is_alive():\n        await asyncio.sleep(0.01)\n    status = int",
    ).replace("async def app", "import asyncio, threading\nasync def app"),
    "on a bare thread": BURN
    + APP.replace(
        "    status = int",
        "    done = []\n    _thread.start_new_thread(lambda: (burn(0.2), done.append(1)), ())\n"
        "    while not done:\n        await asyncio.sleep(0.01)\n    await asyncio.sleep(0.05)\n    status = int",
    ).replace("async def app", "import asyncio, _thread\nasync def app"),
}


def seconds() -> float:
    return Scraped().value("koupleless_biz_cpu_seconds_total", biz="one", version="1") or 0.0


@pytest.mark.parametrize("case", CASES)
def test_processor_time_is_the_module_s(small: Small, case: str) -> None:
    if case == "on threads of WSGI" and sys.platform != "linux":
        pytest.skip("the system does not tell the time of other threads")
    biz = small.install(CASES[case])
    small.ask("/one/200")
    before = seconds()
    assert small.ask("/one/200").status_code == 200
    spent = seconds() - before
    assert 0.19 < spent < 0.3
    small.leave(biz)


def test_time_that_is_only_waited_is_not_counted(small: Small) -> None:
    source = APP.replace("    status = int", "    time.sleep(0.2)\n    await asyncio.sleep(0.2)\n    status = int")
    small.install("import asyncio, time\n" + source)
    small.ask("/one/200")
    assert seconds() < 0.1


def test_a_thread_s_time_is_there_while_it_runs_and_after_its_end(small: Small) -> None:
    source = BURN + "import threading\ngo_on = threading.Event()\ndone = threading.Event()\n"
    source += "def work():\n    burn(0.2)\n    done.set()\n    go_on.wait()\n"
    source += "thread = threading.Thread(target=work)\nthread.start()\ndone.wait(20)\n"
    source += "import koupleless\nkoupleless.on_stop(go_on.set)\n"
    small.install(source + APP.replace("    status = int", "    go_on.set(); thread.join(5)\n    status = int"))
    if sys.platform == "linux":
        assert 0.19 < seconds() < 0.3
    small.ask("/one/200")
    assert 0.19 < seconds() < 0.4


# --- the lot ---------------------------------------------------------------------------------------------------------


def serve(traffic: Traffic, app: Any, times: int) -> int:
    """Requests as a gate makes them; returns how many were measured."""
    measured = 0

    async def run() -> None:
        nonlocal measured
        for _ in range(times):
            traffic.begun += 1
            its = app
            if traffic.begun >= traffic.due:
                measured += 1
                its = traffic.measured(app)
            await its({}, None, None)

    asyncio.run(run())
    return measured


async def nothing(connection: Any, receive: Any, send: Any) -> None:
    return None


def test_few_requests_are_all_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    traffic: Any = None
    monkeypatch.setattr(traffics, "monotonic", lambda: traffic.begun / 90 if traffic else 0.0)
    traffic = Traffic()
    assert serve(traffic, nothing, 1_000) == 1_000


def test_of_many_requests_some_stand_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = 0.0

    def tick() -> float:
        nonlocal clock
        clock += 0.0002  # each step takes a fifth of a millisecond
        return clock

    monkeypatch.setattr(traffics, "thread_time", tick)
    monkeypatch.setattr(traffics, "monotonic", lambda: traffic.begun / 2_000 if traffic else 0.0)
    monkeypatch.setattr(traffics, "MEASURED", 100)
    monkeypatch.setattr(traffics, "_WINDOW", 50)
    traffics._lot.seed(1)
    traffic: Any = None
    traffic = Traffic()
    measured = serve(traffic, nothing, 50_000)

    assert 50 + 1_500 < measured < 50 + 3_500  # all of the first ones, then one in twenty
    assert traffic.meter.read(0) == pytest.approx(50_000 * 2 * 0.0002, rel=0.05)


def test_a_measured_request_is_as_any_other() -> None:
    seen: list[object] = []

    async def app(connection: Any, receive: Any, send: Any) -> None:
        seen.append(await receive())
        try:
            await asyncio.sleep(10)
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise ValueError("on purpose") from None
        finally:
            seen.append("ended")

    async def receive() -> str:
        await asyncio.sleep(0)
        return "received"

    async def run() -> None:
        task = asyncio.ensure_future(Traffic().measured(app)({}, receive, None))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(ValueError, match="on purpose"):
            await task

    asyncio.run(run())
    assert seen == ["received", "cancelled", "ended"]


def test_the_time_shown_never_goes_back() -> None:
    traffic = Traffic()
    assert traffic.meter.read(2.0) == 2.0
    assert traffic.meter.read(0.5) == 2.0
    traffic.meter.add_work(3.0)
    assert traffic.meter.read(0.5) == 3.5


def test_a_lot_costs_less_than_a_reading() -> None:
    """The threshold is compared in the request; nothing is drawn, and no clock read, for a request not measured."""
    traffic = Traffic()
    traffic.meter._stride, traffic.meter._since = 1_000, time.monotonic()
    measured = serve(traffic, nothing, 2_000)
    assert 1 <= measured <= 20
