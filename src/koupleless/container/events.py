"""What happened to the bizs of a container, as frozen values in order, for whoever wants to follow.

There are no listeners to call: who is interested asks for what came after the last event it saw, so a slow or failing
follower can neither delay nor break an operation.
"""

from __future__ import annotations

import enum
import logging
import threading
import time
from collections import deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from koupleless.descriptions import BizInfo

logger = logging.getLogger("koupleless")

KEPT: Final = 1_000
"""How many past events can still be asked for."""
_LONGEST: Final = 10_000
"""How much of the detail of one is kept."""


class EventKind(enum.Enum):
    """The moments of a biz's life that others may want to know."""

    INSTALLING = "installing"
    STARTED = "started"
    START_FAILED = "start failed"
    SWITCHED = "switched"
    STOPPING = "stopping"
    STOP_FAILED = "stop failed"
    STOPPED = "stopped"


_BAD: Final = frozenset({EventKind.START_FAILED, EventKind.STOP_FAILED})


@dataclass(frozen=True, slots=True)
class BizEvent:
    """One moment; ``number`` counts them from 1 without gaps."""

    number: int
    time_ms: int
    kind: EventKind
    info: BizInfo
    """Without what the manifest says for operators to read: that may be large, and leaves with the biz."""
    detail: str = ""


class EventLog:
    """The newest events of one container. Thread-safe; lives as long as its container."""

    def __init__(self) -> None:
        self._events: deque[BizEvent] = deque(maxlen=KEPT)
        self._grown = threading.Condition()
        self._last = 0

    def append(self, kind: EventKind, info: BizInfo, detail: str = "") -> None:
        """Add what just happened, also to the base's log, and wake those who wait for it."""
        level = logging.WARNING if kind in _BAD else logging.INFO
        logger.log(level, "biz %s: %s%s", info.id, kind.value, f" ({detail})" if detail else "")
        slim = replace(
            info, records=(), class_path=(), declared_libraries=(), deny_imports=(), attributes={}, libraries=()
        )
        with self._grown:
            self._last += 1
            event = BizEvent(self._last, time.time_ns() // 1_000_000, kind, slim, detail[:_LONGEST])
            self._events.append(event)
            self._grown.notify_all()

    def after(self, number: int, *, timeout_s: float = 0.0) -> tuple[BizEvent, ...]:
        """The events after ``number`` that are still kept; waits up to ``timeout_s`` seconds for the first one."""
        with self._grown:
            self._grown.wait_for(lambda: self._last > number, timeout_s)
            return tuple(event for event in self._events if event.number > number)
