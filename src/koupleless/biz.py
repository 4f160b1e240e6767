"""Identities, states and descriptions of bizs: pure values.

Names and versions are parsed once, at the edge, into types that cannot be wrong; past the edge no function takes a raw
string. The table of moves stands beside the states, and the container alone moves a biz.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NewType

from koupleless.errors import IllegalMove, InvalidIdentity

if TYPE_CHECKING:
    from collections.abc import Mapping

BizName = NewType("BizName", str)
BizVersion = NewType("BizVersion", str)

DEFAULT_PRIORITY: Final = 100

# Names become directory names, URL paths, environment prefixes and metric labels: no separator of any of those.
_PART: Final = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._+!-]{0,126}[A-Za-z0-9_+])?")


def parse_name(text: str) -> BizName:
    """A biz name: 1 to 128 letters, digits, ``.``, ``_``, ``-``, ``+``, ``!``, no punctuation at either end.

    Raises ``InvalidIdentity`` for anything else.
    """
    if not _PART.fullmatch(text):
        raise InvalidIdentity(
            f"{text!r} is no biz name: letters, digits, '.', '_' and '-' are allowed, at most 128 of them"
        )
    return BizName(text)


def parse_version(text: str) -> BizVersion:
    """A biz version, under the rules of a name; versions have no order, so ``1.0``, ``0.1-SNAPSHOT`` and ``main`` do.

    Raises ``InvalidIdentity`` for anything else.
    """
    if not _PART.fullmatch(text):
        raise InvalidIdentity(f"{text!r} is no biz version: letters, digits, '.', '_', '-' and '+' are allowed")
    return BizVersion(text)


@dataclass(frozen=True, slots=True, order=True)
class BizId:
    """The identity of a biz, ``name:version``."""

    name: BizName
    version: BizVersion

    @classmethod
    def parse(cls, text: str) -> BizId:
        """Read ``name:version``. Raises ``InvalidIdentity`` unless there are exactly two valid parts."""
        name, colon, version = text.partition(":")
        if not colon:
            raise InvalidIdentity(f"{text!r} is no biz identity: name:version is expected")
        return cls(parse_name(name), parse_version(version))

    @classmethod
    def of(cls, name: str, version: str) -> BizId:
        """Check and join the two parts. Raises ``InvalidIdentity``."""
        return cls(parse_name(name), parse_version(version))

    def __str__(self) -> str:
        return f"{self.name}:{self.version}"


class BizState(enum.Enum):
    """The life of a biz. The wire spells the names in upper case."""

    UNRESOLVED = "UNRESOLVED"
    """Never registered."""
    RESOLVED = "RESOLVED"
    """Registered, its start not finished: installing."""
    ACTIVATED = "ACTIVATED"
    """Started; this version answers by name."""
    DEACTIVATED = "DEACTIVATED"
    """Started, but another version answers by name; or about to stop."""
    BROKEN = "BROKEN"
    """The start or the stop failed."""
    STOPPED = "STOPPED"
    """Gone; nothing can follow."""

    @property
    def is_started(self) -> bool:
        """Whether calls and requests may reach a biz in this state."""
        return self in (BizState.ACTIVATED, BizState.DEACTIVATED)

    @property
    def is_stoppable(self) -> bool:
        """Whether a biz in this state may be stopped."""
        return self in (BizState.ACTIVATED, BizState.DEACTIVATED, BizState.BROKEN)


MOVES: Final[Mapping[BizState, frozenset[BizState]]] = {
    BizState.UNRESOLVED: frozenset({BizState.RESOLVED}),
    BizState.RESOLVED: frozenset({BizState.ACTIVATED, BizState.DEACTIVATED, BizState.BROKEN}),
    BizState.ACTIVATED: frozenset({BizState.DEACTIVATED}),
    BizState.DEACTIVATED: frozenset({BizState.ACTIVATED, BizState.STOPPED, BizState.BROKEN}),
    BizState.BROKEN: frozenset({BizState.STOPPED, BizState.BROKEN}),
    BizState.STOPPED: frozenset(),
}
"""State -> the states that may follow. An active biz is deactivated before the stop, to be found no more."""


def advance(identity: BizId, state: BizState, to: BizState) -> BizState:
    """``to``, if the biz may go there from ``state``; raises ``IllegalMove`` if not. The container alone calls it."""
    if to not in MOVES[state]:
        raise IllegalMove(str(identity), state.value, to.value)
    return to


class ChangeReason(enum.Enum):
    """The reason for a change of state; the values are the texts on the wire."""

    CREATED = "Created"
    STARTED = "Started"
    INSTALL_FAILED = "Install Failed"
    UN_INSTALL_FAILED = "Uninstall Failed"
    SWITCHED = "Switched"
    KILLING = "Killing"
    STOPPED = "Stopped"
    UNDEFINE = "Undefine"


@dataclass(frozen=True, slots=True)
class StateRecord:
    """One change of state."""

    time_ms: int
    """The time, in milliseconds since the epoch."""
    state: BizState
    reason: ChangeReason
    message: str = ""


class Isolation(enum.Enum):
    """The place where a biz runs."""

    NAMESPACE = "namespace"
    """In the process of the base, with a namespace of Python modules of its own."""
    PROCESS = "process"
    """In a process of its own, forked from the warm base."""


@dataclass(frozen=True, slots=True)
class Resident:
    """A library that bizs brought into the process and that stays in the process."""

    name: str
    """The normalised name of the distribution; without a distribution, the top-level name."""
    version: str
    size_bytes: int
    """Growth of the process while the library was loaded; 0 where the system has no figure."""
    modules: int
    """The number of loaded Python modules of the library."""
    users: tuple[str, ...] = ()
    """The bizs that use the library now, themselves or through other libraries."""
    is_idle: bool = False
    """Whether no biz uses the library any more."""


@dataclass(frozen=True, slots=True)
class Library:
    """A distribution used by a biz."""

    name: str
    """Normalised."""
    version: str
    held: str
    """``shared``, ``own copy`` or ``own version``."""
    reason: str
    """The reason for that, in words that follow the name."""


@dataclass(frozen=True, slots=True)
class BizInfo:
    """A snapshot of one biz, safe to keep and to hand to another thread."""

    id: BizId
    state: BizState
    entry: str
    """``package.module:callable``; ``embed main`` for the base."""
    web_context_path: str = "/"
    """The path with a leading slash; ``/`` where the biz has no web face of its own."""
    priority: int = DEFAULT_PRIORITY
    """Smaller is earlier."""
    records: tuple[StateRecord, ...] = ()
    """Oldest first."""
    url: str = ""
    """The location of the artefact."""
    work_dir: str = ""
    class_path: tuple[str, ...] = ()
    """The directories from which Python modules of the biz are imported."""
    declared_libraries: tuple[str, ...] = ()
    """Normalised distribution names; not empty means declared mode."""
    deny_imports: tuple[str, ...] = ()
    attributes: Mapping[str, str] = field(default_factory=dict)
    isolation: Isolation = Isolation.NAMESPACE
    is_base: bool = False
    libraries: tuple[Library, ...] = ()
    """The libraries imported up to the end of the start; empty earlier."""
