"""What three large applications leave in a small base when they have gone, and what the base says of it.

``python bench/memory.py [ROUNDS]`` (2). A base without anything of its own gets one application, is asked, and loses it
again, a few times over; each application has a base of its own. The applications: a dashboard of Dash over a frame of
pandas, a Django project with its admin and a REST interface, and a FastAPI service with SQLAlchemy and boto3. Needs the
dependency groups ``dev`` and ``bench``. Memory is the resident set as the base leaves it, and after it was trimmed from
inside.
"""

from __future__ import annotations

import contextlib
import json
import sys
import tempfile
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import Row, fetch, free_port, report, resident_mb, server, wait_for

from koupleless.artifact.build import Options, build_file
from koupleless.biz import BizId
from koupleless.client import ArkletClient

if TYPE_CHECKING:
    from collections.abc import Iterator

BASE = """
import ctypes
import gc
import json
import sys
from pathlib import Path


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            event = (await receive())["type"]
            await send({"type": event + ".complete"})
            if event == "lifespan.shutdown":
                return
    if scope["path"] == "/figures":
        gc.collect()
        try:
            ctypes.CDLL(None).malloc_trim(0)
        except AttributeError:
            pass
    figures = {"objects": len(gc.get_objects()) + gc.get_freeze_count(), "modules": len(sys.modules)}
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": json.dumps(figures).encode()})
"""

DASHBOARD = """
import dash
import pandas as pd
import plotly.express as px
from dash import dcc, html

frame = pd.DataFrame({"day": range(50_000), "sold": [number % 97 for number in range(50_000)]})
weekly = frame.groupby(frame.day // 7, as_index=False).sold.sum()
dashboard = dash.Dash(__name__, requests_pathname_prefix="/dashboard/", routes_pathname_prefix="/")
dashboard.layout = html.Div([html.H1("Sold"), dcc.Graph(figure=px.line(weekly[:200], y="sold"))])
app = dashboard.server
"""

OFFICE = """
import django
from django.conf import settings

settings.configure(
    ALLOWED_HOSTS=["*"],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    INSTALLED_APPS=[
        "django.contrib.admin", "django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions",
        "django.contrib.messages", "django.contrib.staticfiles", "rest_framework",
    ],
    MIDDLEWARE=[
        "django.contrib.sessions.middleware.SessionMiddleware", "django.middleware.common.CommonMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        "django.contrib.messages.middleware.MessageMiddleware",
    ],
    REST_FRAMEWORK={"UNAUTHENTICATED_USER": None, "DEFAULT_AUTHENTICATION_CLASSES": []},
    ROOT_URLCONF=__name__,
    SECRET_KEY="not secret",
    STATIC_URL="static/",
    TEMPLATES=[{
        "BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True,
        "OPTIONS": {"context_processors": [
            "django.template.context_processors.request", "django.contrib.auth.context_processors.auth",
            "django.contrib.messages.context_processors.messages",
        ]},
    }],
)
django.setup()

from django.contrib import admin
from django.core.wsgi import get_wsgi_application
from django.urls import path
from rest_framework.response import Response
from rest_framework.views import APIView


class Stock(APIView):
    def get(self, request):
        return Response({"bolts": 12})


urlpatterns = [path("admin/", admin.site.urls), path("api/", Stock.as_view())]
app = get_wsgi_application()
"""

SHOP = """
import boto3
from fastapi import FastAPI
from pydantic import BaseModel
from sqlalchemy import String, create_engine, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from sqlalchemy.pool import StaticPool


class Base(DeclarativeBase):
    pass


class Item(Base):
    __tablename__ = "item"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(30))


class Shown(BaseModel):
    id: int
    name: str


engine = create_engine("sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False})
Base.metadata.create_all(engine)
store = boto3.client("s3", region_name="eu-west-1", aws_access_key_id="none", aws_secret_access_key="none")
app = FastAPI()


@app.get("/")
def items() -> list[Shown]:
    with Session(engine) as session:
        session.add(Item(name="bolt"))
        session.commit()
        return [Shown(id=item.id, name=item.name) for item in session.scalars(select(Item))]


@app.get("/stored")
def stored() -> str:
    return store.generate_presigned_url("get_object", Params={"Bucket": "shop", "Key": "bolt"})
"""

APPLICATIONS = {
    "dashboard": ("pandas and Dash", DASHBOARD, ["/dashboard/", "/dashboard/_dash-layout"]),
    "office": ("Django, admin, REST framework", OFFICE, ["/office/api/", "/office/admin/login/"]),
    "shop": ("FastAPI, SQLAlchemy, boto3", SHOP, ["/shop/", "/shop/stored", "/shop/openapi.json"]),
}


@contextlib.contextmanager
def small_base(directory: Path) -> Iterator[tuple[int, int, int]]:
    """``arkctl serve`` of an application that tells of its process: its number, port, and the arklet's port."""
    (directory / "small.py").write_text(BASE, encoding="utf-8")
    port, arklet = free_port(), free_port()
    command = [sys.executable, "-m", "koupleless", "serve", "small:app", "--ephemeral"]
    command += ["--port", str(port), "--arklet-port", str(arklet)]
    with server(command, port=port, cwd=directory) as (process, _):
        wait_for(arklet, "/", process)
        yield process.pid, port, arklet


def figures(pid: int, port: int) -> dict[str, float]:
    """The process as it is, and after it was trimmed."""
    as_left = resident_mb(pid)
    inside: dict[str, float] = json.loads(fetch(port, "/figures")[1])
    return {"as_left_mb": as_left, "trimmed_mb": resident_mb(pid), **inside}


def measure(name: str, rounds: int) -> dict[str, Any]:
    """Install, ask and remove one application some times over in a base of its own."""
    _, source, paths = APPLICATIONS[name]
    with tempfile.TemporaryDirectory() as place:
        directory = Path(place)
        file = directory / f"{name}.py"
        file.write_text(textwrap.dedent(source), encoding="utf-8")
        built = build_file(file, Options(out=directory / "out"))
        with small_base(directory) as (pid, port, arklet):
            client = ArkletClient("127.0.0.1", arklet)
            found: dict[str, Any] = {"before": figures(pid, port), "rounds": []}
            for _ in range(rounds):
                client.install(built.path.as_uri())
                for path in paths:
                    status, body = fetch(port, path)
                    assert status == 200, (path, status, body[:500])
                there = figures(pid, port)
                purge = client.uninstall(BizId.of(name, built.manifest.id.version)).purge_report
                assert purge is not None
                stays = {f"{one.name} {one.version}".strip(): one.size_bytes / 1e6 for one in purge.stays}
                said = {"clean": purge.clean, "summary": purge.summary, "stays": stays, "took_ms": purge.elapsed_ms}
                found["rounds"].append({"with": there, "after": figures(pid, port), **said})
    return found


def rows_of(name: str, found: dict[str, Any]) -> Iterator[Row]:
    """The lines of one application."""
    before = found["before"]
    yield Row(APPLICATIONS[name][0], f"{before['trimmed_mb']:.1f} MB before")
    for number, each in enumerate(found["rounds"], 1):
        there, after = each["with"], each["after"]
        came, stayed = (one["trimmed_mb"] - before["trimmed_mb"] for one in (there, after))
        share = stayed / (found["rounds"][0]["with"]["trimmed_mb"] - before["trimmed_mb"])
        yield Row(
            f"  round {number}",
            f"{there['trimmed_mb']:.1f} MB with it",
            f"{after['trimmed_mb']:.1f} MB after ({after['as_left_mb']:.1f} as left)",
            f"{stayed:.1f} of {came:.1f} MB",
            "<= 0.33 of what came stays",
            share <= 1 / 3,
        )
        more = (
            f"{after['objects'] - before['objects']:,.0f} objects, {after['modules'] - before['modules']:,.0f} modules"
        )
        yield Row(
            "    more than before", more, f"with it {there['objects'] - before['objects']:,.0f}", each["summary"][:40]
        )
        named = sorted(each["stays"].items(), key=lambda pair: -pair[1])
        told = "; ".join(f"{library}, {size:.1f} MB" for library, size in named[:4])
        yield Row("    the report says", f"{len(named)} stay, {sum(each['stays'].values()):.1f} MB", told)


def main(rounds: int) -> None:
    """Measure the three one after another."""
    found = {name: measure(name, rounds) for name in APPLICATIONS}
    report("memory", [row for name, each in found.items() for row in rows_of(name, each)], found)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 2)
