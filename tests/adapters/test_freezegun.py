"""freezegun: a module freezes its own time, and nobody else's."""

from __future__ import annotations

import asyncio
import copyreg
import datetime as dt
import email.utils
import pickle
import sys
import threading
import time
import uuid
from datetime import UTC
from datetime import datetime as by_name
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("freezegun")

if TYPE_CHECKING:
    from tests.adapters.conftest import Fleet

MODULE = """
import asyncio, copyreg, datetime, email.utils, pickle, threading, time, uuid
from datetime import datetime as by_name
from time import time as clock
import freezegun

freezer = None

def seen():
    started = []
    thread = threading.Thread(target=lambda: started.append(by_name.now().year))
    thread.start()
    thread.join()
    return {
        "time": time.time(), "by name": clock(), "thread": started[0], "year": datetime.datetime.now().year,
        "year by name": by_name.now().year, "library": email.utils.formatdate(), "today": datetime.date.today().year,
        "pickled": pickle.loads(pickle.dumps(by_name.now())).year,
        "a real one is": isinstance(uuid.SafeUUID, type) and isinstance(before, datetime.datetime),
    }

before = datetime.datetime(2001, 1, 1)

def start(when):
    global freezer
    freezer = freezegun.freeze_time(when)
    freezer.start()

def stop():
    freezer.stop()

@freezegun.freeze_time("1999-12-31")
def decorated():
    return by_name.now().isoformat()

async def slept():
    begun = time.perf_counter()
    with freezegun.freeze_time("1970-01-02"):
        await asyncio.sleep(0.05)
        async with asyncio.timeout(5):
            await asyncio.sleep(0)
        frozen = time.time()
    return frozen, time.perf_counter() - begun

async def several(moments):
    async def one(when):
        with freezegun.freeze_time(when):
            await asyncio.sleep(0)
            return by_name.now().year
    return [await one(when) for when in moments]
"""
FROZEN = {
    "time": 946684800.0,
    "by name": 946684800.0,
    "thread": 2000,
    "year": 2000,
    "year by name": 2000,
    "library": "Sat, 01 Jan 2000 00:00:00 -0000",
    "today": 2000,
    "pickled": 2000,
    "a real one is": True,
}


def of_base() -> tuple[object, ...]:
    """All that freezegun replaces, as the base has it."""
    names = ("time", "time_ns", "monotonic", "monotonic_ns", "perf_counter", "localtime", "gmtime", "strftime")
    clocks = [getattr(time, name) for name in names]
    inside = [vars(uuid)[name] for name in ("_generate_time_safe", "_UuidCreate") if name in vars(uuid)]
    readers = [vars(sys.modules[name]).get("_time") for name in ("threading", "queue", "random", "subprocess")]
    return (*clocks, dt.datetime, dt.date, by_name, hasattr(time, "clock"), *inside, *readers)


def test_each_module_freezes_its_own_time(fleet: Fleet) -> None:
    before = of_base()
    one, two = (fleet.start(name, MODULE) for name in ("one", "two"))
    one.call("start", "2000-01-01")
    assert one.call("seen") == FROZEN
    assert two.call("seen")["year"] > 2020
    two.call("start", "2010-06-01 12:00")
    assert (two.call("seen")["year"], two.call("seen")["year by name"]) == (2010, 2010)
    assert one.call("seen") == FROZEN
    assert of_base() == before
    threads: list[object] = []
    thread = threading.Thread(target=lambda: threads.append((dt.datetime.now(UTC).year, time.time(), of_base())))
    thread.start()
    thread.join()
    assert threads[0][0] > 2020  # type: ignore[index]
    assert threads[0][2] == before  # type: ignore[index]
    assert pickle.loads(pickle.dumps(by_name.now(UTC))).__class__ is by_name
    assert "20" in email.utils.formatdate()
    assert uuid.uuid1().time != uuid.uuid1().time
    one.call("stop")
    assert one.call("seen")["year"] > 2020
    assert one.call("seen")["by name"] > FROZEN["time"]
    assert two.call("seen")["year"] == 2010
    assert one.call("decorated") == "1999-12-31T00:00:00"


def test_one_that_leaves_with_its_time_frozen_leaves_nothing(fleet: Fleet) -> None:
    before = of_base()
    fleet.start("one", MODULE).call("start", "2000-01-01")
    fleet.stop("one")
    assert of_base() == before
    assert dt.datetime not in copyreg.dispatch_table
    assert type(time) is type(sys.modules["math"])
    again = fleet.start("one", MODULE)
    assert again.call("seen")["year"] > 2020
    again.call("start", "2001-01-01")
    assert again.call("seen")["year by name"] == 2001


def test_the_loop_that_all_share_goes_on(fleet: Fleet) -> None:
    module = fleet.start("one", MODULE)
    frozen, real = module.call("slept")
    assert frozen == 86400.0
    assert 0.04 < real < 4
    assert module.call("several", ["2001-01-01", "2002-01-01"]) == [2001, 2002]
    assert asyncio.run(asyncio.sleep(0.0, "done")) == "done"
