"""Functions run in turn on one thread, each with a deadline of its own."""

from __future__ import annotations

import threading
import weakref
from typing import TYPE_CHECKING, Any

import pytest

from koupleless.container.stage import DeadlineMissed, Errand, Stage

if TYPE_CHECKING:
    from collections.abc import Callable


def errand(name: str, function: Callable[[], object], timeout_s: float = 20.0) -> Errand:
    return Errand(name, function, timeout_s)


def test_functions_in_turn_share_a_thread_that_has_the_name_of_each() -> None:
    def who() -> tuple[str, int]:
        return threading.current_thread().name, threading.get_ident()

    def fail() -> None:
        raise SystemExit("no")

    first, failed, last = Stage().run_in_turn([errand("one", who), errand("two", fail), errand("three", who)])
    assert [outcome.done() for outcome in (first, failed, last)] == [True] * 3
    assert isinstance(failed.exception(), SystemExit)
    assert (first.result()[0], last.result()[0]) == ("one", "three")
    assert first.result()[1] == last.result()[1] != threading.get_ident()


def test_a_function_without_an_end_keeps_the_thread_and_none_of_the_functions_after_it() -> None:
    class Step:
        def __call__(self) -> str:
            seen.append(threading.get_ident())
            return "done"

    goes_on = threading.Event()
    seen: list[int] = []

    def hang() -> None:
        seen.append(threading.get_ident())
        goes_on.wait(20)

    step: Any = Step()
    after = weakref.ref(step)
    try:
        outcomes = Stage().run_in_turn([errand("hangs", hang, 0.05), errand("goes on", step)])
        del step
        missed = next(outcomes)
        with pytest.raises(DeadlineMissed, match=r"not finished within 0\.05 s, and still runs .*hang"):
            missed.result()
        assert len(seen) == 1, "the second function has begun before the failure of the first was told"
        assert next(outcomes).result() == "done"
        assert list(outcomes) == []
        del outcomes
        assert len(set(seen)) == 2
        assert after() is None
    finally:
        goes_on.set()
