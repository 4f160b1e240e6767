from __future__ import annotations

import atexit
import codecs
import concurrent.futures.thread
import importlib
import logging
import sys
import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from koupleless.biz import BizId
from koupleless.context import Scope, as_base, current, entered
from koupleless.ownership.ledger import NOTHING, Ledger, Order, Pending, owner
from koupleless.ownership.recording import Patches
from koupleless.recorders.door import RECORDING

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def ledger() -> Any:
    scope = Scope(BizId.of("tiny", "1.0"))
    scope.attach(Ledger(scope))
    return scope.facet(Ledger)


def test_entries_are_undone_last_first(ledger: Ledger) -> None:
    done: list[Any] = []
    for number in range(3):
        ledger.record("thing", str(number), partial(done.append, number))
    assert ledger.undo_all(1) == ()
    assert done == [2, 1, 0]
    assert ledger.undone == {"thing": 3}


def test_timers_come_before_executors_tasks_threads_and_the_rest(ledger: Ledger) -> None:
    done: list[Any] = []
    for order in reversed(Order):
        ledger.record("thing", order.name, partial(done.append, order), order=order)
    ledger.undo_all(1)
    assert done == sorted(Order)


def test_a_failing_undo_is_reported_and_skips_no_other(ledger: Ledger) -> None:
    done: list[Any] = []
    ledger.record("thing", "first", lambda: done.append("first"))
    ledger.record("thing", "second", lambda: 1 / 0)
    ledger.record("thing", "third", lambda: exec("raise SystemExit('no')"))
    failures = ledger.undo_all(1)
    assert done == ["first"]
    assert [str(failure) for failure in failures] == [
        "thing third: SystemExit: no",
        "thing second: ZeroDivisionError: division by zero",
    ]
    assert ledger.undone == {"thing": 1}


def test_what_is_forgotten_is_not_undone(ledger: Ledger) -> None:
    entry = ledger.record("thing", "gone", lambda: pytest.fail("undone"))
    ledger.forget(entry)
    ledger.forget(entry)
    assert len(ledger) == 0
    assert ledger.undo_all(1) == ()
    assert ledger.undone == {}


def test_all_are_asked_to_end_before_one_is_awaited(ledger: Ledger) -> None:
    said = []

    def ask(name: Any) -> Any:
        said.append(f"ask {name}")
        return Pending(lambda _: said.append(f"await {name}"))

    for name in "ab":
        ledger.record("thing", name, partial(ask, name))
    ledger.undo_all(1)
    assert said == ["ask b", "ask a", "await b", "await a"]


def test_the_deadline_is_shared_by_all_who_wait(ledger: Ledger) -> None:
    given = []

    def wait(left: Any) -> Any:
        given.append(left)
        time.sleep(left)
        return "still there"

    for name in "abc":
        ledger.record("thing", name, lambda: Pending(wait))
    started = time.monotonic()
    failures = ledger.undo_all(0.2)
    assert time.monotonic() - started < 1
    assert len(failures) == 3
    assert given[0] > 0
    assert max(given[1:]) <= 0.05


def test_a_failing_wait_is_a_failure(ledger: Ledger) -> None:
    ledger.record("thing", "a", lambda: Pending(lambda _: str(1 / 0)))
    assert [failure.reason for failure in ledger.undo_all(1)] == ["ZeroDivisionError: division by zero"]


def test_what_an_undo_registers_is_undone_as_well(ledger: Ledger) -> None:
    done: list[Any] = []
    ledger.record("thing", "a", lambda: ledger.record("thing", "b", lambda: done.append("b")))
    ledger.undo_all(1)
    assert done == ["b"]


def test_a_biz_that_registers_without_end_is_cut_off(ledger: Ledger) -> None:
    def again() -> Any:
        ledger.record("thing", "again", again)

    again()
    ledger.undo_all(1)
    assert len(ledger) == 1


def test_undo_runs_as_the_base(ledger: Ledger) -> None:
    seen = []
    with entered(ledger.scope):
        ledger.record("thing", "a", lambda: seen.append(current()))
        ledger.undo_all(1)
    assert seen == [None]


def test_nothing_left_to_undo_is_not_counted(ledger: Ledger) -> None:
    ledger.record("thing", "a", lambda: NOTHING)
    ledger.undo_all(1)
    assert ledger.undone == {}


def test_time_is_unlimited_unless_an_undo_runs(ledger: Ledger) -> None:
    seen = []
    ledger.record("thing", "a", lambda: seen.append(ledger.remaining_s()))
    assert ledger.remaining_s() == float("inf")
    ledger.undo_all(3)
    assert 0 < seen[0] <= 3
    assert ledger.remaining_s() == float("inf")


def test_the_owner_is_the_ledger_of_the_running_biz_until_its_scope_closes(ledger: Ledger) -> None:
    assert owner() is None
    with entered(ledger.scope):
        assert owner() is ledger
        with as_base():
            assert owner() is None
        ledger.scope.close()
        assert owner() is None


def test_a_ledger_says_what_it_holds(ledger: Ledger) -> None:
    ledger.record("codec", "a", print)
    ledger.record("atexit", "b", print)
    assert repr(ledger) == "<Ledger tiny:1.0 2 entries: atexit, codec>"


PATCHED = [
    (threading.Thread, "start"),
    (concurrent.futures.ThreadPoolExecutor, "submit"),
    (concurrent.futures.ThreadPoolExecutor, "__init__"),
    (atexit, "register"),
    (codecs, "register"),
    (logging.Logger, "addHandler"),
    (logging.Logger, "removeHandler"),
]


def test_the_last_removal_puts_back_the_very_same_functions() -> None:
    RECORDING.release()  # the fixture's
    originals = [vars(holder)[name] for holder, name in PATCHED]
    inherited = "addFilter" in vars(logging.Logger)
    RECORDING.acquire()
    RECORDING.acquire()
    assert all(vars(holder)[name] is not before for (holder, name), before in zip(PATCHED, originals, strict=True))
    RECORDING.release()
    assert vars(threading.Thread)["start"] is not originals[0]
    RECORDING.release()
    assert [vars(holder)[name] for holder, name in PATCHED] == originals
    assert ("addFilter" in vars(logging.Logger)) is inherited
    with pytest.raises(RuntimeError, match="no recorders"):
        RECORDING.release()
    RECORDING.acquire()


class Patched:
    def call(self: Any) -> Any:
        return ["original"]


def wrap(original: Any) -> Any:
    def call(self: Any) -> Any:
        return [*original(self), "ours"]

    return call


def test_a_function_somebody_replaced_after_us_stays_theirs_and_is_wrapped_once() -> None:
    patches = Patches()
    patches.replace(Patched, "call", wrap)
    ours = Patched.call

    def theirs(self: Any) -> Any:
        return [*ours(self), "theirs"]

    original = Patched.call
    setattr(Patched, "call", theirs)  # noqa: B010 - mypy refuses the assignment
    try:
        patches.restore()
        assert Patched.call is theirs
        patches.replace(Patched, "call", wrap)
        assert Patched().call() == ["original", "ours", "theirs"]
    finally:
        setattr(Patched, "call", original)  # noqa: B010
        patches.restore()
    assert Patched().call() == ["original"]


def test_an_attribute_of_an_instance_is_removed_again() -> None:
    patches = Patches()
    thing = Patched()
    patches.replace(thing, "call", lambda original: lambda: [*original(), "instance"])
    assert thing.call() == ["original", "instance"]
    patches.restore()
    assert vars(thing) == {}


def test_an_attribute_that_does_not_exist_is_skipped() -> None:
    patches = Patches()
    patches.replace(Patched, "absent", lambda original: original)
    assert not hasattr(Patched, "absent")


def test_a_module_that_is_imported_later_is_followed_from_its_first_import_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "row_late.py").write_text("def register(thing): return thing\n")
    monkeypatch.syspath_prepend(tmp_path)
    before = list(sys.meta_path)
    patches = Patches()

    def follow(own: Patches, module: Any) -> None:
        own.replace(module, "register", lambda original: lambda thing: ("followed", original(thing)))

    patches.when_imported("row_late", follow)
    patches.when_imported("row_never", follow)
    here: list[str] = []
    patches.when_imported("importlib", lambda _, module: here.append(module.__name__))
    try:
        late = importlib.import_module("row_late")
        assert late.register(1) == ("followed", 1)
        assert type(late.__loader__).__name__ == "SourceFileLoader"
        assert "exec_module" not in vars(late.__loader__)
        assert importlib.reload(late).register(1) == 1
    finally:
        patches.restore()
        sys.modules.pop("row_late", None)
    assert here == ["importlib"]
    assert sys.meta_path == before


def test_a_stop_hook_that_nobody_would_call_is_refused(ledger: Ledger) -> None:
    called: list[str] = []
    ledger.scope.add_stop_hook(lambda: called.append("first"))
    ledger.scope.add_stop_hook(lambda: called.append("last"))
    for hook in ledger.scope.take_stop_hooks():
        hook()
    assert called == ["last", "first"]
    assert ledger.scope.take_stop_hooks() == []
    with pytest.raises(RuntimeError, match="is stopping"):
        ledger.scope.add_stop_hook(called.clear)
    ledger.scope.close()
    with pytest.raises(RuntimeError, match="was uninstalled"):
        ledger.scope.add_stop_hook(called.clear)


def test_a_look_that_fails_when_a_biz_leaves_is_reported_and_keeps_nothing_from_being_undone(ledger: Ledger) -> None:
    def look(ledger: Ledger) -> None:
        raise RuntimeError("set changed size")

    done: list[int] = []
    patches = Patches()
    patches.when_leaving(look)
    try:
        ledger.record("x", "1", lambda: done.append(1))
        (failure,) = ledger.undo_all(1.0)
    finally:
        patches.restore()
    assert done == [1]
    assert "set changed size" in str(failure)
    assert ledger.undo_all(1.0) == ()
