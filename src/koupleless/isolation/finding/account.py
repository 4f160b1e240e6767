"""Account of the libraries of one owner: how each is held, and the metadata found by code of the owner."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from koupleless.descriptions import Library
from koupleless.isolation.libraries import distributions
from koupleless.isolation.libraries.holding import Holding
from koupleless.isolation.policy import SELF

if TYPE_CHECKING:
    from collections.abc import Iterator
    from importlib.metadata import Distribution, DistributionFinder

    from koupleless.isolation.finding.copies import Copies
    from koupleless.isolation.finding.files import Files
    from koupleless.isolation.linking.table import Table
    from koupleless.isolation.policy import Policy

_BROUGHT: Final = "the module brings the library along"


class Account:
    """The libraries of one owner. Lifetime and threads: as the linker's."""

    def __init__(self, table: Table, files: Files, copies: Copies, policy: Policy) -> None:
        self._table = table
        self._files = files
        self._copies = copies
        self._policy = policy

    def libraries(self) -> tuple[Library, ...]:
        """The libraries required or imported so far by the biz, and how the biz holds each, sorted by name."""
        found: dict[str, Library] = {}
        own, base, holdings = self._files.index, distributions.base_index(), self._copies.holdings()
        modules = list(self._table.modules)
        brought = {owner for name in modules for owner in own.owners(name)} | (
            self._policy.required & own.versions.keys()
        )
        for owner in brought:
            if own.place(owner) != self._files.paths[0]:  # else the program of the biz
                found[owner] = Library(owner, own.versions[owner], Holding.OWN.value, _BROUGHT)
        imported = {owner for name in [*modules, *self._table.taken] for owner in base.owners(name)}
        for owner in imported.union(self._policy.required) - found.keys() - {SELF}:
            held = holdings.get(owner)
            if held is not None:
                found[owner] = Library(owner, base.versions[owner], held.holding.value, held.reason)
        return tuple(found[name] for name in sorted(found))

    def library_of(self, kind: type) -> str | None:
        """The distribution of a class, if the biz executes Python modules of the distribution; else ``None``."""
        module = self._table.modules.get(kind.__module__)
        if module is None or getattr(module, kind.__qualname__.partition(".")[0], None) is None:
            return None
        own = self._files.index
        owners = [owner for owner in own.owners(kind.__module__) if own.place(owner) != self._files.paths[0]]
        if not owners and self._copies.is_copied(kind.__module__):
            owners = list(distributions.base_index().owners(kind.__module__))
        return owners[0] if owners else None

    def find_distributions(self, context: DistributionFinder.Context) -> Iterator[Distribution]:
        """Yield the distributions found by ``importlib.metadata`` for the biz."""
        copied = frozenset() if "name" in vars(context) else self._imported_copies()
        return distributions.distributions_for(
            context, own_path=self._files.own_path(), declared=self._policy.declared, copied=copied
        )

    def _imported_copies(self) -> frozenset[str]:
        """The distributions of which the biz has imported an own copy: such a library looks for its own plug-ins."""
        base, holdings = distributions.base_index(), self._copies.holdings()
        owners = {owner for name in list(self._table.modules) for owner in base.owners(name)}
        return frozenset(name for name in owners if name in holdings and holdings[name].holding is Holding.COPY)
