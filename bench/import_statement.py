"""What isolation costs code that runs: import statements of what is imported already, and code without any import.

Everything is executed twice, outside any biz and as code of a biz, in turns, so that both see the same machine; the
figures are medians of the turns' ratios. The price that the base pays for its own statements while there are bizs
stands beside it.
"""

from __future__ import annotations

import importlib
import statistics
import sys
import tempfile
import time
import timeit
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import Row, report

from koupleless.biz import BizId
from koupleless.context import Scope, entered
from koupleless.isolation.imports import HOOKS
from koupleless.isolation.namespace import Namespace

if TYPE_CHECKING:
    from collections.abc import Callable

ROUNDS = 15
NUMBER = 20_000

STATEMENTS = (
    "import json",
    "import os.path",
    "from json import dumps",
    "from os.path import join, split",
    "import app_package.module",
    "from app_package import module",
    "from app_package.module import value",
    "from . import module",
    "from .module import value",
    "import xml.dom as d",
)

CODE = """
import math
import sys

LIMIT = 50

def add(a, b):
    return a + b

class Point:
    def __init__(self, x):
        self.x = x
    def doubled(self):
        return Point(self.x * 2)

def calls():
    total = 0
    for i in range(LIMIT):
        total = add(total, i)
    return total

def builtin_calls():
    return sum(len(str(i)) for i in range(LIMIT)), max(1, 2), isinstance(3, int), sorted([3, 1, 2])

def global_reads():
    total = 0
    for _ in range(50):
        total += LIMIT
    return total

def through_sys_modules():
    return sys.modules["json"].dumps

def comprehension():
    return {str(i): [i, i * 2] for i in range(LIMIT) if i % 3}

def attributes():
    point = Point(1)
    for _ in range(20):
        point = point.doubled()
    return point.x, math.floor(2.5)

def classes():
    class Local(Point):
        kind = "local"
        def more(self):
            return super().doubled()
    return Local(3).more().x
"""
SPEED = ("calls", "builtin_calls", "global_reads", "comprehension", "attributes", "classes")


def functions(namespace: dict[str, Any]) -> dict[str, Callable[[], object]]:
    """One function for each statement, in a module's dictionary."""
    made = {}
    for text in STATEMENTS:
        exec(f"def f():\n {text}", namespace)
        made[text] = namespace.pop("f")
        made[text]()
    return made


def seconds(function: Callable[[], object], number: int) -> float:
    """The processor time of one call."""
    return timeit.Timer(function, timer=time.process_time).timeit(number) / number


def main() -> None:
    """Measure in turns and report."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        (root / "app_package").mkdir()
        (root / "app_package/__init__.py").write_text("", encoding="utf-8")
        (root / "app_package/module.py").write_text("value = 1", encoding="utf-8")
        (root / "app_package/here.py").write_text(CODE, encoding="utf-8")
        sys.path.insert(0, name)
        plain_here = importlib.import_module("app_package.here")
        scope = Scope(BizId.parse("bench:1"))
        namespace = Namespace(scope, [name])
        here = namespace.import_module("app_package.here")
        outside, inside = functions(vars(plain_here)), functions(vars(here))
        HOOKS.release()  # the namespace's: what runs outside is to be as if there were none
        rows, details = [], {}
        for text in STATEMENTS:
            turns = []
            for _ in range(ROUNDS):
                plain = seconds(outside[text], NUMBER)
                HOOKS.acquire()
                own, base = seconds(inside[text], NUMBER), seconds(outside[text], NUMBER)
                with entered(scope):
                    for_biz = seconds(outside[text], NUMBER // 10)
                HOOKS.release()
                turns.append((plain * 1e9, own * 1e9, base * 1e9, for_biz * 1e9))
            plain, own, base, for_biz = (statistics.median(column) for column in zip(*turns, strict=True))
            ratio = statistics.median(turn[1] / turn[0] for turn in turns)
            details[text] = {"outside_ns": plain, "biz_ns": own, "base_ns": base, "base_for_biz_ns": for_biz}
            rows.append(Row(text, f"{own:.0f} ns", f"{plain:.0f} ns outside", f"{ratio:.2f} x", "<= 2", ratio <= 2))
            rows.append(
                Row(
                    "  the same in the base",
                    f"{base:.0f} ns",
                    f"{for_biz:.0f} ns on a biz's behalf",
                    f"{base / plain:.2f} x",
                )
            )
        for function in SPEED:
            one, two = getattr(plain_here, function), getattr(here, function)
            number = max(200, int(0.004 / seconds(one, 200)))
            ratio, own, plain = compare(one, two, number)
            details[function] = {"outside_us": plain, "biz_us": own, "ratio": ratio}
            rows.append(
                Row(function, f"{own:.2f} us", f"{plain:.2f} us outside", f"{ratio:.3f} x", "<= 1.02", ratio <= 1.02)
            )
        # Every biz reads its own table, which takes a look at who asks; there is no budget for that.
        turns = []
        for _ in range(ROUNDS):
            plain = seconds(plain_here.through_sys_modules, NUMBER)
            HOOKS.acquire()
            with entered(scope):
                own = seconds(here.through_sys_modules, NUMBER)
            base = seconds(plain_here.through_sys_modules, NUMBER)
            HOOKS.release()
            turns.append((plain * 1e9, own * 1e9, base * 1e9, 0.0))
        plain, own, base, _ = (statistics.median(column) for column in zip(*turns, strict=True))
        details["through_sys_modules"] = {"outside_ns": plain, "biz_ns": own, "base_ns": base}
        rows.append(Row("through sys.modules", f"{own:.0f} ns", f"{plain:.0f} ns outside", f"{own / plain:.2f} x"))
        rows.append(Row("  the same in the base", f"{base:.0f} ns", "", f"{base / plain:.2f} x"))
        HOOKS.acquire()
        namespace.drop()
        report("import_statement", rows, {"nanoseconds": details})


def compare(one: Callable[[], object], two: Callable[[], object], number: int) -> tuple[float, float, float]:
    """Median ratio of the second to the first, and the best microseconds of each; who comes first alternates."""
    ratios, firsts, seconds_ = [], [], []
    for turn in range(ROUNDS * 4):
        if turn % 2:
            a, b = seconds(one, number), seconds(two, number)
        else:
            b, a = seconds(two, number), seconds(one, number)
        ratios.append(b / a)
        firsts.append(a)
        seconds_.append(b)
    return statistics.median(ratios), min(seconds_) * 1e6, min(firsts) * 1e6


if __name__ == "__main__":
    main()
