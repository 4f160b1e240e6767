"""Requests of a module that is counted beside requests of the same module that is not.

``python bench/metrics.py [SECONDS]``, 0.4 per module and round unless given. Twice over, as in ``throughput.py``: the
ASGI call alone, and a real uvicorn with keep-alive clients. Both modules are in one process, since two processes of the
same program differ by more than is measured here, and are asked in turns. Rates are by processor time, which others on
the machine do not take. And the time of a scrape, with one module and with 500.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from harness import Row, report
from starlette.applications import Starlette
from throughput import CONNECTIONS, Served, application, call_rate, served_rate, take_turns

from koupleless.adapters.prometheus import publish
from koupleless.biz import BizId
from koupleless.context import Scope
from koupleless.descriptions import BizInfo
from koupleless.health.watch import LoopWatch
from koupleless.metrics.accounts import Accounts
from koupleless.metrics.exposition import expose
from koupleless.metrics.families import Metrics
from koupleless.router.asgi import Front
from koupleless.router.gate import Gate
from koupleless.router.table import Route
from koupleless.traffic import UNCOUNTED, Traffic

if TYPE_CHECKING:
    from collections.abc import Iterable

    from koupleless.metrics.families import Left

ROUNDS: Final = 31
BUDGET: Final = 0.95
SCRAPE_MS: Final = {1: 10.0, 500: 400.0}
"""Milliseconds for a scrape, by the number of modules."""
PATHS: Final = {"counted": "/counted/x", "uncounted": "/uncounted/x"}


def front() -> Front:
    """A front with two modules, of which one is counted."""
    made = Front(Starlette())
    for name, traffic in (("counted", Traffic()), ("uncounted", UNCOUNTED)):
        biz = BizId.of(name, "1.0")
        scope = Scope(biz)
        scope.variables.settle()  # the module has started
        gate = Gate(scope, application(), traffic=traffic)
        made.swap(made.table.with_route(Route.to(gate, path=f"/{name}", biz=biz)))
    return made


def _processor_s(pid: int) -> float:
    """The processor time of all living threads of a process."""
    return sum(int((task / "schedstat").read_text().split()[0]) for task in Path(f"/proc/{pid}/task").iterdir()) / 1e9


async def _served_rate(server: Served, path: str, seconds: float) -> float:
    before = _processor_s(server.pid)
    rate = await served_rate(server.port, path, seconds)
    warm_up = min(0.1, seconds / 4)
    return rate * (seconds + warm_up) / (_processor_s(server.pid) - before)


class Numbers:
    """The accounts of a container without lives."""

    def __init__(self) -> None:
        self.accounts = Accounts()
        self.base = BizInfo.of_base(BizId.of("base", "1.0.0"))
        self.watch = LoopWatch()

    def bizs(self) -> Iterable[BizInfo]:
        return ()

    def zombies(self) -> Iterable[Left]:
        return ()


def scrape_ms(modules: int) -> float:
    """The time of a scrape with so many modules."""
    numbers = Numbers()
    for number in range(modules):
        numbers.accounts.traffic_of(BizId.of(f"m{number}", "1.0")).count("GET", 200, 0.01, False)
    end = publish(Metrics(numbers, asyncio.new_event_loop).read)
    times = []
    for _ in range(11):
        begin = time.perf_counter()
        expose("")
        times.append((time.perf_counter() - begin) * 1_000)
    end()
    return statistics.median(times)


def _row(what: str, rates: dict[str, list[float]]) -> Row:
    ratio = statistics.median(a / b for a, b in zip(rates["counted"], rates["uncounted"], strict=True))
    ours, peer = (f"{statistics.median(rates[name]):,.0f}/s" for name in PATHS)
    return Row(f"{what}: counted, beside uncounted", ours, peer, f"{ratio:.3f}", f">= {BUDGET:g}", ratio >= BUDGET)


def main(seconds: float) -> None:
    app = front()
    called = asyncio.run(
        take_turns({name: partial(call_rate, app, path) for name, path in PATHS.items()}, rounds=ROUNDS)
    )
    server = Served(front())
    try:
        served = asyncio.run(
            take_turns(
                {name: partial(_served_rate, server, path, seconds) for name, path in PATHS.items()}, rounds=ROUNDS
            )
        )
    finally:
        server.stop()
    rows = [_row("ASGI call", called), _row("uvicorn", served)]
    for modules, budget in SCRAPE_MS.items():
        took = scrape_ms(modules)
        rows.append(Row(f"scrape, modules: {modules}", f"{took:.1f} ms", "", "", f"<= {budget:g} ms", took <= budget))
    details = {"calls_per_s": called, "answers_per_s": served, "connections": CONNECTIONS, "rounds": ROUNDS}
    report("metrics", rows, details)


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 0.4)
