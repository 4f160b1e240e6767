"""Threads that nobody stops: how each is ended, which are let be, and what the report says."""

from __future__ import annotations

import _thread
import asyncio
import concurrent.futures
import queue
import socket
import sys
import textwrap
import threading
import time
import types
from typing import TYPE_CHECKING, Any

import pytest
import uvloop

from koupleless.recorders.running.ending import ThreadEnded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.ownership.conftest import MakeBiz, TinyBiz

    from koupleless.ownership.purge import PurgeReport

GIVEN: dict[str, Any] = {
    "_thread": _thread,
    "asyncio": asyncio,
    "futures": concurrent.futures,
    "queue": queue,
    "socket": socket,
    "threading": threading,
    "time": time,
    "uvloop": uvloop,
}

START = "\nthread = threading.Thread(target=work, name='worker', daemon=True)\nthread.start()\n"

ASKED = {
    "an event that is a local": (
        (
            "def work(stopping):\n    reach()\n    while not stopping.wait(60):\n        pass\n"
            "threading.Thread(target=work, args=(threading.Event(),), daemon=True).start()"
        ),
        "ended when the event 'stopping' of the thread was set",
    ),
    "an event that is an attribute": (
        """
        class Worker:
            def __init__(self):
                self._shutdown = threading.Event()
            def run(self):
                while not self._shutdown.is_set():
                    time.sleep(0.01)
        threading.Thread(target=Worker().run, daemon=True).start()
        """,
        "ended when the event '_shutdown' of the thread was set",
    ),
    "an event that is a global": (
        f"quitting = threading.Event()\ndef work():\n    quitting.wait(){START}",
        "ended when the event 'quitting' of the thread was set",
    ),
    "an event that is waited for": (
        "threading.Thread(target=threading.Event().wait, daemon=True).start()",
        "ended when the event of the thread was set",
    ),
    "a queue of which None is the end": (
        f"def work():\n    jobs = queue.Queue()\n    while (job := jobs.get()) is not None:\n        job(){START}",
        "ended when the queue of the thread was ended",
    ),
    "a queue that is read until None": (
        f"jobs = queue.Queue()\ndef work():\n    for job in iter(jobs.get, None):\n        job(){START}",
        "ended when the queue of the thread was ended",
    ),
    "a queue of which None is the end, asked for later": (
        (
            f"jobs = queue.Queue()\ndef work():\n    while True:\n        job = jobs.get()\n        if job is None:\n"
            f"            break\n        job(){START}"
        ),
        "ended when the queue of the thread was ended",
    ),
    "a simple queue": (
        f"jobs = queue.SimpleQueue()\ndef work():\n    for job in iter(jobs.get, None):\n        job(){START}",
        "ended when the queue of the thread was ended",
    ),
    "an object with a way to stop": (
        """
        class Scheduler:
            is_stopped = False
            def run(self):
                while not self.is_stopped:
                    time.sleep(0.01)
            def shutdown(self, wait=True):
                assert not wait
                self.is_stopped = True
        threading.Thread(target=Scheduler().run, daemon=True).start()
        """,
        "was stopped by Scheduler.shutdown",
    ),
    "a thread with a way to stop": (
        """
        class Poller(threading.Thread):
            is_stopped = False
            def run(self):
                while not self.is_stopped:
                    time.sleep(0.01)
            def stop(self):
                self.is_stopped = True
                self.join()
        Poller(daemon=True).start()
        """,
        "was stopped by Poller.stop",
    ),
    "a loop": (
        f"def work():\n    loop = asyncio.new_event_loop()\n    loop.run_forever()\n    loop.close(){START}",
        "ended when the event loop of the thread was stopped",
    ),
    "a loop of uvloop": (
        f"def work():\n    loop = uvloop.new_event_loop()\n    loop.run_forever()\n    loop.close(){START}",
        "ended when the event loop of the thread was stopped",
    ),
    "asyncio.run": (
        (
            f"async def main():\n    while True:\n        await asyncio.sleep(60)\n"
            f"def work():\n    with contextlib.suppress(asyncio.CancelledError):\n        asyncio.run(main()){START}"
        ),
        "ended when the event loop of the thread was stopped",
    ),
}


@pytest.fixture
def hook(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """What the hook for errors of threads is told: nothing."""
    told: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", told.append)
    yield told
    assert not told


@pytest.mark.usefixtures("hook")
@pytest.mark.parametrize(("source", "how"), ASKED.values(), ids=list(ASKED))
def test_it_is_asked_by_what_it_is_known_by(biz: TinyBiz, source: str, how: str) -> None:
    report = run_and_leave(biz, source)
    assert report.clean, report
    assert [said.partition(") ")[2] for said in report.ended] == [how]
    assert "interrupted" not in report.ended[0]


INTERRUPTED = {
    "sleeps again and again": "def work():\n    while True:\n        time.sleep(0.01)" + START,
    "sleeps for minutes": "def work():\n    time.sleep(600)" + START,
    "sleeps for minutes, of the low-level module": (
        "def work():\n    time.sleep(600)\n_thread.start_new_thread(work, ())"
    ),
    "sleeps for minutes, of a name": "from time import sleep\ndef work():\n    sleep(600.0)" + START,
    "computes": "def work():\n    sum(number for number in iter(int, 1))" + START,
    "waits for a queue": "def work():\n    jobs = queue.Queue()\n    while True:\n        jobs.get()()" + START,
    "waits for an event": "def work():\n    threading.Event().wait()" + START,
    "waits for an event, not for long": "def work():\n    while not threading.Event().wait(0.01):\n        pass"
    + START,
    "waits for a condition": (
        "def work():\n    with threading.Condition() as ready:\n        threading.Condition().__enter__()\n"
        "        condition = threading.Condition()\n        with condition:\n            condition.wait()" + START
    ),
    "waits for a semaphore": "def work():\n    threading.Semaphore(0).acquire()" + START,
    "goes on after errors": (
        "def work():\n    while True:\n        try:\n            time.sleep(0.01)\n            1 / 0\n"
        "        except Exception:\n            pass" + START
    ),
    "is of the low-level module": (
        "def work():\n    while True:\n        time.sleep(0.01)\n_thread.start_new_thread(work, ())"
    ),
    "is no daemon": (
        "def work():\n    while True:\n        time.sleep(0.01)\nthreading.Thread(target=work, name='worker').start()"
    ),
    "is the worker of a pool": (
        "def work():\n    while True:\n        time.sleep(0.01)\n"
        "pool = futures.ThreadPoolExecutor(1)\npool.submit(work)"
    ),
    "waits for a connection": (
        "listener = socket.create_server(('127.0.0.1', 0))\ndef work():\n    listener.accept()" + START
    ),
    "waits for bytes": (
        "left, right = socket.socketpair()\ndef work():\n    with left, right:\n"
        "        while True:\n            left.recv(1)" + START
    ),
    "has a queue, and asks if something else is None": (
        "jobs = queue.Queue()\ndef work():\n    error = None\n    while True:\n        job = jobs.get()\n"
        "        if error is not None:\n            break\n        job()" + START
    ),
    "has a queue whose end is something else": (
        "class End: pass\njobs = queue.Queue()\n"
        "def work():\n    while True:\n        if isinstance(jobs.get(), End):\n            break" + START
    ),
}


@pytest.mark.usefixtures("hook")
@pytest.mark.parametrize("source", INTERRUPTED.values(), ids=list(INTERRUPTED))
def test_it_is_woken_and_interrupted(biz: TinyBiz, source: str) -> None:
    report = run_and_leave(biz, source)
    assert report.clean, report
    (said,) = report.ended
    assert "was interrupted at /biz/" in said
    assert "in work" in said or "in <genexpr>" in said


def test_the_worker_of_a_pool_that_waits_in_the_standard_library_is_interrupted(biz: TinyBiz) -> None:
    source = "pool = futures.ThreadPoolExecutor(1)\npool.submit(threading.Event().wait)"
    report = run_and_leave(biz, source)
    assert report.clean, report
    (said,) = report.ended
    assert "was interrupted at" in said


LET_BE = {
    "catches everything": (
        "def work():\n    while not release.is_set():\n        try:\n            time.sleep(0.01)\n"
        "        except BaseException:\n            pass" + START
    ),
    "waits for a lock of C code": "def work():\n    releasing.get()" + START,
}


@pytest.mark.parametrize("source", LET_BE.values(), ids=list(LET_BE))
def test_one_that_cannot_be_ended_is_left_behind_and_named(biz: TinyBiz, source: str) -> None:
    release, releasing = threading.Event(), queue.SimpleQueue[int]()
    module = biz.run(source, release=release, releasing=releasing, **GIVEN)
    thread = module.thread
    del module
    report = biz.leave(1.0)
    assert not report.ended
    assert [failure.partition(" at ")[0] for failure in report.failures] == ["thread 'worker' (daemon): still runs"]
    release.set()
    releasing.put(0)
    thread.join()


def test_a_thread_in_a_library_that_others_share_is_not_interrupted(
    biz: TinyBiz, library: Callable[[str], types.ModuleType]
) -> None:
    shared = library(
        """
        import threading, time
        lock, ended, seen = threading.Lock(), threading.Event(), []
        def call(function):
            lock.acquire()
            try:
                function()
            except BaseException as error:
                seen.append(error)
            lock.release()
        def poll():
            while not ended.is_set():
                time.sleep(0.005)
        """
    )
    for target in ("shared.poll", "lambda: shared.call(shared.poll)", "lambda: shared.call(lambda: shared.poll())"):
        module = biz.run(
            f"thread = threading.Thread(target={target}, daemon=True)\nthread.start()", shared=shared, **GIVEN
        )
        assert [str(failure).partition(" at ")[0].partition(": ")[2] for failure in biz.undo(0.5)] == ["still runs"]
        shared.ended.set()
        module.thread.join()
        shared.ended.clear()
    assert not biz.ledger.ended
    assert not shared.seen
    assert shared.lock.acquire(blocking=False)


def test_what_is_the_base_s_is_not_stopped_with_it(biz: TinyBiz, library: Callable[[str], types.ModuleType]) -> None:
    shared = library(
        """
        import threading
        class Server:
            ended = threading.Event()
            stopped = 0
            def run(self):
                self.ended.wait(60)
            def stop(self):
                self.stopped += 1
        server = Server()
        """
    )
    module = biz.run(
        "thread = threading.Thread(target=server.run, daemon=True)\nthread.start()", server=shared.server, **GIVEN
    )
    assert biz.undo(0.5) != ()
    shared.server.ended.set()
    module.thread.join()
    assert shared.server.stopped == 0


def test_a_loop_that_a_thread_merely_knows_goes_on(biz: TinyBiz) -> None:
    loop = asyncio.new_event_loop()
    of_base = threading.Thread(target=loop.run_forever)
    of_base.start()
    report = run_and_leave(
        biz, "def work():\n    while loop.is_running():\n        time.sleep(0.01)" + START, loop=loop
    )
    assert report.clean, report
    asyncio.run_coroutine_threadsafe(asyncio.sleep(0), loop).result(5)
    loop.call_soon_threadsafe(loop.stop)
    of_base.join()
    loop.close()


def test_what_it_does_at_its_end_is_awaited(biz: TinyBiz) -> None:
    done: list[str] = []
    source = (
        "def work():\n    try:\n        while True:\n            time.sleep(0.01)\n"
        "    finally:\n        time.sleep(0.3)\n        done.append('all')"
    )
    report = run_and_leave(biz, source + START, done=done)
    assert report.clean, report
    assert done == ["all"]


def test_force_can_be_switched_off(biz: TinyBiz) -> None:
    release = threading.Event()
    module = biz.run(
        "def work():\n    while not release.is_set():\n        time.sleep(0.01)" + START, release=release, **GIVEN
    )
    assert len(biz.ledger.undo_all(0.3, by_force=False)) == 1
    assert not biz.ledger.ended
    release.set()
    module.thread.join()


def test_many_are_ended_side_by_side(biz: TinyBiz) -> None:
    source = (
        "def work():\n    while True:\n        time.sleep(0.01)\n"
        "for number in range(20):\n    threading.Thread(target=work, name=f'worker {number}', daemon=True).start()"
    )
    began = time.monotonic()
    report = run_and_leave(biz, source)
    assert report.clean, report
    assert len(report.ended) == 20
    assert time.monotonic() - began < 8


def test_a_thread_of_another_biz_is_not_ended(biz: TinyBiz, make_biz: MakeBiz) -> None:
    other = make_biz("other")
    release = threading.Event()
    other.run(
        "def work():\n    while not release.is_set():\n        time.sleep(0.01)" + START, release=release, **GIVEN
    )
    report = run_and_leave(biz, "def work():\n    while True:\n        time.sleep(0.01)" + START)
    assert report.clean, report
    release.set()
    assert not other.leave().ended


def test_no_code_takes_the_interruption_for_an_error() -> None:
    assert issubclass(ThreadEnded, SystemExit)
    assert not issubclass(ThreadEnded, Exception)


def run_and_leave(biz: TinyBiz, source: str, **given: Any) -> PurgeReport:
    biz.run("import contextlib\n" + textwrap.dedent(source), **GIVEN, **given)
    return biz.leave(3.0)


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], types.ModuleType]:
    """Make a module of the base, which is no part of the standard library."""

    def make(source: str) -> types.ModuleType:
        module = types.ModuleType("lent_library")
        monkeypatch.setitem(sys.modules, module.__name__, module)
        exec(compile(textwrap.dedent(source), "/base/lent_library.py", "exec"), module.__dict__)
        return module

    return make
