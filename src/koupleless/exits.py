"""What code of a biz raises to end its program, which is not its own: told, and put in the place of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NoReturn

from koupleless.frames import is_ours

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

EXITS: Final = (SystemExit, KeyboardInterrupt)
"""What an event loop, or a thread of a server, lets through, and ends by."""

end_child: Callable[[], NoReturn] | None = None
"""In a child that code of a biz has forked: ends it, to be called where it would go on as the server."""


def in_words(error: BaseException, who: str, doing: str) -> str:
    """Who called what, and where; ``doing`` says in the middle of what, as "while it served a request"."""
    what = f"called sys.exit({error.code!r})" if isinstance(error, SystemExit) else f"raised {type(error).__name__}"
    end = _end_of(error)
    if end is None or _module_of(end).startswith("asyncio."):  # a timer may call sys.exit itself
        return f"{who} {what} {doing}"
    return f"{who} {what} {doing}, at {end.tb_frame.f_code.co_filename}:{end.tb_lineno}"


def in_place_of(error: BaseException, who: str, doing: str) -> RuntimeError:
    """The error for whoever waits for the code, in these words."""
    return RuntimeError(in_words(error, who, doing))


def is_of_signal(error: BaseException) -> bool:
    """Whether somebody has interrupted the process, and only met the code of a biz there."""
    end = _end_of(error)
    return end is not None and end.tb_frame.f_code.co_name == "_on_sigint"  # of asyncio's runner


def _end_of(error: BaseException) -> TracebackType | None:
    """Where it was raised, of what is not ours."""
    end, trace = None, error.__traceback__
    while trace is not None:
        if not is_ours(trace.tb_frame):
            end = trace
        trace = trace.tb_next
    return end


def _module_of(trace: TracebackType) -> str:
    return str(trace.tb_frame.f_globals.get("__name__"))
