"""The data directory of a biz: where its files stay over its versions.

The unpacked artefact is no place to write: another version has another one, and one that nobody uses is removed.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path
from typing import Final

from koupleless.context import current

VARIABLE: Final = "KOUPLELESS_DATA_DIR"
"""Where a biz, its child processes, and a module that runs alone find the path."""


class DataDirectory:
    """The place of one biz's files, and of those that its code looks for beside itself: a facet of its scope.

    ``path`` is made when somebody asks for it, ``code`` is where the artefact lies. Thread-safe.
    """

    def __init__(self, path: Path, code: Path | None = None) -> None:
        self.path = path
        self._code = code

    def make(self) -> Path:
        """The directory, which is there afterwards. Raises ``OSError`` with a note that says where to set another."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            error.add_note(
                f"{self.path} is where files of the module stay; the base's setting data-dir leads elsewhere"
            )
            raise
        return self.path

    def variable(self) -> str:
        """The path as a variable of the environment; the directory is there if it can be."""
        with contextlib.suppress(OSError):
            self.make()
        return str(self.path)

    def leads(self, place: str) -> str:
        """Where a directory of the artefact that the biz is going to write to is instead; other places stay.

        The files that the artefact brings there are copied unless they are there already.
        """
        if self._code is None or not Path(place).is_relative_to(self._code):
            return place
        inside = Path(place).relative_to(self._code)
        target = self.make() / inside
        for parent, _, names in os.walk(place):
            for name in names:
                copy_once(Path(parent, name), target / Path(parent).relative_to(place) / name)
        return str(target)


def copy_once(source: Path, target: Path) -> None:
    """Copy a file, with its times, to a place where there is none. It is there complete or not at all."""
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        shutil.copy2(source, beside)
        beside.rename(target)
    finally:
        beside.unlink(missing_ok=True)


def led(place: str) -> str:
    """`DataDirectory.leads` of the running biz; the place itself where none is running."""
    scope = current()
    directory = None if scope is None else scope.find_facet(DataDirectory)
    return place if directory is None else directory.leads(place)


def current_data_dir() -> Path:
    """Make and return the data directory of the running biz, one for all versions of a name.

    In the base, and when a module runs alone, ``KOUPLELESS_DATA_DIR`` names the directory; the default is ``data`` in
    the working directory. Raises ``OSError`` if the directory cannot be made. May be called from any thread.
    """
    scope = current()
    directory = None if scope is None else scope.find_facet(DataDirectory)
    if directory is None:
        directory = DataDirectory(Path(os.environ.get(VARIABLE) or "data").absolute())
    return directory.make()
