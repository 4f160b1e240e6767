"""Tells an author the error of a biz: the frames of the author, not ours, and the sentence to read first.

Texts only: the exception would keep its frames, and with the frames the biz to be removed.
"""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Final

from koupleless import errors
from koupleless.isolation.linking.linker import advice_on

if TYPE_CHECKING:
    from collections.abc import Iterator

    from koupleless.context import Scope

_OWN_ROOT: Final = str(Path(__file__).parents[2]) + "/"
_MACHINERY: Final = ("<frozen importlib", "<frozen runpy")
_WORKER: Final = ("/concurrent/futures/", "/threading.py")


def own_traceback(error: BaseException) -> str:
    """Format ``error`` with its causes, without the frames of this package and of the import system."""
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


def in_words(error: BaseException, scope: Scope) -> str:
    """Say an error in one line: type and text, as in the last line of a traceback, and our advice.

    ``scope`` belongs to the biz of the error. The advice may concern a cause named by the biz (``raise ... from``).
    """
    try:
        words = "".join(traceback.format_exception_only(error)).strip()
        for cause in _causes(error):
            advice = advice_on(cause, scope)
            if advice:
                said = "" if str(cause) in words else f" ({cause})"
                return f"{words.removesuffix(advice).rstrip()}{said}: {advice}"  # the advice may be a note of the error
    except BaseException:  # noqa: BLE001 - the class of the exception, or one that isinstance asks, is code of the biz
        return errors.in_words(error)
    return words


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error, its cause, and so on."""
    known: dict[int, BaseException] = {}
    cause: BaseException | None = error
    while cause is not None and id(cause) not in known:
        known[id(cause)] = cause
        yield cause
        cause = cause.__cause__


def _is_users(filename: str) -> bool:
    if filename.startswith((_OWN_ROOT, *_MACHINERY)):
        return False
    return not any(part in filename for part in _WORKER)
