"""A clock that stands until it is told to go on."""

from __future__ import annotations

import heapq
import itertools
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable


class ManualAlarm:
    def __init__(self, callback: Callable[[], object]) -> None:
        self.callback: Callable[[], object] | None = callback

    def cancel(self) -> None:
        self.callback = None


class ManualClock:
    """The clock of a queue or a cache in a test: `advance` makes the calls that are due, in their order."""

    def __init__(self) -> None:
        self.now = 0.0
        self._count = itertools.count()
        self._alarms: list[tuple[float, int, ManualAlarm]] = []

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, callback: Callable[[], object]) -> ManualAlarm:
        alarm = ManualAlarm(callback)
        heapq.heappush(self._alarms, (when, next(self._count), alarm))
        return alarm

    @property
    def alarms(self) -> int:
        return sum(alarm.callback is not None for _, _, alarm in self._alarms)

    def advance(self, seconds: float) -> None:
        until = self.now + seconds
        while self._alarms and self._alarms[0][0] <= until:
            self.now, _, alarm = heapq.heappop(self._alarms)
            if alarm.callback is not None:
                alarm.callback()
        self.now = until


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()
