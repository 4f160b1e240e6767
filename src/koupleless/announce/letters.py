"""The messages of a base over MQTT: topics, the envelope, replies as this transport spells them, and the outbox."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import msgspec

from koupleless.wire.envelope import Code, Envelope, ResponseCode, encode
from koupleless.wire.replies import BizReply

if TYPE_CHECKING:
    from collections.abc import Sequence

    from koupleless.wire.replies import BizInfo

MOST_LETTERS: Final = 1_000
LAST_MS: Final = 253_402_300_799_000
"""The time of a message that is sent long after it was written: the end of the year 9999, which is never too old."""


@dataclass(frozen=True, slots=True)
class Topics:
    """The topics of one base: commands come in directly below ``root``, messages of the base are below ``base``."""

    root: str

    @classmethod
    def of(cls, environment: str, identity: str) -> Topics:
        """The topics by environment and identity; the environment is spelled in lower case, as by the original."""
        return cls(f"koupleless_{environment.lower()}/{identity}")

    @property
    def commands(self) -> str:
        """The filter for commands."""
        return f"{self.root}/+"

    @property
    def baseline(self) -> str:
        """The topic of baselines."""
        return f"{self.root}/base/baseline"

    def out(self, kind: str) -> str:
        """The topic for one kind of message of the base."""
        return f"{self.root}/base/{kind}"

    def command_of(self, topic: str) -> str:
        """The command that a topic names."""
        return topic.removeprefix(f"{self.root}/")


def letter(data: object, *, time_ms: int | None = None) -> bytes:
    """One message, with the time by which the controller judges the age: now, unless given."""
    return encode({"publishTimestamp": time.time_ns() // 1_000_000 if time_ms is None else time_ms, "data": data})


def simple_list(bizs: Sequence[BizInfo]) -> list[dict[str, Any]]:
    """The short form of a list of bizs: each with the last change or ``null``, and the health if known."""
    return [
        {
            "name": biz.biz_name,
            "version": biz.biz_version,
            "state": biz.biz_state.value,
            "latestStateRecord": {
                "changeTime": (record := biz.biz_state_records[-1]).change_time,
                "state": record.state.value,
                "reason": record.reason.name,
                "message": record.message,
            }
            if biz.biz_state_records
            else None,
            **({} if biz.health is msgspec.UNSET else {"health": biz.health}),
        }
        for biz in bizs
    ]


def answer(command: str, reply: Envelope, *, name: str | None = None, version: str | None = None) -> dict[str, Any]:
    """The answer to a command that changes bizs; ``name`` and ``version`` as sent."""
    named = {"bizName": name, "bizVersion": version}
    return {
        "command": command,
        **{key: value for key, value in named.items() if value is not None},
        "response": plain(reply),
    }


def plain(reply: Envelope) -> Envelope:
    """A reply as sent over MQTT: without the identity, with two codes alone, and the reason of a failure in the data.

    The controller shows no other text than the message in the data.
    """
    if reply.is_success:
        return msgspec.structs.replace(reply, base_identity=None)
    data = reply.data
    if not isinstance(data, BizReply):
        data = BizReply(code=ResponseCode.FAILED, message=reply.message or reply.code.value)
    return msgspec.structs.replace(reply, code=Code.FAILED, data=data, base_identity=None)


def is_missing(reply: Envelope) -> bool:
    """Whether the biz of an uninstall is not there."""
    return isinstance(reply.data, BizReply) and reply.data.code is ResponseCode.NOT_FOUND_BIZ


@dataclass(frozen=True, slots=True)
class Letter:
    """One message on the way out."""

    topic: str
    content: bytes
    is_lasting: bool = False
    """Whether the message is of use after a new connect: the answer to an operation, and no question of the moment."""


class Outbox:
    """Messages on the way out, in order. Lifetime: of a session. Used on the loop of the session alone."""

    def __init__(self) -> None:
        self._letters: deque[Letter] = deque()
        self._filled = asyncio.Event()

    def put(self, topic: str, content: bytes, *, is_lasting: bool = False) -> None:
        """Add a message. Beyond `MOST_LETTERS` the oldest is dropped."""
        while len(self._letters) >= MOST_LETTERS:
            self._letters.popleft()
        self._letters.append(Letter(topic, content, is_lasting))
        self._filled.set()

    async def first(self) -> Letter:
        """Wait for the first message, which stays in its place until `drop`."""
        while not self._letters:
            self._filled.clear()
            await self._filled.wait()
        return self._letters[0]

    def drop(self, letter: Letter) -> None:
        """Remove a message that was sent."""
        if self._letters and self._letters[0] is letter:
            self._letters.popleft()

    def renew(self) -> None:
        """Keep the messages that are of use after a new connect."""
        self._letters = deque(each for each in self._letters if each.is_lasting)
