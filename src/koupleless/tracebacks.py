"""Tracebacks without frames of this package and of the import system: the one place that cuts.

`clean` and `leave` cut the traceback of an error on its way to code of a biz, `own_traceback` writes a text for people.
"""

from __future__ import annotations

import importlib
import os
import traceback
from typing import TYPE_CHECKING, Final

from koupleless.frames import is_ours

if TYPE_CHECKING:
    from types import TracebackType

_PACKAGE: Final = os.path.join(os.path.dirname(os.path.abspath(__file__)), "")  # noqa: PTH118, PTH100, PTH120 - compared with co_filename
_IMPORTS: Final = ("<frozen importlib", os.path.join(_PACKAGE, "isolation", ""))  # noqa: PTH118
"""Beginnings of the file names of frames between an import and the code of the imported Python module."""
_MACHINERY: Final = ("<frozen importlib", "<frozen runpy", importlib.__file__, _PACKAGE)
_WORKERS: Final = ("/concurrent/futures/", "/threading.py")


def clean(error: BaseException) -> None:
    """Cut the import machinery out of an error's traceback, unless the machinery itself has failed."""
    last = error.__traceback__
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    if last is not None and (isinstance(error, ImportError) or not is_ours(last.tb_frame)):
        error.__traceback__ = trimmed(error.__traceback__)


def trimmed(trace: TracebackType | None) -> TracebackType | None:
    """Return the traceback without frames of imports; the traceback is changed in place."""
    while trace is not None and _is_of_import(trace):
        trace = trace.tb_next
    at = trace
    while at is not None:
        after = at.tb_next
        while after is not None and _is_of_import(after):
            after = after.tb_next
        at.tb_next = after
        at = after
    return trace


def _is_of_import(trace: TracebackType) -> bool:
    return trace.tb_frame.f_code.co_filename.startswith(_IMPORTS)


def leave(error: BaseException) -> None:
    """Take the frames of ours passed last out of an error's traceback; a bare ``raise`` is to follow.

    A bare ``raise`` adds no entry for its own function, so the traceback goes on as if nothing of ours had been there.
    An error without any other frame keeps ours: the fault may be our own.
    """
    trace = error.__traceback__
    while trace is not None and is_ours(trace.tb_frame):
        trace = trace.tb_next
    if trace is not None:
        error.__traceback__ = trace


def own_traceback(error: BaseException) -> str:
    """Format an error with its causes, without the frames of this package, of the import system and of workers."""
    summary = traceback.TracebackException.from_exception(error, compact=True)
    seen: set[int] = set()
    pending: list[traceback.TracebackException | None] = [summary]
    while pending:
        part = pending.pop()
        if part is None or id(part) in seen:
            continue
        seen.add(id(part))
        part.stack = traceback.StackSummary.from_list([frame for frame in part.stack if _is_users(frame.filename)])
        pending += [part.__cause__, part.__context__, *(part.exceptions or ())]
    return "".join(summary.format())


def _is_users(filename: str) -> bool:
    return not filename.startswith(_MACHINERY) and not any(part in filename for part in _WORKERS)
