"""The working directory of one biz: two places that look as one, and the way of each path into one of them.

Files that the biz writes are in its data directory, and stay. A file that is not there is looked for in the unpacked
artefact, for reading; it is copied before it is changed.
"""

# ruff: noqa: PTH100, PTH103, PTH109, PTH112, PTH113, PTH120 - texts, as in the functions of ``os`` for which paths are led here

from __future__ import annotations

import errno
import functools
import os
from pathlib import Path
from stat import S_ISDIR, S_ISREG
from typing import TYPE_CHECKING, Any, Final

from koupleless.context import as_base
from koupleless.view.data import copy_once

if TYPE_CHECKING:
    from koupleless.view.data import DataDirectory

_open, _stat = os.open, os.stat
_WRITES: Final = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
NOWHERE: Final = (FileNotFoundError, NotADirectoryError)
"""Errors for a path that leads nowhere."""


class WorkingDirectory:
    """The working directory of one biz: a facet of its scope.

    ``data`` is the data directory, made when something is written, ``code`` the unpacked artefact. ``has_process``
    says: the process is the biz's, with its working directory. Thread-safe, as the working directory of a process is:
    `change` is seen by all threads of the biz.
    """

    def __init__(self, data: DataDirectory, code: Path, *, has_process: bool = False) -> None:
        self._has_process = has_process
        self._data = data
        self._changed: str | None = None
        self._code = os.path.abspath(code)
        self._in_code = f"{self._code}/"

    @functools.cached_property
    def root(self) -> str:
        """The data directory without links: where the biz starts, as ``os.getcwd`` says."""
        with as_base():
            return os.path.realpath(self._data.path)

    @functools.cached_property
    def _in_root(self) -> str:
        return f"{self.root}/"

    @functools.cached_property
    def _inside(self) -> tuple[str, str]:
        return self._in_root, self._in_code

    @property
    def path(self) -> str:
        """The working directory, made if it is the data directory and can be made."""
        if self._changed is not None:
            return self._changed
        if not is_directory(self.root):
            self._make()
        return self.root

    def change(self, path: str) -> None:
        """Make another directory the biz's. Raises ``OSError`` as ``os.chdir`` does."""
        with as_base():
            led = self.led(path)
            beside = self.beside(led)
            if beside is not None and not exists(led):
                if is_directory(beside):
                    os.makedirs(led, exist_ok=True)
                elif exists(beside):
                    led = beside
            if not S_ISDIR(_stat(led).st_mode):
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
            self._changed = os.path.realpath(led)
            if self._has_process:
                os.chdir(self._changed)

    def concerns(self, path: str) -> bool:
        """Whether a path means something else to the biz than to the process."""
        return path[:1] != "/" or path.startswith(self._inside) or path == self.root

    def led(self, path: str) -> str:
        """Return the absolute path that a path of the biz leads to; an empty one stays, and is an error everywhere."""
        if path[:1] == "/" or not path:
            return path
        if ".." in path:  # the way up is by the directory itself, which is there in every process
            self._make()
        return f"{self._changed or self.root}/{path}"

    def _make(self) -> None:
        with as_base():
            self._data.variable()

    def beside(self, led: str) -> str | None:
        """Return the other place of a path, in the artefact or, for one of these, in the data directory."""
        path = os.path.normpath(led)
        if path == self.root:
            return self._code
        if path.startswith(self._in_root):
            return self._in_code + path[len(self._in_root) :]
        if path.startswith(self._in_code):
            return self._in_root + path[len(self._in_code) :]
        return None

    def second(self, led: str) -> str | None:
        """Return the directory in the artefact that is listed together with one in the data directory."""
        below = self._below(led)
        return below if below is not None and is_directory(below) else None

    def _below(self, led: str) -> str | None:
        """Return the place in the artefact of a path in the data directory."""
        beside = self.beside(led)
        return None if beside is None or f"{beside}/".startswith(self._in_root) else beside

    def to_make(self, path: str) -> str:
        """Return the path for something to be made; directories above that the artefact has are made before."""
        with as_base():
            led = self.led(path)
            above = os.path.dirname(os.path.normpath(led))
            if f"{above}/".startswith(self._in_root) and not os.path.lexists(above):
                below = self._below(above)
                if below is not None and os.path.isdir(below):
                    self._data.make()
                    os.makedirs(above, exist_ok=True)
            return led

    def to_change(self, path: str) -> str:
        """Return the path of something to be changed; a file that the artefact alone has is copied before."""
        with as_base():
            led = self.to_make(path)
            below = self._below(led)
            if below is not None and not os.path.lexists(led):
                if os.path.isfile(below):
                    copy_once(Path(below), Path(led))
                elif os.path.isdir(below):
                    self._data.make()
                    os.makedirs(led, exist_ok=True)
            return led

    def database(self, path: str) -> str:
        """Return the path for a database: one in the artefact is in the data directory, so that rows stay."""
        with as_base():
            led = os.path.normpath(self.led(path))
            if led.startswith(self._in_code):
                led = self._in_root + led[len(self._in_code) :]
                self._data.make()
                os.makedirs(os.path.dirname(led), exist_ok=True)
        return self.to_change(led)

    def found(self, path: str) -> str:
        """Return the absolute path where something is to be read."""
        led = self.led(path)
        beside = None if exists(led) else self.beside(led)
        return led if beside is None or not exists(beside) else beside

    def _explain(self, error: OSError, path: str) -> None:
        """Tell of a file that the base has at a relative path: there the module found it when it had no directory."""
        if path[:1] != "/" and exists(path):
            with as_base():
                of_base = os.getcwd()
            error.add_note(
                f"relative paths of the module start from {self._changed or self.root}, and not from the working "
                f"directory of the base, {of_base}, where {path} is"
            )

    def open(self, path: Any, flags: int, mode: int = 0o777) -> int:
        """Open as ``os.open`` does."""
        text = os.fsdecode(path)
        if not flags & _WRITES:
            led = self.led(text)
            try:
                return _open(led, flags, mode)
            except NOWHERE as error:
                beside = self.beside(led)
                if beside is None or not exists(beside):
                    self._explain(error, text)
                    raise
            return _open(beside, flags, mode)
        led = self.to_make(text)
        below = self._below(led)
        if below is not None and not exists(led) and is_file(below):
            if flags & os.O_EXCL:
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)
            if not flags & os.O_TRUNC:
                self.to_change(text)
        return _open(led, flags, mode)


def exists(path: str) -> bool:
    """Whether something is at an absolute path, a link to nowhere included."""
    try:
        _stat(path, follow_symlinks=False)
    except OSError:
        return False
    return True


def is_file(path: str) -> bool:
    """Whether a file is at an absolute path."""
    try:
        return S_ISREG(_stat(path).st_mode)
    except OSError:
        return False


def is_directory(path: str) -> bool:
    """Whether a directory is at an absolute path."""
    try:
        return S_ISDIR(_stat(path).st_mode)
    except OSError:
        return False
