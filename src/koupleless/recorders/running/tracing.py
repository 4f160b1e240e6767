"""Recorders for ``sys.settrace`` and ``sys.setprofile``: the function before is put back, on the thread itself."""

from __future__ import annotations

import asyncio
import functools
import sys
import threading
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from koupleless.frames import standing_for
from koupleless.ownership.kinds import Kind, Own
from koupleless.ownership.ledger import NOTHING, Entry, Pending, owner

if TYPE_CHECKING:
    from collections.abc import Callable

    from koupleless.ownership.recording import Patches

_TRACE: Final = Kind("trace function", "sys.settrace", "put back on its thread")
_PROFILE: Final = Kind("profile function", "sys.setprofile", "put back on its thread")
KINDS: Final = (_TRACE, _PROFILE)


def install(patches: Patches) -> None:
    """Replace the functions that set a trace or profile function for a thread."""
    patches.replace(sys, "settrace", functools.partial(_set_tracer, _TRACE, sys.gettrace))
    patches.replace(sys, "setprofile", functools.partial(_set_tracer, _PROFILE, sys.getprofile))


class _Set(NamedTuple):
    """The function that a biz has set on one thread, and the function before."""

    entry: Entry
    function: object
    before: object


def _set_tracer(kind: Kind, now: Callable[[], object], original: Callable[[Any], None]) -> Any:
    if getattr(original, "__module__", "") == "pydevd_tracing":
        return original  # a debugger has replaced the function, and complains of every caller but ``threading``
    set_here: Own[dict[int, _Set]] = Own(dict)

    @standing_for(original)
    def set_tracer(function: Any, /) -> None:
        # All bookkeeping is done first: code that runs after the original is traced.
        ledger = owner()
        if ledger is not None:
            before = now()
            # A thread that sets another function, or none, as a continuing debugger does, has ended the former itself.
            functions = set_here.of(ledger.scope)
            former = functions.pop(threading.get_ident(), None)
            if former is not None:
                ledger.forget(former.entry)
                before = former.before if former.function is before else before
            if function is not None and before is not function:
                thread, loop = threading.current_thread(), asyncio._get_running_loop()  # noqa: SLF001 - never raises
                undo = functools.partial(_end_tracing, original, now, function, before, thread, loop)
                entry = kind.record(ledger, f"of thread {thread.name!r}", undo)
                functions[threading.get_ident()] = _Set(entry, function, before)
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
