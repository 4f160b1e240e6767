"""Shared libraries that one owner brings: lent by a unit, or by a base with the same content.

A distribution with compiled Python modules, and all its requirements, are loaded once for each content in a process
(`extensions`). The exceptions are the owner's own: libraries of pure Python that require a library replaced by the
owner, and Python modules of a lent library that need code of the owner.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from koupleless.frames import passed_over
from koupleless.isolation.libraries import distributions
from koupleless.isolation.libraries.extensions import shelf

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from importlib.machinery import ModuleSpec
    from types import ModuleType

    from koupleless.isolation.finding.base import FromBase
    from koupleless.isolation.finding.copies import Copies
    from koupleless.isolation.finding.files import Files
    from koupleless.isolation.libraries.extensions import Finder, Unit
    from koupleless.isolation.libraries.installed.index import Index
    from koupleless.isolation.linking.table import Table
    from koupleless.isolation.policy import Policy
    from koupleless.isolation.system import SysVariables


class Lent:
    """The shared libraries of one owner. Lifetime and threads: as the linker's."""

    def __init__(self, table: Table, files: Files, own: SysVariables, base: FromBase, policy: Policy) -> None:
        self._table = table
        self._files = files
        self._own = own
        self._base = base
        self._policy = policy
        self._units: dict[str, Unit] = {}
        """Packages lent by units."""
        self._parts: dict[str, bool] = {}
        """Python module of a distribution lent by a unit -> whether the owner executes it for itself."""
        self._replaced: tuple[Index | None, list[str], frozenset[str]] = None, [], frozenset()
        """An index, a search path, and the answer of `_tied` for both."""

    def lender_of(self, name: str) -> Unit | None:
        """Return the unit that lends a Python module, or a package above; ``None`` if no unit is known to."""
        while self._units and name:
            lender = self._units.get(name)
            if lender is not None:
                return lender
            name = name.rpartition(".")[0]
        return None

    def is_shared(self, name: str, spec: ModuleSpec) -> bool:
        """Whether the files found belong to a shared distribution."""
        index = self._files.index
        if not index.shared:
            return False
        owners = index.owners(name)
        if len(owners) != 1 or owners[0] not in index.shared or not self._files.is_installed(name, spec, owners[0]):
            return False
        return owners[0] in index.compiled or owners[0] not in self._tied()

    def _tied(self) -> frozenset[str]:
        """Return the libraries of pure Python that require a library replaced by the owner.

        The owner has put Python modules in front of the installed ones. A shared library would go on with the installed
        ones, for all bizs. So these libraries are the owner's own, like the replacement.
        """
        index, in_use = self._files.index, self._own.path_in_use()
        if self._replaced[:2] != (index, in_use):
            own, replaced = self._files.own_path(), set[str]()
            for owner in index.shared:
                for top in index.top_level(owner):
                    spec = self._files.find(top, own) if index.owners(top) == (owner,) else None
                    if spec is not None and spec.has_location and not self._files.is_installed(top, spec, owner):
                        replaced.add(top)
            self._replaced = index, list(in_use), index.relations.tied(index.shared - index.compiled, replaced)
        return self._replaced[2]

    def is_lent_by_base(self, name: str) -> bool:
        """Whether the base has the very same content of the distribution of a Python module, and lends its own."""
        index = self._files.index
        return is_of_base(index.owners(name)[0], index)

    @passed_over
    def load(self, name: str, make_finder: Callable[[Unit], Finder]) -> ModuleType | None:
        """Return a Python module of a shared distribution, found in the owner's files; from a unit, or from the base.

        Returns ``None`` below a package that the owner executes for itself.
        """
        if self._parts.get(name.rpartition(".")[0]):
            return None
        index = self._files.index
        distribution = index.owners(name)[0]
        if is_of_base(distribution, index):
            if "." not in name:
                self._base.tops.add(name)
            self._base.note_taken(name)
            return self._base.load(name)
        unit = shelf.borrow(distribution, index, make_finder)
        if unit.linker.table not in self._table.lenders:
            self._table.lenders.append(unit.linker.table)
        self._units[name] = unit
        return unit.load(name)

    # --- parts that the owner executes for itself ------------------------------------------------------------------

    def is_own_part(self, name: str) -> bool:
        """Whether the owner executes a Python module of a shared library for itself, as one that needs its code.

        A unit lives on when its bizs have left, and serves bizs with other code under the same name. So Python modules
        that tie a library to a framework, or to tools for tests, belong to the biz with the framework; the library does
        without these.
        """
        known = self._parts.get(name)
        if known is None:
            lender = self.lender_of(name)
            known = self._parts[name] = lender is not None and self._needs_own_code(name, lender, {name})
        return known

    def _needs_own_code(self, name: str, lender: Unit, seen: set[str]) -> bool:
        if name in lender.core or name in self._units:
            return False
        if self._parts.get(name.rpartition(".")[0]):
            return True
        for other in sorted(lender.imports(name)):
            top = other.partition(".")[0]
            if top not in lender.linker.table.claims:
                if self._policy.before_own(top) is None and self._table.hides(top):
                    return True
            elif other not in seen and self.lender_of(other) is lender:
                seen.add(other)
                if self._needs_own_code(other, lender, seen):
                    return True
        return False

    def forget(self) -> None:
        """Ask again which Python modules are own parts, but for those that the owner has executed."""
        modules = self._table.modules
        self._parts = {name: True for name, is_own in self._parts.items() if is_own and name in modules}


def is_of_base(distribution: str, index: Index) -> bool:
    """Whether the base has the very same content of a distribution in ``index``, and lends its own instead."""
    base = distributions.base_index()
    return all(index.has_same(member, base) for member in index.relations.surroundings(distribution))


def beside(name: str, files: Files, copies: Copies) -> str:
    """Return the digests of compiled files that a compiled Python module may be bound to.

    The digests tell apart different surroundings of the same file; empty if all files are the base's.
    """
    own, base = files.index, distributions.base_index()
    if not own.compiled:
        return ""
    owners = [owner for owner in own.owners(name) if own.place(owner) != files.paths[0]]
    around: Iterable[str] = own.compiled  # of the program itself
    if owners:
        around = frozenset().union(*map(own.relations.surroundings, owners))
    elif copies.is_copied(name):
        around = frozenset().union(*map(base.relations.closure, base.owners(name)))
    others = own.compiled.intersection(around).difference(owners)
    told = [own.contents.of(other) for other in sorted(others) if not is_of_base(other, own)]
    of_extensions = {owner: own.contents.of_extensions(owner) for owner in owners}
    told += [told_of for owner, told_of in of_extensions.items() if told_of != base.contents.of_extensions(owner)]
    return " ".join(told)
