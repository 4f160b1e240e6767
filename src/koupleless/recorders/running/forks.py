"""Ends children that code of a biz makes by ``os.fork`` while the base runs that code.

Without a base, such a child reaches the end of the code and goes on as the server, with the server's sockets. Here the
child ends at the end of the biz's own code: where the outermost function of the biz on the stack returns, raises, waits
for the event loop, or answers the request.
"""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import sys
import traceback
from typing import TYPE_CHECKING, Any, Final, NoReturn

from koupleless import exits
from koupleless.context import current
from koupleless.frames import standing_for

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import FrameType

    from koupleless.context import Scope
    from koupleless.ownership.recording import Patches

_exit: Final = os._exit
_settrace: Final = sys.settrace
"""The interpreter's own functions, as ``_exit`` is: bizs find other functions in their place."""


class OwnCode:
    """The files of a biz's own code: a facet of the scope of the biz.

    ``place`` is the directory of the code. ``libraries`` are directories, perhaps below ``place``, of libraries that
    the biz has brought along.
    """

    def __init__(self, place: str, libraries: Sequence[str]) -> None:
        self._place = os.path.join(place, "")  # noqa: PTH118 - a text, as in code objects
        self._libraries = tuple(os.path.join(one, "") for one in libraries)  # noqa: PTH118

    def __contains__(self, file: object) -> bool:
        return isinstance(file, str) and file.startswith(self._place) and not file.startswith(self._libraries)


class OwnProcess:
    """Mark of a process without others: a forked child goes on as without a base. A facet of the scope of a biz."""


def install(patches: Patches) -> None:
    """Replace the functions that fork."""
    for name in ("os", "posix"):
        for function in ("fork", "forkpty"):
            if name in sys.modules:
                patches.replace(sys.modules[name], function, _fork)


def _fork(original: Callable[[], Any]) -> Any:
    @standing_for(original)
    def fork() -> Any:
        scope = current()
        answer = original()
        is_child = (answer[0] if isinstance(answer, tuple) else answer) == 0
        if is_child and scope is not None and scope.find_facet(OwnProcess) is None:
            _begin_child(scope, sys._getframe(1))  # noqa: SLF001
        return answer

    return fork


def _begin_child(scope: Scope, caller: FrameType) -> None:
    _forget_signals()
    if str(caller.f_globals.get("__name__")).partition(".")[0] == "multiprocessing":
        return  # multiprocessing ends children itself
    own = scope.find_facet(OwnCode)
    outermost: FrameType | None = None
    frame: FrameType | None = caller
    while frame is not None:
        if own is not None and frame.f_code.co_filename in own:
            outermost = frame
        frame = frame.f_back
    exits.end_child = functools.partial(_end, None)
    if outermost is None:
        exits.end_child()
    end = _End(outermost)
    outermost.f_trace = end
    outermost.f_trace_lines = True
    _settrace(end)


def _forget_signals() -> None:
    """Let a signal end the child: handlers of the server would tell only the child's copy of the server."""
    with contextlib.suppress(ValueError):  # not on the main thread, though the child's only thread is the main thread
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            if callable(signal.getsignal(number)):
                signal.signal(number, signal.default_int_handler if number is signal.SIGINT else signal.SIG_DFL)


_ENDS_OF_AWAITS: Final = (StopIteration, StopAsyncIteration)
"""Errors that end an awaited coroutine, and never end the traced function."""


class _End:
    """The trace function of the child: looks at one frame alone."""

    def __init__(self, frame: FrameType) -> None:
        self._frame = frame
        self._raised: BaseException | None = None

    def __call__(self, frame: FrameType, event: str, arg: Any) -> _End | None:
        if frame is not self._frame:
            return None
        if event == "line":  # the exception has been handled
            self._raised = None
        elif event == "exception" and not issubclass(arg[0], _ENDS_OF_AWAITS):
            self._raised = arg[1]
        elif event == "return":
            _end(self._raised)
        return self


def _end(error: BaseException | None) -> NoReturn:
    """End the child, as an interpreter ends at the end of its program."""
    status: Any = 0
    if isinstance(error, SystemExit):
        status = error.code
    elif error is not None:
        traceback.print_exception(error)
        status = 1
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    _exit(status if isinstance(status, int) else int(status is not None))
