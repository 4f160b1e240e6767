"""What a base pays that has our hooks in and no module, beside the same Python without them.

A base that never installed a module has none of them. From its first module until the container closes they are in, but
those of the import system, which are out while no module is there.

``python bench/hooks.py``. Code of the base is timed without the hooks, with them and without them again, many times
over in one process; the ratio is the median of those to the mean of the two around it. The first imports are processes
of their own, three at a time in the same way. All of it is processor time. Beside each ratio stands the one of the two
plain turns: what the machine makes out of nothing.
"""

from __future__ import annotations

import asyncio
import importlib
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from harness import SMALL_APP, Row, http_scope, report
from import_statement import CODE as SPEED_CODE
from import_statement import seconds

from koupleless.container.process import ProcessHooks

if TYPE_CHECKING:
    from collections.abc import Callable

ROUNDS: Final = 400
PROCESSES: Final = 20
TURN_S: Final = 0.003
BUDGET: Final = 1.01

CODE: Final = (
    SPEED_CODE
    + """
def import_in_a_function():
    import json
    return json

def from_import_in_a_function():
    from json import dumps
    return dumps
"""
)
FUNCTIONS: Final = (
    "calls",
    "builtin_calls",
    "global_reads",
    "attributes",
    "classes",
    "import_in_a_function",
    "from_import_in_a_function",
    "through_sys_modules",
)

FIRST_IMPORT: Final = """
import asyncio, importlib, sys, time
from koupleless.container.process import ProcessHooks
if sys.argv[1] == "hooks":
    ProcessHooks().install(asyncio.new_event_loop())
begin = time.process_time()
for name in sys.argv[2:]:
    importlib.import_module(name)
print(time.process_time() - begin)
"""
LIBRARIES: Final = {"django": ("django.db.models", "django.test"), "sqlalchemy": ("sqlalchemy", "sqlalchemy.orm")}


def requests(app: Any) -> Callable[[], object]:
    """A function that calls the application for one page."""
    scope = http_scope("/", [(b"host", b"127.0.0.1:8080")])

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(_: Any) -> None:
        pass

    loop = asyncio.new_event_loop()

    async def ask() -> None:
        for _ in range(20):
            await app({**scope, "state": {}}, receive, send)

    return lambda: loop.run_until_complete(ask())


def compare(function: Callable[[], object]) -> dict[str, float]:
    """Code of this process."""
    number = max(1, int(TURN_S / seconds(function, 20)))
    loop = asyncio.new_event_loop()

    def run(kind: str) -> float:
        hooks = ProcessHooks()
        if kind == "hooks":
            hooks.install(loop)
        try:
            seconds(function, number)  # the interpreter adapts its code anew after `builtins` was changed
            return seconds(function, number)
        finally:
            hooks.remove()

    found = in_turns(run, ROUNDS)
    loop.close()
    return found


def first_import(names: tuple[str, ...]) -> dict[str, float]:
    """The import in fresh processes."""

    def run(kind: str) -> float:
        command = [sys.executable, "-c", FIRST_IMPORT, kind, *names]
        return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    run("plain")
    return in_turns(run, PROCESSES)


def in_turns(run: Callable[[str], float], rounds: int) -> dict[str, float]:
    """The hooks stand between two plain turns, so that a machine that gets slower or faster hits both alike."""
    turns = [(run("plain"), run("hooks"), run("plain")) for _ in range(rounds)]
    return {
        "ratio": statistics.median(2 * hooks / (before + after) for before, hooks, after in turns),
        "noise": statistics.median(after / before for before, _, after in turns),
        "plain_us": statistics.median(before for before, _, _ in turns) * 1e6,
        "hooks_us": statistics.median(hooks for _, hooks, _ in turns) * 1e6,
    }


def main() -> None:
    """Measure in turns and report."""
    found = {}
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        (root / "code_of_base.py").write_text(CODE, encoding="utf-8")
        (root / "small.py").write_text(SMALL_APP, encoding="utf-8")
        sys.path.insert(0, name)
        code = importlib.import_module("code_of_base")
        for function in FUNCTIONS:
            found[function] = compare(getattr(code, function))
        found["20 requests to a FastAPI application"] = compare(requests(importlib.import_module("small").app))
        sys.path.remove(name)
    for library, names in LIBRARIES.items():
        found[f"first import of {library}"] = first_import(names)
    rows = [
        Row(
            figure,
            f"{each['hooks_us']:,.2f} us",
            f"{each['plain_us']:,.2f} us plain",
            f"{each['ratio']:.3f} ({each['noise']:.3f} plain to plain)",
            f"<= {BUDGET}",
            each["ratio"] <= BUDGET,
        )
        for figure, each in found.items()
    ]
    report("hooks", rows, found)


if __name__ == "__main__":
    main()
