"""Open questions to bases: an answer finds the question by base and subject."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any, Final

from koupleless.controller.tunnels.tunnel import Deaf, NoAnswer

_MOST_ANSWERS: Final = 16
"""Answers to one question that wait to be read; further ones are no answers of a sane base."""


class Again(Exception):
    """The base has been heard for the first time on this connection: the question may have come too early."""


@dataclass(slots=True, eq=False)
class Question:
    """One open question. Used on one event loop."""

    asked: float
    """The time of the question."""
    _answers: asyncio.Queue[Any] = field(default_factory=lambda: asyncio.Queue(_MOST_ANSWERS))

    async def answer(self, limit_s: float) -> Any:
        """Wait for the next answer. Raises `NoAnswer` if the connection breaks, `Again` and ``TimeoutError``."""
        async with asyncio.timeout(limit_s):
            found = await self._answers.get()
        if isinstance(found, NoAnswer | Again):
            raise found
        return found

    def take(self, answer: object) -> None:
        """Take an answer, `NoAnswer` or `Again`."""
        if not self._answers.full():
            self._answers.put_nowait(answer)


class Pending:
    """The open questions to all bases, one of each subject to a base. Used on one event loop."""

    def __init__(self) -> None:
        self._open: dict[tuple[str, str], Question] = {}

    def open(self, identity: str, subject: str, now: float) -> Question:
        """Open a question. Raises `NoAnswer` while the same one is open."""
        key = identity, subject
        if key in self._open:
            raise NoAnswer(f"base {identity} has not answered the last {subject} yet")
        question = self._open[key] = Question(now)
        return question

    def find(self, identity: str, subject: str) -> Question | None:
        """Return the open question; ``None`` without one."""
        return self._open.get((identity, subject))

    def close(self, identity: str, subject: str) -> None:
        """Close a question: later answers answer nothing."""
        self._open.pop((identity, subject), None)

    def repeat(self, identity: str) -> None:
        """Have all questions to a base asked once more."""
        for (other, _), question in self._open.items():
            if other == identity:
                question.take(Again())

    def fail(self, reason: str, *, of: str | None = None) -> None:
        """Leave all questions without an answer, by a fault of the tunnel, or those to one base, by the base."""
        kind = Deaf if of is None else NoAnswer
        for (identity, subject), question in self._open.items():
            if of in {None, identity}:
                question.take(kind(f"base {identity} gives no answer to {subject}: {reason}"))
