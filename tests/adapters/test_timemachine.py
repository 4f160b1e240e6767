"""time-machine: a module travels in time, and nobody else."""

from __future__ import annotations

import contextlib
import datetime as dt
import importlib.metadata
import inspect
import sys
import threading
import time
import types
from datetime import UTC
from datetime import datetime as by_name
from typing import TYPE_CHECKING, Any

import pytest

from koupleless.adapters import timemachine
from koupleless.artifact.manifest import Manifest, render_biz_toml
from koupleless.biz import BizId
from koupleless.testing import loaded

pytest.importorskip("time_machine")

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.adapters.conftest import Fleet

    from koupleless.testing import Loaded

MODULE = """
import datetime, email.utils, threading, time
from datetime import datetime as by_name
from time import time as clock
import time_machine

journeys = []

def seen():
    started = []
    thread = threading.Thread(target=lambda: started.append(by_name.now().year))
    thread.start()
    thread.join()
    return {
        "time": time.time(), "by name": clock(), "in ns": time.time_ns(), "thread": started[0],
        "year": datetime.datetime.now().year, "year by name": by_name.now(datetime.UTC).year,
        "library": email.utils.formatdate(), "today": datetime.date.today().year, "tuple": time.gmtime().tm_year,
        "is the class": type(by_name.now()) is by_name,
        "escaped": escaped(), "travels": time_machine.escape_hatch.is_travelling(),
    }

def escaped():
    try:
        return time_machine.escape_hatch.datetime.datetime.now().year > 2020
    except ValueError:
        return "no need"

def year():
    return by_name.now().year

def start(when, tick=False):
    journeys.append(time_machine.travel(when, tick=tick))
    journeys[-1].start()

def stop():
    journeys.pop().stop()

@time_machine.travel("1999-12-31", tick=False)
def decorated():
    return by_name.now().isoformat()

def be_strict():
    time_machine.naive_mode = time_machine.NaiveMode.ERROR
"""
"""A module, which has imported everything by name that can be so."""


def there(year: int) -> dict[str, object]:
    moment = dt.datetime(year, 1, 1, tzinfo=UTC)
    stamp = moment.timestamp()
    return {
        "time": stamp,
        "by name": stamp,
        "in ns": int(stamp) * 10**9,
        "thread": year,
        "year": year,
        "year by name": year,
        "library": moment.strftime("%a, %d %b %Y 00:00:00 -0000"),
        "today": year,
        "tuple": year,
        "is the class": True,
        "escaped": True,
        "travels": True,
    }


def is_present() -> bool:
    now = time.time()
    today = dt.date.today()  # noqa: DTZ011 - what is asked
    years = {by_name.now(UTC).year, today.year, time.gmtime().tm_year, time.localtime().tm_year}
    return 1.7e9 < now <= time.time() and time.time_ns() >= now * 10**9 and min(years) > 2020


def test_each_module_travels_for_itself_and_the_base_stays(fleet: Fleet) -> None:
    one, two = (fleet.start(name, MODULE) for name in ("one", "two"))
    one.call("start", "2000-01-01")
    assert one.call("seen") == there(2000)
    assert is_present()
    assert not two.call("seen")["travels"]
    assert two.call("seen")["year"] > 2020
    one.call("be_strict")
    two.call("start", "2010-01-01")
    assert two.call("seen") == there(2010)
    assert one.call("seen") == there(2000)
    found: list[bool] = []
    thread = threading.Thread(target=lambda: found.append(is_present()))
    thread.start()
    thread.join()
    assert found == [True]
    one.call("start", 978307200)
    assert one.call("seen") == there(2001)
    one.call("stop")
    one.call("stop")
    assert one.call("seen")["year"] > 2020
    assert one.call("decorated") == "1999-12-31T00:00:00"
    assert two.call("seen") == there(2010)
    two.call("stop")
    assert two.call("seen")["year"] > 2020
    assert is_present()
    assert "time_machine" not in sys.modules or sys.modules["time_machine"].__file__


@pytest.fixture
def brought(tmp_path: Path) -> Callable[[str, str], Path]:
    """Makes a module with a copy of the library in another version; bringers of one version share compiled code."""
    found = importlib.metadata.distribution("time-machine")

    def make(name: str, version: str) -> Path:
        into = tmp_path / name
        for file in found.files or ():
            if ".." not in file.parts and file.suffix != ".pyc":
                to = into / "lib" / str(file).replace(f"-{found.version}.", f"-{version}.")
                to.parent.mkdir(parents=True, exist_ok=True)
                to.write_bytes(
                    file.read_binary().replace(f"\nVersion: {found.version}".encode(), f"\nVersion: {version}".encode())
                )
        (into / "app.py").write_text(MODULE)
        packed = (f"time-machine=={version}",)
        manifest = Manifest(
            id=BizId.of(name, "1"), entry="app", web_context_path=f"/{name}", requirements=packed, packed=packed
        )
        (into / "biz.toml").write_text(render_biz_toml(manifest))
        return into

    return make


def test_copies_that_modules_bring_along_use_the_clocks_of_the_first(
    brought: Callable[[str, str], Path], process: None
) -> None:
    with contextlib.ExitStack() as closing:
        one = closing.enter_context(loaded(brought("one", "9.1"), name="one"))
        two = closing.enter_context(loaded(brought("two", "9.1"), name="two"))
        with loaded(brought("three", "9.2"), name="three") as three:
            three.call("start", "2003-01-01")
            one.call("start", "2001-01-01")
            two.call("start", "2002-01-01")
            assert [each.call("seen") for each in (one, two, three)] == [there(2001), there(2002), there(2003)]
            assert "time_machine" not in sys.modules
            assert is_present()
        import time_machine  # that of the base

        assert sys.modules["time_machine"] is time_machine
        assert [each.call("seen") for each in (one, two)] == [there(2001), there(2002)]
        journey = time_machine.travel("1990-01-01", tick=False)
        journey.start()
        assert (by_name.now(UTC).year, time.gmtime().tm_year) == (1990, 1990)
        assert [each.call("seen") for each in (one, two)] == [there(2001), there(2002)]
    assert (by_name.now(UTC).year, time.gmtime().tm_year) == (1990, 1990)
    assert sys.modules["time_machine"] is time_machine
    journey.stop()
    assert is_present()
    assert type(time_machine.traveller_stack) is list


@pytest.fixture
def process() -> Iterator[None]:
    """Without the library."""
    names = [name for name in sys.modules if name.lstrip("_").partition(".")[0] == "time_machine"]
    before = {name: sys.modules.pop(name) for name in names}
    yield
    for name in ("time_machine", "_time_machine"):
        sys.modules.pop(name, None)
    sys.modules.update(before)


def test_a_journey_of_the_base_goes_on_when_modules_come_and_leave(fleet: Fleet, process: None) -> None:
    import time_machine

    with time_machine.travel("1990-01-01", tick=False) as journey:
        one = fleet.start("one", MODULE)
        assert one.call("seen")["year"] > 2020
        one.call("start", "2001-01-01")
        assert one.call("seen") == there(2001)
        assert by_name.now(UTC).year == 1990
        journey.move_to("1991-01-01")
        with time_machine.travel("1992-01-01"):
            assert time.localtime().tm_year == 1992
        assert by_name.now(UTC).year == 1991
        fleet.stop("one")
        assert by_name.now(UTC).year == 1991
    assert is_present()


def test_a_module_that_leaves_on_a_journey_puts_the_clocks_back(fleet: Fleet, process: None) -> None:
    for year in (2001, 2002):
        one = fleet.start("one", MODULE)
        one.call("start", f"{year}-01-01", tick=True)
        assert one.call("seen")["year"] == year
    fleet.stop("one")
    ask: Any = inspect.unwrap(sys.modules["_time_machine"].original_time)
    with pytest.raises(ValueError, match="Not currently time-travelling"):
        ask()


def test_modules_that_come_and_go_on_journeys_at_once_see_their_own_times(fleet: Fleet) -> None:
    years = range(2000, 2004)
    modules = [fleet.start(f"of-{year}", MODULE) for year in years]
    found: list[object] = []

    def travel(module: Loaded, year: int) -> None:
        for _ in range(100):
            module.call("start", f"{year}-01-01")
            found.append(module.call("year") == year)
            module.call("stop")
            found.append(module.call("year") > 2020)

    threads = [threading.Thread(target=travel, args=pair) for pair in zip(modules, years, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [True] * 800
    assert is_present()


def test_a_version_that_asks_in_another_way_is_refused() -> None:
    old: Any = types.ModuleType("time_machine")
    exec("traveller_stack = []\ndef time_ns(): ...", vars(old))
    with pytest.raises(LookupError, match=r"before version 3\.3"):
        timemachine.follow_own["time_machine"](contextlib.ExitStack(), old)
