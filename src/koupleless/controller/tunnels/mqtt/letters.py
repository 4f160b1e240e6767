"""Messages through a broker: their topics, and the envelope of the messages of bases."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import msgspec

from koupleless.wire.envelope import Envelope

HEART: Final = "heart"
QUERY_BASELINE: Final = "queryBaseline"
HEALTH: Final = "health"
SHORT_LIST: Final = "simpleBiz"
WHOLE_LIST: Final = "biz"
"""The list in the words of older bases."""
OPERATION: Final = "bizOperation"
BATCH: Final = "batchInstallBizResponse"

MOST_BYTES: Final = {HEART: 64 << 10, QUERY_BASELINE: 64 << 10}
"""The longest messages that are read, where other than `MOST_BYTES_OF_ANSWERS`."""
MOST_BYTES_OF_ANSWERS: Final = 16 << 20

_ANSWERS: Final = (HEALTH, SHORT_LIST, WHOLE_LIST, OPERATION, BATCH)
_COMMANDS: Final = ("health", "queryAllBiz", "installBiz", "uninstallBiz", "switchBiz")
_LONGEST_IDENTITY: Final = 1_000
_FORBIDDEN: Final = frozenset("/+#\0")
_PARTS: Final = 4


class Unreadable(ValueError):
    """A message without sense; the text says why."""


class Place(NamedTuple):
    """The base and the kind of a message, by the topic."""

    identity: str
    kind: str


@dataclass(frozen=True, slots=True)
class Topics:
    """The topics of one env: below ``{root}/{identity}`` are commands, and below ``base`` the messages of the base."""

    root: str

    @classmethod
    def of(cls, env: str) -> Topics:
        """Return the topics of an env."""
        return cls(f"koupleless_{env}")

    @property
    def broadcasts(self) -> tuple[str, ...]:
        """The filters for messages of bases that nobody has asked for."""
        return tuple(f"{self.root}/+/base/{kind}" for kind in (HEART, QUERY_BASELINE))

    @property
    def leftovers(self) -> tuple[str, ...]:
        """The filters for messages to bases that the broker may have kept."""
        return (*(f"{self.root}/+/{command}" for command in _COMMANDS), f"{self.root}/+/base/baseline")

    def answers(self, identity: str) -> tuple[str, ...]:
        """Return the topics of answers of one base."""
        return tuple(f"{self.root}/{identity}/base/{kind}" for kind in _ANSWERS)

    def command(self, identity: str, command: str) -> str:
        """Return the topic of a command to a base."""
        return f"{self.root}/{identity}/{command}"

    def baseline(self, identity: str) -> str:
        """Return the topic of the baseline of a base."""
        return f"{self.root}/{identity}/base/baseline"

    def place(self, topic: str) -> Place | None:
        """Return the place of a message of a base; ``None`` for other messages."""
        parts = topic.split("/")
        if len(parts) == _PARTS and parts[0] == self.root and parts[2] == "base" and parts[3] != "baseline":
            return Place(parts[1], parts[3])
        return None


def fits_topics(identity: str) -> bool:
    """Whether an identity may be one level of a topic."""
    return 0 < len(identity) <= _LONGEST_IDENTITY and not _FORBIDDEN & set(identity)


@dataclass(frozen=True, slots=True)
class Letter:
    """An opened message of a base."""

    made_ms: int | None
    """The time in the message, by the clock of the base; ``None`` without one."""
    data: Any


def open_letter(payload: bytes, kind: str) -> Letter:
    """Read a message of a base. Raises `Unreadable`."""
    most = MOST_BYTES.get(kind, MOST_BYTES_OF_ANSWERS)
    if len(payload) > most:
        raise Unreadable(f"it has {len(payload)} bytes, more than {most}")
    try:
        body = msgspec.json.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Unreadable(f"it is not JSON: {error}") from None
    if not isinstance(body, dict):
        raise Unreadable("it is no object")
    made = body.get("publishTimestamp")
    return Letter(made if isinstance(made, int) and not isinstance(made, bool) else None, body.get("data"))


def envelope_in(value: object) -> Envelope:
    """Read a reply inside a message. Raises `Unreadable`."""
    try:
        return msgspec.convert(value, Envelope)
    except msgspec.ValidationError as error:
        raise Unreadable(f"the reply is no arklet envelope: {error}") from None


def list_in(kind: str, data: object) -> tuple[dict[str, Any], ...]:
    """Read a list of modules. Raises `Unreadable`."""
    found = envelope_in(data).data if kind == WHOLE_LIST else data
    if found is None:
        return ()
    if not isinstance(found, list):
        raise Unreadable("the list of modules is no array")
    return tuple(one for one in found if isinstance(one, dict))


def operation_in(data: object) -> tuple[str, Envelope]:
    """Read the outcome of an operation: the operation as a question, and the reply. Raises `Unreadable`."""
    if not isinstance(data, dict):
        raise Unreadable("the outcome is no object")
    command, name, version = (data.get(member) for member in ("command", "bizName", "bizVersion"))
    if not isinstance(command, str):
        raise Unreadable("the outcome names no command")
    return operation_question(command, str(name), str(version)), envelope_in(data.get("response"))


def operation_question(command: str, name: str, version: str) -> str:
    """Return the text by which an operation and the outcome find each other."""
    return f"{command} {name}:{version}"
