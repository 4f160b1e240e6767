from __future__ import annotations

import functools
import gc
import subprocess
import sys
import textwrap
import threading
import types
import weakref
from typing import TYPE_CHECKING, Any

from koupleless.ownership import caches, collect, purge
from koupleless.ownership.belonging import Survey, tracked_of
from koupleless.ownership.caches import shared_caches
from koupleless.ownership.collect import collect_these, heap_size, reach
from koupleless.ownership.recording import Patches

if TYPE_CHECKING:
    import pytest
    from tests.ownership.conftest import MakeModule, TinyBiz


class Node:
    """Something that a cycle is made of and that can be watched."""

    other: Any


def make_cycle() -> tuple[list[Any], weakref.ref[Node]]:
    one, two = Node(), Node()
    one.other, two.other = two, one
    return [one, two, one.__dict__, two.__dict__], weakref.ref(one)


def test_a_cycle_is_collected_alone_wherever_it_is() -> None:
    things, reference = make_cycle()
    bystanders, bystander = make_cycle()
    gc.collect()
    bystanders.clear()
    collect_these(things)
    assert reference() is None
    assert bystander() is not None  # old garbage, which this was no collection of
    assert things == []


def test_what_something_else_refers_to_lives() -> None:
    things, reference = make_cycle()
    kept = things[1]
    collect_these(things)
    assert reference() is kept.other


def test_finalisers_and_callbacks_run() -> None:
    told = []

    class Last(Node):
        def __del__(self) -> None:
            told.append("finalised")

    last = Last()
    last.other = last
    watch = weakref.ref(last, lambda _: told.append("called back"))
    things = [last, last.__dict__]
    del last
    gc.collect(0)
    collect_these(things)
    assert watch() is None
    assert sorted(told) == ["called back", "finalised"]


def test_the_collector_stays_on_or_off_as_it_was() -> None:
    collect_these(make_cycle()[0])
    assert gc.isenabled()
    gc.disable()
    try:
        collect_these(make_cycle()[0])
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_no_class_is_asked_what_it_is() -> None:
    class Lazy:
        @property
        def __class__(self) -> Any:
            raise AssertionError("woken")

        @__class__.setter
        def __class__(self, kind: Any) -> None: ...

    collect_these([Lazy()])


def test_what_is_frozen_and_what_a_switched_off_collector_left_is_in_nobody_s_way() -> None:
    # In a process of its own: what is frozen here would stay so for all tests.
    code = """
        import gc, weakref
        from koupleless.ownership.collect import collect_these

        class Node: pass

        def make():
            node = Node()
            node.me = node
            return [node, node.__dict__], weakref.ref(node)

        frozen, reference = make()
        gc.freeze()
        collect_these(frozen)
        print(reference())

        gc.disable()
        left = [[] for _ in range(100_000)]
        young, reference = make()
        collect_these(young)
        print(reference(), gc.isenabled(), gc.get_freeze_count(), len(gc.get_objects()) > 100_000)
    """
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False, timeout=60
    )
    assert result.stdout.splitlines() == ["None", "None False 0 True"], result.stderr


# --- what a biz reaches ----------------------------------------------------------------------------------------------


def survey_of(biz: TinyBiz) -> Survey:
    return Survey(biz.scope, biz.modules)


def test_what_is_the_base_s_is_not_reached(biz: TinyBiz, base_module: MakeModule) -> None:
    shop = base_module("shop_stock", "stock = [[number] for number in range(20_000)]\ndef sell(): return stock\n")
    biz.run("mine = [reach]", stock=shop.stock, sell=shop.sell, gc=gc, shop=shop)
    reached = reach(survey_of(biz))
    assert id(shop.stock) not in reached
    assert id(shop.sell) not in reached
    assert id(shop.__dict__) not in reached
    assert len(reached) < 200


def test_a_large_container_of_the_biz_alone_is_reached_and_collected(biz: TinyBiz) -> None:
    module = biz.run("class Own(K): pass\nmine = {number: Own() for number in range(20_000)}")
    reference = weakref.ref(module.mine[19_999])
    key = id(module.mine)
    reached = reach(survey_of(biz))
    assert key in reached
    del module, reached
    report = biz.leave()
    assert report.clean, report.summary()
    assert reference() is None


def test_objects_of_the_base_are_told_apart_where_a_biz_reaches_many(biz: TinyBiz, base_module: MakeModule) -> None:
    module = base_module("shop_tree", "tree = [[[] for _ in range(90)] for _ in range(90)]\n")
    biz.run("mine = [reach]", tree=module.tree)
    assert id(module.tree) not in reach(survey_of(biz))


# --- the caches of a heap that is too large to be listed -----------------------------------------------------------


CACHES = """
import functools

@functools.lru_cache
def plain(): ...

class Shop:
    @functools.cache
    def method(self): ...

    @staticmethod
    @functools.lru_cache
    def static(): ...

    @property
    @functools.lru_cache
    def shown(self): ...

_caches = {"one": functools.lru_cache(lambda: None)}

@functools.singledispatch
def show(thing): ...

def make():
    cached = functools.lru_cache(lambda: None)
    def outer():
        return cached()
    return outer, cached

hidden, cached = make()
"""


def test_caches_made_before_the_first_biz_are_found_from_globals(
    base_module: MakeModule, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(caches, "_SCANNED", 0)
    monkeypatch.setattr(caches, "_is_searched", False)
    monkeypatch.setattr(caches, "_known", weakref.WeakValueDictionary())
    module: Any = base_module("shop_caches", CACHES)
    made = [
        module.plain,
        module.Shop.method,
        module.Shop.static,
        vars(module.Shop)["shown"].fget,
        module._caches["one"],
        module.show.register,
        module.cached,
    ]
    del module.cached
    module.Bare = eval("type('Bare', (), {})", {})  # a class of no module
    found = {id(cache) for cache in shared_caches()}
    assert [id(cache) in found for cache in made] == [True] * len(made)


def test_other_threads_make_tuples_while_all_objects_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collect, "allocated_since_freeze", lambda: None)
    interval = sys.getswitchinterval()
    failures: list[SystemError] = []
    is_over = threading.Event()

    def work() -> None:
        while not is_over.is_set():
            try:
                tuple([each] for each in range(40))
            except SystemError as error:
                failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(2)]
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        for _ in range(15):
            assert any(thing is work for thing in tracked_of(types.FunctionType, dict))
            assert heap_size() > 0
    finally:
        is_over.set()
        for thread in threads:
            thread.join()
        sys.setswitchinterval(interval)
    assert failures == []


def test_caches_made_since_are_noted_wherever_they_are() -> None:
    shared_caches()
    hidden = [functools.lru_cache(lambda: None)]
    assert any(cache is hidden[0] for cache in shared_caches())


def test_a_frozen_base_looks_for_caches_when_its_first_biz_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caches, "_is_searched", False)
    monkeypatch.setattr(caches, "_blocks_frozen", sys.getallocatedblocks())  # as after `freeze_base`
    between = functools.lru_cache(lambda: None)
    del caches._known[id(between)]  # made before anybody noted caches
    patches = Patches()
    try:
        caches.install(patches)
        monkeypatch.setattr(caches, "tracked_of", None)  # nothing is looked for at the first uninstall
        assert any(cache is between for cache in shared_caches())
    finally:
        patches.restore()


ASKED = """
import functools

class Question:
    def __init__(self, about):
        self.about = about

@functools.lru_cache(4096)
def is_called(question):
    return True

@functools.lru_cache(4096)
def is_awaited(question):
    return False

def ask(function):
    is_called(Question(function))
    is_awaited(Question(function))
"""
"""As FastAPI asks about the functions of an application: each key is an object of its own around the function."""


def test_entries_made_for_a_function_alone_leave_all_caches_in_one_round(
    biz: TinyBiz, base_module: MakeModule, monkeypatch: pytest.MonkeyPatch
) -> None:
    library: Any = base_module("shop_asked", ASKED)
    biz.run("ask(reach)", ask=library.ask)
    rounds: list[bool] = []

    def collected(*given: Any) -> bool:
        rounds.append(collect.collect(*given))
        return rounds[-1]

    monkeypatch.setattr(purge, "collect", collected)
    report = biz.leave()
    assert (report.clean, report.undone["lru cache"]) == (True, 2)
    assert rounds == [True]
    assert library.is_called.cache_info().currsize == library.is_awaited.cache_info().currsize == 0


def test_a_biz_that_nothing_holds_is_looked_through_once(biz: TinyBiz, monkeypatch: pytest.MonkeyPatch) -> None:
    biz.run("class Other(K): pass\nothers = [Other()]")
    walks: list[int] = []

    def walked(survey: Survey) -> dict[int, Any]:
        walks.append(1)
        return reach(survey)

    for module in (purge, collect):
        monkeypatch.setattr(module, "reach", walked)
    assert biz.leave().clean
    assert len(walks) == 1


def test_an_entry_of_many_caches_is_looked_at_once_and_alike_ones_by_class(
    biz: TinyBiz, base_module: MakeModule, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thousand modules have many entries in caches, and only those of one are to go."""
    library: Any = base_module("shop_asked", ASKED)

    def others(count: int) -> list[Any]:
        made = [eval("lambda: None", {"__name__": f"other_{number}"}) for number in range(count)]
        for function in made:
            library.ask(function)
        return made

    looks: list[int] = []
    owns = Survey.owns

    def looked(survey: Survey, thing: Any) -> bool:
        looks.append(1)
        return owns(survey, thing)

    monkeypatch.setattr(Survey, "owns", looked)
    biz.run("")
    survey = Survey(biz.scope, biz.modules)
    kept = [others(10)]
    caches.purge_caches(survey)
    looks.clear()
    caches.purge_caches(survey)
    few = len(looks)
    kept.append(others(100))
    looks.clear()
    caches.purge_caches(survey)
    assert len(looks) - few <= 1.2 * 100
    assert library.is_called.cache_info().currsize == 110


def test_a_cache_is_not_kept_alive() -> None:
    reference = weakref.ref(functools.lru_cache(lambda: None))
    gc.collect()
    assert reference() is None


def test_automatic_collections_are_held_back_until_the_last_purge_has_ended() -> None:
    seen: list[bool] = []
    inside, ends = threading.Event(), threading.Event()

    def purging() -> None:
        with collect.held_back():
            inside.set()
            ends.wait(10)

    thread = threading.Thread(target=purging)
    assert gc.isenabled()
    with collect.held_back():
        thread.start()
        assert inside.wait(10)
        seen.append(gc.isenabled())
    seen.append(gc.isenabled())
    ends.set()
    thread.join()
    assert [*seen, gc.isenabled()] == [False, False, True]


def test_a_collector_that_the_base_has_switched_off_stays_so() -> None:
    gc.disable()
    try:
        with collect.held_back():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


FREED = """
import asyncio, resource
from koupleless.ownership.belonging import tables_of_base

resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))

async def wait():
    future = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(future.set_result, None)
    await future

for _ in range(5):
    asyncio.run(wait())
    assert vars(asyncio) in tables_of_base()
"""


def test_tables_of_the_base_are_listed_without_what_compiled_modules_have_freed():
    """The iterators of futures that CPython 3.12 keeps for reuse: each look at them ended the process, or never did."""
    done = subprocess.run([sys.executable, "-P", "-c", FREED], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
