"""The table of kinds: each registration that is seen, undone or found, as the page of kinds and unload have it."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import re
from pathlib import Path

import pytest

from koupleless import adapters, recorders
from koupleless.adapters import door as adapters_door
from koupleless.ownership import caches
from koupleless.ownership.kinds import Kind
from koupleless.recorders import door as recorders_door

ROOT = Path(__file__).parent.parent.parent
PAGE = ROOT / "docs" / "kinds.md"
SPEC = ROOT.parent / "shared" / "spec" / "unload.md"

KINDS = (*recorders_door.KINDS, *adapters_door.KINDS)
SWEEPS = recorders_door.SWEEPS
FOUND = {**caches.FOUND, **adapters_door.RELEASED}
NAMES = {kind.name for kind in KINDS} | {sweep.kind for sweep in SWEEPS} | {*FOUND}

INERT = "keeps nothing alive"
OWN = "each biz has its own from the start (koupleless.view)"
TAKEN_BACK = "taken back as a change of a shared Python module (koupleless.changes)"
NAMED = "named by the report, with its holder"
ELSEWHERE = {INERT, OWN, TAKEN_BACK, NAMED}

ROWS: dict[str, set[str]] = {
    "nothing; subclass of a base class": {INERT},
    "`functools.lru_cache`/`cache`": {"lru cache"},
    "FastAPI app with any route": {"lru cache"},
    "`typing.List[M]`": {"typing", "lru cache"},
    "pydantic **parametrised generic**": {"pydantic generic"},
    "`singledispatch.register`": {"singledispatch"},
    "atexit": {"atexit"},
    "logging handler on root, or filter": {"logging handler", "logging filter", "logging"},
    "running thread, Timer": {"thread", "timer"},
    "`threading.local` value, ContextVar": {"thread local", OWN},
    "signal handler, `sys.excepthook`": {"hook", "profile function", "trace function", OWN, TAKEN_BACK},
    "`sys.meta_path`, `sys.path_hooks`": {"callback", "codec", "copyreg", "finalizer", OWN},
    "`codecs.register_error`": {"codec error handler", "fork hook", "audit hook"},
    "pending asyncio task, `call_later`": {"asyncio task", "loop timer", "loop exception handler"},
    "SQLAlchemy `event.listen`": {"sqlalchemy listener", "sqlalchemy mapper"},
    "Prometheus metric/collector": {"prometheus collector"},
    "OpenTelemetry TracerProvider": {"opentelemetry provider"},
    "click group, jinja filters": {NAMED},
    "exception stored": {"stored exception", NAMED},
}
"""Rows of the first section of `unload.md`, by their first words -> what there is for the registrations of a row."""

BEYOND = {
    # Code that runs, and open resources.
    *("executor", "executor task", "process", "socket", "transport", "async generator", "done callback"),
    # Registries of the interpreter and the standard library.
    *("asyncgen hook", "mock", "monitoring tool", "overload", "registry", "remembered entry", "shown warning"),
    *("source line", "sqlite3", "table by class", "tracemalloc"),
    # Libraries.
    *("celery task", "signal receiver", "sqlalchemy column", "sqlalchemy statement", "sqlalchemy table"),
    *("MQTT client", "MongoDB client", "ZeroMQ context", "ZeroMQ socket", "connection pool", "database connection"),
    *("faked clock", "gRPC channel", "gRPC server"),
}
"""Kinds that `unload.md` has in no row."""


def listed() -> list[list[str]]:
    """The rows of the tables on the page, cell by cell, without the heads."""
    lines = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [row for row in rows if row[0] != "kind"]


def test_the_page_lists_every_kind_with_how_it_is_seen_undone_or_found_and_when():
    seen = [[kind.name, f"`{kind.seen}`", kind.undone, kind.order.name.lower()] for kind in KINDS]
    found = [[sweep.kind, sweep.found, "thorough" if sweep.is_thorough else "always"] for sweep in SWEEPS]
    kept = [[name, where, "always"] for name, where in FOUND.items()]

    assert sorted(listed()) == sorted(seen + found + kept)


def test_every_kind_that_is_declared_is_in_the_table():
    for package in (recorders, adapters):
        for info in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            declared = [value for value in vars(importlib.import_module(info.name)).values() if isinstance(value, Kind)]

            assert [kind for kind in declared if kind not in KINDS] == [], info.name


@pytest.mark.parametrize("room", ["recorders", "adapters"])
def test_nothing_is_written_into_a_ledger_but_by_a_kind(room):
    for file in sorted((ROOT / "src" / "koupleless" / room).rglob("*.py")):
        calls = [node for node in ast.walk(ast.parse(file.read_text("utf-8"))) if isinstance(node, ast.Call)]
        targets = [ast.unparse(call.func) for call in calls if ast.unparse(call.func).endswith(".record")]

        assert [target for target in targets if target.endswith("ledger.record")] == [], file


def test_the_table_has_the_kinds_that_unload_asks_for_and_no_unknown_ones():
    asked = set().union(*ROWS.values()) - ELSEWHERE

    assert asked | BEYOND == NAMES
    assert asked & BEYOND == set()


@pytest.mark.skipif(not SPEC.exists(), reason=f"{SPEC} is not there, beside the checkout")
def test_every_row_of_unload_is_answered():
    section = SPEC.read_text(encoding="utf-8").partition("## 1. ")[2].partition("\n## ")[0]
    cells = [re.split(r"(?<!\\)\|", line)[1].strip() for line in section.splitlines() if line.startswith("| ")]
    rows = [cell for cell in cells if cell not in ("registration", "---")]

    assert rows
    assert [row for row in rows if not any(row.startswith(start) for start in ROWS)] == []
    assert [start for start in ROWS if not any(row.startswith(start) for row in rows)] == []
