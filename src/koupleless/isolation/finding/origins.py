"""Origins: the one place that decides on the owner of a name, for imports and for code that asks for a spec alike.

The facts are the policy (`policy.Policy.before_own`), libraries lent before, files found for the owner, own copies, and
the base, asked in this order. The decision is one `policy.Verdict`. Nothing is imported here, and nothing refused: a
finder does with the verdict as its caller needs.
"""

from __future__ import annotations

from importlib.machinery import ModuleSpec, SourceFileLoader
from typing import TYPE_CHECKING, Final, Protocol

from koupleless.context import as_base
from koupleless.frames import passed_over
from koupleless.isolation.interpreter import bootstrap
from koupleless.isolation.policy import NEVER_DELEGATED, Side, Verdict, is_of_process
from koupleless.isolation.system import base_path

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from types import ModuleType

    from koupleless.isolation.finding.base import FromBase
    from koupleless.isolation.finding.copies import Copies
    from koupleless.isolation.finding.files import Files
    from koupleless.isolation.finding.units import Lent
    from koupleless.isolation.linking.table import Table
    from koupleless.isolation.policy import Policy
    from koupleless.isolation.system import SysVariables


class Find(Protocol):
    """Searches for a Python module of the owner."""

    def __call__(self, name: str, path: Sequence[str] | None, /) -> ModuleSpec | None:
        """Return the spec found in ``path``, or in the owner's own path for ``None``."""


_OF_BASE: Final = Verdict(Side.BASE)
_LENT: Final = Verdict(Side.LENT)
_MISSING: Final = Verdict(Side.MISSING)
_OF_PROGRAM: Final = Verdict(Side.REFUSED, "a module never gets the program of the base")


class Origins:
    """The decisions for one owner. Lifetime and threads: as the linker's."""

    def __init__(
        self,
        table: Table,
        own: SysVariables,
        policy: Policy,
        *,
        files: Files,
        copies: Copies,
        base: FromBase,
        lent: Lent,
    ) -> None:
        self._table = table
        self._own = own
        self._policy = policy
        self._files = files
        self._copies = copies
        self._base = base
        self._lent = lent
        self._owned: tuple[list[str], dict[str, bool]] = [], {}
        """A search path, and: top-level name not imported yet -> whether the owner has it on the search path."""

    @passed_over
    def known(self, name: str) -> Verdict | None:
        """Decide without a look at files; ``None`` where no other owner is known (yet)."""
        verdict = self._policy.before_own(name)
        if verdict is not None:
            return verdict
        if name.partition(".")[0] in self._base.tops:
            return _OF_BASE
        return _LENT if self._is_lent(name) else None

    def _is_lent(self, name: str) -> bool:
        return self._lent.lender_of(name) is not None and not self._lent.is_own_part(name)

    @passed_over
    def of(self, name: str, parent: ModuleType | None, find: Find) -> Verdict:  # noqa: PLR0911 - facts in their order
        """Decide on a name below a package, or on a top-level name if there is no dot in the name."""
        verdict = self._policy.before_own(name)
        if verdict is not None:
            return verdict
        if self._is_lent(name):
            return _LENT
        parent_name = name.rpartition(".")[0]
        path, is_open = None, True
        if parent_name:
            if parent is None or self._table.modules.get(parent_name) is not parent:
                return self._below_package_of_others(name, parent, find)
            path, is_open = self.portions(parent_name, parent)
        spec = find(name, path)
        # A mere directory of the owner must not hide a package of one piece.
        if spec is not None and not (spec.loader is None and is_open and self._has_whole_of_base(name)):
            return Verdict(Side.SHARED if self._lent.is_shared(name, spec) else Side.OWN, spec=spec)
        if not is_open:
            return _MISSING
        if name in NEVER_DELEGATED:
            return _OF_PROGRAM
        spec = self._copies.find(name)
        return _OF_BASE if spec is None else Verdict(Side.COPY, spec=spec)

    @passed_over
    def _below_package_of_others(self, name: str, parent: ModuleType | None, find: Find) -> Verdict:
        if self._lent.lender_of(name) is None:
            return _OF_BASE
        spec = find(name, getattr(parent, "__path__", ()))  # a part that the owner executes for itself
        return _LENT if spec is None else Verdict(Side.OWN, spec=spec)

    def _has_whole_of_base(self, name: str) -> bool:
        """Whether the base has, and may lend, a Python module, or a package of one piece."""
        spec = self._copies.find_of_base(name)
        return spec is not None and spec.loader is not None and self._base.is_granted(name)

    def portions(self, name: str, package: ModuleType) -> tuple[list[str], bool]:
        """Return the directories of an own package that are the owner's, and whether the base may have further ones."""
        own, has_others = self._files.portions_of(name, package)
        is_regular = getattr(package, "__file__", None) is not None
        if has_others and is_regular and self._copies.is_whole(name):
            return [str(entry) for entry in package.__path__], False
        return own, has_others or not is_regular

    def owns(self, top: str) -> bool:
        """Whether a top-level package, not imported yet, would be the owner's; not if the owner has one portion."""
        if top in self._base.tops:
            return False
        path, known = self._owned
        if path != (in_use := self._own.path_in_use()):
            self._owned = list(in_use), (known := {})
        if top not in known:
            verdict = self.of(top, None, self.find_in_files)
            is_by_base = verdict.side is Side.SHARED and self._lent.is_lent_by_base(top)
            is_found = verdict.spec is not None and verdict.spec.loader is not None
            known[top] = verdict.side is Side.LENT or (is_found and not is_by_base)
        return known[top]

    def find_in_files(self, name: str, path: Iterable[str] | None) -> ModuleSpec | None:
        """Search files, and ask no hook."""
        return self._files.find(name, self._files.own_path() if path is None else path)

    @passed_over
    def anywhere(self, name: str, path: Iterable[str] | None) -> ModuleSpec | None:
        """Find the spec of a Python module whoever the owner is, for code that executes the Python module anew."""
        if path is not None:
            spec = self._files.find(name, map(str, path))
        else:
            own = () if is_of_process(name) else self._files.own_path()
            spec = self._files.find(name, (*own, *base_path()))
            if spec is None:
                with as_base():  # finders of the base may know more than its search path tells
                    spec = bootstrap._find_spec(name, None)  # noqa: SLF001 - past ``sys.modules``
        return spec if spec is not None and isinstance(spec.loader, SourceFileLoader) else None

    def forget(self) -> None:
        """Look for top-level names again."""
        self._owned = [], {}
