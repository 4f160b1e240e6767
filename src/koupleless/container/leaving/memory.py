"""Returns unneeded memory to the system: after a large biz has left, not after every small one.

Memory freed by Python is kept by the C library for the next request, and clean pages of compiled files stay mapped.
Both are returned through ``ctypes``, on Linux, and the former with glibc only: musl and macOS return memory by
themselves. Called by the thread that uninstalls, never by the thread of the event loop: meanwhile, other threads that
ask the C library for memory may wait for some milliseconds.
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
"""Blocks of freed memory from which the return pays: about 2 MB, twenty times the blocks of a small FastAPI module."""

_PAGE_OUT: Final = 21
"""``MADV_PAGEOUT``, from Linux 5.4 on."""


@contextlib.contextmanager
def returned_if_much() -> Iterator[None]:
    """Return memory to the system if the body has freed much, or if Python counts no blocks (PYTHONMALLOC)."""
    before = sys.getallocatedblocks()
    yield
    after = sys.getallocatedblocks()
    if before - after >= MUCH or after == 0:
        give_back()


def give_back() -> bool:
    """Return the free memory of the C library to the system. Tells whether there was any, and a way to do so."""
    library = _glibc()
    return library is not None and bool(library.malloc_trim(0))


def page_out(directories: Collection[str]) -> int:
    """Take compiled files below ``directories`` out of memory; the system reads the files again when code runs.

    Only clean pages leave, with the content of the file. Returns the number of mappings passed to the system.
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
    """Yield begin and end addresses of mapped files below the directories with these prefixes."""
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
    """Return the C library; ``None`` on systems other than Linux, and without ctypes."""
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
    """Return the C library if memory has to be returned by a call: the library is glibc. Else return ``None``."""
    try:
        is_glibc = (os.confstr("CS_GNU_LIBC_VERSION") or "").startswith("glibc")
    except (ValueError, OSError):
        return None
    library = _library()
    return library if is_glibc and hasattr(library, "malloc_trim") else None
