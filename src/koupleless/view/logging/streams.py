"""Keep a copy of the output of bizs: lines written to stdout and stderr also go to the log of the biz that writes.

The stream gets everything as before. Text that a handler of logging writes is no output: the log has the record. Bytes
written to the buffer below a stream, or to a file descriptor, are not seen.
"""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, Any, Final

from koupleless.context import current
from koupleless.frames import standing_for
from koupleless.replacing import Shared, replace
from koupleless.view.logging.logspace import LogSpace

if TYPE_CHECKING:
    import contextlib
    from collections.abc import Callable
    from types import CodeType, FrameType

_LEVELS: Final = {"stdout": "INFO", "stderr": "WARNING"}
_HANDLE: Final[CodeType] = logging.Handler.handle.__code__


def _copying(name: str, original: Callable[[str], int]) -> Callable[[str], int]:
    level = _LEVELS[name]

    @standing_for(original)
    def write(text: str, /) -> int:
        scope = current()
        written = original(text)
        if scope is not None:
            space = scope.find_facet(LogSpace)
            if space is not None and space.file is not None and not _is_of_handler(sys._getframe(1)):  # noqa: SLF001
                space.note_output(level, name, text)
        return written

    return write


def _is_of_handler(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code is _HANDLE:
            return True
        frame = frame.f_back
    return False


def _put_in(undo: contextlib.ExitStack) -> None:
    for name in _LEVELS:
        for stream in dict.fromkeys((getattr(sys, name), getattr(sys, f"__{name}__"))):
            write: Any = getattr(stream, "write", None)
            if write is not None and hasattr(stream, "__dict__"):
                replace(undo, stream, "write", _copying(name, write))


STREAMS: Final = Shared("copies of the standard streams", _put_in)
"""Output of bizs in their logs."""
