"""The modules of a base in the words of the base."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Self

from koupleless.controller.vpods.module import ModuleKey

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


class State(enum.Enum):
    """The state of a module on a base; bases differ in the case of letters."""

    INSTALLING = "RESOLVED"
    ACTIVATED = "ACTIVATED"
    DEACTIVATED = "DEACTIVATED"
    """Started, while another version answers; or about to leave."""
    BROKEN = "BROKEN"
    STOPPED = "STOPPED"
    UNKNOWN = "UNRESOLVED"
    """Also for words of other bases."""

    @classmethod
    def of(cls, text: object) -> State:
        """Read a state in any case of letters; numbers, which some bases send, are unknown."""
        try:
            return cls(_text(text).upper())
        except ValueError:
            return cls.UNKNOWN

    @property
    def is_started(self) -> bool:
        """Whether the code of the module runs."""
        return self in {State.ACTIVATED, State.DEACTIVATED}


@dataclass(frozen=True, slots=True)
class Actual:
    """One module of a base."""

    key: ModuleKey
    state: State
    changed: float = 0.0
    """The time of the last change of state in seconds since the epoch, by the clock of the base."""
    reason: str = ""
    message: str = ""
    is_healthy: bool = True
    """Whether the module takes requests, in the words of the base; bases of the original say nothing of that."""
    is_listed: bool = True
    """Whether the base has told this; else an operation has ended so, and the time is that of another clock."""

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Self:
        """Read an element of ``queryAllBiz``, or of the short list sent over MQTT; odd members count as absent."""
        key = ModuleKey(
            _text(document.get("bizName")) or _text(document.get("name")),
            _text(document.get("bizVersion")) or _text(document.get("version")),
        )
        records = document.get("bizStateRecords") or [document.get("latestStateRecord")]
        known = [record for record in records if isinstance(record, dict)] if isinstance(records, list) else []
        newest: Mapping[str, Any] = max(known, key=_time, default={})
        return cls(
            key,
            State.of(document.get("bizState") or document.get("state")),
            max(_time(newest), 0) / 1_000,
            _text(newest.get("reason")),
            _text(newest.get("message")),
            is_healthy=document.get("health") not in _UNHEALTHY,
        )


def table_of(documents: Iterable[Mapping[str, Any]]) -> dict[ModuleKey, Actual]:
    """Read a whole list of modules, without the module in the place of the base, and without entries of no identity."""
    found = (Actual.of(document) for document in documents if document.get("mainClass") != _BASE)
    return {actual.key: actual for actual in found if actual.key.name and actual.key.version}


_UNHEALTHY: Final = ("DOWN", "OUT_OF_SERVICE")
_BASE: Final = "embed main"
"""The main class in the list of a Java base for the base."""


_LATEST_MS: Final = 253_402_300_800_000
"""The end of the year 9999: later times cannot be written."""


def _time(record: Mapping[str, Any]) -> int:
    time = record.get("changeTime")
    return time if isinstance(time, int) and abs(time) < _LATEST_MS else 0


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
