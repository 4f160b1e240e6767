"""Libraries of which there is one state in a process: modules with their own beside a base that uses them too."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.e2e.conftest import BaseProcess

CASES = Path(__file__).parent.parent / "bizs" / "shared"

BASE = '''
"""Uses every library of the cases itself, and shows its own state of each."""
from django.conf import settings

settings.configure(SECRET_KEY="secret of the base", ROOT_URLCONF="urls_of_base", ALLOWED_HOSTS=["*"])

import dash
from a2wsgi import WSGIMiddleware
from django.core.wsgi import get_wsgi_application
from fastapi import FastAPI
from google.protobuf import descriptor_pb2, descriptor_pool
from loguru import logger
from sqlmodel import Field, SQLModel

LINES = []
logger.remove()
logger.add(LINES.append, format="base: {message}")

file = descriptor_pb2.FileDescriptorProto(name="order.proto", package="shop", syntax="proto3")
file.message_type.add(name="Order").field.add(name="of_the_base", number=1, type=9, label=1)
descriptor_pool.Default().AddSerializedFile(file.SerializeToString())


class Hero(SQLModel, table=True):
    name: str = Field(primary_key=True)


dashed = dash.Dash(__name__, use_pages=True, pages_folder="")
dash.register_page("of_the_base", path="/of-the-base", layout=dash.html.Div("base"))

app = FastAPI()
app.mount("/django", WSGIMiddleware(get_wsgi_application()))


@app.get("/loguru")
def log():
    del LINES[:]
    logger.info("said by the base")
    return [str(line) for line in LINES]


@app.get("/protobuf")
def fields():
    return [f.name for f in descriptor_pool.Default().FindMessageTypeByName("shop.Order").fields]


@app.get("/sqlmodel")
def columns():
    return {name: list(table.columns.keys()) for name, table in SQLModel.metadata.tables.items()}


@app.get("/dash")
def pages():
    return list(dash.page_registry)
'''

URLS = """
from django.conf import settings
from django.http import HttpResponse
from django.urls import path

urlpatterns = [path("", lambda request: HttpResponse(f"urls of the base, {settings.SECRET_KEY}"))]
"""

OF_THE_BASE = {
    "/loguru": ["base: said by the base\n"],
    "/protobuf": ["of_the_base"],
    "/sqlmodel": {"hero": ["name"]},
    "/dash": ["of_the_base"],
}


@pytest.fixture(scope="module")
def warm_base(serve: Callable[..., BaseProcess], tmp_path_factory: pytest.TempPathFactory) -> BaseProcess:
    """A base that has imported every library of the cases, and uses each itself."""
    place = tmp_path_factory.mktemp("base")
    (place / "warm.py").write_text(BASE)
    (place / "urls_of_base.py").write_text(URLS)
    return serve("warm:app", cwd=place)


@pytest.fixture
def warm(warm_base: BaseProcess) -> Iterator[BaseProcess]:
    """The warm base without modules; its own state of every library has to be the same at the end."""
    yield warm_base
    warm_base.clear()
    assert warm_base.get("/django/").text == "urls of the base, secret of the base"
    assert {path: warm_base.get(path).json() for path in OF_THE_BASE} == OF_THE_BASE


@pytest.fixture(scope="module")
def empty_base(serve: Callable[..., BaseProcess]) -> BaseProcess:
    """A base without an application, which has the libraries installed and imports none of them."""
    return serve()


@pytest.fixture
def cold(empty_base: BaseProcess) -> Iterator[BaseProcess]:
    """The empty base without modules."""
    yield empty_base
    empty_base.clear()


def changed(case: str, place: Path, old: str, new: str, *, name: str | None = None) -> Path:
    """A copy of a case in which a text is another."""
    text = (CASES / case).read_text()
    assert old in text
    path = place / (name or case)
    path.write_text(text.replace(old, new))
    return path


# --- Django --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("base", ["warm", "cold"])
def test_each_django_project_answers_with_its_own_settings(
    base: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Two projects with equal package names keep their text and their secret while either is replaced or leaves."""
    process: BaseProcess = request.getfixturevalue(base)
    one, two = CASES / "django-two" / "one", CASES / "django-two" / "two"
    of_one, of_two = "urls of one, secret of one", "urls of two, secret of two"
    process.deploy(one)
    assert process.get("/djone/").text == of_one
    process.deploy(two)
    assert [process.get(path).text for path in ("/djone/", "/djtwo/")] == [of_one, of_two]

    again = shutil.copytree(one, tmp_path / "one")
    (again / "site_conf" / "settings.py").write_text(
        (one / "site_conf" / "settings.py").read_text().replace("secret of one", "another secret")
    )
    process.deploy(again)
    assert [process.get(path).text for path in ("/djone/", "/djtwo/")] == ["urls of one, another secret", of_two]

    assert "nothing left behind" in process.undeploy("djone")
    assert process.get("/djone/").status_code == 404
    assert process.get("/djtwo/").text == of_two
    process.deploy(one)
    assert [process.get(path).text for path in ("/djone/", "/djtwo/")] == [of_one, of_two]
    assert "nothing left behind" in process.undeploy("djtwo")
    assert process.get("/djone/").text == of_one
    assert "nothing left behind" in process.undeploy("djone")


# --- loguru --------------------------------------------------------------------------------------------------------


def test_each_module_writes_to_the_sinks_it_has_added(warm: BaseProcess) -> None:
    """Each of base and modules finds exactly its own lines in its own format, also after another has left."""
    warm.deploy(CASES / "logone.py")
    warm.deploy(CASES / "logtwo.py")
    for count in (1, 2):
        assert warm.get("/logone/").json() == ["one: said by one\n"] * count
        assert warm.get("/logtwo/").json() == ["two: said by two\n"] * count
        assert warm.get("/loguru").json() == OF_THE_BASE["/loguru"]
    assert "nothing left behind" in warm.undeploy("logtwo")
    assert warm.get("/logone/").json() == ["one: said by one\n"] * 3
    warm.deploy(CASES / "logone.py")
    assert warm.get("/logone/").json() == ["one: said by one\n"], "a new version has lines of its own"
    assert "nothing left behind" in warm.undeploy("logone")


# --- SQLModel ------------------------------------------------------------------------------------------------------

HEROES = """
from sqlmodel import Session, create_engine, select
from sqlalchemy.pool import StaticPool


@app.get("/")
def saved():
    engine = create_engine("sqlite://", poolclass=StaticPool)
    SQLModel.metadata.create_all(engine)
    with Session(engine) as session:
        session.add(Hero())
        session.commit()
        return {name: len(session.exec(select(Hero)).all()) for name in SQLModel.metadata.tables["hero"].columns.keys()}
"""
APP = "app = FastAPI()\n"
KEY = "    id: int | None = Field(default=None, primary_key=True)\n"


def test_a_module_with_a_table_is_replaced_and_another_has_the_same_table(warm: BaseProcess, tmp_path: Path) -> None:
    """The class of a table is declared by a new version, by a second module and by the base without a conflict."""
    heroes = CASES / "heroes.py"
    warm.deploy(heroes)
    warm.deploy(heroes)
    assert warm.get("/heroes/openapi.json").status_code == 200
    warm.deploy(changed("heroes.py", tmp_path, APP, APP + HEROES))
    assert warm.get("/heroes/").json() == {"id": 1}
    warm.deploy(changed("heroes.py", tmp_path, APP, APP + HEROES, name="villains.py"))
    assert [warm.get(path).json() for path in ("/heroes/", "/villains/")] == [{"id": 1}] * 2
    wider = changed("heroes.py", tmp_path, KEY, KEY + "    name: str = 'nobody'\n")
    wider.write_text(wider.read_text() + HEROES)
    warm.deploy(wider)
    assert warm.get("/heroes/").json() == {"id": 1, "name": 1}
    assert warm.get("/villains/").json() == {"id": 1}
    assert "nothing left behind" in warm.undeploy("villains")
    assert warm.get("/heroes/").json() == {"id": 1, "name": 1}
    assert "nothing left behind" in warm.undeploy("heroes")


# --- Protocol buffers ----------------------------------------------------------------------------------------------


def test_a_message_of_the_next_version_may_have_other_fields(warm: BaseProcess, tmp_path: Path) -> None:
    """A file of a known name with another content is added by a new version, by a second module, and by the base."""
    warm.deploy(CASES / "orders.py")
    assert warm.get("/orders/").json() == ["amount"]
    warm.deploy(changed("orders.py", tmp_path, '"amount"', '"total"'))
    assert warm.get("/orders/").json() == ["total"]
    warm.deploy(changed("orders.py", tmp_path, '"amount"', '"weight"', name="parcels.py"))
    assert [warm.get(path).json() for path in ("/orders/", "/parcels/")] == [["total"], ["weight"]]
    assert "nothing left behind" in warm.undeploy("orders")
    assert warm.get("/parcels/").json() == ["weight"]
    assert "nothing left behind" in warm.undeploy("parcels")
    warm.deploy(CASES / "orders.py")
    assert warm.get("/orders/").json() == ["amount"]


# --- Dash ----------------------------------------------------------------------------------------------------------

PAGES = """

@server.get("/pages")
def pages():
    return list(dash.page_registry)
"""
FIRST = 'dash.register_page("first", path="/first"'


def test_each_dash_application_has_its_own_pages(warm: BaseProcess, tmp_path: Path) -> None:
    """Pages that modules and base register do not mix, though Dash keeps them in one registry and in context."""
    warm.deploy(CASES / "dashed.py")
    index = warm.get("/dashed/")
    assert (index.status_code, "/dashed/_dash-component-suites/" in index.text) == (200, True)
    assert "_pages_content" in warm.get("/dashed/_dash-layout").text

    path = changed("dashed.py", tmp_path, FIRST, 'dash.register_page("changed", path="/changed"')
    path.write_text(path.read_text() + PAGES)
    warm.deploy(path)
    assert warm.get("/dashed/pages").json() == ["changed"]
    other = changed("dashed.py", tmp_path, '"/dashed/"', '"/board/"', name="board.py")
    other.write_text(other.read_text() + PAGES)
    warm.deploy(other)
    assert [warm.get(f"/{name}/pages").json() for name in ("dashed", "board")] == [["changed"], ["first"]]
    assert "nothing left behind" in warm.undeploy("dashed")
    assert warm.get("/board/pages").json() == ["first"]
    assert warm.get("/board/_dash-layout").status_code == 200
    assert "nothing left behind" in warm.undeploy("board")
