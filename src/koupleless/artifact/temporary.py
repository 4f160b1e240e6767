"""Temporary directories that are removed even if their process was killed: by the next process of the same kind."""

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
KINDS: Final = (
    *("koupleless-store-", "koupleless-pip-", "koupleless-build-", "koupleless-suite-"),
    *("arkctl-run-", "arkctl-demo-"),
)
"""The prefixes of all our temporary directories."""
_UNHELD: Final = f"un{_HELD}"
_HOLDING_S: Final = 60.0
"""Seconds a new directory may exist before the process has locked a file in the directory."""


@contextlib.contextmanager
def temporary_directory(prefix: str) -> Iterator[Path]:
    """A new directory of this process, removed at the end of the block.

    Directories of killed processes under ``prefix`` are removed first. Raises ``OSError`` if no directory can be made.
    """
    sweep(prefix)
    with tempfile.TemporaryDirectory(prefix=prefix, ignore_cleanup_errors=True) as made:
        handle = hold(Path(made))
        try:
            yield Path(made, INSIDE)
        finally:
            os.close(handle)


def hold(directory: Path) -> int:
    """Protect a new directory from `sweep`, until the returned descriptor is closed or the process dies."""
    (directory / INSIDE).mkdir()
    unheld = directory / _UNHELD
    handle = os.open(unheld, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(handle, fcntl.LOCK_EX)
    unheld.rename(directory / _HELD)  # other processes see a locked file, or no file
    return handle


def sweep_all() -> None:
    """Remove the directories of all kinds without a living process, as a base does when it starts. Never raises."""
    sweep(KINDS)


def sweep(prefix: str | tuple[str, ...]) -> None:
    """Remove the directories with this prefix, or one of these, and without a living process. Never raises."""
    with contextlib.suppress(OSError):
        root = tempfile.gettempdir()
        for name in os.listdir(root):  # noqa: PTH208 - a path for each of thousands of files costs more than the rest
            if name.startswith(prefix) and _is_left(directory := Path(root, name)):
                shutil.rmtree(directory, ignore_errors=True)


def _is_left(directory: Path) -> bool:
    """Whether the directory belongs to this user and to a dead process. A lock dies with the process."""
    try:
        status = directory.lstat()
    except OSError:
        return False  # removed meanwhile
    if status.st_uid != os.geteuid() or not stat.S_ISDIR(status.st_mode):
        return False
    try:
        return not is_locked(directory / _HELD)
    except FileNotFoundError:  # killed while the directory was made; or the directory is somebody's with such a name
        return time.time() - status.st_mtime > _HOLDING_S and _is_unused(directory)
    except OSError:
        return False


def _is_unused(directory: Path) -> bool:
    """Whether a directory has nothing but the first things that `hold` makes."""
    try:
        found = {path.name for path in directory.iterdir()}
        return found <= {INSIDE, _UNHELD} and not any((directory / INSIDE).iterdir() if INSIDE in found else ())
    except OSError:
        return False


def is_locked(path: Path) -> bool:
    """Whether a living process holds a lock on the file. Raises ``OSError`` if the file cannot be opened."""
    handle = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    else:
        return False
    finally:
        os.close(handle)
