"""Replacing things of the process, and lists and mappings that are others by turns."""

import contextlib
import copy
import pickle
import types
from typing import Any

import pytest

from koupleless.view.patch import ContextList, ContextMapping, Shared, replace, specialise


class Plain:
    def speak(self) -> Any:
        return "plain"


class Other(Plain):
    __slots__ = ()

    def speak(self) -> Any:
        return "other"


def test_a_replaced_attribute_comes_back() -> None:
    target = types.SimpleNamespace(value=1)
    with contextlib.ExitStack() as undo:
        replace(undo, target, "value", 2)
        assert target.value == 2
    assert target.value == 1


def test_an_attribute_that_was_inherited_is_inherited_again() -> None:
    class Child(Plain):
        pass

    with contextlib.ExitStack() as undo:
        replace(undo, Child, "speak", lambda self: "replaced")
        assert Child().speak() == "replaced"
    assert "speak" not in vars(Child)
    assert Child().speak() == "plain"


def test_a_replacement_that_somebody_put_over_ours_stays() -> None:
    target = types.SimpleNamespace(value=1)
    with contextlib.ExitStack() as undo:
        replace(undo, target, "value", 2)
        target.value = 3
    assert target.value == 3


def test_a_specialised_object_is_the_same_object_and_becomes_what_it_was() -> None:
    instance = Plain()
    with contextlib.ExitStack() as undo:
        specialise(undo, instance, Other)
        assert instance.speak() == "other"
    assert type(instance) is Plain


def test_an_object_of_an_unexpected_kind_is_not_touched() -> None:
    instance = Other()
    with contextlib.ExitStack() as undo, pytest.raises(TypeError, match="Plain"):
        specialise(undo, instance, Other)
    assert type(instance) is Other


def test_what_is_shared_is_in_from_the_first_user_to_the_last() -> None:
    target = types.SimpleNamespace(value=1)
    shared = Shared(lambda undo: replace(undo, target, "value", 2))
    shared.release()
    seen = [(target.value, shared.is_in)]
    for change in (shared.acquire, shared.acquire, shared.release, shared.release, shared.release, shared.acquire):
        change()
        seen.append((target.value, shared.is_in))
    assert seen == [(1, False), (2, True), (2, True), (2, True), (1, False), (1, False), (2, True)]


def test_an_installation_that_fails_half_way_is_undone() -> None:
    target = types.SimpleNamespace(value=1)

    def put_in(undo: Any) -> None:
        replace(undo, target, "value", 2)
        raise OSError("half way")

    shared = Shared(put_in)
    with pytest.raises(OSError, match="half way"):
        shared.acquire()
    assert (target.value, shared.is_in) == (1, False)


@pytest.fixture
def turns() -> Any:
    """Two lists and the one that is either; which one is decided by ``turns["now"]``."""
    return {"now": "a", "a": [1, 2], "b": [3]}


def test_a_context_list_behaves_as_the_list_that_is_meant(turns: Any) -> None:
    both = ContextList(lambda: turns[turns["now"]])
    assert both == [1, 2]
    turns["now"] = "b"
    assert both == [3]
    assert both != [1, 2]
    both.append(4)
    both.extend([6, 5])
    both.insert(0, 0)
    both += [7]
    both[1:2] = ["x", "y"]
    del both[0]
    assert turns["b"] == ["x", "y", 4, 6, 5, 7]
    assert both.index(4) == 2
    assert both.count("x") == 1
    assert list(reversed(both)) == [7, 5, 6, 4, "y", "x"]
    assert (both[0], both[-2:], len(both), 4 in both) == ("x", [5, 7], 6, True)
    assert ([0] + both + [8], both * 2 == 2 * both) == ([0, "x", "y", 4, 6, 5, 7, 8], True)  # noqa: RUF005 - operators
    both.remove("x")
    assert both.pop(0) == "y"
    both.sort()
    both.reverse()
    assert both.copy() == turns["b"] == [7, 6, 5, 4]
    assert both > [7, 6]
    same = both
    both *= 2
    assert both is same
    assert str(both) == "[7, 6, 5, 4, 7, 6, 5, 4]"
    both.clear()
    assert not both
    assert turns == {"now": "b", "a": [1, 2], "b": []}


def test_copies_of_a_context_list_are_plain_lists(turns: Any) -> None:
    both = ContextList(lambda: turns[turns["now"]])
    for duplicate in (copy.copy(both), copy.deepcopy(both), pickle.loads(pickle.dumps(both))):
        assert type(duplicate) is list
        assert duplicate == [1, 2]
    assert ContextList(lambda: turns["a"]) == both


def test_a_context_mapping_behaves_as_the_mapping_that_is_meant() -> None:
    turns: dict[str, Any] = {"now": "a", "a": {1: "one"}, "b": {}}
    both: ContextMapping[int, str] = ContextMapping(lambda: turns[turns["now"]])
    assert (both[1], dict(both), repr(both)) == ("one", {1: "one"}, "{1: 'one'}")
    turns["now"] = "b"
    both[2] = "two"
    duplicate = both.copy()
    del both[2]
    assert (duplicate, len(both), both.get(2)) == ({2: "two"}, 0, None)
    turns["now"] = "a"
    both.clear()
    assert turns == {"now": "a", "a": {}, "b": {}}
