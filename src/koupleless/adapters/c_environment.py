"""Environment variables as compiled code reads them, replaced for the length of a call.

C code reads the variables of the process through one pointer. The pointer is turned to another array as long as the
call lasts; an array is never changed and never freed, since another thread may be reading it at any time. Where the
pointer cannot be turned, the variables are set.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import threading
from typing import TYPE_CHECKING, Any, Final

from koupleless.context import as_base

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_lock: Final = threading.RLock()
"""Held while the pointer is turned."""


@contextlib.contextmanager
def shown_to_c(variables: Mapping[str, str | None]) -> Iterator[None]:
    """Show these variables to C code, ``None`` for an absent one; one caller at a time.

    Code on other threads sees the variables meanwhile, too; so only the code called here may read the variables.
    """
    with _lock:
        with as_base():
            before = {name: os.environ.get(name) for name in variables}
            entries = _with(variables)
        if before == dict(variables):
            yield
            return
        pointer = _pointer()
        if pointer is None:
            _put(variables)
        else:
            old = pointer.value
            pointer.value = new = ctypes.addressof(_array(entries))
        try:
            yield
        finally:
            if pointer is not None and pointer.value == new:
                pointer.value = old
            else:  # somebody has set a variable meanwhile, in an array made of ours
                _put(before)


@contextlib.contextmanager
def shown_as_it_is() -> Iterator[None]:
    """Let nobody show other variables meanwhile."""
    with _lock:
        yield


def _with(variables: Mapping[str, str | None]) -> tuple[bytes, ...]:
    merged: dict[str, str | None] = {**os.environ, **variables}
    return tuple(os.fsencode(f"{name}={value}") for name, value in merged.items() if value is not None)


@functools.cache
def _array(entries: tuple[bytes, ...]) -> Any:
    return (ctypes.c_char_p * (len(entries) + 1))(*entries, None)


def _put(variables: Mapping[str, str | None]) -> None:
    with as_base():
        for name, value in variables.items():
            if value is None:
                os.unsetenv(name)
            else:
                os.putenv(name, value)


def _pointer() -> ctypes.c_void_p | None:
    """The address of the pointer of the C library; ``None`` on systems that do not tell the address."""
    try:
        return ctypes.c_void_p.in_dll(ctypes.CDLL(None), "environ")
    except (OSError, TypeError, ValueError):
        return None
