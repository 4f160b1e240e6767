"""Recorder for ``atexit``: exit functions of a biz run when the biz ends."""

from __future__ import annotations

import atexit
import functools
import sys
from typing import TYPE_CHECKING, Any

from koupleless.context import call_as, current
from koupleless.frames import standing_for
from koupleless.ownership.ledger import Ledger, bounded, owner
from koupleless.ownership.registered import note_exit
from koupleless.recorders.names import name_of
from koupleless.recorders.running.once import is_of_process

if TYPE_CHECKING:
    from collections.abc import Callable

    from koupleless.context import Scope
    from koupleless.ownership.ledger import Entry
    from koupleless.ownership.recording import Patches


def install(patches: Patches) -> None:
    """Replace the functions for registering and unregistering exit functions."""
    patches.replace(atexit, "register", _register)
    patches.replace(atexit, "unregister", _unregister)


class _ExitFunction:
    """Exit function of a biz as ``atexit`` holds the function; the interpreter calls it if the biz stays to the end."""

    def __init__(
        self, scope: Scope, function: Callable[..., object], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        self.scope = scope
        self.function = function
        self.args = args
        self.kwargs = kwargs
        self.entry: Entry | None = None

    def __call__(self) -> None:
        call_as(self.scope, self.function, *self.args, **self.kwargs)

    def __repr__(self) -> str:
        return repr(self.function)  # the interpreter names a failing exit function so

    def undo(self, unregister: Callable[[Callable[..., object]], object], ledger: Ledger) -> None:
        unregister(self)
        bounded(self, name=f"atexit {ledger.biz}", timeout_s=ledger.remaining_s())


def _register(original: Callable[..., Any]) -> Any:
    unregister = atexit.unregister  # replaced by ours, by now or later; ours passes on functions of the base

    @standing_for(original)
    def register(func: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Callable[..., Any]:
        scope = current()
        ledger = None if scope is None or is_of_process(sys._getframe(1)) else scope.find_facet(Ledger)  # noqa: SLF001
        if scope is None or ledger is None or not callable(func):
            if not args and not kwargs:
                note_exit(func)
            return original(func, *args, **kwargs)  # type: ignore[no-any-return]
        held = _ExitFunction(scope, func, args, kwargs)
        original(held)
        undo = functools.partial(held.undo, unregister, ledger)
        held.entry = ledger.record("atexit", name_of(func), undo)
        ledger.notes.setdefault("atexit", []).append(held)
        return func

    return register


def _unregister(original: Callable[[object], None]) -> Any:
    @standing_for(original)
    def unregister(func: object, /) -> None:
        ledger = owner()
        if ledger is None:
            return original(func)
        mine: list[_ExitFunction] = ledger.notes.get("atexit", [])
        for held in [held for held in mine if held.function == func]:
            mine.remove(held)
            original(held)
            if held.entry is not None:
                ledger.forget(held.entry)
        return None

    return unregister
