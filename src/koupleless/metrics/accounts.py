"""The numbers of one container: lives with the traffic of each, installs and uninstalls."""

from __future__ import annotations

import contextlib
import threading
import time
from bisect import bisect_left
from typing import TYPE_CHECKING, Final, Protocol

from koupleless.adapters.prometheus import Distribution
from koupleless.errors import BizBusy, BizRepeated, ContainerClosed, MasterBizProtected, PathTaken
from koupleless.traffic import Traffic

if TYPE_CHECKING:
    from collections.abc import Iterator

    from koupleless.biz import BizId
    from koupleless.context import Scope
    from koupleless.ownership.purge import PurgeReport

BOUNDS: Final = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""The upper bounds of the durations of operations, in seconds."""

_REFUSALS: Final = (BizBusy, BizRepeated, ContainerClosed, MasterBizProtected, PathTaken)


class Living(Protocol):
    """A life, as far as accounts go."""

    @property
    def biz(self) -> BizId:
        """The identity of the biz."""

    @property
    def scope(self) -> Scope:
        """The scope of the life."""


class Tally:
    """The durations of one kind of operation, by outcome. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._by_outcome: dict[str, tuple[list[int], float]] = {}

    def count(self, outcome: str, seconds: float) -> None:
        """Count the end of an operation."""
        with self._lock:
            counts, total = self._by_outcome.get(outcome, ([0] * (len(BOUNDS) + 1), 0.0))
            counts[bisect_left(BOUNDS, seconds)] += 1
            self._by_outcome[outcome] = counts, total + seconds

    def read(self) -> dict[str, Distribution]:
        """Return a copy of the numbers, by outcome."""
        with self._lock:
            return {
                outcome: Distribution(BOUNDS, tuple(counts), total)
                for outcome, (counts, total) in self._by_outcome.items()
            }


class Accounts:
    """The numbers of one container.

    Lifetime: as the container. The numbers of a biz go with the last life of the identity. Thread-safe.
    """

    def __init__(self) -> None:
        self.installs = Tally()
        self.uninstalls = Tally()
        self._lock = threading.Lock()
        self._lives: dict[BizId, list[Living]] = {}
        self._traffic: dict[BizId, Traffic] = {}
        self._grown: dict[BizId, int] = {}

    # --- lives ---------------------------------------------------------------------------------------------------

    def traffic_of(self, biz: BizId) -> Traffic:
        """Return the traffic of an identity, for a life about to `enter`."""
        with self._lock:
            return self._traffic.setdefault(biz, Traffic())

    def enter(self, life: Living) -> None:
        """Take a life into account."""
        with self._lock:
            self._lives.setdefault(life.biz, []).append(life)

    def leave(self, life: Living) -> None:
        """Drop a life, and the numbers of the identity if no other life has the identity. Idempotent."""
        with self._lock:
            others = [other for other in self._lives.pop(life.biz, ()) if other is not life]
            if others:
                self._lives[life.biz] = others
            else:
                self._traffic.pop(life.biz, None)
                self._grown.pop(life.biz, None)

    def note_start(self, biz: BizId, grown_bytes: int) -> None:
        """Note the growth of the process during the start of a living biz."""
        with self._lock:
            if biz in self._lives:
                self._grown[biz] = grown_bytes

    def lives(self) -> tuple[tuple[BizId, int], ...]:
        """List the lives: the identity, and the number of the life."""
        with self._lock:
            return tuple((biz, life.scope.generation) for biz, lives in self._lives.items() for life in lives)

    def traffic(self) -> dict[BizId, Traffic]:
        """Return the traffic of all living bizs, for reading."""
        with self._lock:
            return dict(self._traffic)

    def grown(self) -> dict[BizId, int]:
        """Return the growth of the process during the start of each living biz, in bytes."""
        with self._lock:
            return dict(self._grown)

    # --- operations ----------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def installing(self, *, is_first_half: bool = False) -> Iterator[None]:
        """Count the body as an install; as the first half of an install, failures alone."""
        begin = time.monotonic()
        try:
            yield
        except BaseException as error:
            outcome = "refused" if isinstance(error, _REFUSALS) else "failed"
            self.installs.count(outcome, time.monotonic() - begin)
            raise
        if not is_first_half:
            self.installs.count("success", time.monotonic() - begin)

    def note_uninstall(self, report: PurgeReport, seconds: float) -> None:
        """Count an uninstall by the report."""
        outcome = "failed" if report.failures else "success" if report.clean else "held"
        self.uninstalls.count(outcome, seconds)
