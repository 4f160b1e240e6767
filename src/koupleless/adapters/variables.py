"""Variables of a Python module that each biz assigns for itself, also for the functions of the Python module."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from koupleless.contextual import assign_by_context
from koupleless.ownership.kinds import Own
from koupleless.readers import Layer, Readers

if TYPE_CHECKING:
    import contextlib
    import types
    from collections.abc import Mapping

    from koupleless.context import Scope


def own_variables(
    undo: contextlib.ExitStack, module: types.ModuleType, *names: str, start: Mapping[str, Any] = MappingProxyType({})
) -> None:
    """Let a biz assign variables of a Python module for itself, also for and by functions of the Python module.

    A biz starts with the values of the base, or with the values of ``start``.
    """
    known = [name for name in names if name in vars(module)]
    if not known:
        return

    def make() -> Layer:
        layer = readers.make_layer()
        layer.update(start)
        return layer

    def layer(_: Scope) -> Layer | None:
        # A function that reads a variable may call a function that assigns the variable, and is to see the new value.
        own = assigned.get() if start or readers.assign else assigned.peek()
        return own if own is None or own.count or readers.assign else None

    assigned = Own(make)
    readers = Readers(module, layer)
    undo.callback(readers.close)
    for name in readers.follow(known):
        assign_by_context(undo, module, name, assigned.get)
