"""Events of the bizs of a container, as frozen values in order, for all followers.

There are no listeners to call: a follower asks for the events after the last known event, so a slow or failing follower
can neither delay nor break an operation.
"""

from __future__ import annotations

import enum
import logging
import threading
import time
from collections import deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from koupleless.view.logging.logbook import Logbook

if TYPE_CHECKING:
    from koupleless.descriptions import BizInfo

logger = logging.getLogger("koupleless")

KEPT: Final = 1_000
"""Number of past events that can still be asked for."""
_LONGEST: Final = 10_000
"""Number of characters kept of the detail of one event."""


class EventKind(enum.Enum):
    """The moments of a biz's life that are told to followers."""

    INSTALLING = "installing"
    STARTED = "started"
    START_FAILED = "start failed"
    SWITCHED = "switched"
    STOPPING = "stopping"
    STOP_FAILED = "stop failed"
    STOPPED = "stopped"


_BAD: Final = frozenset({EventKind.START_FAILED, EventKind.STOP_FAILED})
_BEGINNINGS: Final = frozenset({EventKind.INSTALLING, EventKind.STOPPING})
_WORDS: Final = {
    EventKind.STARTED: "installed",
    EventKind.START_FAILED: "failed to start",
    EventKind.SWITCHED: "answers from now on",
    EventKind.STOP_FAILED: "failed to stop",
    EventKind.STOPPED: "uninstalled",
}
"""The ends of operations, as the log says them."""


@dataclass(frozen=True, slots=True)
class BizEvent:
    """One moment of a biz; ``number`` counts events from 1 without gaps."""

    number: int
    time_ms: int
    kind: EventKind
    info: BizInfo
    """A snapshot without the manifest's texts for operators: such texts may be large, and leave with the biz."""
    detail: str = ""


class EventLog:
    """The newest events of one container. Thread-safe; lives as long as its container."""

    def __init__(self, logbook: Logbook | None = None) -> None:
        self._logbook = logbook or Logbook()
        self._events: deque[BizEvent] = deque(maxlen=KEPT)
        self._grown = threading.Condition()
        self._last = 0

    def append(
        self, kind: EventKind, info: BizInfo, detail: str = "", *, elapsed_ms: float | None = None, trace: str = ""
    ) -> None:
        """Add an event for the present moment, and wake waiting followers.

        Writes a line to the log of the base and to that of the biz; the latter gets the traceback of a failure, too.
        """
        level = logging.WARNING if kind in _BAD else logging.DEBUG if kind in _BEGINNINGS else logging.INFO
        spent = "" if elapsed_ms is None else f" in {elapsed_ms:.0f} ms"
        said = f"{_WORDS.get(kind, kind.value)}{spent}{f' ({detail})' if detail else ''}"
        logger.log(level, "biz %s %s", info.id, said)
        self._logbook.note(info.id, level, f"{said}\n{trace.rstrip()}" if trace else said)
        slim = replace(
            info, records=(), class_path=(), declared_libraries=(), deny_imports=(), attributes={}, libraries=()
        )
        with self._grown:
            self._last += 1
            event = BizEvent(self._last, time.time_ns() // 1_000_000, kind, slim, detail[:_LONGEST])
            self._events.append(event)
            self._grown.notify_all()

    def after(self, number: int, *, timeout_s: float = 0.0) -> tuple[BizEvent, ...]:
        """Return the kept events after ``number``; waits up to ``timeout_s`` seconds for the first one."""
        with self._grown:
            self._grown.wait_for(lambda: self._last > number, timeout_s)
            return tuple(event for event in self._events if event.number > number)
