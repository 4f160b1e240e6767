"""Modules of one owner below packages that are not its own: what it finds as attributes of these packages.

A biz that takes ``xml.etree.ElementTree`` out of its ``sys.modules`` gets another one, and finds that at
``xml.etree``, which all share. The attribute answers by who asks: the running biz, else the owner of the code that
reads it.

Lifetime: an attribute answers so while an owner has a module of its own there. Threads: any.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from typing import TYPE_CHECKING, Any, Final

from koupleless.contextual import assign_by_context

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import ModuleType


class Children:
    """The modules that one owner has below packages of others."""

    def __init__(self, asking: Callable[[Mapping[str, Any]], Children | None]) -> None:
        """``asking`` finds those of whoever asks, by the built-ins of the code that reads an attribute."""
        self._asking = asking
        self._known: dict[str, dict[str, Any]] = {}
        """Package -> name -> module, or whatever else the owner's code has assigned there."""
        self._shown: set[tuple[str, str]] = set()

    def of(self, package: str) -> dict[str, Any]:
        """The owner's own attributes of a package, to be read and changed."""
        return self._known.setdefault(package, {})

    def show(self, package: ModuleType, child: str, module: object) -> None:
        """Let the owner, and nobody else, find the module at ``package.child``."""
        name = package.__name__
        if (name, child) not in self._shown:
            try:
                _bindings.add(package, child, self._asking)
            except TypeError:  # it is an instance of a class of its own, which decides about its attributes itself
                return
            self._shown.add((name, child))
        self.of(name)[child] = module

    def hide(self, package: ModuleType, child: str) -> None:
        """Let the owner find there again what all others find."""
        self.of(package.__name__).pop(child, None)

    def clear(self) -> None:
        """Let go of all of them."""
        self._known.clear()
        while self._shown:
            _bindings.remove(*self._shown.pop())


class _Bindings:
    """The attributes that answer by who asks, and for how many owners."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._undo: dict[tuple[str, str], tuple[contextlib.ExitStack, int]] = {}

    def add(self, package: ModuleType, child: str, asking: Callable[[Mapping[str, Any]], Children | None]) -> None:
        """Count one more owner. Raises ``TypeError`` if somebody else has given the package a class."""
        key = (package.__name__, child)
        with self._lock:
            undo, users = self._undo.get(key) or (contextlib.ExitStack(), 0)
            if not users:
                assign_by_context(undo, package, child, _own_attributes(package.__name__, asking))
            self._undo[key] = undo, users + 1

    def remove(self, package: str, child: str) -> None:
        """Count one owner less."""
        with self._lock:
            undo, users = self._undo.pop((package, child))
            if users > 1:
                self._undo[package, child] = undo, users - 1
            else:
                undo.close()


def _own_attributes(
    package: str, asking: Callable[[Mapping[str, Any]], Children | None]
) -> Callable[[], dict[str, Any] | None]:
    def here() -> dict[str, Any] | None:
        children = asking(sys._getframe(2).f_builtins)  # noqa: SLF001 - past the getter of the property
        return None if children is None else children.of(package)

    return here


_bindings: Final = _Bindings()
