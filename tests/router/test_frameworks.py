"""Applications of five frameworks, mounted: their root page, their own links, their paths, their 404."""

from __future__ import annotations

import contextlib
import gc
import sqlite3
import types
from typing import TYPE_CHECKING, Any

import pytest
from fastapi import APIRouter, FastAPI, Request

from koupleless.router.asgi import Front
from koupleless.router.face import FaceKind, kind_of
from koupleless.router.lifespan import Lifespan

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import httpx

    from koupleless.router.gate import Gate

    Client = Callable[..., httpx.AsyncClient]
    Mount = Callable[..., Gate]

pytestmark = pytest.mark.anyio


def fastapi_app() -> Any:
    app = FastAPI()
    items = APIRouter(prefix="/items")

    @app.get("/")
    async def root() -> str:
        return "root"

    @items.get("/{name}")
    def item(name: str, request: Request) -> dict[str, str]:
        return {"name": name, "link": request.url_for("item", name=name).path}

    app.include_router(items)
    return app


def starlette_app() -> Any:
    from starlette.applications import Starlette
    from starlette.responses import JSONResponse
    from starlette.routing import Mount as StarletteMount
    from starlette.routing import Route

    async def root(request: Any) -> Any:
        return JSONResponse("root")

    async def item(request: Any) -> Any:
        name = request.path_params["name"]
        return JSONResponse({"name": name, "link": request.url_for("items:item", name=name).path})

    items = StarletteMount("/items", routes=[Route("/{name}", item, name="item")], name="items")
    return Starlette(routes=[Route("/", root), items])


def flask_app() -> Any:
    from flask import Flask, jsonify, url_for

    app = Flask("flask_app")

    @app.get("/")
    def root() -> Any:
        return jsonify("root")

    @app.get("/items/<name>")
    def item(name: str) -> Any:
        return jsonify({"name": name, "link": url_for("item", name=name)})

    return app


@pytest.fixture(scope="module")
def django() -> Any:
    import django  # type: ignore[import-untyped]
    from django.conf import settings  # type: ignore[import-untyped]
    from django.http import JsonResponse  # type: ignore[import-untyped]
    from django.urls import path, reverse  # type: ignore[import-untyped]

    def root(request: Any) -> Any:
        return JsonResponse("root", safe=False)

    def item(request: Any, name: str) -> Any:
        return JsonResponse({"name": name, "link": reverse("item", args=[name])})

    urls = types.ModuleType("urls")
    urls.urlpatterns = [path("", root), path("items/<name>", item, name="item")]  # type: ignore[attr-defined]
    if not settings.configured:
        settings.configure()
    settings.ROOT_URLCONF = urls
    settings.ALLOWED_HOSTS = ["*"]
    settings.SECRET_KEY = "x"
    django.setup()
    return django


def django_asgi() -> Any:
    from django.core.handlers.asgi import ASGIHandler  # type: ignore[import-untyped]

    return ASGIHandler()


def django_wsgi() -> Any:
    from django.core.handlers.wsgi import WSGIHandler  # type: ignore[import-untyped]

    return WSGIHandler()


MAKERS = [fastapi_app, starlette_app, flask_app, django_asgi, django_wsgi]


@pytest.fixture(params=MAKERS, ids=lambda maker: maker.__name__)
def app(request: pytest.FixtureRequest) -> Any:
    if request.param.__name__.startswith("django"):
        request.getfixturevalue("django")
    return request.param()


@pytest.mark.parametrize("path", ["/", "/hello", "/deep/er"])
async def test_pages_and_the_links_an_application_makes_are_below_its_path(
    app: Any, path: str, mount: Mount, client: Client
) -> None:
    front = Front()
    mount(front, path, app)
    below = path.rstrip("/")

    async with client(front) as http:
        for root in {f"{below}/", path}:
            answer = await http.get(root)
            assert (answer.status_code, answer.json()) == (200, "root")
        for name in ("x", "a b", "grün"):
            answer = await http.get(f"{below}/items/{name}")
            assert answer.json()["name"] == name
            # The link leads back to where it was found.
            assert (await http.get(answer.json()["link"])).json()["name"] == name
            assert answer.json()["link"].startswith(f"{below}/items/")
        assert (await http.get(f"{below}/nowhere")).status_code == 404
        assert (await http.post(f"{below}/")).status_code in (405, 200, 403)


async def test_fastapis_documentation_is_below_its_path(mount: Mount, client: Client) -> None:
    front = Front()
    mount(front, "/hello", fastapi_app())

    async with client(front) as http:
        assert "/hello/openapi.json" in (await http.get("/hello/docs")).text
        assert (await http.get("/hello/openapi.json")).json()["servers"] == [{"url": "/hello"}]


async def test_a_redirect_that_starlette_makes_stays_below_its_path(mount: Mount, client: Client) -> None:
    front = Front()
    mount(front, "/hello", fastapi_app())

    async with client(front) as http:
        answer = await http.get("/hello/items/x/")
    assert answer.status_code == 307
    assert answer.headers["location"] == "http://base/hello/items/x"


@pytest.fixture
def collected() -> Iterator[None]:
    """Datasette leaves its connections to the collector, of which Python 3.13 complains: let it do so here."""
    yield
    gc.collect()


@pytest.mark.filterwarnings("ignore:unclosed database:ResourceWarning")
@pytest.mark.usefixtures("collected")
async def test_datasette_serves_its_table_below_the_base_url_it_is_given(
    mount: Mount, client: Client, tmp_path: Path
) -> None:
    """Datasette takes no notice of ``root_path``: its entry file says ``base_url``."""
    from datasette.app import Datasette  # type: ignore[import-untyped]

    with contextlib.closing(sqlite3.connect(tmp_path / "shop.db")) as db, db:
        db.execute("create table [fruit of/the day] (name text)")
        db.execute("insert into [fruit of/the day] values ('apple')")
    app = Datasette([str(tmp_path / "shop.db")], settings={"base_url": "/data/"}).app()
    assert kind_of(app) is FaceKind.ASGI
    lifespan = Lifespan(app)
    await lifespan.startup(10)
    front = Front()
    mount(front, "/data", app)

    async with client(front) as http:
        for path in ("/data", "/data/"):
            home = await http.get(path)
            assert (home.status_code, 'href="/data/shop"' in home.text) == (200, True)
        table = await http.get("/data/shop/fruit+of~2Fthe+day.json?_shape=array")
        assert table.json() == [{"rowid": 1, "name": "apple"}]
        assert (await http.get("/data/-/static/app.css")).status_code == 200
        assert (await http.get("/data/absent")).status_code == 404
    await lifespan.shutdown(10)
