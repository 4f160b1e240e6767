"""Compiled modules: each content is initialised once in a process, however often it is installed.

Shared libraries are never unloaded, and many refuse, or crash, when the same file is initialised again: numpy, scipy,
protobuf, cryptography. Two rules follow.

A *distribution* with compiled modules, and what it requires, is put on the shelf: loaded once for each content, in a
namespace of its own that belongs to no biz, and lent to every biz that brings the same content, as the base lends its
libraries. Its Python modules must come along, since the compiled ones keep references to them for good. Other contents
of the same distribution stand beside it. Where the base has the very same content, the base's is lent.

A compiled module of a biz's *own code* is kept for its content when it is first loaded and handed out again.
"""

from __future__ import annotations

import _imp
import contextlib
import hashlib
import os
import re
import threading
from importlib.machinery import EXTENSION_SUFFIXES, ExtensionFileLoader
from typing import TYPE_CHECKING, Any, Final, Protocol

from koupleless.biz import BizId
from koupleless.context import Scope
from koupleless.isolation.interpreter import REAL, bootstrap, restorer, withholding
from koupleless.isolation.linker import Linker, Locator

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

    from koupleless.isolation.distributions import Index


# --- single files --------------------------------------------------------------------------------------------------


class _Kept:
    """The compiled modules that were loaded for bizs, by content. For the life of the process."""

    def __init__(self) -> None:
        self.guard = threading.Lock()
        self.modules: dict[str, ModuleType] = {}
        self.locks: dict[str, Any] = {}
        self.unfinished: set[str] = set()
        self.digests: dict[tuple[int, int, int, int], str] = {}

    @contextlib.contextmanager
    def locked(self, digest: str) -> Iterator[None]:
        with self.guard:
            lock = self.locks.setdefault(digest, bootstrap._ModuleLock(digest))  # noqa: SLF001
        lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def digest(self, path: str) -> str:
        """SHA-256 of a file, remembered for as long as the file looks unchanged. Raises ``OSError``."""
        status = os.stat(path)  # noqa: PTH116 - paths are texts, as in a spec
        key = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
        known = self.digests.get(key)
        if known is None:
            with open(path, "rb") as file:  # noqa: PTH123
                known = self.digests[key] = hashlib.file_digest(file, "sha256").hexdigest()
        return known

    def of_base(self, path: str) -> ModuleType | None:
        """The module that the base has loaded from a file of the same content."""
        size = os.stat(path).st_size  # noqa: PTH116
        for module in list(REAL.values()):
            other = getattr(module, "__file__", None)
            if not isinstance(other, str) or not other.endswith(tuple(EXTENSION_SUFFIXES)):
                continue
            try:
                if os.stat(other).st_size == size and self.digest(other) == self.digest(path):  # noqa: PTH116
                    return module
            except OSError:  # the file was replaced or removed after it was loaded
                continue
        return None


_kept: Final = _Kept()


def is_kept(module: object) -> bool:
    """Whether a module outlives every biz, because it is compiled."""
    return any(module is kept for kept in _kept.modules.copy().values())


class KeptExtensionLoader(ExtensionFileLoader):
    """Loads a compiled module for one owner, or hands out the one that was loaded from the same content before.

    The interpreter's own table is left as it was: old-style extensions, and all that Cython makes, enter themselves.
    """

    def __init__(self, name: str, path: str, linker: Linker) -> None:
        super().__init__(name, path)
        self._linker = linker

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """See ``importlib.abc.Loader``."""
        digest = _kept.digest(self.path)
        with _kept.locked(digest):
            module = _kept.modules.get(digest) or _kept.of_base(self.path)
            if module is None:
                with withholding(self._linker.contested()):
                    # The second argument is not used, but freed with the call, before any other thread can run.
                    module = _imp.create_dynamic(spec, restorer(spec.name))
                _kept.modules[digest] = module
                _kept.unfinished.add(digest)
            return module

    def exec_module(self, module: ModuleType) -> None:
        """See ``importlib.abc.Loader``."""
        digest = _kept.digest(self.path)
        with _kept.locked(digest):
            if digest not in _kept.unfinished:
                return
            try:
                with withholding(self._linker.contested()):
                    restore = restorer(module.__name__)
                    try:
                        _imp.exec_dynamic(module)
                    finally:
                        del restore
            except BaseException:
                _kept.modules.pop(digest, None)
                raise
            finally:
                _kept.unfinished.discard(digest)


def keep_compiled(spec: ModuleSpec, linker: Linker) -> ModuleSpec:
    """The same spec; if it is that of a compiled module, with a loader that initialises its content only once."""
    if type(spec.loader) is ExtensionFileLoader:
        spec.loader = KeptExtensionLoader(spec.loader.name, spec.loader.path, linker)
    return spec


# --- distributions -------------------------------------------------------------------------------------------------


class Finder(Locator, Protocol):
    """The locator of a unit."""

    def join(self, linker: Linker) -> None:
        """Work for a linker from now on."""

    def move(self, paths: Sequence[str]) -> None:
        """Look for files in other directories from now on."""


class Unit:
    """One content of one distribution, loaded for everybody who brings the same. For the life of the process."""

    def __init__(self, distribution: str, index: Index, make_finder: Callable[[Unit], Finder]) -> None:
        self.distribution = distribution
        self.index = index
        self.scope = Scope(BizId.of(distribution, re.sub(r"[^A-Za-z0-9._+!-]", "-", index.versions[distribution])))
        self._finder = make_finder(self)
        self.linker = Linker(self.scope, self._finder)
        self._finder.join(self.linker)
        self.linker.claims.update(*(index.top_level(name) for name in index.closure(distribution)))
        self.scope.attach(self.linker)

    def owns(self, name: str) -> bool:
        """Whether a module belongs to the distribution, or to one it requires."""
        return not self.index.closure(self.distribution).isdisjoint(self.index.owners(name))

    def move(self, index: Index) -> None:
        """Take further files from another copy of the same content, once the first one is gone from disk."""
        old, new = self.index.place(self.distribution), index.place(self.distribution)
        if old == new or os.path.isdir(old):  # noqa: PTH112
            return
        self.index = index
        for module in list(self.linker.table.values()):
            path = getattr(module, "__path__", None)
            if path is not None:
                module.__path__ = type(path)(entry.replace(old, new, 1) for entry in path)
        self._finder.move(index.paths)

    def __repr__(self) -> str:
        return f"<Unit {self.scope.biz}>"


class Shelf:
    """The units of the process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._units: dict[tuple[str, str], Unit] = {}

    def borrow(self, distribution: str, index: Index, make_finder: Callable[[Unit], Finder]) -> Unit:
        """The unit of the content that ``index`` has of a distribution, made if there is none yet. Thread-safe."""
        key = (distribution, index.content(distribution))
        with self._lock:
            unit = self._units.get(key)
            if unit is None:
                unit = self._units[key] = Unit(distribution, index, make_finder)
            else:
                unit.move(index)
            return unit

    def __len__(self) -> int:
        return len(self._units)


shelf: Final = Shelf()
