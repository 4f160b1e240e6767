"""Code objects that the process loads once, however many bizs execute them.

A biz that holds a library as an own copy, or brings a private one that another biz has brought already, executes the
code objects that are there. They are found by the file they come from, as long as it looks unchanged; private libraries
also by their source text, since each artefact is unpacked to a directory of its own.

Lifetime: a code object lives as long as a module that was executed from it, and goes with the last one. Threads: any;
two that load the same file at the same moment may both read it, and one of the two code objects is kept.
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
    """Loads a source file as its base class does, from a code object that all bizs share.

    ``by_text`` finds it under another path, too; tracebacks then name the file that was read first. The loader keeps
    the code object alive, and a module keeps its loader.
    """

    __slots__ = ("_code",)  # not among the variables, by which loaders are compared: it comes late

    def __init__(self, fullname: str, path: str, *, by_text: bool = False) -> None:
        super().__init__(fullname, path)
        self._by_text = by_text
        self._code: CodeType | None = None

    def get_code(self, fullname: str) -> CodeType | None:
        """See ``importlib.abc.InspectLoader``. Raises ``ImportError``, and what compiling the source raises."""
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
    """That of the text of a file, which is not what is executed. Raises ``OSError``.

    Past ``io``: that is for opening code, and imports a module each time, which goes the way of a biz's imports.
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
    """The file and how it looks; ``None`` if it cannot be looked at, which the loader is to complain about."""
    try:
        status = os.stat(path)  # noqa: PTH116 - paths are texts, as in a spec
    except OSError:
        return None
    return path, status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
