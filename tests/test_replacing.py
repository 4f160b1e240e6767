"""Replacing things of the process, and putting them back."""

import contextlib
import types
from typing import Any

import pytest

from koupleless.replacing import MISSING, Shared, replace, specialise


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


def test_an_attribute_that_was_missing_is_missing_again() -> None:
    target = types.SimpleNamespace()
    with contextlib.ExitStack() as undo:
        replace(undo, target, "value", None)
        assert target.value is None
    assert vars(target) == {}


def test_a_key_of_a_dictionary_is_replaced_as_an_attribute_is() -> None:
    table = {"one": 1}
    with contextlib.ExitStack() as undo:
        replace(undo, table, "one", 10)
        replace(undo, table, "two", 20)
        assert table == {"one": 10, "two": 20}
    assert table == {"one": 1}


def test_an_object_that_checks_its_values_is_not_asked() -> None:
    class Checking:
        def __init__(self) -> None:
            vars(self)["value"] = 1

        def __setattr__(self, name: str, value: object) -> None:
            raise AttributeError(name)

        __delattr__ = object.__delattr__

    target = Checking()
    with contextlib.ExitStack() as undo:
        replace(undo, target, "value", 2)
        replace(undo, target, "other", 2)
        assert vars(target) == {"value": 2, "other": 2}
    assert vars(target) == {"value": 1}


def test_the_value_to_put_back_may_be_one_of_later() -> None:
    target = types.SimpleNamespace(value=1)
    later = [MISSING, 3]
    with contextlib.ExitStack() as undo:
        replace(undo, target, "value", 2, back=later.pop)
    assert target.value == 3
    with contextlib.ExitStack() as undo:
        replace(undo, target, "value", 2, back=later.pop)
    assert vars(target) == {}


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
    shared = Shared("values", lambda undo: replace(undo, target, "value", 2))
    seen = [target.value]
    for change in (shared.acquire, shared.acquire, shared.release, shared.release, shared.acquire):
        change()
        seen.append(target.value)
    assert seen == [1, 2, 2, 2, 1, 2]


def test_a_release_without_a_user_is_an_error_and_is_not_counted() -> None:
    target = types.SimpleNamespace(value=1)
    shared = Shared("values", lambda undo: replace(undo, target, "value", 2))
    with pytest.raises(RuntimeError, match="no values are installed"):
        shared.release()
    shared.acquire()
    assert target.value == 2
    shared.release()
    assert target.value == 1
    with pytest.raises(RuntimeError, match="no values are installed"):
        shared.release()


def test_an_installation_that_fails_half_way_is_undone() -> None:
    target = types.SimpleNamespace(value=1)

    def put_in(undo: Any) -> None:
        replace(undo, target, "value", 2)
        raise OSError("half way")

    shared = Shared("values", put_in)
    with pytest.raises(OSError, match="half way"):
        shared.acquire()
    assert target.value == 1
    with pytest.raises(RuntimeError, match="no values are installed"):
        shared.release()
