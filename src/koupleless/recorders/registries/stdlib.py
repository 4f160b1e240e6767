"""Recorders for registries of the standard library without a view of their own: started mocks, hooks, tables.

Registries in which each biz has own entries are in ``view.stdlib``.
"""

from __future__ import annotations

import asyncio
import functools
import sys
import tracemalloc
import types
import weakref
from typing import TYPE_CHECKING, Any, Final

from koupleless.context import current, entered
from koupleless.frames import standing_for
from koupleless.ownership.belonging import attributes, is_a
from koupleless.ownership.ledger import NOTHING, owner, take_out
from koupleless.ownership.purge import Sweep
from koupleless.readers import home_of_class

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from koupleless.context import Scope
    from koupleless.ownership.belonging import Survey
    from koupleless.ownership.ledger import Entry
    from koupleless.ownership.recording import Patches


def install(patches: Patches) -> None:
    """Replace the functions that register."""
    for name in ("unittest.mock", "mock.mock"):
        patches.when_imported(name, _follow_mock)
    patches.replace(sys, "set_asyncgen_hooks", _set_asyncgen_hooks)
    patches.replace(tracemalloc, "start", _start_tracing)
    patches.replace(tracemalloc, "stop", _stop_tracing)


# --- unittest.mock: patches that were started and never stopped -------------------------------------------------------

_of_bizs: Final[weakref.WeakSet[Any]] = weakref.WeakSet()
"""Patches started by a biz, and not stopped."""
_MOCKS: Final = "mock"


def _follow_mock(patches: Patches, mock: Any) -> None:
    for kind in (mock._patch, mock._patch_dict):  # noqa: SLF001 - they have no public name
        patches.replace(kind, "start", _start)
        patches.replace(kind, "stop", _stop)
    patches.replace(mock.patch, "stopall", functools.partial(_stop_all, mock._patch._active_patches))  # noqa: SLF001


def _start(original: Callable[[Any], Any]) -> Any:
    @standing_for(original)
    def start(self: Any) -> Any:
        result = original(self)
        ledger = owner()
        if ledger is not None:
            started = _Started(self, ledger.scope)
            _of_bizs.add(self)
            entry = ledger.record("mock", started.describe(), started.undo)
            ledger.notes.setdefault(_MOCKS, weakref.WeakKeyDictionary())[self] = entry
        return result

    return start


def _stop(original: Callable[[Any], Any]) -> Any:
    @standing_for(original)
    def stop(self: Any) -> Any:
        _of_bizs.discard(self)
        ledger = owner()
        entry: Entry | None = None if ledger is None else ledger.notes.get(_MOCKS, {}).pop(self, None)
        if ledger is not None and entry is not None:
            ledger.forget(entry)
        return original(self)

    return stop


def _stop_all(active: list[Any], original: Callable[[], None]) -> Any:
    @standing_for(original)
    def stopall() -> None:
        ledger = owner()
        mine = None if ledger is None else ledger.notes.get(_MOCKS, {})
        for patcher in reversed(active.copy()):
            if patcher not in _of_bizs if mine is None else patcher in mine:
                patcher.stop()

    return stopall


class _Started:
    """One patch started by a biz. The reference is weak: mock itself keeps a patch until the stop."""

    def __init__(self, patcher: Any, scope: Scope) -> None:
        self._patcher = weakref.ref(patcher)
        self._scope = scope
        self._placed = id(_standing(patcher))

    def describe(self) -> str:
        patcher: Any = self._patcher()
        if hasattr(patcher, "in_dict"):
            return "a dictionary"
        target = patcher.target
        return f"{getattr(target, '__qualname__', None) or getattr(target, '__name__', '?')}.{patcher.attribute}"

    def undo(self) -> object:
        patcher = self._patcher()
        if patcher is None or patcher not in _active(patcher):
            return NOTHING
        _of_bizs.discard(patcher)
        with entered(self._scope):  # the patched object may depend on the current biz
            if hasattr(patcher, "in_dict"):
                _put_back_items(patcher)
            elif id(_standing(patcher)) == self._placed:
                patcher.stop()
            else:
                _leave_chain(patcher, self._placed)
        return None


def _active(patcher: Any) -> list[Any]:
    """Return the active patches of the ``mock`` that made this patch."""
    return sys.modules[type(patcher).__module__]._patch._active_patches  # type: ignore[no-any-return]  # noqa: SLF001


def _standing(patcher: Any) -> Any:
    """Return the value that now stands in the place of a patch."""
    target = getattr(patcher, "target", None)
    table = getattr(target, "__dict__", {})
    return table.get(getattr(patcher, "attribute", None), getattr(target, getattr(patcher, "attribute", ""), None))


def _put_back_items(patcher: Any) -> None:
    """Put back the items set by the patch, and no others: mock would put back the whole dictionary of that time."""
    _active(patcher).remove(patcher)
    if patcher.clear:
        patcher._unpatch_dict()  # noqa: SLF001 - what its ``stop`` calls
        return
    for key in patcher.values:
        if key in patcher._original:  # noqa: SLF001 - as above
            patcher.in_dict[key] = patcher._original[key]  # noqa: SLF001 - as above
        else:
            patcher.in_dict.pop(key, None)


def _leave_chain(patcher: Any, placed: int) -> None:
    """Leave a place taken by another value: the later patch, which found this one, is to put back the value before."""
    _active(patcher).remove(patcher)
    for later in _active(patcher):
        same = getattr(later, "target", later) is patcher.target and later.attribute == patcher.attribute
        if same and id(later.temp_original) == placed:
            later.temp_original, later.is_local = patcher.temp_original, patcher.is_local
    patcher._exit_stack.close()  # noqa: SLF001 - patches that were made together with it


# --- hooks of a thread ------------------------------------------------------------------------------------------------


class _Hook:
    """Stands in a thread's hook for asynchronous generators: calls a biz's function, for the biz alone."""

    def __init__(self, scope: Scope, function: Callable[[Any], object], before: Callable[[Any], object] | None) -> None:
        self.function: Callable[[Any], object] | None = function
        self._is_here: Callable[[], bool] = lambda: current() is scope
        self._before = before

    def __call__(self, generator: Any) -> None:
        function = self.function if self._is_here() else self._before
        if function is not None:
            function(generator)

    def empty(self) -> None:
        self.function = None
        self._is_here = lambda: False


def _set_asyncgen_hooks(original: Callable[..., None]) -> Any:
    """Empty hooks of a biz when the biz leaves. A loop puts back its own hooks; others would stay on the thread."""

    @standing_for(original)
    def set_asyncgen_hooks(*args: Any, **kwargs: Any) -> None:
        ledger = owner()
        given = dict(zip(("firstiter", "finalizer"), args, strict=False)) | kwargs
        if ledger is None or not all(_is_hook(hook) for hook in given.values()):
            original(*args, **kwargs)
            return
        present = sys.get_asyncgen_hooks()
        for name, hook in given.items():
            before = getattr(present, name)
            if hook is None and isinstance(before, _Hook) and before.function is not None:
                given[name] = before._before  # noqa: SLF001 - of the same class
            elif hook is not None and hook is not before:
                given[name] = held = _Hook(ledger.scope, hook, before)
                ledger.record("asyncgen hook", name, held.empty)
        original(**given)

    return set_asyncgen_hooks


def _is_hook(hook: Any) -> bool:
    """Tell whether a hook stays on the thread: a hook is callable, and not a loop's."""
    return hook is None or (
        callable(hook) and not isinstance(getattr(hook, "__self__", None), asyncio.AbstractEventLoop)
    )


# --- tracemalloc ------------------------------------------------------------------------------------------------------


def _start_tracing(original: Callable[..., None]) -> Any:
    @standing_for(original)
    def start(nframe: int = 1) -> None:
        ledger = owner()
        if ledger is not None and not tracemalloc.is_tracing():
            ledger.notes[_TRACING] = ledger.record("tracemalloc", "start", tracemalloc.stop)
        original(nframe)

    return start


def _stop_tracing(original: Callable[[], None]) -> Any:
    @standing_for(original)
    def stop() -> None:
        ledger = owner()
        if ledger is not None:
            entry = ledger.notes.pop(_TRACING, None)
            if entry is None:
                return  # the tracing of the base, or of another biz, goes on
            ledger.forget(entry)
        original()

    return stop


_TRACING: Final = "tracemalloc"


# --- tables by class --------------------------------------------------------------------------------------------------

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
    for module, path in _TABLES:
        table: Any = sys.modules.get(module)
        for name in path.split("."):
            table = getattr(table, name, None)
        if type(table) is not dict:
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
    Sweep("table by class", _sweep_tables),
    Sweep("registry", _sweep_registries, is_thorough=True),
)
