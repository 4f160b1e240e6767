"""The keys to be worked on: each once, by one worker at a time, and again if a change comes meanwhile."""

from __future__ import annotations

import asyncio
import heapq
import logging
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from koupleless.controller.cluster.delays import Backoff, Rate
from koupleless.errors import in_words

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Hashable, Mapping

    from koupleless.controller.cluster.delays import Alarm, Clock

_log: Final = logging.getLogger("koupleless.controller")

KeyT = TypeVar("KeyT", bound="Hashable")


class Closed(Exception):
    """The queue is closed, and gives out no key any more."""


class Terminal(Exception):
    """Raised by work on a key that no retry would mend: the key waits for its next change."""


@dataclass(frozen=True)
class Failure:
    """Why the work on a key failed the last time, and how many times in a row."""

    count: int
    reason: str


class Queue(Generic[KeyT]):
    """A queue of keys. A key waits at most once: at the end of the queue, or for a moment to come.

    Lifetime: until `close`. Threads: those of one event loop, whose `loop.time` is the clock unless another is given.
    """

    def __init__(
        self,
        *,
        clock: Clock | None = None,
        backoff: Backoff = Backoff(),  # noqa: B008 - frozen
        retries_per_second: float = 50,
        retries_at_once: int = 200,
        waited: Callable[[float], object] = lambda _seconds: None,
    ) -> None:
        """``waited`` is told the seconds for which each key was ready before a worker took the key."""
        self._clock = clock or asyncio.get_running_loop()
        self._backoff = backoff
        self._rate = Rate(per_second=retries_per_second, burst=retries_at_once)
        self._waited = waited
        self._ready: deque[tuple[KeyT, float]] = deque()
        """Keys, each with the time since when it is ready."""
        self._dirty: set[KeyT] = set()
        """Keys in `_ready`, and keys in work that have to be worked on again."""
        self._in_work: set[KeyT] = set()
        self._delays = _Delays[KeyT](self._clock, self.add)
        self._failures: dict[KeyT, Failure] = {}
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._is_closed = False

    def __len__(self) -> int:
        """The number of keys that can be worked on now."""
        return len(self._ready)

    def __repr__(self) -> str:
        counts = f"{len(self._ready)} ready, {len(self._in_work)} in work, {len(self._delays)} delayed"
        return f"<Queue {counts}, {len(self._failures)} failing>"

    @property
    def failing(self) -> Mapping[KeyT, Failure]:
        """The keys whose last work failed. Not a copy: a view, to be read only."""
        return self._failures

    def add(self, key: KeyT) -> None:
        """Have ``key`` worked on soon: at once if a delay was running, and again if the key is in work."""
        if self._is_closed:
            return
        self._delays.drop(key)
        if key in self._dirty:
            return
        self._dirty.add(key)
        if key not in self._in_work:
            self._make_ready(key)

    def add_after(self, key: KeyT, delay_s: float) -> None:
        """Have ``key`` worked on after ``delay_s``, or earlier if it waits for an earlier moment already."""
        if self._is_closed or key in self._dirty:
            return
        if delay_s <= 0:
            self.add(key)
        else:
            self._delays.put(key, self._clock.time() + delay_s)

    async def get(self) -> KeyT:
        """Take the next key, which is in work until `done`. Waits for one; raises `Closed`."""
        while not self._ready:
            if self._is_closed:
                raise Closed
            waiting = asyncio.get_running_loop().create_future()
            self._waiting.append(waiting)
            try:
                await waiting
            except asyncio.CancelledError:
                if waiting.done() and not waiting.cancelled():
                    self._wake_one()  # a key was meant for this one, who does not take it
                elif waiting in self._waiting:
                    self._waiting.remove(waiting)
                raise
        key, since = self._ready.popleft()
        self._waited(self._clock.time() - since)
        self._dirty.discard(key)
        self._in_work.add(key)
        return key

    def done(self, key: KeyT) -> None:
        """End the work on ``key``, which is ready again if it was added meanwhile."""
        self._in_work.remove(key)
        if key in self._dirty:
            self._make_ready(key)

    def _make_ready(self, key: KeyT) -> None:
        self._ready.append((key, self._clock.time()))
        self._wake_one()

    def forget(self, key: KeyT) -> None:
        """Count failures of ``key`` anew."""
        self._failures.pop(key, None)

    def retry(self, key: KeyT, reason: str) -> float:
        """Have ``key`` worked on again after a failure: later with each one in a row. Returns the delay in seconds.

        All retries together have a rate, too, so that many keys that fail at once do not come back at once.
        """
        count = self._count(key, reason)
        delay_s = max(self._backoff.after(count), self._rate.reserve(self._clock.time()))
        self.add_after(key, delay_s)
        return delay_s

    def give_up(self, key: KeyT, reason: str) -> None:
        """Remember a failure of ``key`` that no retry would mend."""
        self._count(key, reason)

    def close(self) -> None:
        """Drop all keys that wait; work that has begun goes on. Whoever waits in `get` gets `Closed`."""
        self._is_closed = True
        self._ready.clear()
        self._dirty.clear()
        self._delays.clear()
        while self._waiting:
            self._wake_one()

    def _count(self, key: KeyT, reason: str) -> int:
        before = self._failures.get(key)
        failure = self._failures[key] = Failure(1 if before is None else before.count + 1, reason)
        return failure.count

    def _wake_one(self) -> None:
        while self._waiting:
            waiting = self._waiting.popleft()
            if not waiting.done():
                waiting.set_result(None)
                return


class _Delays(Generic[KeyT]):
    """Keys that wait for a moment, each for one, and a call for each when it has come.

    A moment that a key waits for no more stays in the heap until it is the first, or until such moments outnumber the
    others: none is searched for.
    """

    def __init__(self, clock: Clock, due: Callable[[KeyT], object]) -> None:
        self._clock = clock
        self._due = due
        self._moments: dict[KeyT, float] = {}
        self._heap: list[tuple[float, int, KeyT]] = []
        self._count = 0
        """So that keys, which have no order, are never compared."""
        self._alarm: Alarm | None = None
        self._alarm_at = 0.0

    def __len__(self) -> int:
        return len(self._moments)

    def put(self, key: KeyT, when: float) -> None:
        if self._moments.get(key, when + 1) <= when:
            return
        self._moments[key] = when
        self._count += 1
        heapq.heappush(self._heap, (when, self._count, key))
        if len(self._heap) > 2 * len(self._moments) + 8:
            self._heap = [entry for entry in self._heap if self._moments.get(entry[2]) == entry[0]]
            heapq.heapify(self._heap)
        self._set_alarm()

    def drop(self, key: KeyT) -> None:
        self._moments.pop(key, None)

    def clear(self) -> None:
        self._moments.clear()
        self._heap.clear()
        self._set_alarm()

    def _set_alarm(self) -> None:
        if self._alarm is not None and (not self._heap or self._heap[0][0] != self._alarm_at):
            self._alarm.cancel()
            self._alarm = None
        if self._alarm is None and self._heap:
            self._alarm_at = self._heap[0][0]
            self._alarm = self._clock.call_at(self._alarm_at, self._ring)

    def _ring(self) -> None:
        self._alarm = None
        now = max(self._clock.time(), self._alarm_at)  # a loop may call a little early
        while self._heap and self._heap[0][0] <= now:
            when, _, key = heapq.heappop(self._heap)
            if self._moments.get(key) == when:
                self._due(key)  # which drops it here
        self._set_alarm()


async def work(queue: Queue[KeyT], reconcile: Callable[[KeyT], Awaitable[float | None]], *, workers: int) -> None:
    """Work on keys until the queue is closed, ``workers`` at a time; then end the work that has begun.

    ``reconcile`` makes one key what it should be. It returns the seconds after which to look again without a change,
    or ``None``; an exception is a failure, after which the key is retried, unless it is `Terminal`.
    """
    async with asyncio.TaskGroup() as group:
        for _ in range(workers):
            group.create_task(_worker(queue, reconcile))


async def _worker(queue: Queue[KeyT], reconcile: Callable[[KeyT], Awaitable[float | None]]) -> None:
    while True:
        try:
            key = await queue.get()
        except Closed:
            return
        try:
            after_s = await reconcile(key)
        except Terminal as error:
            queue.give_up(key, str(error))
            _log.warning("%s: %s", key, error)
        except (Exception, asyncio.CancelledError) as error:  # kept in `failing`, and tried again
            if _is_cancelled():
                raise
            delay_s = queue.retry(key, in_words(error))
            _log.warning("%s failed, and is tried again in %.1f s: %s", key, delay_s, in_words(error))
            _log.debug("%s failed", key, exc_info=error)
        else:
            queue.forget(key)
            if after_s is not None:
                queue.add_after(key, after_s)
        finally:
            queue.done(key)
        await asyncio.sleep(0)  # work without a wait, on many keys, must not keep heartbeats and Leases waiting


def _is_cancelled() -> bool:
    """The worker itself is to end; else the work has met an end of something that it had waited for."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
