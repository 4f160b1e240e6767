"""Small libraries of many kinds, each configured by the base and by two modules: nobody sees the setting of another.

A few of many, which are cheap to install; a script tries the heavy ones and writes the table of the documentation.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import pytest
from tests.conftest import unmeasured

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.e2e.conftest import BaseProcess


@dataclass(frozen=True)
class Use:
    """How a library is configured, and how the effect is seen: ``configure(value)``, then ``show() == value``."""

    kind: str
    source: str
    values: tuple[Any, Any, Any, Any] = ("base", "first", "second", "changed")
    """Of the base, of two modules, and of the next version of the first."""


USES: Final = {
    "structlog": Use(
        "a front end of logging",
        """
import structlog

def configure(value):
    structlog.configure(
        processors=[lambda logger, name, event: value],
        wrapper_class=structlog.BoundLogger,
        logger_factory=structlog.ReturnLoggerFactory(),
    )

def show():
    return structlog.get_logger().info("anything")
""",
    ),
    "bugsnag": Use(
        "a client that is configured for the process",
        """
import bugsnag

def configure(value):
    bugsnag.configure(api_key="a" * 32, release_stage=value, auto_notify=False)

def show():
    return bugsnag.configuration.release_stage
""",
    ),
    "tinydb": Use(
        "an option that is an attribute of a class",
        """
from tinydb import TinyDB
from tinydb.storages import MemoryStorage

def configure(value):
    TinyDB.default_table_name = value

def show():
    with TinyDB(storage=MemoryStorage) as database:
        database.insert({"a": 1})
        return " ".join(database.tables())
""",
    ),
    "marshmallow": Use(
        "a registry of classes by name",
        """
from marshmallow import Schema, fields

def configure(value):
    type("ItemSchema", (Schema,), {value: fields.String(), "__module__": __name__})

class OrderSchema(Schema):
    item = fields.Nested("ItemSchema")

def show():
    try:
        return " ".join(OrderSchema().fields["item"].schema.fields)
    except Exception as error:
        return repr(error)
""",
    ),
    "cattrs": Use(
        "hooks of a default converter",
        """
import cattrs

def configure(value):
    cattrs.register_unstructure_hook(complex, lambda number: value)

def show():
    return str(cattrs.unstructure(1j))
""",
    ),
    "pyyaml": Use(
        "constructors of a class",
        """
import yaml

def configure(value):
    yaml.SafeLoader.add_constructor("!setting", lambda loader, node: value)

def show():
    try:
        return yaml.safe_load("!setting x")
    except yaml.YAMLError:
        return None
""",
    ),
    "jinja2": Use(
        "defaults in a dictionary",
        """
import jinja2
import jinja2.defaults

def configure(value):
    jinja2.defaults.DEFAULT_FILTERS["setting"] = lambda number: value

def show():
    try:
        return jinja2.Environment().from_string("{{ 1|setting }}").render()
    except jinja2.TemplateAssertionError:
        return None
""",
    ),
    "pyjwt": Use(
        "algorithms by name",
        """
import jwt
from jwt.algorithms import Algorithm
from jwt.utils import base64url_decode

class Fixed(Algorithm):
    def __init__(self, value):
        self.value = value

    def prepare_key(self, key):
        return key

    def sign(self, msg, key):
        return self.value.encode()

    def verify(self, msg, key, sig):
        return True

    @staticmethod
    def to_jwk(key_obj, as_dict=False):
        raise NotImplementedError

    @staticmethod
    def from_jwk(jwk):
        raise NotImplementedError

def configure(value):
    jwt.register_algorithm("SETTING", Fixed(value))

def show():
    try:
        return base64url_decode(jwt.encode({}, "key", algorithm="SETTING").rpartition(".")[2]).decode()
    except NotImplementedError:
        return None
""",
    ),
    "blinker": Use(
        "signals by name",
        """
from blinker import signal

def configure(value):
    signal("saved").connect(lambda sender: value, weak=False)

def show():
    return " ".join(sorted(answer for _, answer in signal("saved").send()))
""",
    ),
    "humanize": Use(
        "a locale that is set at import",
        """
import humanize

MILLION = {"million": "", "Million": "de_DE", "millón": "es_ES", "milione": "it_IT", "miljoen": "nl_NL"}

def configure(value):
    humanize.activate(value)

def show():
    return MILLION[humanize.intword(1_000_000).split()[1]]
""",
        values=("de_DE", "es_ES", "it_IT", "nl_NL"),
    ),
    "numpy": Use(
        "an option of a compiled library",
        """
import numpy

def configure(value):
    numpy.set_printoptions(precision=value)

def show():
    return str(numpy.array([1 / 3])).count("3")
""",
        values=(3, 4, 5, 6),
    ),
    "sqlalchemy": Use(
        "a listener on a class for all engines",
        """
from sqlalchemy import create_engine, event, text
from sqlalchemy.engine import Engine

def configure(value):
    @event.listens_for(Engine, "before_cursor_execute", retval=True)
    def before_cursor_execute(conn, cursor, statement, parameters, context, executemany):
        return f"{statement} || '{value}'", parameters

def show():
    engine = create_engine("sqlite://")
    with engine.connect() as connection:
        return connection.execute(text("select ''")).scalar()
""",
    ),
    "celery": Use(
        "one application for a process",
        """
from celery import Celery, current_app

KEPT = []

def configure(value):
    KEPT.append(Celery(value))
    KEPT[0].set_default()

def show():
    return current_app.main
""",
    ),
    "requests": Use(
        "a function that is replaced",
        """
import requests
import requests.utils

def configure(value):
    requests.utils.default_user_agent = lambda name="": value

def show():
    return requests.Session().headers["User-Agent"]
""",
    ),
}

SERVING: Final = """
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

async def answer(request):
    return JSONResponse(show())

app = Starlette(routes=[Route("/", answer)])
"""

BASE: Final = """
import importlib

from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

USES = {{name: importlib.import_module(f"base_{{name}}") for name in {names}}}

async def answer(request):
    return JSONResponse(USES[request.path_params["name"]].show())

app = Starlette(routes=[Route("/base/{{name}}", answer)])
"""

NOTHING: Final = object()


def program(library: str, value: Any = NOTHING) -> str:
    """The text of a module that uses a library, and configures it with a value if one is given."""
    configured = "" if value is NOTHING else f"\nconfigure({value!r})\n"
    return USES[library].source + configured + SERVING


@pytest.fixture(scope="module")
def base(serve: Callable[..., BaseProcess], tmp_path_factory: pytest.TempPathFactory) -> BaseProcess:
    """A base that has configured every library before its first module comes."""
    place = tmp_path_factory.mktemp("base")
    for name, use in USES.items():
        (place / f"base_{name}.py").write_text(program(name, use.values[0]), encoding="utf-8")
    (place / "base_app.py").write_text(BASE.format(names=tuple(USES)))
    return serve("base_app:app", cwd=place)


@pytest.fixture
def kept(base: BaseProcess, tmp_path: Path) -> Iterator[Callable[..., str]]:
    """``kept(name, text)`` deploys a module of one file; all are gone afterwards."""

    def deploy(name: str, text: str) -> str:
        path = tmp_path / f"{name}.py"
        path.write_text(text, encoding="utf-8")
        return base.deploy(path)

    yield deploy
    base.clear()


def test_every_setting_shows_in_a_process_of_its_own(tmp_path: Path) -> None:
    """Each program shows the value that it configures when nothing but itself runs in the process."""
    for name, use in USES.items():
        (tmp_path / f"alone_{name}.py").write_text(program(name, use.values[1]), encoding="utf-8")
    script = (
        f"import json, importlib\nprint(json.dumps([importlib.import_module('alone_' + n).show() for n in {[*USES]}]))"
    )
    command = [sys.executable, "-c", script]
    done = subprocess.run(
        command, cwd=tmp_path, env=unmeasured(), capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert dict(zip(USES, json.loads(done.stdout), strict=True)) == {name: use.values[1] for name, use in USES.items()}


@pytest.mark.parametrize("library", USES)
def test_base_and_modules_configure_a_library_each_for_itself(
    base: BaseProcess, kept: Callable[..., str], library: str
) -> None:
    """Base, two modules, one that configures nothing and a new version keep their settings until all have left."""
    of_base, first, second, changed = USES[library].values

    def seen(*modules: str) -> list[Any]:
        return [base.get(path).json() for path in (f"/base/{library}", *(f"/{module}/" for module in modules))]

    assert seen() == [of_base]
    kept("one", program(library, first))
    assert seen("one") == [of_base, first]
    kept("two", program(library, second))
    assert seen("one", "two") == [of_base, first, second]
    kept("three", program(library))
    assert seen("three")[1] not in (first, second), "it configures nothing"
    assert seen("one", "two") == [of_base, first, second]
    kept("one", program(library, changed))
    assert seen("one", "two") == [of_base, changed, second]

    assert "nothing left behind" in base.undeploy("one")
    assert seen("two") == [of_base, second]
    assert "nothing left behind" in base.undeploy("two")
    assert "nothing left behind" in base.undeploy("three")
    assert seen() == [of_base]
    kept("one", program(library, first))
    assert seen("one") == [of_base, first]


@pytest.mark.parametrize("library", ["structlog", "pyyaml", "blinker", "tinydb"])
def test_a_module_that_does_not_start_leaves_no_setting(
    base: BaseProcess, kept: Callable[..., str], tmp_path: Path, library: str
) -> None:
    """A module configures a library, fails to start, and base and running modules still have their own settings."""
    of_base, first, second, _ = USES[library].values
    kept("one", program(library, first))
    broken = tmp_path / "broken.py"
    broken.write_text(program(library, second) + "\nraise RuntimeError('not today')\n", encoding="utf-8")
    assert "not today" in base.say("deploy", broken, fails=True)
    assert [base.get(f"/base/{library}").json(), base.get("/one/").json()] == [of_base, first]
