"""Code objects, loaded once in a process for any number of bizs.

A biz executes code objects loaded by another biz, if both hold a library as an own copy, or bring the same private
library. A code object is found by the source file, as long as the file looks unchanged; in a private library also by
the source text, since each artefact is unpacked to a directory of its own.

Lifetime: a code object lives as long as a Python module executed from it, and goes with the last one. Threads: any; two
threads that load the same file at the same moment may both read the file, and one of the two code objects is kept.
"""

from __future__ import annotations

import hashlib
import os
import weakref
from importlib.machinery import SourceFileLoader
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from types import CodeType

_by_file: Final[weakref.WeakValueDictionary[tuple[str, int, int, int, int], CodeType]] = weakref.WeakValueDictionary()
_by_text: Final[weakref.WeakValueDictionary[bytes, CodeType]] = weakref.WeakValueDictionary()


class SharedCodeLoader(SourceFileLoader):
    """Loads a source file as its base class does, from a code object shared by all bizs.

    ``by_text`` finds the code object of a file with the same text, too; tracebacks then name the file that was read
    first. The loader keeps the code object alive, and a Python module keeps its loader.
    """

    __slots__ = ("_code",)  # no variable: loaders are compared by variables, and the code comes late

    def __init__(self, fullname: str, path: str, *, by_text: bool = False) -> None:
        super().__init__(fullname, path)
        self._by_text = by_text
        self._code: CodeType | None = None

    def get_code(self, fullname: str) -> CodeType | None:
        """See ``importlib.abc.InspectLoader``. Raises ``ImportError``, and the errors of compiling the source."""
        key = _key(self.path)
        code = None if key is None else _by_file.get(key)
        if code is None:
            code = self._find_by_text(fullname) if self._by_text and key is not None else super().get_code(fullname)
            if code is not None and key is not None:
                code = _by_file.setdefault(key, code)
        self._code = code
        return code

    def _find_by_text(self, fullname: str) -> CodeType | None:
        text = _digest(self.path)
        code = _by_text.get(text)
        if code is None:
            code = super().get_code(fullname)
            if code is not None:
                code = _by_text.setdefault(text, code)
        return code


def _digest(path: str) -> bytes:
    """Return the digest of the text of a source file. Raises ``OSError``.

    Reads past ``io``: ``io.open_code`` imports a Python module each time, by way of the imports of the biz.
    """
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        digest, text = hashlib.sha256(), os.read(file, _AT_ONCE)
        digest.update(text)
        while len(text) == _AT_ONCE:
            text = os.read(file, _AT_ONCE)
            digest.update(text)
        return digest.digest()
    finally:
        os.close(file)


_AT_ONCE: Final = 1 << 16


def _key(path: str) -> tuple[str, int, int, int, int] | None:
    """Return path, device, inode, size in bytes and time of change in nanoseconds of a file.

    Returns ``None`` if the file has no status: the loader is to complain.
    """
    try:
        status = os.stat(path)  # noqa: PTH116 - paths are texts, as in a spec
    except OSError:
        return None
    return path, status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
