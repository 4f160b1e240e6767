"""Watch the event loop of modules: measure the lag, and name the module, with the stack, when code holds the loop.

A thread sends one callback at a time to the loop and waits. Nothing is measured for a request; while the callback waits
longer than the limit, the stack of the loop's thread says who keeps it.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
import traceback
import weakref
from collections import deque
from typing import TYPE_CHECKING, Final, NamedTuple

from koupleless.context import as_base
from koupleless.isolation.namespace import Namespace

if TYPE_CHECKING:
    import asyncio
    from types import FrameType

    from koupleless.biz import BizId
    from koupleless.context import Scope
    from koupleless.view.logging.logbook import Logbook

KEPT: Final = 20
"""Number of past blocks kept."""
_BEATS: Final = 8
"""Callbacks sent within the time of the limit."""
_LONGEST_PAUSE_S: Final = 1.0

_log: Final = logging.getLogger("koupleless")


class Block(NamedTuple):
    """One time in which the event loop could not run."""

    biz: BizId | None
    """The module with the innermost code on the stack; ``None`` for the base, or where no stack was seen."""
    began: float
    """The time, in seconds."""
    seconds: float
    stack: str
    """From the first code of the module on; empty where no stack was seen."""


class LoopWatch:
    """The watch over one event loop.

    Lifetime: `begin` with the first module, `end` with the container; both idempotent. Thread-safe. ``limit_s`` is the
    time of a block to be told; ``None`` watches nothing.
    """

    def __init__(self, limit_s: float | None = None, logbook: Logbook | None = None) -> None:
        self._limit_s = limit_s or 0.0
        self._logbook = logbook
        self._scopes: weakref.WeakSet[Scope] = weakref.WeakSet()
        self._blocks: deque[Block] = deque(maxlen=KEPT)
        self._held: dict[BizId | None, tuple[int, float]] = {}
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._lag_s = 0.0
        self._sent: float | None = None

    @property
    def lag_s(self) -> float:
        """Seconds of waiting: of the last callback, or so far of the present one."""
        sent = self._sent
        return self._lag_s if sent is None else max(self._lag_s, time.monotonic() - sent)

    @property
    def blocks(self) -> tuple[Block, ...]:
        """The last blocks longer than the limit, the oldest first."""
        return tuple(self._blocks)

    @property
    def held(self) -> dict[BizId | None, tuple[int, float]]:
        """The number of blocks, and their seconds together, of each living biz, and of the base (``None``)."""
        living = {scope.biz for scope in list(self._scopes) if not scope.is_closed}
        for biz in [biz for biz in list(self._held) if biz is not None and biz not in living]:
            self._held.pop(biz, None)
        return dict(self._held)

    def follow(self, scope: Scope) -> None:
        """Know the code of a life, until the life ends."""
        if self._limit_s:
            self._scopes.add(scope)

    def begin(self, loop: asyncio.AbstractEventLoop) -> None:
        """Watch a loop, unless the watch has begun already."""
        with self._lock:
            if not self._limit_s or self._thread is not None:
                return
            self._thread = threading.Thread(target=self._run, args=(loop,), name="koupleless-watch", daemon=True)
            with as_base():
                self._thread.start()

    def end(self) -> None:
        """End the watch, and the thread."""
        self._stopping.set()
        with self._lock:
            thread = self._thread
        if thread is not None:
            thread.join(_LONGEST_PAUSE_S)

    # --- on the thread -------------------------------------------------------------------------------------------

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        pause_s = min(self._limit_s / _BEATS, _LONGEST_PAUSE_S)
        idents: list[int] = []
        while not self._stopping.wait(
            pause_s if idents else 0.0
        ):  # the first at once: the stack is found by its thread
            arrived = threading.Event()

            def arrive(arrived: threading.Event = arrived) -> None:
                idents[:] = [threading.get_ident()]
                arrived.set()

            self._sent = sent = time.monotonic()
            try:
                loop.call_soon_threadsafe(arrive)
            except RuntimeError:  # the loop is closed
                return
            seen: tuple[BizId | None, str] | None = None
            while not arrived.wait(self._limit_s if seen is None else pause_s):
                if self._stopping.is_set() or not loop.is_running():
                    return
                if seen is None:
                    biz, stack = seen = self._look(idents)
                    told = f"has held the event loop for {self._limit_s:g} s, and holds it still"
                    self._tell(biz, f"{told}:\n{stack}" if stack else told)
            self._lag_s, self._sent = time.monotonic() - sent, None
            if self._lag_s >= self._limit_s:
                self._note(seen)

    def _look(self, idents: list[int]) -> tuple[BizId | None, str]:
        """Find the module on the stack of the loop; returns both, with the stack from code of the module on."""
        frame: FrameType | None = sys._current_frames().get(idents[0]) if idents else None  # noqa: SLF001 - documented
        stack: list[FrameType] = []
        while frame is not None:
            stack.append(frame)
            frame = frame.f_back
        try:
            owners = {id(space.builtins): scope.biz for scope in list(self._scopes) if (space := _namespace(scope))}
            own = [number for number, each in enumerate(stack) if id(each.f_builtins) in owners]
            biz = owners[id(stack[own[0]].f_builtins)] if own else None
            shown = stack[: own[-1] + 1] if own else stack
            lines = traceback.StackSummary.extract((each, each.f_lineno) for each in reversed(shown))
            return biz, "".join(lines.format()).rstrip()
        finally:
            del stack, frame

    def _note(self, seen: tuple[BizId | None, str] | None) -> None:
        biz, stack = seen or (None, "")
        seconds = self._lag_s
        block = Block(biz, time.time() - seconds, seconds, stack)
        times, together = self._held.get(biz, (0, 0.0))
        self._held[biz] = times + 1, together + seconds
        if seen is None:  # compiled code that let no other thread run, or the whole process stood still
            _log.warning("the event loop was held for %.1f s, while no other thread could run either", seconds)
        else:
            self._tell(biz, f"has held the event loop for {seconds:.1f} s")
        self._blocks.append(block)

    def _tell(self, biz: BizId | None, told: str) -> None:
        _log.warning("%s %s", "the base" if biz is None else f"biz {biz}", told)
        if biz is not None and self._logbook is not None:
            self._logbook.note(biz, logging.WARNING, told)


def _namespace(scope: Scope) -> Namespace | None:
    return scope.find_facet(Namespace)
