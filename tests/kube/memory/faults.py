"""Faults of the API server in memory: the next requests of a kind are answered wrongly, late, or not to their end."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass
class Fault:
    """One fault, for the next ``times`` requests with this verb and resource.

    ``status`` answers instead of the server: 409, 410, 429, 500. ``delay_s`` comes before any answer. A watch ends
    after so many ``events``: in order, in the middle of a line with ``is_cut``, or with an event of type ERROR and
    this ``code``.
    """

    verb: str
    plural: str
    times: int = 1
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    delay_s: float = 0
    events: int | None = None
    is_cut: bool = False
    code: int | None = None


class Faults:
    """The faults to come. Threads: any."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: list[Fault] = []

    def add(self, fault: Fault) -> Fault:
        with self._lock:
            self._waiting.append(fault)
        return fault

    def take(self, verb: str, plural: str) -> Fault | None:
        """The first fault for such a request, which counts as one of its times."""
        with self._lock:
            for fault in self._waiting:
                if fault.times and fault.verb in (verb, "*") and fault.plural in (plural, "*"):
                    fault.times -= 1
                    return fault
            return None
