"""Lists, mappings and variables of modules that are others by turns."""

import contextlib
import copy
import functools
import pickle
import types
from typing import Any

import pytest

from koupleless.contextual import ContextList, ContextMapping, assign_by_context


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


def test_a_variable_is_whoever_s_turn_it_is() -> None:
    turns: dict[str, Any] = {"now": None, "a": {}, "b": {}}
    module: Any = types.ModuleType("machine")
    vars(module).update(speed=1, power=2)

    def here() -> Any:
        return turns.get(turns["now"])

    with contextlib.ExitStack() as undo:
        assign_by_context(undo, module, "speed", here)
        assign_by_context(undo, module, "power", here)
        turns["now"] = "a"
        of_process = module.speed
        module.speed = 7
        turns["now"] = "b"
        assert (module.speed, module.power) == (1, 2)
        del module.speed  # there is none of its own
        turns["now"] = None
        module.power = 3
        turns["now"] = "a"
        assert (module.speed, module.power) == (7, 3)
        module.speed = of_process  # as code puts back what it found
        assert turns["a"] == {}
        turns["now"] = None
        del module.speed
        for change in (lambda: module.speed, lambda: delattr(module, "speed")):
            with pytest.raises(AttributeError, match="'machine' has no attribute 'speed'"):
                change()
        module.speed = 4
    assert type(module) is types.ModuleType
    assert (module.speed, module.power) == (4, 3)


def test_code_that_has_read_a_variable_often_reads_it_by_context() -> None:
    """CPython reads variables of modules past their classes where code is hot, from 3.14 on."""
    module: Any = types.ModuleType("hot")
    module.value, module.function = "of all", lambda: "of all"
    here: dict[str, Any] | None = None

    def read() -> tuple[str, str]:
        return module.value, module.function()

    assert {read() for _ in range(100)} == {("of all", "of all")}
    with contextlib.ExitStack() as undo:
        for name in ("value", "function"):
            assign_by_context(undo, module, name, lambda: here)
        assert {read() for _ in range(100)} == {("of all", "of all")}
        here = {}
        module.value, module.function = "own", lambda: "own"
        assert {read() for _ in range(100)} == {("own", "own")}
        here = None
        assert read() == ("of all", "of all")
    assert {read() for _ in range(100)} == {("of all", "of all")}
    assert [name for name in vars(module) if not name.startswith("__")] == ["value", "function"]


def test_the_type_of_such_a_module_is_as_good_as_that_of_others() -> None:
    """``type(sys)`` is how the import system itself makes modules."""
    module: Any = types.ModuleType("machine")
    with contextlib.ExitStack() as undo:
        assign_by_context(undo, module, "speed", dict)
        made = type(module)("other", "its text")
        assert (type(made), made.__doc__) == (types.ModuleType, "its text")
        assert not hasattr(made, "speed")
        derived = type("Lazy", (type(module),), {"answer": 42})
        assert derived.__bases__ == (types.ModuleType,)
        assert derived("lazy").answer == 42
        assert isinstance(module, types.ModuleType)
        assert isinstance(types, type(module))
        assert not isinstance(42, type(module))
        assert issubclass(derived, type(module))
        assert issubclass(type(module), types.ModuleType)
        assert repr(type(module)) == "<class 'module'>"
        other: Any = types.ModuleType("other")
        assign_by_context(undo, other, "speed", dict)
        kinds: list[Any] = [type(module), types.ModuleType, type(other), type]
        assert [[one == another for another in kinds] for one in kinds[:3]] == [[True, True, True, False]] * 3
        assert {types.ModuleType: 1}[type(module)] == {type(other): 1}[types.ModuleType] == 1
        kind_of = functools.singledispatch(lambda _: "something else")
        kind_of.register(types.ModuleType, lambda _: "module")
        assert [kind_of(each) for each in (module, other, made, 5)] == ["module", "module", "module", "something else"]


def test_a_module_with_a_class_of_somebody_else_is_not_touched() -> None:
    module = type("Lazy", (types.ModuleType,), {})("lazy")
    with contextlib.ExitStack() as undo, pytest.raises(TypeError, match=r"'lazy' is an instance of .*Lazy"):
        assign_by_context(undo, module, "speed", lambda: None)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_two_mechanisms_may_share_a_variable_and_leave_in_any_order(order: tuple[int, int]) -> None:
    """As the changes of a biz and the Python modules of another, at one package."""
    module: Any = types.ModuleType("somewhere")
    module.part = "shared"
    assignments = [{"part": "first"}, {"part": "second"}]
    reading: list[int] = []
    ways = [contextlib.ExitStack(), contextlib.ExitStack()]

    def assigned_by(number: int) -> dict[str, Any] | None:
        return assignments[number] if number in reading else None

    for number, way in enumerate(ways):
        assign_by_context(way, module, "part", functools.partial(assigned_by, number))
    seen = []
    for reading[:] in ([], [0], [1]):
        seen += [module.part, vars(module)["part"]]
    assert seen == ["shared", "shared", "first", "first", "second", "second"]
    ways[order[0]].close()
    reading[:] = [order[1]]
    assert module.part == ("first", "second")[order[1]]
    ways[order[1]].close()
    assert type(module) is types.ModuleType
    assert module.part == "shared"
