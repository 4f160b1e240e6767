"""Libraries that nobody uses any more: who holds them is known before they go, and none goes that is held."""

from __future__ import annotations

import atexit
import functools
import gc
import sys
import textwrap
import types
import typing
import warnings
import weakref
from collections import Counter
from typing import Any

import pytest

from koupleless.container.leaving.idle import Idle

SOURCE = """
import functools, typing
from typing import overload

class Thing:
    "Refers to itself in many ways."
    def method(self) -> "Thing":
        return self
    @property
    def other(self) -> typing.Optional["Thing"]:
        return other

class Child(Thing):
    def method(self):
        return super().method()

@overload
def convert(value: int) -> Child: ...
@overload
def convert(value: str) -> Thing: ...
def convert(value):
    return _cache(value)

@functools.lru_cache
def _cache(value):
    return Child()

Alias = typing.List[Thing]
other = Child()
table = {Thing: [other, lambda: table]}
"""


@pytest.fixture
def library() -> Any:
    """``library(name, source)`` is a module that only the returned dictionary refers to."""

    def make(name: str, source: str = SOURCE, **given: Any) -> dict[str, types.ModuleType]:
        module = types.ModuleType(name)
        module.__dict__.update(given)
        sys.modules[name] = module
        exec(compile(textwrap.dedent(source), f"/library/{name}.py", "exec"), module.__dict__)
        del sys.modules[name]
        return {name: module}

    return make


def watch(modules: dict[str, types.ModuleType]) -> list[weakref.ref[Any]]:
    things: list[Any] = [*modules.values(), *(m.Thing for m in modules.values() if hasattr(m, "Thing"))]
    return [weakref.ref(thing) for thing in things]


def asked(**libraries: dict[str, types.ModuleType]) -> Idle:
    """As the caller asks, who keeps the modules in dictionaries that are emptied before they are to be free."""
    return Idle(libraries, kept=Counter(id(module) for modules in libraries.values() for module in modules.values()))


def test_a_library_that_refers_to_itself_alone_is_free_and_goes(library: Any) -> None:
    modules = library("alone")
    modules["alone"].convert(3)
    references = watch(modules)
    gc.collect()
    idle = asked(alone=modules)
    assert idle.find_free() == {"alone"}
    assert all(reference() is not None for reference in references), "it is only looked at"
    assert typing.get_overloads(modules["alone"].convert), "and left as it was"
    modules.clear()
    assert idle.free(["alone"]) == 0
    assert [reference() for reference in references] == [None, None]
    assert "alone" not in typing._overload_registry  # type: ignore[attr-defined]


def held_by_a_list(module: Any) -> Any:
    return [module.Thing]


def held_by_an_instance(module: Any) -> Any:
    return module.Child()


def held_by_a_function(module: Any) -> Any:
    return functools.partial(print, module.convert)


def held_by_a_subclass(module: Any) -> Any:
    return type("Further", (module.Thing,), {})


def held_by_itself(module: Any) -> Any:
    return module


def held_by_its_globals(module: Any) -> Any:
    return vars(module)


def held_by_something_it_made(module: Any) -> Any:
    return module.table[module.Thing]


HOLDERS = [
    held_by_a_list,
    held_by_an_instance,
    held_by_a_function,
    held_by_a_subclass,
    held_by_itself,
    held_by_its_globals,
    held_by_something_it_made,
]


@pytest.mark.parametrize("hold", HOLDERS)
def test_a_library_that_the_base_holds_stays(library: Any, hold: Any) -> None:
    modules = library("held")
    kept = hold(modules["held"])
    assert asked(held=modules).find_free() == frozenset()
    del kept
    gc.collect()
    assert asked(held=modules).find_free() == {"held"}


def test_what_is_registered_with_the_interpreter_holds_a_library(library: Any) -> None:
    modules = library("registered")
    convert = modules["registered"].convert
    atexit.register(convert, 1)
    del convert
    assert asked(registered=modules).find_free() == frozenset()
    atexit.unregister(modules["registered"].convert)
    assert asked(registered=modules).find_free() == {"registered"}


def test_what_it_registered_for_itself_does_not_hold_a_library_and_is_taken_back(library: Any) -> None:
    ran: list[str] = []
    modules = library(
        "registering",
        """
        import atexit, codecs, sys, warnings

        class OwnWarning(UserWarning): pass

        def at_exit(): told.append("exit")
        def on_error(error): return ("?", error.end)

        atexit.register(at_exit)
        codecs.register_error("koupleless.test", on_error)
        warnings.simplefilter("ignore", OwnWarning)
        def show(value): told.append(value)
        sys.displayhook = show
        """,
        told=ran,
    )
    reference = weakref.ref(modules["registering"].at_exit)
    filters = len(warnings.filters)
    idle = asked(registering=modules)
    assert idle.find_free() == {"registering"}
    assert "ä".encode("ascii", "koupleless.test") == b"?"
    modules.clear()
    assert idle.free(["registering"]) == 0
    assert len(warnings.filters) == filters - 1
    assert sys.displayhook is sys.__displayhook__
    assert reference() is None
    assert ran == ["exit"]
    with pytest.raises(LookupError, match=r"unknown error handler name 'koupleless\.test'"):
        "ä".encode("ascii", "koupleless.test")


def test_its_own_finder_and_the_modules_that_this_makes_do_not_hold_it(library: Any) -> None:
    modules = library(
        "finding",
        """
        import sys, types

        class Made(types.ModuleType):
            pass

        class Finder:
            known = {"finding.made": Made("finding.made")}

            def find_spec(self, name, path=None, target=None):
                return None

        sys.meta_path.append(Finder())
        """,
    )
    before = [finder for finder in sys.meta_path if type(finder).__name__ != "Finder"]
    reference = weakref.ref(modules["finding"].Made)
    kept = modules["finding"].Finder.known["finding.made"]
    assert asked(finding=modules).find_free() == frozenset()
    del kept
    idle = asked(finding=modules)
    assert idle.find_free() == {"finding"}
    assert len(sys.meta_path) == len(before) + 1
    modules.clear()
    assert idle.free(["finding"]) == 0
    assert sys.meta_path == before
    assert reference() is None


def test_libraries_that_hold_each_other_go_together_and_stay_together(library: Any) -> None:
    low = library("low")
    module = low["low"]
    high = library("high", "class Thing(base): pass\n", base=module.Thing)
    module.above = high["high"].Thing
    del module
    kept = [high["high"].Thing]
    assert asked(low=low, high=high).find_free() == frozenset(), "the lower one is held through the upper one"
    kept.clear()
    gc.collect()
    assert asked(low=low).find_free() == frozenset(), "the upper one holds it"
    assert asked(low=low, high=high).find_free() == {"low", "high"}


def test_one_is_free_though_another_is_held(library: Any) -> None:
    free, held = library("free"), library("held")
    free["free"].uses = held["held"].Thing
    kept = held["held"].Thing
    assert asked(free=free, held=held).find_free() == {"free"}
    del kept


def test_finalizers_of_its_own_objects_hold_nothing_and_run_when_it_goes(library: Any) -> None:
    ran: list[str] = []
    modules = library(
        "finalizing",
        """
        import weakref
        class Thing: pass
        thing = Thing()
        def end(word): told.append(word)
        weakref.finalize(thing, end, "ended")
        """,
        told=ran,
    )
    references = watch(modules)
    idle = asked(finalizing=modules)
    assert idle.find_free() == {"finalizing"}
    assert ran == []
    modules.clear()
    assert idle.free(["finalizing"]) == 0
    assert ran == ["ended"]
    assert [reference() for reference in references] == [None, None]


def test_a_cache_of_the_base_does_not_hold_it(library: Any) -> None:
    modules = library("cached")

    @functools.lru_cache
    def of_base(kind: object) -> str:
        return "seen"

    of_base(modules["cached"].Thing)
    typing.Optional.__getitem__(modules["cached"].Thing)  # remembered by typing
    assert asked(cached=modules).find_free() == {"cached"}
