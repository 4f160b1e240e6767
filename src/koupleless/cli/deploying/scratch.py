"""The temporary directory of a running command, removed at any end, also when a signal ends the command."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from koupleless.artifact.temporary import INSIDE, hold, sweep

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

_PREFIX: Final = "arkctl-run-"
_ENDING: Final = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


class Ended(SystemExit):
    """A signal asked the program to end. The exit status is 128 plus the number of the signal, as in a shell."""

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """A new directory, removed at the end of the block, even if a signal ends the command (`signals_raised`)."""
    with signals_raised() as signals:
        signals.hold()
        sweep(_PREFIX)
        directory = Path(tempfile.mkdtemp(prefix=_PREFIX))
        held = hold(directory)
        # A signal may raise between any two steps here: hence two attempts, the second with signals held.
        try:
            try:
                signals.release()
                yield directory / INSIDE
            finally:
                signals.hold()
                shutil.rmtree(directory, ignore_errors=True)
        finally:
            signals.hold()
            shutil.rmtree(directory, ignore_errors=True)
            os.close(held)


@contextlib.contextmanager
def signals_raised() -> Iterator[Signals]:
    """Turn signals that end a program into exceptions while the context lasts, so that ``finally`` blocks run.

    SIGINT keeps its handler; a signal without a handler, which would kill the process, raises `Ended`; an ignored
    signal stays ignored. Python handles signals on the main thread only: on another thread nothing changes.
    """
    signals = Signals()
    if threading.current_thread() is not threading.main_thread():
        yield signals
        return
    signals.take_over()
    try:
        yield signals
    finally:
        signals.give_back()


class Signals:
    """Handler for signals that end a program: acts at once, or, while signals are held, at the release."""

    def __init__(self) -> None:
        self._before: dict[int, Any] = {}
        self._is_holding = False
        self._held: int | None = None

    def hold(self) -> None:
        """Delay signals until `release`."""
        self._is_holding = True

    def release(self) -> None:
        """Let signals interrupt again; a delayed signal acts now."""
        self._is_holding = False
        number, self._held = self._held, None
        if number is not None:
            self._raise(number, None)

    def take_over(self) -> None:
        """Become the handler of all signals that are not ignored."""
        for number in _ENDING:
            handler = signal.getsignal(number)
            if handler is not signal.SIG_IGN:
                self._before[number] = handler
                signal.signal(number, self._handle)

    def give_back(self) -> None:
        """Restore the handlers from before, except for signals with a newer handler; then `release`."""
        for number, handler in self._before.items():
            if signal.getsignal(number) == self._handle:
                signal.signal(number, handler)
        self.release()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._is_holding:
            self._held = number
        else:
            self._raise(number, frame)

    def _raise(self, number: int, frame: FrameType | None) -> None:
        handler = self._before[number]
        if callable(handler):
            handler(number, frame)
        else:
            raise Ended(number)
