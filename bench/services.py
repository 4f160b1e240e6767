"""The price of a call through a service reference, beside the same call made directly, with 1, 50 and 200 modules.

``python bench/services.py [SOURCES ...]``: each module offers one service, and the module in the middle is called
without ``biz=``, by the base and by another module: a method, a method that the caller has kept, and the service
itself. Direct and referred calls are timed in turns, in processor time of the thread; a figure is the median of the
differences. ``SOURCES`` are ``src`` directories of other checkouts, measured beside this one in turns.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from harness import Row, report

if TYPE_CHECKING:
    from collections.abc import Callable

MODULES: Final = (1, 50, 200)
ROUNDS: Final = 40
CALLS: Final = 5_000
TURNS: Final = 3
BUDGET_US: Final = 1.0
SPREAD: Final = 1.15
"""How much dearer a call may be with the most modules than with one: within the noise of two runs."""

SERVICE: Final = """
from koupleless.service import offer

class Service:
    def echo(self, x):
        return x

    def __call__(self, x):
        return x

    def itself(self):
        return self

offer(Service(), name={name!r})
"""
CALLED: Final = {"a method": "service.echo(1)", "a method that is kept": "echo(1)", "the service": "service(1)"}


def microseconds(statement: str, service: Any) -> float:
    """One call. The collector stays on: a module may not turn it off, as ``timeit`` does."""
    variables = {"service": service, "echo": service.echo, "clock": time.thread_time}
    exec(f"def timed(calls):\n begin = clock()\n for _ in calls:\n  {statement}\n return clock() - begin", variables)
    timed: Callable[[Any], float] = variables["timed"]
    calls = max(5, min(CALLS, int(0.01 / (timed(range(5)) / 5))))
    return timed(range(calls)) / calls * 1e6


def measure() -> dict[str, dict[str, float]]:
    """(what is called, by whom) -> number of modules -> microseconds above a direct call."""
    from koupleless.artifact.build import Options, build_file  # noqa: PLC0415 - of the sources that are measured
    from koupleless.container.host import Host  # noqa: PLC0415
    from koupleless.context import entered  # noqa: PLC0415

    found: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        host = Host.make(directory / "store")
        container, services = host.container, host.services
        installed = 0
        for modules in MODULES:
            for number in range(installed, modules):
                (directory / f"m{number}.py").write_text(SERVICE.format(name=f"service{number}"), encoding="utf-8")
                artefact = build_file(directory / f"m{number}.py", Options(out=directory)).path
                container.install(container.prepare(artefact.as_uri()))
            installed = modules
            reference = services.use(f"service{modules // 2}")
            service = reference.itself()
            caller = container.scope_of(container.bizs()[-1].id)
            callers = {"the base": None} if modules == 1 else {"the base": None, "another module": caller}
            for by, scope in callers.items():
                with entered(scope):
                    for what, statement in CALLED.items():
                        over = [
                            -microseconds(statement, service) + microseconds(statement, reference)
                            for _ in range(ROUNDS)
                        ]
                        found.setdefault(f"{what}, by {by}", {})[str(modules)] = statistics.median(over)
        container.close()
    return found


def elsewhere(sources: str) -> dict[str, dict[str, float]]:
    """Measure the package of ``sources``, in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": sources}
    command = [sys.executable, __file__, "--measure"]
    result = subprocess.run(command, stdout=subprocess.PIPE, check=True, env=environment)
    found: dict[str, dict[str, float]] = json.loads(result.stdout.splitlines()[-1])
    return found


def main(others: list[str]) -> None:
    """Measure this checkout, beside others, and report."""
    ours = str(Path(__file__).parent.parent / "src")
    turns: dict[str, list[Any]] = {source: [] for source in (ours, *others)}
    for _ in range(TURNS):
        for source, results in turns.items():
            results.append(elsewhere(source))

    def median(source: str, figure: str, modules: str) -> float:
        median: float = statistics.median(found[figure][modules] for found in turns[source])
        return median

    rows = []
    for figure, by_modules in turns[ours][0].items():
        few = min(by_modules, key=int)
        for modules in by_modules:
            over = median(ours, figure, modules)
            beside = ", ".join(f"+{median(source, figure, modules):.2f} us" for source in others)
            growth = over / median(ours, figure, few)
            is_kept = over <= BUDGET_US and growth <= SPREAD
            label = f"{figure}, {modules} offering"
            rows.append(Row(label, f"+{over:.2f} us", beside, f"{growth:.2f}", f"<= {BUDGET_US:g} us", is_kept))
    report("services", rows, {"microseconds": turns})


if __name__ == "__main__":
    if sys.argv[1:] == ["--measure"]:
        print(json.dumps(measure()))
    else:
        main(sys.argv[1:])
