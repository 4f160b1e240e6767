"""Recorders for ``copyreg`` and ``sqlite3``: under a key shared by bizs, each biz has an entry of its own."""

from __future__ import annotations

import copyreg
import functools
import sys
from typing import TYPE_CHECKING, Any, Final

from koupleless.frames import standing_for
from koupleless.ownership.kinds import OwnEntry
from koupleless.ownership.ledger import take_out
from koupleless.ownership.purge import Sweep

if TYPE_CHECKING:
    from collections.abc import Callable

    from koupleless.ownership.belonging import Survey
    from koupleless.ownership.recording import Patches

_COPYREG: Final = OwnEntry("copyreg", "copyreg.pickle", "taken out with the last biz")
_SQLITE3: Final = OwnEntry("sqlite3", "sqlite3.register_adapter, register_converter", "taken out with the last biz")
KINDS: Final = (_COPYREG, _SQLITE3)

_SQLITE: Final = ("sqlite3", "sqlite3.dbapi2", "_sqlite3")


def install(patches: Patches) -> None:
    """Replace the functions for entering into the tables."""
    patches.replace(copyreg, "pickle", _copyreg_pickle)
    try:
        import sqlite3  # noqa: PLC0415 - Python may have been built without it
    except ImportError:
        return
    for name in _SQLITE:
        module = sys.modules[name]
        patches.replace(module, "register_adapter", functools.partial(_register_adapter, sqlite3))
        patches.replace(module, "register_converter", functools.partial(_register_converter, sqlite3))


def _copyreg_pickle(original: Callable[..., None]) -> Any:
    @standing_for(original)
    def pickle(ob_type: type, pickle_function: Any, constructor_ob: Any = None) -> None:
        if not callable(pickle_function):
            return original(ob_type, pickle_function, constructor_ob)  # the original refuses the function
        if constructor_ob is not None:
            copyreg.constructor(constructor_ob)
        put = functools.partial(copyreg.dispatch_table.__setitem__, ob_type)
        _COPYREG.enter(copyreg.dispatch_table, ob_type, pickle_function, put, _as_without_entry)
        return None

    return pickle


def _as_without_entry(value: Any) -> Any:
    return value.__reduce_ex__(4)


def _register_adapter(sqlite3: Any, original: Callable[..., None]) -> Any:
    def none(value: Any) -> Any:
        conform = getattr(value, "__conform__", None)
        return value if conform is None else conform(sqlite3.PrepareProtocol)

    @standing_for(original)
    def register_adapter(type: type, adapter: Callable[[Any], Any], /) -> None:  # noqa: A002 - as in sqlite3
        key = (type, sqlite3.PrepareProtocol)
        _SQLITE3.enter(sqlite3.adapters, key, adapter, functools.partial(original, type), none)

    return register_adapter


def _register_converter(sqlite3: Any, original: Callable[..., None]) -> Any:
    @standing_for(original)
    def register_converter(typename: str, converter: Callable[[bytes], Any], /) -> None:
        key, put = typename.upper(), functools.partial(original, typename)
        _SQLITE3.enter(sqlite3.converters, key, converter, put, _as_stored)

    return register_converter


def _as_stored(value: bytes) -> object:
    # For a column without a converter: the stored type is not told, so the value decides.
    for kind in (int, float):
        try:
            return kind(value)
        except ValueError:
            continue
    return value.decode()


def _sweep_copyreg(survey: Survey) -> int:
    """Remove pickling functions where the class or the function is of the biz. Returns the number removed."""
    count = 0
    table = copyreg.dispatch_table
    if not survey.reaches_any([*table.keys(), *table.values()], {}):
        return 0
    for kind, function in list(table.items()):
        if survey.reaches(kind) or survey.reaches(function):
            take_out(table, kind)
            count += 1
    return count


SWEEPS: Final = (Sweep("copyreg", "copyreg.dispatch_table", _sweep_copyreg),)
