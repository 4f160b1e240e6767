"""Python modules of one life of one biz: made at install, dropped at uninstall, never used again."""

from __future__ import annotations

import linecache
import os
import sys
import threading
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final

from koupleless.context import entered
from koupleless.isolation.codes import unknown
from koupleless.isolation.finding.files import prefixes
from koupleless.isolation.finding.finder import BizFinder
from koupleless.isolation.finding.unit_finder import UnitFinder
from koupleless.isolation.imports import HOOKS
from koupleless.isolation.interpreter import all_of_base, end_stored, find_of_base
from koupleless.isolation.libraries import distributions
from koupleless.isolation.libraries.extensions import is_compiled, let_go, own_table
from koupleless.isolation.libraries.holding import Speakers
from koupleless.isolation.linking.linker import Linker, all_linkers
from koupleless.isolation.places import forget_places
from koupleless.isolation.policy import Policy
from koupleless.tracebacks import clean

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from koupleless.context import Scope
    from koupleless.descriptions import Library
    from koupleless.isolation.codes import Texts
    from koupleless.isolation.libraries.holding import Held
    from koupleless.isolation.linking.stores import Stored

_EVERYTHING: Final = Policy()
_NOBODY: Final = Speakers()


class Namespace:
    """Private Python modules of one biz; a facet of the scope.

    Lifetime: the constructor attaches the namespace to the scope and counts one user of the import hooks; `drop`, which
    the scope calls when the scope is closed, gives both up. Threads: imports may run in any number of threads; `drop`
    is called once no more are expected, and an import that comes late raises ``BizGone``.
    """

    def __init__(
        self,
        scope: Scope,
        paths: Sequence[str],
        policy: Policy = _EVERYTHING,
        speakers: Speakers | None = _NOBODY,
        *,
        texts: Texts = unknown,
    ) -> None:
        """``texts`` tells the texts of files known to whoever unpacked the files."""
        self.scope = scope
        self.paths: tuple[str, ...] = tuple(os.path.abspath(path) for path in paths)  # noqa: PTH100 - keeps links
        self.policy = policy
        self._linker = linker = Linker(scope)
        self._finder = BizFinder(linker, self.paths, policy, UnitFinder, speakers, texts=texts)
        self._has_hooks = True
        HOOKS.acquire()
        scope.attach(self, close=self.drop)  # first of all, so that the hooks are given up whatever fails next
        scope.attach(linker)

    @property
    def table(self) -> dict[str, ModuleType]:
        """A copy of the table, name -> Python module, of all Python modules loaded for this biz alone.

        All must be gone after `drop`. Compiled Python modules are left out: static data of their files may keep empty
        shells of them for good.
        """
        linker = self._linker
        return {
            name: module
            for name, module in linker.table.modules.copy().items()  # a value may be any object
            if issubclass(type(module), ModuleType) and not is_compiled(module) and not _is_shared(module, linker)
        }

    def libraries(self) -> tuple[Library, ...]:
        """Libraries imported by the biz so far, and how the biz holds each."""
        return self._finder.account.libraries()

    def thread_values(self) -> list[tuple[threading.local, dict[str, Any]]]:
        """The ``threading.local`` objects among the globals of the biz, with their values on this thread."""
        found = {}
        for module in self._linker.table.modules.copy().values():
            table = own_table(module)
            if table.get("__builtins__") is self.builtins:
                for value in list(table.values()):
                    if issubclass(type(value), threading.local) and (values := vars(value)):
                        found[id(value)] = value, values.copy()
        return list(found.values())

    def library_of(self, kind: type) -> str | None:
        """The distribution of a class, if the biz holds an own copy or an own version; else ``None``."""
        return self._finder.account.library_of(kind)

    def holdings(self) -> Mapping[str, Held]:
        """How the biz holds each distribution of the base, by normalised name."""
        return self._finder.copies.holdings()

    @property
    def stores(self) -> Stored:
        """Possible stores of the biz's code, as far as loaded, into objects of other owners."""
        return self._linker.stores

    @property
    def builtins(self) -> dict[str, Any]:
        """The ``__builtins__`` of the biz's code."""
        return self._linker.builtins

    def import_module(self, name: str) -> ModuleType:
        """Import a Python module by the absolute name, as the biz.

        Raises all errors of the code of the Python module, ``ModuleRefused`` for a name the biz cannot have, and
        ``BizGone`` after `drop`; tracebacks show frames of the biz only.
        """
        try:
            with entered(self.scope):
                return self._linker.load(name)
        except BaseException as error:
            clean(error)
            raise

    def resolve(self, reference: str) -> Any:
        """Return the object of ``package.module:attribute`` or ``package.module``; call ``package.module:factory()``.

        A factory is called as the biz. Raises ``ImportError``, ``AttributeError`` or errors of the code of the biz.
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

    def drop(self) -> None:
        """Let go of every Python module, and clear caches of the process for files of the biz. Idempotent."""
        has_hooks, self._has_hooks = self._has_hooks, False
        if not has_hooks:
            return
        for module in self._linker.table.modules.values():
            if is_compiled(module):
                let_go(module)
        end_stored(self.builtins)
        self._linker.drop()
        self._finder.drop()
        below = prefixes(self.paths)
        for remembered in (sys.path_importer_cache, linecache.cache):
            for path in [path for path in list(remembered) if path in self.paths or path.startswith(below)]:
                remembered.pop(path, None)
        distributions.forget_index(self.paths)
        forget_places()
        HOOKS.release()

    def __repr__(self) -> str:
        return f"<Namespace of {self.scope.biz}, {len(self._linker.table.modules)} modules>"


def namesakes(name: str, life: int) -> list[ModuleType]:
    """List the Python modules under a name of all bizs, and of shared libraries, except the biz of the given life."""
    found = (linker.table.modules.get(name) for linker in all_linkers() if linker.scope.generation != life)
    return [module for module in found if module is not None and issubclass(type(module), ModuleType)]


def _is_shared(module: ModuleType, linker: Linker) -> bool:
    """Whether a Python module in the table belongs to the base or to a shared unit, under any name."""
    name = own_table(module).get("__name__")
    if name is None:  # as with output of mypyc, and with objects that code puts into sys.modules
        tables = [all_of_base(), *(lender.modules.copy() for lender in linker.table.all_lenders())]
        return any(known is module for table in tables for known in table.values())
    return find_of_base(name) is module or linker.table.is_lent(name, module)
