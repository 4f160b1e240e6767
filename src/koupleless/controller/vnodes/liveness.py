"""The life of a base by the signs of life: alive, mute, silent, or dead. No base is judged by one missed beat."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final

SILENT_AFTER_S: Final = 25.0
DEAD_AFTER_S: Final = 60.0
MUTE_AFTER: Final = 3
"""Unanswered questions in a row, besides `SILENT_AFTER_S` seconds, before a base with heartbeats counts as mute."""


class Life(enum.Enum):
    """The judgement about a base."""

    ALIVE = "alive"
    MUTE = "mute"
    """With heartbeats, but without an answer of the arklet for a while: the Node becomes unknown, and stays."""
    SILENT = "silent"
    """Without a sign of life for a while: the Node becomes unknown, and the base is asked nothing."""
    DEAD = "dead"
    """Without a sign of life for long, or at an end by its own word: the Node goes, by the policy of the operator."""


@dataclass(slots=True)
class Liveness:
    """The signs of life of one base. Times are seconds of one monotonic clock.

    The time starts with the object: a base known from the Node alone is given the time for a heartbeat.
    """

    seen: float
    has_ended: bool = False
    _answered: float = 0.0
    """The time of the last answer, or of the first question."""
    _unanswered: int = 0
    """Questions without an answer since then."""
    _is_deaf: bool = False
    """Whether the controller heard nothing by the tunnel at the last question."""

    def see(self, now: float) -> None:
        """Note a sign of life."""
        self.seen, self.has_ended = max(self.seen, now), False

    def doubt(self, now: float) -> None:
        """Begin to judge a base that another has judged before: silent until a sign of life, and not dead soon."""
        self.seen = max(self.seen, now - SILENT_AFTER_S - 1e-3)

    def end(self) -> None:
        """Note the end of the base in the words of the base."""
        self.has_ended = True

    def answer(self, now: float) -> None:
        """Note an answer of the arklet, or the begin of the questions: only the leader of a Node asks."""
        self._answered, self._unanswered, self._is_deaf = now, 0, False

    @property
    def is_unanswered(self) -> bool:
        """Whether the last question had no answer."""
        return self._unanswered > 0 or self._is_deaf

    def excuse(self, now: float) -> None:
        """Note a question that could not be asked by a fault of the tunnel: the base is silent, and not dead soon."""
        self._is_deaf = True
        self.doubt(now)

    def miss(self) -> None:
        """Note a question without an answer."""
        self._unanswered += 1

    def judge(self, now: float) -> Life:
        """Judge the base."""
        silence = now - self.seen
        if self.has_ended or silence >= DEAD_AFTER_S:
            return Life.DEAD
        if silence > SILENT_AFTER_S:
            return Life.SILENT
        is_mute = self._unanswered >= MUTE_AFTER and now - self._answered > SILENT_AFTER_S
        return Life.MUTE if is_mute else Life.ALIVE

    def next_change(self, now: float) -> float | None:
        """Return the time of the next change of the judgement; ``None`` for a dead base."""
        match self.judge(now):
            case Life.ALIVE:
                return self.seen + SILENT_AFTER_S
            case Life.SILENT:
                return self.seen + DEAD_AFTER_S
        return None
