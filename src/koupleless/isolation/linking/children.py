"""Python modules of one owner below packages of other owners, found as attributes of these packages.

A biz that takes ``xml.etree.ElementTree`` out of ``sys.modules`` gets another one, and finds the new one at the shared
package ``xml.etree``. The attribute answers for the running biz, else for the owner of the code that reads the
attribute.

Lifetime: an attribute answers so while an owner has a Python module of its own there. Threads: any.
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
    """Python modules of one owner below packages of other owners."""

    def __init__(self, asking: Callable[[Mapping[str, Any]], Children | None]) -> None:
        """``asking`` takes the built-ins of the code that reads an attribute, and returns the `Children` to answer."""
        self._asking = asking
        self._known: dict[int, dict[str, Any]] = {}
        """Address of the package -> name -> Python module, or another object assigned there by code of the owner.

        The name of a package is a variable, which code may change; the package itself stays as long as an attribute is
        shown there.
        """
        self._shown: set[tuple[int, str]] = set()

    def of(self, package: int) -> dict[str, Any]:
        """The owner's own attributes of a package, by address; a dictionary for callers to read and change."""
        return self._known.setdefault(package, {})

    def bind(self, package: ModuleType, child: str, module: object, *, is_own: bool) -> None:
        """Let the owner find a Python module as an attribute of the package; ``is_own`` says so of the package."""
        if is_own:
            setattr(package, child, module)
        elif getattr(package, "__dict__", {}).get(child) is module:
            self.hide(package, child)
        else:
            self.show(package, child, module)

    def show(self, package: ModuleType, child: str, module: object) -> None:
        """Let the owner, and nobody else, find the Python module at ``package.child``."""
        key = id(package), child
        if key not in self._shown:
            try:
                _bindings.add(package, child, self._asking)
            except TypeError:  # the package has a class of its own, and the class decides about attributes
                return
            self._shown.add(key)
        self.of(id(package))[child] = module

    def hide(self, package: ModuleType, child: str) -> None:
        """Let the owner find the shared Python module at ``package.child`` again."""
        self._known.get(id(package), {}).pop(child, None)

    def clear(self) -> None:
        """Let go of all Python modules, and count one owner less at each attribute."""
        self._known.clear()
        while self._shown:
            _bindings.remove(*self._shown.pop())


class _Bindings:
    """Attributes with a different answer for each owner, and the number of owners of each."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._undo: dict[tuple[int, str], tuple[contextlib.ExitStack, int]] = {}
        """By address of the package and name; the stack refers to the package."""

    def add(self, package: ModuleType, child: str, asking: Callable[[Mapping[str, Any]], Children | None]) -> None:
        """Count one more owner. Raises ``TypeError`` if somebody else has given the package a class."""
        key = id(package), child
        with self._lock:
            undo, users = self._undo.get(key) or (contextlib.ExitStack(), 0)
            if not users:
                assign_by_context(undo, package, child, _own_attributes(id(package), asking))
            self._undo[key] = undo, users + 1

    def remove(self, package: int, child: str) -> None:
        """Count one owner less."""
        with self._lock:
            undo, users = self._undo.pop((package, child))
            if users > 1:
                self._undo[package, child] = undo, users - 1
            else:
                undo.close()


def _own_attributes(
    package: int, asking: Callable[[Mapping[str, Any]], Children | None]
) -> Callable[[], dict[str, Any] | None]:
    def here() -> dict[str, Any] | None:
        children = asking(sys._getframe(2).f_builtins)  # noqa: SLF001 - past the getter of the property
        return None if children is None else children.of(package)

    return here


_bindings: Final = _Bindings()
