"""Replies of bases to commands, judged. Bases of the original say some things in other words, or not at all.

Source: ``module-controller`` 2.2.0 and ``runtime`` 1.4.2 of the original, as described for both tunnels.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from koupleless.wire.envelope import ResponseCode

if TYPE_CHECKING:
    from collections.abc import Mapping

    from koupleless.wire.envelope import Envelope

_BUSY: Final = ("command conflict", "unfinished command")
_BUSY_CODES: Final = frozenset({"Container.BizBusy"})
_NO_WORD: Final = frozenset("_. :")


class Outcome(enum.Enum):
    """The judgement about a command."""

    DONE = "done"
    REFUSED = "refused"
    """The base has said no; another attempt comes after a pause."""
    BUSY = "busy"
    """Another command for the module runs; the list of the base will tell the rest."""
    UNCERTAIN = "uncertain"
    """The list of the base has to tell: the module was there before, or nobody knows whether the command arrived."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A judged reply."""

    outcome: Outcome
    reason: str = ""
    """One word, as in Kubernetes."""
    message: str = ""
    """The words of the base, with advice where the base gives some."""


def answer_to_install(reply: Envelope) -> Answer:
    """Judge the reply to ``installBiz``."""
    if reply.is_success:
        return Answer(Outcome.DONE, "Installed", _message(reply))
    if _code(reply) == ResponseCode.REPEAT_BIZ.value:
        return Answer(Outcome.UNCERTAIN, "AlreadyInstalled", _message(reply))
    return _failure(reply, "InstallFailed")


def answer_to_switch(reply: Envelope) -> Answer:
    """Judge the reply to ``switchBiz``."""
    return Answer(Outcome.DONE, "Switched", _message(reply)) if reply.is_success else _failure(reply, "SwitchFailed")


def answer_to_uninstall(reply: Envelope) -> Answer:
    """Judge the reply to ``uninstallBiz``: a module that is not there is uninstalled."""
    if reply.is_success or _code(reply) == ResponseCode.NOT_FOUND_BIZ.value:
        return Answer(Outcome.DONE, "Uninstalled", _message(reply))
    return _failure(reply, "UninstallFailed")


def _failure(reply: Envelope, otherwise: str) -> Answer:
    message = _message(reply)
    if reply.error_type in _BUSY_CODES or any(words in message for words in _BUSY):
        return Answer(Outcome.BUSY, "Busy", message)
    return Answer(Outcome.REFUSED, reason_of(reply.error_type) or otherwise, message)


def reason_of(error_type: str | None) -> str:
    """Return the type of an error code of two levels, such as ``StartFailed`` of ``Biz.StartFailed``: one word."""
    return "".join(letter for letter in (error_type or "").rpartition(".")[2] if letter not in _NO_WORD)


def _data(reply: Envelope) -> Mapping[str, Any]:
    return reply.data if isinstance(reply.data, dict) else {}


def _code(reply: Envelope) -> str:
    return str(_data(reply).get("code") or "")


def _message(reply: Envelope) -> str:
    """Return the most telling text: that of the module, else the often generic one of the envelope."""
    texts = (_data(reply).get("message"), reply.message, reply.code.value)
    return next(text for text in texts if isinstance(text, str) and text)
