"""Processes and requests of the demonstration: servers on the loopback address, traffic, and the end of it all."""

from __future__ import annotations

import contextlib
import http
import http.client
import itertools
import signal
import socket
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Final, Self

import psutil  # type: ignore[import-untyped]

from koupleless.errors import BaseStartFailed

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_START_S: Final = 60.0
_STOP_S: Final = 15.0
_CLIENTS: Final = 2
_PAUSE_S: Final = 0.004


class Ended(BaseException):
    """A signal asked the program to end.

    Not ``KeyboardInterrupt``: if ``KeyboardInterrupt`` cuts short an ``exec`` of a text (dataclasses use ``exec``), the
    interpreter remembers the interrupt and ends as if killed by SIGINT, although the exception was caught.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        super().__init__(number)


@contextlib.contextmanager
def leaving_nothing_behind() -> Iterator[None]:
    """Turn the first signal that ends a program into `Ended`; at the end of the block, end all descendants."""
    has_ended = False
    known: set[psutil.Process] = set()

    def stop(number: int, _: object) -> None:
        nonlocal has_ended
        # The children of a child that dies now go to init and cannot be found again, so note all descendants first.
        known.update(_descendants())
        if not has_ended:
            has_ended = True
            raise Ended(number)

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield
    finally:
        known.update(_descendants())
        for number, handler in before.items():
            signal.signal(number, handler)
        for act in ("terminate", "kill"):
            for process in known:
                with contextlib.suppress(psutil.Error):
                    getattr(process, act)()
            _, known = psutil.wait_procs(known, timeout=_STOP_S)


def _descendants() -> list[psutil.Process]:
    try:
        return psutil.Process().children(recursive=True)  # type: ignore[no-any-return]
    except psutil.Error:
        return []


class Server:
    """A server process started by the demonstration, on the loopback address, with the output in a file."""

    def __init__(self, command: list[str], *, directory: Path, log: Path, port: int) -> None:
        self.port = port
        self._log = log
        begin = time.perf_counter()
        with log.open("wb") as output:
            self._process = subprocess.Popen(  # noqa: S603 - our own interpreter, our own arguments
                [sys.executable, *command],
                cwd=directory,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C reaches only the demonstration, which stops its processes in order
            )
        self._wait_for_answer()
        self.start_ms = (time.perf_counter() - begin) * 1000

    def _wait_for_answer(self) -> None:
        deadline = time.monotonic() + _START_S
        while True:
            with contextlib.suppress(OSError, http.client.HTTPException):
                get(self.port, "/")
                return
            if self._process.poll() is not None:
                raise BaseStartFailed(f"a server ended with status {self._process.returncode}:\n{self.last_words()}")
            if time.monotonic() > deadline:
                raise BaseStartFailed(f"a server did not answer within {_START_S:g} s:\n{self.last_words()}")
            time.sleep(0.005)

    def memory(self) -> int:
        """Resident memory of the process, in bytes."""
        return int(psutil.Process(self._process.pid).memory_info().rss)

    def last_words(self) -> str:
        """The last lines of the output."""
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-20:])

    def stop(self) -> int:
        """Terminate the process, kill it after a time, and return the exit status."""
        self._process.terminate()
        try:
            return self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()


def get(port: int, path: str) -> tuple[int, str]:
    """Status and text of the answer to one request. Raises ``OSError`` and ``HTTPException``."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read().decode(errors="replace")
    finally:
        connection.close()


def free_ports(count: int) -> list[int]:
    """Ports of the loopback address that are free at the moment."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in sockets]


class Traffic:
    """Requests to one path, from several clients at once, while the context lasts."""

    def __init__(self, port: int, path: str) -> None:
        self._port = port
        self._path = path
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._ask, daemon=True) for _ in range(_CLIENTS)]
        self.sent = 0
        self.failed: list[str] = []
        self._answered_at: list[float] = []

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    @property
    def longest_gap_ms(self) -> float:
        """The longest time between two answers, in milliseconds."""
        return max((b - a for a, b in itertools.pairwise(self._answered_at)), default=0.0) * 1000

    def _ask(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=30)
        while not self._stop.is_set():
            try:
                connection.request("GET", self._path)
                response = connection.getresponse()
                response.read()
                failure = "" if response.status == http.HTTPStatus.OK else f"HTTP {response.status}"
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                failure = f"{type(error).__name__}: {error}"
            with self._lock:
                self.sent += 1
                if failure:
                    self.failed.append(failure)
                else:
                    self._answered_at.append(time.perf_counter())
            self._stop.wait(_PAUSE_S)
        connection.close()
