"""Runs the code of bizs: asynchronous code on the server's event loop, blocking code on threads of the container.

The container is synchronous. `Stage.call` reaches the loop, and `Stage.run` gives blocking code of a biz a thread with
a deadline. So a biz that hangs costs the installing thread a deadline, and others nothing.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import functools
import inspect
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from koupleless.context import entered
from koupleless.errors import ContainerClosed, InstallCancelled
from koupleless.exits import EXITS, in_place_of
from koupleless.ownership.ledger import start_thread
from koupleless.recorders.running.threads import leave_to, pass_for_main_thread, where
from koupleless.variables import await_in

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
    from contextvars import Context

    from koupleless.context import Scope

T = TypeVar("T")


class DeadlineMissed(TimeoutError):
    """Code of a biz had not ended at the deadline. Never raised by the biz's code itself."""


class Errand(NamedTuple):
    """A function to be run by `Stage.run_in_turn`."""

    name: str
    """The name of the thread meanwhile."""
    function: Callable[[], object]
    timeout_s: float


class _Row:
    """Functions run one after another on one thread, and watched by another thread.

    A thread left behind in a function refers to that function, and to none of those after it.
    """

    def __init__(self, errands: Sequence[Errand]) -> None:
        self.outcomes: list[concurrent.futures.Future[Any]] = []
        """A future for each function begun."""
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._ahead = deque(errands)
        self._ends = time.monotonic() + errands[0].timeout_s
        """The deadline of the running function, by the monotonic clock."""

    def work(self) -> None:
        """Run the functions, on the thread of this call."""
        while (errand := self._next()) is not None:
            threading.current_thread().name = errand.name
            function, outcome = errand.function, self.outcomes[-1]
            del errand
            _work(function, outcome)
            del function, outcome
        self._over.set()

    def _next(self) -> Errand | None:
        with self._lock:
            if not self._ahead:
                return None
            self.outcomes.append(concurrent.futures.Future())
            self._ends = time.monotonic() + self._ahead[0].timeout_s
            return self._ahead.popleft()

    def wait(self) -> bool:
        """Wait for all functions, or for the first that misses the deadline; tells whether one has."""
        while not self._over.wait(max(self._ends - time.monotonic(), 0.001)):
            with self._lock:
                if time.monotonic() >= self._ends and self.outcomes and not self.outcomes[-1].done():
                    self._ahead.clear()
                    return True
        return False


class Stage:
    """The event loop shared by the applications of a base.

    Lifetime: of the container. The composition root passes the server's loop to `adopt`. Without a server (a test, a
    base that serves nothing), the first call starts a loop on a thread of the stage.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._own_thread: threading.Thread | None = None
        self._waiting: dict[threading.Event, int] = {}
        """Interruptible waits, with the waiting thread."""
        self._interruption: str | None = None
        self._cancellable: dict[int, str] = {}
        """Threads that install, with the name of the module."""
        self._cancelled: set[int] = set()

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop, started if need be."""
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                is_running = threading.Event()
                self._loop.call_soon(is_running.set)
                self._own_thread = threading.Thread(target=self._loop.run_forever, name="koupleless-stage", daemon=True)
                self._own_thread.start()
                is_running.wait()
            return self._loop

    def adopt(self, loop: asyncio.AbstractEventLoop) -> None:
        """Use the server's loop from now on. Raises ``RuntimeError`` once another loop is in use."""
        with self._lock:
            if self._loop is not None and self._loop is not loop:
                raise RuntimeError("this container already runs its modules on another event loop")
            self._loop = loop

    def check_thread(self) -> None:
        """Raise ``RuntimeError`` on the thread of the loop: a wait there for the loop would never end."""
        if self._loop is not None and _running_loop() is self._loop:
            raise RuntimeError(
                "a container operation was called on the event loop of the modules; make the call on a thread"
            )

    def call(self, make: Callable[[], Coroutine[Any, Any, T]], *, timeout_s: float, may_interrupt: bool = False) -> T:
        """Run the coroutine made by ``make`` on the loop, wait here, and return the result.

        Raises ``DeadlineMissed`` after ``timeout_s`` seconds (the coroutine is cancelled then), ``RuntimeError`` on the
        loop's own thread or after the end of the loop, and any error of the coroutine. With ``may_interrupt``, also
        raises ``ContainerClosed`` after `interrupt`.
        """
        self.check_thread()
        loop = self.loop
        if loop.is_closed() or not loop.is_running():
            raise RuntimeError("the server's event loop has ended")
        future = asyncio.run_coroutine_threadsafe(make(), loop)
        try:
            return self._wait(future, timeout_s, may_interrupt=may_interrupt)
        finally:
            future.cancel()
            del future

    def run(
        self,
        function: Callable[[], T],
        *,
        name: str,
        timeout_s: float,
        may_interrupt: bool = False,
        scope: Scope | None = None,
    ) -> T:
        """Call ``function`` on a new thread named ``name`` and wait at most ``timeout_s`` seconds.

        Returns the result of ``function``, and raises the errors of ``function``. Raises ``DeadlineMissed`` at the
        deadline, and, with ``may_interrupt``, ``ContainerClosed`` after `interrupt` and ``InstallCancelled`` after
        `cancel`. The thread goes on then as a daemon, with everything the thread holds: as a thread of the biz of
        ``scope`` if given, which is asked to end, and interrupted, when the biz leaves.
        """
        outcome: concurrent.futures.Future[T] = concurrent.futures.Future()
        thread = threading.Thread(target=_work, args=(function, outcome), name=name, daemon=True)
        start_thread(thread)
        try:
            return self._wait(outcome, timeout_s, may_interrupt=may_interrupt)
        except DeadlineMissed as error:
            leave_to(scope, thread)
            raise DeadlineMissed(f"{error}, and still runs {where(thread.ident)}") from None
        except (ContainerClosed, InstallCancelled):
            leave_to(scope, thread)
            raise
        finally:
            # The exception refers to the traceback, the traceback to this frame, and this frame to the exception: break
            # the cycle, or the biz's frames live until the next collection.
            del outcome, function

    def run_in_turn(self, errands: Sequence[Errand]) -> Iterator[concurrent.futures.Future[Any]]:
        """Run functions one after another, all on one new thread; yields an ended future for each.

        Each function has its own deadline. A function that misses the deadline keeps the thread, with everything the
        thread holds, and has ``DeadlineMissed`` in its future; the functions after it are run on another thread, when
        that future has been taken.
        """
        ahead = list(errands)
        while ahead:
            row = _Row(ahead)
            thread = threading.Thread(target=row.work, name=ahead[0].name, daemon=True)
            start_thread(thread)
            has_missed = row.wait()
            outcomes = row.outcomes.copy()
            begun, ahead = ahead[: len(outcomes)], ahead[len(outcomes) :]
            if has_missed:
                timeout_s = begun[-1].timeout_s
                outcomes[-1] = concurrent.futures.Future()
                outcomes[-1].set_exception(
                    DeadlineMissed(f"not finished within {timeout_s:g} s, and still runs {where(thread.ident)}")
                )
            del row, begun
            yield from outcomes

    def call_as(
        self,
        scope: Scope,
        function: Callable[[], object],
        context: Context,
        *,
        name: str,
        timeout_s: float,
        may_interrupt: bool = False,
    ) -> object:
        """Call a function of a biz on a thread, in ``context``; an awaitable result is awaited there on the loop.

        Returns the result, and raises as `run` and `call` do, together within ``timeout_s`` seconds. Raises
        ``RuntimeError`` in the place of an exit by awaited code.
        """
        deadline = time.monotonic() + timeout_s
        as_biz = functools.partial(context.run, function)
        result = self.run(
            as_biz, name=f"{name} {scope.biz}", timeout_s=timeout_s, may_interrupt=may_interrupt, scope=scope
        )
        if inspect.isawaitable(result):
            finish = functools.partial(_finish, result, context, str(scope.biz))
            with entered(scope):  # the task is the biz's: the task inherits the context of the calling code
                result = self.call(finish, timeout_s=seconds_until(deadline), may_interrupt=may_interrupt)
        return result

    def interrupt(self, reason: str) -> None:
        """Raise ``ContainerClosed`` in every interruptible wait, now or later: the base is going down.

        Each waiting thread gets an exception of its own, since the traceback refers to the work of the thread.
        """
        with self._lock:
            self._interruption = reason
            waiting = tuple(self._waiting)
        for alarm in waiting:
            alarm.set()

    @contextlib.contextmanager
    def cancellable(self, name: str) -> Iterator[None]:
        """Let `cancel` reach interruptible waits of this thread, which installs a module, while the context lasts."""
        thread = threading.get_ident()
        with self._lock:
            around = self._cancellable.get(thread)  # an install of another module may have led to this one
            self._cancellable[thread] = name
        try:
            yield
        finally:
            with self._lock:
                self._cancelled.discard(thread)
                if around is None:
                    del self._cancellable[thread]
                else:
                    self._cancellable[thread] = around

    def cancel(self, name: str) -> bool:
        """Raise ``InstallCancelled`` in interruptible waits of installs of a module, now or at their next.

        Returns whether there is such an install. One that has passed its last interruptible wait goes on to its end.
        """
        with self._lock:
            threads = {thread for thread, of_thread in self._cancellable.items() if of_thread == name}
            self._cancelled |= threads
            waiting = [alarm for alarm, thread in self._waiting.items() if thread in threads]
        for alarm in waiting:
            alarm.set()
        return bool(threads)

    def _wait(self, future: concurrent.futures.Future[T], timeout_s: float, *, may_interrupt: bool) -> T:
        alarm, thread = threading.Event(), threading.get_ident()
        future.add_done_callback(lambda _: alarm.set())
        with self._lock:
            if may_interrupt:
                self._waiting[alarm] = thread
                if self._interruption is not None or thread in self._cancelled:
                    alarm.set()
        try:
            alarm.wait(timeout_s)
            if future.done():
                return future.result()
            if may_interrupt and self._interruption is not None:
                raise ContainerClosed(self._interruption)
            if may_interrupt and thread in self._cancelled:
                raise InstallCancelled("the install was cancelled")
            raise DeadlineMissed(f"not finished within {timeout_s:g} s")
        finally:
            with self._lock:
                self._waiting.pop(alarm, None)
            del future

    def close(self, *, timeout_s: float = 5.0) -> None:
        """End the loop if the stage started it; a loop blocked for ``timeout_s`` seconds by a biz stays. Idempotent."""
        with self._lock:
            thread, self._own_thread = self._own_thread, None
            loop = self._loop
        if thread is not None and loop is not None:
            loop.call_soon_threadsafe(loop.stop)
            thread.join(timeout_s)
            if not thread.is_alive():
                loop.close()


def seconds_until(deadline: float) -> float:
    """Return the seconds until a deadline of the monotonic clock, at least a millisecond."""
    return max(deadline - time.monotonic(), 0.001)


async def _finish(result: Awaitable[object], context: Context, name: str) -> object:
    try:
        return await await_in(context, lambda: result)
    except EXITS as error:
        # In a task, an exit would end the event loop, and with the loop every other biz.
        raise in_place_of(error, name, "in a hook") from error


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _work(function: Callable[[], T], outcome: concurrent.futures.Future[T]) -> None:
    pass_for_main_thread()  # without a base, the main thread runs the code of a biz
    try:
        result = function()
    except BaseException as error:  # noqa: BLE001 - SystemExit of a biz must reach the installer, not this thread
        outcome.set_exception(error)
    else:
        outcome.set_result(result)
    finally:
        del function, outcome
