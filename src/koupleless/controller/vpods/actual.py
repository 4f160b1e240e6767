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
    def of(cls, text: str | None) -> State:
        """Read a state in any case of letters."""
        try:
            return cls((text or "").upper())
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

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Self:
        """Read an element of ``queryAllBiz``, or of the short list sent over MQTT."""
        key = ModuleKey(
            document.get("bizName") or document.get("name") or "",
            document.get("bizVersion") or document.get("version") or "",
        )
        latest = document.get("latestStateRecord")
        records = document.get("bizStateRecords") or ([] if latest is None else [latest])
        newest: Mapping[str, Any] = max(records, key=_time, default={})
        return cls(
            key,
            State.of(document.get("bizState") or document.get("state")),
            max(_time(newest), 0) / 1_000,
            newest.get("reason") or "",
            newest.get("message") or "",
        )


def table_of(documents: Iterable[Mapping[str, Any]]) -> dict[ModuleKey, Actual]:
    """Read a whole list of modules, without the module in the place of the base."""
    found = (Actual.of(document) for document in documents if document.get("mainClass") != _BASE)
    return {actual.key: actual for actual in found}


_BASE: Final = "embed main"
"""The main class in the list of a Java base for the base."""


def _time(record: Mapping[str, Any]) -> int:
    time = record.get("changeTime")
    return time if isinstance(time, int) else 0
