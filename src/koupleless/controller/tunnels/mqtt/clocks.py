"""The age of messages by the clocks of bases, which may differ from the clock of the controller by any time.

The original drops messages whose time is ten seconds old by the clock of the controller: a base with a clock behind by
so much is invisible there. Here a heartbeat is late if it took ten seconds longer than the heartbeat before.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

_log: Final = logging.getLogger("koupleless.controller")

LATE_S: Final = 10.0
_NEVER_S: Final = 86_400 * 365 * 10
"""Seconds into the future from which a time is no time of a clock: last wills are written in advance."""
_SLACK_S: Final = 0.1
"""Times in messages are rounded, and clocks are slowed down and sped up."""


@dataclass(slots=True)
class _Seen:
    lag_s: float
    """The clock of the controller at the last heartbeat, less the time in the heartbeat."""
    at: float
    is_told: bool = False
    """Whether the log says that the clock is wrong."""


class Clocks:
    """The clocks of bases. Used on one event loop."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic, wall: Callable[[], float] = time.time) -> None:
        """``clock`` never goes back; ``wall`` tells seconds since the epoch, for the log alone."""
        self._clock = clock
        self._wall = wall
        self._seen: dict[str, _Seen] = {}

    def is_late(self, identity: str, made_ms: int | None) -> bool:
        """Take the time of a heartbeat; returns whether the heartbeat is of another time than it comes in."""
        wall, now = self._wall(), self._clock()
        if made_ms is None or not 0 < made_ms / 1_000 < wall + _NEVER_S:
            return False
        lag_s = now - made_ms / 1_000
        seen = self._seen.get(identity)
        if seen is None:
            seen = self._seen[identity] = _Seen(lag_s, now)
        is_late = lag_s - seen.lag_s >= LATE_S
        seen.lag_s, seen.at = lag_s, now
        behind_s = wall - made_ms / 1_000
        if abs(behind_s) < LATE_S:
            seen.is_told = False
        elif not is_late and not seen.is_told:
            seen.is_told = True
            word = "behind" if behind_s > 0 else "ahead of"
            _log.warning(
                "base %s: its clock is %.0f s %s that of the controller; the base is heard all the same, but set the "
                "clock: times of modules are wrong",
                *(identity, abs(behind_s), word),
            )
        return is_late

    def is_older(self, identity: str, made_ms: int | None, moment: float) -> bool:
        """Whether a message was made before a moment of ``clock``, as far as the clock of the base is known."""
        seen = self._seen.get(identity)
        if seen is None or made_ms is None:
            return False
        return made_ms / 1_000 + seen.lag_s < moment - _SLACK_S

    def forget(self, before: float) -> None:
        """Forget bases not heard since a moment."""
        self._seen = {identity: seen for identity, seen in self._seen.items() if seen.at >= before}
