"""Places of Python modules in directories: what lies there is listed once, for all bizs that look there.

A finder of files lists each directory for itself, asks for the status of each file, and takes the path apart again for
the spec. `spec_at` answers from one list of a directory, as long as the directory's time of change stays the same: the
finder itself goes by the same time.

Lifetime: all lists are forgotten when a biz leaves. Threads: any.
"""

from __future__ import annotations

import os
import sys
import time
from importlib.machinery import EXTENSION_SUFFIXES, ModuleSpec
from importlib.util import cache_from_source
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from koupleless.isolation.interpreter import is_plain_finder

if TYPE_CHECKING:
    from collections.abc import Callable
    from importlib.machinery import SourceFileLoader


_scandir, _stat = os.scandir, os.stat
"""As a finder of files calls them: inside a biz, ``os`` shows the files of the artefact in the working directory, too,
where no loader can open one."""


class _Source(NamedTuple):
    """The place of a source file; the texts are in all specs of the file."""

    origin: str
    cached: str | None
    """The place of the bytecode; ``None`` if the spec has to find out."""


class _Directory:
    """The files and directories in a directory; links, and whatever else there is, are left out."""

    __slots__ = ("_bytecode", "_files", "_sources", "changed_ns", "directories", "path")

    def __init__(self, path: str, changed_ns: int) -> None:
        """List the directory. Raises ``OSError``."""
        self.path = path
        self.changed_ns = changed_ns
        self._files: set[str] = set()
        self.directories: set[str] = set()
        self._sources: dict[str, _Source] = {}
        self._bytecode = _bytecode(path)
        with _scandir(path) as entries:
            for entry in entries:
                if entry.is_file(follow_symlinks=False):
                    self._files.add(entry.name)
                elif entry.is_dir(follow_symlinks=False):
                    self.directories.add(entry.name)

    def source(self, stem: str) -> _Source | None:
        """Return the place of a source file by the name without ending; ``None`` where Python takes another file."""
        known = self._sources.get(stem)
        if known is None:
            if f"{stem}.py" not in self._files or any(f"{stem}{end}" in self._files for end in EXTENSION_SUFFIXES):
                return None
            origin = os.path.join(self.path, f"{stem}.py")  # noqa: PTH118 - texts, as in a search path
            known = self._sources[stem] = _Source(origin, self._bytecode and stem.join(self._bytecode))
        return known


_SETTLED_NS: Final = 100_000_000
"""Least age of a change, in nanoseconds, for a list to be kept: after a younger one another may get the same time."""

_directories: Final[dict[str, _Directory]] = {}


def spec_at(finder: Any, name: str, loader: Callable[[str, str], SourceFileLoader]) -> ModuleSpec | None:
    """Make the spec of a Python module in the directory of a finder, with ``loader(name, path)`` for the loader.

    Returns ``None`` wherever the finder has to be asked: other finders than Python's own, nothing found, and whatever
    is no plain source file, nor a package with one.
    """
    if not is_plain_finder(finder):
        return None
    directory = _directory(finder.path)
    stem, locations = name.rpartition(".")[2], None
    if directory is not None and stem in directory.directories:
        directory = _directory(os.path.join(finder.path, stem))  # noqa: PTH118 - as above
        stem = "__init__"
        locations = None if directory is None else [directory.path]
    source = None if directory is None else directory.source(stem)
    if source is None:
        return None
    spec = ModuleSpec(name, loader(name, source.origin), origin=source.origin)
    spec.submodule_search_locations = locations
    spec.has_location = True
    if source.cached is not None and sys.pycache_prefix is None:
        spec.cached = source.cached
    return spec


def _directory(path: str) -> _Directory | None:
    """Return the list of a directory, made anew if the directory has changed; ``None`` if there is none to rely on."""
    try:
        changed_ns = _stat(path).st_mtime_ns
        known = _directories.get(path)
        if known is None or known.changed_ns != changed_ns:
            if time.time_ns() - changed_ns < _SETTLED_NS:
                return None
            known = _directories[path] = _Directory(path, changed_ns)
    except OSError:
        return None
    return known


def _bytecode(path: str) -> tuple[str, str] | None:
    """Return the place of bytecode before and after the name of a source file; ``None`` if there is no fixed place."""
    if sys.pycache_prefix is not None or sys.implementation.cache_tag is None:
        return None
    before, _, after = cache_from_source(os.path.join(path, f"{_STEM}.py")).rpartition(_STEM)  # noqa: PTH118
    return before, after


_STEM: Final = "*"


def forget_places() -> None:
    """Forget all lists of directories. The successor of a leaving biz has looked before this is called."""
    _directories.clear()
