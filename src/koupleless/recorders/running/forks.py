"""Children that code of a biz makes by ``os.fork`` in the middle of what the base runs for it.

Alone, a child that reaches the end of that code goes on as the server, with the server's sockets. Here it ends where
the biz's own code does: where the outermost function of the biz that is on the stack returns, raises, waits for the
event loop, or answers the request.
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
    from koupleless.ownership.ledger import Patches

_exit: Final = os._exit
_settrace: Final = sys.settrace
"""Both are the interpreter's own, whatever stands in their place for bizs."""


class OwnCode:
    """Which files are of a biz's own code: a facet of its scope.

    ``place`` is where its code is, and ``libraries`` are places, perhaps below that, where what it has brought is.
    """

    def __init__(self, place: str, libraries: Sequence[str]) -> None:
        self._place = os.path.join(place, "")  # noqa: PTH118 - a text, as in code objects
        self._libraries = tuple(os.path.join(one, "") for one in libraries)  # noqa: PTH118

    def __contains__(self, file: object) -> bool:
        return isinstance(file, str) and file.startswith(self._place) and not file.startswith(self._libraries)


class OwnProcess:
    """Says that nobody else is in the process: a child goes on as alone. A facet of the scope of a biz."""


def install(patches: Patches) -> None:
    """Replace what forks."""
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
        return  # which ends its children itself
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
    """Let a signal end the child: handlers of the server would only tell the server, and not the parent's at that."""
    with contextlib.suppress(ValueError):  # not on the main thread, which it is
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            if callable(signal.getsignal(number)):
                signal.signal(number, signal.default_int_handler if number is signal.SIGINT else signal.SIG_DFL)


_ENDS_OF_AWAITS: Final = (StopIteration, StopAsyncIteration)
"""What comes out of a coroutine that is awaited, and never out of this one."""


class _End:
    """The trace function of the child: looks at one frame alone."""

    def __init__(self, frame: FrameType) -> None:
        self._frame = frame
        self._raised: BaseException | None = None

    def __call__(self, frame: FrameType, event: str, arg: Any) -> _End | None:
        if frame is not self._frame:
            return None
        if event == "line":  # it has been handled
            self._raised = None
        elif event == "exception" and not issubclass(arg[0], _ENDS_OF_AWAITS):
            self._raised = arg[1]
        elif event == "return":
            _end(self._raised)
        return self


def _end(error: BaseException | None) -> NoReturn:
    """End the child, as an interpreter would that has come to the end of its program."""
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
