"""An even share of the Nodes for each living controller.

All controllers make the same plan from the same Leases: one Node after the other goes from the controller with the most
to the one with the fewest, until no two differ by more than one. Each controller carries out half of its own part in a
round, and writes the name of the other into the Lease. With an even share the plan is empty: no Node goes to and fro.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import random
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from koupleless.controller.cluster.cache import Cache
    from koupleless.controller.leading.leases import Lease, Leases
    from koupleless.controller.leading.members import Members

_log: Final = logging.getLogger("koupleless.controller")

ROUND_S: Final = 5.0
_STEADY_ROUNDS: Final = 2
"""Rounds without a change of the members before Nodes are handed over: a rollout of controllers comes and goes."""
_MOST: Final = 50
"""The greatest number of Nodes handed over in a round."""
_SECOND_S: Final = 2.0
"""Seconds for which a free Node is left to the controller that comes first."""
_LEVELS: Final = 10
_LEVEL_S: Final = 0.1


class Move(NamedTuple):
    """One Node that goes from one controller to another."""

    source: str
    target: str


def plan(counts: Mapping[str, int]) -> list[Move]:
    """Return the moves to an even share, given the number of Nodes of each living controller."""
    left, moves = dict(sorted(counts.items())), []
    while left:
        source, target = max(left, key=lambda name: left[name]), min(left, key=lambda name: left[name])
        if left[source] - left[target] < 2:  # noqa: PLR2004 - one more is as even
            break
        left[source] -= 1
        left[target] += 1
        moves.append(Move(source, target))
    return moves


def first_for(node: str, members: Collection[str]) -> str:
    """Return the controller to take a free Node first: the same for all who ask, and even over many Nodes."""
    return max(members, key=lambda member: hashlib.sha256(f"{node}\n{member}".encode()).digest(), default="")


def level_s(own: int, fewest: int) -> float:
    """Return the seconds for which a controller leaves a new base to controllers with fewer Nodes, up to one."""
    return _LEVEL_S * (_LEVELS * max(own - fewest, 0) // max(own, 1))


class Balance:
    """The share of one controller. All on one event loop."""

    def __init__(self, members: Members, cache: Cache[Lease], *, holder: str, round_s: float = ROUND_S) -> None:
        """``cache`` has the Leases of Nodes, with the holder as index."""
        self._members = members
        self._cache = cache
        self._holder = holder
        self._round_s = round_s

    def defer_s(self, node: str, before: str | None) -> float:
        """Return the seconds to wait before a free Node is taken, for others to come first.

        ``before`` is the former holder, empty for a Lease given up, ``None`` where there is no Lease yet.
        """
        living = self._members.living()
        if len(living) == 1:
            return 0.0
        if before is None:
            counts = self._counts(living)
            return level_s(counts[self._holder], min(counts.values()))
        return 0.0 if first_for(node, living - {before}) == self._holder else _SECOND_S

    def moves(self, leases: Leases, is_free: Callable[[str], bool]) -> list[tuple[str, str]]:
        """Return the Nodes to hand over in this round, each with the next holder; of those that ``is_free`` allows."""
        if not self._members.are_fresh():
            return []  # a Node given to a dead controller would have to lapse once more
        living = self._members.living()
        own = [lease.node for lease in self._cache.of(self._holder) if leases.leads(lease.node)]
        targets = [move.target for move in plan({**self._counts(living), self._holder: len(own)})
                   if move.source == self._holder]  # fmt: skip
        count = min((len(targets) + 1) // 2, _MOST)
        return list(zip(sorted(node for node in own if is_free(node)), targets[:count], strict=False))

    async def run(self, leases: Leases, is_free: Callable[[str], bool], give: Callable[[str, str], object]) -> None:
        """Hand Nodes over by ``give`` until cancelled."""
        while True:
            await asyncio.sleep(self._round_s * random.uniform(0.8, 1.2))  # noqa: S311 - no secret
            if self._members.steady_s() < _STEADY_ROUNDS * self._round_s:
                continue
            moves = self.moves(leases, is_free)
            if moves:
                _log.info("%d Nodes go to other controllers, for an even share", len(moves))
            for node, target in moves:
                give(node, target)

    def _counts(self, living: Collection[str]) -> dict[str, int]:
        return {member: self._cache.count(member) for member in living}
