"""Delays before something is tried again, and the clock by which they run."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable


class Alarm(Protocol):
    """A call that is still to come."""

    def cancel(self) -> None:
        """Never make the call."""


class Clock(Protocol):
    """The seconds of some clock, and calls at a moment of that clock. An event loop is one; tests have another."""

    def time(self) -> float:
        """Return the seconds; never fewer than before."""

    def call_at(self, when: float, callback: Callable[[], object], /) -> Alarm:
        """Call ``callback`` once ``time()`` is ``when``, on the thread of the owner."""


@dataclass(frozen=True)
class Backoff:
    """A delay that doubles with each failure, from the first up to the longest."""

    first_s: float = 0.1
    longest_s: float = 300

    def after(self, failures: int) -> float:
        """The delay after so many failures in a row, one or more."""
        most = math.log2(self.longest_s / self.first_s)
        return self.longest_s if failures - 1 >= most else self.first_s * 2 ** (failures - 1)


class Rate:
    """So many moments a second, after a burst. Lifetime: as the owner's. Not for several threads."""

    def __init__(self, *, per_second: float, burst: int) -> None:
        self._interval_s = 1 / per_second
        self._ahead_s = (burst - 1) * self._interval_s
        self._next = -math.inf

    def reserve(self, now: float) -> float:
        """Take the next moment, and return the seconds until then."""
        self._next = max(self._next, now - self._ahead_s)
        delay = max(0.0, self._next - now)
        self._next += self._interval_s
        return delay
