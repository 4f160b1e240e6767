"""Variables of shared Python modules, assigned by bizs, each biz for itself."""

from __future__ import annotations

import contextlib
import functools
from importlib.machinery import BuiltinImporter, ExtensionFileLoader
from typing import TYPE_CHECKING, Any

from koupleless.changes.dispatch import table_of
from koupleless.context import current
from koupleless.contextual import assign_by_context, assigned_of
from koupleless.readers import Layer, Readers

if TYPE_CHECKING:
    import types
    from collections.abc import Callable

    from koupleless.context import Scope


class Assigned:
    """The variables of one Python module with assignments by bizs: all code run as a biz sees the biz's own value.

    ``is_watched`` tells of a biz whether the biz will `leave`. Lifetime: from the first variable to `close`. Guarded by
    the lock of `changes`; read by any thread.
    """

    def __init__(self, module: types.ModuleType, is_watched: Callable[[Scope], bool]) -> None:
        self._module = module
        self._is_watched = is_watched
        self._names: set[str] = set()
        self._layers: dict[Scope, Layer] = {}
        self._used: dict[Scope, Layer] = {}
        """Layers with an assignment, which the functions of the Python module ask for."""
        self._undo = contextlib.ExitStack()
        self._readers = Readers(module, self._used.get)
        self._undo.callback(self._readers.close)

    def add(self, name: str) -> None:
        """Let bizs assign a variable. Raises ``TypeError`` if other code has given the Python module a class."""
        if name in self._names:
            return
        others = assigned_of(self._module) - self._names
        self._assign(name)
        for further in self._readers.follow(self._names, but=others) - self._names:
            self._assign(further)

    def put(self, scope: Scope, name: str, value: object) -> None:
        """Make ``value`` the value of a variable for one biz."""
        self._of(scope)[name] = value

    def leave(self, scope: Scope) -> dict[str, Any]:
        """Forget the assignments of a biz; returns the values by name."""
        layer = self._layers.pop(scope, None)
        self._used.pop(scope, None)
        if layer is None:
            return {}
        assigned = layer.assigned()
        layer.drop()
        return assigned

    @property
    def is_used(self) -> bool:
        """Whether a biz has a variable of its own."""
        return any(layer.count for layer in self._layers.values())

    def close(self) -> None:
        """Make each variable a single one for all again."""
        self._undo.close()

    def _assign(self, name: str) -> None:
        assign_by_context(self._undo, self._module, name, self._here)
        self._names.add(name)

    def _here(self) -> Layer | None:
        scope = current()
        return None if scope is None or not self._is_watched(scope) else self._of(scope)

    def _of(self, scope: Scope) -> Layer:
        layer = self._layers.get(scope)
        if layer is None:
            layer = self._layers.setdefault(scope, self._readers.make_layer(functools.partial(self._use, scope)))
        return layer

    def _use(self, scope: Scope, layer: Layer) -> None:
        self._used[scope] = layer
        if self._layers.get(scope) is not layer:  # the biz has left meanwhile
            self._used.pop(scope, None)


def is_of_python(module: Any) -> bool:
    """Whether functions of a Python module are Python code, which may get other globals; C code reads the variables."""
    loader = getattr(table_of(module).get("__spec__"), "loader", None)
    return not isinstance(loader, ExtensionFileLoader) and loader is not BuiltinImporter
