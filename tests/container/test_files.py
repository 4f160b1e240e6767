"""Applications with relative paths, as they run alone from their project: files are found, and rows stay."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import pytest

from koupleless.artifact.build import Options, build_project
from koupleless.container.terms import Strategy

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.container.conftest import World

FLASK = """
import os
from flask import Flask, render_template
from sqlalchemy import create_engine, text

app = Flask(__name__)
engine = create_engine("sqlite:///app.db")
with engine.begin() as connection:
    connection.execute(text("create table if not exists visits(at text)"))

@app.get("/")
def index():
    with engine.begin() as connection:
        connection.execute(text("insert into visits values('now')"))
        count = connection.execute(text("select count(*) from visits")).scalar()
    with open("static/note.txt") as file:
        return render_template("page.html", note=file.read(), count=count, at=os.getcwd())
"""
FASTAPI = """
import pathlib, sqlite3
from fastapi import FastAPI
from fastapi.staticfiles import StaticFiles

app = FastAPI()
app.mount("/static", StaticFiles(directory="static"))

@app.get("/")
def index():
    with sqlite3.connect("app.db") as connection:
        connection.execute("create table if not exists visits(at text)")
        connection.execute("insert into visits values('now')")
        (count,) = connection.execute("select count(*) from visits").fetchone()
    connection.close()
    return {"count": count, "note": pathlib.Path("static", "note.txt").read_text()}

@app.get("/later")
async def later():
    import asyncio
    with open("later.txt", "a") as file:
        file.write("x")
    return {"size": len(await asyncio.to_thread(pathlib.Path("later.txt").read_text))}
"""
DJANGO = """
import os
from pathlib import Path

import django
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.db import connection
from django.http import JsonResponse
from django.urls import path

BASE_DIR = Path(__file__).resolve().parent
{settings}
settings.configure(
    ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__, SECRET_KEY="x", USE_TZ=True, INSTALLED_APPS=[],
    DATABASES={{"default": {{"ENGINE": "django.db.backends.sqlite3", "NAME": NAME}}}},
)
django.setup()

def index(request):
    with connection.cursor() as cursor:
        cursor.execute("create table if not exists visits(at text)")
        cursor.execute("insert into visits values('now')")
        cursor.execute("select count(*) from visits")
        (count,) = cursor.fetchone()
    return JsonResponse({{"count": count, "note": Path("static/note.txt").read_text()}})

urlpatterns = [path("", index)]
app = get_wsgi_application()
"""


@pytest.fixture
def deploy(world: World, tmp_path: Path) -> Callable[..., Any]:
    """Deploy an application of one file with ``templates`` and ``static`` beside it, in another version each time."""
    versions = iter(range(1, 10))

    def put_in(source: str) -> Any:
        project, version = tmp_path / "shop", next(versions)
        for place, text in (
            ("shop.py", f"{source}\nVERSION = {version}\n"),
            ("templates/page.html", "{{ note }} {{ count }} {{ at }}"),
            ("static/note.txt", "a note"),
            (
                "pyproject.toml",
                f"[project]\nname = 'shop'\nversion = '{version}'\n[tool.koupleless.module]\nentry = 'shop:app'\n",
            ),
        ):
            (project / place).parent.mkdir(parents=True, exist_ok=True)
            (project / place).write_text(text)
        built = build_project(project, Options(out=tmp_path / "out", compile=False)).path
        return world.container.install(world.container.prepare(str(built)), strategy=Strategy.REPLACE)

    return put_in


def test_flask_with_sqlalchemy(world: World, deploy: Callable[..., Any], tmp_path: Path) -> None:
    for count in (1, 2):
        installed = deploy(FLASK)
        assert installed.warnings == ()
        assert all(report.clean for report in installed.replaced)
        assert world.get("/shop/").text == f"a note {count} {tmp_path / 'data' / 'shop'}"
    assert (tmp_path / "data" / "shop" / "app.db").exists()


def test_fastapi_with_sqlite3(world: World, deploy: Callable[..., Any]) -> None:
    for count in (1, 2):
        assert deploy(FASTAPI).warnings == ()
        assert world.get("/shop/").json() == {"count": count, "note": "a note"}
        assert world.get("/shop/static/note.txt").text == "a note"
        assert world.get("/shop/later").json() == {"size": count}
    assert world.get("/shop/static/../shop.py").status_code == 404


@pytest.mark.parametrize("name", ['"app.db"', 'BASE_DIR / "db.sqlite3"'], ids=["relative", "beside the code"])
def test_django_with_sqlite(world: World, deploy: Callable[..., Any], name: str) -> None:
    for count in (1, 2):
        installed = deploy(DJANGO.format(settings=f"NAME = {name}"))
        assert installed.warnings == ()
        assert world.get("/shop/").json() == {"count": count, "note": "a note"}


OF_BASE = """
import importlib.metadata
import relative_of_base

async def app(scope, receive, send):
    found = importlib.metadata.distribution("relative-of-base")
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": f"{relative_of_base.HERE} {found.version}".encode()})
"""


def test_a_relative_search_path_of_the_base_starts_from_the_base(
    world: World, deploy: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = tmp_path / "base" / "lib" / "relative_of_base-3.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: relative-of-base\nVersion: 3.0\n")
    (info / "RECORD").write_text("relative_of_base.py,,\n")
    (info.parent / "relative_of_base.py").write_text("HERE = 'in the base'\n")
    monkeypatch.chdir(tmp_path / "base")
    monkeypatch.syspath_prepend("lib")
    try:
        deploy(OF_BASE)
        assert world.get("/shop/").text == "in the base 3.0"
    finally:
        sys.modules.pop("relative_of_base", None)


SEARCHING = """
import os, sys

async def app(scope, receive, send):
    os.makedirs(".", exist_ok=True)
    os.utime(".", (0, 0))  # a list of a directory is kept only when the last change is over for a while
    sys.path.insert(0, os.getcwd())
    sys.modules.pop("shop", None)
    import shop
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": shop.__file__.encode()})
"""


def test_the_working_directory_on_the_search_path_hides_no_code(
    world: World, deploy: Callable[..., Any], tmp_path: Path
) -> None:
    """Flask's command does so. Files of the artefact are shown there, and are imported from their own place."""
    deploy(SEARCHING)
    assert world.get("/shop/").text.startswith(str(tmp_path / "store"))
