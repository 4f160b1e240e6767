"""Exits: errors raised by code of a biz to end its program, which is the base's; told in words, and replaced."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NoReturn

from koupleless.frames import is_ours

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

EXITS: Final = (SystemExit, KeyboardInterrupt)
"""Errors which an event loop, or a thread of a server, lets through, and ends by."""

end_child: Callable[[], NoReturn] | None = None
"""In a child process forked by code of a biz: ends the child; called where the child would go on as the server."""


def in_words(error: BaseException, who: str, doing: str) -> str:
    """Say who has called ``sys.exit``, and where; ``doing`` says meanwhile, as "while it served a request"."""
    what = f"called sys.exit({error.code!r})" if isinstance(error, SystemExit) else f"raised {type(error).__name__}"
    end = _end_of(error)
    if end is None or _module_of(end).startswith("asyncio."):  # a timer may call sys.exit itself
        return f"{who} {what} {doing}"
    return f"{who} {what} {doing}, at {end.tb_frame.f_code.co_filename}:{end.tb_lineno}"


def in_place_of(error: BaseException, who: str, doing: str) -> RuntimeError:
    """Make the error for the callers of the code, with the words of `in_words`."""
    return RuntimeError(in_words(error, who, doing))


def is_of_signal(error: BaseException) -> bool:
    """Whether a user has interrupted the process, and only met the code of a biz there."""
    end = _end_of(error)
    return end is not None and end.tb_frame.f_code.co_name == "_on_sigint"  # of asyncio's runner


def _end_of(error: BaseException) -> TracebackType | None:
    """Find the innermost entry of the traceback outside our code."""
    end, trace = None, error.__traceback__
    while trace is not None:
        if not is_ours(trace.tb_frame):
            end = trace
        trace = trace.tb_next
    return end


def _module_of(trace: TracebackType) -> str:
    return str(trace.tb_frame.f_globals.get("__name__"))
