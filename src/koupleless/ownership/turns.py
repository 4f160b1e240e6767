"""Work that is done by one thread at a time, but for one that hangs, which is waited for once and not for long."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


class Turns:
    """A lock that is given up when somebody has waited for it ``patience_s`` seconds: who holds it is taken to hang.

    Lifetime: as the process. Thread-safe.
    """

    def __init__(self, patience_s: float) -> None:
        self.patience_s = patience_s
        self._changing = threading.Lock()
        self._turn = threading.Lock()

    @contextlib.contextmanager
    def one(self) -> Iterator[None]:
        """Wait for the others, but not for one that hangs; the body is one's turn."""
        turn = self._turn
        while not turn.acquire(timeout=self.patience_s):
            with self._changing:
                if self._turn is turn:  # the first that has lost its patience
                    self._turn = threading.Lock()
            turn = self._turn
        try:
            yield
        finally:
            turn.release()
