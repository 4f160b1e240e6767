"""Recorder for ``codecs``: search functions are unregistered with the biz, error handlers become trampolines."""

from __future__ import annotations

import codecs
import functools
from typing import TYPE_CHECKING, Any, Final

from koupleless.contextual import ContextCallable
from koupleless.frames import standing_for
from koupleless.ownership.kinds import Box, Kind, Pair
from koupleless.ownership.ledger import owner
from koupleless.ownership.registered import note_error
from koupleless.recorders.names import name_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from koupleless.ownership.recording import Patches

_SEARCH: Final[Pair[int]] = Pair("codec", "codecs.register", "codecs.unregister")
_ERRORS: Final = Kind("codec error handler", "codecs.register_error", "emptied; the handler before is put back")
KINDS: Final = (_SEARCH, _ERRORS)


def install(patches: Patches) -> None:
    """Replace the functions for registering search functions and error handlers."""
    patches.replace(codecs, "register", _register)
    patches.replace(codecs, "unregister", _unregister)
    patches.replace(codecs, "register_error", _register_error)


def _register(original: Callable[[Any], None]) -> Any:
    unregister = codecs.unregister

    @standing_for(original)
    def register(search_function: Callable[[str], codecs.CodecInfo | None], /) -> None:
        original(search_function)
        ledger = owner()
        if ledger is not None:
            undo = functools.partial(unregister, search_function)
            _SEARCH.add(ledger, id(search_function), name_of(search_function), undo)

    return register


def _unregister(original: Callable[[Any], None]) -> Any:
    @standing_for(original)
    def unregister(search_function: Callable[[str], codecs.CodecInfo | None], /) -> None:
        original(search_function)
        _SEARCH.remove(id(search_function))

    return unregister


def _register_error(original: Callable[[str, Any], None]) -> Any:
    @standing_for(original)
    def register_error(errors: str, handler: Callable[[UnicodeError], tuple[str | bytes, int]], /) -> None:
        ledger = owner()
        if ledger is None or not callable(handler):
            note_error(errors)
            return original(errors, handler)
        try:
            before = codecs.lookup_error(errors)
        except LookupError:
            before = None
        box = Box(handler)

        def gone(_: UnicodeError) -> tuple[str | bytes, int]:
            raise LookupError(f"unknown error handler name {errors!r}")

        trampoline = ContextCallable(lambda: box.content or gone)
        original(errors, trampoline)

        def undo() -> None:
            box.empty()
            if before is not None and codecs.lookup_error(errors) is trampoline:
                original(errors, before)

        _ERRORS.record(ledger, repr(errors), undo)
        return None

    return register_error
