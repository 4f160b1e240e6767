"""The state directory of a base: the place, and the lock for one process at a time."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import threading
from pathlib import Path
from typing import Final, Self

from koupleless.errors import StateHeld

_LOCK: Final = "lock"
_SYSTEM: Final = Path("/var/lib")

_held: set[Path] = set()
"""The directories held by this process: the lock of a file excludes other processes only."""
_guard: Final = threading.Lock()


class StateDirectory:
    """A directory held by this process.

    ::

        <directory>/lock           locked as long as the process lives, with the number of the process
        <directory>/journal        the desired modules (`Journal`)
        <directory>/store/         unpacked artefacts, unless another store is set
        <directory>/environments/  the values of environment variables of modules

    A child made by ``fork`` does not inherit the lock: workers of a killed base hold nothing. Lifetime: of a base.
    """

    def __init__(self, path: Path, handle: int) -> None:
        self.path = path
        self._handle = handle

    @classmethod
    def take(cls, path: Path) -> Self:
        """Hold the directory, made if missing. Raises ``OSError``, and ``StateHeld`` if another base has it."""
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = path.resolve()
        with _guard:
            if path in _held:  # to close a second descriptor of the file would end our own lock
                raise StateHeld(str(path), os.getpid())
            handle = os.open(path / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except (BlockingIOError, PermissionError):
                holder = os.pread(handle, 20, 0).strip()
                os.close(handle)
                raise StateHeld(str(path), int(holder) if holder.isdigit() else 0) from None
            except BaseException:
                os.close(handle)
                raise
            _held.add(path)
        with contextlib.suppress(OSError):  # a full disk: the number is for the reader of a message
            os.ftruncate(handle, 0)
            os.pwrite(handle, b"%d\n" % os.getpid(), 0)
        return cls(path, handle)

    def release(self) -> None:
        """Let other bases have the directory. Idempotent."""
        with _guard:
            if self._handle >= 0:
                os.close(self._handle)
                self._handle = -1
                _held.discard(self.path)


def default_directory(name: str, *, is_named: bool) -> Path:
    """The state directory of a base without a set directory.

    Below ``$XDG_STATE_HOME``, else below ``/var/lib`` for root and ``~/.local/state`` for others. A base without a name
    of its own (``is_named``) is known by the current directory. Raises ``RuntimeError`` without a home.
    """
    given = Path(os.environ.get("XDG_STATE_HOME", ""))
    if given.is_absolute():
        parent = given
    elif os.geteuid() == 0 and os.access(_SYSTEM, os.W_OK):
        parent = _SYSTEM
    else:
        parent = Path.home() / ".local" / "state"
    if not is_named:
        name += f"-{hashlib.sha256(os.fsencode(Path.cwd())).hexdigest()[:8]}"
    return parent / "koupleless" / name
