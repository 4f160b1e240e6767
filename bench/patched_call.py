"""What a call costs of something shared that bizs have patched, beside the same call before anybody did.

``python bench/patched_call.py``: a method, a function of a module and a property, called by the base, by the biz that
patched it and by another one; and a function that reads a variable of the module, which a biz has assigned. The biz's
own version is the same code as the original, so that what is left is the cost of the dispatch. Everything is timed in
turns, plain and patched, in one process; the figure is the median of the differences, in processor time of the thread.
"""

from __future__ import annotations

import builtins
import statistics
import sys
import time
import timeit
import types
from typing import TYPE_CHECKING, Any, Final

from harness import Row, report

from koupleless.biz import BizId
from koupleless.changes.changes import Changes
from koupleless.context import Scope, entered

if TYPE_CHECKING:
    from collections.abc import Iterator

ROUNDS: Final = 60
CALLS: Final = 5_000
BUDGET_NS: Final = 150
BIZS: Final = 100

SHARED: Final = """
LIMIT = 1

def reader(x):
    return LIMIT

def function(x):
    return x

class Thing:
    def method(self, x):
        return x

    @property
    def prop(self):
        return 1
"""
PATCH: Final = """
def function(x):
    return x

def method(self, x):
    return x

def prop(self):
    return 1

shared.LIMIT = 2
shared.function = function
shared.Thing.method = method
shared.Thing.prop = property(prop)
"""
CALLED: Final = {
    "a function": "shared.function(1)",
    "one that reads a variable": "shared.reader(1)",
    "a method": "thing.method(1)",
    "a method by keyword": "thing.method(x=1)",
    "a property": "thing.prop",
}


class Biz:
    """A biz that patches, or does not."""

    def __init__(self, changes: Changes, shared: types.ModuleType, name: str) -> None:
        self.scope = Scope(BizId.of(name, "1"))
        table = dict(vars(builtins))
        self.watch = changes.watch(self.scope, lambda: {"shared": shared}, builtins=table)
        self.globals = {"__builtins__": table, "__name__": name, "shared": shared}
        self.watch.begin()

    def patch(self) -> None:
        """Put its own in the place of all."""
        with entered(self.scope):
            exec(PATCH, self.globals)
        self.watch.check()


def shared_module() -> types.ModuleType:
    """A module of the base."""
    shared = types.ModuleType("shared")
    sys.modules["shared"] = shared
    exec(SHARED, vars(shared))
    return shared


def nanoseconds(statement: str, shared: Any, scope: Scope | None) -> float:
    """One call, as whoever is meant."""
    timer = timeit.Timer(statement, timer=time.thread_time, globals={"shared": shared, "thing": shared.Thing()})
    with entered(scope):
        return timer.timeit(CALLS) / CALLS * 1e9


def measure(bizs: int) -> Iterator[tuple[str, str, float, float]]:
    """(what is called, by whom, plain, patched) with that many bizs that patched it."""
    plain, patched = shared_module(), shared_module()
    changes = Changes()
    all_of_them = [Biz(changes, patched, f"b{number}") for number in range(bizs)]
    for biz in all_of_them:
        biz.patch()
    other = Biz(changes, patched, "other")
    callers = {"the base": None, "who patched it": all_of_them[0].scope, "another module": other.scope}
    for what, statement in CALLED.items():
        for by, scope in callers.items():
            turns = [
                (nanoseconds(statement, plain, scope), nanoseconds(statement, patched, scope)) for _ in range(ROUNDS)
            ]
            direct = statistics.median(before for before, _ in turns)
            yield what, by, direct, direct + statistics.median(after - before for before, after in turns)


def main() -> None:
    """Measure with one biz and with many, and report."""
    rows, found = [], {}
    for bizs in (1, BIZS):
        for what, by, direct, dispatched in measure(bizs):
            figure = f"{what}, {by}, {bizs} module{'s' * (bizs > 1)} patched it"
            over = dispatched - direct
            found[figure] = {"direct_ns": direct, "dispatched_ns": dispatched, "over_ns": over}
            rows.append(
                Row(
                    figure,
                    f"{dispatched:.0f} ns",
                    f"{direct:.0f} ns direct",
                    f"+{over:.0f} ns",
                    f"<= {BUDGET_NS} ns",
                    over <= BUDGET_NS,
                )
            )
    report("patched_call", rows, found)


if __name__ == "__main__":
    main()
