"""Identities and states of bizs: pure values.

Names and versions are parsed once, at the edge, into types that cannot be wrong; past the edge no function takes a raw
string. The table of moves stands beside the states, and the container alone moves a biz.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass
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
        raise IllegalMove(identity, state, to)
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


class Isolation(enum.Enum):
    """The place where a biz runs."""

    NAMESPACE = "namespace"
    """In the process of the base, with a namespace of Python modules of its own."""
    PROCESS = "process"
    """In a process of its own, forked from the warm base; not available yet."""
