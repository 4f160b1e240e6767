"""Files: the search for Python modules on the search path of one owner, as far as the path is the owner's.

Finders of directories are those of the owner's ``sys.path_hooks``, kept in the owner's ``sys.path_importer_cache``.
Directories are listed once for all owners (`places`), and source outside of the owner's own program is
compiled once for all owners (`codes`).
"""

from __future__ import annotations

import importlib.util
import os
import pkgutil
from importlib.machinery import ExtensionFileLoader, ModuleSpec, SourceFileLoader
from typing import TYPE_CHECKING, Any

from koupleless.context import as_base, entered
from koupleless.isolation.codes import SharedCodeLoader, unknown
from koupleless.isolation.libraries import distributions
from koupleless.isolation.places import spec_at
from koupleless.isolation.system import base_path

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from types import ModuleType

    from koupleless.context import Scope
    from koupleless.isolation.codes import Texts
    from koupleless.isolation.libraries.installed.index import Index
    from koupleless.isolation.system import SysVariables


def prefixes(directories: Iterable[str]) -> tuple[str, ...]:
    """Return the directories as prefixes, each with a separator at the end, for the paths of all files below."""
    return tuple(os.path.join(directory, "") for directory in directories)  # noqa: PTH118 - ends in a separator


class NamespacePath(list[str]):
    """The ``__path__`` of a namespace package of a biz: the portions among files of the biz, and no others."""

    def __repr__(self) -> str:
        return f"_NamespacePath({list(self)!r})"  # importlib.resources goes by this name

    __str__ = __repr__


class Files:
    """The files of one owner. Lifetime and threads: as the linker's."""

    def __init__(
        self, paths: Sequence[str], private: Sequence[str], own: SysVariables, scope: Scope, texts: Texts = unknown
    ) -> None:
        """``private`` are directories with Python modules that are never part of a shared distribution."""
        self._texts = texts
        self._private = prefixes(private)
        self._own = own
        self._scope = scope
        self._base_hooks = tuple(own.assigned["path_hooks"])
        self.look_in(paths)

    def look_in(self, paths: Sequence[str]) -> None:
        """Take these directories for the owner's from now on."""
        self.paths = tuple(paths)
        self._prefixes = prefixes(paths)
        self._index: Index | None = None

    @property
    def index(self) -> Index:
        """The distributions in the owner's directories."""
        if self._index is None:
            self._index = self._make_index()
        return self._index

    def _make_index(self) -> Index:
        return distributions.index_of(self.paths)

    def is_known_to_bring(self, name: str) -> bool:
        """Whether the owner brings a Python module in a distribution, if somebody has asked for distributions yet."""
        return self._index is not None and bool(self._index.owners(name))

    def own_path(self) -> Sequence[str]:
        """The directories of the owner, and the ones added to ``sys.path`` by code of the owner."""
        of_base = set(base_path())
        return [entry for entry in self._own.path_in_use() if entry in self.paths or entry not in of_base]

    def portions_of(self, name: str, package: ModuleType) -> tuple[list[str], bool]:
        """Return the directories of an own package that are the owner's, and whether there are others on the path."""
        path = [str(entry) for entry in package.__path__]
        own = path
        if not all(entry.startswith(self._prefixes) for entry in path):  # pkgutil.extend_path looks everywhere
            tail = name.replace(".", os.sep)
            of_base = {os.path.join(entry, tail) for entry in base_path() if entry not in self.paths}  # noqa: PTH118
            own = [entry for entry in path if entry not in of_base]
        return own, len(own) < len(path)

    def find(self, name: str, path: Iterable[str]) -> ModuleSpec | None:
        """Search directories for a Python module; ``None`` if nothing is found."""
        portions: list[str] = []
        for entry in path:
            finder = self._finder(entry)
            if finder is None:
                continue
            spec = spec_at(finder, name, self._loader)
            if spec is None:
                spec = finder.find_spec(name)
                if spec is None:
                    continue
                if type(spec.loader) is ExtensionFileLoader:
                    spec = self._from_source(spec)
                if type(spec.loader) is SourceFileLoader:
                    spec.loader = self._loader(name, spec.loader.path)
            if spec.loader is not None:
                return spec
            portions += spec.submodule_search_locations or ()
        if not portions:
            return None
        spec = ModuleSpec(name, None, is_package=True)
        spec.submodule_search_locations = NamespacePath(portions)
        return spec

    def is_installed(self, name: str, spec: ModuleSpec, owner: str) -> bool:
        """Whether files found belong to a distribution, neither to the biz's program nor added by code of the biz."""
        stem = os.path.join(self.index.place(owner), *name.split("."))  # noqa: PTH118 - texts
        places = [spec.origin] if spec.has_location else spec.submodule_search_locations or ()
        return any(str(place).startswith(stem) and not str(place).startswith(self._private) for place in places)

    def _from_source(self, spec: ModuleSpec) -> ModuleSpec:
        """Return the spec of the source of a file compiled by mypyc, if there is a source; else ``spec``.

        Code by mypyc looks for Python modules in the interpreter's own table whenever a function runs, and asks nobody.
        """
        assert spec.origin is not None
        index = self.index if spec.origin.startswith(self._prefixes) else distributions.base_index()
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

    def _loader(self, name: str, path: str) -> SourceFileLoader:
        """Make the loader of a source file."""
        if not path.startswith(self._prefixes):
            return SharedCodeLoader(name, path)
        if path.startswith(self._prefixes[0]) and not path.startswith(self._prefixes[1:]):
            return SourceFileLoader(name, path)  # of the biz's program: no other biz has a copy
        return SharedCodeLoader(name, path, self._texts)  # in another directory for each biz that brings the library

    def _finder(self, entry: str) -> Any:
        finders = self._finders
        try:
            return finders[entry]
        except KeyError:
            hooks, of_base = self._own.assigned["path_hooks"], base_path()
            if tuple(hooks) == self._base_hooks and (entry in of_base or entry.startswith(prefixes(of_base))):
                with as_base():  # the finder of the base has listed the directory already
                    return finders.setdefault(entry, pkgutil.get_importer(entry))
            finder = None
            for hook in list(hooks):
                try:
                    with entered(self._scope):
                        finder = hook(entry or os.getcwd())  # noqa: PTH109 - as importlib
                    break
                except ImportError:
                    continue
            return finders.setdefault(entry, finder)

    @property
    def _finders(self) -> dict[str, Any]:
        """The dictionary at ``sys.path_importer_cache`` as seen by the owner."""
        return self._own.assigned.get("path_importer_cache", {})  # type: ignore[no-any-return]

    def invalidate_caches(self) -> None:
        """Look at directories again."""
        for finder in list(self._finders.values()):
            if hasattr(finder, "invalidate_caches"):
                finder.invalidate_caches()
        for entry in [entry for entry, finder in self._finders.items() if finder is None]:
            del self._finders[entry]
