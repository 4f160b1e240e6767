"""anyio: processor time of functions that a biz has run on the worker threads of the event loop, which all share.

Starlette and FastAPI run every function there that is not async.
"""

from __future__ import annotations

import functools
import time
from typing import TYPE_CHECKING, Any, Final

from koupleless.context import current
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


follow: Final = {"anyio.to_thread": _follow}
follow_own: Final = follow
