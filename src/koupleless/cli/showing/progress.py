"""Progress of a command on stderr: the step that takes longer than a moment, and how long it has taken."""

from __future__ import annotations

import sys
import threading
import time
from typing import TYPE_CHECKING, Final, Self

if TYPE_CHECKING:
    from types import TracebackType
    from typing import TextIO

_MOMENT_S: Final = 0.5
"""Seconds after which a step is shown."""
_TURN_S: Final = 0.1
"""Seconds between two states of a moving line."""
_WIDTH: Final = 100
_WHEEL: Final = "|/-\\"
_CLEAR: Final = "\r\033[2K"


def _fitting(text: str) -> str:
    """``text`` in one line; of a long one the middle is left out: the end has the figures."""
    return text if len(text) <= _WIDTH else f"{text[: _WIDTH - 43]}...{text[-40:]}"


class Progress:
    """The steps of one command, one after the other. Steps that are done in a moment are never shown.

    On a terminal the step is a moving line, which is gone when the step has ended. Elsewhere each step is a line of its
    own, without details. Lifetime: a ``with``; the thread that shows the steps ends with it. `begin` may be called from
    any thread.
    """

    def __init__(self, stream: TextIO | None = None, *, is_silent: bool = False) -> None:
        self._stream = sys.stderr if stream is None else stream
        self.is_silent = is_silent
        self._is_moving = self._stream.isatty()
        self._changed = threading.Condition()
        self._step: tuple[str, float] | None = None
        self._detail = ""
        self._has_ended = False
        self._thread: threading.Thread | None = None

    def begin(self, text: str, detail: str = "", /) -> None:
        """End the step before, and begin a step; the same text goes on with the step. ``detail`` is its progress."""
        if self.is_silent:
            return
        with self._changed:
            self._detail = detail
            if self._step is None or self._step[0] != text:
                self._step = text, time.monotonic()
            if self._thread is None:
                self._thread = threading.Thread(target=self._show, name="progress", daemon=True)
                self._thread.start()
            self._changed.notify()

    def _show(self) -> None:
        shown: tuple[str, float] | None = None
        turns = 0
        with self._changed:
            while not self._has_ended:
                step = self._step
                assert step is not None
                lasted = time.monotonic() - step[1]
                if shown not in (None, step):
                    self._wipe()
                    shown = None
                if lasted >= _MOMENT_S and (self._is_moving or shown is None):
                    shown = step
                    turns += 1
                    self._write(step[0], lasted, turns)
                is_done = shown is step and not self._is_moving
                self._changed.wait(None if is_done else _TURN_S if shown else max(0.01, _MOMENT_S - lasted))
            if shown is not None:
                self._wipe()

    def _write(self, text: str, lasted: float, turns: int) -> None:
        if self._is_moving:
            said = f"{text}: {self._detail}" if self._detail else text
            self._stream.write(f"{_CLEAR}{_WHEEL[turns % len(_WHEEL)]} {_fitting(said)} ({lasted:.0f} s)")
        else:
            self._stream.write(f"{text}\n")
        self._stream.flush()

    def _wipe(self) -> None:
        if self._is_moving:
            self._stream.write(_CLEAR)
            self._stream.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._changed:
            self._has_ended = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()
