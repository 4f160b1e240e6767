"""What bizs left behind when they went: remembered weakly, looked at again, forgotten once it is gone.

A held module is memory that somebody else keeps, not a state of the container: it stands in nobody's way, the next
version of the same name least of all.
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
    """A module, or something of one, that outlived its biz. Refers to nothing of it; safe to keep."""

    biz: BizId
    """Whose it was."""
    what: str
    """The module, or what of it lives where its globals died: ``shop.models.Order``."""
    since_ms: int
    """When it should have gone, in milliseconds since the epoch."""
    holders: tuple[str, ...]
    """Who held it then, as a chain of referrers, the outermost first; empty if none was found."""
    size_bytes: int | None
    """An estimate, made then, of what it keeps alive."""


@dataclass(frozen=True, slots=True)
class _Rest:
    biz: BizId
    since_ms: int
    held: tuple[Held, ...]
    survey: Survey


class Remains:
    """Everything that purge reports of one container named as held and that still lives.

    Lifetime: as its container. Thread-safe. Holds nothing of any biz alive: a survey knows it by weak references only.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rests: list[_Rest] = []

    def add(self, report: PurgeReport, survey: Survey) -> None:
        """Keep an eye on what ``report`` says is held of the life that ``survey`` was made of."""
        if report.held:
            rest = _Rest(report.biz, time.time_ns() // 1_000_000, report.held, survey)
            with self._lock:
                self._rests.append(rest)

    def check(self) -> tuple[Zombie, ...]:
        """What lives now, the oldest first; what died since is forgotten.

        Asks weak references, collects nothing and takes microseconds for each module that is left. So a thing that
        nobody holds any more is among them until the next collection finds it.
        """
        with self._lock:
            alive = [(rest, _names(rest.survey)) for rest in self._rests]
            self._rests = [rest for rest, names in alive if names]
        return tuple(_describe(rest, module, name) for rest, names in alive for module, name in names)


def _names(survey: Survey) -> list[tuple[str, str]]:
    """What lives, as (module, name): the module itself if its globals do, else what of it does."""
    return [
        (module, name) for module, names in survey.alive().items() for name in ([module] if module in names else names)
    ]


def _describe(rest: _Rest, module: str, name: str) -> Zombie:
    """``name`` with what the report said of it, or of the module that it was part of then."""
    told = {held.name: held for held in rest.held}
    held = told.get(name) or told.get(module) or next((one for one in rest.held if one.holders), rest.held[0])
    size = held.size_bytes if held.name == name else None
    return Zombie(rest.biz, name, rest.since_ms, held.holders, size)
