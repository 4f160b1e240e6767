"""Replacing things of the process, and putting them back."""

import contextlib
import types
from typing import Any

import pytest

from koupleless.view.patch import Shared, replace, specialise


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
