"""``sqlite3``'s adapters and converters: one registry for the process, in which each biz has its own entries.

Two private copies of Django register the same types. What stands in the registry is therefore a function that asks who
is running, and the last biz that leaves takes it out again.
"""

from __future__ import annotations

import functools
import sys
from typing import TYPE_CHECKING, Any, Final

from koupleless.ownership.ledger import owner

if TYPE_CHECKING:
    from collections.abc import Callable

    from koupleless.ownership.recorders import Patches

_HOLDERS: Final = ("sqlite3", "sqlite3.dbapi2", "_sqlite3")


def install(patches: Patches) -> None:
    """Replace the functions that register."""
    try:
        import sqlite3  # noqa: PLC0415 - Python may have been built without it
    except ImportError:
        return
    for name in _HOLDERS:
        module = sys.modules[name]
        patches.replace(module, "register_adapter", functools.partial(_register_adapter, sqlite3))
        patches.replace(module, "register_converter", functools.partial(_register_converter, sqlite3))


def _register_adapter(sqlite3: Any, original: Callable[..., None]) -> Any:
    def none(value: Any) -> Any:
        conform = getattr(value, "__conform__", None)
        return value if conform is None else conform(sqlite3.PrepareProtocol)

    @functools.wraps(original)
    def register_adapter(type: type, adapter: Callable[[Any], Any], /) -> None:  # noqa: A002 - as in sqlite3
        key = (type, sqlite3.PrepareProtocol)
        _register(sqlite3.adapters, key, adapter, functools.partial(original, type), none)

    return register_adapter


def _register_converter(sqlite3: Any, original: Callable[..., None]) -> Any:
    @functools.wraps(original)
    def register_converter(typename: str, converter: Callable[[bytes], Any], /) -> None:
        _register(sqlite3.converters, typename.upper(), converter, functools.partial(original, typename), _as_stored)

    return register_converter


def _as_stored(value: bytes) -> object:
    # For a column that has no converter; how it is stored is not told, so this is what it looks like.
    for kind in (int, float):
        try:
            return kind(value)
        except ValueError:
            continue
    return value.decode()


class _ByOwner:
    """Stands in the registry for one key: calls what the running biz registered, else what the base did."""

    def __init__(self, of_base: Callable[[Any], Any] | None, none: Callable[[Any], Any]) -> None:
        self.of_base = of_base
        self.none = none
        self.users = 0

    def __call__(self, value: Any) -> Any:
        ledger = owner()
        mine = None if ledger is None else ledger.notes.get(self)
        return (mine or self.of_base or self.none)(value)


def _register(
    registry: dict[Any, Any],
    key: Any,
    function: Callable[[Any], Any],
    put: Callable[[Any], None],
    none: Callable[[Any], Any],
) -> None:
    ledger = owner()
    there = registry.get(key)
    if ledger is None:
        if isinstance(there, _ByOwner):
            there.of_base = function
        else:
            put(function)
        return
    if not isinstance(there, _ByOwner):
        there = _ByOwner(there, none)
        put(there)
    is_new = there not in ledger.notes
    ledger.notes[there] = function
    if is_new:
        there.users += 1
        ledger.record("sqlite3", _name(key), functools.partial(_leave, registry, key, there))


def _name(key: Any) -> str:
    return key if isinstance(key, str) else str(key[0].__qualname__)


def _leave(registry: dict[Any, Any], key: Any, mine: _ByOwner) -> None:
    mine.users -= 1
    if mine.users or registry.get(key) is not mine:
        return
    if mine.of_base is None:
        del registry[key]
    else:
        registry[key] = mine.of_base
