"""The terms on which a container works: what its callers may choose, and what an install answers. Values only."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from koupleless.descriptions import BizInfo
    from koupleless.ownership.purge import PurgeReport


class Strategy(enum.Enum):
    """What an install does about other versions of the same name."""

    INSTALL_ONLY = "installOnly"
    """Nothing. The new version answers only if no other version does."""
    UNINSTALL_THEN_INSTALL = "uninstallThenInstall"
    """Removes them all, then installs; nobody answers in between."""
    REPLACE = "replace"
    """Starts the new one, moves the traffic over at once, then lets the others drain and leave."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What an operator may choose about states."""

    activate_new: bool = False
    """A new version becomes the active one as soon as it is started (``activate.new.module``)."""
    activate_next: bool = False
    """When the active version is uninstalled, the one of the others that came last becomes the active one."""
    activate_many: bool = False
    """Several versions of a name, each on a path of its own, may be active
    (``sofa.ark.activate.multi.biz.version.enable``)."""
    keep_broken: bool = False
    """A biz whose start failed stays registered (``sofa.ark.auto.uninstall.when.failed.enable=false``)."""


@dataclass(frozen=True, slots=True)
class Installed:
    """What an install has to say."""

    info: BizInfo
    elapsed_ms: int
    """From the call to the activated biz; fetching and unpacking came before."""
    started_at: float
    """When the install began, in seconds since the epoch."""
    grown_bytes: int
    """Growth of the process's resident memory meanwhile; other work of the process is in it."""
    replaced: tuple[PurgeReport, ...] = ()
    """How the bizs left that this one replaced."""
    warnings: tuple[str, ...] = ()
    """That its files had to be unpacked again, what it has changed of shared modules for everybody, and what those that
    it replaced have to say, in words."""
