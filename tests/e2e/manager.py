"""A service manager for a base, as systemd is one: it keeps the socket open, and starts the base on it again."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from typing import IO, TYPE_CHECKING, Final

from tests.conftest import free_port

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_HAND_OVER: Final = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()), LISTEN_FDNAMES="koupleless.socket")
os.execv(sys.executable, [sys.executable, *sys.argv[2:]])
"""
"""The socket becomes descriptor 3 of the process that is told to be the one meant."""


class Manager:
    """Starts bases in a directory, where their ``log`` is, and hears from them."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.arklet_port = free_port()
        self._told = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._told.bind(str(directory / "notify"))
        self._told.settimeout(60)
        self._running: list[subprocess.Popen[bytes]] = []

    def start(self, handed: socket.socket | IO[bytes] | None, *arguments: object) -> subprocess.Popen[bytes]:
        """Start a base with ``handed`` as the socket of a socket unit; ``arguments`` are those of ``arkctl serve``."""
        before: Sequence[str] = () if handed is None else ("-c", _HAND_OVER, str(handed.fileno()))
        serving = ["-P", "-m", "koupleless", "serve", *map(str, arguments), "--log-dir", "-", "--no-access-log"]
        with (self.directory / "log").open("ab") as log:
            base = subprocess.Popen(
                [sys.executable, *before, *serving, "--arklet-port", str(self.arklet_port)],
                cwd=self.directory,
                stdout=log,
                stderr=log,
                pass_fds=() if handed is None else (handed.fileno(),),
                env={**os.environ, "NOTIFY_SOCKET": self._told.getsockname()},
            )
        self._running.append(base)
        return base

    def hears(self, message: bytes) -> None:
        """Wait for a message of a base, which is to be this one."""
        assert self._told.recv(100) == message, self.log

    @property
    def log(self) -> str:
        """What the bases have written."""
        return (self.directory / "log").read_text()

    def close(self) -> None:
        """Kill bases that still run."""
        for base in self._running:
            if base.poll() is None:
                base.kill()
                base.wait()
        self._told.close()
