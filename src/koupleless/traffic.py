"""The count of the requests of a biz, and of the processor time: plain slots, so that a request pays no lock.

To ask for the processor time of a thread is a call of the system, as dear as all other counting of a request together.
So all requests are measured where few come, and some, drawn by lot, where many come: each then stands for the others.
"""

from __future__ import annotations

import random
import sys
import threading
import types
from bisect import bisect_left
from time import monotonic, thread_time
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from koupleless.frames import passed_over

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

BOUNDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""The upper bounds of the durations, in seconds; one more place is for longer ones."""

METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "other", "websocket")
"""The methods told apart: a client may invent others, and each would be a series for ever."""
CLASSES: Final = ("none", "1xx", "2xx", "3xx", "4xx", "5xx")
"""The classes of answers; ``none`` is a request that ended without an answer, mostly because the client had left."""

_ROW: Final = len(BOUNDS) + 1
_PAIRS: Final = [(method, status) for method in METHODS for status in CLASSES]
"""Method and class of each row."""
_WEBSOCKET: Final = _PAIRS.index(("websocket", CLASSES[0]))
_places: Final[dict[tuple[str | None, object], int]] = {}
"""The place among the pairs by method and status, of all methods and statuses that have come and that HTTP knows."""


def _place_of(method: str | None, status: object) -> int:
    is_known = type(status) is int and 100 <= status < 600  # noqa: PLR2004 - HTTP's own
    name = "websocket" if method is None else method if method in METHODS[:-2] else "other"
    place = _PAIRS.index((name, CLASSES[status // 100 if is_known else 0]))  # type: ignore[operator]  # an int
    if is_known and name != "other":
        _places[method, status] = place
    return place


_FAILED: Final = 500

MEASURED: Final = 100
"""About the most requests in a second with their processor time measured."""
_WINDOW_S: Final = 1.0
_WINDOW: Final = 50
"""Seconds, or requests if they come sooner, after which the rate is looked at again."""
_lot: Final = random.Random()  # noqa: S311 - no secret; of its own, so that nobody's seed decides

SERVES: Final = "_koupleless_serves"
"""The attribute of a thread that serves requests of one biz alone, with the identity in words."""


class Meter:
    """The processor time of one biz, and the lot that decides which requests are measured.

    Lifetime: as its `Traffic`. Threads: `draw` and `add_step` on the thread of the event loop, the rest on any.
    """

    __slots__ = ("_begun_before", "_lock", "_loop_s", "_shown_s", "_since", "_stride", "_workers_s")

    def __init__(self) -> None:
        self._stride = 1
        self._since, self._begun_before = monotonic(), 0
        self._loop_s = self._workers_s = self._shown_s = 0.0
        self._lock = threading.Lock()

    def draw(self, begun: int) -> tuple[int, int]:
        """Return the number of requests for which the present one stands, and the distance to the next one to measure.

        One in so many is measured that about `MEASURED` come in a second. ``begun`` is the number of requests so far.
        """
        weight, now, come = self._stride, monotonic(), begun - self._begun_before
        if now - self._since >= _WINDOW_S or come >= _WINDOW:
            self._stride = max(1, round(come / max(now - self._since, 0.001) / MEASURED))
            self._since, self._begun_before = now, begun
        return weight, 1 if self._stride == 1 else _lot.randrange(1, 2 * self._stride)

    def add_step(self, seconds: float) -> None:
        """Add processor time of the loop's thread, on this thread."""
        self._loop_s += seconds

    def add_work(self, seconds: float) -> None:
        """Add processor time of another thread."""
        with self._lock:
            self._workers_s += seconds

    def read(self, of_threads: float) -> float:
        """Return the processor time added so far, and ``of_threads`` by living threads. Never less than before.

        A thread at its end is for a moment neither among the living threads nor added.
        """
        with self._lock:
            self._shown_s = max(self._shown_s, self._loop_s + self._workers_s + of_threads)
            return self._shown_s


class Counts(NamedTuple):
    """The counts of a moment."""

    answers: dict[tuple[str, str], int]
    """The number of requests by method and class, without pairs that never came."""
    durations: list[int]
    """The number of HTTP requests by duration. WebSockets are open for as long as somebody listens."""
    seconds: float
    """The sum of the durations."""
    errors: int
    """The number of exceptions that the application raised instead of returning."""
    in_flight: int
    """The number of requests that have come in and have not ended."""


class Traffic:
    """The requests of one biz.

    Lifetime: as the lives of one identity, one after another, so that a redeploy of the same version goes on counting.
    Threads: written by the thread of the event loop only, which is one for each base; read by any. A reader may see a
    request in one of the numbers and not yet in another.
    """

    __slots__ = ("_rows", "begun", "due", "errors", "meter", "seconds")

    def __init__(self) -> None:
        self.begun = 0
        """The number of requests that have come in."""
        self._rows: dict[int, list[int]] = {}
        """The number of requests by place and duration: rows as they come, for most modules see two or three of all."""
        self.seconds = 0.0
        """The sum of the durations, without those of WebSockets."""
        self.errors = 0
        """The number of exceptions that the application raised instead of returning."""
        self.due = 1
        """The value of `begun` from which on a request is to be `measured`."""
        self.meter = Meter()
        """The processor time."""

    def count(self, method: str | None, status: object, seconds: float, has_failed: bool) -> None:
        """Count a request that ended with ``status``, or without one (0); the method of a WebSocket is ``None``.

        ``has_failed`` tells that the application raised; the server then answers in place of the application.
        """
        if has_failed:
            self.errors += 1
            status = status or _FAILED
        try:
            place = _places[method, status]
        except (KeyError, TypeError):
            place = _place_of(method, status)
        try:
            row = self._rows[place]
        except KeyError:
            row = self._rows[place] = [0] * _ROW
        row[bisect_left(BOUNDS, seconds)] += 1
        if place < _WEBSOCKET:
            self.seconds += seconds

    def measured(self, app: Callable[..., Any]) -> Callable[..., Any]:
        """Return an ASGI application for one request, with the processor time of each step measured.

        On the loop's thread. Draws the next request to measure.
        """
        weight, distance = self.meter.draw(self.begun)
        self.due = self.begun + distance
        return _stepping(app, self.meter, weight)

    def read(self) -> Counts:
        """Return the counts of this moment. From any thread."""
        answers: dict[tuple[str, str], int] = {}
        durations = [0] * _ROW
        for place, row in sorted(self._rows.copy().items()):
            answers[_PAIRS[place]] = sum(row)
            if place < _WEBSOCKET:
                durations = [number + more for number, more in zip(durations, row, strict=True)]
        in_flight = max(0, self.begun - sum(answers.values()))
        return Counts(answers, durations, self.seconds, self.errors, in_flight)


class _Uncounted(Traffic):
    __slots__ = ()

    def __init__(self) -> None:
        super().__init__()
        self.due = sys.maxsize

    def count(self, method: str | None, status: object, seconds: float, has_failed: bool) -> None:
        """Count nothing."""


UNCOUNTED: Final = _Uncounted()
"""The traffic of bizs that nobody counts."""


@passed_over
def _stepping(app: Callable[..., Any], meter: Meter, weight: int) -> Callable[..., Any]:
    """Make an application that adds the processor time of each step of ``app``, ``weight`` times."""

    @types.coroutine
    def serve(connection: Any, receive: Any, send: Any) -> Generator[Any, Any, None]:
        begin = thread_time()
        try:
            steps = app(connection, receive, send).__await__()
        finally:
            meter.add_step((thread_time() - begin) * weight)
        step: Callable[..., Any] = steps.__next__
        value: tuple[Any, ...] = ()
        while True:
            begin = thread_time()
            try:
                item = step(*value)
            except StopIteration:
                return
            finally:
                meter.add_step((thread_time() - begin) * weight)
            try:
                sent = yield item
            except GeneratorExit:
                steps.close()
                raise
            except BaseException as error:  # noqa: BLE001 - passed on
                step, value = steps.throw, (error,)
            else:
                step, value = steps.send, (sent,)

    return serve
