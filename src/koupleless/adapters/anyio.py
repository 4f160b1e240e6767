"""anyio: the worker threads of an event loop, which all bizs share, and the processor time of functions of a biz there.

Starlette and FastAPI run every function there that is not async. A worker thread ends together with one task, for which
anyio looks among all tasks: the server's, which a biz is not shown. The next best would be the task of the request, and
each request would start a thread of its own.
"""

from __future__ import annotations

import functools
import time
from typing import TYPE_CHECKING, Any, Final

from koupleless.context import as_base, current
from koupleless.frames import passed_over, standing_for
from koupleless.ownership.recording import Patches
from koupleless.traffic import Traffic

if TYPE_CHECKING:
    import contextlib
    from collections.abc import Awaitable, Callable

distribution: Final = "anyio"


def _follow(undo: contextlib.ExitStack, module: Any) -> None:
    """``anyio.to_thread``."""
    Patches.until(undo).replace(module, "run_sync", _run_sync)


def _follow_threads(undo: contextlib.ExitStack, module: Any) -> None:
    """The part of anyio for asyncio."""
    if hasattr(module, "find_root_task"):
        Patches.until(undo).replace(module, "find_root_task", _find_root_task)


def _find_root_task(original: Callable[[], Any]) -> Any:
    @standing_for(original)
    def find_root_task() -> Any:
        with as_base():
            return original()

    return find_root_task


def _run_sync(original: Callable[..., Awaitable[Any]]) -> Any:
    @standing_for(original)
    async def run_sync(func: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        scope = current()
        traffic = None if scope is None else scope.find_facet(Traffic)
        return await original(func if traffic is None else functools.partial(_timed, traffic, func), *args, **kwargs)

    return run_sync


@passed_over
def _timed(traffic: Traffic, function: Callable[..., Any], *args: Any) -> Any:
    begin = time.thread_time()
    try:
        return function(*args)
    finally:
        traffic.meter.add_work(time.thread_time() - begin)


follow: Final = {"anyio.to_thread": _follow, "anyio._backends._asyncio": _follow_threads}
follow_own: Final = follow
