"""Work done by one thread at a time; a thread which hangs is waited for once, and not for long."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


class Turns:
    """A lock, given up when a thread has waited ``patience_s`` seconds: the thread with the lock is taken to hang.

    Lifetime: as the process. Thread-safe.
    """

    def __init__(self, patience_s: float) -> None:
        self.patience_s = patience_s
        self._changing = threading.Lock()
        self._turn = threading.Lock()

    @contextlib.contextmanager
    def one(self) -> Iterator[None]:
        """Wait for the other threads, though not for one which hangs; the body runs with the lock."""
        turn = self._turn
        while not turn.acquire(timeout=self.patience_s):
            with self._changing:
                if self._turn is turn:  # the first thread to lose patience
                    self._turn = threading.Lock()
            turn = self._turn
        try:
            yield
        finally:
            turn.release()
