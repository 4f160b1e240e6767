"""The session of one open store: a directory for work in progress, and marks of the entries in use."""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from koupleless.artifact.temporary import is_locked

if TYPE_CHECKING:
    from collections.abc import Iterable

_ALIVE: Final = "alive"


class Session:
    """A directory below the store's ``sessions``, locked as long as the process lives.

    Made and closed while the root of the store is locked. The marks are files, so that other processes see the entries
    in use. May be read from any thread.
    """

    def __init__(self, directory: Path, alive: int) -> None:
        self.directory = directory
        self._alive = alive

    @classmethod
    def begin(cls, sessions: Path) -> Self:
        """Make a session below the directory ``sessions``. Raises ``OSError``."""
        directory = Path(tempfile.mkdtemp(prefix="", dir=sessions))
        alive = os.open(directory / _ALIVE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(alive, fcntl.LOCK_EX)
        return cls(directory, alive)

    @property
    def is_there(self) -> bool:
        """Whether the directory still exists; a user may have removed the whole store."""
        return (self.directory / _ALIVE).is_file()

    def mark(self, entry: str) -> None:
        """Tell other processes that this store uses the entry. Raises ``OSError``."""
        (self.directory / entry).touch()

    def unmark(self, entry: str) -> None:
        """Tell other processes that this store does not use the entry any more. Never raises."""
        with contextlib.suppress(OSError):
            (self.directory / entry).unlink()

    def take(self, sessions: Iterable[Path]) -> list[Path]:
        """Move sessions of dead processes into this one, to be deleted later without the lock of the store."""
        dead = []
        for session in sessions:
            if session != self.directory and not is_alive(session):
                target = self.directory / f"dead-{session.name}"
                session.rename(target)
                dead.append(target)
        return dead

    def close(self) -> None:
        """Release the lock, so that the process counts as dead for this session."""
        os.close(self._alive)


def is_alive(session: Path) -> bool:
    """Whether the process of the session still runs. The lock on the file dies with the process."""
    try:
        return is_locked(session / _ALIVE)
    except OSError:
        return False
