"""Finders of one biz: what an import, and code that asks for a spec, gets by the decision of `origins`.

`BizFinder` is the locator of a linker: its answers are Python modules of others, or specs for the linker to load.
`SpecFinder` answers for the ``PathFinder`` seen by code of the biz on ``sys.meta_path``: its answers are specs.
"""

from __future__ import annotations

import functools
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import TYPE_CHECKING

from koupleless.context import as_base
from koupleless.errors import BizGone, ModuleRefused
from koupleless.frames import passed_over
from koupleless.isolation.codes import unknown
from koupleless.isolation.finding.account import Account
from koupleless.isolation.finding.base import FromBase, missing
from koupleless.isolation.finding.copies import Copies
from koupleless.isolation.finding.files import Files
from koupleless.isolation.finding.hooks import Hooks, path_finder
from koupleless.isolation.finding.origins import Origins
from koupleless.isolation.finding.units import Lent, beside
from koupleless.isolation.imports import importlib_for
from koupleless.isolation.libraries.extensions import load_once
from koupleless.isolation.libraries.resident import arrivals
from koupleless.isolation.linking.lent import lent_spec
from koupleless.isolation.policy import PROCESS_NAMES, Policy, Side, Verdict, is_one
from koupleless.isolation.system import SysVariables, base_path

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from koupleless.isolation.codes import Texts
    from koupleless.isolation.libraries.extensions import Finder, Unit
    from koupleless.isolation.libraries.holding import Speakers
    from koupleless.isolation.linking.linker import Linker


class BizFinder:
    """The locator of one owner, and the maker of all that it asks. Lifetime and threads: as the linker's."""

    def __init__(
        self,
        linker: Linker,
        paths: Sequence[str],
        policy: Policy,
        make_finder: Callable[[Unit], Finder],
        speakers: Speakers | None = None,
        *,
        texts: Texts = unknown,
    ) -> None:
        """Make the finder, and fill the linker's table.

        ``make_finder`` makes the finders of shared units. ``speakers`` decide which libraries of the base are own
        copies; ``None`` means no library. ``texts`` tells the texts of files known to whoever unpacked the files.
        """
        self.linker = linker
        self._texts = texts
        self._make_finder = make_finder
        _begin(linker)
        with as_base():
            path_hooks = tuple(sys.path_hooks)
        self.sys = own = SysVariables([*paths, *(entry for entry in base_path() if entry not in paths)], path_hooks)
        linker.scope.attach(own)
        self.files = files = self._make_files(paths, policy.private)
        self.copies = copies = Copies(files, speakers)
        self.base = base = FromBase(linker, files, policy, self._who())
        self.lent = lent = self._make_lent(policy)
        self.origins = Origins(linker.table, own, policy, files=files, copies=copies, base=base, lent=lent)
        self.account = self._make_account(policy)
        self.specs = SpecFinder(linker, self.origins, files=files, copies=copies, base=base)
        on_path = path_finder(
            find_spec=self.specs.find_spec,
            find_distributions=self.account.find_distributions,
            invalidate_caches=self.invalidate_caches,
        )
        self.hooks = Hooks(own, files, on_path, linker.scope)
        linker.table.locator = self

    def drop(self) -> None:
        """Let go of the owner's values of ``sys``, and of this finder in the item of ``sys.meta_path``. Idempotent."""
        self.sys.drop()
        self.base.forget()
        self.hooks.drop()

    def _who(self) -> str:
        return f"biz {self.linker.scope.biz}"

    def _make_files(self, paths: Sequence[str], private: Sequence[str]) -> Files:
        return Files(paths, private, self.sys, self.linker.scope, self._texts)

    def _make_lent(self, policy: Policy) -> Lent:
        return Lent(self.linker.table, self.files, self.sys, self.base, policy)

    def _make_account(self, policy: Policy) -> Account:
        return Account(self.linker.table, self.files, self.copies, policy)

    # --- Python modules ------------------------------------------------------------------------------------------

    @passed_over
    def foreign(self, name: str) -> ModuleType | None:
        """See `locator.Locator`."""
        verdict = self.origins.known(name)
        if verdict is None:
            return None
        if verdict.side is Side.PROCESS:  # a frame less below the standard library, which is imported most
            return self.base.load(name)
        found = self._given(name, verdict)
        assert not isinstance(found, ModuleSpec)
        return found

    @passed_over
    def locate(self, name: str, parent: ModuleType | None, *, is_asked: bool = False) -> ModuleSpec | ModuleType:
        """See `locator.Locator`."""
        return self._given(name, self.origins.of(name, parent, functools.partial(self.hooks.find, is_asked=is_asked)))

    @passed_over
    def _given(self, name: str, verdict: Verdict) -> ModuleSpec | ModuleType:  # noqa: PLR0911 - a case for each side
        """Return the Python module that an import gets by a verdict, or the spec for the owner to load."""
        match verdict.side:
            case Side.PROCESS:
                return self.base.load(name)
            case Side.EXPORT:
                assert verdict.provider is not None
                return verdict.provider(name)
            case Side.LENT:
                lender = self.lent.lender_of(name)
                assert lender is not None
                return lender.linker.load(name)
            case Side.SHARED:
                return self.lent.load(name, self._make_finder) or self._compiled_once(verdict)
            case Side.OWN:
                return self._compiled_once(verdict)
            case Side.COPY:
                self.base.check(name)
                return self._compiled_once(verdict)
            case Side.REFUSED:
                raise self.base.refusal(name, verdict.reason)
            case Side.MISSING:
                raise missing(name)
        self.base.admit(name)
        module = self.base.load(name)
        if "." not in name:
            self.base.tops.add(name)
        return module

    @passed_over
    def _compiled_once(self, verdict: Verdict) -> ModuleSpec | ModuleType:
        spec = verdict.spec
        assert spec is not None
        found = load_once(spec, self.linker, functools.partial(beside, files=self.files, copies=self.copies))
        if not isinstance(found, ModuleSpec):
            self.linker.table.modules[spec.name] = found
        return found

    @passed_over
    def anew(self, name: str, parent: ModuleType | None) -> ModuleSpec | ModuleType:
        """See `locator.Locator`."""
        self.base.check(name)
        spec = None if is_one(name) else self.origins.anywhere(name, None if parent is None else parent.__path__)
        # Compiled code is initialised once, and there is one of each Python module that holds the process together.
        found = spec or self.foreign(name)
        if found is None:
            self.base.admit(name)
            found = self.base.load(name)
        return found

    # --- questions -----------------------------------------------------------------------------------------------

    def owns(self, top: str) -> bool:
        """See `locator.Locator`."""
        return self.origins.owns(top)

    def is_copied(self, name: str) -> bool:
        """See `locator.Locator`."""
        return self.copies.is_copied(name)

    def is_own_part(self, name: str) -> bool:
        """See `locator.Locator`."""
        return self.lent.is_own_part(name)

    def is_settled(self, name: str) -> bool:
        """See `locator.Locator`."""
        top = name.partition(".")[0]
        return top in PROCESS_NAMES or top in self.base.tops

    def sight(self) -> Callable[[str], bool]:
        """See `locator.Locator`."""
        return self.base.sight()

    def advice(self, name: str) -> str:
        """See `locator.Locator`."""
        parent_name = name.rpartition(".")[0]
        parent = self.linker.table.modules.get(parent_name)
        if parent is not None and hasattr(parent, "__path__") and not self.origins.portions(parent_name, parent)[1]:
            return f"{self._who()} owns {parent_name!r}, and no file of the package holds this Python module"
        try:
            self.base.check(name)
        except ModuleRefused as refused:
            return refused.advice
        if self.specs.find_spec(name) is not None:
            return ""
        return (
            f"neither {self._who()} nor the base has this Python module; add its distribution to the dependencies of "
            "the biz and build the biz again, or install the distribution in the base"
        )

    def invalidate_caches(self) -> None:
        """Look at directories again, and ask the base again for names found there before."""
        self.files.invalidate_caches()
        self.base.forget()
        self.copies.forget()
        self.lent.forget()
        self.origins.forget()
        self.linker.answers.forget()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.linker.scope.biz}>"


def _begin(linker: Linker) -> None:
    """Put the Python modules into a table that every owner has from the beginning."""
    arrivals.follow(linker)
    main = ModuleType("__main__", "The program; what it starts with is elsewhere.")
    linker.adopt(main)
    table = linker.table
    table.personal.update(importlib=importlib_for(linker), __main__=main)
    table.modules.update(table.personal)


class SpecFinder:
    """The answers of the ``PathFinder`` on ``sys.meta_path`` for code of one owner."""

    def __init__(self, linker: Linker, origins: Origins, *, files: Files, copies: Copies, base: FromBase) -> None:
        self._linker = linker
        self._origins = origins
        self._files = files
        self._copies = copies
        self._base = base

    @passed_over
    def find_spec(self, name: str, path: Sequence[str] | None = None, target: object = None) -> ModuleSpec | None:  # noqa: ARG002
        """Answer ``importlib.util.find_spec``, ``importlib.reload`` and ``pkgutil`` for the owner.

        Returns ``None`` if nothing is found, or the name is refused. Raises ``BizGone`` after the drop of the linker.
        """
        linker, origins = self._linker, self._origins
        table = linker.table
        if linker.is_gone:
            raise BizGone(linker.scope.biz, name=name)
        if name in table.removed and not is_one(name):
            spec = origins.anywhere(name, path)
            if spec is not None:
                return spec
        parent = table.find(name.rpartition(".")[0])
        parent = parent if hasattr(parent, "__path__") else None
        return self._given(name, path, origins.of(name, parent, origins.find_in_files))

    @passed_over
    def _given(self, name: str, path: Sequence[str] | None, verdict: Verdict) -> ModuleSpec | None:  # noqa: PLR0911
        """Return the spec that code gets by a verdict; of Python modules of others, a copy."""
        spec, lend = verdict.spec, self._linker.lend
        match verdict.side:
            case Side.PROCESS:
                return self._base.spec_of(name)
            case Side.EXPORT:
                assert verdict.provider is not None
                return verdict.provider(name).__spec__
            case Side.LENT:
                known = getattr(self._linker.table.find(name), "__spec__", None)
                spec = known or self._files.find(name, path or ())
                return None if spec is None else lent_spec(spec, lend)
            case Side.SHARED:
                return None if spec is None else lent_spec(spec, lend)
            case Side.OWN:
                return spec
            case Side.COPY if self._base.is_granted(name):
                return spec
            case Side.BASE if self._base.is_granted(name):
                return self._copies.find(name) or self._base.spec_of(name)
        return None
