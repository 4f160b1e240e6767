"""A use of a reference remembers who answers until something changes, and no longer."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest

from koupleless.biz import BizId, BizState
from koupleless.context import Scope
from koupleless.service.directory import Directory, Listed
from koupleless.service.use import Known, Lookup, Provider

if TYPE_CHECKING:
    from koupleless.service.registry import Registry


class Service:
    def who(self) -> str:
        return "function"

    def inherited(self) -> str:
        return "base"


class Derived(Service):
    pass


class Guarded(Service):
    def __getattribute__(self, name: str) -> Any:
        return (lambda: "guarded") if name == "who" else super().__getattribute__(name)


def provider(obj: object) -> Provider:
    return Provider(obj, None, {})


def test_a_provider_is_searched_once_until_something_changes() -> None:
    searches: list[Provider] = []

    def search() -> tuple[Provider, bool]:
        searches.append(provider(len(searches)))
        return searches[-1], True

    known = Known()
    one, same = (Lookup(known, "key", search, label="label", name="name") for _ in range(2))
    other = Lookup(known, "other", search, label="label", name="name")
    assert [lookup.provider().obj for lookup in (one, same, other, one)] == [0, 0, 1, 0]
    known.clear()
    assert one.provider().obj == 2


def test_a_search_that_a_change_overtakes_is_not_remembered() -> None:
    known, found = Known(), iter(["before", "after"])

    def search() -> tuple[Provider, bool]:
        result = provider(next(found))
        if result.obj == "before":
            known.clear()  # by another thread, after the search has looked
        return result, True

    lookup = Lookup(known, "key", search, label="label", name="name")
    assert [lookup.provider().obj for _ in range(3)] == ["before", "after", "after"]


def test_a_provider_that_may_leave_without_notice_is_searched_every_time(registry: Registry) -> None:
    scope = Scope(BizId.of("alone", "1.0"))  # in no directory
    registry.offer(Service(), name="service", scope=scope)
    reference = registry.use("service")
    assert reference.who() == "function"
    scope.close()
    with pytest.raises(Exception, match="was not found"):
        reference.who()


def test_uses_wait_for_no_lock_of_the_registry(registry: Registry, directory: Any) -> None:
    registry.offer(Service(), name="service", scope=directory.add("a"))
    reference = registry.use("service")
    answers: list[str] = []
    with registry._lock:
        thread = threading.Thread(target=lambda: answers.extend([reference.who(), registry.use(Service).who()]))
        thread.start()
        thread.join(10)
    assert answers == ["function", "function"]


def test_a_method_that_becomes_something_else_is_handed_out_as_that(registry: Registry, directory: Any) -> None:
    class Changing(Derived):
        pass

    target = Changing()
    registry.offer(target, name="service", scope=directory.add("a"))
    reference = registry.use("service")
    for name, value in {"who": "function", "inherited": "base"}.items():
        for _ in range(2):
            assert getattr(reference, name)() == value
        setattr(target, name, "of the object")
        assert getattr(reference, name) == "of the object"
        delattr(target, name)
        assert getattr(reference, name)() == value
        setattr(Changing, name, property(lambda _: "of the class"))
        assert getattr(reference, name) == "of the class"


def test_a_class_with_a_look_up_of_its_own_is_asked_every_time(registry: Registry, directory: Any) -> None:
    registry.offer(Guarded(), name="service", scope=directory.add("a"))
    reference = registry.use("service")
    assert [reference.who() for _ in range(2)] == ["guarded"] * 2
    assert [reference.inherited() for _ in range(2)] == ["base"] * 2


def test_a_directory_keeps_versions_in_the_order_of_their_registration() -> None:
    one, two, other = (BizId.parse(text) for text in ("a:1", "a:2", "b:1"))
    directory = Directory()
    for biz in (two, one, other):
        directory = directory.with_biz(Listed(biz, BizState.DEACTIVATED, None))
    before, directory = directory, directory.with_biz(Listed(two, BizState.ACTIVATED, None))
    assert directory.versions("a") == (two, one)
    assert directory.locate("a") == (two, BizState.ACTIVATED, None)
    assert directory.locate("a", "1") == (one, BizState.DEACTIVATED, None)
    assert before.locate("a") is None
    assert directory.with_biz(Listed(two, BizState.ACTIVATED, None)) is directory
    assert directory.without(one).versions("a") == (two,)
    assert directory.without(one).without(one).without(two).by_name.keys() == {"b"}
    assert directory.locate("c") is directory.locate("a", "3") is None
