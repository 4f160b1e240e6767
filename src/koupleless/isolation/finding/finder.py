"""Finders: search for the Python modules of one biz in files of the biz, in own copies of libraries, and in the base.

`BizFinder` is the locator of a linker, and answers for the ``PathFinder`` seen by code of the biz on ``sys.meta_path``.
"""

from __future__ import annotations

import importlib.util
import os
import pkgutil
import sys
from dataclasses import replace
from importlib.machinery import (
    BuiltinImporter,
    ExtensionFileLoader,
    FrozenImporter,
    ModuleSpec,
    PathFinder,
    SourceFileLoader,
)
from importlib.util import LazyLoader
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from packaging.utils import canonicalize_name

from koupleless.context import as_base, current, entered
from koupleless.descriptions import Library
from koupleless.errors import BizGone, ModuleRefused
from koupleless.frames import passed_over, seen_as
from koupleless.isolation.codes import SharedCodeLoader
from koupleless.isolation.imports import importlib_for
from koupleless.isolation.interpreter import bootstrap, find_of_base, is_initialising
from koupleless.isolation.libraries import distributions
from koupleless.isolation.libraries.extensions import load_once, shelf
from koupleless.isolation.libraries.holding import Held, Holding, Speakers, decide
from koupleless.isolation.libraries.known import PORTIONS
from koupleless.isolation.libraries.resident import arrivals
from koupleless.isolation.linking.lent import lent_spec
from koupleless.isolation.linking.linker import linker_of
from koupleless.isolation.places import find_once
from koupleless.isolation.policy import NEVER_DELEGATED, PROCESS_NAMES, SELF, Policy, Side, is_of_process, is_one
from koupleless.isolation.system import SysVariables, base_path

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from importlib.metadata import Distribution, DistributionFinder

    from koupleless.biz import BizId
    from koupleless.isolation.libraries.distributions import Index
    from koupleless.isolation.libraries.extensions import Unit
    from koupleless.isolation.linking.linker import Linker


_BROUGHT: Final = "the module brings the library along"


def prefixes(directories: Iterable[str]) -> tuple[str, ...]:
    """Return the directories as prefixes, each with a separator at the end, for the paths of all files below."""
    return tuple(os.path.join(directory, "") for directory in directories)  # noqa: PTH118 - ends in a separator


class NamespacePath(list[str]):
    """The ``__path__`` of a namespace package of a biz: the portions among files of the biz, and no others."""

    def __repr__(self) -> str:
        return f"_NamespacePath({list(self)!r})"  # importlib.resources goes by this name

    __str__ = __repr__


def _missing(name: str) -> ModuleNotFoundError:
    """Make Python's own error, with the same content as without a base; `linker.advice_on` says how to mend it."""
    return ModuleNotFoundError(f"No module named {name!r}", name=name)


def _is_copied(name: str, owner: str, held: Held | None) -> bool:
    if held is None or held.holding is Holding.OWN:
        return False
    portions = PORTIONS.get(owner)
    return held.holding is Holding.COPY or (portions is not None and portions.fullmatch(name) is not None)


class _Copied(NamedTuple):
    """The part of a Python module, and of Python modules below, that the biz is to execute from files of the base."""

    is_any: bool
    """Whether the biz executes any portion."""
    is_whole: bool
    """Whether the biz executes all Python modules below, as far as there are files of the base."""


class BizFinder:
    """The locator of one biz, and the answers of the ``PathFinder`` on ``sys.meta_path`` for code of the biz.

    Lifetime and threads: as the linker; `join` is called right after both were made.
    """

    def __init__(self, paths: Sequence[str], policy: Policy, biz: BizId, speakers: Speakers | None = None) -> None:
        """``speakers`` decide which libraries of the base are own copies; ``None`` means no library."""
        self.linker: Linker
        self._policy = policy
        self._speakers = speakers
        self._holdings: tuple[Index, Mapping[str, Held]] | None = None
        self._copied: dict[str, _Copied] = {}
        self._private = prefixes(policy.private)
        self._owner = f"biz {biz}"
        self._biz = biz
        with as_base():
            self._base_hooks = tuple(sys.path_hooks)
        self._of_base: set[str] = set()
        """Top-level names known to be the base's."""
        self._granted: set[str] = set()
        self._sight: _Sight | None = None
        self._owned: tuple[list[str], dict[str, bool]] = [], {}
        """A search path, and: top-level name not imported yet -> whether the biz has it on the search path."""
        self._replaced: tuple[Index | None, list[str], frozenset[str]] = None, [], frozenset()
        """An index, a search path, and the answer of `_tied` for both."""
        self._lent: dict[str, Unit] = {}
        """Packages lent by shared units."""
        self._parts: dict[str, bool] = {}
        """Python module of a distribution lent by a unit -> whether the biz executes the Python module for itself."""
        self._index: Index | None = None
        self._look_in(paths)

    def _look_in(self, paths: Sequence[str]) -> None:
        self.paths = tuple(paths)
        self._prefixes = prefixes(paths)

    def join(self, linker: Linker) -> None:
        """Work for a linker from now on, and fill its table, import hooks and search path."""
        self.linker = linker
        arrivals.follow(linker)
        main = ModuleType("__main__", "The program; what it starts with is elsewhere.")
        linker.adopt(main)
        table = linker.table
        table.personal.update(importlib=importlib_for(linker), __main__=main)
        table.modules.update(table.personal)
        self.on_path = _path_finder(self)
        path = [*self.paths, *(entry for entry in base_path() if entry not in self.paths)]
        self.sys = SysVariables(path, (BuiltinImporter, FrozenImporter, self.on_path), self._base_hooks)
        linker.scope.attach(self.sys)

    def drop(self) -> None:
        """Let go of the owner's values of ``sys``, and of this finder in the item of ``sys.meta_path``. Idempotent."""
        self.sys.drop()
        self._sight = None
        for name in _FUNCTIONS:  # a class is freed by a collection alone, and would keep the owner until then
            if isinstance(vars(self.on_path).get(name), staticmethod):
                delattr(self.on_path, name)

    def has_hooks(self) -> bool:
        """See `locator.Locator`."""
        return self.sys.has_hooks()

    # --- as the linker asks --------------------------------------------------------------------------------------

    @passed_over
    def foreign(self, name: str) -> ModuleType | None:
        """See `locator.Locator`."""
        verdict = self._policy.before_own(name)
        if verdict is not None:
            return self._import_as_base(name) if verdict.provider is None else verdict.provider(name)
        if name.partition(".")[0] in self._of_base:
            return self._take_from_base(name)
        if self._lent:
            lender = self._lender_of(name)
            if lender is not None and not self.is_own_part(name):
                return lender.linker.load(name)
        return None

    @passed_over
    def locate(self, name: str, parent: ModuleType | None, *, is_asked: bool = False) -> ModuleSpec | ModuleType:
        """See `locator.Locator`."""
        parent_name = name.rpartition(".")[0]
        if parent is not None and self.linker.table.modules.get(parent_name) is not parent:
            lender = self._lender_of(name)  # of the parent, which was imported only now, for this very name
            if lender is None:
                return self._take_from_base(name)
            spec = self._find_own(name, parent.__path__, is_asked=is_asked) if self.is_own_part(name) else None
            if spec is None:
                return lender.linker.load(name)
            return spec
        path, is_open = (None, True) if parent is None else self._own_portions(parent_name, parent)
        spec = self._find_own(name, path, is_asked=is_asked)
        if spec is not None and not (spec.loader is None and is_open and self._has_whole_of_base(name)):
            return self._shared(name, spec) or self._compiled_once(spec)
        if not is_open:
            raise _missing(name)
        if name in NEVER_DELEGATED:
            raise self._refusal(name, "a module never gets the program of the base")
        spec = self._find_copy(name)
        if spec is not None:
            self._check(name)
            return self._compiled_once(spec)
        module = self._take_from_base(name)
        if parent is None:
            self._of_base.add(name)
        return module

    @seen_as(bootstrap._find_spec)  # noqa: SLF001 - in its place
    def hooked(self, name: str, parent: ModuleType | None) -> ModuleSpec | None:
        """See `locator.Locator`."""
        if parent is not None and not hasattr(parent, "__path__"):
            return None  # a compiled file may enter Python modules below itself; Python asks no finder for these
        path = None if parent is None else parent.__path__
        spec: ModuleSpec | None
        for hook in list(self.sys.hooks_in_use()):
            if hook is self.on_path:
                break
            if hook is BuiltinImporter or hook is FrozenImporter:
                if hook.find_spec(name) is not None:
                    break
            elif hasattr(hook, "find_spec"):
                with entered(self.linker.scope):
                    spec = hook.find_spec(name, path, None)
                if spec is not None:
                    return None if isinstance(spec.loader, LazyLoader) and is_one(name) else spec
        return None

    @passed_over
    def anew(self, name: str, parent: ModuleType | None) -> ModuleSpec | ModuleType:
        """See `locator.Locator`."""
        self._check(name)
        spec = None if is_one(name) else self._find_anew(name, None if parent is None else parent.__path__)
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            return spec
        # Compiled code is initialised once, and there is one of each Python module that holds the process together.
        return self.foreign(name) or self._take_from_base(name)

    @passed_over
    def _find_anew(self, name: str, path: Iterable[str] | None) -> ModuleSpec | None:
        if path is not None:
            return self._find_in_files(name, map(str, path))
        own = () if is_of_process(name) else self._own_path()
        spec = self._find_in_files(name, (*own, *base_path()))
        if spec is None:
            with as_base():  # finders of the base may know more than its search path tells
                spec = bootstrap._find_spec(name, None)  # noqa: SLF001 - past ``sys.modules``
        return spec

    def owns(self, top: str) -> bool:
        """See `locator.Locator`."""
        if top in self._of_base:
            return False
        path, known = self._owned
        if path != (in_use := self.sys.path_in_use()):
            self._owned = list(in_use), (known := {})
        if top not in known:
            spec = None
            if self._policy.before_own(top) is None:
                spec = self._find_in_files(top, self._own_path())
                if spec is None or spec.loader is None:
                    spec = self._find_copy(top)
                elif self._is_shared(top, spec) and self._is_of_base((own := self._own_index()).owners(top)[0], own):
                    spec = None  # the base has the same library, and lends it
            known[top] = spec is not None and spec.loader is not None  # without a loader: one portion of several
        return known[top]

    def sight(self) -> Callable[[str], bool]:
        """See `locator.Locator`.

        Without a base ``sys.modules`` holds the imports of the program. Among the Python modules loaded by the base,
        the standard library and the base's own code are in sight, and each library from which the biz, or a shared
        library of the biz, has taken a Python module, with all libraries required.
        """
        sight, table = self._sight, self.linker.table
        taken = [table.taken, *(lender.taken for lender in table.all_lenders())]
        count = sum(map(len, taken))
        if sight is None or sight.count != count:  # the index looks at every directory of the search path
            index = distributions.base_index()
            if sight is None or sight.index is not index:
                self._sight = sight = _Sight(index, self._is_granted)
            sight.use(frozenset().union(*taken), count)
        return sight.holds

    def _is_granted(self, name: str) -> bool:
        try:
            self._check(name)
        except ModuleRefused:
            return False
        return True

    def is_settled(self, name: str) -> bool:
        """See `locator.Locator`."""
        top = name.partition(".")[0]
        return top in PROCESS_NAMES or top in self._of_base

    # --- own copies of libraries of the base -----------------------------------------------------------------------

    def holdings(self) -> Mapping[str, Held]:
        """How the biz holds each distribution of the base, by normalised name; empty if nobody has decided."""
        index = distributions.base_index()
        if self._holdings is None or self._holdings[0] is not index:
            speakers = self._speakers
            if speakers is not None and (brought := frozenset(filter(index.concerns, self._own_index().versions))):
                speakers = replace(speakers, brought=brought)
            self._holdings = index, {} if speakers is None else decide(index, speakers)
            self._copied.clear()
        return self._holdings[1]

    def libraries(self) -> tuple[Library, ...]:
        """The libraries required or imported so far by the biz, and how the biz holds each, sorted by name."""
        found: dict[str, Library] = {}
        own, base, holdings = self._own_index(), distributions.base_index(), self.holdings()
        for name in list(self.linker.table.modules):
            for owner in own.owners(name):
                if own.place(owner) != self.paths[0]:  # else the program of the biz
                    found[owner] = Library(owner, own.versions[owner], Holding.OWN.value, _BROUGHT)
        imported = {
            owner for name in [*self.linker.table.modules, *self.linker.table.taken] for owner in base.owners(name)
        }
        for owner in imported.union(self._policy.required) - found.keys() - {SELF}:
            held = holdings.get(owner)
            if held is not None:
                found[owner] = Library(owner, base.versions[owner], held.holding.value, held.reason)
        return tuple(found[name] for name in sorted(found))

    def library_of(self, kind: type) -> str | None:
        """The distribution of a class, if the biz executes Python modules of the distribution; else ``None``."""
        module = self.linker.table.modules.get(kind.__module__)
        if module is None or getattr(module, kind.__qualname__.partition(".")[0], None) is None:
            return None
        own = self._own_index()
        owners = [owner for owner in own.owners(kind.__module__) if own.place(owner) != self.paths[0]]
        if not owners and self.is_copied(kind.__module__):
            owners = list(distributions.base_index().owners(kind.__module__))
        return owners[0] if owners else None

    def is_copied(self, name: str) -> bool:
        """See `locator.Locator`. Of a namespace package, whether the biz has an own copy of any portion."""
        if self._speakers is None:
            return False
        return self._judged(name).is_any

    def _judged(self, name: str) -> _Copied:
        known = self._copied.get(name)
        if known is None:
            holdings = self.holdings()  # may clear the copies known so far
            index = distributions.base_index() if self._holdings is None else self._holdings[0]
            held = [(owner, holdings.get(owner)) for owner in index.owners(name)]
            is_any = any(_is_copied(name, owner, how) for owner, how in held)
            top = self._copied.get(name.partition(".")[0])
            is_any = is_any and ((top is not None and top.is_any) or not distributions.is_stdlib(name))
            is_whole = is_any and any(how is not None and how.holding is Holding.COPY for _, how in held)
            self._copied[name] = known = _Copied(is_any, is_whole)
        return known

    def _find_copy(self, name: str) -> ModuleSpec | None:
        """Find the spec of a Python module for the biz to execute from files of the base; ``None`` if there is none."""
        if not self.is_copied(name):
            return None
        return self._find_in_files(name, self._portions_of_base(name.rpartition(".")[0]))

    def _portions_of_base(self, name: str) -> Sequence[str]:
        """Return the base's directories of Python modules below a package; of top-level ones for an empty name."""
        if not name:
            return base_path()
        spec = self._find_in_files(name, self._portions_of_base(name.rpartition(".")[0]))
        return [] if spec is None else spec.submodule_search_locations or []

    @passed_over
    def _compiled_once(self, spec: ModuleSpec) -> ModuleSpec | ModuleType:
        found = load_once(spec, self.linker, self._beside)
        if not isinstance(found, ModuleSpec):
            self.linker.table.modules[spec.name] = found
        return found

    def _has_whole_of_base(self, name: str) -> bool:
        """Whether the base has, and may lend, a Python module, or a package of one piece.

        A mere directory of the biz must not hide either.
        """
        spec = self._find_in_files(name, self._portions_of_base(name.rpartition(".")[0]))
        return spec is not None and spec.loader is not None and self._is_granted(name)

    # --- shared units, and libraries lent by the base ------------------------------------------------------------

    @passed_over
    def _shared(self, name: str, spec: ModuleSpec) -> ModuleType | None:
        """Return the Python module of a unit or of the base, if the files found belong to a shared distribution."""
        index = self._own_index()
        return self._share(name, index.owners(name)[0], index) if self._is_shared(name, spec) else None

    def _is_shared(self, name: str, spec: ModuleSpec) -> bool:
        """Whether the files found belong to a shared distribution."""
        index = self._own_index()
        if not index.shared:
            return False
        owners = index.owners(name)
        if len(owners) != 1 or owners[0] not in index.shared or not self._is_installed(name, spec, owners[0]):
            return False
        return owners[0] in index.compiled or owners[0] not in self._tied()

    def _tied(self) -> frozenset[str]:
        """Return the libraries of pure Python that require a library replaced by the biz.

        The biz has put Python modules in front of the installed ones. A shared library would go on with the installed
        ones, for all bizs. So these libraries are the biz's own, like the replacement.
        """
        index, in_use = self._own_index(), self.sys.path_in_use()
        if self._replaced[:2] != (index, in_use):
            own, replaced = self._own_path(), set[str]()
            for owner in index.shared:
                for top in index.top_level(owner):
                    spec = self._find_in_files(top, own) if index.owners(top) == (owner,) else None
                    if spec is not None and spec.has_location and not self._is_installed(top, spec, owner):
                        replaced.add(top)
            self._replaced = index, list(in_use), index.tied(index.shared - index.compiled, replaced)
        return self._replaced[2]

    def _beside(self, name: str) -> str:
        """Return the digests of compiled files that a compiled Python module may be bound to.

        The digests tell apart different surroundings of the same file; empty if all files are the base's.
        """
        own, base = self._own_index(), distributions.base_index()
        if not own.compiled:
            return ""
        owners = [owner for owner in own.owners(name) if own.place(owner) != self.paths[0]]
        around: Iterable[str] = own.compiled  # of the program itself
        if owners:
            around = frozenset().union(*map(own.surroundings, owners))
        elif self.is_copied(name):
            around = frozenset().union(*map(base.closure, base.owners(name)))
        others = own.compiled.intersection(around).difference(owners)
        told = [own.content(other) for other in sorted(others) if not self._is_of_base(other, own)]
        told += [files for owner in owners if (files := own.compiled_content(owner)) != base.compiled_content(owner)]
        return " ".join(told)

    @staticmethod
    def _is_of_base(distribution: str, index: Index) -> bool:
        """Whether the base has the very same content, and lends the distribution instead."""
        base = distributions.base_index()
        return all(index.has_same(member, base) for member in index.surroundings(distribution))

    @passed_over
    def _share(self, name: str, distribution: str, index: Index) -> ModuleType | None:
        if self._parts.get(name.rpartition(".")[0]):
            return None  # below a package that the biz executes for itself
        if self._is_of_base(distribution, index):
            if "." not in name:
                self._of_base.add(name)
            self._note_taken(name)
            return self._import_as_base(name)
        unit = shelf.borrow(distribution, index, UnitFinder)
        lenders = self.linker.table.lenders
        if unit.linker.table not in lenders:
            lenders.append(unit.linker.table)
        self._lent[name] = unit
        return unit.load(name)

    def is_own_part(self, name: str) -> bool:
        """Whether the biz executes a Python module of a shared library for itself, as one that needs code of the biz.

        A unit lives on when its bizs have left, and serves bizs with other code under the same name. So Python modules
        that tie a library to a framework, or to tools for tests, belong to the biz with the framework; the library does
        without these.
        """
        known = self._parts.get(name)
        if known is None:
            lender = self._lender_of(name)
            known = self._parts[name] = lender is not None and self._is_own_part(name, lender, {name})
        return known

    def _is_own_part(self, name: str, lender: Unit, seen: set[str]) -> bool:
        if name in lender.core or name in self._lent:
            return False
        if self._parts.get(name.rpartition(".")[0]):
            return True
        for other in sorted(lender.imports(name)):
            top = other.partition(".")[0]
            if top not in lender.linker.table.claims:
                if self._policy.before_own(top) is None and self.linker.table.hides(top):
                    return True
            elif other not in seen and self._lender_of(other) is lender:
                seen.add(other)
                if self._is_own_part(other, lender, seen):
                    return True
        return False

    def _own_index(self) -> Index:
        if self._index is None:
            self._index = self._make_index()
        return self._index

    def _make_index(self) -> Index:
        return distributions.index_of(self.paths)

    def _is_installed(self, name: str, spec: ModuleSpec, owner: str) -> bool:
        """Whether files found belong to a distribution, neither to the biz's program nor added by code of the biz."""
        stem = os.path.join(self._own_index().place(owner), *name.split("."))  # noqa: PTH118 - texts
        places = [spec.origin] if spec.has_location else spec.submodule_search_locations or ()
        return any(str(place).startswith(stem) and not str(place).startswith(self._private) for place in places)

    def _lender_of(self, name: str) -> Unit | None:
        while name:
            lender = self._lent.get(name)
            if lender is not None:
                return lender
            name = name.rpartition(".")[0]
        return None

    # --- files of the biz ----------------------------------------------------------------------------------------

    @passed_over
    def _find_own(self, name: str, path: Sequence[str] | None, *, is_asked: bool) -> ModuleSpec | None:
        spec: ModuleSpec | None
        hooks = list(self.sys.hooks_in_use())
        for hook in hooks[hooks.index(self.on_path) :] if is_asked and self.on_path in hooks else hooks:
            if hook is self.on_path:
                spec = self._find_in_files(name, self._own_path() if path is None else path)
            elif hasattr(hook, "find_spec") and hook is not BuiltinImporter and hook is not FrozenImporter:
                with entered(self.linker.scope):
                    spec = hook.find_spec(name, path, None)
            else:
                continue
            if spec is not None:
                return spec
        return None

    def _own_path(self) -> Sequence[str]:
        """The directories of the biz, and the ones added to ``sys.path`` by code of the biz."""
        of_base = set(base_path())
        return [entry for entry in self.sys.path_in_use() if entry in self.paths or entry not in of_base]

    def _own_portions(self, name: str, package: ModuleType) -> tuple[list[str], bool]:
        """The directories of a package that are the biz's, and whether the base may have further portions."""
        path = [str(entry) for entry in package.__path__]
        own = path
        if not all(entry.startswith(self._prefixes) for entry in path):  # pkgutil.extend_path looks everywhere
            if getattr(package, "__file__", None) is not None and self._judged(name).is_whole:
                return path, False
            tail = name.replace(".", os.sep)
            of_base = {os.path.join(entry, tail) for entry in base_path() if entry not in self.paths}  # noqa: PTH118
            own = [entry for entry in path if entry not in of_base]
        return own, len(own) < len(path) or getattr(package, "__file__", None) is None

    def _find_in_files(self, name: str, path: Iterable[str]) -> ModuleSpec | None:
        portions: list[str] = []
        for entry in path:
            finder = self._finder(entry)
            if finder is None:
                continue
            is_private = entry in self.paths or entry.startswith(self._prefixes)
            spec: ModuleSpec | None = finder.find_spec(name) if is_private else find_once(finder, name)
            if spec is None:
                continue
            if type(spec.loader) is ExtensionFileLoader:
                spec = self._from_source(spec)
            if type(spec.loader) is SourceFileLoader and not self._is_own_code(spec.loader.path):
                # Private libraries lie in another directory for each biz that brings them.
                spec.loader = SharedCodeLoader(name, spec.loader.path, by_text=is_private)
            if spec.loader is not None:
                return spec
            portions += spec.submodule_search_locations or ()
        if not portions:
            return None
        spec = ModuleSpec(name, None, is_package=True)
        spec.submodule_search_locations = NamespacePath(portions)
        return spec

    def _from_source(self, spec: ModuleSpec) -> ModuleSpec:
        """Return the spec of the source of a file compiled by mypyc, if there is a source; else ``spec``.

        Code by mypyc looks for Python modules in the interpreter's own table whenever a function runs, and asks nobody.
        """
        assert spec.origin is not None
        index = self._own_index() if spec.origin.startswith(self._prefixes) else distributions.base_index()
        if not index.is_sourced(spec.name):
            return spec
        path = os.path.join(os.path.dirname(spec.origin), os.path.basename(spec.origin).partition(".")[0] + ".py")  # noqa: PTH118, PTH119, PTH120
        is_package = spec.submodule_search_locations is not None
        places = [os.path.dirname(path)] if is_package else None  # noqa: PTH120
        loader = SourceFileLoader(spec.name, path)
        found = importlib.util.spec_from_file_location(
            spec.name, path, loader=loader, submodule_search_locations=places
        )
        return spec if found is None else found

    def _is_own_code(self, path: str) -> bool:
        """Whether a file, below the first directory alone, is of the biz's program: no other biz has a copy."""
        return path.startswith(self._prefixes[:1]) and not path.startswith(self._prefixes[1:])

    @property
    def _finders(self) -> dict[str, Any]:
        """The dictionary at ``sys.path_importer_cache`` as seen by the biz."""
        return self.sys.assigned.get("path_importer_cache", {})  # type: ignore[no-any-return]

    def _finder(self, entry: str) -> Any:
        finders = self._finders
        try:
            return finders[entry]
        except KeyError:
            hooks, of_base = self.sys.assigned["path_hooks"], base_path()
            if tuple(hooks) == self._base_hooks and (entry in of_base or entry.startswith(prefixes(of_base))):
                with as_base():  # the finder of the base has listed the directory already
                    return finders.setdefault(entry, pkgutil.get_importer(entry))
            finder = None
            for hook in list(hooks):
                try:
                    with entered(self.linker.scope):
                        finder = hook(entry or os.getcwd())  # noqa: PTH109 - as importlib
                    break
                except ImportError:
                    continue
            return finders.setdefault(entry, finder)

    # --- Python modules of the base ------------------------------------------------------------------------------

    @passed_over
    def _take_from_base(self, name: str) -> ModuleType:
        """Return a Python module of the base.

        Raises ``ModuleRefused`` if the policy refuses the name, ``ModuleNotFoundError`` if the base has none.
        """
        self._check(name)
        self._note_taken(name)
        return self._import_as_base(name)

    def _note_taken(self, name: str) -> None:
        taken = self.linker.table.taken
        if name not in taken:
            taken.add(name)
            self.linker.answers.shown.clear()

    @passed_over
    def _import_as_base(self, name: str) -> ModuleType:
        module = find_of_base(name)
        if module is not None and not is_initialising(module):
            return module
        try:
            with arrivals.written_down(), self.linker.scope.ground.copied() as context:
                return context.run(bootstrap._find_and_load, name, bootstrap._gcd_import)  # type: ignore[no-any-return]  # noqa: SLF001
        except ModuleNotFoundError as error:
            if error.name != name.partition(".")[0]:
                raise
        raise _missing(name)

    def advice(self, name: str) -> str:
        """See `locator.Locator`."""
        parent_name = name.rpartition(".")[0]
        parent = self.linker.table.modules.get(parent_name)
        if parent is not None and hasattr(parent, "__path__") and not self._own_portions(parent_name, parent)[1]:
            return f"{self._owner} owns {parent_name!r}, and no file of the package holds this Python module"
        try:
            self._check(name)
        except ModuleRefused as refused:
            return refused.advice
        if self.find_spec(name) is not None:
            return ""
        return (
            f"neither {self._owner} nor the base has this Python module; add its distribution to the dependencies of "
            "the biz and build the biz again, or install the distribution in the base"
        )

    def _check(self, name: str) -> None:
        if not self._policy.asks_provenance or name in self._granted:
            return
        if self._index is not None and self._index.owners(name):  # brought by the biz; the base lends the same content
            self._granted.add(name)
            return
        provenance = distributions.provenance(name)
        if provenance is not None:
            verdict = self._policy.of_base(name, provenance)
            if verdict.side is Side.REFUSED:
                raise self._refusal(
                    name, f"{self._owner} may not take this Python module from the base: {verdict.reason}"
                )
            self._granted.add(name)

    def _refusal(self, name: str, reason: str) -> ModuleRefused:
        """Make the error for a Python module that is there, and is refused."""
        return ModuleRefused(f"No module named {name!r}", name=name, biz=self._biz, advice=reason)

    # --- as a finder on sys.meta_path ----------------------------------------------------------------------------

    @passed_over
    def find_spec(self, name: str, path: Sequence[str] | None = None, target: object = None) -> ModuleSpec | None:  # noqa: ARG002
        """Answer ``importlib.util.find_spec``, ``importlib.reload`` and ``pkgutil`` for the biz.

        Returns ``None`` if nothing is found, or the name is refused. Raises ``BizGone`` after the drop of the linker.
        """
        if self.linker.is_gone:
            raise BizGone(self._biz, name=name)
        if name in self.linker.table.removed and not is_one(name):
            spec = self._find_anew(name, path)
            if spec is not None and isinstance(spec.loader, SourceFileLoader):
                return spec
        verdict = self._policy.before_own(name)
        if verdict is not None:
            return self._base_spec(name) if verdict.provider is None else verdict.provider(name).__spec__
        parent_name = name.rpartition(".")[0]
        lender = self._lender_of(name)
        if lender is not None:
            spec = getattr(self.linker.table.find(name), "__spec__", None) or self._find_in_files(name, path or ())
            return None if spec is None else lent_spec(spec, self.linker.lend)
        if not parent_name:
            return self._find_top(name)
        parent = self.linker.table.modules.get(parent_name)
        if parent is None or not hasattr(parent, "__path__"):
            return self._spec_of_base(name)
        own, is_open = self._own_portions(parent_name, parent)
        spec = self._find_in_files(name, own)
        return self._spec_of_base(name) if spec is None and is_open else spec

    @passed_over
    def _find_top(self, name: str) -> ModuleSpec | None:
        spec = self._find_in_files(name, self._own_path())
        if spec is not None and self._is_shared(name, spec):
            return lent_spec(spec, self.linker.lend)
        is_whole = spec is not None and (spec.loader is not None or not self._has_whole_of_base(name))
        return spec if is_whole or name in NEVER_DELEGATED else self._spec_of_base(name)

    @passed_over
    def _spec_of_base(self, name: str) -> ModuleSpec | None:
        try:
            self._check(name)
        except ModuleRefused:
            return None
        return self._find_copy(name) or self._base_spec(name)

    @passed_over
    def _base_spec(self, name: str) -> ModuleSpec | None:
        try:
            if name.partition(".")[0] != SELF:
                self._check(name)
            with as_base():
                spec = importlib.util.find_spec(name)
        except (ImportError, ValueError):
            return None
        return None if spec is None else lent_spec(spec, self.linker.lend)

    def find_distributions(self, context: DistributionFinder.Context) -> Iterator[Distribution]:
        """Yield the distributions found by ``importlib.metadata`` for the biz."""
        copied = frozenset() if "name" in vars(context) else self._imported_copies()
        return distributions.distributions_for(
            context, own_path=self._own_path(), declared=self._policy.declared, copied=copied
        )

    def _imported_copies(self) -> frozenset[str]:
        """The distributions of which the biz has imported an own copy: such a library looks for its own plug-ins."""
        base, holdings = distributions.base_index(), self.holdings()
        owners = {owner for name in list(self.linker.table.modules) for owner in base.owners(name)}
        return frozenset(name for name in owners if name in holdings and holdings[name].holding is Holding.COPY)

    def invalidate_caches(self) -> None:
        """Look at directories again, and ask the base again for names found there before."""
        for finder in list(self._finders.values()):
            if hasattr(finder, "invalidate_caches"):
                finder.invalidate_caches()
        for entry in [entry for entry, finder in self._finders.items() if finder is None]:
            del self._finders[entry]
        self._of_base.clear()
        self._sight = None
        self._copied.clear()
        self._granted.clear()
        self._parts = {
            name: True for name, is_own in self._parts.items() if is_own and name in self.linker.table.modules
        }
        self._owned = [], {}
        self.linker.answers.forget()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._biz}>"


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
        self._used = self._used.union(*map(self.index.closure, owners - self._used))

    def holds(self, name: str) -> bool:
        """Whether a Python module of the base is in sight."""
        if name.partition(".")[0] in PROCESS_NAMES:
            return True
        if name not in self._known:
            self._known[name] = self.index.owners(name) if self._is_granted(name) else None
        owners = self._known[name]
        return owners is not None and (not owners or not self._used.isdisjoint(owners))


class _PathFinderKind(type):
    """The class of the stand-in for ``PathFinder`` among the finders of an owner, which equals ``PathFinder``."""

    def __eq__(cls, other: object) -> bool:
        return other is cls or other is PathFinder

    def __hash__(cls) -> int:
        return hash(PathFinder)

    def __delattr__(cls, name: str) -> None:
        """Delete an attribute, and hide the inherited one: an attribute deleted from Python's own finder is gone."""
        is_there = hasattr(cls, name)
        if name in vars(cls) and not isinstance(vars(cls)[name], _Deleted):
            super().__delattr__(name)
        elif not is_there or name not in vars(PathFinder):
            raise AttributeError(f"type object {cls.__name__!r} has no attribute {name!r}")
        if name in vars(PathFinder):
            setattr(cls, name, _Deleted(name))


class _Deleted:
    """Hides the inherited attribute under a name that was deleted."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, instance: object, kind: type) -> Any:
        raise AttributeError(f"type object {kind.__name__!r} has no attribute {self._name!r}")


_FUNCTIONS: Final = ("find_spec", "find_distributions", "invalidate_caches")


def _path_finder(finder: BizFinder) -> type:
    """Make the item of ``sys.meta_path`` for code of the owner: a class, as import hooks expect; asks ``finder``."""
    variables: dict[str, Any] = {name: staticmethod(getattr(finder, name)) for name in _FUNCTIONS}
    about = {name: getattr(PathFinder, name) for name in ("__module__", "__qualname__", "__doc__")}
    return _PathFinderKind("PathFinder", (PathFinder,), variables | about)


class UnitFinder(BizFinder):
    """The locator of a shared unit: files of its distribution, units required, and Python modules of the base."""

    def __init__(self, unit: Unit) -> None:
        super().__init__(unit.index.paths, Policy(), unit.scope.biz)
        self._owner = f"the shared library {unit.scope.biz}"
        self._unit = unit

    def _make_index(self) -> Index:
        return self._unit.index

    def _is_shared(self, name: str, spec: ModuleSpec) -> bool:
        return self._unit.distribution not in self._unit.index.owners(name) and super()._is_shared(name, spec)

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
                is_meant = self._policy.before_own(name) is None and theirs.hides(name)
            if is_meant:
                return running.load(name)
        return super().foreign(name)

    def is_own_part(self, name: str) -> bool:  # noqa: ARG002 - as any locator
        """See `locator.Locator`."""
        return False

    def _tied(self) -> frozenset[str]:
        return frozenset()  # a unit puts nothing in front of installed libraries

    def _find_in_files(self, name: str, path: Iterable[str]) -> ModuleSpec | None:
        unit = self._unit
        is_found = unit.finds(name) if current() is unit.scope else unit.owns(name)
        return super()._find_in_files(name, path) if is_found else None

    def find_distributions(self, context: DistributionFinder.Context) -> Iterator[Distribution]:
        """Yield the distributions found by ``importlib.metadata`` while Python modules of the unit are executed.

        Leaves out distributions that one biz alone brings.
        """
        for distribution in super().find_distributions(context):
            tops = self._unit.index.top_level(canonicalize_name(distribution.metadata["Name"] or ""))
            if not tops or any(self._unit.finds(top) for top in tops):
                yield distribution

    def move(self, paths: Sequence[str]) -> None:
        """See `extensions.Finder`."""
        self._look_in(paths)
        self.sys.search_path[:] = [*self.paths, *base_path()]
        self._index = None
        self.invalidate_caches()
