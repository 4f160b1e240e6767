"""The queue of keys: one worker at a time for a key, nothing lost, nothing early, retries within bounds."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from tests.controller.conftest import ManualClock

from koupleless.controller.cluster.delays import Backoff, Rate
from koupleless.controller.cluster.queue import Closed, Failure, Queue, Terminal, work

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


def taken(queue: Queue[str]) -> str | None:
    """The next key, or ``None`` if `get` would wait."""
    if not len(queue):
        return None
    getting = queue.get()
    with pytest.raises(StopIteration) as found:
        getting.send(None)
    key: str = found.value.value
    return key


@pytest.fixture
def queue(clock: ManualClock) -> Queue[str]:
    return Queue(clock=clock, backoff=Backoff(first_s=1, longest_s=60))


# --- one key


def test_a_key_added_many_times_is_worked_on_once(queue):
    for _ in range(3):
        queue.add("a")

    assert taken(queue) == "a"
    queue.done("a")
    assert taken(queue) is None


def test_a_key_added_while_in_work_is_worked_on_again_after_that(queue):
    queue.add("a")
    assert taken(queue) == "a"

    queue.add("a")
    assert taken(queue) is None
    queue.done("a")
    assert taken(queue) == "a"


def test_keys_come_in_the_order_in_which_they_were_added(queue):
    for key in ("c", "a", "b", "a"):
        queue.add(key)

    assert [taken(queue) for _ in range(3)] == ["c", "a", "b"]


def test_a_delayed_key_waits_for_the_earliest_of_its_moments_and_comes_once(queue, clock):
    for delay in (5, 3, 8):
        queue.add_after("a", delay)

    clock.advance(2.9)
    assert taken(queue) is None
    clock.advance(0.1)
    assert taken(queue) == "a"
    queue.done("a")
    clock.advance(60)
    assert taken(queue) is None


def test_a_change_makes_a_delayed_key_come_at_once_and_not_again(queue, clock):
    queue.add_after("a", 5)
    queue.add("a")

    assert taken(queue) == "a"
    queue.done("a")
    clock.advance(60)
    assert taken(queue) is None


def test_moments_that_passed_away_take_no_room(queue, clock):
    for index in range(10_000):
        queue.add_after("a", 10_000 - index)
    queue.add("a")
    for index in range(10_000):
        queue.add_after("b", 1 + index)

    assert clock.alarms <= 1
    assert len(queue._delays._heap) < 20


# --- failures


def test_each_failure_in_a_row_doubles_the_delay_up_to_a_bound(queue, clock):
    delays = []
    for _ in range(9):
        queue.add("a")
        assert taken(queue) == "a"
        delays.append(queue.retry("a", "no answer"))
        queue.done("a")

    assert delays == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert queue.failing == {"a": Failure(9, "no answer")}
    queue.forget("a")
    assert queue.failing == {}
    assert queue.retry("a", "again") == 1


def test_a_key_that_always_fails_is_tried_a_bounded_number_of_times(queue, clock):
    queue.add("a")
    tries = 0
    for _ in range(600):  # seconds
        while taken(queue) is not None:
            tries += 1
            queue.retry("a", "no")
            queue.done("a")
        clock.advance(1)

    assert 10 < tries < 20


def test_many_keys_that_fail_at_once_do_not_come_back_at_once(clock):
    queue = Queue[str](clock=clock, backoff=Backoff(first_s=1), retries_per_second=10, retries_at_once=5)
    for index in range(100):
        queue.retry(str(index), "away")

    clock.advance(1)
    assert len(queue) == 15
    clock.advance(5)
    assert len(queue) == 65


def test_a_backoff_stays_a_number_however_often_it_is_asked():
    backoff = Backoff(first_s=0.1, longest_s=300)

    assert backoff.after(1) == 0.1
    assert backoff.after(100_000) == 300


def test_a_rate_has_a_burst_and_then_one_for_each_interval():
    rate = Rate(per_second=2, burst=3)

    assert [rate.reserve(100) for _ in range(5)] == [0, 0, 0, 0.5, 1]
    assert [rate.reserve(1000) for _ in range(4)] == [0, 0, 0, 0.5]


# --- all of it, against a model


class Model(RuleBasedStateMachine):
    """Any order of calls: what is owed to a key comes, and comes to one worker at a time."""

    keys = st.sampled_from("abcd")

    def __init__(self) -> None:
        super().__init__()
        self.clock = ManualClock()
        self.queue = Queue[str](clock=self.clock, backoff=Backoff(first_s=1, longest_s=4))
        self.owed: set[str] = set()
        self.moments: dict[str, float] = {}
        self.in_work: set[str] = set()

    def due(self) -> None:
        for key, when in [*self.moments.items()]:
            if when <= self.clock.now:
                self.owed.add(key)
                del self.moments[key]

    @rule(key=keys)
    def add(self, key: str) -> None:
        self.queue.add(key)
        self.owed.add(key)
        self.moments.pop(key, None)

    @rule(key=keys, delay=st.integers(0, 9))
    def add_after(self, key: str, delay: int) -> None:
        self.queue.add_after(key, delay)
        if key not in self.owed:
            self.moments[key] = min(self.moments.get(key, self.clock.now + delay), self.clock.now + delay)
            self.due()

    @rule(seconds=st.integers(0, 5))
    def advance(self, seconds: int) -> None:
        self.clock.advance(seconds)
        self.due()

    @rule()
    def take(self) -> None:
        key = taken(self.queue)
        if key is None:
            assert self.owed <= self.in_work
            return
        assert key in self.owed
        assert key not in self.in_work
        self.owed.remove(key)
        self.in_work.add(key)

    @precondition(lambda self: self.in_work)
    @rule(data=st.data(), fails=st.booleans())
    def done(self, data: st.DataObject, fails: bool) -> None:
        key = data.draw(st.sampled_from(sorted(self.in_work)))
        if fails:
            delay = self.queue.retry(key, "no")
            if key not in self.owed:
                self.moments[key] = min(self.moments.get(key, self.clock.now + delay), self.clock.now + delay)
        else:
            self.queue.forget(key)
        self.queue.done(key)
        self.in_work.remove(key)

    @invariant()
    def counts_agree(self) -> None:
        assert len(self.queue) == len(self.owed - self.in_work)
        assert len(self.queue._delays) == len(self.moments)


TestModel = pytest.mark.timeout(60)(Model.TestCase)
TestModel.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


# --- workers


def run(queue: Queue[str], reconcile: Callable[[str], Awaitable[float | None]], *, workers: int = 2) -> None:
    asyncio.run(asyncio.wait_for(work(queue, reconcile, workers=workers), 10))


def test_workers_work_on_different_keys_at_once_and_never_on_one(clock):
    queue = Queue[str](clock=clock)
    running: set[str] = set()
    most = 0
    left = 60

    async def reconcile(key: str) -> None:
        nonlocal most, left
        assert key not in running
        running.add(key)
        most = max(most, len(running))
        queue.add(key)
        await asyncio.sleep(0)
        running.discard(key)
        left -= 1
        if left == 0:
            queue.close()

    for key in "abcdef":
        queue.add(key)
    run(queue, reconcile, workers=3)

    assert most == 3
    assert left <= 0


def test_a_failure_is_kept_and_tried_again_and_forgotten_after_a_success(clock):
    queue = Queue[str](clock=clock, backoff=Backoff(first_s=1))
    tries: list[dict[str, Failure]] = []

    async def reconcile(_key: str) -> None:
        tries.append(dict(queue.failing))
        if len(tries) < 3:
            asyncio.get_running_loop().call_soon(clock.advance, 2 ** len(tries))
            raise ValueError("not yet")
        asyncio.get_running_loop().call_soon(queue.close)

    queue.add("a")
    run(queue, reconcile)

    assert tries == [{}, {"a": Failure(1, "ValueError: not yet")}, {"a": Failure(2, "ValueError: not yet")}]
    assert queue.failing == {}


def test_a_terminal_failure_waits_for_the_next_change(clock):
    queue = Queue[str](clock=clock)
    tries = 0

    async def reconcile(_key: str) -> None:
        nonlocal tries
        tries += 1
        asyncio.get_running_loop().call_soon(queue.close if tries == 2 else change)
        raise Terminal("init containers are not supported")

    def change() -> None:
        clock.advance(1_000)
        assert tries == 1
        queue.add("a")

    queue.add("a")
    run(queue, reconcile)

    assert queue.failing == {"a": Failure(2, "init containers are not supported")}


def test_a_cancelled_wait_within_the_work_ends_no_worker(clock):
    queue = Queue[str](clock=clock)
    seen: list[str] = []

    async def reconcile(key: str) -> None:
        seen.append(key)
        if key == "a":
            gone = asyncio.get_running_loop().create_future()
            gone.cancel()
            await gone
        queue.close()

    queue.add("a")
    queue.add("b")
    run(queue, reconcile, workers=1)

    assert seen == ["a", "b"]
    assert queue.failing["a"].reason == "CancelledError"


def test_a_worker_that_is_cancelled_leaves_its_key_to_the_others(clock):
    queue = Queue[str](clock=clock)

    async def script() -> str:
        first = asyncio.create_task(queue.get())
        second = asyncio.create_task(queue.get())
        await asyncio.sleep(0)
        queue.add("a")  # meant for the first, who is cancelled before it takes the key
        first.cancel()
        return await asyncio.wait_for(second, 5)

    assert asyncio.run(script()) == "a"


def test_a_closed_queue_ends_its_workers_after_the_work_in_hand(clock):
    queue = Queue[str](clock=clock)
    ended: list[str] = []

    async def reconcile(key: str) -> float:
        queue.close()
        await asyncio.sleep(0.01)
        ended.append(key)
        return 5

    queue.add("a")
    queue.add("b")
    run(queue, reconcile, workers=1)

    assert ended == ["a"]
    assert clock.alarms == 0
    with pytest.raises(Closed):
        asyncio.run(queue.get())


def test_work_without_a_wait_on_many_keys_lets_others_have_the_loop(clock):
    async def act() -> None:
        queue: Queue[str] = Queue(clock=clock)
        done: list[str] = []
        for number in range(100):
            queue.add(str(number))

        async def reconcile(key: str) -> None:
            done.append(key)

        async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
            tasks.create_task(work(queue, reconcile, workers=1))
            for _ in range(5):
                await asyncio.sleep(0)
            assert 0 < len(done) < 10
            queue.close()

    asyncio.run(act())
