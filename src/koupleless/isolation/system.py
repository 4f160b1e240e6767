"""Variables of ``sys`` as seen by code, each with the value of the running biz; ``sys.modules`` is in `modules`.

While a biz runs, the search path of the biz lies before the path of the base, and the import hooks of the biz are seen
by the biz alone. While no biz runs, all are as they were without bizs. Assignments of a biz to ``sys.path``,
``sys.meta_path``, ``sys.argv``, ``sys.tracebacklimit`` or hooks such as ``sys.excepthook`` are seen by the biz alone,
too.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from koupleless.context import current
from koupleless.contextual import ContextList, assign_by_context, call_by_context
from koupleless.isolation.interpreter import variables_of
from koupleless.replacing import replace

if TYPE_CHECKING:
    import contextlib
    from collections.abc import Callable, Iterable


class SysVariables:
    """The variables of one owner; a facet of the owner's scope. Emptied by `drop`."""

    def __init__(self, path: Iterable[str], path_hooks: Iterable[Any]) -> None:
        self._first_hooks: list[Any] = []
        self.search_path = list(path)
        """The list at ``sys.path``, until the owner's code assigns another one."""
        self.meta_path: list[Any] = []
        """The list at ``sys.meta_path``, until the owner's code assigns another one."""
        self.assigned: dict[str, Any] = {"path_hooks": list(path_hooks), "path_importer_cache": {}}
        """Values assigned by the owner's code, by name; two names have a value from the beginning."""

    def begin_with(self, hooks: Iterable[Any]) -> None:
        """Set the import hooks that there are before the owner's code changes anything."""
        self._first_hooks += hooks
        self.meta_path += self._first_hooks

    def path_in_use(self) -> list[str]:
        """The list at ``sys.path`` as seen by the owner."""
        return self.assigned.get("path", self.search_path)  # type: ignore[no-any-return]

    def hooks_in_use(self) -> list[Any]:
        """The list at ``sys.meta_path`` as seen by the owner."""
        return self.assigned.get("meta_path", self.meta_path)  # type: ignore[no-any-return]

    def has_hooks(self) -> bool:
        """Whether the owner's code has changed the list at ``sys.meta_path``."""
        return self.assigned.get("meta_path", self.meta_path) != self._first_hooks  # type: ignore[no-any-return]

    def drop(self) -> None:
        """Let go of all values. Idempotent."""
        self._first_hooks.clear()
        self.meta_path.clear()
        self.search_path.clear()
        self.assigned.clear()


def base_path() -> list[str]:
    """The ``sys.path`` of the base, for any running biz."""
    path: Any = variables_of(sys)["path"]
    return path.of_base if isinstance(path, _SysList) else path


class _SysList(ContextList[Any]):
    """The object at ``sys.path`` or ``sys.meta_path`` while there are bizs; shows the running biz's list or base's."""

    __slots__ = ("of_base",)

    def __init__(self, of_base: list[Any], of: Callable[[SysVariables], list[Any]]) -> None:
        def target() -> list[Any]:
            scope = current()
            if scope is None:
                return of_base
            own = scope.find_facet(SysVariables)
            # Changes by code of a gone biz go into a copy, which nobody sees.
            return of(own) if own is not None else of_base.copy() if scope.is_closed else of_base

        super().__init__(target, mirror=of_base)
        self.of_base = of_base


def place_variables(undo: contextlib.ExitStack) -> None:
    """Put the views in their places; ``undo`` gets callbacks that put back the originals.

    A callback does nothing where another object has replaced the view. Called under the lock that guards the count of
    installers.
    """
    placed = {
        "path": _SysList(sys.path, lambda own: own.search_path),
        "meta_path": _SysList(sys.meta_path, lambda own: own.meta_path),
    }
    for name, view in placed.items():
        replace(undo, sys, name, view)
    variables: dict[str, Any] = {**placed, "argv": sys.argv, "tracebacklimit": None}
    for name, view in variables.items():
        is_by_context = isinstance(view, ContextList)
        assign_by_context(undo, sys, name, _assigned, default=view if is_by_context else None)
    for name in ("path_hooks", "path_importer_cache"):  # each owner has its own from the beginning
        assign_by_context(undo, sys, name, _assigned)
    for name in ("excepthook", "unraisablehook", "displayhook"):
        call_by_context(undo, sys, name, _assigned)


def _assigned() -> dict[str, Any] | None:
    scope = current()
    if scope is None:
        return None
    own = scope.find_facet(SysVariables)
    # Assignments by code of a gone biz go into an empty dictionary, which nobody sees.
    return own.assigned if own is not None else {} if scope.is_closed else None
