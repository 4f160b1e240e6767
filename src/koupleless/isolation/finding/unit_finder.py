"""Finder of one shared unit: files of its distribution, units required, and Python modules of the base.

A unit has no other code than its distribution's. While Python modules of the unit are executed, the unit finds what its
first user brings; a name that is not the unit's own means the Python module of the biz that the unit works for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from packaging.utils import canonicalize_name

from koupleless.context import current
from koupleless.isolation.finding.account import Account
from koupleless.isolation.finding.files import Files
from koupleless.isolation.finding.finder import BizFinder
from koupleless.isolation.finding.units import Lent
from koupleless.isolation.linking.linker import linker_of
from koupleless.isolation.policy import Policy, is_of_process
from koupleless.isolation.system import base_path

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from importlib.machinery import ModuleSpec
    from importlib.metadata import Distribution, DistributionFinder
    from types import ModuleType

    from koupleless.isolation.libraries.extensions import Unit
    from koupleless.isolation.libraries.installed.index import Index


class UnitFinder(BizFinder):
    """The locator of a shared unit."""

    def __init__(self, unit: Unit) -> None:
        self._unit = unit
        super().__init__(unit.linker, unit.index.paths, Policy(), UnitFinder)

    def _who(self) -> str:
        return f"the shared library {self.linker.scope.biz}"

    def _make_files(self, paths: Sequence[str], private: Sequence[str]) -> Files:
        return _UnitFiles(self._unit, paths, private, self.sys, self.linker.scope)

    def _make_lent(self, policy: Policy) -> Lent:
        return _UnitLent(self._unit, self.linker.table, self.files, self.sys, self.base, policy)

    def _make_account(self, policy: Policy) -> Account:
        return _UnitAccount(self._unit, self.linker.table, self.files, self.copies, policy)

    def foreign(self, name: str) -> ModuleType | None:
        """See `locator.Locator`.

        A name that is not the unit's own means the Python module of the biz that the unit works for, if there is one.
        """
        running = linker_of(current())
        if running is not None and running is not self.linker:
            theirs = running.table
            if running.edits.has_changed(name):
                is_meant = True
            elif name.partition(".")[0] in self.linker.table.claims:
                is_meant = self.linker.table in theirs.lenders and theirs.locator.is_own_part(name)
            else:
                is_meant = not is_of_process(name) and theirs.hides(name)
            if is_meant:
                return running.load(name)
        return super().foreign(name)

    def move(self, paths: Sequence[str]) -> None:
        """See `extensions.Finder`."""
        self.files.look_in(paths)
        self.sys.search_path[:] = [*paths, *base_path()]
        self.invalidate_caches()


class _UnitFiles(Files):
    """The files of a unit: those of its distribution, and of distributions that its Python modules find."""

    def __init__(self, unit: Unit, *details: Any) -> None:
        self._unit = unit
        super().__init__(*details)

    def _make_index(self) -> Index:
        return self._unit.index

    def find(self, name: str, path: Iterable[str]) -> ModuleSpec | None:
        """See `Files`."""
        unit = self._unit
        is_found = unit.finds(name) if current() is unit.scope else unit.owns(name)
        return super().find(name, path) if is_found else None


class _UnitLent(Lent):
    """The units required by a unit: all but its own distribution. No part is executed again."""

    def __init__(self, unit: Unit, *details: Any) -> None:
        self._unit = unit
        super().__init__(*details)

    def is_shared(self, name: str, spec: ModuleSpec) -> bool:
        """See `Lent`."""
        return self._unit.distribution not in self._unit.index.owners(name) and super().is_shared(name, spec)

    def is_own_part(self, name: str) -> bool:  # noqa: ARG002 - as `Lent`
        """See `Lent`."""
        return False

    def _tied(self) -> frozenset[str]:
        return frozenset()  # a unit puts nothing in front of installed libraries


class _UnitAccount(Account):
    """The libraries of a unit."""

    def __init__(self, unit: Unit, *details: Any) -> None:
        self._unit = unit
        super().__init__(*details)

    def find_distributions(self, context: DistributionFinder.Context) -> Iterator[Distribution]:
        """Yield the distributions found by ``importlib.metadata`` while Python modules of the unit are executed.

        Leaves out distributions that one biz alone brings.
        """
        for distribution in super().find_distributions(context):
            tops = self._unit.index.top_level(canonicalize_name(distribution.metadata["Name"] or ""))
            if not tops or any(self._unit.finds(top) for top in tops):
                yield distribution
