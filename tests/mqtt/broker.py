"""A mosquitto of a test, on a port that the kernel chose."""

from __future__ import annotations

import socket
import subprocess
import time
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    from tests.certificates import Authority

_START_S = 20
_ATTEMPTS = 5


class Broker:
    """A broker on loopback, with TLS and client certificates if an authority is given.

    Lifetime: as context manager. ``stop`` and ``start`` in between are a broker that is away; the port stays.
    """

    def __init__(self, program: str, directory: Path, *, authority: Authority | None = None) -> None:
        self.host = "127.0.0.1"
        self.port = 0
        self.authority = authority
        self._program = program
        self._directory = directory
        self._running: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self._directory.mkdir()
        for _ in range(_ATTEMPTS):  # somebody else may take the port before the broker does
            with socket.socket() as probe:
                probe.bind((self.host, 0))
                self.port = probe.getsockname()[1]
            if self._starts():
                return self
        raise RuntimeError(f"the broker did not start: {self.log()}")

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def start(self) -> None:
        """Start again after `stop`, on the same port, and remember nothing."""
        if not self._starts():
            raise RuntimeError(f"the broker did not start again: {self.log()}")

    def stop(self) -> None:
        """End at once, without a word to the clients."""
        if self._running is not None:
            self._running.kill()
            self._running.wait()
            self._running = None

    def log(self) -> str:
        """Everything that the broker has logged."""
        return (self._directory / "log").read_text(encoding="utf-8", errors="replace")

    def _starts(self) -> bool:
        settings = [f"listener {self.port} {self.host}", "allow_anonymous true", "persistence false", "log_type all"]
        settings += ["max_queued_messages 0"]  # no limit: a test with many messages asks for their whole number
        if self.authority is not None:
            served = self.authority.issue(f"broker-{self.port}")
            settings += [f"certfile {served.certificate}", f"keyfile {served.key}", "require_certificate true"]
            settings += [f"cafile {self.authority.certificate}"]
        file = self._directory / "mosquitto.conf"
        file.write_text("\n".join([*settings, "user root", ""]), encoding="utf-8")
        with (self._directory / "log").open("ab") as log:
            self._running = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", "--", self._program, "-c", str(file)], stdout=log, stderr=log
            )
        ends = time.monotonic() + _START_S
        while time.monotonic() < ends and self._running.poll() is None:
            try:
                with socket.create_connection((self.host, self.port), timeout=1):
                    return True
            except OSError:
                time.sleep(0.005)
        self.stop()
        return False
