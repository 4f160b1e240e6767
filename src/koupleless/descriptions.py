"""Descriptions of bizs for other threads and for the wire: snapshots, records and libraries, as pure values.

Apart from identities and states, because a command line needs only those.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Self

from koupleless.biz import DEFAULT_PRIORITY, BizState, ChangeReason, Isolation

if TYPE_CHECKING:
    from collections.abc import Mapping

    from koupleless.biz import BizId

EMBED_MAIN: Final = "embed main"
"""The text in the place of an entry for a base, as operations commands of the field have it."""


@dataclass(frozen=True, slots=True)
class StateRecord:
    """One change of state."""

    time_ms: int
    """The time, in milliseconds since the epoch."""
    state: BizState
    reason: ChangeReason
    message: str = ""
    """Details in words, of a failure for example."""


@dataclass(frozen=True, slots=True)
class Resident:
    """A library brought into the process by bizs, which stays in the process."""

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
    """The directory of the unpacked artefact."""
    class_path: tuple[str, ...] = ()
    """The directories from which Python modules of the biz are imported."""
    declared_libraries: tuple[str, ...] = ()
    """Normalised distribution names; not empty means declared mode."""
    deny_imports: tuple[str, ...] = ()
    """Python modules that the biz must not import."""
    attributes: Mapping[str, str] = field(default_factory=dict)
    """Entries of the manifest that have no meaning here."""
    isolation: Isolation = Isolation.NAMESPACE
    """The place where the biz runs."""
    is_base: bool = False
    """Whether this is the base itself."""
    libraries: tuple[Library, ...] = ()
    """The libraries imported up to the end of the start; empty earlier."""

    @classmethod
    def of_base(cls, base: BizId) -> Self:
        """Describe a base, which is active from now on."""
        now = time.time_ns() // 1_000_000
        started = StateRecord(now, BizState.ACTIVATED, ChangeReason.STARTED)
        return cls(base, BizState.ACTIVATED, EMBED_MAIN, records=(started,), is_base=True)
