"""Recorders for threads and timers; threads started by a biz run as the biz.

A thread cannot be killed. Threads with a way to stop are stopped (timers, process pools, listeners, servers, event
loops), then all are joined within the deadline. Threads that go on are asked, woken and interrupted meanwhile
(``ending``), and a survivor is reported by name with the place in the code where the thread runs.
"""

from __future__ import annotations

import _thread
import concurrent.futures
import concurrent.futures.thread as pools
import functools
import math
import sys
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any, Final

from koupleless.context import as_base, call_as, current, life_context
from koupleless.frames import is_ours, standing_for
from koupleless.ownership.kinds import Kind
from koupleless.ownership.ledger import Entry, Ledger, Order, Pending
from koupleless.recorders.names import name_of
from koupleless.recorders.running.ending import DAEMONS_S, Ending
from koupleless.recorders.running.once import is_thread_of_process
from koupleless.traffic import Traffic

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from koupleless.context import Scope
    from koupleless.ownership.recording import Patches

_Wrapped = Any

# The attribute of a thread that holds the number of the life of the biz that started the thread.
_STARTER: Final = "_koupleless_starter"

_TIMERS: Final = Kind("timer", "threading.Timer.start", "cancelled and joined", order=Order.TIMERS)
_PROCESS_POOLS: Final = Kind("executor", "ProcessPoolExecutor.submit", "shut down and joined", order=Order.EXECUTORS)
_THREADS: Final = Kind("thread", "threading.Thread.start", "asked to stop, ended by force", order=Order.THREADS)
_DAEMONS: Final = Kind("thread", "threading.Thread(daemon=True).start", "as other threads", order=Order.DAEMONS)
_BARE_THREADS: Final = Kind("thread", "_thread.start_new_thread", "as other threads", order=Order.DAEMONS)
KINDS: Final = (_TIMERS, _PROCESS_POOLS, _THREADS, _DAEMONS, _BARE_THREADS)


def install(patches: Patches) -> None:
    """Replace the functions that start threads or take work for threads."""
    patches.replace(threading.Thread, "start", _thread_start)
    patches.replace(threading, "enumerate", _enumerate)
    for name in ("active_count", "activeCount"):
        patches.replace(threading, name, _active_count)
    patches.replace(_thread, "start_new_thread", _start_new_thread)
    patches.replace(_thread, "start_new", _start_new_thread)
    patches.replace(time, "sleep", _sleep)


# --- threads --------------------------------------------------------------------------------------------------------


def _thread_start(original: Callable[[threading.Thread], None]) -> _Wrapped:
    @standing_for(original)
    def start(self: threading.Thread) -> None:
        scope = current()
        if scope is None:
            return original(self)
        ledger = scope.find_facet(Ledger)
        if ledger is None or _is_shared_worker(self) or _is_of_debugger(self) or is_thread_of_process(target_of(self)):
            with as_base():
                return original(self)
        vars(self)[_STARTER] = scope.generation
        entry = None if target_of(self) is pools._worker else _record_thread(ledger, self)  # noqa: SLF001
        # The one function that every thread calls in its own context, before `run` and around the excepthook. The
        # attribute belongs to this thread alone: threads of the base are not touched.
        vars(self)["_bootstrap_inner"] = functools.partial(_boot, self, scope, ledger, entry)
        if vars(self).get("_context", self) is None:
            vars(self)["_context"] = life_context(scope)  # from 3.14 on, `run` is called in this context
        try:
            return original(self)
        except BaseException:
            vars(self).pop("_bootstrap_inner", None)
            if entry is not None:
                ledger.forget(entry)
            raise

    return start


def _enumerate(original: Callable[[], list[threading.Thread]]) -> _Wrapped:
    """``threading.enumerate``: a biz sees the threads of its own program, and so waits for no others."""

    @standing_for(original)
    def enumerate() -> list[threading.Thread]:  # noqa: A001 - the name of the original
        found, scope = original(), current()
        if scope is None or scope.find_facet(Ledger) is None:
            return found
        always = (threading.main_thread(), threading.current_thread())
        return [thread for thread in found if thread in always or vars(thread).get(_STARTER) == scope.generation]

    return enumerate


def _active_count(original: Callable[[], int]) -> _Wrapped:
    @standing_for(original)
    def active_count() -> int:
        return original() if current() is None else len(threading.enumerate())

    return active_count


def _boot(thread: threading.Thread, scope: Scope, ledger: Ledger, entry: Entry | None) -> None:
    del vars(thread)["_bootstrap_inner"]
    _here.is_own = True
    try:
        call_as(scope, thread._bootstrap_inner)  # type: ignore[attr-defined]  # noqa: SLF001
    finally:
        _note_time(scope)
        if entry is not None:
            ledger.forget(entry)


def _note_time(scope: Scope) -> None:
    """Note the processor time of this thread, which ends."""
    traffic = scope.find_facet(Traffic)
    if traffic is not None:
        traffic.meter.add_work(time.thread_time())


def _is_shared_worker(thread: threading.Thread) -> bool:
    # anyio keeps one set of workers for each loop, started by the first user; each work item brings its context.
    if not _is_worker_of_anyio(thread):
        return False
    kind = type(thread)
    with as_base():
        home = sys.modules.get(kind.__module__)
    return getattr(home, "WorkerThread", None) is kind


def _is_worker_of_anyio(thread: threading.Thread) -> bool:
    kind = type(thread)
    return kind.__name__ == "WorkerThread" and kind.__module__.startswith("anyio.")


def _is_of_debugger(thread: threading.Thread) -> bool:
    # pydevd, inside debugpy and PyCharm, starts a helper on the thread that is stopped at the first need. The helper
    # serves the whole process and never ends. The mark is the attribute that pydevd itself goes by.
    return bool(getattr(thread, "is_pydev_daemon_thread", False)) and "pydevd" in type(thread).__module__


def target_of(thread: threading.Thread) -> object:
    """Return the function that a thread runs; ``None`` once the thread has dropped the function."""
    return getattr(thread, "_target", None)


def record_guest(ledger: Ledger, thread: threading.Thread) -> Entry:
    """Record a thread of the base that is inside code of a biz for longer than it should; the entry ends the thread."""
    return _DAEMONS.record(
        ledger, repr(thread.name), functools.partial(_end_thread, ledger.scope, thread, patience_s=DAEMONS_S)
    )


def leave_to(scope: Scope | None, thread: threading.Thread) -> None:
    """Let a thread of the base that is still inside code of a biz be ended when the biz leaves; nothing without one."""
    ledger = None if scope is None else scope.find_facet(Ledger)
    if ledger is not None and thread.is_alive():
        record_guest(ledger, thread)


def life_of(thread: threading.Thread) -> int | None:
    """The number of the life that has started a thread; ``None`` for a thread of the base."""
    return vars(thread).get(_STARTER)


def _record_thread(ledger: Ledger, thread: threading.Thread) -> Entry:
    if isinstance(thread, threading.Timer):
        kind = _TIMERS
    elif type(thread).__name__ == "_ExecutorManagerThread":
        kind = _PROCESS_POOLS
    else:
        kind = _DAEMONS if thread.daemon else _THREADS
    name = f"{thread.name!r}{' (daemon)' * thread.daemon}"
    return kind.record(ledger, name, functools.partial(_end_thread, ledger.scope, thread))


def _end_thread(scope: Scope, thread: threading.Thread, *, patience_s: float | None = None) -> Pending:
    ask_to_stop(thread)
    if patience_s is None:
        # A thread that is no daemon has work to finish: a program waits for such a thread, and so do we for a while.
        patience_s = DAEMONS_S if thread.daemon else math.inf
    force = Ending(scope, (thread,), target_of(thread), patience_s=patience_s)
    return Pending(functools.partial(_join, thread), force=force)


def _join(thread: threading.Thread, timeout_s: float) -> str | None:
    ends = time.monotonic() + timeout_s
    started: threading.Event = thread._started  # type: ignore[attr-defined]  # noqa: SLF001 - it may be just starting
    if not started.wait(timeout_s):
        return None
    thread.join(max(0.0, ends - time.monotonic()))
    if not thread.is_alive():
        return None
    leave_behind(thread)
    return f"still runs {where(thread.ident)}"


def leave_behind(thread: threading.Thread) -> None:
    """Let the process end without a thread that never ends: the interpreter would wait at exit, for ever."""
    inner: Any = pools
    inner._threads_queues.pop(thread, None)  # noqa: SLF001 - the workers that are awaited at exit
    lock: object = getattr(thread, "_tstate_lock", None)
    if thread.daemon:
        return
    inner = threading
    if lock is not None:  # up to 3.12
        inner._shutdown_locks.discard(lock)  # noqa: SLF001
    elif hasattr(threading, "_thread_shutdown"):  # from 3.13 on, where the list is out of reach
        _left_behind.add(thread)
        inner._thread_shutdown = _await_others  # noqa: SLF001


_left_behind: Final[weakref.WeakSet[threading.Thread]] = weakref.WeakSet()


def leave_shared_workers_behind() -> None:
    """Let the process end without the busy workers of an event loop: called at the end of the process."""
    for thread in threading.enumerate():
        if _is_shared_worker(thread):
            leave_behind(thread)


def pass_for_main_thread() -> None:
    """Let threads started on this thread be no daemons by default, as on the main thread.

    For the interpreter, this thread stays a daemon, as set at the start of the thread. Long sleeps can be ended here.
    """
    _here.is_own = True
    thread = threading.current_thread()
    thread._daemonic = False  # type: ignore[attr-defined]  # noqa: SLF001 - the public setter is for before its start
    _left_behind.add(thread)


def _await_others() -> None:
    """Wait at exit for all threads except daemons and threads left behind."""
    while others := [
        thread
        for thread in threading.enumerate()
        if not thread.daemon and thread not in _left_behind and thread is not threading.current_thread()
    ]:
        for thread in others:
            thread.join()


def ask_to_stop(thread: threading.Thread) -> None:
    """Stop a thread through the convention of the object run by the thread, if there is one; never waits.

    Known are timers, process pools, workers of anyio, ``logging`` queue listeners, ``socketserver`` servers and event
    loops.
    """
    if isinstance(thread, threading.Timer):
        thread.cancel()
        return
    if type(thread).__name__ == "_ExecutorManagerThread":
        executor = thread.executor_reference()  # type: ignore[attr-defined]
        if executor is not None:
            _shut_down(executor)
        return
    if _is_worker_of_anyio(thread):
        worker: Any = thread
        worker.root_task.remove_done_callback(worker.stop)  # the server's task, which would keep the worker
        worker.stop()
        return
    target = target_of(thread)
    runs: Any = getattr(target, "__self__", None)
    verb = getattr(target, "__name__", "")
    if verb == "serve_forever" and hasattr(runs, "_BaseServer__shutdown_request"):
        runs._BaseServer__shutdown_request = True  # noqa: SLF001 - its shutdown() would wait without a deadline
    elif verb == "_monitor" and hasattr(runs, "enqueue_sentinel"):
        runs.enqueue_sentinel()
    elif verb in ("run_forever", "run_until_complete") and hasattr(runs, "call_soon_threadsafe"):
        runs.call_soon_threadsafe(runs.stop)


def _shut_down(executor: Any) -> None:
    """Let a process pool take no more work and end after the running calls; waiting calls are cancelled."""
    if isinstance(executor, concurrent.futures.ProcessPoolExecutor):
        executor.shutdown(wait=False, cancel_futures=True)
        return
    for item in list(getattr(executor, "_pending_work_items", {}).values()):  # loky has no argument for cancelling
        item.future.cancel()
    executor.shutdown(wait=False)


def where(ident: int | None) -> str:
    """Say in words where a thread runs: the innermost frames, innermost first."""
    frame: FrameType | None = sys._current_frames().get(ident or 0)  # noqa: SLF001 - the documented way
    places: list[str] = []
    while frame is not None and len(places) < 4:  # noqa: PLR2004 - enough to find the line, short enough to read
        code = frame.f_code
        if not places or (code.co_filename != threading.__file__ and not is_ours(frame)):
            places.append(f"{code.co_filename}:{frame.f_lineno} in {code.co_name}")
        frame = frame.f_back
    return "at " + ", called from ".join(places) if places else "outside Python code"


def _start_new_thread(original: Callable[..., int]) -> _Wrapped:
    @standing_for(original)
    def start_new_thread(function: Callable[..., object], /, *args: Any) -> int:
        scope = current()
        ledger = None if scope is None else scope.find_facet(Ledger)
        if scope is None or ledger is None or not callable(function):
            return original(function, *args)
        bare = _BareThread(function, scope, ledger)
        try:
            return original(bare, *args)
        except BaseException:
            bare.forget()
            raise

    return start_new_thread


class _BareThread:
    """Thread of ``_thread``, for which Python has no object to join: this object knows when the thread has ended."""

    def __init__(self, function: Callable[..., object], scope: Scope, ledger: Ledger) -> None:
        self._function = function
        self._scope = scope
        self._ledger = ledger
        self._ended = threading.Event()
        self._ident: int | None = None
        self._entry = _BARE_THREADS.record(ledger, name_of(function), self._end)

    def __call__(self, *args: Any, **kwargs: Any) -> None:
        self._ident = threading.get_ident()
        _here.is_own = True
        try:
            call_as(self._scope, self._function, *args, **kwargs)
        finally:
            _note_time(self._scope)
            self.forget()

    def forget(self) -> None:
        del self._function
        self._ledger.forget(self._entry)
        self._ended.set()

    @property
    def ident(self) -> int | None:
        """Number of the thread; ``None`` before the start."""
        return self._ident

    def is_alive(self) -> bool:
        """Tell whether the function of the thread has not returned."""
        return not self._ended.is_set()

    def join(self, timeout: float | None = None) -> None:
        """Wait for the end of the function, at most ``timeout`` seconds if given."""
        self._ended.wait(timeout)

    def _end(self) -> Pending:
        return Pending(self._wait, force=Ending(self._scope, (self,), getattr(self, "_function", None)))

    def _wait(self, timeout_s: float) -> str | None:
        return None if self._ended.wait(timeout_s) else f"still runs {where(self._ident)}"


class _Here(threading.local):
    is_own = False
    """Whether a biz has started the thread."""


_here: Final = _Here()
_LONG_S: Final = 0.25
"""Seconds from which on a sleep can be ended: a shorter sleep is over before an uninstall asks for the end."""


def _sleep(original: Callable[[float], None]) -> _Wrapped:
    """``time.sleep``: on a thread of a biz, a wait that can be ended; Python's own sleep would keep the biz alive."""

    @standing_for(original)
    def sleep(seconds: float, /) -> None:
        if not _here.is_own or type(seconds) not in _NUMBERS or not _LONG_S <= seconds <= threading.TIMEOUT_MAX:
            original(seconds)
        else:
            threading.Event().wait(seconds)

    return sleep


_NUMBERS: Final = (int, float)
