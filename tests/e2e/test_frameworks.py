"""Whole applications of several frameworks as modules: as they are alone, side by side, and gone without a trace."""

from __future__ import annotations

import functools
import json
import re
import sys
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from tests.conftest import until
from websockets.sync.client import connect

from koupleless.artifact.build import Options, build_project

if TYPE_CHECKING:
    from collections.abc import Sequence

# An application need not close its databases; that they are collected, and say so from 3.13 on, is what we are after.
pytestmark = [
    pytest.mark.filterwarnings("ignore:unclosed database:ResourceWarning"),
    # Django sets the process's time zone; the module is told that it was not.
    pytest.mark.filterwarnings("ignore:.*time.tzset:koupleless.view.shared.process.ProcessWideWarning"),
]

BIZS = Path(__file__).parent.parent / "bizs"

# --- Django --------------------------------------------------------------------------------------------------------

PROJECTS = {"django-shop": "Item", "django-blog": "Entry"}


@pytest.fixture(scope="module")
def projects(tmp_path_factory):
    """Two Django projects with the same package names, each with a Django of its own."""
    return {name: build_project(BIZS / name, Options(out=tmp_path_factory.mktemp("dist"))).path for name in PROJECTS}


WSGIREF = """
import sys
from wsgiref.simple_server import make_server
sys.path[:0] = [sys.argv[1], sys.argv[1] + "/lib"]
from project.wsgi import application
make_server("127.0.0.1", int(sys.argv[2]), application).serve_forever()
"""


@pytest.fixture(scope="module")
def django_alone(projects, run_alone, tmp_path_factory):
    """The same artefacts, unpacked and served by wsgiref."""
    servers = {}
    for name, artefact in projects.items():
        place = tmp_path_factory.mktemp(name)
        zipfile.ZipFile(artefact).extractall(place)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("DATABASE", str(place / "db.sqlite3"))
            command = [sys.executable, "-P", "-c", WSGIREF, str(place)]
            servers[name] = run_alone(lambda port, command=command: [*command, str(port)], place).url
    return servers


def plain(response: httpx.Response, prefix: str) -> tuple[int, str, str | None, str]:
    """What has to be the same: without the prefix, the tokens and the address."""
    text = re.sub(r'(name="csrfmiddlewaretoken" value=")\w+', r"\1", response.text)
    text = text.replace(f'href="{prefix}"', 'href="/"')  # the admin site's link to the whole site
    text = re.sub(r"(?<=[\"'=])" + re.escape(prefix) + r"(?=[/\"'])", "", text)
    location = response.headers.get("location", "").replace(prefix + "/", "/")
    return response.status_code, location, response.headers.get("content-type"), text


def pages_of(client: Any, prefix: str, model: str) -> list[tuple[int, str, str | None, str]]:
    """What somebody sees who looks around, and logs in to the admin site."""

    def get(path: str) -> httpx.Response:
        response: httpx.Response = client.request("GET", prefix + path)
        return response

    def post(path: str, data: dict[str, str]) -> httpx.Response:
        token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', get(path).text)
        assert token is not None
        data = {**data, "csrfmiddlewaretoken": token[1]}
        response: httpx.Response = client.request("POST", prefix + path, data=data)
        return response

    looked_at = ["/", "/facts", "/static/app/style.css", "/static/admin/css/base.css", "/nowhere/", "/admin/"]
    responses = [get(path) for path in looked_at]
    responses.append(post("/admin/login/?next=/admin/", {"username": "admin", "password": "wrong"}))
    responses.append(post("/admin/login/", {"username": "admin", "password": "secret", "next": prefix + "/admin/"}))
    responses.append(get("/admin/"))
    responses.append(get(f"/admin/app/{model.lower()}/"))
    return [plain(response, prefix) for response in responses]


@pytest.mark.network
@pytest.mark.timeout(300)
def test_two_django_projects_answer_side_by_side_as_they_do_alone(inside, projects, django_alone, tmp_path):
    for order in (("django-shop", "django-blog"), ("django-blog", "django-shop")):
        for name in order:
            envs = {"DATABASE": str(tmp_path / f"{name}.sqlite3"), "MOUNTED_AT": f"/{name}"}
            inside.install(projects[name], envs=envs)
        for name in order:
            with httpx.Client(base_url=django_alone[name]) as client:
                alone = pages_of(client, "", PROJECTS[name])
            with inside.client() as client:
                pages = pages_of(client, f"/{name}", PROJECTS[name])
            for here, there in zip(pages, alone, strict=True):
                if here[0] != 404:  # the page for developers shows the whole environment
                    assert here == there
                assert here[0] == there[0]
            own = "6.0." if sys.version_info >= (3, 14) else "5.1."  # which does not run on 3.14
            assert f'"django": "{own}' in pages[1][3]
            assert PROJECTS[name] in pages[1][3]
            assert [page[0] for page in pages[-4:]] == [200, 302, 200, 200]
            oops = inside.get(f"/{name}/oops")
            assert (oops.status_code, f"oops of {name}" in oops.text) == (500, True)
        for name in order:
            report = inside.uninstall(f"{name}:1.0")
            assert report.clean, report.summary()
    assert "app" not in sys.modules


# --- Flask and FastAPI, in a base that is a process of its own -------------------------------------------------------


def without(prefix: str, server: str, response: httpx.Response) -> tuple[int, dict[str, str], str]:
    """Status, what matters of the headers, and the body, without the prefix and the address."""
    names = ("content-type", "location", "x-shop", "access-control-allow-origin")
    headers = {
        name: response.headers[name].replace(server, "http://server").replace(prefix, "")
        for name in names
        if name in response.headers
    }
    text = response.text.replace(server, "http://server").replace(prefix + "/", "/").replace(prefix, "")
    return response.status_code, headers, text


@pytest.fixture(scope="module")
def base(serve, tmp_path_factory):
    return serve(cwd=tmp_path_factory.mktemp("base"))


@pytest.fixture
def deployed(base, artefact):
    """``deployed(name)`` deploys a module and takes it down in the end, which has to be clean."""
    names = []

    def deploy(name: str) -> str:
        base.deploy(artefact(name))
        names.append(name)
        return f"{base.url}/{name}"

    yield deploy
    for name in names:
        assert "nothing left behind" in base.undeploy(name)


def asked(url: str, requests: Sequence[tuple[str, str, dict[str, Any]]], prefix: str) -> list[Any]:
    server = url.removesuffix(prefix)
    with httpx.Client(timeout=30, limits=httpx.Limits(max_keepalive_connections=0)) as client:
        return [
            without(prefix or "/none", server, client.request(method, url + path, **options))
            for method, path, options in requests
        ]


FLASK: list[tuple[str, str, dict[str, Any]]] = [
    ("GET", "/", {}),
    ("GET", "/old", {}),
    ("GET", "/links", {}),
    ("GET", "/stream", {}),
    ("GET", "/missing", {}),
    ("GET", "/nowhere", {}),
    ("GET", "/static/style.css", {}),
    ("POST", "/cart/add", {"data": {"name": "tea"}}),
    ("POST", "/cart/add", {"data": {"name": "cup"}}),
    ("GET", "/cart/", {}),
    ("GET", "/cart", {}),
    ("DELETE", "/cart/", {}),
]


def test_a_flask_application_with_blueprints_sessions_and_templates(deployed, run_alone):
    alone = run_alone(
        lambda port: [sys.executable, "-m", "flask", "--app", "shop:create_app()", "run", "--port", str(port)],
        BIZS / "flask-shop",
    )

    assert asked(deployed("flask-shop"), FLASK, "/flask-shop") == asked(alone.url, FLASK, "")


FASTAPI: list[tuple[str, str, dict[str, Any]]] = [
    ("GET", "/", {}),
    ("GET", "/me", {"headers": {"x-user": "ann", "origin": "http://elsewhere"}}),
    ("PUT", "/items/tea", {"json": {"name": "tea", "colour": "blue", "parts": [{"name": "leaf"}]}}),
    ("PUT", "/items/tea", {"json": {"name": "much too long", "colour": "green"}}),
    ("GET", "/items/tea", {}),
    ("GET", "/items/cup", {}),
    ("GET", "/items/", {}),
    ("GET", "/items", {}),
    ("POST", "/later", {"json": {"text": "words"}}),
    ("POST", "/later", {"json": {"text": ""}}),
    ("POST", "/form", {"data": {"name": "x"}}),
    ("POST", "/form", {}),
    ("GET", "/teapot/tea", {}),
    ("GET", "/broken", {}),
    ("GET", "/stream", {}),
    ("GET", "/state", {}),
    ("GET", "/static/style.css", {}),
    ("GET", "/docs", {}),
    ("GET", "/redoc", {}),
    ("GET", "/nowhere", {}),
]


def has_done(server: str) -> bool:
    return bool(httpx.get(f"{server}/done").json() == ["words"])


def test_a_fastapi_application_with_all_that_a_tutorial_shows(deployed, run_alone):
    alone = run_alone(
        lambda port: [sys.executable, "-m", "uvicorn", "shop.main:app", "--port", str(port)], BIZS / "fastapi-shop"
    )
    url = deployed("fastapi-shop")

    assert asked(url, FASTAPI, "/fastapi-shop") == asked(alone.url, FASTAPI, "")

    for server in (url, alone.url):
        until(functools.partial(has_done, server))
    schema = httpx.get(f"{url}/openapi.json").json()
    assert schema.pop("servers") == [{"url": "/fastapi-shop"}]
    assert schema == httpx.get(f"{alone.url}/openapi.json").json()
    assert "url: '/fastapi-shop/openapi.json'" in httpx.get(f"{url}/docs").text
    with connect(f"ws{url.removeprefix('http')}/echo") as socket:
        socket.send("hello")
        said = json.loads(socket.recv())
    assert said == {"from": "you", "said": "hello", "path": "/fastapi-shop/echo"}


# --- Python itself -------------------------------------------------------------------------------------------------

TOUR = {
    "background": True,
    "dynamic": {
        "again": "one two",
        "missing": True,
        "names": ["one", "one two"],
        "namespace": "spread.deep.thing",
        "resolved": "one two",
        "walked": ["tour.app", "tour.logs", "tour.plugins", "tour.plugins.one", "tour.plugins.two", "tour.store"],
    },
    "gathered": [0, 1, 2],
    "insides": {
        "exec": "tour",
        "formatted": "3",
        "is_sequence": True,
        "main": "__main__",
        "module": True,
        "shown": ["leaf", "?"],
        "source": "return 4",
        "subclasses": ["Square"],
        "underscore": "word",
        "version": "1.0",
    },
    "logged": "TOUR.HERE SAID",
    "pickles": True,
    "pooled": [True, [0, 1, 2]],
    "resources": ["data of the tour\n"] * 3,
    "store": {"made": ["Owner", "Pet", "Pet"], "pets": ["Rex", "Tom"]},
    "typed": [True, True, True],
}


def test_two_modules_of_the_same_packages_use_all_of_python_and_leave_nothing(inside, artefact, tmp_path, monkeypatch):
    import builtins

    monkeypatch.setattr(builtins, "_", None, raising=False)  # an interactive statement leaves that, in any process
    one = artefact("tour")
    other = build_project(BIZS / "tour", Options(out=tmp_path, name="tour-again")).path
    for _ in range(3):
        inside.install(one)
        inside.install(other)
        for path in ("/tour/", "/tour-again/", "/tour/"):
            assert inside.get(path).json() == TOUR
        for identity in ("tour:1.0", "tour-again:1.0"):
            report = inside.uninstall(identity)
            assert report.clean, report.summary()
    assert vars(builtins)["_"] is None
    assert "tour" not in sys.modules
