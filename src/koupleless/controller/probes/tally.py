"""The results of one probe, counted against the thresholds of the probe."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from koupleless.controller.probes.probe import Probe


@dataclass(slots=True)
class Tally:
    """The count of one probe during one life of a module."""

    probe: Probe
    verdict: bool | None
    """The last result that has reached a threshold; before the first one, the value for a new life."""
    in_a_row: int = 0
    """Results in a row that are as the last one."""
    _last: bool | None = None

    def note(self, *, is_success: bool) -> bool:
        """Note the result of a check; returns whether the verdict is another one now."""
        self.in_a_row = self.in_a_row + 1 if is_success is self._last else 1
        self._last = is_success
        needed = self.probe.successes if is_success else self.probe.failures
        if self.in_a_row < needed or self.verdict is is_success:
            return False
        self.verdict = is_success
        return True
