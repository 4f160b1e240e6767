"""The footprint of one biz on one loop: objects to cancel or to close, on the loop's thread, when the biz leaves."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import itertools
import threading
import weakref
from typing import TYPE_CHECKING, Any, Final

from koupleless.context import Scope, as_base, life_context
from koupleless.ownership.belonging import is_findable
from koupleless.ownership.kinds import Kind
from koupleless.ownership.ledger import Ledger, Order, Pending
from koupleless.recorders.loops.stubborn import Insistence, finalise
from koupleless.recorders.loops.tasks import scope_of, working_tasks
from koupleless.recorders.names import name_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


_WHAT: Final = "of the event loop"
_TIMERS: Final = Kind("loop timer", "loop.call_later, call_at", "cancelled", order=Order.TIMERS)
_TASKS: Final = Kind("asyncio task", "loop.create_task", "cancelled, ended by force", order=Order.TASKS)
_GENERATORS: Final = Kind("async generator", "sys.get_asyncgen_hooks().firstiter", "closed", order=Order.GENERATORS)
_TRANSPORTS: Final = Kind("transport", "loop.create_server, create_connection, add_reader ...", "closed, removed")
KINDS: Final = (_TIMERS, _TASKS, _GENERATORS, _TRANSPORTS)


class Footprint:
    """Callbacks, tasks and watched descriptors of one biz on one loop. Threads: the sets are the loop's thread's."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        watched: dict[tuple[str, int], Footprint],
        asked: weakref.WeakSet[asyncio.Task[Any]],
    ) -> None:
        self.tasks: weakref.WeakSet[asyncio.Task[Any]] = weakref.WeakSet()
        self.timers: weakref.WeakSet[asyncio.TimerHandle] = weakref.WeakSet()
        self.generators: weakref.WeakSet[Any] = weakref.WeakSet()
        self._watched = watched
        self._asked = asked
        self._transports: weakref.WeakSet[Any] = weakref.WeakSet()
        self._loop = loop

    def open(self, ledger: Ledger, close: Callable[[], object]) -> None:
        """Write the footprint into the ledger; after ``close``, the next registration makes a new footprint."""

        def cancel_timers() -> Pending:
            close()
            return self._on_loop(self._cancel_timers)

        _TIMERS.record(ledger, _WHAT, cancel_timers)
        find_tasks = functools.partial(self._find_tasks, ledger.scope)
        cancel_tasks = functools.partial(self._on_loop, functools.partial(self._cancel_tasks, find_tasks))
        _TASKS.record(ledger, _WHAT, cancel_tasks)
        close_generators = functools.partial(
            self._on_loop, functools.partial(self._close_generators, ledger.scope), told=True
        )
        _GENERATORS.record(ledger, _WHAT, close_generators)
        _TRANSPORTS.record(ledger, _WHAT, functools.partial(self._on_loop, self._close))

    def add_transport(self, made: Any) -> None:
        """Keep a server, transport or process transport, if weak references to the object are possible."""
        try:
            self._transports.add(made)
        except TypeError:  # an implementation without weak references: the owner has to close the object
            return

    def is_of_other_connection(self, callback: object) -> bool:
        """Tell whether a timer belongs to a connection that the biz did not make.

        A server's code runs as the biz when the application sends: the keep-alive timer set then is the server's.
        """
        holder = getattr(callback, "__self__", None)
        if not isinstance(holder, asyncio.BaseProtocol | asyncio.BaseTransport) or not is_findable(type(holder)):
            return False
        return getattr(holder, "transport", holder) not in self._transports

    # --- undoing, each on the loop's thread; returned are the number of objects and the tasks to await ----------------

    def _cancel_timers(self) -> tuple[int, list[asyncio.Task[Any]]]:
        count = 0
        now = self._loop.time()
        for handle in list(self.timers):
            if not handle.cancelled() and handle.when() > now:
                count += 1
            handle.cancel()
            # A cancelled timer of asyncio, with its context, stays in the heap until the time of the timer.
            if hasattr(handle, "_context"):
                handle._context = contextvars.Context()  # noqa: SLF001
        return count, []

    def _find_tasks(self, scope: Scope) -> None:
        # ``asyncio.Task(coroutine)`` does not ask the loop; the task knows the context of the biz.
        found = {task for task in working_tasks(self._loop) if scope_of(task) is scope}
        self.tasks.update(found - set(self._asked))

    def _cancel_tasks(self, find: Callable[[], None]) -> tuple[int, list[asyncio.Task[Any]]]:
        find()
        running: list[asyncio.Task[Any]] = [task for task in list(self.tasks) if not task.done()]
        self._asked.update(running)
        for task in running:
            task.cancel()
        return len(running), running

    def _close_generators(self, scope: Scope) -> tuple[int, list[asyncio.Task[Any]]]:
        """Close the generators as ``asyncio.run`` does at its end: the collector would do so after the biz is gone."""
        closing: list[asyncio.Task[Any]] = []
        if not self._loop.is_running():
            return 0, closing
        for generator in list(self.generators):
            if generator.ag_frame is None or generator.ag_running:
                continue
            steps: Any = generator.aclose()
            task = asyncio.Task(steps, loop=self._loop, name=f"close {name_of(generator)}", context=life_context(scope))
            task.add_done_callback(functools.partial(_finalise_at_end, generator), context=contextvars.Context())
            closing.append(task)
        self._asked.update(closing)
        return len(closing), closing

    def _close(self) -> tuple[int, list[asyncio.Task[Any]]]:
        count = 0
        for remove, fd in [key for key, footprint in self._watched.items() if footprint is self]:
            getattr(self._loop, remove)(fd)
            count += 1
        for made in list(self._transports):
            is_closed = not made.is_serving() if hasattr(made, "is_serving") else made.is_closing()
            count += not is_closed
            made.close()
        return count, []

    # --- from the thread that uninstalls ------------------------------------------------------------------------------

    def _on_loop(
        self,
        act: Callable[[], tuple[int, list[asyncio.Task[Any]]]],
        *,
        told: bool = False,
    ) -> Pending:
        """Call ``act`` on the loop. With ``told``, errors that the tasks raise are part of the report."""
        loop = self._loop
        if loop.is_closed():
            return Pending(lambda _: None, count=0)
        pending = Pending(lambda _: None, count=0)
        if not loop.is_running():
            pending.count, awaited = act()
            if awaited:
                pending.wait = lambda _: "its event loop does not run"
            return pending
        ended = threading.Event()
        insistence = Insistence(loop, ended)

        def begin() -> None:
            try:
                with as_base():
                    pending.count, insistence.tasks = act()
                    _after(loop, insistence.tasks, ended.set)
            except BaseException:
                ended.set()
                raise

        loop.call_soon_threadsafe(begin, context=contextvars.Context())

        def wait(timeout_s: float) -> str | None:
            if _is_running_here(loop):
                return "cannot be awaited on the thread of its own event loop"
            if ended.wait(timeout_s):
                return insistence.errors() if told else None
            return insistence.keep() or "the event loop did not take its turn in time"

        pending.wait = wait
        if not _is_running_here(loop):
            pending.force = insistence
        return pending


def _finalise_at_end(generator: Any, _: object) -> None:
    finalise(generator)


def _after(loop: asyncio.AbstractEventLoop, awaited: Iterable[asyncio.Future[Any]], done: Callable[[], None]) -> None:
    """Call ``done`` two turns of the loop after the last of ``awaited``, when callbacks of the futures have run too."""
    awaited = list(awaited)
    countdown = itertools.count(len(awaited), -1)
    next(countdown)

    def one_less(_: object = None) -> None:
        if next(countdown) <= 0:
            loop.call_soon(loop.call_soon, done)

    if not awaited:
        loop.call_soon(loop.call_soon, done)
    for future in awaited:
        future.add_done_callback(one_less)


def _is_running_here(loop: asyncio.AbstractEventLoop) -> bool:
    try:
        return asyncio.get_running_loop() is loop
    except RuntimeError:
        return False
