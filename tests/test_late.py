"""Being told when the base has imported a module."""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any

import pytest

from koupleless.late import parted, when_imported

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    (tmp_path / "koupleless_late.py").write_text("value = 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield "koupleless_late"
    sys.modules.pop("koupleless_late", None)


def test_all_who_wait_are_told_once_by_one_finder(module: str) -> None:
    before, told = list(sys.meta_path), list[Any]()
    ends = [
        when_imported(module, lambda found: told.append(("one", found.value))),
        when_imported(module, lambda found: told.append(("two", found.value))),
    ]
    assert len(sys.meta_path) == len(before) + 1
    loaded: Any = importlib.import_module(module)
    assert told == [("one", 1), ("two", 1)]
    assert "exec_module" not in vars(loaded.__loader__)
    when_imported(module, lambda found: told.append(("three", found.value)))()
    assert told[-1] == ("three", 1)
    for end in ends:
        end()
    assert sys.meta_path == before


def test_one_that_gave_up_is_not_told(module: str) -> None:
    before, told = list(sys.meta_path), list[Any]()
    give_up = when_imported(module, told.append)
    stay = when_imported(module, lambda found: told.append(found.value))
    give_up()
    importlib.import_module(module)
    assert told == [1]
    give_up()
    stay()
    assert sys.meta_path == before


def test_an_import_that_fails_keeps_them_waiting(module: str, tmp_path: Path) -> None:
    told: list[Any] = []
    (tmp_path / "koupleless_late.py").write_text("1 / 0\n")
    give_up = when_imported(module, told.append)
    with pytest.raises(ZeroDivisionError):
        importlib.import_module(module)
    assert not told
    (tmp_path / "koupleless_late.py").write_text("value = 'longer than before'\n")
    importlib.invalidate_caches()
    importlib.import_module(module)
    assert len(told) == 1
    give_up()


def test_all_are_told_again_of_one_that_had_left(module: str) -> None:
    before, told = list(sys.meta_path), list[Any]()
    ends = [when_imported(module, lambda found: told.append(("waited", found)))]
    first = importlib.import_module(module)
    ends.append(when_imported(module, lambda found: told.append(("late", found))))
    give_up = when_imported(module, lambda found: told.append(("gave up", found)))
    give_up()
    for _ in range(2):
        with parted([module, "koupleless_late_nobody_waits_for"]) as was_in:
            sys.modules.pop(module, None)
        assert not was_in
    again = importlib.import_module(module)
    assert again is not first
    assert told == [("waited", first), ("late", first), ("gave up", first), ("waited", again), ("late", again)]
    for end in ends:
        end()
    assert sys.meta_path == before


def test_what_was_put_in_is_taken_back_before_the_module_leaves_and_put_in_again_if_it_stays(module: str) -> None:
    before, book = list(sys.meta_path), list[str]()

    def telling(name: str) -> Any:
        def put_in(found: Any) -> Any:
            book.append(f"{name} in {found.value}")
            return lambda: book.append(f"{name} out")

        return put_in

    ends = [when_imported(module, telling("one")), when_imported(module, telling("two"))]
    importlib.import_module(module)
    with parted([module]) as was_in:
        assert was_in
        assert book == ["one in 1", "two in 1", "two out", "one out"]
    assert book[4:] == ["one in 1", "two in 1"]
    with parted([module]):
        del sys.modules[module]
        assert book[6:] == ["two out", "one out"]
    ends.pop()()
    assert book[8:] == []  # nothing is in there to be taken out
    importlib.import_module(module)
    ends.pop()()
    assert book[8:] == ["one in 1", "one out"]
    assert sys.meta_path == before


def test_of_a_module_whose_loader_is_a_class_they_are_told_too() -> None:
    before, told = list(sys.meta_path), list[Any]()
    sys.modules.pop("__hello__", None)
    end = when_imported("__hello__", lambda found: told.append(found.__name__))
    frozen: Any = importlib.import_module("__hello__")
    assert told == ["__hello__"]
    assert isinstance(frozen.__loader__, type)
    assert frozen.__spec__.loader is frozen.__loader__
    end()
    assert sys.meta_path == before
    del sys.modules["__hello__"]
