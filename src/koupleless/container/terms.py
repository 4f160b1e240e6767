"""The terms on which a container works: the choices of callers, and the answer of an install. Values only."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from koupleless.biz import BizId
    from koupleless.descriptions import BizInfo
    from koupleless.ownership.purge import PurgeReport


class Strategy(enum.Enum):
    """The treatment of other versions of the same name by an install."""

    INSTALL_ONLY = "installOnly"
    """Keeps other versions. The new version answers only if no other version does."""
    UNINSTALL_THEN_INSTALL = "uninstallThenInstall"
    """Removes all other versions, then installs; no version answers in between."""
    REPLACE = "replace"
    """Starts the new version, moves the traffic over at once, then lets the others drain and leave."""


@dataclass(frozen=True, slots=True)
class Rules:
    """The choices of an operator about states."""

    activate_new: bool = False
    """A new version becomes the active one as soon as it is started (``activate.new.module``)."""
    activate_next: bool = False
    """When the active version is uninstalled, the last installed of the others becomes the active one."""
    activate_many: bool = False
    """Several versions of a name, each on a path of its own, may be active
    (``sofa.ark.activate.multi.biz.version.enable``)."""
    keep_broken: bool = False
    """A biz with a failed start stays registered (``sofa.ark.auto.uninstall.when.failed.enable=false``)."""


@dataclass(frozen=True, slots=True)
class Located:
    """An artefact that is still to be fetched, and the identity that the artefact must have."""

    id: BizId
    url: str


@dataclass(frozen=True, slots=True)
class Stored:
    """An artefact of the store, by digest; ``url`` is the source, in case the store has lost the artefact."""

    id: BizId
    digest: str
    url: str


@dataclass(frozen=True, slots=True)
class Place:
    """The place of a module without a note in the book of the container: noted before, or a static module."""

    order: int | None = None
    """The place in the order of installs; ``None`` for a new one."""
    answers: bool | None = None
    """Whether this version answers by name and path; ``None`` leaves the decision to the rules."""
    is_kept: bool = False
    """Whether the module stays listed as broken if the start fails, whatever the rules say."""
    is_again: bool = False
    """Whether a new life takes the place of the present one of the same identity, and other versions stay."""


@dataclass(frozen=True, slots=True)
class Installed:
    """The answer of an install."""

    info: BizInfo
    elapsed_ms: int
    """Milliseconds from the call to the activated biz; fetching and unpacking came before."""
    started_at: float
    """Begin of the install, in seconds since the epoch."""
    grown_bytes: int
    """Growth of the process's resident memory meanwhile, through other work of the process as well."""
    replaced: tuple[PurgeReport, ...] = ()
    """Purge reports of the replaced versions."""
    warnings: tuple[str, ...] = ()
    """Texts: files that had to be unpacked again, changes of shared Python modules for everybody, and notes of the
    replaced versions."""
