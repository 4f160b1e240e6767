"""What a biz's own exception looks like to its author: their frames, not ours, and the sentence that matters.

Texts only. Keeping the exception itself would keep its frames, and with them the biz that is being removed.
"""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import Final

from koupleless import errors
from koupleless.errors import ModuleRefused

_OWN_ROOT: Final = str(Path(__file__).parent.parent) + "/"
_MACHINERY: Final = ("<frozen importlib", "<frozen runpy")
_WORKER: Final = ("/concurrent/futures/", "/threading.py")


def own_traceback(error: BaseException) -> str:
    """The traceback of ``error`` with its causes, without the frames of this package and of the import system."""
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


def in_words(error: BaseException) -> str:
    """One line: the type and text of ``error``, as the last line of its traceback says it, and what we advise."""
    if isinstance(error, ModuleRefused) and error.advice:
        return f"{type(error).__module__}.{type(error).__qualname__}: {error}: {error.advice}"
    try:
        return "".join(traceback.format_exception_only(error)).strip()
    except BaseException:  # noqa: BLE001 - the class of the exception, or one that isinstance asks, is code of the biz
        return errors.in_words(error)


def _is_users(filename: str) -> bool:
    if filename.startswith((_OWN_ROOT, *_MACHINERY)):
        return False
    return not any(part in filename for part in _WORKER)
