from __future__ import annotations

import builtins
import functools
import gc
import sqlite3
import sys
import threading
import time
import types
import typing
import weakref
from typing import TYPE_CHECKING, Any

import pytest

from koupleless.biz import BizId
from koupleless.context import Scope
from koupleless.ownership import collect
from koupleless.ownership import purge as purging
from koupleless.ownership.holders import Search
from koupleless.ownership.ledger import Failure
from koupleless.ownership.purge import Held, PurgeReport, Survey, purge
from koupleless.turns import Turns

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.ownership.conftest import MakeModule, TinyBiz


ENGINE = """
import functools

registry = []

@functools.lru_cache
def get_registry():
    return registry

@functools.lru_cache(maxsize=None)
def unbounded(thing):
    return thing

@functools.lru_cache(maxsize=2)
def bounded(thing, other=None):
    return thing

@functools.cache
def by_name(name):
    return factory()

factory = None

@functools.singledispatch
def show(thing):
    return "object"

@show.register
def _(thing: int):
    return "int"
"""


@pytest.fixture
def shop(base_module: MakeModule) -> Any:
    return base_module("shop_db", ENGINE)


def test_a_biz_that_registered_nothing_is_clean_and_collected(biz: TinyBiz) -> None:
    module = biz.run("pass")
    reference = weakref.ref(module.K)
    del module
    report = biz.leave()
    assert report.clean
    assert report.summary() == "clean"
    assert report.held == ()
    assert report.biz == BizId.of("tiny", "1.0")
    assert reference() is None


def test_failures_make_a_report_unclean_even_when_nothing_is_held() -> None:
    scope = Scope(BizId.of("tiny", "1.0"))
    report = purge(Survey(scope, {}), [Failure("thread", "'a'", "still runs"), "stop hook: ValueError"])
    assert not report.clean
    assert report.summary() == "2 not undone: thread 'a': still runs; stop hook: ValueError"


# --- lru caches ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "use",
    [
        "shop.unbounded(K)",
        "shop.unbounded(reach)",
        "shop.unbounded(K())",
        "shop.unbounded(K().reach)",
        "shop.bounded(1, K)",
        "shop.bounded(other=K, thing=2)",
        "shop.unbounded((1, (2, K)))",
        "shop.unbounded(frozenset([K]))",
        "shop.unbounded(functools.partial(print, K))",
        "shop.unbounded(list[K])",
        "shop.unbounded(typing.Optional[K])",
        "shop.unbounded(typing.Annotated[int, K])",
        "shop.factory = lambda: K()\nshop.by_name('k')\nshop.factory = None",
        "shop.unbounded(shared_decorator(reach))",
    ],
)
def test_a_shared_cache_whose_entries_reach_the_biz_is_cleared(biz: TinyBiz, shop: Any, use: Any) -> None:
    shop.unbounded("own")
    biz.run(use, shop=shop, functools=functools, typing=typing, shared_decorator=shared_decorator)
    report = biz.leave()
    assert report.clean, report.summary()
    assert report.undone["lru cache"] >= 1


def shared_decorator(function: Any) -> Any:
    @functools.wraps(function)
    def wrapper(*args: Any) -> Any:
        return function(*args)

    return wrapper


def test_a_cache_of_the_base_that_holds_nothing_of_the_biz_keeps_its_entries(biz: TinyBiz, shop: Any) -> None:
    for number in range(3):
        shop.unbounded(number)
    biz.run("shop.unbounded('text')\nshop.bounded(K)", shop=shop)
    assert biz.leave().clean
    assert shop.unbounded.cache_info().currsize == 4
    assert shop.bounded.cache_info().currsize == 0


def test_a_cached_singleton_the_biz_was_added_to_is_reported_and_never_cleared(biz: TinyBiz, shop: Any) -> None:
    shared = shop.get_registry()
    biz.run("shop.get_registry().append(reach)", shop=shop, name="hello")
    report = biz.leave()
    assert shop.get_registry() is shared
    assert shop.get_registry.cache_info().misses == 1
    assert [held.name for held in report.held] == ["hello"]
    assert report.summary().startswith("1 Python module still alive: hello held by ")


class Depends:
    """A base class with an attribute, as frameworks have them."""

    def __init__(self, dependency: Any) -> None:
        self.dependency = dependency


def test_a_key_that_holds_the_biz_in_an_attribute_is_cleared_once_nothing_else_refers_to_it(
    biz: TinyBiz, shop: Any
) -> None:
    biz.run("shop.unbounded(Depends(reach))", shop=shop, Depends=Depends)
    report = biz.leave()
    assert report.clean, report.summary()


def test_a_key_the_base_shares_is_reported_instead(biz: TinyBiz, shop: Any) -> None:
    shared = Depends(None)
    shop.unbounded(shared)
    biz.run("shared.dependency = reach", shared=shared)
    report = biz.leave()
    assert not report.clean
    assert shop.unbounded.cache_info().currsize == 1


def test_a_cache_of_the_biz_itself_is_no_business_of_the_purge(biz: TinyBiz) -> None:
    biz.run("@functools.lru_cache\ndef own(x): return K\nown(1)", functools=functools)
    report = biz.leave()
    assert report.clean
    assert "lru cache" not in report.undone


def test_a_class_of_the_base_under_the_same_module_name_is_not_the_biz_s(
    biz: TinyBiz, base_module: MakeModule, shop: Any
) -> None:
    base = base_module("app_models", "class Order:\n    total = 0\n")
    shop.unbounded(base.Order)
    biz.run("class Order:\n    total = 1\nbase_order = Order", name="app_models")
    assert biz.leave().clean
    assert shop.unbounded.cache_info().currsize == 1


@pytest.mark.parametrize(
    "alias", ["typing.List[K]", "typing.Optional[K]", "typing.Annotated[K, 1]", "typing.Dict[str, typing.List[K]]"]
)
def test_typing_s_caches_are_released(biz: TinyBiz, alias: Any) -> None:
    biz.run(f"alias = {alias}", typing=typing)
    report = biz.leave()
    assert report.clean, report.summary()


def test_single_dispatch_forgets_the_biz_and_nothing_else(biz: TinyBiz, shop: Any) -> None:
    biz.run("@shop.show.register(K)\ndef show_k(thing): return K\nassert shop.show(K()) is K", shop=shop)
    report = biz.leave()
    assert report.clean, report.summary()
    assert report.undone["singledispatch"] == 1
    assert shop.show(1) == "int"
    assert shop.show("a") == "object"


def test_what_keeps_nothing_alive_needs_no_remedy(biz: TinyBiz) -> None:
    import abc
    import collections.abc
    import dataclasses
    import enum

    biz.run(
        """
        collections.abc.Sequence.register(K)
        isinstance(K(), collections.abc.Mapping)
        class Own(Base):
            reach = reach
        class Colour(enum.Enum):
            RED = 1
            def reach(self): return K
        @dataclasses.dataclass
        class Point:
            x: int
            def reach(self): return K
        """,
        collections=collections,
        Base=abc.ABC,
        enum=enum,
        dataclasses=dataclasses,
    )
    report = biz.leave()
    assert report.clean, report.summary()


# --- the chain of referrers ------------------------------------------------------------------------------------------


def test_a_module_whose_globals_live_is_held_even_if_the_module_object_is_gone(biz: TinyBiz, shop: Any) -> None:
    biz.run("shop.registry.append(reach)", shop=shop, name="hello")
    report = biz.leave()
    assert not report.clean
    (held,) = report.held
    assert held.name == "hello"
    assert held.holders == ("global shop_db.registry in the base", "a list", "function hello.reach")
    assert str(held) == "hello held by global shop_db.registry in the base"
    assert held.size_bytes is not None
    assert 500 < held.size_bytes < 1_000_000


def test_a_class_without_functions_is_held_by_its_own_name(biz: TinyBiz, shop: Any) -> None:
    biz.run("class Plain:\n    pass\nshop.registry.append(Plain)", shop=shop, name="hello")
    (held,) = biz.leave().held
    assert held.name == "hello.Plain"
    assert held.holders[0] == "global shop_db.registry in the base"


def test_a_cache_that_must_not_be_cleared_is_named_by_its_function(biz: TinyBiz, base_module: MakeModule) -> None:
    module = base_module("shop_cache", "import functools\n@functools.lru_cache\ndef get_engine(): return {}\n")
    engine = module.get_engine()
    biz.run("shop_cache.get_engine()['listener'] = reach", shop_cache=module, name="hello")
    del engine
    (held,) = biz.leave().held
    assert held.holders[0] == "functools.lru_cache of shop_cache.get_engine in the base"
    assert held.holders[1] == "item 'listener' of a dict"


def test_an_attribute_of_an_object_is_told_by_name(biz: TinyBiz, base_module: MakeModule) -> None:
    module = base_module("shop_obj", "class Bus:\n    def __init__(self): self.handlers = []\nbus = Bus()\n")
    biz.run("bus.handlers.append(reach)", bus=module.bus, name="hello")
    (held,) = biz.leave().held
    assert held.holders == (
        "global shop_obj.bus in the base",
        "attribute handlers of a shop_obj.Bus",
        "a list",
        "function hello.reach",
    )


def test_a_patched_class_of_the_base_is_named(biz: TinyBiz, base_module: MakeModule) -> None:
    module = base_module("shop_cls", "class Bus:\n    pass\n")
    biz.run("Bus.handle = reach", Bus=module.Bus, name="hello")
    (held,) = biz.leave().held
    assert "class shop_cls.Bus in the base" in held.holders[0]


def with_builtins(module: types.ModuleType, scope: Scope) -> types.ModuleType:
    """Give a module builtins as every biz has them: a module of its own, whose ``__import__`` knows the biz."""
    own = types.ModuleType("builtins")
    own.__dict__.update(vars(builtins))
    linker = types.SimpleNamespace(scope=scope)

    def import_(*args: Any) -> Any:
        return linker, args

    own.__dict__["__import__"] = import_
    module.__dict__["__builtins__"] = own.__dict__
    return own


def test_another_biz_is_told_by_name(biz: TinyBiz) -> None:
    other = types.ModuleType("elsewhere")
    with_builtins(other, Scope(BizId.of("other", "2.0")))
    exec("taken = []", other.__dict__)
    biz.run("taken.append(reach)", taken=other.taken, name="hello")
    (held,) = biz.leave().held
    assert held.holders[0] == "global elsewhere.taken in biz other:2.0"


def test_code_that_the_base_runs_in_a_namespace_of_its_own_is_no_biz(biz: TinyBiz) -> None:
    namespace: dict[str, Any] = {"__name__": "script"}
    exec("taken = []", namespace)
    biz.run("taken.append(reach)", taken=namespace["taken"], name="hello")
    (held,) = biz.leave().held
    assert held.holders[0] == "global script.taken outside sys.modules"


def test_a_search_inwards_that_takes_all_the_time_leaves_some_to_say_what_was_found_outwards(
    biz: TinyBiz, monkeypatch: pytest.MonkeyPatch
) -> None:
    def descend(search: Search) -> dict[str, tuple[str, ...]]:
        while time.thread_time() < search._ends:
            pass
        return {}

    monkeypatch.setattr(Search, "descend", descend)
    namespace: dict[str, Any] = {"__name__": "script"}
    exec("taken = []", namespace)
    biz.run("taken.append(reach)", taken=namespace["taken"], name="hello")
    (held,) = biz.leave().held
    assert held.holders[0] == "global script.taken outside sys.modules"


def test_a_namespace_in_which_the_biz_itself_ran_code_is_no_holder(biz: TinyBiz, shop: Any) -> None:
    module = biz.run("pass", name="hello")
    biz.modules["builtins"] = own = with_builtins(module, biz.scope)
    exec(
        """
space = {"__name__": "made"}
exec("def made(): return kept", space)
space["kept"] = reach
shop.registry.append(space["made"])
""",
        module.__dict__ | {"shop": shop},
    )
    del module, own
    report = biz.leave()
    assert {held.holders[0] for held in report.held} == {"global shop_db.registry in the base"}
    assert not any("another" in link or "outside" in link for held in report.held for link in held.holders)


def test_the_holder_of_a_biz_of_many_modules_is_found(biz: TinyBiz, shop: Any) -> None:
    shared: dict[str, Any] = {}
    source = "shared[__name__] = reach\nclass A:\n  def a(self): return shared\nclass B(A):\n  def b(self): return A\n"
    for number in range(380):
        biz.run(source, name=f"hello.part_{number:03}", shared=shared)
    shop.registry.append(shared)
    del shared
    report = biz.leave()
    assert len(report.held) == 380
    assert {held.holders[0] for held in report.held} == {"global shop_db.registry in the base"}
    assert all(held.size_bytes for held in report.held)
    told = "hello.part_000, hello.part_001, hello.part_002 and 377 more held by global shop_db.registry in the base"
    assert told in report.summary()


def test_the_report_says_how_big_and_since_when(biz: TinyBiz, shop: Any) -> None:
    before = time.time_ns() // 1_000_000
    biz.run("shop.registry.append(reach)\ntext = 'x' * 1_000_000", shop=shop, name="hello")
    report = biz.leave()
    (held,) = report.held
    assert held.since_ms is not None
    assert before <= held.since_ms <= time.time_ns() // 1_000_000
    assert held.size_bytes is not None
    assert 1_000_000 < held.size_bytes < 1_500_000
    assert report.summary().endswith(
        time.strftime(f" ({held.size_bytes:,} bytes since %Y-%m-%d %H:%M:%S)", time.localtime(held.since_ms / 1000))
    )


# --- beside a large heap ---------------------------------------------------------------------------------------------


@pytest.fixture
def heap(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Make the heap look as if the collector knew so many objects."""

    def pretend(objects: int) -> None:
        monkeypatch.setattr(collect, "allocated_since_freeze", lambda: int(objects * 2.5))

    return pretend


@pytest.fixture
def collections() -> Iterator[list[int]]:
    """The generations that were collected since; Python does not come to the oldest by itself meanwhile."""
    threshold = gc.get_threshold()
    gc.set_threshold(threshold[0], threshold[1], 100_000)
    seen: list[int] = []

    def note(phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            seen.append(info["generation"])

    gc.callbacks.append(note)
    yield seen
    gc.callbacks.remove(note)
    gc.set_threshold(*threshold)


def test_a_biz_is_collected_without_a_collection_of_the_heap(
    biz: TinyBiz, heap: Callable[[int], None], collections: list[int]
) -> None:
    heap(10_000_000)
    biz.run("class Own(K):\n    pass\nown = [Own() for _ in range(100)]\nown.append(own)")
    gc.collect()  # where it is after a while
    collections.clear()
    assert biz.leave().clean
    assert 2 not in collections
    assert 0 in collections


def test_the_holder_is_found_in_a_large_heap(
    biz: TinyBiz, base_module: MakeModule, heap: Callable[[int], None], collections: list[int]
) -> None:
    heap(10_000_000)
    module = base_module("shop_cache", "import functools\n@functools.lru_cache\ndef get_engine(): return {}\n")
    biz.run("shop_cache.get_engine()['listener'] = reach", shop_cache=module, name="hello")
    gc.collect()
    collections.clear()
    (held,) = biz.leave().held
    assert held.holders == (
        "functools.lru_cache of shop_cache.get_engine in the base",
        "item 'listener' of a dict",
        "function hello.reach",
    )
    assert 2 not in collections


def test_a_holder_in_a_large_container_is_found(
    biz: TinyBiz, base_module: MakeModule, heap: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(purging, "EXPLAIN_BUDGET_S", 30.0)  # a measurement of coverage is slow
    heap(10_000_000)
    module = base_module("shop_wide", "wide = {number: [] for number in range(30_000)}\n")
    biz.run("shop_wide.wide[29_000].append(reach)", shop_wide=module, name="hello")
    (held,) = biz.leave().held
    assert held.holders == ("global shop_wide.wide in the base", "a dict", "a list", "function hello.reach")


def test_a_holder_that_a_large_heap_hides_is_said_to_be_so(
    biz: TinyBiz, heap: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    heap(10_000_000)
    monkeypatch.setattr(purging, "EXPLAIN_BUDGET_S", 0.05)
    module = biz.run("pass", name="hello")
    held_here = module.reach
    del module
    (held,) = biz.leave().held
    assert held.holders == ("something that was not found in 0.05 s among about 10,000,000 objects",)
    assert held_here is not None


@pytest.mark.parametrize("objects", [300_000, 2_400_000])
def test_old_garbage_that_refers_to_the_biz_is_freed_without_a_collection_of_the_heap(
    biz: TinyBiz, heap: Callable[[int], None], collections: list[int], objects: int
) -> None:
    heap(objects)
    module = biz.run("pass", name="hello")
    garbage: list[Any] = [module.reach]
    garbage.append(garbage)
    del module
    gc.collect()  # it is old now
    del garbage
    collections.clear()
    report = biz.leave()
    assert report.clean, report.summary()
    assert 2 not in collections


def test_a_suspended_generator_is_told_with_its_line(biz: TinyBiz, shop: Any) -> None:
    biz.run("def numbers():\n    yield 1\nit = numbers()\nnext(it)\nshop.registry.append(it)", shop=shop, name="hello")
    (held,) = biz.leave().held
    assert any(link.startswith("suspended numbers at /biz/hello.py:") for link in held.holders)


def test_a_holder_among_what_was_frozen_is_found_too(shop: Any) -> None:
    # In a process of its own: what is frozen here would stay so for all tests.
    import subprocess

    code = f"""
import sys, types
from koupleless.biz import BizId
from koupleless.context import Scope
from koupleless.ownership.purge import Survey, freeze_base, purge

shop = types.ModuleType("shop_db")
sys.modules["shop_db"] = shop
exec({ENGINE!r}, shop.__dict__)
shop.unbounded(0)
assert freeze_base() > 1000

def leave(source):
    scope = Scope(BizId.of("tiny", "1.0"))
    module = types.ModuleType("hello")
    module.shop = shop
    exec("def reach(): return reach\\n" + source, module.__dict__)
    survey = Survey(scope, {{"hello": module}})
    del module
    return purge(survey)

print(leave("shop.unbounded(reach)").summary())
print(leave("shop.registry.append(reach)").summary().partition(" (")[0])
shop.registry.clear()
print(leave("").summary())
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.stdout.splitlines() == [
        "clean",
        "1 Python module still alive: hello held by global shop_db.registry in the base",
        "clean",
    ], result.stderr


def test_a_lazy_object_among_the_globals_is_not_woken(biz: TinyBiz) -> None:
    class Lazy:
        def __getattribute__(self, name: Any) -> Any:
            raise AssertionError(f"woken by {name}")

    biz.run("pass", lazy=Lazy())
    assert biz.leave().clean


def test_several_modules_are_told_once_each(biz: TinyBiz, shop: Any) -> None:
    biz.run("shop.registry.append(reach)", shop=shop, name="hello.one")
    biz.run("shop.registry.append(reach)", shop=shop, name="hello.two")
    biz.run("pass", name="hello.three")
    report = biz.leave()
    assert sorted(held.name for held in report.held) == ["hello.one", "hello.two"]
    assert report.summary().startswith("2 Python modules still alive: ")


def test_a_module_that_is_released_later_is_free_then(biz: TinyBiz, shop: Any) -> None:
    module = biz.run("shop.registry.append(reach)", shop=shop)
    reference = weakref.ref(module.K)
    del module
    assert not biz.leave().clean
    shop.registry.clear()
    gc.collect()
    assert reference() is None


def test_the_report_says_how_long_it_took_and_what_was_undone(biz: TinyBiz) -> None:
    biz.run("threading.Timer(60, reach).start()", threading=threading)
    report = biz.leave()
    assert report.elapsed_ms > 0
    assert report.undone == {"timer": 1}
    assert report.failures == ()


def test_a_holder_that_was_not_found_is_said_so() -> None:
    report = PurgeReport(BizId.of("a", "1"), clean=False, held=(Held("m", ()),), undone={}, failures=(), elapsed_ms=0)
    assert report.summary() == "1 Python module still alive: m (holder not found)"


def test_classes_are_told_apart_without_code_of_their_metaclasses(biz: TinyBiz) -> None:
    """As that of ``typing._UnionGenericAlias``, which warns from 3.14 on of being compared."""

    class Strict(type):
        def __eq__(cls, other: object) -> bool:
            raise AssertionError("compared")

        def __hash__(cls) -> int:
            return 1

    of_base = [Strict("One", (), {}), Strict("Two", (), {})]
    module = biz.run("class Own(metaclass=Strict):\n    def reach(self): return K", Strict=Strict)
    survey = Survey(biz.scope, biz.modules)
    for _ in range(2):
        assert [survey.owns_class(kind) for kind in (*of_base, module.Own)] == [False, False, True]


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_connection_of_sqlite_that_nobody_closed_goes_with_its_cache(biz: TinyBiz) -> None:
    """Its cache of statements is an ``lru_cache`` around the connection, so the two hold each other."""
    biz.run(
        """
        def connect():
            connection = sqlite3.connect(":memory:")
            connection.create_function("twice", 1, lambda number: K and number * 2)
            connection.text_factory = lambda text: K and text
            connection.execute("select twice(1)").fetchall()

        connect()
        """,
        sqlite3=sqlite3,
    )
    assert biz.leave().summary() == "clean"


def test_a_finaliser_that_hangs_costs_the_others_one_wait(
    make_biz: Callable[..., TinyBiz], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("koupleless.ownership.purge._turns", Turns(0.5))
    hangs, goes_on = threading.Event(), threading.Event()
    hanging = make_biz("hanging")
    hanging.run(
        """
        class Late:
            def __del__(self, hang=hangs.set, wait=goes_on.wait):
                hang()
                wait()
        late = Late()
        late.itself = late
        """,
        hangs=hangs,
        goes_on=goes_on,
    )
    leaving = threading.Thread(target=hanging.leave)
    leaving.start()
    try:
        assert hangs.wait(10)
        took = []
        for _ in range(4):
            began = time.monotonic()
            assert make_biz().leave().clean
            took.append(time.monotonic() - began)
        assert took[0] >= 0.5
        assert max(took[1:]) < 0.5, took
    finally:
        goes_on.set()
        leaving.join(10)


def test_those_who_take_turns_wait_for_one_another() -> None:
    turns, inside, most = Turns(10.0), [], [0]

    def take() -> None:
        with turns.one():
            inside.append(1)
            most[0] = max(most[0], len(inside))
            time.sleep(0.01)
            inside.pop()

    threads = [threading.Thread(target=take) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1]
