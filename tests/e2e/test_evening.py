"""The first evening of an application as it was written: made a module, deployed, changed, and the base killed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc  # type: ignore[import-untyped]
import httpx
from tests.conftest import free_port, until
from websockets.sync.client import connect

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


NOTES = """
import os
from fastapi import FastAPI, WebSocket
from sqlalchemy import create_engine, text

app = FastAPI()
engine = create_engine(os.environ["DATABASE_URL"])
with engine.begin() as connection:
    connection.execute(text("create table if not exists notes(words text)"))

@app.get("/")
def index():
    with engine.begin() as connection:
        connection.execute(text("insert into notes values('CHANGE')"))
        return [words for (words,) in connection.execute(text("select words from notes"))]

@app.websocket("/echo")
async def echo(socket: WebSocket):
    await socket.accept()
    await socket.send_text("CHANGE " + await socket.receive_text())
    await socket.close()
"""
VISITS = """
import os, sqlite3
from flask import Flask, current_app

def create_app():
    app = Flask(__name__, instance_relative_config=True)
    os.makedirs(app.instance_path, exist_ok=True)

    @app.get("/")
    def index():
        rows = sqlite3.connect(os.path.join(current_app.instance_path, "visits.db"))
        with rows:
            rows.execute("create table if not exists visits(at text)")
            rows.execute("insert into visits values('CHANGE')")
        found = [at for (at,) in rows.execute("select at from visits")]
        rows.close()
        return found

    return app
"""
MANAGE = """
import os, sys

if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "blog.settings")
    from django.core.management import execute_from_command_line

    execute_from_command_line(sys.argv)
"""
SETTINGS = """
from pathlib import Path

BASE_DIR = Path(__file__).resolve().parent.parent
SECRET_KEY, ALLOWED_HOSTS, ROOT_URLCONF, USE_TZ = "only here", ["*"], "blog.urls", True
STATIC_URL = "static/"
INSTALLED_APPS = [
    f"django.contrib.{name}" for name in ("admin", "auth", "contenttypes", "sessions", "messages", "staticfiles")
]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware", "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
TEMPLATES = [{
    "BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True,
    "OPTIONS": {"context_processors": [
        "django.template.context_processors.request", "django.contrib.auth.context_processors.auth",
        "django.contrib.messages.context_processors.messages",
    ]},
}]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": BASE_DIR / "db.sqlite3"}}
"""
URLS = """
from django.contrib import admin
from django.contrib.auth.models import Group
from django.http import JsonResponse
from django.urls import path

def index(request):
    Group.objects.create(name=f"CHANGE {Group.objects.count()}")
    return JsonResponse([group.name for group in Group.objects.order_by("id")], safe=False)

urlpatterns = [path("admin/", admin.site.urls), path("", index)]
"""
WSGI = """
import os
from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "blog.settings")
application = get_wsgi_application()
"""
TICKS = """
import sched, threading, time

scheduler, leaving = sched.scheduler(), threading.Event()

def tick():
    with open("ticks.txt", "a") as ticks:
        ticks.write("CHANGE\\n")
    if not leaving.is_set():
        scheduler.enter(0.02, 1, tick)

scheduler.enter(0, 1, tick)
threading.Thread(target=scheduler.run).start()
"""
CALLS = """
import os
from concurrent import futures
import grpc  # type: ignore[import-untyped]

def answer(request, context):
    return b"CHANGE " + request

server = grpc.server(futures.ThreadPoolExecutor(2))
handlers = {"Answer": grpc.unary_unary_rpc_method_handler(answer)}
server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("calls.Calls", handlers),))
if not server.add_insecure_port(f"127.0.0.1:{os.environ['CALLS_PORT']}"):
    raise OSError("the port is taken")
server.start()
"""
PROJECTS = {
    "notes": {"main.py": NOTES, ".env": "DATABASE_URL=sqlite:///notes.db\n"},
    "visits": {"app.py": VISITS},
    "blog": {
        "manage.py": MANAGE, "blog/__init__.py": "", "blog/settings.py": SETTINGS, "blog/urls.py": URLS,
        "blog/wsgi.py": WSGI,
    },
    "ticks": {"ticks.py": TICKS},
    "calls": {"calls.py": CALLS},
}  # fmt: skip


class Evening:
    """Five applications, as they are written for servers of their own, in one base."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.calls_port = free_port()
        self.requirements = {"notes": "fastapi\nsqlalchemy\n", "visits": "flask\n", "blog": "django\n"}

    def write(self, change: str) -> None:
        for name, files in PROJECTS.items():
            for path, text in files.items():
                target = self.place / name / path
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_text(text.replace("CHANGE", change))
            if name in self.requirements:
                (self.place / name / "requirements.txt").write_text(self.requirements[name])

    def deploy(self, base: BaseProcess) -> None:
        for name in ("notes", "visits", "blog"):
            base.deploy(self.place / name)
        base.deploy(self.place / "ticks", "--name", "ticks", "--entry", "ticks")
        base.deploy(
            self.place / "calls", "--name", "calls", "--entry", "calls", "--env", f"CALLS_PORT={self.calls_port}"
        )

    def answers(self, base: BaseProcess) -> dict[str, Any]:
        """What each application shows to its own clients."""
        with connect(f"ws://127.0.0.1:{base.port}/notes/echo") as socket:
            socket.send("said")
            echo = socket.recv()
        with grpc.insecure_channel(f"127.0.0.1:{self.calls_port}") as channel:
            call = channel.unary_unary("/calls.Calls/Answer")(b"called", timeout=30, wait_for_ready=True)
        admin = base.get("/blog/admin/login/")
        assert (admin.status_code, "Django administration" in admin.text) == (200, True)
        return {
            "notes": base.get("/notes/").json(),
            "echo": echo,
            "visits": base.get("/visits/").json(),
            "blog": [name.split()[0] for name in base.get("/blog/").json()],
            "call": call.decode(),
        }

    def ticks(self) -> list[str]:
        return (self.place / "data" / "ticks" / "ticks.txt").read_text().split()


def expected(*changes: str) -> dict[str, Any]:
    """The answers when each application was asked once after each change."""
    rows = list(changes)
    return {
        "notes": rows, "echo": f"{rows[-1]} said", "visits": rows, "blog": rows, "call": f"{rows[-1]} called",
    }  # fmt: skip


def test_five_applications_lose_nothing_in_an_evening(serve: Callable[..., BaseProcess], tmp_path: Path) -> None:
    evening, state = Evening(tmp_path), ("--name", "evening", "--state-dir", str(tmp_path / "state"))
    evening.write("first")
    for name in ("notes", "visits", "blog"):
        assert main(["init", str(tmp_path / name), "--yes"]) == 0
    base = serve(*state, cwd=tmp_path)
    evening.deploy(base)
    base.arkctl("run", "blog", "--", "manage.py", "migrate")
    assert evening.answers(base) == expected("first")

    evening.write("second")
    evening.deploy(base)
    assert evening.answers(base) == expected("first", "second")
    until(lambda: "second" in evening.ticks())
    base.popen.kill()
    base.popen.wait()
    ticks = len(evening.ticks())

    again = serve(*state, cwd=tmp_path)
    assert evening.answers(again) == expected("first", "second", "second")
    until(lambda: len(evening.ticks()) > ticks)
    assert evening.ticks()[0] == "first"
    arklet = f"http://127.0.0.1:{again.arklet_port}"
    for path in ("livez", "readyz", "healthz"):
        assert httpx.get(f"{arklet}/{path}").status_code == again.get(f"/{path}").status_code == 200
    metrics = httpx.get(f"{arklet}/metrics").text
    assert all(f'biz="{name}"' in metrics for name in PROJECTS)
    assert "GET /visits/" in again.arkctl("logs", "visits")
    for name in PROJECTS:
        assert "nothing left behind" in again.undeploy(name)
