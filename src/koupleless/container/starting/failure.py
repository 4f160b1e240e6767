"""Tells an author the error of a biz: the sentence to read first, and our advice.

Texts only: the exception would keep its frames, and with the frames the biz to be removed.
"""

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING

from koupleless import errors
from koupleless.isolation.linking.linker import advice_on

if TYPE_CHECKING:
    from collections.abc import Iterator

    from koupleless.context import Scope


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
