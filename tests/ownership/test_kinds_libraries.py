"""What libraries that the base shares keep of a module."""

from __future__ import annotations

import builtins
import importlib
import sys
from typing import TYPE_CHECKING, Any

import blinker
import celery  # type: ignore[import-untyped]
import django.dispatch  # type: ignore[import-untyped]
import opentelemetry.metrics
import opentelemetry.trace
import prometheus_client
import pytest
import sqlalchemy as sa
import sqlalchemy.event
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor  # noqa: F401 - by the base
from sqlalchemy import orm

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.ownership.conftest import Trial


# --- SQLAlchemy ------------------------------------------------------------------------------------------------------


class Base(orm.DeclarativeBase):
    """The base's models."""


class Customer(Base):
    """One of them."""

    __tablename__ = "customer"
    id: orm.Mapped[int] = orm.mapped_column(primary_key=True)


@pytest.fixture
def engine() -> Iterator[sa.Engine]:
    made = sa.create_engine("sqlite://", poolclass=sa.pool.StaticPool, connect_args={"check_same_thread": False})
    yield made
    made.dispose()


def test_sqlalchemy_listeners_on_a_shared_engine(trial: Trial, engine: sa.Engine) -> None:
    heard: list[str] = []

    @sa.event.listens_for(engine, "before_cursor_execute")
    def mine(*_: Any) -> None:
        heard.append("base")

    report = trial(
        """
        import sqlalchemy as sa
        import sqlalchemy.event, sqlalchemy.orm
        @sa.event.listens_for(shared.engine, "before_cursor_execute")
        def listen(*_):
            shared.heard.append(K.__name__)
        sa.event.listen(shared.engine, "connect", reach)
        sa.event.listen(shared.engine.pool, "checkout", reach)
        sa.event.listen(sqlalchemy.orm.Session, "before_flush", reach)
        sa.event.listen(sa.Engine, "engine_connect", reach)
        sa.event.listen(shared.Customer, "load", reach)
        sa.event.listen(shared.Customer.id, "set", reach)
        sa.event.listen(sa.Table, "before_create", reach)
        with shared.engine.connect() as connection:
            connection.execute(sa.text("select 1"))
        """,
        engine=engine,
        heard=heard,
        Customer=Customer,
    )
    assert sorted(set(heard)) == ["K", "base"]
    assert report.undone["sqlalchemy listener"] >= 8
    heard.clear()
    with engine.connect() as connection:
        connection.execute(sa.text("select 1"))
    assert heard == ["base"]
    assert Customer(id=3).id == 3


MODELS = {
    "a table": """
import sqlalchemy as sa
table = sa.Table("row", shared.Base.metadata, sa.Column("id", sa.Integer, default=reach))
with shared.engine.begin() as connection:
    table.create(connection)
    connection.execute(table.insert().values(id=1))
    connection.execute(sa.select(table))
    table.drop(connection)
""",
    "a model of the base's registry": """
import sqlalchemy as sa
import sqlalchemy.orm as orm
class Order(shared.Base):
    __tablename__ = "orders"
    id: orm.Mapped[int] = orm.mapped_column(primary_key=True)
    def reach(self): return K
""",
    "a model of its own registry": """
import sqlalchemy as sa
import sqlalchemy.orm as orm
class Own(orm.DeclarativeBase):
    def reach(self): return K
class Order(Own):
    __tablename__ = "orders"
    id: orm.Mapped[int] = orm.mapped_column(primary_key=True)
class Item(Own):
    __tablename__ = "items"
    id: orm.Mapped[int] = orm.mapped_column(primary_key=True)
    order_id: orm.Mapped[int] = orm.mapped_column(sa.ForeignKey("orders.id"))
    order: orm.Mapped[Order] = orm.relationship(backref="items")
orm.configure_mappers()
engine = sa.create_engine("sqlite://")
Own.metadata.create_all(engine)
with orm.Session(engine) as session:
    session.add(Item(id=1, order=Order(id=1)))
    session.commit()
    assert session.scalars(sa.select(Item)).one().order.id == 1
engine.dispose()
""",
    "a relationship to a model of the base": """
import sqlalchemy as sa
import sqlalchemy.orm as orm
class Order(shared.Base):
    __tablename__ = "orders"
    id: orm.Mapped[int] = orm.mapped_column(primary_key=True)
    customer_id: orm.Mapped[int] = orm.mapped_column(sa.ForeignKey("customer.id"))
    customer: orm.Mapped[shared.Customer] = orm.relationship()
    def reach(self): return K
orm.configure_mappers()
shared.Base.metadata.create_all(shared.engine)
with orm.Session(shared.engine) as session:
    session.add(Order(id=1, customer=shared.Customer(id=1)))
    session.flush()
    assert session.scalars(sa.select(Order)).one().customer.id == 1
""",
    "a relationship that the base's model knows too": """
import sqlalchemy as sa
import sqlalchemy.orm as orm
class Order(shared.Base):
    __tablename__ = "orders"
    id: orm.Mapped[int] = orm.mapped_column(primary_key=True)
    customer_id: orm.Mapped[int] = orm.mapped_column(sa.ForeignKey("customer.id"))
    customer: orm.Mapped[shared.Customer] = orm.relationship(backref="orders")
    def reach(self): return K
orm.configure_mappers()
""",
    "a subclass of a model of the base": """
import sqlalchemy as sa
import sqlalchemy.orm as orm
class Special(shared.Customer):
    extra: orm.Mapped[int] = orm.mapped_column(nullable=True)
    def reach(self): return K
orm.configure_mappers()
""",
}


@pytest.mark.parametrize("source", MODELS.values(), ids=list(MODELS))
def test_sqlalchemy_models_and_tables(trial: Trial, engine: sa.Engine, source: str) -> None:
    columns = set(Customer.__table__.columns.keys())
    for _ in range(2):  # a redeploy must not find its own tables
        trial(source, Base=Base, Customer=Customer, engine=engine)
        assert set(Base.metadata.tables) == {"customer"}
        assert set(Customer.__table__.columns.keys()) == columns
        orm.configure_mappers()
        with orm.Session(engine) as session:
            Base.metadata.create_all(engine)
            session.add(Customer(id=7))
            session.flush()
            assert session.scalars(sa.select(Customer).where(Customer.id == 7)).one().id == 7


def test_a_model_that_outlives_its_module_does_not_disturb_the_base_s(trial: Trial, engine: sa.Engine) -> None:
    kept: list[type] = []
    source = MODELS["a relationship that the base's model knows too"] + "shared.kept.append(Order)\n"
    given: dict[str, Any] = {"Base": Base, "Customer": Customer, "engine": engine, "kept": kept}
    report = trial.leave(trial.install(source, **given))
    assert not report.clean
    orm.configure_mappers()
    trial(MODELS["a relationship to a model of the base"], **given)
    assert len(kept) == 1


# --- Prometheus ------------------------------------------------------------------------------------------------------


PROMETHEUS = """
import prometheus_client, prometheus_client.core
requests = prometheus_client.Counter("row_requests", "of a module", ["path"])
requests.labels("/").inc()
class Own:
    def collect(self):
        K
        return [prometheus_client.core.GaugeMetricFamily("row_own", "of a module", value=1)]
prometheus_client.REGISTRY.register(Own())
"""


def test_prometheus_collectors(trial: Trial) -> None:
    mine = prometheus_client.Counter("row_base", "of the base")
    mine.inc()
    try:
        for _ in range(2):
            report = trial(PROMETHEUS)
            assert report.undone["prometheus collector"] == 2
            text = prometheus_client.generate_latest().decode()
            assert "row_base_total 1.0" in text
            assert "row_requests" not in text
            assert "row_own" not in text
    finally:
        prometheus_client.REGISTRY.unregister(mine)


def test_two_modules_have_prometheus_metrics_of_the_same_name(trial: Trial) -> None:
    mine = prometheus_client.Counter("row_base", "of the base")
    try:
        one, two = trial.install(PROMETHEUS, name="one"), trial.install(PROMETHEUS, name="two")
        text = prometheus_client.generate_latest().decode()
        assert 'row_requests_total{biz="one' in text
        assert 'row_requests_total{biz="two' in text
        assert text.count("# TYPE row_requests_total counter") == 1
        assert "row_base_total 0.0" in text
        report = trial.leave(one)
        assert report.clean, report.summary()
        text = prometheus_client.generate_latest().decode()
        assert 'biz="one' not in text
        assert 'row_requests_total{biz="two' in text
        report = trial.leave(two)
        assert report.clean, report.summary()
    finally:
        prometheus_client.REGISTRY.unregister(mine)


# --- OpenTelemetry ---------------------------------------------------------------------------------------------------


OPENTELEMETRY = """
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, BatchSpanProcessor, SpanExporter, SpanExportResult
class Exporter(SpanExporter):
    def export(self, spans):
        shared.spans.extend((K.__name__, span.name) for span in spans)
        return SpanExportResult.SUCCESS
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(Exporter()))
provider.add_span_processor(BatchSpanProcessor(Exporter()))
trace.set_tracer_provider(provider)
assert trace.get_tracer_provider() is provider
with trace.get_tracer("row").start_as_current_span("inside"):
    pass
"""


@pytest.mark.parametrize("of_base", [False, True], ids=["the base has none", "the base has one"])
def test_an_opentelemetry_provider(trial: Trial, of_base: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = TracerProvider() if of_base else None
    monkeypatch.setattr(opentelemetry.trace, "_TRACER_PROVIDER", mine)
    monkeypatch.setattr(opentelemetry.trace._TRACER_PROVIDER_SET_ONCE, "_done", of_base)
    for _ in range(2):
        spans: list[Any] = []
        trial(OPENTELEMETRY, spans=spans)
        assert spans == [("K", "inside")] * 2
        assert opentelemetry.trace._TRACER_PROVIDER is mine
    if mine is None:
        later = TracerProvider()
        opentelemetry.trace.set_tracer_provider(later)
        assert opentelemetry.trace.get_tracer_provider() is later


# --- blinker ---------------------------------------------------------------------------------------------------------


def test_blinker_receivers_on_a_signal_of_the_base(trial: Trial) -> None:
    signal = blinker.signal("row-of-the-base")
    heard: list[Any] = []

    def mine(sender: Any) -> None:
        heard.append(sender)

    signal.connect(mine)
    trial(
        """
        import blinker
        signal = shared.signal
        signal.connect(reach)
        signal.connect(lambda sender: shared.heard.append(K.__name__), weak=False)
        signal.connect(K(), sender="someone", weak=False)
        own = blinker.signal("row-of-its-own")
        own.connect(reach, weak=False)
        signal.send("x")
        """,
        heard=heard,
        signal=signal,
    )
    assert sorted(map(str, heard)) == ["K", "x"]
    heard.clear()
    assert [receiver for receiver, _ in signal.send("y")] == [mine]
    assert heard == ["y"]


# --- one name, several bizs ------------------------------------------------------------------------------------------


def test_mapped_classes_of_another_biz_with_a_module_of_the_same_name_stay(trial: Trial) -> None:
    source = """
    from sqlalchemy import orm
    class Base(orm.DeclarativeBase):
        pass
    class Parent(Base):
        __tablename__ = "parent"
        id: orm.Mapped[int] = orm.mapped_column(primary_key=True)
        name: orm.Mapped[str]
    Parent(name="configures all mappers")
    shared.parents.append(Parent)
    """
    parents = trial.shared.parents = []  # type: ignore[attr-defined]
    first, second = (trial.install(source, name=name) for name in ("row", "other-row"))
    assert parents[0].__module__ == parents[1].__module__ == "app"
    del parents[0]
    assert trial.leave(first).clean
    assert parents[0](name="still").name == "still"
    parents.clear()
    assert trial.leave(second).clean


# --- Django ----------------------------------------------------------------------------------------------------------


def test_django_receivers_on_a_signal_of_the_base(trial: Trial) -> None:
    signal = trial.shared.signal = django.dispatch.Signal()  # type: ignore[attr-defined]
    heard: list[Any] = []

    def mine(sender: Any, **_: Any) -> None:
        heard.append(sender)

    signal.connect(mine)
    report = trial(
        """
        from django.dispatch import Signal, receiver
        def listen(sender, **_):
            shared.heard.append(K.__name__)
        @receiver(shared.signal, weak=False)
        def listen_too(sender, **_):
            listen(sender)
        shared.signal.connect(listen, weak=False)
        shared.signal.connect(K(), sender=K, weak=False, dispatch_uid="by name")
        for _ in range(100):
            shared.signal.connect(reach, weak=False)
            assert shared.signal.disconnect(reach)
        shared.signal.connect(lambda **_: None)
        own = Signal()
        own.connect(listen, weak=False)
        shared.signal.send("x")
        """,
        heard=heard,
    )
    assert sorted(map(str, heard)) == ["K", "K", "x"]
    assert report.undone["signal receiver"] == 4, "those that died or were disconnected do not count"
    heard.clear()
    assert [receiver for receiver, _ in signal.send("y")] == [mine]
    assert heard == ["y"]


def test_a_receiver_of_the_base_that_has_the_address_of_a_dead_one_stays(trial: Trial) -> None:
    signal = trial.shared.signal = django.dispatch.Signal()  # type: ignore[attr-defined]
    shared_signal = trial.shared.other = blinker.Signal()  # type: ignore[attr-defined]
    identity = trial.install("shared.signal.connect(reach)\nshared.other.connect(reach)\n")

    def mine(*_: Any, **__: Any) -> str:
        return "base"

    (key, *_), (blinker_key,) = signal.receivers[0], shared_signal.receivers
    signal.receivers.clear()
    signal.connect(mine)
    signal.receivers[0] = (key, *signal.receivers[0][1:])  # as if it had the address
    shared_signal.receivers[blinker_key] = mine
    trial.leave(identity)
    assert [said for _, said in signal.send("x")] == ["base"]
    assert shared_signal.receivers[blinker_key] is mine


# --- Celery ----------------------------------------------------------------------------------------------------------


def test_celery_tasks_that_are_shared_with_an_application_of_the_base(trial: Trial) -> None:
    app = celery.Celery("base", broker="memory://")

    @celery.shared_task(name="of.the.base")  # type: ignore[untyped-decorator]
    def mine() -> str:
        return "base"

    app.finalize()
    before = set(app.tasks)
    report = trial(
        """
        from celery import shared_task
        @shared_task(name="of.the.biz")
        def task():
            return K.__name__
        assert shared.app.tasks["of.the.biz"].apply().get() == "K"
        """,
        app=app,
    )
    assert report.undone["celery task"] >= 2
    assert set(app.tasks) == before
    later = celery.Celery("later", broker="memory://")
    later.finalize()
    assert "of.the.base" in later.tasks
    assert "of.the.biz" not in later.tasks


def test_celery_tasks_of_others_stay_whatever_their_modules_are_called(trial: Trial) -> None:
    app = celery.Celery("base", broker="memory://")
    for name in ("__main__", "app"):
        exec(f"@app.task(name='in.{name}')\ndef job():\n    return 1\n", {"__name__": name, "app": app})
    app.finalize()
    before = set(app.tasks)
    assert {"in.__main__", "in.app"} <= before
    trial("def main():\n    pass\n")
    assert set(app.tasks) == before


# --- monkey patches --------------------------------------------------------------------------------------------------


PATCHED = """
class Patched:
    def method(self):
        return "base"

    @classmethod
    def make(cls):
        return "base"

    @staticmethod
    def plain():
        return "base"


class Other:
    pass


def function():
    return "base"


hook = None
"""

PATCHES = {
    "a method": "before = Patched.method\nPatched.method = lambda self: K and before(self)",
    "a method, wrapped by a closure": (
        "def patch(before):\n    def method(self): return K and before(self)\n    return method\n"
        "Patched.method = patch(Patched.method)"
    ),
    "a class method": "before = Patched.make\nPatched.make = classmethod(lambda cls: K and before())",
    "a static method": "before = Patched.plain\nPatched.plain = staticmethod(lambda: K and before())",
    "a function": "before = row_base.function\nrow_base.function = lambda: K and before()",
    "a class": "class Own(row_base.Other):\n    f = reach\nrow_base.Other = Own",
    "a method that was not there": "Patched.added = reach",
    "a function that was not there": "row_base.added = reach",
    "a built-in that was not there": "import builtins\nbuiltins.row_added = reach",
}


@pytest.fixture
def row_base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A module of the base, from a file."""
    (tmp_path / "row_base.py").write_text(PATCHED)
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("row_base")
    del sys.modules["row_base"]


@pytest.mark.parametrize("source", PATCHES.values(), ids=list(PATCHES))
def test_monkey_patches_of_what_is_shared(trial: Trial, row_base: Any, source: str) -> None:
    before = dict(vars(row_base)), dict(vars(row_base.Patched))
    trial("import row_base\nfrom row_base import Patched\n" + source)
    assert vars(row_base).keys() == before[0].keys()
    assert vars(row_base)["Other"] is before[0]["Other"]
    patched = row_base.Patched
    assert vars(patched).keys() == before[1].keys()
    assert {type(vars(patched)[name]) for name in ("make", "plain")} == {classmethod, staticmethod}
    assert [patched().method(), patched.make(), patched().plain(), row_base.function()] == ["base"] * 4
    assert not hasattr(builtins, "row_added")


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        ("Patched.method = reach", "patch"),
        ("Patched.method = lambda self: Patched.method", "patch"),
        ("row_base.hook = reach", "patch"),
    ],
)
def test_a_monkey_patch_that_refers_to_no_original(trial: Trial, row_base: Any, source: str, kind: str) -> None:
    method = row_base.Patched.method
    report = trial("import row_base\nfrom row_base import Patched\n" + source)
    assert report.undone[kind] == 1
    assert row_base.Patched.method is method
    assert row_base.hook is None
