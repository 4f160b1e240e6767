"""Kinds of registration that keep no biz alive, or only in a cache; and kinds that nothing undoes, which are named."""

from __future__ import annotations

import functools
import sys
import types
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import click
import fastapi  # noqa: F401 - by the base, before any module uses it
import flask  # noqa: F401
import httpx  # noqa: F401
import jinja2
import msgspec  # noqa: F401
import pydantic
import pytest

if TYPE_CHECKING:
    from tests.ownership.conftest import Trial

T = TypeVar("T")


class Page(pydantic.BaseModel, Generic[T]):
    """A parametrised generic of the base."""

    items: list[T]


@functools.lru_cache
def cached(key: object) -> object:
    return key


@functools.singledispatch
def dispatched(thing: object) -> str:
    return "anything"


INERT = {
    "nothing": "",
    "a subclass of a base class": "class Own(shared.Shared): f = reach",
    "an instance of a base class": "own = shared.Shared(); own.back = reach",
    "ABC.register": "import collections.abc as abc\nabc.Sized.register(K)",
    "isinstance against a base ABC": "import collections.abc as abc\nassert not isinstance(K(), abc.Sized)",
    "a PEP 604 union": "U = K | None",
    "a generic of the built-in list": "L = list[K]",
    "an enum": "import enum\nclass E(enum.Enum):\n    A = 1\n    f = reach",
    "a dataclass": "import dataclasses\n@dataclasses.dataclass\nclass D:\n    k: K = None\n    f = reach",
    "a NamedTuple": "import typing\nclass N(typing.NamedTuple):\n    k: K\n    def f(self): return K",
    "a typed dictionary": "import typing\nclass D(typing.TypedDict):\n    k: K",
    "a protocol": "import typing\n@typing.runtime_checkable\nclass P(typing.Protocol):\n    def f(self): return K\n"
    "isinstance(K(), P)",
    "a pydantic model": "import pydantic\nclass M(pydantic.BaseModel):\n    x: int\n    def f(self): return K\nM(x=1)",
    "a pydantic TypeAdapter": "import pydantic\nA = pydantic.TypeAdapter(list[int])\nA.k = K",
    "a msgspec Struct": "import msgspec\nclass S(msgspec.Struct):\n    x: int\n    def f(self): return K\n"
    "assert msgspec.json.decode(msgspec.json.encode(S(1)), type=S).x == 1",
    "a Flask application": "import flask\napp = flask.Flask('app')\napp.route('/')(reach)\napp.test_client().get('/')",
    "an httpx client": "import httpx\nc = httpx.Client(transport=httpx.MockTransport(lambda r: httpx.Response(200)))\n"
    "c.k = K\nassert c.get('http://x/').status_code == 200",
    "a jinja template": "import jinja2\ne = jinja2.Environment()\ne.filters['k'] = reach\n"
    "e.from_string('{{ 1 | k }}').render()",
    "a compiled pattern": "import re\np = re.compile('row[0-9]')\nre.sub('row(.)', reach and 'x', 'row1')",
    "a mimetype": "import mimetypes\nmimetypes.add_type('application/x-row', '.row')",
    "an idle own executor": "from concurrent.futures import ThreadPoolExecutor\np = ThreadPoolExecutor(1)\n"
    "p.submit(reach).result()",
}

CACHED = {
    "a cache of the base": ("shared.cached(K)", "lru cache"),
    "a cache of the base, by an instance": ("k = K()\nshared.cached(k)", "lru cache"),
    "a FastAPI application": (
        "import fastapi\napp = fastapi.FastAPI()\n@app.get('/')\ndef index(x: int = 1): return {'k': repr(K)}",
        "lru cache",
    ),
    "typing.List": ("import typing\nL = typing.List[K]", ""),
    "typing.Optional": ("import typing\nO = typing.Optional[K]", ""),
    "typing.Annotated": ("import typing\nA = typing.Annotated[K, 1]", ""),
    "typing.Generic": ("import typing\nT = typing.TypeVar('T')\nclass G(typing.Generic[T]): pass\nX = G[K]", ""),
    "a pydantic generic of the base": (
        (
            "import pydantic\nclass M(pydantic.BaseModel):\n    x: int\n    def f(self): return K\n"
            "P = shared.Page[M]\nassert P(items=[{'x': 1}]).items[0].x == 1"
        ),
        "",
    ),
    "a pydantic generic of its own": (
        (
            "import pydantic, typing\nT = typing.TypeVar('T')\n"
            "class G(pydantic.BaseModel, typing.Generic[T]):\n    x: T\n    def f(self): return K\nG[int](x=1)"
        ),
        "",
    ),
    "a function of the base with single dispatch": ("shared.dispatched.register(K)(reach)", "singledispatch"),
    "single dispatch by annotation": (
        "@shared.dispatched.register\ndef _(thing: K) -> str: return 'mine'\nassert shared.dispatched(K()) == 'mine'",
        "singledispatch",
    ),
}


@pytest.fixture
def given() -> dict[str, Any]:
    class Shared:
        pass

    return {"Shared": Shared, "cached": cached, "Page": Page, "dispatched": dispatched}


@pytest.mark.parametrize("source", INERT.values(), ids=list(INERT))
def test_what_keeps_nothing_alive(trial: Trial, given: dict[str, Any], source: str) -> None:
    trial(source, **given)


@pytest.mark.parametrize(("source", "kind"), CACHED.values(), ids=list(CACHED))
def test_what_a_cache_keeps(trial: Trial, given: dict[str, Any], source: str, kind: str) -> None:
    dispatched.register(int)(lambda thing: "number")
    page = Page[bytes]
    report = trial(source, **given)
    assert not kind or report.undone[kind] >= 1
    assert (dispatched(1), dispatched("x")) == ("number", "anything")
    assert Page[bytes] is page


def test_a_cache_that_holds_nothing_of_the_module_keeps_its_entries(trial: Trial) -> None:
    @functools.lru_cache
    def engine() -> object:
        return object()

    made = engine()
    trial("shared.engine()\nshared.cached(K)", engine=engine, cached=cached)
    assert engine() is made
    assert sys.modules.get("app") is None


# --- what cannot be recorded: the report says who holds it -----------------------------------------------------------


REGISTRIES: dict[str, tuple[Any, str]] = {
    "a list": ([], "shared.registry.append(reach)"),
    "a dictionary": ({}, "shared.registry['row'] = K"),
    "a set": (set(), "shared.registry.add(K)"),
    "an object": (types.SimpleNamespace(), "shared.registry.hook = reach"),
    "a click group": (click.Group("row"), "import click\nshared.registry.command('row')(lambda: K)"),
    "the filters of a jinja environment": (jinja2.Environment(), "shared.registry.filters['row'] = reach"),
    "a suspended generator": ([], "def g():\n    yield K\ng = g()\nnext(g)\nshared.registry.append(g)"),
    "an exception": ([], "try:\n    1 / 0\nexcept ZeroDivisionError as e:\n    shared.registry.append(e)"),
}


@pytest.mark.parametrize(("registry", "source"), REGISTRIES.values(), ids=list(REGISTRIES))
def test_a_registry_of_the_base_s_own_is_named_by_the_report(trial: Trial, registry: Any, source: str) -> None:
    report = trial.leave(trial.install(source, registry=registry))
    assert not report.clean
    assert "registry" in report.summary() or "REGISTRIES" in report.summary()
