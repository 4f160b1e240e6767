"""Objects left behind by bizs that have gone: referred to weakly, checked again, forgotten once gone.

A zombie is memory kept by another holder, not a state of the container: the zombie is in nobody's way, and does not
hinder the next version of the same name.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from koupleless.biz import BizId
    from koupleless.ownership.purge import Held, PurgeReport, Survey


@dataclass(frozen=True, slots=True)
class Zombie:
    """A Python module, or an object of one, in memory after its biz has left. Refers to nothing of the biz."""

    biz: BizId
    """The identity of the biz."""
    what: str
    """The Python module, or, after the globals have died, an object of the Python module: ``shop.models.Order``."""
    since_ms: int
    """Time of the uninstall, in milliseconds since the epoch."""
    holders: tuple[str, ...]
    """The holders at the time of the uninstall, as a chain of referrers, outermost first; empty if none was found."""
    size_bytes: int | None
    """Estimate, at the time of the uninstall, of the bytes kept alive; ``None`` if there is none."""


@dataclass(frozen=True, slots=True)
class _Rest:
    biz: BizId
    since_ms: int
    held: tuple[Held, ...]
    survey: Survey


class Remains:
    """Objects named as held by purge reports of one container, and still alive.

    Lifetime: of the container. Thread-safe. Holds nothing of a biz: the references of a survey are weak.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rests: list[_Rest] = []

    def add(self, report: PurgeReport, survey: Survey) -> None:
        """Remember the objects named as held by ``report``; ``survey`` was made of the same life."""
        if report.held:
            rest = _Rest(report.biz, time.time_ns() // 1_000_000, report.held, survey)
            with self._lock:
                self._rests.append(rest)

    def check(self) -> tuple[Zombie, ...]:
        """List the zombies alive now, the oldest first; objects that died since are forgotten.

        Asks weak references, collects nothing, and takes microseconds for each Python module left. So an object
        without holders is in the list until the next collection.
        """
        with self._lock:
            alive = [(rest, _names(rest.survey)) for rest in self._rests]
            self._rests = [rest for rest, names in alive if names]
        return tuple(_describe(rest, module, name) for rest, names in alive for module, name in names)


def _names(survey: Survey) -> list[tuple[str, str]]:
    """List living objects as (Python module, name): the Python module if its globals live, else its living objects."""
    return [
        (module, name) for module, names in survey.alive().items() for name in ([module] if module in names else names)
    ]


def _describe(rest: _Rest, module: str, name: str) -> Zombie:
    """Make a zombie from the report's words about ``name``, or about the Python module of the object."""
    told = {held.name: held for held in rest.held}
    held = told.get(name) or told.get(module) or next((one for one in rest.held if one.holders), rest.held[0])
    size = held.size_bytes if held.name == name else None
    return Zombie(rest.biz, name, rest.since_ms, held.holders, size)
