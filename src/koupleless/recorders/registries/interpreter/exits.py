"""Recorder for ``atexit``: exit functions of a biz run when the biz ends."""

from __future__ import annotations

import atexit
import functools
import sys
from typing import TYPE_CHECKING, Any, Final

from koupleless.context import call_as, current
from koupleless.frames import standing_for
from koupleless.ownership.kinds import Pair
from koupleless.ownership.ledger import Ledger, bounded, owner
from koupleless.ownership.registered import note_exit
from koupleless.recorders.names import name_of
from koupleless.recorders.running.once import is_of_process

if TYPE_CHECKING:
    from collections.abc import Callable

    from koupleless.context import Scope
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

    def __call__(self) -> None:
        call_as(self.scope, self.function, *self.args, **self.kwargs)

    def __repr__(self) -> str:
        return repr(self.function)  # the interpreter names a failing exit function so

    def undo(self, unregister: Callable[[Callable[..., object]], object], ledger: Ledger) -> None:
        unregister(self)
        bounded(self, name=f"atexit {ledger.biz}", timeout_s=ledger.remaining_s())


_EXITS: Final[Pair[_ExitFunction]] = Pair("atexit", "atexit.register", "called and unregistered")
KINDS: Final = (_EXITS,)


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
        _EXITS.add(ledger, held, name_of(func), functools.partial(held.undo, unregister, ledger))
        return func

    return register


def _unregister(original: Callable[[object], None]) -> Any:
    @standing_for(original)
    def unregister(func: object, /) -> None:
        if owner() is None:
            return original(func)
        for held in [held for held in list(_EXITS.of_running()) if held.function == func]:
            original(held)
            _EXITS.remove(held)
        return None

    return unregister
