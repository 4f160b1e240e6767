"""Table: the Python modules of one owner by name, over those of lenders, over those of the base.

`Table` answers whether a name is the owner's, a lender's, or the base's. `Edits` are the changes that code of the owner
makes by writing to ``sys.modules``. Nothing here imports a Python module.

Threads: single operations of dictionaries and sets; a linker adds Python modules under the lock of their name.
"""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, Final, cast

from koupleless.isolation.interpreter import all_of_base, find_of_base
from koupleless.isolation.linking.answers import dispute

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

    from koupleless.isolation.linking.answers import Answers
    from koupleless.isolation.linking.locator import Locator

ABSENT: Final = cast("ModuleType", object())

PERSONAL: Final = frozenset({"builtins", "importlib", "__main__", "__mp_main__"})
"""Names for which every owner has a Python module of its own; Python modules below these names are the process's."""


class Table:
    """The Python modules of one owner. Lifetime: as the linker's; emptied by `drop`."""

    def __init__(self, locator: Locator, claims: frozenset[str] = frozenset()) -> None:
        """``claims`` are the top-level names of a library used by several bizs, loaded or not; none for a biz."""
        self.claims = claims
        self.modules: dict[str, ModuleType] = {}
        """Python modules imported by the owner, but for those of the base. ``None`` as a value blocks the name."""
        self.personal: dict[str, ModuleType] = {}
        """Python modules made for every owner at the beginning, for later use when code has emptied the table."""
        self.lenders: list[Table] = []
        """Tables of shared libraries in use here, which show through."""
        self.taken: set[str] = set()
        """Names of Python modules of the base that the owner has got."""
        self.removed: set[str] = set()
        """Names of other owners' Python modules that the owner's code has deleted from ``sys.modules``, or replaced.

        Such Python modules show through no more, and an import executes each anew.
        """
        self.met: set[str] = set()
        """Names of other owners' Python modules imported by the owner: the owner's import hooks see these no more."""
        self._sought: dict[str, int] = {}
        """Name in question at import hooks -> identifier of the asking thread."""
        self.locator = locator
        """Knows the origin of Python modules that are not here."""

    def find(self, name: str) -> ModuleType | None:
        """Return the value under a name here, or in a lender's table that shows through; else ``ABSENT``."""
        found = self.modules.get(name, ABSENT)
        if found is ABSENT and self.lenders and name not in self.removed:
            return self._lent(name)
        return found

    def of_others(self, name: str, *, is_narrow: bool = False) -> ModuleType | None:
        """Return the Python module that shows through under a name, if deletions by the owner's code are ignored.

        Returns ``ABSENT`` if there is none. ``is_narrow`` as for `Edits`.
        """
        found = self._lent(name)
        if found is not ABSENT:
            return found
        of_base = None if self._is_covered(name) else find_of_base(name)
        return ABSENT if of_base is None or (is_narrow and not self.locator.sight()(name)) else of_base

    def _lent(self, name: str) -> ModuleType | None:
        if name not in PERSONAL:
            for lender in self.all_lenders():
                found = lender.modules.get(name, ABSENT)
                if found is not ABSENT:
                    return found
        return ABSENT

    def all_lenders(self) -> list[Table]:
        """The tables that show through here: those of lenders, and of their lenders."""
        lenders = list(self.lenders)
        for lender in lenders:  # grows
            lenders += [further for further in lender.lenders if further not in lenders and further is not self]
        return lenders

    def names(self) -> list[str]:
        """Every name known to `find`."""
        names = dict.fromkeys(self.modules.copy())
        for lender in self.all_lenders():
            names.update(dict.fromkeys(lender.modules.copy().keys() - PERSONAL - self.removed))
        return list(names)

    def own_tops(self) -> set[str]:
        """Top-level names of the owner, as far as known by now."""
        return {*self.claims, *(name for name in self.modules.copy() if "." not in name)} - PERSONAL

    def is_lent(self, name: str, module: object) -> bool:
        """Whether a Python module belongs to a lender under the name given."""
        return bool(self.lenders) and any(lender.modules.get(name) is module for lender in self.all_lenders())

    def has(self, module: ModuleType) -> bool:
        """Whether a Python module in use by the owner belongs to the owner, or to nobody."""
        name = getattr(module, "__name__", "")
        return find_of_base(name) is not module and not (self.lenders and self.is_lent(name, module))

    def executed(self) -> dict[str, ModuleType]:
        """Python modules of the owner alone, by name."""
        table: dict[str, ModuleType | None] = {**self.modules}
        return {name: module for name, module in table.items() if module is not None and self.has(module)}

    def hides(self, name: object) -> bool:
        """Whether a name of the base is out of sight: removed, or below a top-level package of the owner."""
        if not isinstance(name, str):  # any object may be looked up in a dictionary
            return False
        is_sought = self._sought and self._sought.get(name) == threading.get_ident()
        return bool(is_sought) or name in self.removed or self._is_covered(name)

    def _is_covered(self, name: str) -> bool:
        top, dot, _ = name.partition(".")
        if top in self.removed:
            return False  # one Python module was replaced, without all Python modules below
        if top in PERSONAL:
            return name == "__mp_main__"
        package = self.find(top)
        if package is ABSENT:
            return self.locator.owns(top)
        # Portions of a namespace package belong to several owners; all portions but the owner's are the base's.
        if not dot or getattr(package, "__file__", None) is not None:
            return True
        return self.locator.is_copied(name)

    @contextlib.contextmanager
    def seeking(self, name: str) -> Iterator[None]:
        """Hide a Python module from this thread while the body asks import hooks of the owner's code for the name.

        Without a base the Python module would not be there yet.
        """
        self._sought[name] = threading.get_ident()
        try:
            yield
        finally:
            self._sought.pop(name, None)
            self.met.add(name)

    def is_sought(self, name: str) -> bool:
        """Whether this thread is asking import hooks for a name: a hook imports the name in question."""
        return self._sought.get(name) == threading.get_ident()

    def drop(self, locator: Locator) -> None:
        """Let go of every Python module; ``locator`` answers from now on. Idempotent."""
        self.locator = locator
        self.modules.clear()
        self.personal.clear()
        self.lenders.clear()


class Edits:
    """Changes of a table by the owner's code, as ``sys.modules[name] = module`` and the like in the owner's context.

    ``is_narrow`` says that the calling code sees only libraries of the base in the owner's sight.
    """

    def __init__(self, table: Table, answers: Answers) -> None:
        self._table = table
        self._answers = answers
        self._placed: set[str] = set()
        """Names of entries put into ``sys.modules`` by the owner's code."""

    def put(self, name: str, module: ModuleType | None, *, is_narrow: bool = False) -> None:
        """Enter a Python module. Another owner's Python module, put back under its name, shows through again."""
        table = self._table
        known = table.of_others(name)
        if module is not None and module is known and (name not in table.modules or name in table.removed):
            table.modules.pop(name, None)
            table.removed.discard(name)
            self._placed.discard(name)
        else:
            table.modules[name] = module  # type: ignore[assignment]  # ``None`` blocks the name
            self._placed.add(name)
            if table.of_others(name, is_narrow=is_narrow) is not ABSENT:
                table.removed.add(name)
            dispute({name})
        self._answers.forget()

    def take(self, name: str, *, is_narrow: bool = False) -> ModuleType:
        """Remove a name and return the Python module; another owner's is out of sight from now on.

        Raises ``KeyError`` if the name means nothing.
        """
        table = self._table
        known = ABSENT if name in table.removed else table.of_others(name, is_narrow=is_narrow)
        module = table.modules.pop(name, cast("ModuleType", known))
        if module is ABSENT:
            raise KeyError(name)
        if known is not ABSENT:
            table.removed.add(name)
            dispute({name})
        self._placed.discard(name)
        table.met.discard(name)
        self._answers.forget()
        return module

    def clear(self, *, is_narrow: bool = False) -> None:
        """Remove every name."""
        table = self._table
        is_seen = table.locator.sight() if is_narrow else bool
        others = {*filter(is_seen, all_of_base().copy()), *table.names()}
        hidden = {name for name in others if table.of_others(name) is not ABSENT}
        table.removed |= hidden
        dispute(hidden)
        table.modules.clear()
        self._placed.clear()
        table.met.clear()
        self._answers.forget()

    def has_changed(self, name: str) -> bool:
        """Whether the owner's code has set the meaning of a name."""
        return name in self._placed or name in self._table.removed
