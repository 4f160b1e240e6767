"""Telling when the base has imported a module that somebody waits for.

So no module is imported only to be changed, and one that comes late is not missed. One finder serves all who wait: two
that each asked the finders after them would ask each other without end.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Final

from koupleless.context import as_base

if TYPE_CHECKING:
    import types
    from collections.abc import Callable, Iterable, Sequence
    from importlib.machinery import ModuleSpec


def when_imported(name: str, call: Callable[[Any], object]) -> Callable[[], None]:
    """Call ``call(module)`` now if the base has the module of that name, else once it has been imported.

    Returns a function that ends the waiting, to be called in any case: the last one takes the finder out. Not before,
    since a thread that goes through the finders meanwhile would miss one. Thread-safe.
    """
    with as_base():
        module = sys.modules.get(name)
    if module is None:
        _await(name, [call])
    else:
        call(module)
    _wanted.setdefault(name, []).append(call)

    def cancel() -> None:
        wanted = _wanted.get(name, [])
        if call in wanted:
            wanted.remove(call)
        if not wanted:
            _wanted.pop(name, None)
        waiting = _finder.awaited.get(name, [])
        if call in waiting:
            waiting.remove(call)
        if not waiting:
            _finder.awaited.pop(name, None)
        with as_base():
            if not _finder.awaited and _finder in sys.meta_path:
                sys.meta_path.remove(_finder)

    return cancel


def await_again(names: Iterable[str]) -> None:
    """Modules that were imported have left the base: tell whoever waited for one when it is imported again."""
    for name in names:
        if name in _wanted and name not in _finder.awaited:
            _await(name, _wanted[name])


def _await(name: str, calls: Sequence[Callable[[Any], object]]) -> None:
    _finder.awaited.setdefault(name, []).extend(calls)
    with as_base():
        if _finder not in sys.meta_path:
            sys.meta_path.insert(0, _finder)


_wanted: Final[dict[str, list[Callable[[Any], object]]]] = {}
"""Who wants to be told of which module, whether it is there or not."""


class _Finder:
    """Finds nothing itself; lets the loader of an awaited module tell when it has executed it."""

    def __init__(self) -> None:
        self.awaited: dict[str, list[Callable[[Any], object]]] = {}

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: types.ModuleType | None = None
    ) -> ModuleSpec | None:
        """Ask the finders after this one for an awaited module, and have its loader tell."""
        if name not in self.awaited:
            return None
        for finder in tuple(sys.meta_path):
            spec = None if finder is self else finder.find_spec(name, path, target)
            if spec is not None:
                self._follow(name, spec.loader)
                return spec
        return None

    def _follow(self, name: str, loader: Any) -> None:
        execute = getattr(loader, "exec_module", None)
        table = getattr(loader, "__dict__", None)
        if execute is None or type(table) is not dict:
            return  # a loader that cannot be told

        def exec_module(module: types.ModuleType) -> None:
            execute(module)
            if module.__name__ == name:
                table.pop("exec_module", None)
                for call in self.awaited.pop(name, []):
                    call(module)

        # On the instance that was made for this one module, so that its ``__loader__`` stays what it is.
        table["exec_module"] = exec_module


_finder: Final = _Finder()
