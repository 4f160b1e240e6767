"""Modules bring other versions of a library than the base has: side by side, in any order, again and again."""

from __future__ import annotations

import importlib
import importlib.metadata
import sys
from typing import Any

import pytest

pytestmark = pytest.mark.network

SERVE = """
import json
import sys
from importlib.metadata import version

def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(answer()).encode()]
"""

PYDANTIC = (
    SERVE
    + """
import pickle
from typing import Generic, TypeVar

import pydantic
import pydantic_core

T = TypeVar("T")

class Item(pydantic.BaseModel):
    name: str
    price: "Price"

class Price(pydantic.BaseModel):
    amount: float

class Page(pydantic.BaseModel, Generic[T]):
    items: list[T]

Item.model_rebuild()

def answer():
    item = Item(name="tea", price={"amount": "2.5"})
    try:
        Item(name=1, price=None)
        said = ""
    except pydantic.ValidationError as error:
        said = error.errors()[0]["url"]
    return {
        "says": pydantic.VERSION,
        "metadata": version("pydantic"),
        "core": pydantic_core.__version__,
        "core_metadata": version("pydantic-core"),
        "item": json.loads(item.model_dump_json()),
        "page": Page[Item](items=[item]).model_dump(mode="json"),
        "again": pickle.loads(pickle.dumps(item)) == item,
        "url": said,
        "required": pydantic.TypeAdapter(list[Item]).json_schema()["$defs"]["Item"]["required"],
        "same": sys.modules["pydantic"] is pydantic,
    }
"""
)


def expected_of_pydantic(version: str, core: str) -> dict[str, Any]:
    return {
        "says": version,
        "metadata": version,
        "core": core,
        "core_metadata": core,
        "item": {"name": "tea", "price": {"amount": 2.5}},
        "page": {"items": [{"name": "tea", "price": {"amount": 2.5}}]},
        "again": True,
        "url": f"https://errors.pydantic.dev/{version.rpartition('.')[0]}/v/string_type",
        "required": ["name", "price"],
        "same": True,
    }


@pytest.fixture(scope="module")
def pydantics(inside_all):
    """The same application with an older pydantic, with a newer one, and with that of the base."""
    files = {"app.py": PYDANTIC}
    return {
        "old": inside_all.build("old", "1.0", files, needs=["pydantic==2.8.2"]),
        "new": inside_all.build("new", "1.0", files, needs=["pydantic==2.10.6"]),
        "shared": inside_all.build("shared", "1.0", files, needs=["pydantic"]),
    }


@pytest.mark.parametrize(
    "order",
    [("old", "new", "shared"), ("shared", "new", "old"), ("new", "shared", "old")],
    ids="-".join,
)
def test_each_module_has_its_own_pydantic_and_its_compiled_core(inside, pydantics, order):
    import pydantic

    of_base = (pydantic, sys.modules["pydantic"], sys.modules["pydantic_core"])
    expected = {
        "old": expected_of_pydantic("2.8.2", "2.20.1"),
        "new": expected_of_pydantic("2.10.6", "2.27.2"),
        "shared": expected_of_pydantic(pydantic.VERSION, importlib.metadata.version("pydantic-core")),
    }

    for name in order:
        inside.install(pydantics[name])
    for _ in range(2):
        for name in order:
            assert inside.get(f"/{name}/").json() == expected[name]
        report = inside.uninstall(f"{order[1]}:1.0")
        assert report.clean, report.summary()
        for name in (order[0], order[2]):
            assert inside.get(f"/{name}/").json() == expected[name]
        inside.install(pydantics[order[1]])
    for name in order:
        report = inside.uninstall(f"{name}:1.0")
        assert report.clean, report.summary()

    assert (pydantic, sys.modules["pydantic"], sys.modules["pydantic_core"]) == of_base
    assert importlib.metadata.version("pydantic") == pydantic.VERSION


LIBRARIES = (
    SERVE
    + """
import click
import jinja2
import markupsafe
import msgspec
import orjson
from click.testing import CliRunner

class Point(msgspec.Struct):
    x: int
    y: int = 0

@click.command()
@click.option("--name")
def hello(name):
    click.echo(f"hello {name}")

def answer():
    page = jinja2.Environment(autoescape=True).from_string("<b>{{ name }}</b>{{ sure }}")
    return {
        "versions": {name: version(name) for name in ("click", "jinja2", "markupsafe", "msgspec", "orjson")},
        "page": page.render(name="<x>", sure=markupsafe.Markup("<i>")),
        "one_markup": jinja2.filters.Markup is markupsafe.Markup,
        "native": markupsafe._escape_inner.__module__,
        "point": msgspec.json.decode(b'{"x": 1}', type=Point) == Point(1),
        "json": orjson.dumps({"a": Point.__name__}).decode(),
        "orjson": orjson.__version__,
        "said": CliRunner().invoke(hello, ["--name", "you"]).output,
    }
"""
)

OLD = {"click": "8.1.7", "jinja2": "3.1.4", "markupsafe": "3.0.0", "msgspec": "0.19.0", "orjson": "3.10.10"}
NEW = {"click": "8.1.8", "jinja2": "3.1.5", "markupsafe": "3.0.2", "msgspec": "0.20.0", "orjson": "3.10.15"}


VERSIONS = {"older": OLD, "newer": NEW}


@pytest.fixture(scope="module")
def libraries(inside_all):
    files = {"app.py": LIBRARIES}
    return {
        name: inside_all.build(name, "1.0", files, needs=[f"{library}=={version}" for library, version in pins.items()])
        for name, pins in VERSIONS.items()
    }


@pytest.mark.parametrize("order", [("older", "newer"), ("newer", "older")], ids="-".join)
def test_pure_and_compiled_libraries_in_two_versions_each(inside, libraries, order):
    of_base = {name: sys.modules.get(name) for name in ("click", "jinja2", "markupsafe", "msgspec", "orjson")}

    for _ in range(2):
        for name in order:
            inside.install(libraries[name])
        for name in order:
            assert inside.get(f"/{name}/").json() == {
                "versions": VERSIONS[name],
                "page": "<b>&lt;x&gt;</b><i>",
                "one_markup": True,
                "native": "markupsafe._speedups",
                "point": True,
                "json": '{"a":"Point"}',
                "orjson": VERSIONS[name]["orjson"],
                "said": "hello you\n",
            }
        for name in order:
            report = inside.uninstall(f"{name}:1.0")
            assert report.clean, report.summary()

    assert {name: sys.modules.get(name) for name in of_base} == of_base
    assert "orjson" not in sys.modules


NUMPY = (
    SERVE
    + """
import pickle

import numpy

class Series:
    def __init__(self, values):
        self.values = numpy.array(values)

def answer():
    series = Series([1, 2, 3])
    again = pickle.loads(pickle.dumps(series))
    return {
        "version": numpy.__version__,
        "metadata": version("numpy"),
        "mean": float(again.values.mean()),
        "product": (numpy.eye(2) @ numpy.array([1.0, 2.0])).tolist(),
        "random": numpy.random.default_rng(1).integers(10, size=3).tolist(),
        "fft": numpy.fft.fft([1, 0, 0, 0]).real.tolist(),
        "inverse": numpy.linalg.inv(numpy.array([[2.0, 0], [0, 4.0]])).tolist(),
        "object": numpy.array([series], dtype=object)[0] is series,
        "structured": numpy.zeros(1, dtype=[("a", "i4")])["a"].tolist(),
    }
"""
)


def test_numpy_of_its_own_is_installed_used_removed_and_installed_again(inside):
    private = inside.build("private-numpy", "1.0", {"app.py": NUMPY}, needs=["numpy==2.2.6"])
    shared = inside.build("shared-numpy", "1.0", {"app.py": NUMPY}, needs=["numpy"])
    of_base = importlib.metadata.version("numpy")

    def expected(version: str) -> dict[str, Any]:
        answer = {"version": version, "metadata": version, "mean": 2.0, "product": [1.0, 2.0], "random": [4, 5, 7]}
        more = {"fft": [1.0] * 4, "inverse": [[0.5, 0.0], [0.0, 0.25]], "object": True, "structured": [0]}
        return answer | more

    for _ in range(3):
        inside.install(private)
        assert inside.get("/private-numpy/").json() == expected("2.2.6")
        inside.install(shared)
        assert inside.get("/shared-numpy/").json() == expected(of_base)
        assert inside.get("/private-numpy/").json() == expected("2.2.6")
        report = inside.uninstall("private-numpy:1.0")
        assert report.clean, report.summary()
        assert inside.get("/shared-numpy/").json() == expected(of_base)
        report = inside.uninstall("shared-numpy:1.0")
        assert report.clean, report.summary()

    assert sys.modules["numpy"].__version__ == of_base
