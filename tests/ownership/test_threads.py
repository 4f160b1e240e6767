from __future__ import annotations

import _thread
import concurrent.futures
import logging.handlers
import queue
import socketserver
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from tests.conftest import until

from koupleless.context import current, entered

if TYPE_CHECKING:
    from tests.ownership.conftest import LoopThread, MakeBiz, TinyBiz


def test_a_thread_started_by_a_biz_runs_as_that_biz_and_is_forgotten_when_it_ends(biz: TinyBiz) -> None:
    seen: list[Any] = []
    module = biz.run(
        "thread = threading.Thread(target=lambda: seen.append(current()))\nthread.start()\nthread.join()",
        threading=threading,
        seen=seen,
        current=current,
    )
    assert seen == [biz.scope]
    assert len(biz.ledger) == 0
    assert "_bootstrap_inner" not in vars(module.thread)


class PollerCompletionQueue:
    """A queue of ``grpc.aio``, as older releases have compiled it: its methods say nothing of their module."""

    __module__ = "grpc._cython.cygrpc"

    class _poll_wrapper:  # noqa: N801
        __name__ = "_poll_wrapper"
        __module__ = None  # type: ignore[assignment]

        def __init__(self, queue: PollerCompletionQueue, ended: threading.Event) -> None:
            self.__self__ = queue
            self.__name__ = "_poll_wrapper"
            self._ended = ended

        def __call__(self) -> None:
            self._ended.wait()


def test_a_thread_that_a_library_has_for_all_its_users_goes_on(biz: TinyBiz) -> None:
    ended = threading.Event()
    target = PollerCompletionQueue._poll_wrapper(PollerCompletionQueue(), ended)
    thread = threading.Thread(target=target, daemon=True)
    biz.run("thread.start()", thread=thread)
    assert biz.leave(0.3).clean
    assert thread.is_alive()
    ended.set()
    thread.join(10)


def test_a_subclass_that_overrides_run_is_carried_too(biz: TinyBiz) -> None:
    seen: list[Any] = []
    biz.run(
        """
        class Own(threading.Thread):
            def run(self):
                seen.append(current())
        thread = Own()
        thread.start()
        thread.join()
        """,
        threading=threading,
        seen=seen,
        current=current,
    )
    assert seen == [biz.scope]
    report = biz.leave()
    assert report.clean, report


def test_a_thread_of_the_base_is_not_touched(biz: TinyBiz) -> None:
    seen: list[Any] = []
    thread = threading.Thread(target=lambda: seen.append(current()))
    thread.start()
    thread.join()
    assert seen == [None]
    assert len(biz.ledger) == 0


def test_the_excepthook_of_a_thread_runs_as_its_biz(biz: TinyBiz, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", lambda args: seen.append((current(), args.exc_type)))
    biz.run("t = threading.Thread(target=lambda: 1 / 0)\nt.start()\nt.join()", threading=threading)
    assert seen == [(biz.scope, ZeroDivisionError)]


@pytest.mark.parametrize("daemon", [False, True])
def test_a_thread_that_ends_in_time_is_awaited(biz: TinyBiz, daemon: bool) -> None:
    release = threading.Event()
    biz.run(
        "threading.Thread(target=lambda: (release.wait(10), reach()), daemon=daemon).start()",
        threading=threading,
        release=release,
        daemon=daemon,
    )
    threading.Timer(0.1, release.set).start()
    report = biz.leave()
    assert report.clean, report
    assert report.undone == {"thread": 1}


def test_a_stuck_thread_is_reported_by_name_and_place_within_the_deadline(biz: TinyBiz) -> None:
    release: queue.SimpleQueue[None] = queue.SimpleQueue()  # in C code, where nothing reaches it
    module = biz.run(
        """
        def stuck():
            release.get(timeout=30)
        thread = threading.Thread(target=stuck, name="poller", daemon=True)
        thread.start()
        """,
        name="shop",
        threading=threading,
        release=release,
    )
    thread = module.thread
    del module
    started = time.monotonic()
    report = biz.leave(0.2)
    assert time.monotonic() - started < 25  # the thread would wait for 30
    assert not report.clean
    (failure,) = report.failures
    assert failure.startswith("thread 'poller' (daemon): still runs at ")
    assert "/biz/shop.py:" in failure
    assert "in stuck" in failure
    assert report.held[0].name == "shop"
    assert report.held[0].holders[0].startswith("thread 'poller' running stuck at /biz/shop.py:")
    release.put(None)
    thread.join()


def test_a_daemon_thread_that_an_exit_function_stops_is_no_survivor(biz: TinyBiz) -> None:
    biz.run(
        """
        stop = threading.Event()
        threading.Thread(target=stop.wait, daemon=True).start()
        atexit.register(stop.set)
        """,
        threading=threading,
        atexit=sys.modules["atexit"],
    )
    report = biz.leave()
    assert report.clean, report
    assert report.undone["atexit"] == 1


def test_a_timer_is_cancelled(biz: TinyBiz) -> None:
    called: list[Any] = []
    biz.run("threading.Timer(60, lambda: called.append(reach())).start()", threading=threading, called=called)
    report = biz.leave()
    assert report.clean, report
    assert report.undone == {"timer": 1}
    assert not called


def test_a_thread_that_cannot_start_leaves_no_entry(biz: TinyBiz, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("can't start new thread")

    name = "_start_joinable_thread" if hasattr(threading, "_start_joinable_thread") else "_start_new_thread"
    with monkeypatch.context() as patch:
        patch.setattr(threading, name, refuse)
        thread = threading.Thread(target=print)
        with entered(biz.scope), pytest.raises(RuntimeError, match="can't start"):
            thread.start()
    assert len(biz.ledger) == 0
    assert "_bootstrap_inner" not in vars(thread)


def test_a_thread_of_the_low_level_module_is_carried_and_awaited(biz: TinyBiz) -> None:
    seen: queue.Queue[Any] = queue.Queue()
    release: queue.SimpleQueue[None] = queue.SimpleQueue()
    before = _thread._count()
    biz.run(
        "_thread.start_new_thread(lambda x: (seen.put((current(), x)), release.get(timeout=10)), (5,))",
        _thread=_thread,
        seen=seen,
        current=current,
        release=release,
    )
    assert seen.get(timeout=5) == (biz.scope, 5)
    assert [str(failure).split(" at ")[0] for failure in biz.undo(0.05)] == ["thread <lambda>: still runs"]
    release.put(None)
    biz.failures = ()
    until(lambda: _thread._count() == before)
    report = biz.leave()
    assert report.held == (), report


def test_a_queue_listener_is_asked_to_stop(biz: TinyBiz) -> None:
    biz.run(
        "listener = handlers.QueueListener(queue.Queue())\nlistener.start()",
        handlers=logging.handlers,
        queue=queue,
    )
    report = biz.leave()
    assert report.clean, report


def test_a_socket_server_is_asked_to_stop(biz: TinyBiz) -> None:
    module = biz.run(
        """
        class Handler(socketserver.BaseRequestHandler):
            handle = reach
        server = socketserver.TCPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, args=(0.01,)).start()
        """,
        socketserver=socketserver,
        threading=threading,
    )
    server = module.server
    assert biz.undo() == ()
    server.server_close()
    del server, module
    report = biz.leave()
    assert report.clean, report


def test_an_event_loop_of_the_biz_is_stopped(biz: TinyBiz) -> None:
    biz.run(
        """
        loop = asyncio.new_event_loop()
        def serve():
            try:
                loop.run_forever()
            finally:
                loop.close()
        threading.Thread(target=loop.run_forever).start()
        atexit.register(loop.close)
        """,
        threading=threading,
        atexit=sys.modules["atexit"],
        asyncio=__import__("asyncio"),
    )
    report = biz.leave()
    assert report.clean, report


# --- executors ------------------------------------------------------------------------------------------------------


def test_work_in_a_shared_executor_runs_as_whoever_submits_it(biz: TinyBiz, make_biz: MakeBiz) -> None:
    other = make_biz("other")
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        seen = []
        for scope in (biz.scope, None, other.scope):
            with entered(scope):
                seen.append(pool.submit(current).result(5))
        assert seen == [biz.scope, None, other.scope]
    assert len(biz.ledger) == 0


def test_a_worker_of_a_shared_executor_does_not_belong_to_the_biz_that_came_first(biz: TinyBiz) -> None:
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        module = biz.run("pool.submit(K).result(5)", pool=pool)
        del module
        report = biz.leave()
        assert report.clean, report
        assert pool.submit(current).result(5) is None


def test_waiting_work_in_a_shared_executor_is_cancelled_and_the_base_s_is_not(biz: TinyBiz) -> None:
    release = threading.Event()
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        busy = pool.submit(release.wait, 10)
        own = pool.submit(int, 7)
        biz.run("pool.submit(reach)", pool=pool)
        assert biz.undo() == ()
        assert dict(biz.ledger.undone) == {"executor task": 1}
        release.set()
        assert busy.result(5)
        assert own.result(5) == 7
        report = biz.leave()
        assert report.clean, report


def test_running_work_in_a_shared_executor_is_reported(biz: TinyBiz) -> None:
    release, running = threading.Event(), threading.Event()
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        biz.run("pool.submit(lambda: (running.set(), release.wait(10)))", pool=pool, running=running, release=release)
        assert running.wait(5)
        (failure,) = biz.undo(0.05)
        assert str(failure) == "executor task <lambda>: still runs in an executor of the base"
        release.set()


def test_an_executor_made_by_a_biz_is_shut_down(biz: TinyBiz) -> None:
    seen: list[Any] = []
    biz.run(
        """
        pool = futures.ThreadPoolExecutor(2, initializer=lambda: seen.append(current()))
        pool.submit(reach).result()
        """,
        futures=concurrent.futures,
        seen=seen,
        current=current,
    )
    assert seen == [biz.scope]
    report = biz.leave()
    assert report.clean, report
    assert report.undone == {"executor": 1}


def test_a_worker_started_for_the_base_in_a_biz_s_executor_runs_as_the_biz(biz: TinyBiz) -> None:
    seen: list[Any] = []
    module = biz.run(
        "pool = futures.ThreadPoolExecutor(1, initializer=lambda: seen.append(current()))",
        futures=concurrent.futures,
        seen=seen,
        current=current,
    )
    assert module.pool.submit(current).result(5) is None
    assert seen == [biz.scope]
    del module
    report = biz.leave()
    assert report.clean, report


def test_a_busy_executor_is_reported_with_the_place_of_its_thread(biz: TinyBiz) -> None:
    release, running = queue.SimpleQueue[None](), threading.Event()
    module = biz.run(
        """
        def grind():
            running.set()
            release.get(timeout=10)
        pool = futures.ThreadPoolExecutor(1, "grinders")
        pool.submit(grind)
        """,
        futures=concurrent.futures,
        release=release,
        running=running,
    )
    pool = module.pool
    del module
    assert running.wait(5)
    (failure,) = biz.undo(0.05)
    assert str(failure).startswith("executor 'grinders': thread 'grinders_0' still runs at ")
    assert "in grind" in str(failure)
    release.put(None)
    pool.shutdown()


def test_an_executor_that_is_dropped_is_forgotten(biz: TinyBiz) -> None:
    biz.run("futures.ThreadPoolExecutor(1)", futures=concurrent.futures)
    assert len(biz.ledger) == 0


def test_the_base_s_executor_goes_on_when_a_biz_leaves(biz: TinyBiz) -> None:
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        biz.run("pool.submit(reach)", pool=pool)
        biz.leave()
        assert pool.submit(int, 3).result(5) == 3


def test_a_shared_anyio_worker_is_the_base_s(biz: TinyBiz, loop: LoopThread) -> None:
    import anyio.to_thread

    async def work() -> Any:
        return await anyio.to_thread.run_sync(current)

    assert loop.run(work, scope=biz.scope) is biz.scope
    assert loop.run(work) is None
    report = biz.leave()
    assert report.clean, report
    assert loop.run(work) is None


def test_a_sleep_on_a_thread_of_a_biz_is_as_long_and_as_strict(biz: TinyBiz) -> None:
    seen: list[Any] = []
    biz.run(
        """
        def work():
            for seconds in (0.01, 0.3, True):
                begun = time.monotonic()
                seen.append((time.sleep(seconds), time.monotonic() - begun >= seconds))
            for wrong in (-1, 1e300, float("nan"), "1", None):
                try:
                    time.sleep(wrong)
                except Exception as error:
                    seen.append(type(error))
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        """,
        threading=threading,
        time=time,
        seen=seen,
    )
    assert seen == [(None, True)] * 3 + [ValueError, OverflowError, ValueError, TypeError, TypeError]


def test_a_biz_counts_its_own_threads(biz: TinyBiz, make_biz: MakeBiz) -> None:
    """A program that awaits all threads before it ends, as CherryPy does, does not wait for those of others."""
    names = "[thread.name for thread in threading.enumerate()], threading.active_count()"
    source = f"""
        def work(release):
            seen.append(({names}))
            release.wait(10)
        def start(name, release):
            threading.Thread(target=work, args=(release,), name=name).start()
    """
    seen: list[Any] = []
    release = threading.Event()
    of_base = threading.Thread(target=release.wait, args=(10,), name="of the base")
    of_base.start()
    for one, name in ((biz, "one"), (make_biz("other"), "other")):
        module = one.run(source, threading=threading, seen=seen)
        with entered(one.scope):
            module.start(name, release)
    try:
        until(lambda: len(seen) == 2)
        assert seen == [(["MainThread", "one"], 2), (["MainThread", "other"], 2)]
        assert "of the base" in [thread.name for thread in threading.enumerate()]
        with entered(biz.scope):
            assert {thread.name for thread in threading.enumerate()} == {"MainThread", "one"}
    finally:
        release.set()
        of_base.join()


def test_who_has_an_executor_is_asked_before_that_is_shut_down(biz: TinyBiz) -> None:
    refused: list[object] = []
    module = biz.run(
        """
        class Scheduler:
            def __init__(self):
                self.stopping = threading.Event()
                self.submitting = threading.Lock()
                self.executors = {"default": concurrent.futures.ThreadPoolExecutor(1)}
                self.thread = threading.Thread(target=self.run, daemon=True)
                self.thread.start()
            def run(self):
                while not self.stopping.wait(0.01):
                    with self.submitting:
                        if self.stopping.is_set():  # a wait that timed out may be told late of a stop
                            return
                        try:
                            self.executors["default"].submit(reach).result()
                        except Exception as error:
                            refused.append(type(error))
            def shutdown(self, wait=True):
                with self.submitting:
                    self.stopping.set()
                self.executors["default"].shutdown(wait)
        scheduler = Scheduler()
        """,
        threading=threading,
        concurrent=concurrent,
        refused=refused,
    )
    assert module.scheduler.thread.is_alive()
    del module
    report = biz.leave(3.0)
    assert report.clean, report.summary()
    assert refused == []
    assert any("was stopped by Scheduler.shutdown" in ended for ended in report.ended), report.ended
