"""Guards around callbacks of bizs: an exit raised by a biz to end its program would end the shared loop.

On a loop of asyncio, the exit is caught around each turn, at no cost. Other loops have no such place, so each callback
of a biz is wrapped in a function there.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Final

from koupleless.context import as_base, current, scope_in
from koupleless.exits import EXITS, in_words, is_of_signal
from koupleless.frames import passed_over, standing_for
from koupleless.recorders.loops.stubborn import ended

if TYPE_CHECKING:
    import contextvars
    from collections.abc import Callable

    from koupleless.context import Scope

_log: Final = logging.getLogger("koupleless")


def guard_turn(original: Callable[[], None]) -> Any:
    """Catch exits of bizs around a turn of a loop of asyncio; callbacks left of the turn run in the next turn."""

    @standing_for(original)
    def turn() -> None:
        try:
            original()
        except EXITS as error:
            scope = _raised_in(error)
            if scope is None or is_of_signal(error):
                raise
            tell_exit(scope, error)

    return turn


def _raised_in(error: BaseException) -> Scope | None:
    """Find the biz in the context of which the loop has run the callback that raised ``error``."""
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code is _HANDLE_RUN:
            return scope_in(trace.tb_frame.f_locals["self"]._context)  # noqa: SLF001 - a handle has no other
        trace = trace.tb_next
    return None


_HANDLE_RUN: Final = asyncio.Handle._run.__code__  # noqa: SLF001


def guard_soon(original: Callable[..., asyncio.Handle]) -> Any:
    """Wrap each callback of a biz, steps of tasks among them, for a loop whose turns cannot be wrapped."""

    @standing_for(original)
    def call_soon(
        callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        if (current() if context is None else scope_in(context)) is None:
            return original(callback, *args, context=context)
        return original(guarded, callback, *args, context=context)

    return call_soon


@passed_over
def guarded(callback: Callable[..., object], *args: Any) -> None:
    """Call a callback of a biz; an exit that is no signal's is told in the log, and ends nothing."""
    try:
        callback(*args)
    except EXITS as error:
        scope = current()
        if scope is None or is_of_signal(error):
            raise
        tell_exit(scope, error)
    except asyncio.InvalidStateError:
        if getattr(callback, "__self__", None) not in ended:
            raise


def tell_exit(scope: Scope, error: BaseException) -> None:
    """Tell in the log of the base that a biz has raised an exit on the loop."""
    with as_base():
        _log.error("%s; the base goes on", in_words(error, f"biz {scope.biz}", "on the shared event loop"))
