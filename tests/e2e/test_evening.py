"""The first evening of an application as it was written: made a module, deployed, changed, and the base killed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from koupleless.cli.commands import main

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import pytest
    from tests.e2e.conftest import BaseProcess

SHOP = """
import os, sqlite3, sys
from fastapi import FastAPI
from fastapi.responses import HTMLResponse

app = FastAPI()

@app.get("/")
def index():
    with sqlite3.connect("app.db") as rows:
        rows.execute("create table if not exists visits(at text)")
        rows.execute("insert into visits values('now')")
        (count,) = rows.execute("select count(*) from visits").fetchone()
    rows.close()
    with open("templates/page.html") as page:
        text = page.read().format(count=count, change="CHANGE")
    return HTMLResponse(f"{text} {len(os.environ['TOKEN'])} {len(os.environ['KEY'])}")

@app.get("/fail")
def fail():
    token = os.environ["TOKEN"]
    raise ValueError("no luck")
"""


def test_rows_and_values_stay_over_a_change_and_over_a_killed_base(
    serve: Callable[..., BaseProcess], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    project, state = tmp_path / "shop", ("--state-dir", str(tmp_path / "state"))
    (project / "templates").mkdir(parents=True)
    (project / "app.py").write_text(SHOP.replace("CHANGE", "first"))
    (project / "templates" / "page.html").write_text("{count} {change}")
    (project / ".env").write_text("TOKEN=s3cret-token\n")
    assert main(["init", str(project), "--yes"]) == 0
    base = serve(*state, cwd=tmp_path)

    base.arkctl("deploy", str(project), "--env", "KEY=s3cret")
    assert base.get("/shop/").text == "1 first 12 6"
    (project / "app.py").write_text(SHOP.replace("CHANGE", "second"))
    base.arkctl("deploy", str(project))
    assert base.get("/shop/").text == "2 second 12 6"
    assert base.get("/shop/fail").status_code == 500
    base.popen.kill()
    base.popen.wait()
    again = serve(*state, cwd=tmp_path)

    assert again.get("/shop/").text == "3 second 12 6"
    assert again.arkctl("env", "shop", "set", "KEY=s3cret12", "--restart").startswith("KEY  kept\n")
    assert again.get("/shop/").text == "4 second 12 8"
    assert again.arkctl("env", "shop") == "KEY  kept\nTOKEN  from the env-file of the project\n"
    assert [path.name for path in (tmp_path / "data" / "shop").iterdir()] == ["app.db"]
    holders = {path for path in tmp_path.rglob("*") if path.is_file() and b"s3cret" in path.read_bytes()}
    assert holders == {project / ".env", tmp_path / "state" / "environments" / "shop.json"}
    assert (tmp_path / "state" / "environments" / "shop.json").stat().st_mode & 0o077 == 0
    assert "s3cret" not in "".join(capsys.readouterr())
