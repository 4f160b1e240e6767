"""The ways to keep a registration: pairs, herds, own entries, trampolines, and the values of each biz behind them."""

from __future__ import annotations

import gc
import sys
import threading
import weakref
from typing import TYPE_CHECKING, Any

import pytest

from koupleless.biz import BizId
from koupleless.context import Scope, entered
from koupleless.ownership.belonging import Survey
from koupleless.ownership.kinds import Herd, Kind, Own, OwnEntry, Pair, Trampoline
from koupleless.ownership.ledger import Ledger, Order, Pending

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.ownership.conftest import TinyBiz


def make_ledger(name: str = "tiny") -> Ledger:
    scope = Scope(BizId.of(name, "1.0"))
    scope.attach(Ledger(scope))
    return scope.facet(Ledger)


@pytest.fixture
def ledger() -> Ledger:
    return make_ledger()


class Thing:
    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        return True


def test_a_kind_is_recorded_under_its_name_and_undone_at_its_moment(ledger: Ledger) -> None:
    done: list[str] = []
    for kind in (Kind("last", "f", "g", order=Order.LAST), Kind("first", "f", "g", order=Order.SERVERS)):
        kind.record(ledger, "thing", lambda kind=kind: done.append(kind.name))  # type: ignore[misc]
    assert ledger.undo_all(1) == ()
    assert done == ["first", "last"]
    assert ledger.undone == {"first": 1, "last": 1}


# --- pairs -----------------------------------------------------------------------------------------------------------


def test_the_removed_half_of_a_pair_is_not_undone(ledger: Ledger) -> None:
    done: list[str] = []
    pair: Pair[str] = Pair("pair", "add", "remove")
    with entered(ledger.scope):
        for key in "ab":
            pair.add(ledger, key, key, lambda key=key: done.append(key))  # type: ignore[misc]
        assert [*pair.of_running()] == ["a", "b"]
        assert pair.remove("a")
        assert not pair.remove("a")
    assert not pair.remove("b"), "the base has removed it"
    ledger.undo_all(1)
    assert done == ["b"]


def test_bizs_with_the_same_key_have_a_pair_each(ledger: Ledger) -> None:
    other = make_ledger("other")
    pair: Pair[str] = Pair("pair", "add", "remove")
    for each in (ledger, other):
        pair.add(each, "key", "thing", lambda: None)
    with entered(ledger.scope):
        assert pair.remove("key")
    assert (len(ledger), len(other)) == (0, 1)


# --- herds -----------------------------------------------------------------------------------------------------------


def make_herd(ended: list[list[Any]]) -> Herd[Thing]:
    def end(_: Ledger, things: list[Thing]) -> Pending:
        ended.append(things)
        return Pending(lambda _: None, count=len(things))

    return Herd("thing", "Thing()", "ended", what="of a test", end=end)


def test_a_herd_has_one_entry_and_ends_what_is_left_in_the_order_of_making(ledger: Ledger) -> None:
    ended: list[list[Any]] = []
    herd = make_herd(ended)
    things = [Thing() for _ in range(3)]
    for thing in things:
        herd.add(ledger, thing)
    assert len(ledger) == 1
    assert herd.has(ledger, things[0])
    assert not herd.has(ledger, Thing())
    del things[1], thing
    ledger.undo_all(1)
    assert [[*map(id, each)] for each in ended] == [[*map(id, things)]]
    assert ledger.undone == {"thing": 2}


def test_a_herd_keeps_nothing_alive_and_has_no_more_entries_for_many_short_lives(ledger: Ledger) -> None:
    ended: list[list[Any]] = []
    herd = make_herd(ended)
    for _ in range(3):
        thing = Thing()
        herd.add(ledger, thing)
        watch = weakref.ref(thing)
        del thing
        assert watch() is None
    assert len(ledger) == 1
    ledger.undo_all(1)
    assert ended == []


def test_what_joins_a_herd_that_was_ended_is_ended_too(ledger: Ledger) -> None:
    ended: list[list[Any]] = []
    herd = make_herd(ended)
    early, late = Thing(), Thing()
    Kind("exit", "atexit", "called").record(ledger, "function", lambda: herd.add(ledger, late))
    herd.add(ledger, early)
    ledger.undo_all(1)
    assert [[*map(id, each)] for each in ended] == [[id(early)], [id(late)]]


def test_what_joins_a_herd_while_another_thread_ends_it_is_not_lost(ledger: Ledger) -> None:
    ended: list[list[Any]] = []
    herd = make_herd(ended)
    things = [Thing() for _ in range(8_000)]

    def join(own: list[Thing]) -> None:
        for thing in own:
            herd.add(ledger, thing)

    threads = [threading.Thread(target=join, args=(things[start::4],)) for start in range(4)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            ledger.undo_all(1)
    finally:
        sys.setswitchinterval(interval)
    ledger.undo_all(1)
    assert {id(thing) for each in ended for thing in each} == {id(thing) for thing in things}


def test_a_finaliser_of_multiprocessing_that_an_exit_function_makes_is_called(biz: TinyBiz) -> None:
    called: list[str] = []
    source = """
        import atexit
        from multiprocessing.util import Finalize

        def make(name):
            Finalize(None, called.append, args=(name,), exitpriority=1)

        atexit.register(make, "late")
        make("early")
    """
    biz.run(source, called=called)
    assert biz.leave().clean
    assert called == ["early", "late"]


# --- own entries, and trampolines ------------------------------------------------------------------------------------


def test_each_biz_has_its_own_entry_and_the_last_to_leave_takes_it_out(ledger: Ledger) -> None:
    other = make_ledger("other")
    registry: dict[str, Callable[[Any], Any]] = {}
    kind = OwnEntry("entry", "enter", "taken out")

    def enter(answer: str) -> None:
        kind.enter(registry, "key", lambda _: answer, lambda it: registry.update(key=it), lambda _: "nobody")

    def ask(scope: Scope | None) -> str:
        with entered(scope):
            return str(registry["key"](0))

    for each, answer in ((ledger, "first"), (ledger, "again"), (other, "other")):
        with entered(each.scope):
            enter(answer)
    assert (ask(ledger.scope), ask(other.scope), ask(None)) == ("again", "other", "nobody")
    ledger.undo_all(1)
    assert ledger.undone == {"entry": 1}
    assert (ask(ledger.scope), ask(other.scope)) == ("nobody", "other")
    other.undo_all(1)
    assert registry == {}


def test_a_trampoline_finds_the_boxes_of_bizs_that_are_there(ledger: Ledger) -> None:
    trampoline: Trampoline[str] = Trampoline("hook", "register")
    other = make_ledger("other")
    trampoline.keep(ledger, "first", "hook")
    trampoline.keep(other, "second", "hook")
    (first, _) = trampoline.boxes()
    ledger.undo_all(1)
    assert first.content is None
    assert [box.content for box in trampoline.boxes()] == ["second"]


# --- values ----------------------------------------------------------------------------------------------------------


def test_a_value_is_asked_for_in_the_making_of_another_and_by_many_threads(ledger: Ledger) -> None:
    inner: Own[list[int]] = Own(list)
    outer: Own[list[list[int]]] = Own(lambda: [inner.of(ledger.scope)])
    start = threading.Barrier(8)
    found: list[Any] = []

    def ask() -> None:
        start.wait()
        with entered(ledger.scope):
            found.append(outer.get())

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id(value) for value in found}) == 1
    assert found[0][0] is inner.of(ledger.scope)
    assert outer.of_everybody() == [found[0]]
    assert outer.take(ledger.scope) is found[0]
    assert outer.find(ledger.scope) is None


def test_a_value_goes_with_the_scope_unless_the_purge_asks_for_it(ledger: Ledger) -> None:
    gone: Own[set[int]] = Own(set)
    stays: Own[set[int]] = Own(set, is_swept=True)
    scope = ledger.scope
    for own in (gone, stays):
        own.of(scope).add(1)
    survey = Survey(scope, {})
    scope.close()
    gc.collect()
    assert (survey.find(stays), survey.find(gone)) == ({1}, None)
    assert (stays.find(scope), stays.of_everybody()) == (None, [])
    assert stays.of(scope) == set(), "a closed scope keeps nothing"
    assert stays.find(scope) is None
