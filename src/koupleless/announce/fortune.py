"""How a tunnel fares: one line in the log for each turn, the time of the last success as a metric, and the pauses."""

from __future__ import annotations

import logging
import random
import time
from typing import TYPE_CHECKING, Final

from koupleless.adapters.prometheus import Family, publish

if TYPE_CHECKING:
    from collections.abc import Iterator

logger: Final = logging.getLogger("koupleless.announce")
_dice: Final = random.SystemRandom()  # the numbers of `random` belong to the application


class Fortune:
    """The fortune of one tunnel.

    Lifetime: from the begin of the tunnel to `close`. Threads: one at a time, any for the metric.
    """

    def __init__(self, tunnel: str, address: str) -> None:
        """``tunnel`` is the label of the metric, ``address`` the controller or broker in words, without secrets."""
        self.is_good: bool | None = None
        """Whether the last attempt was a success; ``None`` before the first."""
        self._tunnel = tunnel
        self._address = address
        self._ill = ""
        self._last_s = 0.0
        self._end = publish(self.read)

    def succeed(self, told: str) -> None:
        """Note a success; ``told`` is said in the log after a failure, and the first time."""
        self._last_s = time.time()
        if self.is_good is not True:
            logger.info("%s %s", self._address, told)
        self.is_good, self._ill = True, ""

    def fail(self, kind: str, reason: str) -> None:
        """Note a failure, said in the log unless the last attempt failed in the same way, ``kind``."""
        if kind != self._ill:
            logger.warning("%s %s: %s; tried again until it answers", self._address, kind, reason)
        self.is_good, self._ill = False, kind

    def close(self) -> None:
        """Show the metric no longer. Idempotent."""
        self._end()

    def read(self) -> Iterator[Family]:
        """Yield the metric."""
        yield Family(
            "koupleless_controller_last_success_timestamp_seconds",
            "gauge",
            "Time of the last message that reached the controller or its broker, by tunnel; 0 before the first.",
            ("tunnel",),
            {(self._tunnel,): self._last_s},
        )


class Pulse:
    """A period after a success; after failures shorter pauses, which double up to the longest.

    Pauses after failures vary by a fifth: the bases of a controller that comes back do not knock as one.
    """

    def __init__(self, period_s: float, *, first_s: float = 1.0, longest_s: float | None = None) -> None:
        """``first_s`` is the pause after the first failure; ``longest_s`` is the period unless given."""
        self._period_s = period_s
        self._first_s = first_s
        self._longest_s = period_s if longest_s is None else longest_s
        self._next_s = first_s

    def after(self, *, is_success: bool) -> float:
        """Return the seconds to wait before the next attempt."""
        if is_success:
            self._next_s = self._first_s
            return self._period_s
        pause_s, self._next_s = min(self._next_s, self._longest_s), 2 * self._next_s
        return pause_s * _dice.uniform(0.9, 1.1)
