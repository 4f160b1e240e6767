"""Sweeps of tables by class, and of any other registry of the standard library: entries of a biz leave with the biz.

Registries in which each biz has entries of its own are in ``view.standard``.
"""

from __future__ import annotations

import sys
import types
from typing import TYPE_CHECKING, Any, Final

from koupleless.ownership.belonging import attributes, is_a
from koupleless.ownership.ledger import take_out
from koupleless.ownership.purge import Sweep
from koupleless.readers import home_of_class

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from koupleless.ownership.belonging import Survey

_TABLES: Final = (
    ("copy", "_copy_dispatch"),
    ("copy", "_deepcopy_dispatch"),
    ("ctypes", "_pointer_type_cache"),
    ("ctypes", "_c_functype_cache"),
    ("pickle", "_Pickler.dispatch"),
    ("pprint", "PrettyPrinter._dispatch"),
    ("multiprocessing.reduction", "ForkingPickler._extra_reducers"),
)


def _sweep_tables(survey: Survey) -> int:
    """Take classes and functions of the biz out of tables keyed by class. Returns the number of entries taken out."""
    count = 0
    judged: dict[int, Any] = {}
    for module, path in _TABLES:
        table: Any = sys.modules.get(module)
        for name in path.split("."):
            table = getattr(table, name, None)
        if type(table) is not dict or not survey.reaches_any([*table.keys(), *table.values()], judged):
            continue
        for key, value in list(table.items()):
            if survey.reaches(key) or survey.reaches(value):
                table.pop(key, None)
                count += 1
    return count


# --- any other registry -----------------------------------------------------------------------------------------------

_BOOKS: Final = sys.stdlib_module_names - {"builtins"}
_CONTAINERS: Final = frozenset(map(id, (dict, list, set)))
_PLAIN: Final = frozenset(map(id, (str, int, bytes, float, bool, type(None), types.BuiltinFunctionType)))
_BOOKS_OF_WHAT_RUNS: Final = frozenset(
    {
        "_threading_local", "asyncio", "builtins", "concurrent", "importlib", "logging", "multiprocessing",
        "subprocess", "sys", "threading", "weakref",
    }
)  # fmt: skip
"""Python modules with entries for running threads, tasks, processes or finalisers: these end, and are not removed."""


def _sweep_registries(survey: Survey) -> int:
    """Take objects made of the biz's code out of every container of the standard library. Returns the number.

    Searched are containers of Python modules and classes, and of objects in these. Made only for a biz that is still
    held: the search goes through everything that Python has loaded of the standard library.
    """
    count = 0
    for name, module in list(sys.modules.items()):
        top = name.partition(".")[0]
        if top in sys.stdlib_module_names and top not in _BOOKS_OF_WHAT_RUNS:
            for container in _containers_of(module):
                count += _strike_out(container, survey)
    return count


def _containers_of(module: Any) -> Iterator[Any]:
    if not is_a(module, types.ModuleType):
        return
    todo = _members(attributes(module))
    name = getattr(module, "__name__", None)
    seen: set[int] = set()
    while todo:
        value = todo.pop()
        kind = type(value)
        if id(kind) in _CONTAINERS:
            yield value
        elif id(value) not in seen and id(kind) not in _PLAIN:
            seen.add(id(value))
            if is_a(value, type):
                table = type.__dict__["__dict__"].__get__(value)
                todo += _members(table) if table.get("__module__") == name else ()
            elif home_of_class(kind).partition(".")[0] in _BOOKS:
                todo += [part for part in _members(attributes(value)) if id(type(part)) in _CONTAINERS]


def _members(table: Mapping[str, Any] | None) -> list[Any]:
    members = {} if table is None else table.copy()  # type: ignore[attr-defined] # a mapping proxy has it, too
    return [value for name, value in members.items() if type(name) is str and not name.startswith("__")]


def _strike_out(container: Any, survey: Survey) -> int:
    count = 0
    if type(container) is dict:
        if container.get("sys") is sys:  # a reference to the table of Python modules
            return 0
        for key, value in list(container.items()):
            if any(id(type(part)) not in _PLAIN and survey.reaches(part) for part in (key, value)):
                take_out(container, key)
                count += 1
        return count
    found = [item for item in list(container) if id(type(item)) not in _PLAIN and survey.reaches(item)]
    for item in found:
        take_out(container, item)
    return len(found)


SWEEPS: Final = (
    Sweep("table by class", "copy, ctypes, pickle, pprint and multiprocessing.reduction", _sweep_tables),
    Sweep("registry", "any other container of the standard library", _sweep_registries, is_thorough=True),
)
