"""Recorders for one event loop: tasks, timers, readers, servers and connections that bizs make on the loop.

A loop is adopted by replacing methods on the instance, where the code of asyncio, of uvloop and of all other callers
looks the methods up. Objects created by a biz are kept weakly, in sets that only the loop's thread touches. So nothing
has to be forgotten when a task ends or a timer fires, and a biz pays one set insertion for each object. Callbacks of
``call_soon``, the hottest call of a server, are not kept: they have run after the two turns that leaving waits for.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import itertools
import sys
import threading
import warnings
import weakref
from typing import TYPE_CHECKING, Any, Final

from koupleless.context import Scope, as_base, current
from koupleless.frames import passed_over, standing_for
from koupleless.ownership.kinds import Kind, Own
from koupleless.ownership.ledger import Ledger
from koupleless.ownership.purge import Sweep
from koupleless.ownership.recording import Patches
from koupleless.recorders.loops import footprint as footprints
from koupleless.recorders.loops.footprint import Footprint
from koupleless.recorders.loops.guards import guard_soon, guard_turn, guarded, tell_exit
from koupleless.recorders.loops.protocols import guarded_factory
from koupleless.recorders.loops.stubborn import finaliser_of, followed
from koupleless.recorders.loops.tasks import scope_of, tasks_of, working_tasks
from koupleless.recorders.names import name_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

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
_HANDLERS: Final = Kind("loop exception handler", "loop.set_exception_handler", "the handler before is put back")
KINDS: Final = (*footprints.KINDS, _HANDLERS)

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
        # A footprint looks for such tasks itself.
        if not adoption.has_footprint_of(ledger.scope) and adoption.has_task_of(ledger.scope):
            adoption.footprint_of(ledger)


def _sweep_callbacks(survey: Survey) -> int:
    """Remove functions of the biz from tasks of others: such a task may never end, as the server's task for anyio."""
    count = 0
    for adoption in list(_adoptions):
        tasks = list(adoption.tasks())
        # Chosen in C code: a thousand modules have a thousand tasks at rest, without callbacks.
        has_callbacks = map(getattr, tasks, itertools.repeat("_callbacks"), itertools.repeat(None))
        for task in itertools.compress(tasks, has_callbacks):
            for callback, _ in list(getattr(task, "_callbacks", None) or ()):
                if survey.reaches(callback):
                    count += task.remove_done_callback(callback)
    return count


SWEEPS: Final = (Sweep("done callback", "callbacks of tasks of others", _sweep_callbacks),)


class Adoption:
    """The recorders of one loop. Lifetime: until every caller of `adopt_loop` has released the adoption."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.holders = 0
        self.watched: dict[tuple[str, int], Footprint] = {}
        """The footprint of the biz that watches a descriptor, by the name of the removing method and the descriptor."""
        self.asked: weakref.WeakSet[asyncio.Task[Any]] = weakref.WeakSet()
        """The tasks that an uninstall has cancelled."""
        self._footprints = Own(self._make_footprint)
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
            replace("call_soon", guard_soon)
            replace("call_soon_threadsafe", guard_soon)
        else:
            replace("_run_once", guard_turn)
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
        footprint = self._footprints.find(ledger.scope)
        loop = self._loop()
        if footprint is None and loop is not None:
            footprint = self._footprints.of(ledger.scope)
            footprint.open(ledger, functools.partial(self._footprints.take, ledger.scope))
        return footprint

    def _make_footprint(self) -> Footprint:
        loop = self._loop()
        assert loop is not None
        return Footprint(loop, self.watched, self.asked)

    def tasks(self) -> set[asyncio.Task[Any]]:
        """Return all tasks of this loop that have not ended. From any thread."""
        loop = self._loop()
        return set() if loop is None else tasks_of(loop)

    def has_footprint_of(self, scope: Scope) -> bool:
        """Tell whether a biz has made anything by this loop."""
        return self._footprints.find(scope) is not None

    def has_task_of(self, scope: Scope) -> bool:
        """Tell whether a task on this loop runs as a biz. From any thread."""
        loop = self._loop()
        return loop is not None and any(scope_of(task) is scope for task in working_tasks(loop))

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
                callback, args = guarded, (callback, *args)
            handle = original(moment, callback, *args, context=context)
            footprint.timers.add(handle)
            return handle

        return schedule

    def _watch(self, remove: str, original: Callable[..., object]) -> Any:
        @standing_for(original)
        def watch(fd: Any, callback: Callable[..., object], *args: Any) -> object:
            footprint = None if current() is None else self._footprint()
            if footprint is not None and self._guards_each:
                callback, args = guarded, (callback, *args)
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
                kwargs["protocol_factory"] = guarded_factory(kwargs["protocol_factory"], tell_exit)
            elif args:
                args = (guarded_factory(args[0], tell_exit), *args[1:])
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
                _HANDLERS.record(ledger, name_of(handler), undo)

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
        text = f"biz {scope.biz} called {name} of the event loop, which all modules share; the call was ignored"
        warnings.warn(text, RuntimeWarning, stacklevel=2)
        if name.startswith("shutdown_"):
            return asyncio.sleep(0)
        return False if name == "remove_signal_handler" else None

    return refused


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
        return {task for task in tasks if task is here or scope_of(task) is scope}

    return all_tasks


def _is_next_request(coro: Any) -> bool:
    """Tell whether a server's task is for the next request of a connection, begun at the end of the request before."""
    return getattr(coro, "__name__", "") == "run_asgi" and coro.cr_frame.f_globals.get("__name__", "").startswith(
        "uvicorn."
    )


def _number(fd: Any) -> int:
    return fd if isinstance(fd, int) else fd.fileno()
