"""The bizs of a container at one moment, for services: an immutable value that the container publishes.

A container makes another directory from the last one whenever a biz comes, goes or changes state, and publishes the
directory together with the routes. So a call of a service waits for no lock of a container.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from koupleless.biz import BizState

if TYPE_CHECKING:
    from collections.abc import Mapping

    from koupleless.biz import BizId
    from koupleless.context import Scope


class Listed(NamedTuple):
    """One biz of a directory."""

    biz: BizId
    state: BizState
    scope: Scope | None
    """The life that answers for the biz; ``None`` while the biz has none. Of two lives of one identity, one of which
    replaces the other, a directory has the answering one."""


@dataclass(frozen=True, slots=True)
class Directory:
    """The bizs of one container at one moment.

    Lifetime: any; an old directory holds the scopes of bizs that have left, and these scopes are empty. From any
    thread.
    """

    by_name: Mapping[str, Mapping[str, Listed]] = field(default_factory=dict)
    """Name -> version -> biz, versions in the order of their registration."""

    def locate(self, name: str, version: str | None = None) -> Listed | None:
        """The biz of this name and version, in any state; without a version, the first activated one."""
        versions = self.by_name.get(name)
        if versions is None:
            return None
        if version is not None:
            return versions.get(version)
        return next((listed for listed in versions.values() if listed.state is BizState.ACTIVATED), None)

    def versions(self, name: str) -> tuple[BizId, ...]:
        """The identities of all versions of a name."""
        return tuple(listed.biz for listed in self.by_name.get(name, {}).values())

    def with_biz(self, listed: Listed) -> Directory:
        """Return a directory with ``listed`` in the place of its identity, or last."""
        versions = self.by_name.get(listed.biz.name, {})
        if versions.get(listed.biz.version) == listed:
            return self
        return Directory({**self.by_name, listed.biz.name: {**versions, listed.biz.version: listed}})

    def without(self, biz: BizId) -> Directory:
        """Return a directory without an identity; the same directory if the identity was not there."""
        versions = self.by_name.get(biz.name, {})
        if biz.version not in versions:
            return self
        kept = {version: listed for version, listed in versions.items() if version != biz.version}
        others = dict(self.by_name)
        del others[biz.name]
        return Directory({**others, biz.name: kept} if kept else others)
