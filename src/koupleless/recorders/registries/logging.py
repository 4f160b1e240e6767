"""Recorders for ``logging``: handlers and filters that a biz adds to loggers, and all handlers that a biz makes."""

from __future__ import annotations

import functools
import logging
import weakref
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from koupleless.frames import standing_for
from koupleless.ownership.kinds import Herd, Pair
from koupleless.ownership.ledger import NOTHING, Order, Pending, owner, take_out

if TYPE_CHECKING:
    from collections.abc import Callable

    from koupleless.ownership.ledger import Ledger
    from koupleless.ownership.recording import Patches

    _Places: TypeAlias = Pair[tuple[int, int]]
    """Handlers or filters by the addresses of logger and handler, or filter."""


def install(patches: Patches) -> None:
    """Replace the functions for adding and removing handlers and filters, and the function called for a new handler."""
    patches.replace(logging.Logger, "addHandler", functools.partial(_adder, _HANDLERS, "removeHandler"))
    patches.replace(logging.Logger, "removeHandler", functools.partial(_remover, _HANDLERS))
    patches.replace(logging.Filterer, "addFilter", functools.partial(_adder, _FILTERS, "removeFilter"))
    patches.replace(logging.Filterer, "removeFilter", functools.partial(_remover, _FILTERS))
    patches.replace(logging, "_addHandlerRef", _handler_made)


def _adder(kind: _Places, remove: str, original: Callable[[Any, Any], None]) -> Any:
    @standing_for(original)
    def add(self: Any, thing: Any) -> None:
        ledger = owner()
        # A handler or filter already present was added by another owner, or is recorded.
        present = ledger is not None and thing in (self.handlers if remove == "removeHandler" else self.filters)
        original(self, thing)
        if ledger is not None and not present:
            _record(ledger, kind, remove, self, thing)

    return add


def _record(ledger: Ledger, kind: _Places, remove: str, target: Any, thing: Any) -> None:
    # Both weakly: the logger may be the biz's own and die with the biz, and the handler is kept by the logger.
    targets, things = weakref.ref(target), _weakly(thing)

    def undo() -> Pending | None:
        target, thing = targets(), things()
        if target is None or thing is None:
            return NOTHING
        try:
            getattr(target, remove)(thing)
        except BaseException:  # noqa: BLE001 - ``==`` of the biz's handler, or of one before it
            take_out(target.handlers if remove == "removeHandler" else target.filters, thing)
        return None

    name = getattr(target, "name", None) or type(target).__name__
    kind.add(ledger, (id(target), id(thing)), f"{type(thing).__name__} on {name}", undo)


def _remover(kind: _Places, original: Callable[[Any, Any], None]) -> Any:
    @standing_for(original)
    def remove(self: Any, thing: Any) -> None:
        original(self, thing)
        kind.remove((id(self), id(thing)))

    return remove


def _handler_made(original: Callable[[logging.Handler], None]) -> Any:
    @standing_for(original)
    def _addHandlerRef(handler: logging.Handler) -> None:  # noqa: N802
        original(handler)
        ledger = owner()
        if ledger is not None:
            _MADE.add(ledger, handler)

    return _addHandlerRef


def _close_handlers(_: Ledger, handlers: list[logging.Handler]) -> Pending:
    # As logging.shutdown does at interpreter exit, the last made first: a handler may write into one made before.
    for handler in reversed(handlers):
        handler.acquire()
        try:
            handler.flush()
            handler.close()
        except (OSError, ValueError):
            continue  # a stream that was closed before; logging.shutdown ignores the error, too
        finally:
            handler.release()
    return NOTHING


def _weakly(thing: Any) -> Callable[[], Any]:
    try:
        return weakref.ref(thing)
    except TypeError:
        return lambda: thing


_HANDLERS: Final[_Places] = Pair("logging handler", "Logger.addHandler", "Logger.removeHandler")
_FILTERS: Final[_Places] = Pair("logging filter", "Logger.addFilter, Handler.addFilter", "removeFilter")
_MADE: Final[Herd[logging.Handler]] = Herd(
    "logging", "logging.Handler()", "flushed and closed", what="its handlers", end=_close_handlers, order=Order.LAST
)
KINDS: Final = (_HANDLERS, _FILTERS, _MADE)
