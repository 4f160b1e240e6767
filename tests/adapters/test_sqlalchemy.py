"""SQLAlchemy: listeners on its classes, compilers, dialects, reflected types, mappers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa
import sqlalchemy.dialects.sqlite.base
import sqlalchemy.ext.compiler
from sqlalchemy import orm
from sqlalchemy.dialects import registry as dialects

from koupleless.testing import loaded

if TYPE_CHECKING:
    from tests.adapters.conftest import Fleet

# From 3.13 on, sqlite3 warns of connections that pools have left to the collector.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed database:ResourceWarning")

MODULE = """
import sqlalchemy as sa
import sqlalchemy.dialects.sqlite.base
import sqlalchemy.orm as orm
from sqlalchemy.ext.compiler import compiles

heard = []
Engine, Session, Pool = sa.Engine, orm.Session, sa.pool.Pool

@sa.event.listens_for(Engine, "before_cursor_execute", retval=True)
def rewrite(conn, cursor, statement, parameters, context, executemany):
    return statement.replace("'who'", "'{name}'"), parameters

@sa.event.listens_for(Engine, "connect")
def connected(connection, record):
    heard.append("connect")

@sa.event.listens_for(Session, "after_begin")
def begun(session, transaction, connection):
    heard.append("begin")


@sa.event.listens_for(Pool, "checkout", named=True)
def out(**kw):
    heard.append(sorted(kw)[0])

@compiles(sa.sql.functions.now)
def now(element, compiler, **kw):
    return "'{name} now'"

@compiles(sa.Integer, "sqlite")
def integer(element, compiler, **kw):
    return "INTEGER_{name}"

class Own(sa.Integer):
    pass

sa.dialects.sqlite.base.ischema_names["OWN"] = Own
sa.dialects.registry.register("own", "sqlalchemy.dialects.sqlite.pysqlite", "{dialect}")

class Base(orm.DeclarativeBase):
    pass

class Item(Base):
    __tablename__ = "item"
    id: orm.Mapped[int] = orm.mapped_column(primary_key=True)

engine = sa.create_engine("sqlite://")

def used():
    heard.clear()
    with orm.Session(engine) as session:
        value = session.scalar(sa.text("select 'who'"))
    engine.dispose()
    return value, sorted(heard)

def compiled():
    return str(sa.select(sa.func.now())), str(sa.schema.CreateTable(Item.__table__).compile(dialect=engine.dialect))

def reflected():
    return sa.dialects.sqlite.base.SQLiteDialect.ischema_names["OWN"] is Own

def dialect():
    return type(sa.create_engine("own://").dialect).__name__

def configured():
    orm.configure_mappers()
    return Item(id=3).id

def broken():
    class Broken(Base):
        __tablename__ = "broken"
        id: orm.Mapped[int] = orm.mapped_column(primary_key=True)
        other = orm.relationship("Absent")
    try:
        orm.configure_mappers()
    except sa.exc.InvalidRequestError:
        return True

def cleared():
    orm.clear_mappers()

def removed():
    sa.event.remove(Engine, "connect", connected)
    return used()[1]
"""
HEARD = ["begin", "connect", "connection_proxy"]


def select(engine: sa.Engine) -> Any:
    with engine.connect() as connection:
        return connection.scalar(sa.text("select 'who'"))


def test_what_is_put_on_classes_is_each_module_s_own(fleet: Fleet) -> None:
    class Base(orm.DeclarativeBase):
        pass

    class Thing(Base):
        __tablename__ = "thing"
        id: orm.Mapped[int] = orm.mapped_column(primary_key=True)

    connects: list[str] = []

    def of_base(*_: object) -> None:
        connects.append("base")

    table: Any = Thing.__table__
    engine = sa.create_engine("sqlite://")
    sa.event.listen(sa.Engine, "connect", of_base)
    before = str(sa.schema.CreateTable(table)), str(sa.select(sa.func.now()))
    one = fleet.start("one", MODULE.format(name="one", dialect="SQLiteDialect_pysqlite"))
    two = fleet.start("two", MODULE.format(name="two", dialect="_SQLiteDialect_pysqlite_numeric"))
    assert [one.call("used"), two.call("used")] == [("one", HEARD), ("two", HEARD)]
    assert [select(engine), connects] == ["who", ["base"]]
    for name, module in (("one", one), ("two", two)):
        now, created = module.call("compiled")
        assert f"'{name} now'" in now
        assert f"id INTEGER_{name}" in created
    assert (str(sa.schema.CreateTable(table)), str(sa.select(sa.func.now()))) == before
    assert [one.call("dialect"), two.call("dialect")] == ["SQLiteDialect_pysqlite", "_SQLiteDialect_pysqlite_numeric"]
    assert [one.call("reflected"), two.call("reflected")] == [True, True]
    assert "OWN" not in sa.dialects.sqlite.base.ischema_names
    with pytest.raises(sa.exc.NoSuchModuleError):
        dialects.load("own")
    assert [one.call("broken"), two.call("configured"), Thing(id=3).id] == [True, 3, 3]
    two.call("cleared")
    orm.configure_mappers()
    assert [Thing(id=4).id, one.call("removed")] == [4, ["begin", "connection_proxy"]]

    again = fleet.start("one", MODULE.format(name="newer", dialect="SQLiteDialect_pysqlite"))
    assert [again.call("used"), two.call("used"), again.call("configured")] == [("newer", HEARD), ("two", HEARD), 3]
    fleet.stop_all()
    assert [select(engine), before[1], Thing(id=5).id] == ["who", str(sa.select(sa.func.now())), 5]
    assert not {"_compiler_dispatcher"} & {*vars(sa.Integer), *vars(sa.sql.functions.now)}
    sa.event.remove(sa.Engine, "connect", of_base)
    engine.dispose()
    Base.registry.dispose()


def test_compilers_of_the_base_are_what_modules_start_with(fleet: Fleet) -> None:
    @sa.ext.compiler.compiles(sa.sql.functions.current_date)
    def date(*_: object, **__: object) -> str:
        return "base date"

    source = """
import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
@compiles(sa.sql.functions.current_user)
def user(*_, **__): return "own user"
def shown(): return str(sa.select(sa.func.current_date()))
@compiles(sa.sql.functions.current_date, "sqlite")
def date(*_, **__): return "own"
def own(): return str(sa.select(sa.func.current_date()).compile(dialect=sa.create_engine("sqlite://").dialect))
"""
    one = fleet.start("one", source)
    assert ["base date" in one.call("shown"), "own" in one.call("own")] == [True, True]
    sqlite = sa.create_engine("sqlite://").dialect
    assert "base date" in str(sa.select(sa.func.current_date()).compile(dialect=sqlite))

    @sa.ext.compiler.compiles(sa.sql.functions.current_user)
    def user(*_: object, **__: object) -> str:
        return "base user"

    assert "base user" in str(sa.select(sa.func.current_user()))
    fleet.stop_all()
    assert "base user" in str(sa.select(sa.func.current_user()))
    for function in (sa.sql.functions.current_date, sa.sql.functions.current_user):
        sa.ext.compiler.deregister(function)


def test_listeners_of_the_base_serve_what_no_module_has_made(fleet: Fleet, monkeypatch) -> None:
    heard: list[str] = []

    def early(connection: Any, cursor: Any, statement: str, parameters: Any, *_: Any) -> Any:
        heard.append("early")
        return statement.replace("who", "base"), parameters

    def late(session: Any, *_: Any) -> None:
        heard.append("late")

    engine = sa.create_engine("sqlite://", poolclass=sa.pool.StaticPool, connect_args={"check_same_thread": False})
    monkeypatch.setattr(sa, "engine_of_base", engine, raising=False)
    sa.event.listen(sa.Engine, "before_cursor_execute", early, retval=True)
    source = """
import sqlalchemy as sa
import sqlalchemy.orm as orm
own = sa.create_engine(
    "sqlite://", echo=False, poolclass=sa.pool.StaticPool, connect_args={"check_same_thread": False}, pool_recycle=9
)
def see(which):
    with orm.Session(own if which == "own" else sa.engine_of_base) as session:
        return session.scalar(sa.text("select 'who'"))
"""
    one = fleet.start("one", source)
    sa.event.listen(orm.Session, "after_begin", late)
    assert [one.call("see", "own"), heard] == ["who", []]
    assert [one.call("see", "base"), heard] == ["base", ["early"]]
    with orm.Session(engine) as session:
        assert session.scalar(sa.text("select 'who'")) == "base"
    assert heard == ["early", "late", "early"]
    sa.event.remove(orm.Session, "after_begin", late)
    sa.event.remove(sa.Engine, "before_cursor_execute", early)
    heard.clear()
    assert [select(engine), heard] == ["who", []]
    sa.event.listen(sa.Engine, "before_cursor_execute", early, retval=True)
    fleet.stop_all()
    assert [select(engine), heard] == ["base", ["early"]]
    sa.event.remove(sa.Engine, "before_cursor_execute", early)
    assert [select(engine), heard] == ["who", ["early"]]
    engine.dispose()
    sa.create_engine("sqlite://", echo=False).dispose()
    orm.Session(engine).close()


def test_models_of_another_module_of_the_same_name_stay_mapped(fleet: Fleet) -> None:
    source = """
import sqlalchemy as sa
import sqlalchemy.orm as orm
def models():
    class Base(orm.DeclarativeBase):
        pass
    class Item(Base):
        __tablename__ = "item"
        id: orm.Mapped[int] = orm.mapped_column(primary_key=True)
        name: orm.Mapped[str]
    return Item
Item = models()
def see(): return Item(id=1, name="x").name
"""
    one = fleet.start("one", source)
    with loaded(source, name="one") as two:
        assert two.call("see") == "x"
    assert one.call("see") == "x"
