"""Requests of a module that is counted beside requests of the same module that is not.

``python bench/metrics.py [SECONDS]``, 0.4 per server and round unless given. Twice over, as in ``throughput.py``: the
ASGI call alone, and a real uvicorn with keep-alive clients. The counted server is scraped once a second meanwhile,
fifteen times as often as by a usual Prometheus. And the time of a scrape with 500 modules.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from harness import Row, report
from starlette.applications import Starlette
from throughput import CONNECTIONS, Served, application, call_rate, served_rate, take_turns

from koupleless.adapters.prometheus import publish
from koupleless.biz import BizId
from koupleless.context import Scope
from koupleless.metrics.accounts import Accounts
from koupleless.metrics.exposition import expose
from koupleless.metrics.families import Metrics
from koupleless.router.asgi import Front
from koupleless.router.gate import Gate
from koupleless.router.table import Route
from koupleless.traffic import UNCOUNTED, Traffic

if TYPE_CHECKING:
    from collections.abc import Iterable

    from koupleless.descriptions import BizInfo
    from koupleless.metrics.families import Left

ROUNDS: Final = 31
MODULES: Final = 500
BUDGET: Final = 0.95
SCRAPE_MS: Final = 250.0


class Numbers:
    """The accounts of a container without lives."""

    def __init__(self) -> None:
        self.accounts = Accounts()

    def bizs(self) -> Iterable[BizInfo]:
        return ()

    def zombies(self) -> Iterable[Left]:
        return ()


def _front(traffic: Traffic, **options: Any) -> Front:
    biz = BizId.of("hello", "1.0")
    scope = Scope(biz)
    scope.variables.settle()  # the module has started
    made = Front(Starlette(), **options)
    made.swap(made.table.with_route(Route.to(Gate(scope, application(), traffic=traffic), path="/hello", biz=biz)))
    return made


def counted(*, is_scraped: bool = False) -> Front:
    """A front with everything on."""
    numbers = Numbers()
    publish(Metrics(numbers, asyncio.new_event_loop).read)

    def scrape() -> None:
        while True:
            expose("")
            time.sleep(1)

    def begin(_: asyncio.AbstractEventLoop) -> None:
        threading.Thread(target=scrape, daemon=True).start()

    return _front(numbers.accounts.traffic_of(BizId.of("hello", "1.0")), on_startup=begin if is_scraped else None)


def scrape_ms() -> float:
    """The time of a scrape with many modules."""
    numbers = Numbers()
    for number in range(MODULES):
        numbers.accounts.traffic_of(BizId.of(f"m{number}", "1.0")).count("GET", 200, 0.01, has_failed=False)
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
    ours, peer = (f"{statistics.median(rates[name]):,.0f}/s" for name in ("counted", "uncounted"))
    return Row(f"{what}: counted, beside uncounted", ours, peer, f"{ratio:.3f}", f">= {BUDGET:g}", ratio >= BUDGET)


def main(seconds: float) -> None:
    fronts = {"counted": counted(), "uncounted": _front(UNCOUNTED)}
    called = asyncio.run(
        take_turns({name: partial(call_rate, app, "/hello/x") for name, app in fronts.items()}, rounds=ROUNDS)
    )
    servers = {"counted": Served(counted(is_scraped=True)), "uncounted": Served(_front(UNCOUNTED))}
    try:
        served = asyncio.run(
            take_turns(
                {name: partial(served_rate, server.port, "/hello/x", seconds) for name, server in servers.items()},
                rounds=ROUNDS,
            )
        )
    finally:
        for server in servers.values():
            server.stop()
    took_ms = scrape_ms()
    rows = [
        _row("ASGI call", called),
        _row("uvicorn", served),
        Row(
            f"scrape, {MODULES} modules", f"{took_ms:.0f} ms", budget=f"<= {SCRAPE_MS:g} ms", kept=took_ms <= SCRAPE_MS
        ),
    ]
    report(
        "metrics",
        rows,
        {"calls_per_s": called, "answers_per_s": served, "connections": CONNECTIONS, "rounds": ROUNDS},
    )


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 0.4)
