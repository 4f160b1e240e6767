"""What a biz's own exception looks like to its author: their frames, not ours, and the sentence that matters.

Texts only. Keeping the exception itself would keep its frames, and with them the biz that is being removed.
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


def in_words(error: BaseException, scope: Scope) -> str:
    """One line: the type and text of ``error``, as the last line of its traceback says it, and what we advise.

    ``scope`` is that of the biz whose error it is. What is advised may concern a cause that the biz named for it.
    """
    try:
        words = "".join(traceback.format_exception_only(error)).strip()
        for cause in _causes(error):
            advice = advice_on(cause, scope)
            if advice:
                said = "" if str(cause) in words else f" ({cause})"
                return f"{words.removesuffix(advice).rstrip()}{said}: {advice}"  # which may be a note of the error
    except BaseException:  # noqa: BLE001 - the class of the exception, or one that isinstance asks, is code of the biz
        return errors.in_words(error)
    return words


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An error, what it was raised from, and so on."""
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
