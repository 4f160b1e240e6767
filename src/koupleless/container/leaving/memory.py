"""Memory that nobody needs any more goes back to the system: after a large biz has left, not after every small one.

What Python frees, the C library keeps for its next request, and clean pages of compiled files stay mapped in. Both are
given back through ``ctypes``, on Linux, and the first with glibc alone: musl and macOS do it by themselves. Called by
the thread that uninstalls, never by that of the event loop: other threads that ask the C library for memory meanwhile
may wait for some milliseconds.
"""

from __future__ import annotations

import contextlib
import functools
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

MUCH: Final = 20_000
"""Blocks of memory from which it is worth while: about 2 MB, and twenty times what a small FastAPI module has."""

_PAGE_OUT: Final = 21
"""``MADV_PAGEOUT``, from Linux 5.4 on."""


@contextlib.contextmanager
def returned_if_much() -> Iterator[None]:
    """Give free memory back to the system if the body has freed much of it, or where nobody counts (PYTHONMALLOC)."""
    before = sys.getallocatedblocks()
    yield
    after = sys.getallocatedblocks()
    if before - after >= MUCH or after == 0:
        give_back()


def give_back() -> bool:
    """Give back what the C library keeps free; returns whether there was anything, and a way to do it."""
    library = _glibc()
    return library is not None and bool(library.malloc_trim(0))


def page_out(directories: Collection[str]) -> int:
    """Take compiled files below some directories out of memory; they are read again when their code is run.

    Only clean pages leave, which are those of the file. Returns how many mappings the system was asked about.
    """
    library = _library()
    if library is None or not directories:
        return 0
    prefixes = tuple(os.path.join(directory, "") for directory in directories)  # noqa: PTH118 - it ends in a separator
    count = 0
    for begin, end in _mappings(prefixes):
        library.madvise(begin, end - begin, _PAGE_OUT)
        count += 1
    return count


def _mappings(prefixes: tuple[str, ...]) -> Iterator[tuple[int, int]]:
    """Where files whose paths begin so are mapped: addresses of begin and end."""
    try:
        lines = Path("/proc/self/maps").read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return
    for line in lines:
        addresses, _, path = line.partition(" ")
        if path[path.find("/") :].startswith(prefixes):
            begin, _, end = addresses.partition("-")
            yield int(begin, 16), int(end, 16)


@functools.cache
def _library() -> Any:
    """The C library; ``None`` where it is not that of Linux."""
    if sys.platform != "linux":
        return None
    try:
        import ctypes  # noqa: PLC0415 - a Python may be built without it

        library: Any = ctypes.CDLL(None)
        library.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    except (ImportError, OSError, AttributeError):
        return None
    return library


@functools.cache
def _glibc() -> Any:
    """The C library, if it is the one that has to be told."""
    try:
        is_glibc = (os.confstr("CS_GNU_LIBC_VERSION") or "").startswith("glibc")
    except (ValueError, OSError):
        return None
    library = _library()
    return library if is_glibc and hasattr(library, "malloc_trim") else None
