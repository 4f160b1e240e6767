"""Temporary directories that go even if their process is killed: the next one of the same kind takes them away."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import stat
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

_HELD: Final = "held"
INSIDE: Final = "work"
_HOLDING_S: Final = 60.0
"""How long a directory may be there before its process holds it."""


@contextlib.contextmanager
def temporary_directory(prefix: str) -> Iterator[Path]:
    """A new directory of this process, gone afterwards; those that killed processes left under ``prefix`` go first.

    Raises ``OSError`` if there is no place for it.
    """
    sweep(prefix)
    with tempfile.TemporaryDirectory(prefix=prefix, ignore_cleanup_errors=True) as made:
        handle = hold(Path(made))
        try:
            yield Path(made, INSIDE)
        finally:
            os.close(handle)


def hold(directory: Path) -> int:
    """Keep a new directory from being swept until what is returned is closed, or the process dies."""
    (directory / INSIDE).mkdir()
    unheld = directory / f"un{_HELD}"
    handle = os.open(unheld, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(handle, fcntl.LOCK_EX)
    unheld.rename(directory / _HELD)  # others see it locked, or not at all
    return handle


def sweep(prefix: str) -> None:
    """Remove the directories with this prefix that no living process holds. Never raises."""
    with contextlib.suppress(OSError):
        for directory in Path(tempfile.gettempdir()).iterdir():
            if directory.name.startswith(prefix) and _is_left(directory):
                shutil.rmtree(directory, ignore_errors=True)


def _is_left(directory: Path) -> bool:
    """Whether it is ours and its process is dead: the lock on the file in it died with that."""
    try:
        status = directory.lstat()
    except OSError:
        return False  # it has gone meanwhile
    if status.st_uid != os.geteuid() or not stat.S_ISDIR(status.st_mode):
        return False
    try:
        handle = os.open(directory / _HELD, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return time.time() - status.st_mtime > _HOLDING_S
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    else:
        return True
    finally:
        os.close(handle)
