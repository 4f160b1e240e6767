"""Each biz has its own entries in the registries of sqlite3."""

from __future__ import annotations

import contextlib
import decimal
import sqlite3
from typing import TYPE_CHECKING, Any

import pytest

from koupleless.context import entered

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.ownership.conftest import MakeBiz, TinyBiz

REGISTER = """
import decimal
import sqlite3
sqlite3.register_adapter(decimal.Decimal, lambda value: f"{who} {value}")
sqlite3.register_converter("money", lambda value: who + " " + value.decode())
"""


@pytest.fixture
def table() -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(":memory:", detect_types=sqlite3.PARSE_DECLTYPES, check_same_thread=False)
    with contextlib.closing(connection):
        connection.execute("create table t (x money)")
        yield connection


def written(table: sqlite3.Connection, biz: TinyBiz | None) -> Any:
    with entered(None if biz is None else biz.scope):
        table.execute("delete from t")
        table.execute("insert into t values (?)", (decimal.Decimal("1.5"),))
        (found,) = table.execute("select cast(x as text) from t").fetchone()
        return found


def read(table: sqlite3.Connection, biz: TinyBiz | None, stored: object) -> Any:
    with entered(None if biz is None else biz.scope):
        table.execute("delete from t")
        table.execute("insert into t values (?)", (stored,))
        (found,) = table.execute("select x from t").fetchone()
        return found


@pytest.mark.parametrize("first", [0, 1])
def test_two_bizs_register_the_same_type_and_leave_in_any_order(
    make_biz: MakeBiz, table: sqlite3.Connection, first: int
) -> None:
    bizs = [make_biz("one"), make_biz("two")]
    for biz in bizs:
        biz.run(REGISTER, who=biz.scope.biz.name)
    assert [written(table, biz) for biz in bizs] == ["one 1.5", "two 1.5"]
    assert [read(table, biz, "1") for biz in bizs] == ["one 1", "two 1"]

    leaver = bizs.pop(first)
    report = leaver.leave()
    assert report.clean, report
    (other,) = bizs
    name = other.scope.biz.name
    assert (written(table, other), read(table, other, "1")) == (f"{name} 1.5", f"{name} 1")

    report = other.leave()
    assert report.clean, report
    assert report.undone == {"sqlite3": 2}
    assert (decimal.Decimal, sqlite3.PrepareProtocol) not in sqlite3.adapters
    assert "MONEY" not in sqlite3.converters


def test_what_the_base_registered_is_the_base_s_all_the_time(biz: TinyBiz, table: sqlite3.Connection) -> None:
    sqlite3.register_adapter(decimal.Decimal, str)
    try:
        biz.run(REGISTER, who="tiny")
        assert (written(table, None), written(table, biz)) == ("1.5", "tiny 1.5")
        sqlite3.register_adapter(decimal.Decimal, lambda value: f"later {value}")
        assert (written(table, None), written(table, biz)) == ("later 1.5", "tiny 1.5")
        assert biz.leave().clean
        assert written(table, None) == "later 1.5"
    finally:
        del sqlite3.adapters[decimal.Decimal, sqlite3.PrepareProtocol]


def test_others_see_nothing_of_what_a_biz_registered(
    biz: TinyBiz, make_biz: MakeBiz, table: sqlite3.Connection
) -> None:
    class Conforming(decimal.Decimal):
        def __conform__(self, protocol: object) -> str:
            return "conforms"

    biz.run(REGISTER, who="tiny")
    biz.run("import sqlite3\nsqlite3.register_adapter(kind, lambda value: 'adapted')", kind=Conforming)
    for other in (None, make_biz("other")):
        with pytest.raises(sqlite3.Error, match="not supported"):
            written(table, other)
        assert [read(table, other, stored) for stored in (1, 1.5, "x", None)] == [1, 1.5, "x", None]
        with entered(None if other is None else other.scope):
            assert table.execute("select ?", (Conforming(1),)).fetchone() == ("conforms",)
    with entered(biz.scope):
        assert table.execute("select ?", (Conforming(1),)).fetchone() == ("adapted",)
    assert biz.leave().clean
