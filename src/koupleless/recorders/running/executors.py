"""Recorders for thread pools, and for work in the pools of others; work runs as the biz that has submitted it."""

from __future__ import annotations

import concurrent.futures
import concurrent.futures.thread as pools
import functools
import math
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any, Final

from koupleless.context import call_merged, current, entered
from koupleless.frames import passed_over, standing_for
from koupleless.ownership.kinds import Kind
from koupleless.ownership.ledger import NOTHING, Ledger, Order, Pending
from koupleless.recorders.names import name_of
from koupleless.recorders.running.ending import Ending, holder, reaches
from koupleless.recorders.running.threads import leave_behind, target_of, where
from koupleless.tracebacks import leave
from koupleless.traffic import Traffic

if TYPE_CHECKING:
    from collections.abc import Callable

    from koupleless.context import Scope
    from koupleless.ownership.recording import Patches

# The attribute of a pool that holds the scope of the biz that made the pool.
_HOME: Final = "_koupleless_home"
_EXECUTORS: Final = Kind("executor", "ThreadPoolExecutor()", "shut down, threads joined", order=Order.EXECUTORS)
_WORK: Final = Kind("executor task", "ThreadPoolExecutor.submit", "cancelled or awaited", order=Order.EXECUTORS)
KINDS: Final = (_EXECUTORS, _WORK)


def install(patches: Patches) -> None:
    """Replace the methods that make pools, and that submit work to pools."""
    patches.replace(pools.ThreadPoolExecutor, "__init__", _pool_init)
    patches.replace(pools.ThreadPoolExecutor, "submit", _pool_submit)


def _pool_init(original: Callable[..., None]) -> Any:
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
    entry = _EXECUTORS.record(ledger, f"{prefix!r}", end)


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
        _EXECUTORS.record(ledger, "of a thread", end)
        return NOTHING
    threads = tuple(pool._threads)  # noqa: SLF001 - the only way to join them with a deadline
    pool.shutdown(wait=False, cancel_futures=True)
    return Pending(functools.partial(_join_all, threads), force=Ending(scope, threads, patience_s=math.inf))


def _is_used_by_thread(pool: pools.ThreadPoolExecutor) -> bool:
    """Tell whether a living thread runs a method of an object that reaches the pool through attributes."""
    targets = [(thread, target_of(thread)) for thread in threading.enumerate()]
    workers = pools._worker  # noqa: SLF001
    return any(reaches(holder(target) or thread, pool) for thread, target in targets if target is not workers)


def _join_all(threads: tuple[threading.Thread, ...], timeout_s: float) -> str | None:
    ends = time.monotonic() + timeout_s
    for thread in threads:
        thread.join(max(0.0, ends - time.monotonic()))
    left = [thread for thread in threads if thread.is_alive()]
    for thread in left:
        leave_behind(thread)
    return "; ".join(f"thread {thread.name!r} still runs {where(thread.ident)}" for thread in left) or None


def _pool_submit(original: Callable[..., concurrent.futures.Future[Any]]) -> Any:
    @standing_for(original)
    def submit(
        self: pools.ThreadPoolExecutor, fn: Callable[..., object], /, *args: Any, **kwargs: Any
    ) -> concurrent.futures.Future[Any]:
        scope = current()
        home: Scope | None = vars(self).get(_HOME)
        if scope is None and home is None:
            return original(self, fn, *args, **kwargs)
        # A worker started by this call belongs to the pool's owner, the work to the submitting biz.
        work = _Work(scope, fn, args, kwargs, is_guest=scope is not home, is_timed=home is None)
        with entered(home):
            future = original(self, work)
        ledger = None if scope is None or scope is home else scope.find_facet(Ledger)
        if ledger is not None:
            end = functools.partial(_end_work, future, work, weakref.ref(self))
            entry = _WORK.record(ledger, name_of(fn), end)
            future.add_done_callback(lambda _: ledger.forget(entry))
        return future

    return submit


class _Work:
    """Call in the queue of an executor, made as the biz that submitted the call."""

    __slots__ = ("args", "function", "is_guest", "is_timed", "kwargs", "scope", "thread")

    def __init__(
        self,
        scope: Scope | None,
        function: Callable[..., object],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        *,
        is_guest: bool,
        is_timed: bool,
    ) -> None:
        self.scope = scope
        self.is_timed = is_timed
        """Whether the thread is the base's: processor time of threads of a biz is read from the threads."""
        self.is_guest = is_guest
        self.function: Callable[..., object] | None = function
        self.args = args
        self.kwargs = kwargs
        self.thread: threading.Thread | None = None

    @passed_over
    def __call__(self) -> object:
        self.thread = threading.current_thread()
        traffic = self.scope.find_facet(Traffic) if self.is_timed and self.scope is not None else None
        begin = 0.0 if traffic is None else time.thread_time()
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
        finally:
            if traffic is not None:
                traffic.meter.add_work(time.thread_time() - begin)

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
            leave_behind(work.thread)
        return "still runs in an executor of the base"

    return Pending(wait)


def leave_workers_behind(pool: pools.ThreadPoolExecutor) -> None:
    """Let the process end without the busy threads of a pool that was shut down."""
    for thread in tuple(pool._threads):  # noqa: SLF001 - the interpreter waits for them, with no deadline
        leave_behind(thread)
