"""The modules of one life of one biz: made at install, dropped at uninstall, never used again."""

from __future__ import annotations

import importlib.util
import linecache
import os
import sys
import weakref
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final, cast

from koupleless.context import as_base, entered
from koupleless.errors import BizGone, ModuleRefused
from koupleless.isolation import distributions
from koupleless.isolation.extensions import is_compiled, let_go, load_once, shelf
from koupleless.isolation.imports import importlib_for, install_hooks, remove_hooks
from koupleless.isolation.interpreter import all_of_base, bootstrap, clean, find_of_base, is_initialising
from koupleless.isolation.linker import Linker, other_linkers
from koupleless.isolation.modules import base_path
from koupleless.isolation.policy import NEVER_DELEGATED, SELF, Policy, Side

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from importlib.metadata import Distribution, DistributionFinder

    from koupleless.context import Scope
    from koupleless.isolation.distributions import Index
    from koupleless.isolation.extensions import Unit

_EVERYTHING: Final = Policy()


class Namespace:
    """The private modules of one biz; a facet of its scope.

    Lifetime: the constructor attaches it to the scope and counts one user of the import hooks; `drop` gives both up.
    Threads: imports may run in any number of threads; `drop` is called once no more are expected, and an import that
    comes late raises ``BizGone``.
    """

    def __init__(self, scope: Scope, paths: Sequence[str], policy: Policy = _EVERYTHING) -> None:
        self.scope = scope
        self.paths: tuple[str, ...] = tuple(os.path.abspath(path) for path in paths)  # noqa: PTH100 - keeps links
        self.policy = policy
        finder = BizFinder(self.paths, policy, str(scope.biz))
        self._linker = linker = Linker(scope, finder)
        finder.join(linker)
        self._has_hooks = True
        install_hooks()
        scope.attach(linker)
        scope.attach(self)

    @property
    def table(self) -> dict[str, ModuleType]:
        """Name -> module, a copy: what this biz has loaded for itself and what has to be gone after `drop`.

        Compiled modules are left out: static data of their files may keep them, as empty shells, for good.
        """
        linker = self._linker
        return {
            name: module
            for name, module in cast("dict[str, object]", linker.table.copy()).items()
            if isinstance(module, ModuleType) and not is_compiled(module) and not _is_shared(module, linker)
        }

    def namesakes(self) -> list[tuple[str, ModuleType]]:
        """Modules of other bizs, and of shared libraries, that are called as one of this biz is."""
        return [
            (name, module)
            for linker in other_linkers(self._linker)
            for name, module in linker.table.copy().items()
            if name in self._linker.table and self._linker.table[name] is not module and isinstance(module, ModuleType)
        ]

    @property
    def builtins(self) -> dict[str, Any]:
        """The ``__builtins__`` of the biz's code."""
        return self._linker.builtins

    def import_module(self, name: str) -> ModuleType:
        """Import a module by its absolute name, as the biz.

        Raises whatever the module's code raises, ``ModuleRefused`` for a name the biz cannot have, and ``BizGone``
        after `drop`; tracebacks show the biz's frames only.
        """
        try:
            with entered(self.scope):
                return self._linker.load(name)
        except BaseException as error:
            clean(error)
            raise

    def resolve(self, reference: str) -> Any:
        """The object of ``package.module:attribute``, ``package.module:factory()`` (called, as the biz) or a module.

        Raises ``ImportError``, ``AttributeError`` or what the biz's code raises.
        """
        module_name, _, path = reference.partition(":")
        found: Any = self.import_module(module_name.strip())
        path = path.strip()
        is_factory = path.endswith("()")
        try:
            with entered(self.scope):
                for attribute in filter(None, path.removesuffix("()").split(".")):
                    found = getattr(found, attribute)
                return found() if is_factory else found
        except BaseException as error:
            clean(error)
            raise

    def dead_references(self) -> list[tuple[str, weakref.ref[ModuleType]]]:
        """What must be dead once the biz has left: taken before `drop`, looked at after collecting."""
        references: list[tuple[str, weakref.ref[ModuleType]]] = []
        for name, module in self.table.items():
            try:
                references.append((name, weakref.ref(module)))
            except TypeError:  # the biz put something into sys.modules that cannot be watched
                continue
        return references

    def drop(self) -> None:
        """Let go of every module, and of what the process remembers of the biz's files. Idempotent."""
        has_hooks, self._has_hooks = self._has_hooks, False
        if not has_hooks:
            return
        for module in self._linker.table.values():
            if is_compiled(module):
                let_go(module)
        self._linker.drop()
        prefixes = _prefixes(self.paths)
        for remembered in (sys.path_importer_cache, linecache.cache):
            for path in [path for path in list(remembered) if path in self.paths or path.startswith(prefixes)]:
                remembered.pop(path, None)
        distributions.forget_index(self.paths)
        remove_hooks()

    def __repr__(self) -> str:
        return f"<Namespace of {self.scope.biz}, {len(self._linker.table)} modules>"


def _prefixes(directories: Iterable[str]) -> tuple[str, ...]:
    """What the paths of all files below these directories start with."""
    return tuple(os.path.join(directory, "") for directory in directories)  # noqa: PTH118 - it ends in a separator


def _is_shared(module: ModuleType, linker: Linker) -> bool:
    """Whether a module that stands in the table is the base's, or a shared unit's, under whatever name."""
    name = getattr(module, "__name__", None)
    if name is None:  # as what mypyc compiles, and what code puts into sys.modules
        return any(known is module for known in all_of_base().values()) or linker.is_lent_somehow(module)
    return find_of_base(name) is module or linker.is_lent(name, module)


class NamespacePath(list[str]):
    """The ``__path__`` of a namespace package of a biz: its portions among the biz's files, and no others."""

    def __repr__(self) -> str:
        return f"_NamespacePath({list(self)!r})"  # importlib.resources goes by this name

    __str__ = __repr__


class BizFinder:
    """The locator of one biz, and the one finder its code sees on ``sys.meta_path``.

    Lifetime and threads: those of the linker, which it is joined to right after both were made.
    """

    def __init__(self, paths: Sequence[str], policy: Policy, identity: str) -> None:
        self.linker: Linker
        self._policy = policy
        self._private = _prefixes(policy.private)
        self._owner = f"biz {identity}"
        self._identity = identity
        self._finders: dict[str, Any] = {}
        self._of_base: set[str] = set()
        """Top-level names that turned out to be the base's."""
        self._granted: set[str] = set()
        self._owned: tuple[list[str], dict[str, bool]] = [], {}
        """Top-level names not imported yet -> whether they would be the biz's, as found on that search path."""
        self._lent: dict[str, Linker] = {}
        """Packages that a shared unit lends -> its linker."""
        self._index: Index | None = None
        self._look_in(paths)

    def _look_in(self, paths: Sequence[str]) -> None:
        self.paths = tuple(paths)
        self._prefixes = _prefixes(paths)

    def join(self, linker: Linker) -> None:
        """Work for a linker from now on: it gets what its code finds without importing it."""
        self.linker = linker
        linker.table["importlib"] = importlib_for(linker)
        linker.table["__main__"] = main = ModuleType("__main__", "The program; what it starts with is elsewhere.")
        linker.adopt(main)
        linker.meta_path.append(self)
        linker.search_path += [*self.paths, *(entry for entry in base_path() if entry not in self.paths)]

    # --- as the linker asks --------------------------------------------------------------------------------------

    def foreign(self, name: str) -> ModuleType | None:
        """See `linker.Locator`."""
        verdict = self._policy.before_own(name)
        if verdict is not None:
            return self._import_as_base(name) if verdict.provider is None else verdict.provider(name)
        if name.partition(".")[0] in self._of_base:
            return self._take_from_base(name)
        if self._lent:
            lender = self._lender_of(name)
            if lender is not None:
                return lender.load(name)
        return None

    def locate(self, name: str, parent: ModuleType | None) -> ModuleSpec | ModuleType:
        """See `linker.Locator`."""
        parent_name = name.rpartition(".")[0]
        if parent is not None and self.linker.table.get(parent_name) is not parent:
            lender = self._lender_of(name)  # for the parent, which was imported only now, for this very name
            return self._take_from_base(name) if lender is None else lender.load(name)
        path, is_open = (None, True) if parent is None else self._own_portions(parent_name, parent)
        spec = self._find_own(name, path)
        if spec is not None:
            return self._shared(name, spec) or self._compiled_once(spec)
        if not is_open:
            raise self._refusal(name, f"{self._owner} owns {parent_name!r}, and its files hold no such module")
        if name in NEVER_DELEGATED:
            raise self._refusal(name, "a module never gets the program of the base")
        module = self._take_from_base(name)
        if parent is None:
            self._of_base.add(name)
        return module

    def owns(self, top: str) -> bool:
        """See `linker.Locator`."""
        if top in self._of_base:
            return False
        path, known = self._owned
        if path != (in_use := self.linker.path_in_use()):
            self._owned = list(in_use), (known := {})
        if top not in known:
            spec = None if self._policy.before_own(top) is not None else self._find_in_files(top, self._own_path())
            known[top] = spec is not None and spec.loader is not None  # what has none is one portion of several
        return known[top]

    def _compiled_once(self, spec: ModuleSpec) -> ModuleSpec | ModuleType:
        found = load_once(spec, self.linker)
        if not isinstance(found, ModuleSpec):
            self.linker.table[spec.name] = found
        return found

    # --- what is shared, for it is compiled ----------------------------------------------------------------------

    def _shared(self, name: str, spec: ModuleSpec) -> ModuleType | None:
        """The module of a unit, or the base's, if the files found belong to a distribution that is to be shared."""
        index = self._index
        if index is None:
            index = self._index = self._make_index()
        if not index.shared:
            return None
        owners = index.owners(name)
        if len(owners) != 1 or owners[0] not in index.shared or not self._is_installed(spec):
            return None
        return self._share(name, owners[0], index)

    def _share(self, name: str, distribution: str, index: Index) -> ModuleType | None:
        base = distributions.base_index()
        if all(index.has_same(member, base) for member in index.closure(distribution)):
            if "." not in name:
                self._of_base.add(name)
            return self._import_as_base(name)
        unit = shelf.borrow(distribution, index, UnitFinder)
        if unit.linker not in self.linker.lenders:
            self.linker.lenders.append(unit.linker)
        self._lent[name] = unit.linker
        return unit.linker.load(name)

    def _make_index(self) -> Index:
        return distributions.index_of(self.paths)

    def _is_installed(self, spec: ModuleSpec) -> bool:
        """Whether found files are where the biz's distributions are: not added by its code, nor its own program's."""
        place = str(spec.origin or next(iter(spec.submodule_search_locations or ()), ""))
        return place.startswith(self._prefixes) and not place.startswith(self._private)

    def _lender_of(self, name: str) -> Linker | None:
        while name:
            lender = self._lent.get(name)
            if lender is not None:
                return lender
            name = name.rpartition(".")[0]
        return None

    # --- the biz's files -----------------------------------------------------------------------------------------

    def _find_own(self, name: str, path: Sequence[str] | None) -> ModuleSpec | None:
        spec: ModuleSpec | None
        for hook in list(self.linker.hooks_in_use()):
            if hook is self:
                spec = self._find_in_files(name, self._own_path() if path is None else path)
            elif hasattr(hook, "find_spec"):
                with entered(self.linker.scope):
                    spec = hook.find_spec(name, path, None)
            else:
                continue
            if spec is not None:
                return spec
        return None

    def _own_path(self) -> Sequence[str]:
        """The biz's directories, and those its code put on ``sys.path`` as it sees it."""
        of_base = set(base_path())
        return [entry for entry in self.linker.path_in_use() if entry in self.paths or entry not in of_base]

    def _own_portions(self, name: str, package: ModuleType) -> tuple[list[str], bool]:
        """The directories of a package that are the biz's, and whether the base may have further portions of it."""
        path = [str(entry) for entry in package.__path__]
        own = path
        if not all(entry.startswith(self._prefixes) for entry in path):  # pkgutil.extend_path looks everywhere
            tail = name.replace(".", os.sep)
            of_base = {os.path.join(entry, tail) for entry in base_path() if entry not in self.paths}  # noqa: PTH118
            own = [entry for entry in path if entry not in of_base]
        return own, len(own) < len(path) or getattr(package, "__file__", None) is None

    def _find_in_files(self, name: str, path: Iterable[str]) -> ModuleSpec | None:
        portions: list[str] = []
        for entry in path:
            finder = self._finder(entry)
            spec: ModuleSpec | None = None if finder is None else finder.find_spec(name)
            if spec is None:
                continue
            if spec.loader is not None:
                return spec
            portions += spec.submodule_search_locations or ()
        if not portions:
            return None
        spec = ModuleSpec(name, None, is_package=True)
        spec.submodule_search_locations = NamespacePath(portions)
        return spec

    def _finder(self, entry: str) -> Any:
        try:
            return self._finders[entry]
        except KeyError:
            finder = None
            for hook in sys.path_hooks:
                try:
                    finder = hook(entry or os.getcwd())  # noqa: PTH109 - as importlib
                    break
                except ImportError:
                    continue
            return self._finders.setdefault(entry, finder)

    # --- the base's ----------------------------------------------------------------------------------------------

    def _take_from_base(self, name: str) -> ModuleType:
        """A module of the base, if the policy allows it and the base has it."""
        self._check(name)
        return self._import_as_base(name)

    def _import_as_base(self, name: str) -> ModuleType:
        module = find_of_base(name)
        if module is not None and not is_initialising(module):
            return module
        try:
            with as_base():
                return bootstrap._gcd_import(name)  # type: ignore[no-any-return]  # noqa: SLF001
        except ModuleNotFoundError as error:
            if error.name != name.partition(".")[0]:
                raise
        raise self._refusal(
            name,
            f"neither {self._owner} nor the base has it; add the distribution that provides it to the "
            "dependencies of the module and build it again, or install it in the base",
        )

    def _check(self, name: str) -> None:
        if not self._policy.asks_provenance or name in self._granted:
            return
        if self._index is not None and self._index.owners(name):  # the biz brings it, and is lent the same by the base
            self._granted.add(name)
            return
        provenance = distributions.provenance(name)
        if provenance is not None:
            verdict = self._policy.of_base(name, provenance)
            if verdict.side is Side.REFUSED:
                raise self._refusal(name, f"{self._owner} may not take it from the base: {verdict.reason}")
            self._granted.add(name)

    def _refusal(self, name: str, reason: str) -> ModuleRefused:
        return ModuleRefused(f"No module named {name!r}", name=name, identity=self._identity, advice=reason)

    # --- as a finder on sys.meta_path ----------------------------------------------------------------------------

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: object = None) -> ModuleSpec | None:  # noqa: ARG002
        """What ``importlib.util.find_spec``, ``importlib.reload`` and ``pkgutil`` get to know for the biz."""
        if self.linker.is_gone:
            raise BizGone(self._identity, name=name)
        verdict = self._policy.before_own(name)
        if verdict is not None:
            return self._base_spec(name) if verdict.provider is None else verdict.provider(name).__spec__
        parent_name = name.rpartition(".")[0]
        lender = self._lender_of(name)
        if lender is not None:
            return getattr(lender.table.get(name), "__spec__", None) or self._find_in_files(name, path or ())
        if not parent_name:
            spec = self._find_in_files(name, self._own_path())
            return spec if spec is not None or name in NEVER_DELEGATED else self._base_spec(name)
        parent = self.linker.table.get(parent_name)
        if parent is None or not hasattr(parent, "__path__"):
            return self._base_spec(name)
        own, is_open = self._own_portions(parent_name, parent)
        spec = self._find_in_files(name, own)
        return self._base_spec(name) if spec is None and is_open else spec

    def _base_spec(self, name: str) -> ModuleSpec | None:
        try:
            if name.partition(".")[0] != SELF:
                self._check(name)
            with as_base():
                return importlib.util.find_spec(name)
        except (ImportError, ValueError):
            return None

    def find_distributions(self, context: DistributionFinder.Context) -> Iterator[Distribution]:
        """What ``importlib.metadata`` finds for the biz."""
        return distributions.distributions_for(context, own_path=self._own_path(), declared=self._policy.declared)

    def invalidate_caches(self) -> None:
        """Look at directories again, and ask the base again for what was its."""
        for finder in list(self._finders.values()):
            if hasattr(finder, "invalidate_caches"):
                finder.invalidate_caches()
        self._finders = {entry: finder for entry, finder in self._finders.items() if finder is not None}
        self._of_base.clear()
        self._granted.clear()
        self._owned = [], {}
        self.linker.forget()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._identity}>"


class UnitFinder(BizFinder):
    """The locator of a shared unit: its own distribution's files, the units it requires, and the base's modules."""

    def __init__(self, unit: Unit) -> None:
        super().__init__(unit.index.paths, Policy(), str(unit.scope.biz))
        self._owner = f"the shared library {unit.scope.biz}"
        self._unit = unit

    def _make_index(self) -> Index:
        return self._unit.index

    def _shared(self, name: str, spec: ModuleSpec) -> ModuleType | None:
        unit = self._unit
        owners = unit.index.owners(name)
        if not owners or unit.distribution in owners:
            return None
        return super()._shared(name, spec)

    def _find_in_files(self, name: str, path: Iterable[str]) -> ModuleSpec | None:
        spec = super()._find_in_files(name, path)
        return spec if spec is None or self._unit.owns(name) else None

    def move(self, paths: Sequence[str]) -> None:
        """See `extensions.Finder`."""
        self._look_in(paths)
        self.linker.search_path[:] = [*self.paths, *base_path()]
        self._index = None
        self.invalidate_caches()
