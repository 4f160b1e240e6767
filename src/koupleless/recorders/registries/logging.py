"""Recorders for ``logging``: handlers and filters that a biz adds to loggers, and all handlers that a biz makes."""

from __future__ import annotations

import functools
import logging
import weakref
from typing import TYPE_CHECKING, Any

from koupleless.frames import standing_for
from koupleless.ownership.ledger import NOTHING, Order, Pending, owner, take_out

if TYPE_CHECKING:
    from collections.abc import Callable

    from koupleless.ownership.ledger import Entry, Ledger
    from koupleless.ownership.recording import Patches


def install(patches: Patches) -> None:
    """Replace the functions for adding and removing handlers and filters, and the function called for a new handler."""
    patches.replace(logging.Logger, "addHandler", functools.partial(_adder, "logging handler", "removeHandler"))
    patches.replace(logging.Logger, "removeHandler", _remover)
    patches.replace(logging.Filterer, "addFilter", functools.partial(_adder, "logging filter", "removeFilter"))
    patches.replace(logging.Filterer, "removeFilter", _remover)
    patches.replace(logging, "_addHandlerRef", _handler_made)


def _adder(kind: str, remove: str, original: Callable[[Any, Any], None]) -> Any:
    @standing_for(original)
    def add(self: Any, thing: Any) -> None:
        ledger = owner()
        # A handler or filter already present was added by another owner, or is recorded.
        present = ledger is not None and thing in (self.handlers if remove == "removeHandler" else self.filters)
        original(self, thing)
        if ledger is not None and not present:
            _record(ledger, kind, remove, self, thing)

    return add


def _record(ledger: Ledger, kind: str, remove: str, target: Any, thing: Any) -> None:
    # Both weakly: the logger may be the biz's own and die with the biz, and the handler is kept by the logger.
    book: dict[tuple[int, int], Entry] = ledger.notes.setdefault("logging", {})
    key = (id(target), id(thing))
    targets, things = weakref.ref(target), _weakly(thing)

    def undo() -> Pending | None:
        book.pop(key, None)
        target, thing = targets(), things()
        if target is None or thing is None:
            return NOTHING
        try:
            getattr(target, remove)(thing)
        except BaseException:  # noqa: BLE001 - ``==`` of the biz's handler, or of one before it
            take_out(target.handlers if remove == "removeHandler" else target.filters, thing)
        return None

    name = getattr(target, "name", None) or type(target).__name__
    book[key] = ledger.record(kind, f"{type(thing).__name__} on {name}", undo)


def _remover(original: Callable[[Any, Any], None]) -> Any:
    @standing_for(original)
    def remove(self: Any, thing: Any) -> None:
        original(self, thing)
        ledger = owner()
        if ledger is not None:
            entry = ledger.notes.get("logging", {}).pop((id(self), id(thing)), None)
            if entry is not None:
                ledger.forget(entry)

    return remove


def _handler_made(original: Callable[[logging.Handler], None]) -> Any:
    @standing_for(original)
    def _addHandlerRef(handler: logging.Handler) -> None:  # noqa: N802
        original(handler)
        ledger = owner()
        if ledger is None:
            return
        handlers: weakref.WeakKeyDictionary[logging.Handler, None] | None = ledger.notes.get("handlers")
        if handlers is None:
            handlers = ledger.notes["handlers"] = weakref.WeakKeyDictionary()
            ledger.record("logging", "its handlers", functools.partial(_close_handlers, handlers), order=Order.LAST)
        handlers[handler] = None

    return _addHandlerRef


def _close_handlers(handlers: weakref.WeakKeyDictionary[logging.Handler, None]) -> Pending:
    # As logging.shutdown does at interpreter exit, the last made first: a handler may write into one made before.
    for handler in reversed(list(handlers)):
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
