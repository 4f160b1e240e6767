"""The choice between the tunnels to a base that is heard by both.

Two tunnels may carry other addresses for one base, and each heartbeat would change the Node. The tunnel in use stays in
use while the base is heard there and answers.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from koupleless.controller.vnodes.base import BaseState

if TYPE_CHECKING:
    from koupleless.controller.vnodes.base import AnnouncedBase, Way

STALE_S: Final = 25.0
"""Seconds without a heartbeat by the tunnel in use before another one takes its place."""


@dataclass(slots=True)
class Ways:
    """The heartbeats of one base, by tunnel. Times are seconds of one monotonic clock."""

    _heard: dict[Way, float] = field(default_factory=dict)

    def choose(self, before: AnnouncedBase, base: AnnouncedBase, now: float, *, is_doubtful: bool) -> AnnouncedBase:
        """Take the news in a heartbeat, or keep those ``before``; with doubts about the tunnel in use, take the news.

        A start or an end of the base is news by any tunnel.
        """
        self._heard[base.way] = now
        if base.way is before.way or base.state is not BaseState.ACTIVATED or before.state is not BaseState.ACTIVATED:
            return base
        is_fresh = now - self._heard.get(before.way, float("-inf")) <= STALE_S
        return before if is_fresh and not is_doubtful and base.start == before.start else base

    def prefer(self, way: Way, now: float) -> None:
        """Count a tunnel as heard, and forget others: the controller that leads has chosen."""
        self._heard = {way: now}
