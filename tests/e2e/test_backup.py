"""The way to another machine, and to another Python: what the page about it copies is what a base needs."""

from __future__ import annotations

import shutil
import sqlite3
import sys
from typing import TYPE_CHECKING

from tests.state.conftest import make_module

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.e2e.conftest import BaseProcess

COUNTING = """
import os, sqlite3
def app(_, start):
    start('200 OK', [])
    with sqlite3.connect('counts.db') as counts:
        counts.execute('create table if not exists counts (number)')
        counts.execute('insert into counts values (1)')
        (count,) = counts.execute('select count(*) from counts').fetchone()
    counts.close()
    return [f"{os.environ['KEY']} {count}".encode()]
"""


def serve_in(machine: Path, serve: Callable[..., BaseProcess]) -> BaseProcess:
    (machine / "run").mkdir(parents=True, exist_ok=True)
    (machine / "run" / "koupleless.toml").write_text(
        '[base]\nname = "shop"\nstate-dir = "../state"\ndata-dir = "../data"\n'
    )
    return serve("--state-dir", str(machine / "state"), cwd=machine / "run")


def copied(source: Path, target: Path) -> None:
    """A copy of a base that serves, in the order of the page, with ``cp --archive`` and the back-up of SQLite."""
    (target / "state").mkdir(parents=True)
    for name in ("journal", "environments"):
        found = source / "state" / name
        if found.is_dir():
            shutil.copytree(found, target / "state" / name)
        elif found.exists():
            shutil.copy2(found, target / "state" / name)
    shutil.copytree(source / "state" / "store", target / "state" / "store", ignore=shutil.ignore_patterns("sessions"))
    for database in (source / "data").rglob("*.db"):
        place = target / "data" / database.relative_to(source / "data")
        place.parent.mkdir(parents=True)
        with sqlite3.connect(database) as before, sqlite3.connect(place) as after:
            before.backup(after)
        before.close()
        after.close()


def test_a_copy_made_while_the_base_serves_goes_on_on_another_machine(
    serve: Callable[..., BaseProcess], tmp_path: Path
) -> None:
    base = serve_in(tmp_path / "one", serve)
    artefact = make_module(tmp_path, "counting:1", COUNTING)
    base.deploy(artefact, "--env", "KEY=secret")
    artefact.unlink()
    assert [base.get("/counting/").text for _ in range(2)] == ["secret 1", "secret 2"]
    copied(tmp_path / "one", tmp_path / "other")
    assert base.get("/counting/").text == "secret 3"

    other = serve_in(tmp_path / "other", serve)
    assert other.get("/counting/").text == "secret 3"
    assert "1 of 1 modules serve again" in other.log.read_text()
    assert str(tmp_path / "one") not in str(other.ask("queryAllBiz"))


def test_modules_come_back_under_another_python(serve: Callable[..., BaseProcess], tmp_path: Path) -> None:
    base = serve_in(tmp_path, serve)
    artefact = make_module(tmp_path, "pure:1")
    base.deploy(artefact)
    artefact.unlink()
    assert base.end() == 0
    store = tmp_path / "state" / "store"
    (store / str(sys.implementation.cache_tag)).rename(store / "cpython-300")  # as if another Python had been there

    again = serve_in(tmp_path, serve)
    assert again.get("/pure/").text == "pure:1"
    assert "1 of 1 modules serve again" in again.log.read_text()
