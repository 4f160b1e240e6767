"""The pauses between attempts to reach a controller."""

from __future__ import annotations

import random
from typing import Final

_dice: Final = random.SystemRandom()  # the numbers of `random` belong to the application


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
