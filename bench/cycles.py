"""Install and uninstall one small application again and again in one process: does anything grow?

``python bench/cycles.py [CYCLES] [--module fastapi|flask|sqlalchemy|django] [--seconds S]``: 1,000 cycles of the
FastAPI one, or as many as fit into that time. Runs the container without a server, so that nothing else allocates.
FastAPI, Flask and SQLAlchemy are the base's; the Django project brings a Django of its own, which pip fetches.
``bench/plot.py`` draws the result.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import os
import sys
import tempfile
import time
from array import array
from pathlib import Path
from typing import TYPE_CHECKING, Final

from harness import BIZS, SMALL_APP, Row, report, resident_mb, spread

from koupleless.artifact.build import Options, build_file, build_project
from koupleless.container.host import Host
from koupleless.ownership.purge import freeze_base

if TYPE_CHECKING:
    from koupleless.container.terms import Installed

SQL_APP: Final = '''"""A small application around a database: two tables, an engine, a session, a query."""

from sqlalchemy import ForeignKey, create_engine, func, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship
from sqlalchemy.pool import StaticPool


class Base(DeclarativeBase):
    pass


class Customer(Base):
    __tablename__ = "customer"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    orders: Mapped[list["Order"]] = relationship(back_populates="customer")


class Order(Base):
    __tablename__ = "order"
    id: Mapped[int] = mapped_column(primary_key=True)
    price: Mapped[float]
    customer_id: Mapped[int] = mapped_column(ForeignKey("customer.id"))
    customer: Mapped[Customer] = relationship(back_populates="orders")


engine = create_engine("sqlite://", poolclass=StaticPool)
Base.metadata.create_all(engine)
with Session(engine) as session:
    session.add(Customer(name="a", orders=[Order(price=1.5), Order(price=2.5)]))
    session.commit()


def total() -> float:
    with Session(engine) as session:
        return session.scalars(select(func.sum(Order.price)).join(Order.customer)).one()


async def app(scope, receive, send):
    if scope["type"] == "http":
        body = str(total()).encode()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body})


assert total() == 4.0
'''

WARM: Final = {
    "fastapi": ("fastapi",),
    "flask": ("flask",),
    "sqlalchemy": ("sqlalchemy.orm", "sqlalchemy.dialects.sqlite"),
    "django": ("sqlite3",),
}
"""What the base has loaded before the first cycle."""

POINTS: Final = 400
"""How often the objects are counted, which takes longer than reading the memory."""


def build(module: str, directory: Path) -> str:
    """The artefact's address."""
    options = Options(out=directory)
    if module in ("flask", "django"):
        return build_project(BIZS / f"{module}-shop", options).path.as_uri()
    source = directory / "small.py"
    source.write_text({"fastapi": SMALL_APP, "sqlalchemy": SQL_APP}[module], encoding="utf-8")
    return build_file(source, options).path.as_uri()


def objects() -> int:
    """What the collector knows, frozen or not; garbage that it has not come to yet is counted too."""
    return len(gc.get_objects()) + gc.get_freeze_count()


def main(cycles: int, module: str, seconds: float) -> None:
    """Run the cycles and compare the memory after the first ones with that at the end."""
    for name in WARM[module]:
        importlib.import_module(name)
    with tempfile.TemporaryDirectory() as temporary:
        directory = Path(temporary)
        url = build(module, directory)
        environment = {"DATABASE": str(directory / "db.sqlite3"), "MOUNTED_AT": "/django-shop"}
        container = Host.make(directory / "store").container

        def install() -> Installed:
            return container.install(container.prepare(url), envs=environment if module == "django" else None)

        freeze_base()
        # What is noted here must not look like growth: the room for it is taken, and touched, before the first cycle.
        installs, uninstalls, memory = (array("d", [0.0]) * cycles for _ in range(3))
        counted, unclean = [], []
        every = max(1, cycles // POINTS)
        until = time.monotonic() + seconds
        for number in range(cycles):
            begin = time.perf_counter()
            installed = install()
            middle = time.perf_counter()
            purged = container.uninstall(installed.info.id)
            installs[number] = (middle - begin) * 1e3
            uninstalls[number] = (time.perf_counter() - middle) * 1e3
            memory[number] = resident_mb(os.getpid())
            if not purged.clean:
                unclean.append((number, purged.summary()))
            is_over = time.monotonic() > until or number == cycles - 1
            if number % every == 0 or is_over:
                counted.append((number, objects()))
            if is_over:
                cycles = number + 1
                break
        container.close()
    installs, uninstalls, memory = installs[:cycles], uninstalls[:cycles], memory[:cycles]
    warm = min(500, cycles // 2)
    grown = memory[-1] - memory[warm]
    more = counted[-1][1] - next(count for number, count in counted if number >= warm)
    install_ms, is_budgeted = spread(installs), module == "fastapi"  # the budgets are for the small FastAPI module
    rows = [
        Row(
            "install, P50",
            f"{install_ms['p50']:.1f} ms",
            budget="<= 10 ms" if is_budgeted else "",
            kept=install_ms["p50"] <= 10 if is_budgeted else None,
        ),
        Row("uninstall with purge, P50", f"{spread(uninstalls)['p50']:.1f} ms"),
        Row(
            f"memory growth, cycles {warm} to {cycles}",
            f"{grown:+.2f} MB",
            budget="<= 2 MB" if is_budgeted else "",
            kept=grown <= 2 if is_budgeted else None,
        ),
        Row("memory at the end", f"{memory[-1]:.1f} MB"),
        Row(f"more objects, cycles {warm} to {cycles}", f"{more:+,}"),
        Row("cycles whose purge was not clean", f"{len(unclean)}", budget="0", kept=not unclean),
    ]
    report(
        "cycles" if module == "fastapi" else f"cycles-{module}",
        rows,
        {
            "cycles": cycles,
            "module": module,
            "install_ms": install_ms,
            "uninstall_ms": spread(uninstalls),
            "unclean": unclean[:10],
            "memory_mb": [round(value, 3) for value in memory],
            "cycle_ms": [round(a + b, 3) for a, b in zip(installs, uninstalls, strict=True)],
            "objects": counted,
        },
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cycles", type=int, nargs="?", default=1_000)
    parser.add_argument("--module", choices=sorted(WARM), default="fastapi")
    parser.add_argument("--seconds", type=float, default=float("inf"))
    given = parser.parse_args(sys.argv[1:])
    main(given.cycles, given.module, given.seconds)
