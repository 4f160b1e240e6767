"""Recorders and sweeps for registries of shared libraries: logging handlers and filters, pydantic's generic classes."""

from __future__ import annotations

import functools
import logging
import sys
import typing
import weakref
from typing import TYPE_CHECKING, Any

from koupleless.ownership.ledger import NOTHING, Order, Pending, owner

if TYPE_CHECKING:
    from collections.abc import Callable

    from koupleless.ownership.caches import Survey
    from koupleless.ownership.ledger import Entry, Ledger
    from koupleless.ownership.recorders import Patches


def install(patches: Patches) -> None:
    """Replace the functions that register."""
    patches.replace(logging.Logger, "addHandler", functools.partial(_adder, "logging handler", "removeHandler"))
    patches.replace(logging.Logger, "removeHandler", _remover)
    patches.replace(logging.Filterer, "addFilter", functools.partial(_adder, "logging filter", "removeFilter"))
    patches.replace(logging.Filterer, "removeFilter", _remover)
    patches.replace(logging, "_addHandlerRef", _handler_made)


# --- logging --------------------------------------------------------------------------------------------------------


def _adder(kind: str, remove: str, original: Callable[[Any, Any], None]) -> Any:
    @functools.wraps(original)
    def add(self: Any, thing: Any) -> None:
        ledger = owner()
        # What is there already was put there by somebody else, or is recorded.
        present = ledger is not None and thing in (self.handlers if remove == "removeHandler" else self.filters)
        original(self, thing)
        if ledger is not None and not present:
            _record(ledger, kind, remove, self, thing)

    return add


def _record(ledger: Ledger, kind: str, remove: str, target: Any, thing: Any) -> None:
    # Weakly both: the logger may be the biz's own and die with it, and it is the logger that keeps the handler.
    book: dict[tuple[int, int], Entry] = ledger.notes.setdefault("logging", {})
    key = (id(target), id(thing))
    targets, things = weakref.ref(target), _weakly(thing)

    def undo() -> Pending | None:
        book.pop(key, None)
        target, thing = targets(), things()
        if target is None or thing is None:
            return NOTHING
        getattr(target, remove)(thing)
        return None

    name = getattr(target, "name", None) or type(target).__name__
    book[key] = ledger.record(kind, f"{type(thing).__name__} on {name}", undo)


def _remover(original: Callable[[Any, Any], None]) -> Any:
    @functools.wraps(original)
    def remove(self: Any, thing: Any) -> None:
        original(self, thing)
        ledger = owner()
        if ledger is not None:
            entry = ledger.notes.get("logging", {}).pop((id(self), id(thing)), None)
            if entry is not None:
                ledger.forget(entry)

    return remove


def _handler_made(original: Callable[[logging.Handler], None]) -> Any:
    @functools.wraps(original)
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
    # What logging.shutdown does at interpreter exit, the last made first: it may write into one made before.
    for handler in reversed(list(handlers)):
        handler.acquire()
        try:
            handler.flush()
            handler.close()
        except (OSError, ValueError):
            continue  # a stream that was closed before, which logging.shutdown ignores too
        finally:
            handler.release()
    return NOTHING


def _weakly(thing: Any) -> Callable[[], Any]:
    try:
        return weakref.ref(thing)
    except TypeError:
        return lambda: thing


# --- caches that need to be known by name ----------------------------------------------------------------------------


def sweep(survey: Survey) -> dict[str, int]:
    """Take the biz out of the caches of libraries the base shares; returns how many entries of each kind."""
    return {
        "pydantic generic": _sweep_pydantic(survey),
        "overload": _sweep_overloads(survey),
        "sqlalchemy listener": _sweep_sqlalchemy(survey),
    }


def _sweep_overloads(survey: Survey) -> int:
    # typing.get_overloads() finds the variants of a function by the names of its module and of itself, so the entry of
    # one module called ``app.models`` may hold functions of several bizs and of the base. A variant may be a static or
    # class method. ``overload`` returns the same function each time; what another decorator notes on that stays there.
    registry: dict[str, dict[str, dict[int, Any]]] = getattr(typing, "_overload_registry", {})
    notes: dict[str, Any] = vars(getattr(typing, "_overload_dummy", _sweep_overloads))
    foreign = [name for name, note in list(notes.items()) if survey.reaches_deeply(note)]
    for name in foreign:  # __dataclass_transform__
        notes.pop(name, None)
    count = len(foreign)
    for module in survey.names & registry.keys():
        functions = registry[module]
        for name, variants in list(functions.items()):
            doomed = [line for line, variant in list(variants.items()) if survey.reaches(variant)]
            for line in doomed:
                variants.pop(line, None)
            count += len(doomed)
            if not variants:
                functions.pop(name, None)
        if not functions:
            registry.pop(module, None)
    return count


def _sweep_pydantic(survey: Survey) -> int:
    # The values are weak, the keys are not: a key that mentions a class of the biz keeps it.
    cache = getattr(sys.modules.get("pydantic._internal._generics"), "_GENERIC_TYPES_CACHE", None)
    data: dict[Any, Any] | None = getattr(cache, "data", None)
    if data is None:
        return 0
    doomed = [key for key in list(data) if survey.reaches(key)]
    for key in doomed:
        data.pop(key, None)
    return len(doomed)


def _sweep_sqlalchemy(survey: Survey) -> int:
    # What listens on a class stands in a dictionary with weak keys, also when the class is the biz's own; the listener
    # refers to the module, and the module to the class, so the entry keeps itself.
    registry = sys.modules.get("sqlalchemy.event.registry")
    collections: dict[Any, dict[Any, Any]] = getattr(registry, "_collection_to_key", {})
    count = 0
    for reference, listeners in list(collections.items()):
        collection = reference()
        doomed = [listener for known in list(listeners) if survey.reaches(listener := known())]
        if collection is None or not doomed:
            continue
        by_class = getattr(collection, "_clslevel", None)
        kept = [collection.listeners] if by_class is None else list(by_class.values())
        for listener in doomed:
            for entries in kept:
                if listener in entries:
                    entries.remove(listener)
            getattr(collection, "propagate", set()).discard(listener)
        registry._clear(collection, doomed)  # type: ignore[union-attr]  # noqa: SLF001 - as its own clear() does
        count += len(doomed)
    return count
