"""Recorders for threads, timers and executors; threads started by a biz run as the biz.

A thread cannot be killed. Threads with a way to stop are stopped (timers, pools, listeners, servers, event loops), then
all are joined within the deadline. Threads that go on are asked, woken and interrupted meanwhile (``ending``), and a
survivor is reported by name with the place in the code where the thread runs.
"""

from __future__ import annotations

import _thread
import asyncio
import concurrent.futures
import concurrent.futures.thread as pools
import functools
import math
import sys
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any, Final

from koupleless.context import as_base, call_as, call_merged, current, entered, life_context
from koupleless.frames import is_ours, leave, passed_over, standing_for
from koupleless.ownership.ledger import NOTHING, Entry, Ledger, Order, Pending, owner
from koupleless.recorders.names import name_of
from koupleless.recorders.running.ending import DAEMONS_S, Ending, holder, reaches
from koupleless.recorders.running.once import is_thread_of_process

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from koupleless.context import Scope
    from koupleless.ownership.recording import Patches

_Wrapped = Any

# The attribute of a pool that holds the scope of the biz that made the pool.
_HOME: Final = "_koupleless_home"
# The attribute of a thread that holds the number of the life of the biz that started the thread.
_STARTER: Final = "_koupleless_starter"


def install(patches: Patches) -> None:
    """Replace the functions that start threads or take work for threads."""
    patches.replace(threading.Thread, "start", _thread_start)
    patches.replace(threading, "enumerate", _enumerate)
    for name in ("active_count", "activeCount"):
        patches.replace(threading, name, _active_count)
    patches.replace(_thread, "start_new_thread", _start_new_thread)
    patches.replace(_thread, "start_new", _start_new_thread)
    patches.replace(pools.ThreadPoolExecutor, "__init__", _pool_init)
    patches.replace(pools.ThreadPoolExecutor, "submit", _pool_submit)
    patches.replace(time, "sleep", _sleep)
    for what in ("trace", "profile"):
        patches.replace(sys, f"set{what}", functools.partial(_set_tracer, what))


# --- threads --------------------------------------------------------------------------------------------------------


def _thread_start(original: Callable[[threading.Thread], None]) -> _Wrapped:
    @standing_for(original)
    def start(self: threading.Thread) -> None:
        scope = current()
        if scope is None:
            return original(self)
        ledger = scope.find_facet(Ledger)
        if ledger is None or _is_shared_worker(self) or _is_of_debugger(self) or is_thread_of_process(_target(self)):
            with as_base():
                return original(self)
        vars(self)[_STARTER] = scope.generation
        entry = None if _target(self) is pools._worker else _record_thread(ledger, self)  # noqa: SLF001
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
        if entry is not None:
            ledger.forget(entry)


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


def _target(thread: threading.Thread) -> object:
    return getattr(thread, "_target", None)


def _record_thread(ledger: Ledger, thread: threading.Thread) -> Entry:
    if isinstance(thread, threading.Timer):
        kind, order = "timer", Order.TIMERS
    elif type(thread).__name__ == "_ExecutorManagerThread":
        kind, order = "executor", Order.EXECUTORS
    else:
        kind, order = "thread", Order.DAEMONS if thread.daemon else Order.THREADS
    name = f"{thread.name!r}{' (daemon)' * thread.daemon}"
    return ledger.record(kind, name, functools.partial(_end_thread, ledger.scope, thread), order=order)


def _end_thread(scope: Scope, thread: threading.Thread) -> Pending:
    ask_to_stop(thread)
    # A thread that is no daemon has work to finish: a program waits for such a thread, and so do we for a while.
    patience_s = DAEMONS_S if thread.daemon else math.inf
    force = Ending(scope, (thread,), _target(thread), patience_s=patience_s)
    return Pending(functools.partial(_join, thread), force=force)


def _join(thread: threading.Thread, timeout_s: float) -> str | None:
    ends = time.monotonic() + timeout_s
    started: threading.Event = thread._started  # type: ignore[attr-defined]  # noqa: SLF001 - it may be just starting
    if not started.wait(timeout_s):
        return None
    thread.join(max(0.0, ends - time.monotonic()))
    if not thread.is_alive():
        return None
    _leave_behind(thread)
    return f"still runs {where(thread.ident)}"


def _leave_behind(thread: threading.Thread) -> None:
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


def leave_workers_behind(pool: pools.ThreadPoolExecutor) -> None:
    """Let the process end without the busy threads of a pool that was shut down."""
    for thread in tuple(pool._threads):  # noqa: SLF001 - the interpreter waits for them, with no deadline
        _leave_behind(thread)


def leave_shared_workers_behind() -> None:
    """Let the process end without the busy workers of an event loop: called at the end of the process."""
    for thread in threading.enumerate():
        if _is_shared_worker(thread):
            _leave_behind(thread)


def pass_for_main_thread() -> None:
    """Let threads started on this thread be no daemons by default, as on the main thread.

    For the interpreter, this thread stays a daemon, as set at the start of the thread.
    """
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
    target = _target(thread)
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
        self._entry = ledger.record("thread", name_of(function), self._end, order=Order.DAEMONS)

    def __call__(self, *args: Any, **kwargs: Any) -> None:
        self._ident = threading.get_ident()
        _here.is_own = True
        try:
            call_as(self._scope, self._function, *args, **kwargs)
        finally:
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


# --- executors ------------------------------------------------------------------------------------------------------


def _pool_init(original: Callable[..., None]) -> _Wrapped:
    @standing_for(original)
    def __init__(self: pools.ThreadPoolExecutor, *args: Any, **kwargs: Any) -> None:  # noqa: N807
        original(self, *args, **kwargs)
        scope = current()
        ledger = None if scope is None else scope.find_facet(Ledger)
        if scope is not None and ledger is not None and _HOME not in vars(self):
            vars(self)[_HOME] = scope
            _record_pool(ledger, self)

    return __init__


def _record_pool(ledger: Ledger, pool: pools.ThreadPoolExecutor) -> None:
    # Weakly: a dropped pool ends by itself, and an entry in the ledger must not prevent the end.
    book = weakref.ref(ledger)

    def gone(_: object) -> None:
        ledger = book()
        if ledger is not None:
            ledger.forget(entry)

    reference = weakref.ref(pool, gone)
    prefix = getattr(pool, "_thread_name_prefix", type(pool).__name__)
    end = functools.partial(_end_pool, ledger.scope, reference)
    entry = ledger.record("executor", f"{prefix!r}", end, order=Order.EXECUTORS)


def _end_pool(
    scope: Scope, reference: weakref.ref[pools.ThreadPoolExecutor], *, may_wait: bool = True
) -> Pending | None:
    pool = reference()
    if pool is None:
        return None
    ledger = scope.find_facet(Ledger)
    if may_wait and ledger is not None and _is_used_by_thread(pool):
        # In the next round: a scheduler, say, is asked to stop first, and may use the executor until then.
        end = functools.partial(_end_pool, scope, reference, may_wait=False)
        ledger.record("executor", "of a thread", end, order=Order.EXECUTORS)
        return NOTHING
    threads = tuple(pool._threads)  # noqa: SLF001 - the only way to join them with a deadline
    pool.shutdown(wait=False, cancel_futures=True)
    return Pending(functools.partial(_join_all, threads), force=Ending(scope, threads, patience_s=math.inf))


def _is_used_by_thread(pool: pools.ThreadPoolExecutor) -> bool:
    """Tell whether a living thread runs a method of an object that reaches the pool through attributes."""
    targets = [(thread, _target(thread)) for thread in threading.enumerate()]
    workers = pools._worker  # noqa: SLF001
    return any(reaches(holder(target) or thread, pool) for thread, target in targets if target is not workers)


def _join_all(threads: tuple[threading.Thread, ...], timeout_s: float) -> str | None:
    ends = time.monotonic() + timeout_s
    for thread in threads:
        thread.join(max(0.0, ends - time.monotonic()))
    left = [thread for thread in threads if thread.is_alive()]
    for thread in left:
        _leave_behind(thread)
    return "; ".join(f"thread {thread.name!r} still runs {where(thread.ident)}" for thread in left) or None


def _pool_submit(original: Callable[..., concurrent.futures.Future[Any]]) -> _Wrapped:
    @standing_for(original)
    def submit(
        self: pools.ThreadPoolExecutor, fn: Callable[..., object], /, *args: Any, **kwargs: Any
    ) -> concurrent.futures.Future[Any]:
        scope = current()
        home: Scope | None = vars(self).get(_HOME)
        if scope is None and home is None:
            return original(self, fn, *args, **kwargs)
        # A worker started by this call belongs to the pool's owner, the work to the submitting biz.
        work = _Work(scope, fn, args, kwargs, is_guest=scope is not home)
        with entered(home):
            future = original(self, work)
        ledger = None if scope is None or scope is home else scope.find_facet(Ledger)
        if ledger is not None:
            entry = ledger.record(
                "executor task",
                name_of(fn),
                functools.partial(_end_work, future, work, weakref.ref(self)),
                order=Order.EXECUTORS,
            )
            future.add_done_callback(lambda _: ledger.forget(entry))
        return future

    return submit


class _Work:
    """Call in the queue of an executor, made as the biz that submitted the call."""

    __slots__ = ("args", "function", "is_guest", "kwargs", "scope", "thread")

    def __init__(
        self,
        scope: Scope | None,
        function: Callable[..., object],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        *,
        is_guest: bool,
    ) -> None:
        self.scope = scope
        self.is_guest = is_guest
        self.function: Callable[..., object] | None = function
        self.args = args
        self.kwargs = kwargs
        self.thread: threading.Thread | None = None

    @passed_over
    def __call__(self) -> object:
        self.thread = threading.current_thread()
        function, args, kwargs = self.function, self.args, self.kwargs
        self.drop()
        if function is None:
            return None
        try:
            if self.is_guest:
                # A context variable set by the call must not stay set in a thread of another owner.
                return call_merged(self.scope, function, *args, **kwargs)
            with entered(self.scope):
                return function(*args, **kwargs)
        except BaseException as error:
            leave(error)
            raise

    def drop(self) -> None:
        """Let go of function and arguments: the queue of a busy executor keeps cancelled work until its turn comes."""
        self.function = None
        self.args = ()
        self.kwargs = {}


def _end_work(
    future: concurrent.futures.Future[Any], work: _Work, reference: weakref.ref[pools.ThreadPoolExecutor]
) -> Pending | None:
    if future.cancel():
        work.drop()
        return None

    def wait(timeout_s: float) -> str | None:
        done, _ = concurrent.futures.wait((future,), timeout_s)
        if done:
            return None
        pool = reference()
        if pool is not None and work.thread is not None:
            workers: Any = pool._threads  # noqa: SLF001
            workers.discard(work.thread)  # the pool starts another worker in the place of this one
            _leave_behind(work.thread)
        return "still runs in an executor of the base"

    return Pending(wait)


# --- trace and profile functions ------------------------------------------------------------------------------------


def _set_tracer(what: str, original: Callable[[Any], None]) -> _Wrapped:
    if getattr(original, "__module__", "") == "pydevd_tracing":
        return original  # a debugger has replaced the function, and complains of every caller but ``threading``
    now: Callable[[], object] = getattr(sys, f"get{what}")

    @standing_for(original)
    def set_tracer(function: Any, /) -> None:
        # All bookkeeping is done first: code that runs after the original is traced.
        ledger = owner()
        if ledger is not None:
            before = now()
            # A thread that sets another function, or none, as a continuing debugger does, has ended the former itself.
            set_here: dict[int, tuple[Entry, object, object]] = ledger.notes.setdefault(f"{what} functions", {})
            former = set_here.pop(threading.get_ident(), None)
            if former is not None:
                ledger.forget(former[0])
                before = former[2] if former[1] is before else before
            if function is not None and before is not function:
                thread, loop = threading.current_thread(), asyncio._get_running_loop()  # noqa: SLF001 - never raises
                undo = functools.partial(_end_tracing, original, now, function, before, thread, loop)
                entry = ledger.record(f"{what} function", f"of thread {thread.name!r}", undo)
                set_here[threading.get_ident()] = (entry, function, before)
        original(function)

    return set_tracer


def _end_tracing(  # noqa: PLR0917 - a partial of it is made in one place
    put: Callable[[Any], None],
    now: Callable[[], object],
    function: Any,
    before: Any,
    thread: threading.Thread,
    loop: asyncio.AbstractEventLoop | None,
) -> Pending | None:
    """Put back the trace function of a thread, on the thread itself; a thread with an event loop is asked to do so."""
    ended = threading.Event()

    def end() -> None:
        if now() is function:
            put(before)
        ended.set()

    if thread is threading.current_thread():
        end()
    elif not thread.is_alive():
        return NOTHING
    elif loop is not None and loop.is_running():
        loop.call_soon_threadsafe(end)
    return Pending(lambda timeout_s: None if ended.wait(timeout_s) else "the thread goes on and is still traced")
