"""The data directory of a module, and files that a module has written below its code."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from koupleless import data_dir
from koupleless.artifact.build import Options, build_project
from koupleless.biz import BizId
from koupleless.container.terms import Strategy
from koupleless.errors import StartFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from tests.container.conftest import World

NOTES = """
import os, subprocess, sys
from pathlib import Path
import koupleless
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

PROGRAM = "import os, pathlib; path = os.environ['KOUPLELESS_DATA_DIR']; print(path, pathlib.Path(path).is_dir())"

def page(request):
    notes = koupleless.data_dir() / "notes"
    with notes.open("a") as file:
        file.write("x")
    return JSONResponse({
        "directory": str(koupleless.data_dir()),
        "variable": os.environ["KOUPLELESS_DATA_DIR"],
        "child": subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True).stdout.strip(),
        "text": notes.read_text(),
    })

app = Starlette(routes=[Route("/", page)])
"""
BESIDE = """
from pathlib import Path
HERE = Path(__file__).parent
with (HERE / "db.sqlite3").open("a") as file:
    file.write("row{version}")
(HERE / "uploads").mkdir(exist_ok=True)
(HERE / "uploads" / "cat.png").write_bytes(b"cat")
(HERE / "link").unlink(missing_ok=True)
(HERE / "link").symlink_to(HERE / "db.sqlite3")
text = (HERE / "db.sqlite3").read_text()
{more}

async def app(scope, receive, send):
    await send({{"type": "http.response.start", "status": 200, "headers": []}})
    await send({{"type": "http.response.body", "body": text.encode()}})
"""
FLASK = """
from pathlib import Path
import flask
app = flask.Flask(__name__)
folder = Path(app.instance_path)
folder.mkdir(parents=True, exist_ok=True)

@app.get("/")
def index():
    with (folder / "log").open("a") as file:
        file.write("x")
    return {{"folder": str(folder), "log": (folder / "log").read_text(), "version": {version}}}
"""


@pytest.fixture
def install(world: World, tmp_path: Path) -> Callable[..., Any]:
    def put_in(source: str, *, name: str = "notes", version: str = "1", own: Sequence[str] = (), **options: Any) -> Any:
        project = tmp_path / f"{name}-{version}"
        project.mkdir(exist_ok=True)
        (project / f"{name}.py").write_text(source)
        head = f"[project]\nname = {name!r}\nversion = {version!r}\n[tool.koupleless.module]\nentry = '{name}:app'\n"
        (project / "pyproject.toml").write_text(f"{head}own = {list(own)}\n")
        built = build_project(project, Options(out=tmp_path / "out", compile=False)).path
        return world.container.install(world.container.prepare(str(built)), strategy=Strategy.REPLACE, **options)

    return put_in


def test_all_versions_of_a_module_have_one_and_other_modules_another(
    world: World, install: Callable[..., Any], tmp_path: Path
) -> None:
    said = {}
    for name, version in (("notes", "1"), ("notes", "2"), ("other", "1")):
        install(NOTES, name=name, version=version)
        said[name, version] = world.get(f"/{name}/").json()
    notes = str(tmp_path / "data" / "notes")
    assert said["notes", "1"] == {"directory": notes, "variable": notes, "child": f"{notes} True", "text": "x"}
    assert said["notes", "2"]["text"] == "xx"
    assert said["other", "1"]["text"] == "x"
    assert said["other", "1"]["directory"] == str(tmp_path / "data" / "other")


def test_one_that_nobody_asks_for_is_not_made(install: Callable[..., Any], tmp_path: Path) -> None:
    install("import os\nassert 'PATH' in os.environ\nasync def app(*_): ...\n")
    assert not (tmp_path / "data").exists()


def test_an_install_may_name_another(world: World, install: Callable[..., Any], tmp_path: Path) -> None:
    install(NOTES, envs={"KOUPLELESS_DATA_DIR": str(tmp_path / "elsewhere")})
    said = world.get("/notes/").json()
    assert said["directory"] == said["variable"] == str(tmp_path / "elsewhere")


def test_one_that_cannot_be_made_is_told_with_the_setting(install: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file")
    with pytest.raises(StartFailed) as caught:
        install("import koupleless\nkoupleless.data_dir()\n")
    assert "the base's setting data-dir leads elsewhere" in (caught.value.traceback or "")
    install(
        "import os, subprocess\n"
        "assert os.environ['KOUPLELESS_DATA_DIR']\n"
        "subprocess.run('true')\n"
        "async def app(*_): ...\n"
    )


def test_alone_it_is_in_the_working_directory_or_named_by_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("KOUPLELESS_DATA_DIR", raising=False)
    assert data_dir() == tmp_path / "data"
    monkeypatch.setenv("KOUPLELESS_DATA_DIR", "there")
    assert data_dir() == tmp_path / "there"
    assert (tmp_path / "there").is_dir()


def test_files_below_the_code_are_carried_away_and_told_at_a_replacement(
    world: World, install: Callable[..., Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert install(BESIDE.format(version=1, more="")).warnings == ()
    (told,) = install(BESIDE.format(version=2, more=""), version="2").warnings
    rescued = tmp_path / "data" / "notes" / "rescued" / "notes-1"
    assert told == (
        f"notes:1 has written below its code, where no other version finds it: db.sqlite3, uploads/cat.png; copied to "
        f"{rescued}. Write to koupleless.data_dir() instead, which stays: {tmp_path / 'data' / 'notes'}"
    )
    assert told in caplog.messages
    assert world.get("/notes/").text == "row2"
    assert sorted(str(path.relative_to(rescued)) for path in rescued.rglob("*")) == [
        "db.sqlite3",
        "uploads",
        "uploads/cat.png",
    ]
    assert (rescued / "db.sqlite3").read_text() == "row1"


def test_the_same_content_again_keeps_what_it_has_written_and_nothing_is_overwritten(
    world: World, install: Callable[..., Any], tmp_path: Path
) -> None:
    for _ in range(3):
        install(BESIDE.format(version=1, more=""))
    assert world.get("/notes/").text == "row1row1row1"
    report = world.container.uninstall(BizId.of("notes", "1"))
    assert len(report.notes) == 1
    rescued = tmp_path / "data" / "notes" / "rescued" / "notes-1"
    assert {path.name: path.read_text() for path in rescued.glob("db*")} == {
        "db.sqlite3": "row1row1",  # the one that replaced it had written by then
        "db-2.sqlite3": "row1row1row1",
    }


def test_files_of_a_start_that_failed_are_carried_away_too(install: Callable[..., Any], tmp_path: Path) -> None:
    with pytest.raises(StartFailed):
        install(BESIDE.format(version=1, more="raise ValueError"))
    assert (tmp_path / "data" / "notes" / "rescued" / "notes-1" / "db.sqlite3").read_text() == "row1"


def test_files_that_cannot_be_carried_away_are_told(world: World, install: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file")
    install(BESIDE.format(version=1, more=""))
    report = world.container.uninstall(BizId.of("notes", "1"))
    assert report.clean
    assert "notes:1 may have written files below its code, which were not copied to" in report.notes[0]


@pytest.mark.parametrize("own", [(), ("flask",)], ids=["shared", "an own copy"])
def test_the_instance_folder_of_flask_stays_over_versions(
    world: World, install: Callable[..., Any], tmp_path: Path, own: tuple[str, ...]
) -> None:
    import flask  # noqa: F401 - the base shares it

    for version in (1, 2):
        assert install(FLASK.format(version=version), version=str(version), own=own).warnings == ()
        folder = tmp_path / "data" / "notes" / "instance"
        assert world.get("/notes/").json() == {"folder": str(folder), "log": "x" * version, "version": version}


def test_alone_flask_finds_its_folder_beside_the_module(tmp_path: Path) -> None:
    (tmp_path / "alone.py").write_text("import flask\nprint(flask.Flask(__name__).instance_path)\n")
    done = subprocess.run([sys.executable, "alone.py"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == os.fspath(tmp_path / "instance")
