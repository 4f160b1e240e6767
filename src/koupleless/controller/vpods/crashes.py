"""The ends of modules by their probes, and the pauses before the next lives, as with a kubelet: ten seconds and longer.

Source: Kubernetes documentation, "Pod Lifecycle", on restarts with an exponential back-off delay.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

    from koupleless.controller.vpods.module import ModuleKey

_FIRST_PAUSE_S: Final = 10.0
_LONGEST_PAUSE_S: Final = 300.0
_CALM_S: Final = 600.0
"""Seconds of a life after which former crashes do not count."""


class Fall(NamedTuple):
    """The judgement that a module has to start again, by its probes."""

    message: str
    grace_s: float
    """Seconds for requests in flight."""
    lived_s: float
    """Seconds of the life that ends."""


class Crash(NamedTuple):
    """The end of a life of a module."""

    message: str
    at: float
    """Seconds since the epoch."""
    pause_s: float
    """Seconds before the next life."""


@dataclass(slots=True)
class _Record:
    crash: Crash
    mark: str
    """The mark of the module that has fallen."""
    count: int = 0
    """Crashes without a long life between them."""
    is_under_way: bool = True
    not_before: float = 0.0


class Crashes:
    """The crashes of the modules of one base. Used by one task at a time. Times are seconds of one clock.

    May be lost at any time: the count of restarts in the status of the Pod stays, and pauses begin with none.
    """

    def __init__(self) -> None:
        self._by_key: dict[ModuleKey, _Record] = {}

    def begin(self, key: ModuleKey, mark: str, fall: Fall, *, at: float) -> None:
        """Note that the end of a life begins; again for a further attempt. ``at`` is in seconds since the epoch."""
        known = self._by_key.get(key)
        count = known.count if known is not None and known.mark == mark and fall.lived_s < _CALM_S else 0
        pause_s = min(_FIRST_PAUSE_S * 2 ** min(count - 1, 16), _LONGEST_PAUSE_S) if count else 0.0
        self._by_key[key] = _Record(Crash(fall.message, at, pause_s), mark, count)

    def end(self, key: ModuleKey, *, now: float) -> None:
        """Note that the life has ended; the next one comes after the pause, the first one without a pause."""
        record = self._by_key[key]
        record.count, record.is_under_way = record.count + 1, False
        record.not_before = now + record.crash.pause_s

    def last(self, key: ModuleKey) -> Crash | None:
        """Return the last crash, also one under way; ``None`` without one."""
        record = self._by_key.get(key)
        return None if record is None else record.crash

    def is_under_way(self, key: ModuleKey) -> bool:
        """Whether a life is ending."""
        record = self._by_key.get(key)
        return record is not None and record.is_under_way

    def due(self, key: ModuleKey, mark: str) -> float:
        """Return the time of the next life; 0 without a crash, and for a module changed since."""
        record = self._by_key.get(key)
        return record.not_before if record is not None and record.mark == mark else 0.0

    def forget(self, *, besides: Iterable[ModuleKey]) -> None:
        """Forget all modules but ``besides``."""
        kept = set(besides)
        self._by_key = {key: record for key, record in self._by_key.items() if key in kept}
