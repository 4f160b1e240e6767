"""Late imports: tell a waiting caller when the base has imported a Python module.

So no library is imported only to be changed, and a library that comes late is not missed. One finder serves all waiting
callers: two finders which each asked the finders after them would ask each other without end.
"""

from __future__ import annotations

import contextlib
import functools
import sys
from typing import TYPE_CHECKING, Any, Final

from koupleless.context import as_base

if TYPE_CHECKING:
    import types
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from importlib.machinery import ModuleSpec


def when_imported(name: str, call: Callable[[Any], Callable[[], object] | None]) -> Callable[[], None]:
    """Call ``call(module)`` now if the base has the Python module of this name, else right after the import.

    ``call`` may return a function to take its changes of the Python module back, called before the Python module leaves
    (`parted`). Returns a function which also takes back, and ends the waiting, to be called in any case: the last one
    takes the finder out. Not before, since a thread in the midst of the finders would miss one. Thread-safe.
    """
    wish = _Wish(call)
    _wishes.setdefault(name, []).append(wish)
    with as_base():
        module = sys.modules.get(name)
    if module is None:
        _await(name, [wish])
    else:
        wish.fulfil(module)

    def cancel() -> None:
        for wishes in (_wishes, _finder.awaited):
            if wish in wishes.get(name, ()):
                wishes[name].remove(wish)
            if not wishes.get(name):
                wishes.pop(name, None)
        wish.take_back()
        with as_base():
            if not _finder.awaited and _finder in sys.meta_path:
                sys.meta_path.remove(_finder)

    return cancel


@contextlib.contextmanager
def parted(names: Iterable[str]) -> Iterator[bool]:
    """Take back changes of Python modules of the base while the body decides about their leaving.

    The body is told whether there was any change. Waiting callers are told again: about Python modules present at the
    end right then, about the others as soon as they are imported anew.
    """
    names = [name for name in names if name in _wishes]
    was_in = False
    for name in reversed(names):
        for wish in reversed(_wishes[name]):
            was_in |= wish.take_back()
    try:
        yield was_in
    finally:
        for name in names:
            with as_base():
                module = sys.modules.get(name)
            wishes = tuple(_wishes.get(name, ()))
            if module is None:
                _await(name, wishes)
            else:
                for wish in wishes:
                    wish.fulfil(module)


class _Wish:
    """The request of one caller to be told about one Python module."""

    def __init__(self, call: Callable[[Any], Callable[[], object] | None]) -> None:
        self._call = call
        self._undo: Callable[[], object] | None = None

    def fulfil(self, module: types.ModuleType) -> None:
        self._undo = self._call(module)

    def take_back(self) -> bool:
        undo, self._undo = self._undo, None
        if undo is not None:
            undo()
        return undo is not None


def _await(name: str, wishes: Iterable[_Wish]) -> None:
    awaited = _finder.awaited.setdefault(name, [])
    awaited += (wish for wish in wishes if wish not in awaited)
    with as_base():
        if awaited and _finder not in sys.meta_path:
            sys.meta_path.insert(0, _finder)


_wishes: Final[dict[str, list[_Wish]]] = {}
"""Requests by the name of the Python module, whether the base has the Python module or not."""


class _Finder:
    """A finder of nothing, which lets the loader of an awaited Python module tell when the module has been executed."""

    def __init__(self) -> None:
        self.awaited: dict[str, list[_Wish]] = {}

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: types.ModuleType | None = None
    ) -> ModuleSpec | None:
        """Ask the finders after this one for an awaited Python module, and have the loader tell."""
        if name not in self.awaited:
            return None
        for finder in tuple(sys.meta_path):
            spec = None if finder is self else finder.find_spec(name, path, target)
            if spec is not None:
                loader: Any = spec.loader
                if isinstance(loader, type):  # the loaders of built-in and of frozen Python modules are classes
                    telling: Any = _Telling(spec, functools.partial(self._tell, name))
                    spec.loader = telling
                else:
                    self._follow(name, loader)
                return spec
        return None

    def _tell(self, name: str, module: types.ModuleType) -> None:
        for wish in self.awaited.pop(name, []):
            wish.fulfil(module)

    def _follow(self, name: str, loader: Any) -> None:
        execute = getattr(loader, "exec_module", None)
        table = getattr(loader, "__dict__", None)
        if execute is None or type(table) is not dict:
            return  # a loader that cannot be told

        def exec_module(module: types.ModuleType) -> None:
            execute(module)
            if module.__name__ == name:
                table.pop("exec_module", None)
                self._tell(name, module)

        # On the instance made for this one Python module, so that ``__loader__`` stays the same object.
        table["exec_module"] = exec_module


class _Telling:
    """In the place of a loader which is a class, for one Python module, until the module has been executed."""

    def __init__(self, spec: ModuleSpec, tell: Callable[[types.ModuleType], None]) -> None:
        self._spec = spec
        self._loader: Any = spec.loader
        self._tell = tell

    def create_module(self, spec: ModuleSpec) -> types.ModuleType | None:
        return self._loader.create_module(spec)  # type: ignore[no-any-return]

    def exec_module(self, module: types.ModuleType) -> None:
        self._spec.loader = module.__loader__ = self._loader
        self._loader.exec_module(module)
        self._tell(module)


_finder: Final = _Finder()
