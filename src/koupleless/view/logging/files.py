"""A log file that outlives all that happens to files: rotation by us or by others, removal, a full disk, a fork.

One write of the system for each line, behind all that is there (``O_APPEND``), so that several processes may write.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from koupleless.context import as_base

if TYPE_CHECKING:
    from pathlib import Path

_PAUSE_S: Final = 1.0
"""Seconds in which no further write is tried after a failure."""
_QUIET_S: Final = 60.0
"""Seconds without another message about the same file."""

_log: Final = logging.getLogger("koupleless")

_files: Final[weakref.WeakSet[LogFile]] = weakref.WeakSet()


@dataclass(frozen=True, slots=True)
class Rotation:
    """The size at which a log file becomes ``<file>.1``, and the number of such older files that are kept."""

    size: int = 10 << 20
    keep: int = 5


class LogFile:
    """The log file at one path. Thread-safe; opened by a write, so also after `close`. No method raises ``OSError``.

    A file that somebody has moved away or removed is made anew, with its directory. While nothing can be written, lines
    are lost; the log of the base says so, at most once a minute.
    """

    def __init__(self, path: Path, rotation: Rotation = Rotation()) -> None:
        self.path = path
        self._rotation = rotation
        self._lock = threading.Lock()
        self._descriptor: int | None = None
        self._identity = (0, 0)
        self._size = 0
        self._lost = 0
        self._resumes = 0.0
        self._quiet_until = 0.0
        _files.add(self)

    def write(self, line: str) -> None:
        """Add a line; the line end is added here."""
        data = f"{line}\n".encode("utf-8", "backslashreplace")
        with as_base():  # the file is the base's, whichever module is running
            with self._lock:
                told = self._write(data)
            if told:
                _log.warning("%s", told)

    def close(self) -> None:
        """Give the file descriptor back. Idempotent."""
        with self._lock:
            self._shut()

    # --- under the lock -------------------------------------------------------------------------------------------

    def _write(self, data: bytes) -> str:
        """Write, or lose, a line; returns words for the log of the base, if there is something to tell."""
        if self._lost and time.monotonic() < self._resumes:
            self._lost += 1
            return ""
        try:
            self._put(data)
        except OSError as error:
            self._shut()
            return self._lose(error)
        lost, self._lost = self._lost, 0
        return f"the log {self.path} is written again; {lost} lines were lost" if lost else ""

    def _put(self, data: bytes) -> None:
        descriptor = self._follow()
        if self._size and self._size + len(data) > self._rotation.size:
            descriptor = self._rotate(descriptor)
        self._size += len(data)
        while data:
            data = data[os.write(descriptor, data) :]

    def _follow(self) -> int:
        """Return a descriptor of the file that stands at the path now."""
        descriptor = self._descriptor
        if descriptor is not None:
            with contextlib.suppress(FileNotFoundError):
                there = os.stat(self.path)  # noqa: PTH116 - a Path takes twice the time, for each line
                if (there.st_dev, there.st_ino) == self._identity:
                    return descriptor
            self._shut()
        return self._open()

    def _open(self) -> int:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        try:
            descriptor = os.open(self.path, flags, 0o640)
        except FileNotFoundError:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self.path, flags, 0o640)
        self._descriptor = descriptor
        there = os.fstat(descriptor)
        self._identity, self._size = (there.st_dev, there.st_ino), there.st_size
        return descriptor

    def _rotate(self, descriptor: int) -> int:
        """Move the files of the path by one, and open a new one; where files cannot be moved, this one goes on."""
        try:
            for number in range(self._rotation.keep, 0, -1):
                older = older_file(self.path, number)
                newer = self.path if number == 1 else older_file(self.path, number - 1)
                with contextlib.suppress(FileNotFoundError):
                    newer.replace(older)
            if not self._rotation.keep:
                self.path.unlink(missing_ok=True)
        except OSError:
            self._size = 0  # the next attempt comes a whole file later
            return descriptor
        self._shut()
        return self._open()

    def _shut(self) -> None:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            with contextlib.suppress(OSError):
                os.close(descriptor)

    def _lose(self, error: OSError) -> str:
        now = time.monotonic()
        self._lost += 1
        self._resumes = now + _PAUSE_S
        if now < self._quiet_until:
            return ""
        self._quiet_until = now + _QUIET_S
        return f"the log {self.path} cannot be written: {error.strerror or error}; lines are lost until it can"

    def renew_lock(self) -> None:
        """Take a lock that no thread holds: in the child of a fork, the thread that held the lock is not there."""
        self._lock = threading.Lock()


def older_file(path: Path, number: int) -> Path:
    """The path of a file after ``number`` rotations."""
    return path.with_name(f"{path.name}.{number}")


def _renew_locks() -> None:
    for file in list(_files):
        file.renew_lock()


os.register_at_fork(after_in_child=_renew_locks)
