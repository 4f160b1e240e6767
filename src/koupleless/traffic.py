"""The count of the requests of a biz: numbers in plain slots, so that a request pays a few additions and no lock."""

from __future__ import annotations

from bisect import bisect_left
from typing import Final

BOUNDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""The upper bounds of the durations in `Traffic.durations`, in seconds; the last place is for longer ones."""

METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "other", "websocket")
"""The methods told apart: a client may invent others, and each would be a series for ever."""
CLASSES: Final = ("none", "1xx", "2xx", "3xx", "4xx", "5xx")
"""The classes of answers; ``none`` is a request that ended without an answer, mostly because the client had left."""

_OTHER: Final = METHODS.index("other") * len(CLASSES)
_WEBSOCKET: Final = METHODS.index("websocket") * len(CLASSES)
_FIRST: Final = {method: number * len(CLASSES) for number, method in enumerate(METHODS) if method.isupper()}
"""The place in `Traffic.answers` at which the classes of a method begin."""

_FAILED: Final = 500


class Traffic:
    """The requests of one biz.

    Lifetime: as the lives of one identity, one after another, so that a redeploy of the same version goes on counting.
    Threads: written by the thread of the event loop only, which is one for each base; read by any. A reader may see a
    request in one of the numbers and not yet in another.
    """

    __slots__ = ("answers", "begun", "durations", "errors", "seconds")

    def __init__(self) -> None:
        self.begun = 0
        """The number of requests that have come in."""
        self.answers = [0] * (len(METHODS) * len(CLASSES))
        """The number of requests by method and, within a method, by class."""
        self.durations = [0] * (len(BOUNDS) + 1)
        """The number of HTTP requests by duration; WebSockets are open for as long as somebody listens."""
        self.seconds = 0.0
        """The sum of the durations."""
        self.errors = 0
        """The number of exceptions that the application raised instead of returning."""

    @property
    def in_flight(self) -> int:
        """The number of requests that have come in and have not ended."""
        return max(0, self.begun - sum(self.answers))

    def count(self, method: str | None, status: object, seconds: float, *, has_failed: bool) -> None:
        """Count a request that ended with ``status``, or without one (0); the method of a WebSocket is ``None``.

        ``has_failed`` tells that the application raised; the server then answers in place of the application.
        """
        if has_failed:
            self.errors += 1
            status = status or _FAILED
        number = status // 100 if type(status) is int and 100 <= status < 600 else 0  # noqa: PLR2004 - HTTP's own
        if method is None:
            self.answers[_WEBSOCKET + number] += 1
            return
        self.answers[_FIRST.get(method, _OTHER) + number] += 1
        self.durations[bisect_left(BOUNDS, seconds)] += 1
        self.seconds += seconds

    def by_method(self) -> dict[tuple[str, str], int]:
        """Return the number of requests by method and class, without methods and classes that never came."""
        width = len(CLASSES)
        return {
            (METHODS[place // width], CLASSES[place % width]): number
            for place, number in enumerate(self.answers)
            if number
        }


class _Uncounted(Traffic):
    __slots__ = ()

    def count(self, method: str | None, status: object, seconds: float, *, has_failed: bool) -> None:
        """Count nothing."""


UNCOUNTED: Final = _Uncounted()
"""The traffic of bizs that nobody counts."""
