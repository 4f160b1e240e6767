"""The tasks of one biz on a loop: told by the context of each task, awaited by others, listed for the biz alone."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import threading
from typing import TYPE_CHECKING, Any, Final

from koupleless.context import Scope, entered, scope_in
from koupleless.errors import BizGone
from koupleless.router.lifespan import open_lifespans

if TYPE_CHECKING:
    from collections.abc import Callable

tasks_of: Final = asyncio.all_tasks
"""The interpreter's ``all_tasks``, which lists the tasks of all bizs to every caller."""


def working_tasks(loop: asyncio.AbstractEventLoop) -> set[asyncio.Task[Any]]:
    """Return the tasks on a loop, of all bizs, except tasks of lifespans at rest.

    Each of a thousand applications has a lifespan at rest, which the protocol of lifespans ends.
    """
    return tasks_of(loop) - open_lifespans


def scope_of(task: asyncio.Task[Any]) -> Scope | None:
    """Return the scope of the biz as which a task runs; ``None`` for a task of the base."""
    if hasattr(task, "get_context"):
        return scope_in(task.get_context())
    # Before Python 3.12 only the collector is told the context of a task.
    return next((scope_in(part) for part in gc.get_referents(task) if type(part) is contextvars.Context), None)


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
        tasks = working_tasks(self._loop)
        return [task for task in tasks if scope_of(task) is self._scope and self._waiters(task)]

    def _waiters(self, task: asyncio.Task[Any]) -> list[tuple[Callable[[Any], object], contextvars.Context]]:
        callbacks = list(getattr(task, "_callbacks", None) or ())
        return [
            (callback, context)
            for callback, context in callbacks
            # A worker thread of anyio ends with a task, and does not wait for the task.
            if scope_in(context) is not self._scope
            and not isinstance(getattr(callback, "__self__", None), threading.Thread)
        ]

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
