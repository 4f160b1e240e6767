"""Code objects, loaded once in a process for any number of bizs.

A biz executes code objects loaded by another biz, if both hold a library as an own copy, or bring the same private
library. A code object is found by the source file, as long as the file looks unchanged; in a private library also by
the source text, since each artefact is unpacked to a directory of its own. Whoever unpacked a file knows the text: such
a file is not read as long as size and time of change are those of the unpacked file. Python itself goes by no more to
take bytecode for the source's, and asks nothing at all of bytecode in a store.

Lifetime: a code object lives as long as a Python module executed from it, and goes with the last one. Threads: any; two
threads that load the same file at the same moment may both read the file, and one of the two code objects is kept.
"""

from __future__ import annotations

import hashlib
import os
import weakref
from importlib.machinery import SourceFileLoader
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import CodeType

Texts: TypeAlias = "Callable[[str, int, int], bytes | None]"
"""Returns the SHA-256 of the text of a source file by path, size in bytes and time of change in nanoseconds.

``None`` means that the file has to be read.
"""


class _Key(NamedTuple):
    """A file as it looked when the code was loaded."""

    path: str
    device: int
    inode: int
    size: int
    """In bytes."""
    changed_ns: int
    """Time of change of the content, in nanoseconds."""


_by_file: Final[weakref.WeakValueDictionary[_Key, CodeType]] = weakref.WeakValueDictionary()
_by_text: Final[weakref.WeakValueDictionary[bytes, CodeType]] = weakref.WeakValueDictionary()


def unknown(path: str, size: int, changed_ns: int) -> None:
    """Know no text: the `Texts` for files that nobody has unpacked."""


class SharedCodeLoader(SourceFileLoader):
    """Loads a source file as its base class does, from a code object shared by all bizs.

    With ``texts``, the code object may be of another file with the same text; tracebacks then name the file that was
    read first. The loader keeps the code object alive, and a Python module keeps its loader.
    """

    __slots__ = ("_code", "_texts")  # no variables: loaders are compared by variables, and the code comes late

    def __init__(self, fullname: str, path: str, texts: Texts | None = None) -> None:
        super().__init__(fullname, path)
        self._texts = texts
        self._code: CodeType | None = None

    def get_code(self, fullname: str) -> CodeType | None:
        """See ``importlib.abc.InspectLoader``. Raises ``ImportError``, and the errors of compiling the source."""
        key = _key(self.path)
        code = None if key is None else _by_file.get(key)
        if code is None:
            code = super().get_code(fullname) if key is None or self._texts is None else self._by_text(fullname, key)
            if code is not None and key is not None:
                code = _by_file.setdefault(key, code)
        self._code = code
        return code

    def _by_text(self, fullname: str, key: _Key) -> CodeType | None:
        assert self._texts is not None
        text = self._texts(self.path, key.size, key.changed_ns) or _digest(self.path)
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


def _key(path: str) -> _Key | None:
    """Return the key of a file as it looks now; ``None`` if the file has no status: the loader is to complain."""
    try:
        status = os.stat(path)  # noqa: PTH116 - paths are texts, as in a spec
    except OSError:
        return None
    return _Key(path, status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
