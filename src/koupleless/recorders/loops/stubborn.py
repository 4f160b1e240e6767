"""Ends tasks despite caught cancellations: cancels again, interrupts, at last finalises, each task on the own loop.

A coroutine is finalised by ``GeneratorExit``, raised where the coroutine waits. A coroutine with a bare ``except``
catches ``GeneratorExit``, too, and waits again. On the own loop, the coroutine gets as far as the next await. Away from
the loop, on the thread where the collector happens to run, the coroutine would find no loop to wait on, catch the error
of the missing loop as well, and go round for ever. So a coroutine is finalised on the own loop: the interpreter
finalises an object once and not again, and the coroutine is ordinary garbage afterwards.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import gc
import math
import sys
import types
import weakref
from typing import TYPE_CHECKING, Any, Final

from koupleless.context import as_base
from koupleless.errors import in_words
from koupleless.frames import passed_over

if TYPE_CHECKING:
    import threading
    from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
    from typing import TypeAlias

    _Hook: TypeAlias = Callable[[AsyncGenerator[Any, Any]], None]


class TaskEnded(BaseException):
    """Raised in a task that has caught the cancellation of an uninstall; ``except Exception`` does not catch this."""


class Insistence:
    """The `Force` of tasks of a biz on one loop that were asked to end.

    Threads: the steps run on the loop's thread, at the request of the uninstalling thread.
    """

    patience_s = math.inf
    """Seconds of waiting before force, unlimited: a task may have work to finish, like a thread that is no daemon."""

    def __init__(self, loop: asyncio.AbstractEventLoop, ended: threading.Event) -> None:
        self.tasks: list[asyncio.Task[Any]] = []
        """The tasks asked to end; empty before the asking, and after all have ended."""
        self._loop = loop
        self._ended = ended

    def has_ended(self, timeout_s: float) -> bool:
        """Wait for the end of all tasks, at most ``timeout_s`` seconds. Returns whether all have ended."""
        return self._ended.wait(timeout_s)

    def steps(self) -> Sequence[Callable[[], str | None]]:
        """Return the steps of this `Force`: cancel once more, interrupt, finalise."""
        return (
            functools.partial(self._of_each, _cancel, "ended when {} was cancelled once more"),
            functools.partial(self._of_each, _interrupt, "ended when {} was interrupted"),
            functools.partial(self._of_each, _end, "was finalised, since {} catches everything"),
        )

    def _of_each(self, step: Callable[[asyncio.Task[Any]], object], said: str) -> str | None:
        left = self.left()
        if not left or _caller() is None:
            return None

        def take() -> None:
            with as_base():
                for task in left:
                    if not task.done():
                        step(task)
            left.clear()

        words = said.format(" and ".join(map(_place, left)))
        with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
            self._loop.call_soon_threadsafe(take, context=contextvars.Context())
        return words

    def left(self) -> list[asyncio.Task[Any]]:
        """Return the tasks that have not ended. From any thread."""
        return [task for task in list(self.tasks) if not task.done()]

    def errors(self) -> str | None:
        """Say in words which errors ended tasks have raised: nobody else asks for these errors."""
        errors = [(task, task.exception()) for task in self.tasks if task.done() and not task.cancelled()]
        told = [
            f"{task.get_name()}: {in_words(error)}"
            for task, error in errors
            if error is not None and not isinstance(error, TaskEnded)
        ]
        return "; ".join(told) or None

    def keep(self) -> str:
        """Give up: keep the tasks left from being collected, for ever. Returns, in words, where each task waits."""
        left = self.left()
        for task in left:
            if task not in kept:
                _keep(task)
        return "; ".join(f"{_place(task)} did not end when it was cancelled" for task in left)


def _cancel(task: asyncio.Task[Any]) -> None:
    task.cancel()


def _interrupt(task: asyncio.Task[Any], tries: int = 3) -> None:
    """Raise `TaskEnded` where a task waits. Unlike a finalised task, the task may wait again, to close a connection."""
    loop = task.get_loop()
    wakers = _detached(task)
    if not wakers and tries and not task.done():  # the turn of the task has come just now
        loop.call_soon(_interrupt, task, tries - 1)
    for wake_up, context in wakers:
        failed = loop.create_future()
        failed.set_exception(TaskEnded("its module has left"))
        failed.exception()  # or the loop would complain that nobody asked for the error
        task.add_done_callback(_retrieve)
        loop.call_soon(wake_up, failed, context=context)


def _end(task: asyncio.Task[Any]) -> None:
    """Finalise the coroutine of a task and cancel the task despite any answer; else leave the task suspended for ever.

    A task is left suspended if the coroutine cannot be finalised.
    """
    _detached(task)
    _forget_next_turn(task)
    ended.add(task)
    if _in_context(task).run(finalise, task.get_coro()):
        asyncio.Future.cancel(task)


def _detached(task: asyncio.Task[Any]) -> list[tuple[Callable[..., object], contextvars.Context]]:
    """Take a task off the awaited future.

    Returns the callbacks that would have woken the task up, with their contexts; none if the future is done.
    """
    waits_for: Any = getattr(task, "_fut_waiter", None)
    mine = [
        (callback, context)
        for callback, context in list(getattr(waits_for, "_callbacks", None) or ())
        if getattr(callback, "__self__", None) is task
    ]
    for callback, _ in mine:
        waits_for.remove_done_callback(callback)
    return mine


def _forget_next_turn(task: asyncio.Task[Any]) -> None:
    """Cancel the planned turn of a task. Loops other than asyncio's have no list of turns; they ask `ended`."""
    for handle in list(getattr(task.get_loop(), "_ready", ())):
        if getattr(getattr(handle, "_callback", None), "__self__", None) is task:
            handle.cancel()


def _in_context(task: asyncio.Task[Any]) -> contextvars.Context:
    if sys.version_info >= (3, 12):
        return task.get_context()
    parts = (part for part in gc.get_referents(task) if type(part) is contextvars.Context)
    return next(parts, contextvars.copy_context())  # before Python 3.12 only the collector is told the context


def _retrieve(task: asyncio.Task[Any]) -> None:
    if not task.cancelled():
        task.exception()


ended: Final[weakref.WeakSet[asyncio.Task[Any]]] = weakref.WeakSet()
"""The tasks with a finalised coroutine; a turn planned for such a task before is ignored."""


def _place(task: asyncio.Task[Any]) -> str:
    frame = next((frame for each in _chain(task.get_coro()) if (frame := _frame_of(each)) is not None), None)
    at = "" if frame is None else f" at {frame.f_code.co_filename}:{frame.f_lineno}"
    return f"task {task.get_name()!r}{at}"


# --- finalising -------------------------------------------------------------------------------------------------------

_ATTRIBUTES: Final[dict[type, tuple[str, str]]] = {
    types.CoroutineType: ("cr_frame", "cr_await"),
    types.GeneratorType: ("gi_frame", "gi_yieldfrom"),
    types.AsyncGeneratorType: ("ag_frame", "ag_await"),
}
_DEEPEST: Final = 1_000


def finalise(coroutine: object) -> bool:
    """Raise ``GeneratorExit`` in a suspended coroutine and in all awaited coroutines, once in each, and never again.

    Called where an event loop runs: a coroutine may catch ``GeneratorExit`` and await again. Returns whether all were
    finalised. An async generator counts as finalised if `finaliser_of` made the function that closes the generator.
    """
    call = _caller()
    if call is None:
        return False
    finalised: list[Any] = []
    for _ in range(_DEEPEST):
        # The innermost first: the awaiting coroutine is told of the end, and may then await another object.
        left = [each for each in _chain(coroutine) if _frame_of(each) is not None and not _is_among(each, finalised)]
        if not left:
            return True
        finalised.append(left[-1])
        if type(left[-1]) is types.AsyncGeneratorType:
            if left[-1] not in followed:
                return False
            ended_generators.add(left[-1])
        with _silence_about(left[-1]):
            call(left[-1])
    return False


followed: Final[weakref.WeakSet[AsyncGenerator[Any, Any]]] = weakref.WeakSet()
"""Async generators of bizs whose end is left to a function of `finaliser_of`."""
ended_generators: Final[weakref.WeakSet[AsyncGenerator[Any, Any]]] = weakref.WeakSet()
"""Finalised async generators, which must not run again."""


def finaliser_of(of_loop: _Hook) -> _Hook:
    """Make a function for the interpreter to close async generators with, around the function of a loop."""

    @passed_over
    def last_step(generator: AsyncGenerator[Any, Any]) -> None:
        if generator not in ended_generators:
            of_loop(generator)

    return last_step


def _is_among(thing: object, things: list[Any]) -> bool:
    return any(each is thing for each in things)


def _chain(thing: Any) -> Iterator[Any]:
    """Go from a coroutine along the awaited objects inwards, and yield the objects with a frame of their own."""
    for _ in range(_DEEPEST):
        attributes = _ATTRIBUTES.get(type(thing))
        if attributes is not None:
            yield thing
            thing = getattr(thing, attributes[1])
        elif type(thing).__name__ in _STEPS:
            thing = next((part for part in gc.get_referents(thing) if type(part) in _ATTRIBUTES), None)
        else:
            return


_STEPS: Final = frozenset({"coroutine_wrapper", "async_generator_asend", "async_generator_athrow"})
"""Names of the types between a coroutine, or an async generator, and the awaiting code."""


def _frame_of(thing: Any) -> types.FrameType | None:
    frame: types.FrameType | None = getattr(thing, _ATTRIBUTES[type(thing)][0])
    return frame


@functools.cache
def _caller() -> Callable[[object], None] | None:
    """Return the interpreter's function for finalising an object, at most once; ``None`` without ctypes."""
    try:
        import ctypes  # noqa: PLC0415 - a Python may be built without it
    except ImportError:
        return None
    return ctypes.PYFUNCTYPE(None, ctypes.py_object)(("PyObject_CallFinalizer", ctypes.pythonapi))


@contextlib.contextmanager
def _silence_about(thing: object) -> Iterator[None]:
    """Suppress the interpreter's complaint that a coroutine ignored ``GeneratorExit``: the report says so."""
    before = sys.unraisablehook

    def hook(unraisable: sys.UnraisableHookArgs, /) -> object:
        is_named = unraisable.object is thing or repr(thing) in (unraisable.err_msg or "")  # the words, from 3.14 on
        is_about_it = is_named and unraisable.exc_type is RuntimeError
        return None if is_about_it else before(unraisable)

    sys.unraisablehook = hook
    try:
        yield
    finally:
        if sys.unraisablehook is hook:
            sys.unraisablehook = before


@contextlib.contextmanager
def loop_at_hand() -> Iterator[None]:
    """Give this thread a running event loop that never turns, for coroutines finalised here by the collector."""
    before = asyncio._get_running_loop()  # noqa: SLF001 - never raises
    loop = asyncio.BaseEventLoop()
    asyncio._set_running_loop(loop)  # noqa: SLF001
    try:
        yield
    finally:
        asyncio._set_running_loop(before)  # noqa: SLF001
        loop.close()


# --- tasks without an end ---------------------------------------------------------------------------------------------

kept: Final[set[asyncio.Task[Any]]] = set()
"""Tasks that stay suspended, and are never collected until they are done."""


def _keep(task: asyncio.Task[Any]) -> None:
    """Keep a task with a coroutine that was not finalised from being collected.

    The task survives the end of the interpreter, too, at which the globals of all Python modules are cleared.
    """
    kept.add(task)
    count = _counting()
    if count is None:
        task.add_done_callback(kept.discard)
        return
    more, less = count

    def done(task: asyncio.Task[Any]) -> None:
        kept.discard(task)
        less(task)

    more(task)
    task.add_done_callback(done)


@functools.cache
def _counting() -> tuple[Callable[[object], None], Callable[[object], None]] | None:
    """Return the functions for raising and lowering the reference count of an object; ``None`` without ctypes."""
    try:
        import ctypes  # noqa: PLC0415
    except ImportError:
        return None
    call = ctypes.PYFUNCTYPE(None, ctypes.py_object)
    return call(("Py_IncRef", ctypes.pythonapi)), call(("Py_DecRef", ctypes.pythonapi))
