"""What outlives its biz is remembered, named, looked at again, and stands in nobody's way."""

from __future__ import annotations

import gc
import sys
import time
import types

import prometheus_client
import pytest

from koupleless.biz import BizId
from koupleless.container.terms import Strategy

ONE, TWO = BizId.parse("hello:1.0"), BizId.parse("hello:1.1")


@pytest.fixture
def keeper():
    """A module of the base that keeps what it is given."""
    module = types.ModuleType("remains_keeper")
    module.seen = []  # type: ignore[attr-defined]
    sys.modules[module.__name__] = module
    yield module
    del sys.modules[module.__name__]


def keep(world, biz, keeper, name="Item"):
    from koupleless.isolation.namespace import Namespace

    keeper.seen.append(getattr(world.container.scope_of(biz).facet(Namespace).table["hello.app"], name))


def test_what_a_purge_reports_as_held_is_a_zombie_until_it_dies(world, keeper):
    before = time.time_ns() // 1_000_000
    world.install("hello-1.0")
    keep(world, ONE, keeper)
    report = world.container.uninstall(ONE)

    found = world.container.zombies()

    assert {zombie.what for zombie in found} == {held.name for held in report.held} != set()
    assert {zombie.biz for zombie in found} == {ONE}
    assert all(before <= zombie.since_ms <= time.time_ns() // 1_000_000 for zombie in found)
    assert any("remains_keeper.seen" in zombie.holders[0] for zombie in found)
    assert world.container.zombies() == found

    keeper.seen.clear()
    gc.collect()
    assert world.container.zombies() == ()
    assert world.container._remains._rests == []


def test_a_held_module_does_not_stop_any_version_from_being_installed(world, keeper):
    world.install("hello-1.0")
    keep(world, ONE, keeper)
    world.container.uninstall(ONE)

    world.install("hello-1.0")
    keep(world, ONE, keeper)
    world.install("hello-1.1", strategy=Strategy.REPLACE)

    assert world.get("/hello/").json()["version"] == "1.1"
    assert len({zombie.since_ms for zombie in world.container.zombies()}) == 2
    assert world.container.uninstall(TWO).clean


def test_of_a_module_whose_globals_died_the_rest_is_named_with_the_holder_of_the_module(world, keeper):
    world.install("hello-1.0")
    keep(world, ONE, keeper, "Item")
    keep(world, ONE, keeper, "who")  # a function, which holds the globals
    world.container.uninstall(ONE)
    before = world.container.zombies()
    assert "hello.app" in {zombie.what for zombie in before}

    del keeper.seen[1]
    gc.collect()

    (left,) = world.container.zombies()
    assert left.what == "hello.app.Item"
    assert left.since_ms == before[0].since_ms
    assert left.holders != ()
    assert left.size_bytes is None  # nobody measured the class by itself


def test_looking_again_is_cheap_with_many_zombies(world, keeper):
    for _ in range(4):
        world.install("hello-1.0")
        keep(world, ONE, keeper)
        world.container.uninstall(ONE)

    begin = time.thread_time()
    found = world.container.zombies()
    took = time.thread_time() - begin

    assert len({zombie.since_ms for zombie in found}) >= 2
    assert took < 0.02  # it takes 0.2 ms; one collection, or search for holders, takes more


def test_a_start_that_fails_may_leave_zombies_too(world, keeper, tmp_path):
    from koupleless.artifact.build import Options, build_file
    from koupleless.errors import StartFailed

    source = tmp_path / "failing.py"
    source.write_text(
        "import remains_keeper\nclass Kept:\n    def f(self): ...\nremains_keeper.seen.append(Kept)\n1 / 0\n"
    )
    built = build_file(source, Options(out=tmp_path / "out"))

    with pytest.raises(StartFailed):
        world.container.install(world.container.prepare(str(built.path)))

    (left,) = world.container.zombies()
    assert str(left.biz) == "failing:1.0.0"


def test_zombies_are_a_metric_of_the_base_that_is_scraped(world, keeper):
    def lines():
        text = prometheus_client.generate_latest().decode()
        return [line for line in text.splitlines() if line.startswith("koupleless_zombies")]

    world.install("hello-1.0")
    assert lines() == []
    keep(world, ONE, keeper)
    count = len(world.container.uninstall(ONE).held)
    assert lines() == [f'koupleless_zombies{{biz="hello",version="1.0"}} {float(count)}']
    keeper.seen.clear()
    gc.collect()
    assert lines() == []
    world.container.close()
    assert "koupleless_zombies" not in prometheus_client.generate_latest().decode()
