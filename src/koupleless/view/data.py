"""Give each biz a data directory, in which its files stay over its versions.

The unpacked artefact is no place to write: another version has another directory, and an unused one is removed.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
from pathlib import Path
from typing import Final

from koupleless.context import as_base, current

VARIABLE: Final = "KOUPLELESS_DATA_DIR"
"""Variable with the path, for a biz, for its child processes, and for a module that runs alone."""


class DataDirectory:
    """The place of one biz's files, and of files looked for beside the biz's code: a facet of its scope.

    ``path`` is made when somebody asks for the directory, ``code`` is the directory of the unpacked artefact.
    Thread-safe.
    """

    def __init__(self, path: Path, code: Path | None = None) -> None:
        self.path = path
        self._code = code

    def make(self) -> Path:
        """Make and return the directory.

        Raises ``OSError`` with a note on the setting for another place.
        """
        try:
            with as_base():  # to the biz the artefact is there, too
                self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            error.add_note(
                f"{self.path} is where files of the module stay; the base's setting data-dir leads elsewhere"
            )
            raise
        return self.path

    def variable(self) -> str:
        """Return the path as a variable of the environment; the directory is made if possible."""
        with contextlib.suppress(OSError):
            self.make()
        return str(self.path)

    def leads(self, place: str) -> str:
        """Return the place for a directory the biz writes to: in the data directory if ``place`` is in the artefact.

        Files of the artefact in this directory are copied unless already there; any other ``place`` is returned
        unchanged. Raises ``OSError`` if the data directory cannot be made.
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
    """Copy a file, with its times, to a place where there is none. The copy is there complete or not at all.

    May be called from several threads and processes at once: the first copy stays, with what was written to it since.
    """
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = target.with_name(f".{target.name}.{os.getpid()}.{threading.get_ident()}")
    try:
        shutil.copy2(source, beside)
        with contextlib.suppress(FileExistsError):
            target.hardlink_to(beside)  # a rename would overwrite
    finally:
        beside.unlink(missing_ok=True)


def led(place: str) -> str:
    """Return `DataDirectory.leads` of the running biz; the place itself where no biz is running."""
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
