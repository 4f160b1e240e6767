"""Recorders for one event loop: tasks, timers, readers, servers and connections that bizs make on the loop.

A loop is adopted by replacing methods on the instance, where the code of asyncio, of uvloop and of all other callers
looks the methods up. Objects created by a biz are kept weakly, in sets that only the loop's thread touches. So nothing
has to be forgotten when a task ends or a timer fires, and a biz pays one set insertion for each object. Callbacks of
``call_soon``, the hottest call of a server, are not kept: they have run after the two turns that leaving waits for.

An exit raised by a biz to end its program would end the loop. On a loop of asyncio, the exit is caught around each
turn, at no cost. Other loops have no such place, so each callback of a biz is wrapped in a function there.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import gc
import itertools
import logging
import sys
import threading
import warnings
import weakref
from typing import TYPE_CHECKING, Any, Final

from koupleless.context import Scope, as_base, current, entered, life_context, scope_in
from koupleless.errors import BizGone
from koupleless.exits import EXITS, in_words, is_of_signal
from koupleless.frames import passed_over, standing_for
from koupleless.ownership.belonging import is_findable
from koupleless.ownership.ledger import Ledger, Order, Pending
from koupleless.ownership.purge import Sweep
from koupleless.ownership.recording import Patches
from koupleless.recorders.loops.protocols import guarded_factory
from koupleless.recorders.loops.stubborn import Insistence, ended, finalise, finaliser_of, followed
from koupleless.recorders.names import name_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable

    from koupleless.ownership.belonging import Survey

_ATTRIBUTE: Final = "_koupleless_adoption"
_MAKERS: Final = (
    "create_connection",
    "create_server",
    "create_unix_connection",
    "create_unix_server",
    "create_datagram_endpoint",
    "connect_accepted_socket",
    "connect_read_pipe",
    "connect_write_pipe",
    "subprocess_exec",
    "subprocess_shell",
    "start_tls",
)
_REFUSED: Final = (
    *("add_signal_handler", "remove_signal_handler", "set_task_factory", "set_default_executor"),
    *("stop", "close", "shutdown_asyncgens", "shutdown_default_executor"),
)

_tasks_of: Final = asyncio.all_tasks
"""The interpreter's ``all_tasks``, which lists the tasks of all bizs to every caller."""
_log: Final = logging.getLogger("koupleless")
_lock = threading.Lock()


def adopt_loop(loop: asyncio.AbstractEventLoop) -> Adoption:
    """Record from now on the objects that bizs create on ``loop``. Calls are counted, and allowed on any thread.

    `Adoption.release` ends the recording.
    """
    with _lock:
        adoption: Adoption | None = vars(loop).get(_ATTRIBUTE)
        if adoption is None:
            adoption = Adoption(loop)
            vars(loop)[_ATTRIBUTE] = adoption
        adoption.holders += 1
        return adoption


_adoptions: Final[weakref.WeakSet[Adoption]] = weakref.WeakSet()


def install(patches: Patches) -> None:
    """Show each biz only the tasks of the biz; when a biz leaves, find tasks made without asking a loop."""
    patches.when_leaving(_find_direct_tasks)
    for module in (asyncio, asyncio.tasks):
        patches.replace(module, "all_tasks", _all_tasks)


def _find_direct_tasks(ledger: Ledger) -> None:
    for adoption in list(_adoptions):
        if adoption.has_task_of(ledger.scope):
            adoption.footprint_of(ledger)


def _sweep_callbacks(survey: Survey) -> int:
    """Remove functions of the biz from tasks of others: such a task may never end, as the server's task for anyio."""
    count = 0
    for adoption in list(_adoptions):
        for task in adoption.tasks():
            for callback, _ in list(getattr(task, "_callbacks", None) or ()):
                if survey.reaches(callback):
                    count += task.remove_done_callback(callback)
    return count


SWEEPS: Final = (Sweep("done callback", _sweep_callbacks),)


class AwaitedTasks:
    """The tasks of a biz on one loop that tasks of other bizs, or of the base, wait for.

    A waiting task would take the cancellation of such a task for a cancellation of the waiting task. So the awaited
    tasks may end first, and afterwards the waiting tasks get `BizGone`. Threads: `drain` and `abort` run on the loop's
    thread; the truth value is read on any thread.
    """

    def __init__(self, scope: Scope, loop: asyncio.AbstractEventLoop) -> None:
        self._scope = scope
        self._loop = loop

    def _find(self) -> list[asyncio.Task[Any]]:
        tasks = _tasks_of(self._loop)
        return [task for task in tasks if self._waiters(task) and _scope_of(task) is self._scope]

    def _waiters(self, task: asyncio.Task[Any]) -> list[tuple[Callable[[Any], object], contextvars.Context]]:
        callbacks = list(getattr(task, "_callbacks", None) or ())
        return [(callback, context) for callback, context in callbacks if scope_in(context) is not self._scope]

    def __bool__(self) -> bool:
        return bool(self._find())

    async def drain(self, timeout_s: float) -> int:
        """Wait until the tasks have ended, at most ``timeout_s`` seconds. Returns the number of tasks left."""
        ends = self._loop.time() + timeout_s
        while (tasks := self._find()) and (left := ends - self._loop.time()) > 0:
            with entered(self._scope):  # so that the waiting task here is not found as a waiter of another biz
                await asyncio.wait(tasks, timeout=left)
        return len(tasks)

    async def abort(self, _timeout_s: float) -> int:
        """Answer the waiting tasks as if the awaited task had raised `BizGone`; the awaited task goes on. Returns 0."""
        for task in self._find():
            for callback, context in self._waiters(task):
                task.remove_done_callback(callback)
                failed = self._loop.create_future()
                failed.set_exception(BizGone(self._scope.biz, what="the task that was awaited was not finished"))
                failed.exception()  # or the loop would complain that nobody asked for the error
                self._loop.call_soon(callback, failed, context=context)
        return 0


class Adoption:
    """The recorders of one loop. Lifetime: until every caller of `adopt_loop` has released the adoption."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.holders = 0
        self.watched: dict[tuple[str, int], Footprint] = {}
        """The footprint of the biz that watches a descriptor, by the name of the removing method and the descriptor."""
        self.asked: weakref.WeakSet[asyncio.Task[Any]] = weakref.WeakSet()
        """The tasks that an uninstall has cancelled."""
        self._loop = weakref.ref(loop)
        self._patches = Patches()
        self._handlers: list[tuple[Ledger | None, Any]] = []
        _adoptions.add(self)
        replace = functools.partial(self._patches.replace, loop)
        replace("create_task", self._create_task)
        replace("call_later", self._timer)
        replace("call_at", self._timer)
        replace("add_reader", functools.partial(self._watch, "remove_reader"))
        replace("add_writer", functools.partial(self._watch, "remove_writer"))
        replace("remove_reader", functools.partial(self._unwatch, "remove_reader"))
        replace("remove_writer", functools.partial(self._unwatch, "remove_writer"))
        replace("run_in_executor", self._run_in_executor)
        replace("set_exception_handler", self._set_exception_handler)
        for name in _MAKERS:
            replace(name, self._maker)
        for name in _REFUSED:
            replace(name, functools.partial(_refused, name))
        # A loop of asyncio has one method through which the errors of all callbacks come.
        self._guards_each = not hasattr(loop, "_run_once")
        if self._guards_each:
            replace("call_soon", _soon)
            replace("call_soon_threadsafe", _soon)
        else:
            replace("_run_once", _run_once)
        self._hooks: tuple[Any, Callable[[Any], None]] | None = None
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(self._follow_generators, context=contextvars.Context())

    def release(self) -> None:
        """Undo one `adopt_loop`; the last call puts the loop's methods back."""
        with _lock:
            self.holders -= 1
            loop = self._loop()
            if self.holders == 0 and loop is not None:
                self._patches.restore()
                vars(loop).pop(_ATTRIBUTE, None)
                with contextlib.suppress(RuntimeError):  # the loop is closed
                    loop.call_soon_threadsafe(self._leave_generators, context=contextvars.Context())

    def _footprint(self) -> Footprint | None:
        scope = current()
        ledger = None if scope is None else scope.find_facet(Ledger)
        return None if ledger is None else self.footprint_of(ledger)

    def footprint_of(self, ledger: Ledger) -> Footprint | None:
        """Return the footprint of a biz on this loop, made at the first call; ``None`` once the loop is gone."""
        footprint: Footprint | None = ledger.notes.get(self)
        loop = self._loop()
        if footprint is None and loop is not None:
            footprint = ledger.notes[self] = Footprint(loop, self)
            footprint.open(ledger, functools.partial(ledger.notes.pop, self, None))
        return footprint

    def tasks(self) -> set[asyncio.Task[Any]]:
        """Return all tasks of this loop that have not ended. From any thread."""
        loop = self._loop()
        return set() if loop is None else _tasks_of(loop)

    def has_task_of(self, scope: Scope) -> bool:
        """Tell whether a task on this loop runs as a biz. From any thread."""
        return any(_scope_of(task) is scope for task in self.tasks())

    # --- async generators, announced to each thread at their first step: on the loop's thread ------------------------

    def _follow_generators(self) -> None:
        of_loop = sys.get_asyncgen_hooks()
        if of_loop.firstiter is None or of_loop.finalizer is None:
            return
        begin = of_loop.firstiter

        @passed_over
        def first_step(generator: AsyncGenerator[Any, Any]) -> None:
            begin(generator)
            footprint = None if current() is None else self._footprint()
            if footprint is not None:
                footprint.generators.add(generator)
                followed.add(generator)

        self._hooks = of_loop, first_step
        sys.set_asyncgen_hooks(first_step, finaliser_of(of_loop.finalizer))

    def _leave_generators(self) -> None:
        if self._hooks is not None:
            of_loop, first_step = self._hooks
            if sys.get_asyncgen_hooks().firstiter is first_step:
                sys.set_asyncgen_hooks(*of_loop)
        self._hooks = None

    # --- the replacements: each calls the original at once for the base ----------------------------------------------

    def _create_task(self, original: Callable[..., asyncio.Task[Any]]) -> Any:
        @standing_for(original)
        def create_task(coro: Any, **kwargs: Any) -> asyncio.Task[Any]:
            if current() is None or (footprint := self._footprint()) is None:
                return original(coro, **kwargs)
            if _is_next_request(coro):
                return original(coro, **{**kwargs, "context": contextvars.Context()})
            task = original(coro, **kwargs)
            footprint.tasks.add(task)
            return task

        return create_task

    def _timer(self, original: Callable[..., asyncio.TimerHandle]) -> Any:
        @standing_for(original)
        def schedule(
            moment: float, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
        ) -> asyncio.TimerHandle:
            if current() is None or (footprint := self._footprint()) is None:
                return original(moment, callback, *args, context=context)
            if footprint.is_of_other_connection(callback):
                return original(moment, callback, *args, context=contextvars.Context())
            if self._guards_each:
                callback, args = _guarded, (callback, *args)
            handle = original(moment, callback, *args, context=context)
            footprint.timers.add(handle)
            return handle

        return schedule

    def _watch(self, remove: str, original: Callable[..., object]) -> Any:
        @standing_for(original)
        def watch(fd: Any, callback: Callable[..., object], *args: Any) -> object:
            footprint = None if current() is None else self._footprint()
            if footprint is not None and self._guards_each:
                callback, args = _guarded, (callback, *args)
            result = original(fd, callback, *args)
            # Numbers of descriptors are used again, so the last watcher owns the number.
            if footprint is not None:
                self.watched[remove, _number(fd)] = footprint
            else:
                self.watched.pop((remove, _number(fd)), None)
            return result

        return watch

    def _unwatch(self, remove: str, original: Callable[..., object]) -> Any:
        @standing_for(original)
        def unwatch(fd: Any) -> object:
            self.watched.pop((remove, _number(fd)), None)
            return original(fd)

        return unwatch

    def _maker(self, original: Callable[..., Awaitable[Any]]) -> Any:
        async def make(footprint: Footprint, making: Awaitable[Any]) -> Any:
            made = await making
            footprint.add_transport(made[0] if isinstance(made, tuple) else made)
            return made

        @standing_for(original)
        def create(*args: Any, **kwargs: Any) -> Awaitable[Any]:
            if current() is None or (footprint := self._footprint()) is None:
                return original(*args, **kwargs)
            if "protocol_factory" in kwargs:
                kwargs["protocol_factory"] = guarded_factory(kwargs["protocol_factory"], _tell_exit)
            elif args:
                args = (guarded_factory(args[0], _tell_exit), *args[1:])
            return make(footprint, original(*args, **kwargs))

        return create

    def _run_in_executor(self, original: Callable[..., Any]) -> Any:
        ready: list[bool] = []

        @standing_for(original)
        def run_in_executor(executor: Any, func: Callable[..., object], *args: Any) -> Any:
            if executor is None and not ready and current() is not None:
                # The loop makes its default executor at the first use: the executor is the base's, even for a biz.
                with as_base():
                    original(None, int)
                ready.append(True)
            return original(executor, func, *args)

        return run_in_executor

    def _set_exception_handler(self, original: Callable[[Any], None]) -> Any:
        @standing_for(original)
        def set_exception_handler(handler: Any) -> None:
            scope = current()
            ledger = None if scope is None else scope.find_facet(Ledger)
            loop = self._loop()
            if loop is None or (scope is not None and ledger is None):
                return
            if not self._handlers:
                self._handlers.append((None, loop.get_exception_handler()))
            known = any(setter is ledger for setter, _ in self._handlers)
            original(handler)
            self._handlers = [pair for pair in self._handlers if pair[0] is not ledger]
            if ledger is None:
                self._handlers.insert(0, (None, handler))
                return
            self._handlers.append((ledger, handler))
            if not known:
                undo = functools.partial(self._drop_handler, original, ledger)
                ledger.record("loop exception handler", name_of(handler), undo)

        return set_exception_handler

    def _drop_handler(self, original: Callable[[Any], None], ledger: Ledger) -> None:
        was_last = self._handlers[-1][0] is ledger
        self._handlers = [pair for pair in self._handlers if pair[0] is not ledger]
        if was_last:
            original(self._handlers[-1][1])


def _refused(name: str, original: Callable[..., Any]) -> Any:
    @standing_for(original)
    def refused(*args: Any, **kwargs: Any) -> Any:
        scope = current()
        if scope is None:
            return original(*args, **kwargs)
        text = f"biz {scope.biz} called {name} of the event loop it shares; it was ignored"
        warnings.warn(text, RuntimeWarning, stacklevel=2)
        if name.startswith("shutdown_"):
            return asyncio.sleep(0)
        return False if name == "remove_signal_handler" else None

    return refused


# --- exits, which would come out of the loop and end the loop ---------------------------------------------------------


def _run_once(original: Callable[[], None]) -> Any:
    """Catch exits of bizs around a turn of a loop of asyncio; callbacks left of the turn run in the next turn."""

    @standing_for(original)
    def turn() -> None:
        try:
            original()
        except EXITS as error:
            scope = _raised_in(error)
            if scope is None or is_of_signal(error):
                raise
            _tell_exit(scope, error)

    return turn


def _raised_in(error: BaseException) -> Scope | None:
    """Find the biz in the context of which the loop has run the callback that raised ``error``."""
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code is _HANDLE_RUN:
            return scope_in(trace.tb_frame.f_locals["self"]._context)  # noqa: SLF001 - a handle has no other
        trace = trace.tb_next
    return None


_HANDLE_RUN: Final = asyncio.Handle._run.__code__  # noqa: SLF001


def _soon(original: Callable[..., asyncio.Handle]) -> Any:
    """Wrap each callback of a biz, steps of tasks among them, for a loop whose turns cannot be wrapped."""

    @standing_for(original)
    def call_soon(
        callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        if (current() if context is None else scope_in(context)) is None:
            return original(callback, *args, context=context)
        return original(_guarded, callback, *args, context=context)

    return call_soon


@passed_over
def _guarded(callback: Callable[..., object], *args: Any) -> None:
    try:
        callback(*args)
    except EXITS as error:
        scope = current()
        if scope is None or is_of_signal(error):
            raise
        _tell_exit(scope, error)
    except asyncio.InvalidStateError:
        if getattr(callback, "__self__", None) not in ended:
            raise


def _tell_exit(scope: Scope, error: BaseException) -> None:
    with as_base():
        _log.error("%s; the base goes on", in_words(error, f"biz {scope.biz}", "on the event loop it shares"))


def _all_tasks(original: Callable[..., set[asyncio.Task[Any]]]) -> Any:
    """Return only the tasks of the biz, and the running task, to a biz that asks for the tasks of a shared loop."""

    @standing_for(original)
    def all_tasks(loop: asyncio.AbstractEventLoop | None = None) -> set[asyncio.Task[Any]]:
        tasks = original(loop)
        scope = current()
        shared = asyncio.get_running_loop() if loop is None else loop
        if scope is None or _ATTRIBUTE not in getattr(shared, "__dict__", ()):
            return tasks
        here = asyncio.current_task() if asyncio._get_running_loop() is not None else None  # noqa: SLF001
        return {task for task in tasks if task is here or _scope_of(task) is scope}

    return all_tasks


class Footprint:
    """Callbacks, tasks and watched descriptors of one biz on one loop. Threads: the sets are the loop's thread's."""

    def __init__(self, loop: asyncio.AbstractEventLoop, adoption: Adoption) -> None:
        self.tasks: weakref.WeakSet[asyncio.Task[Any]] = weakref.WeakSet()
        self.timers: weakref.WeakSet[asyncio.TimerHandle] = weakref.WeakSet()
        self.generators: weakref.WeakSet[Any] = weakref.WeakSet()
        self._watched = adoption.watched
        self._asked = adoption.asked
        self._transports: weakref.WeakSet[Any] = weakref.WeakSet()
        self._loop = loop

    def open(self, ledger: Ledger, close: Callable[[], object]) -> None:
        """Write the footprint into the ledger; after ``close``, the next registration makes a new footprint."""

        def cancel_timers() -> Pending:
            close()
            return self._on_loop(self._cancel_timers)

        ledger.record("loop timer", "of the event loop", cancel_timers, order=Order.TIMERS)
        find_tasks = functools.partial(self._find_tasks, ledger.scope)
        cancel_tasks = functools.partial(self._on_loop, functools.partial(self._cancel_tasks, find_tasks))
        ledger.record("asyncio task", "of the event loop", cancel_tasks, order=Order.TASKS)
        close_generators = functools.partial(
            self._on_loop, functools.partial(self._close_generators, ledger.scope), told=True
        )
        ledger.record("async generator", "of the event loop", close_generators, order=Order.GENERATORS)
        ledger.record("transport", "of the event loop", functools.partial(self._on_loop, self._close))

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
        found = {task for task in _tasks_of(self._loop) if _scope_of(task) is scope}
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
            return insistence.keep() or "the event loop did not get to it in time"

        pending.wait = wait
        if not _is_running_here(loop):
            pending.force = insistence
        return pending


def _finalise_at_end(generator: Any, _: object) -> None:
    finalise(generator)


def _scope_of(task: asyncio.Task[Any]) -> Scope | None:
    if hasattr(task, "get_context"):
        return scope_in(task.get_context())
    # Before Python 3.12 only the collector is told the context of a task.
    return next((scope_in(part) for part in gc.get_referents(task) if type(part) is contextvars.Context), None)


def _is_next_request(coro: Any) -> bool:
    """Tell whether a server's task is for the next request of a connection, begun at the end of the request before."""
    return getattr(coro, "__name__", "") == "run_asgi" and coro.cr_frame.f_globals.get("__name__", "").startswith(
        "uvicorn."
    )


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


def _number(fd: Any) -> int:
    return fd if isinstance(fd, int) else fd.fileno()
