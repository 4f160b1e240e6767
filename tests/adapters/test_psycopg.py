"""psycopg: global adapters, and functions for JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

psycopg: Any = pytest.importorskip("psycopg")

if TYPE_CHECKING:
    from tests.adapters.conftest import Fleet

MODULE = """
import psycopg
from psycopg.adapt import Dumper
from psycopg.types.json import Json, set_json_dumps

class Point: ...

class Own(Dumper):
    def dump(self, obj):
        return b"{name}"

psycopg.adapters.register_dumper(Point, Own)
psycopg.adapters.register_dumper(int, Own)
set_json_dumps(lambda value: '"{name}"')

def literals():
    adapt = psycopg.adapt.Transformer()
    return [bytes(adapt.as_literal(thing)) for thing in (Point(), 1, Json({{}}))]

def of_a_copy():
    adapters = psycopg.adapt.AdaptersMap(psycopg.adapters)
    return adapters.get_dumper(int, psycopg.adapt.PyFormat.TEXT).__name__
"""


def literal(thing: object) -> bytes:
    return bytes(psycopg.adapt.Transformer().as_literal(thing))


def test_adapters_are_each_module_s_own(fleet: Fleet) -> None:
    before = literal(1), literal(psycopg.types.json.Json({}))
    one, two = (fleet.start(name, MODULE.format(name=name)) for name in ("one", "two"))
    for name, module in ((b"one", one), (b"two", two)):
        point, number, document = module.call("literals")
        assert [point, number] == [b"'" + name + b"'"] * 2
        assert name in document
        assert module.call("of_a_copy") == "Own"
    assert (literal(1), literal(psycopg.types.json.Json({}))) == before
    again = fleet.start("one", MODULE.format(name="newer"))
    assert [again.call("literals")[1], two.call("literals")[1]] == [b"'newer'", b"'two'"]
    fleet.stop_all()
    assert (literal(1), literal(psycopg.types.json.Json({}))) == before
    assert type(psycopg.adapters) is psycopg.adapt.AdaptersMap


def test_adapters_of_the_base_are_what_modules_start_with(fleet: Fleet) -> None:
    own = type("Own", (psycopg.adapt.Dumper,), {"dump": lambda *_: b"base"})
    psycopg.adapters.register_dumper(complex, own)
    one = fleet.start("one", "import psycopg\ndef see(): return bytes(psycopg.adapt.Transformer().as_literal(1j))\n")
    assert one.call("see") == b"'base'"
    fleet.stop_all()
