"""Python modules of the base, as one owner gets them: imports in the base, refusals by the policy, and the sight.

Without a base ``sys.modules`` holds the imports of the program. Among the Python modules loaded by the base, the
standard library and the base's own code are in sight, and each library from which the owner, or a shared library of the
owner, has taken a Python module, with all libraries required.
"""

from __future__ import annotations

import functools
import importlib.util
from typing import TYPE_CHECKING

from koupleless.context import as_base
from koupleless.errors import ModuleRefused
from koupleless.frames import passed_over
from koupleless.isolation.interpreter import bootstrap, find_of_base, is_initialising
from koupleless.isolation.libraries import distributions
from koupleless.isolation.libraries.resident import arrivals
from koupleless.isolation.linking.lent import lent_spec
from koupleless.isolation.policy import PROCESS_NAMES, SELF, Policy, Side

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from importlib.machinery import ModuleSpec
    from types import ModuleType

    from koupleless.isolation.finding.files import Files
    from koupleless.isolation.libraries.installed.index import Index
    from koupleless.isolation.linking.linker import Linker


def missing(name: str) -> ModuleNotFoundError:
    """Make Python's own error, with the same content as without a base; `linker.advice_on` says how to mend it."""
    return ModuleNotFoundError(f"No module named {name!r}", name=name)


class FromBase:
    """The Python modules of the base for one owner. Lifetime and threads: as the linker's."""

    def __init__(self, linker: Linker, files: Files, policy: Policy, who: str) -> None:
        """``who`` names the owner in refusals."""
        self._linker = linker
        self._files = files
        self._policy = policy
        self._who = who
        self.tops: set[str] = set()
        """Top-level names known to be the base's."""
        self._granted: set[str] = set()
        self._sight: _Sight | None = None

    # --- imports -------------------------------------------------------------------------------------------------

    def admit(self, name: str) -> None:
        """Allow the owner a Python module of the base. Raises ``ModuleRefused`` if the policy refuses the name."""
        self.check(name)
        self.note_taken(name)

    def note_taken(self, name: str) -> None:
        """Note that the owner gets a Python module of the base, which brings others into sight."""
        taken = self._linker.table.taken
        if name not in taken:
            taken.add(name)
            self._linker.answers.shown.clear()

    @passed_over
    def load(self, name: str) -> ModuleType:
        """Return a Python module of the base, imported by the base if need be; the policy was asked before.

        Raises ``ModuleNotFoundError`` if the base has none.
        """
        module = find_of_base(name)
        if module is not None and not is_initialising(module):
            return module
        try:
            with arrivals.written_down(), self._linker.scope.ground.copied() as context:
                return context.run(bootstrap._find_and_load, name, bootstrap._gcd_import)  # type: ignore[no-any-return]  # noqa: SLF001
        except ModuleNotFoundError as error:
            if error.name != name.partition(".")[0]:
                raise
        raise missing(name)

    @passed_over
    def spec_of(self, name: str) -> ModuleSpec | None:
        """Return the spec of a Python module of the base; ``None`` if there is none, or the policy refuses the name."""
        try:
            if name.partition(".")[0] != SELF:
                self.check(name)
            with as_base():
                spec = importlib.util.find_spec(name)
        except (ImportError, ValueError):
            return None
        return None if spec is None else lent_spec(spec, self._linker.lend)

    # --- refusals ------------------------------------------------------------------------------------------------

    def check(self, name: str) -> None:
        """Raise ``ModuleRefused`` if the policy refuses a Python module of the base."""
        if not self._policy.asks_provenance or name in self._granted:
            return
        if self._files.is_known_to_bring(name):  # the base lends the same content
            self._granted.add(name)
            return
        provenance = distributions.provenance(name)
        if provenance is not None:
            verdict = self._policy.of_base(name, provenance)
            if verdict.side is Side.REFUSED:
                raise self.refusal(name, f"{self._who} may not take this Python module from the base: {verdict.reason}")
            self._granted.add(name)

    def is_granted(self, name: str) -> bool:
        """Whether `check` raises nothing."""
        try:
            self.check(name)
        except ModuleRefused:
            return False
        return True

    def refusal(self, name: str, reason: str) -> ModuleRefused:
        """Make the error for a Python module that is there, and is refused."""
        return ModuleRefused(f"No module named {name!r}", name=name, biz=self._linker.scope.biz, advice=reason)

    # --- sight ---------------------------------------------------------------------------------------------------

    def sight(self) -> Callable[[str], bool]:
        """See `locator.Locator`."""
        sight, table = self._sight, self._linker.table
        taken = [table.taken, *(lender.taken for lender in table.all_lenders())]
        count = sum(map(len, taken))
        if sight is None or sight.count != count:  # the index looks at every directory of the search path
            index = distributions.base_index()
            if sight is None or sight.index is not index:
                self._sight = sight = _Sight(index, self.is_granted)
            sight.use(frozenset().union(*taken), count)
        return sight.holds

    def forget(self) -> None:
        """Ask the base again for names found there before."""
        self.tops.clear()
        self._granted.clear()
        self._sight = None


class _Sight:
    """The Python modules of the base that a biz finds in ``sys.modules``; remembers the answers."""

    def __init__(self, index: Index, is_granted: Callable[[str], bool]) -> None:
        self.index = index
        self._is_granted = is_granted
        self.count = 0
        """The number of Python modules taken from the base when `use` was last called."""
        self._used: frozenset[str] = frozenset()
        self._known: dict[str, tuple[str, ...] | None] = {}
        """Python module -> the distributions that own it; ``None`` if the biz may not have it."""

    def use(self, taken: Iterable[str], count: int) -> None:
        """Bring into sight the libraries of the Python modules taken from the base, and all libraries required."""
        self.count = count
        owners = {owner for name in taken for owner in self.index.owners(name)}
        self._used = _one(self._used.union(*map(self.index.relations.closure, owners - self._used)))

    def holds(self, name: str) -> bool:
        """Whether a Python module of the base is in sight."""
        if name.partition(".")[0] in PROCESS_NAMES:
            return True
        if name not in self._known:
            self._known[name] = self.index.owners(name) if self._is_granted(name) else None
        owners = self._known[name]
        return owners is not None and (not owners or not self._used.isdisjoint(owners))


@functools.lru_cache(maxsize=256)
def _one(names: frozenset[str]) -> frozenset[str]:
    """Return one object for all equal sets: most bizs use the same libraries, and such a set has 4 kB."""
    return names
