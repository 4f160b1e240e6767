"""Initialise each content of a compiled Python module once in a process, however often the content is installed.

Shared libraries are never unloaded, and many refuse, or crash, when the same file is initialised again: numpy, scipy,
protobuf, cryptography. Two rules follow.

A *distribution* with compiled modules, and all its requirements, are put on the shelf: loaded once for each content, in
a namespace that belongs to no biz, and lent to every biz that brings the same content, as the base lends its
libraries. The distribution's Python code must come along, since the compiled modules keep references to this code for
good. Other contents of the same distribution stand beside the first. Where the base has the very same content, the
base's is lent.

A compiled module of a biz's *own code* is kept for its content and handed out again, if the module stands on its own.
If the module refers to Python code of the biz, every life gets a fresh copy of the file, and the memory of the old copy
is lost.
"""

from __future__ import annotations

import _imp
import contextlib
import hashlib
import itertools
import os
import re
import shutil
import tempfile
import threading
from importlib.machinery import EXTENSION_SUFFIXES, ExtensionFileLoader, ModuleSpec
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final, Protocol

from koupleless.biz import BizId
from koupleless.context import Scope, current
from koupleless.errors import ModuleRefused
from koupleless.frames import passed_over
from koupleless.isolation.interpreter import REAL, all_of_base, exposed, initialising, keep_apart, restorer
from koupleless.isolation.libraries.installed.mentions import imported_for_sure
from koupleless.isolation.libraries.worlds import inhabiting, world_of
from koupleless.isolation.linking.linker import Linker
from koupleless.isolation.linking.locator import Locator

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from koupleless.isolation.libraries.installed.index import Index
    from koupleless.isolation.linking.table import Table


# --- single files --------------------------------------------------------------------------------------------------


class _Kept:
    """Compiled modules initialised for bizs, by content and by the libraries beside. For the life of the process."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.modules: dict[str, ModuleType] = {}
        """Modules that know nothing of the Python code around them; any owner of the same content can be given them."""
        self.started: set[str] = set()
        """Contents initialised from the first file, not from a copy."""
        self.parts: dict[str, dict[str, ModuleType]] = {}
        """Content -> submodules made by the compiled module, by the ends of their names."""
        self._digests: dict[tuple[int, int, int, int], str] = {}
        self._copies = itertools.count(1)

    def digest(self, path: str) -> str:
        """Return the SHA-256 of a file, remembered for as long as the file looks unchanged. Raises ``OSError``."""
        status = os.stat(path)  # noqa: PTH116 - paths are texts, as in a spec
        key = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
        known = self._digests.get(key)
        if known is None:
            with open(path, "rb") as file:  # noqa: PTH123
                known = self._digests[key] = hashlib.file_digest(file, "sha256").hexdigest()
        return known

    def of_base(self, path: str) -> ModuleType | None:
        """Return the base's module loaded from a file of the same content; ``None`` if there is none."""
        size = os.stat(path).st_size  # noqa: PTH116
        for module in list(all_of_base().values()):
            loader = getattr(getattr(module, "__spec__", None), "loader", None)
            if not isinstance(loader, ExtensionFileLoader):  # submodules made by compiled code may name its file
                continue
            other = loader.path
            try:
                if os.stat(other).st_size == size and self.digest(other) == self.digest(path):  # noqa: PTH116
                    return module
            except OSError:  # the file was replaced or removed after the module was loaded
                continue
        return None

    @contextlib.contextmanager
    def copy(self, path: str) -> Iterator[str]:
        """Make another file of the same content; the context manager removes the file from the disk at its end.

        The copy lies beside the first file if possible: linked libraries are found there.
        """
        name = f".{os.getpid()}-{next(self._copies)}-{os.path.basename(path)}"  # noqa: PTH119
        made = os.path.join(os.path.dirname(path), name)  # noqa: PTH118, PTH120
        with contextlib.ExitStack() as stack:
            try:
                shutil.copyfile(path, made)
            except OSError:  # read-only
                made = os.path.join(stack.enter_context(tempfile.TemporaryDirectory()), name)  # noqa: PTH118
                shutil.copyfile(path, made)
            stack.callback(os.unlink, made)  # the file stays mapped
            yield made


_SUFFIXES: Final = tuple(EXTENSION_SUFFIXES)
_kept: Final = _Kept()


def is_compiled(module: object) -> bool:
    """Tell whether a compiled file, or code in one, has made a module: static data may keep the module for good."""
    if any(module is part for parts in _kept.parts.copy().values() for part in parts.values()):
        return True
    spec = own_table(module).get("__spec__")
    return issubclass(type(own_table(spec).get("loader")), ExtensionFileLoader)


def own_table(thing: object) -> dict[str, Any]:
    """Return the attributes of a module, or of another object, without asking the class, which may be code of a biz."""
    try:
        return object.__getattribute__(thing, "__dict__")  # type: ignore[no-any-return]
    except AttributeError:
        return {}


def let_go(module: ModuleType) -> None:
    """Make a compiled module forget the Python code around it, if the module was loaded for one owner only."""
    loader = getattr(module.__spec__, "loader", None)
    if isinstance(loader, KeptExtensionLoader) and not any(module is kept for kept in _kept.modules.copy().values()):
        module.__dict__.clear()


def load_once(spec: ModuleSpec, linker: Linker, what_is_beside: Callable[[str], str]) -> ModuleSpec | ModuleType:
    """Return a compiled module that serves everybody, if the spec means one; else the spec, as of now with our loader.

    A spec of any other kind of module is returned unchanged. A module that refers to Python code of its own package
    serves one owner only. A module keeps everything taken from other compiled libraries in static data, and so serves
    only owners with the same libraries: ``what_is_beside`` tells such surroundings apart, and is empty where only the
    base's can be found.

    Raises ``OSError`` if the file cannot be read.
    """
    if type(spec.loader) is not ExtensionFileLoader:
        return spec
    path, beside = spec.loader.path, what_is_beside(spec.name)
    with _kept.lock:
        digest = _kept.digest(path)
        module = _kept.modules.get(digest + beside)
        if module is None:
            module = _kept.of_base(path)
            if module is not None:
                _kept.started.add(digest)
                module = None if beside else module
        if module is not None and _is_leaf(module, linker, spec.name):
            for ending, part in _kept.parts.get(digest + beside, {}).items():
                linker.table.modules[spec.name + ending] = part
            return module
        is_first = digest not in _kept.started
        _kept.started.add(digest)
    spec.loader = KeptExtensionLoader(spec.name, path, linker, beside, is_first=is_first)
    return spec


class KeptExtensionLoader(ExtensionFileLoader):
    """Loader of a compiled module for one owner: from the file, or from a fresh copy of the file with new static data.

    The interpreter's table is left as before: old-style extensions, and all modules made by Cython, enter themselves.
    """

    def __init__(self, name: str, path: str, linker: Linker, beside: str, *, is_first: bool) -> None:
        super().__init__(name, path)
        self._beside = beside
        self._linker: Linker | None = linker
        self._is_first = is_first
        self._parts: dict[str, ModuleType] = {}

    @passed_over
    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """Create the module, as ``importlib.abc.Loader`` asks."""
        assert self._linker is not None
        with contextlib.nullcontext(self.path) if self._is_first else _kept.copy(self.path) as path:
            own = ModuleSpec(spec.name, self, origin=path)
            with _without_others(self._linker, spec.name, self.path, self._parts):
                # The second argument is not used, but freed with the call, before any other thread can run.
                module = _imp.create_dynamic(own, restorer(spec.name))
        module.__file__ = self.path
        return module

    @passed_over
    def exec_module(self, module: ModuleType) -> None:
        """Execute the module, as ``importlib.abc.Loader`` asks."""
        linker, self._linker = self._linker, None  # the module may outlive its owner, and the loader with it
        if linker is None:  # reloaded, which does nothing to compiled modules
            return
        with _without_others(linker, self.name, self.path, self._parts):
            restore = restorer(self.name)
            try:
                _imp.exec_dynamic(module)
            finally:
                del restore
        if _is_leaf(module, linker, self.name):
            with _kept.lock:
                key = _kept.digest(self.path) + self._beside
                if _kept.modules.setdefault(key, module) is module:
                    _kept.parts[key] = self._parts


@contextlib.contextmanager
def _without_others(linker: Linker, name: str, path: str, parts: dict[str, ModuleType]) -> Iterator[None]:
    """Hide the base's copies of the owner's packages from the interpreter's table, while a module is initialised.

    Modules of the same installation that the compiled module enters into the table are moved to the owner. Submodules,
    as pybind11 makes, are noted in ``parts``; others are compiled together with the module, as by mypyc. A unit is used
    as long as the process lives, and its compiled code may import at any time: for a unit the base's copies stay hidden
    for good.
    """
    table = linker.table
    if table.claims:
        keep_apart(table.claims)
    prefix, root = f"{name}.", os.path.join(_root(path, name), "")  # noqa: PTH118 - for startswith
    world = world_of(linker)
    with inhabiting(world), initialising(linker, table.modules.copy(), _contested(table)) as is_outermost:
        before, is_made = REAL.copy(), False
        try:
            yield
            is_made = True
        finally:
            for entered, module in REAL.copy().items():
                if before.get(entered) is module or entered in exposed or table.modules.get(entered) is module:
                    continue
                if entered.startswith(prefix):
                    parts.setdefault(entered.removeprefix(name), module)
                elif entered == name or not is_outermost or not _lies_below(root, module):
                    continue  # modules compiled together look for each other here until all are made
                taken = REAL.pop(entered)
                if is_made or not entered.startswith(prefix):
                    table.modules[entered] = taken


def _contested(table: Table) -> set[str]:
    """Return the top-level names of the owner under which the base has another Python module."""
    of_base = all_of_base()
    return {name for name in table.own_tops() if name in of_base and table.modules.get(name) is not of_base[name]}


def _root(path: str, name: str) -> str:
    """Return the directory on the search path from which a module of this name was found at ``path``."""
    directory = os.path.dirname(path)  # noqa: PTH120
    depth = name.count(".") + (os.path.basename(path).partition(".")[0] == "__init__")  # noqa: PTH119
    for _ in range(depth):
        directory = os.path.dirname(directory)  # noqa: PTH120
    return directory


def _lies_below(root: str, module: object) -> bool:
    """Tell whether a compiled module comes from a directory."""
    file = getattr(module, "__file__", None)
    return isinstance(file, str) and file.startswith(root) and file.endswith(_SUFFIXES)


def _is_leaf(module: ModuleType, linker: Linker, name: str) -> bool:
    """Tell whether nothing in the module belongs to Python code of the same package, or of the same owner."""
    own = module.__name__
    tops = {own.partition(".")[0], name.partition(".")[0], *linker.table.own_tops()}
    for value in list(module.__dict__.values()):
        of = getattr(value, "__name__" if isinstance(value, ModuleType) else "__module__", None)
        if isinstance(of, str) and of != own and not of.startswith(own + ".") and of.partition(".")[0] in tops:
            return False
    return True


# --- distributions -------------------------------------------------------------------------------------------------


class Finder(Locator, Protocol):
    """Locator of a unit, which enters itself into the table of the unit's linker when made."""

    def move(self, paths: Sequence[str]) -> None:
        """Look for files in other directories from now on."""


class Unit:
    """One content of one distribution, loaded for every biz that brings the same content. For the life of the process.

    No biz runs while modules of the unit are executed. Everything found then is kept for all users: other units, and
    modules of the base. The names looked for are written down, and a biz with other content under such a name gets
    another unit.
    """

    def __init__(self, distribution: str, index: Index, make_finder: Callable[[Unit], Finder]) -> None:
        self.distribution = distribution
        self.index = index
        version = re.sub(r"[^A-Za-z0-9._+!-]", "-", index.versions[distribution])
        first = current()
        self.scope = Scope(BizId.of(distribution, version), None if first is None else first.ground)
        claims = frozenset().union(*(index.top_level(name) for name in index.relations.surroundings(distribution)))
        self.linker = Linker(self.scope, claims=claims)
        self._finder = make_finder(self)
        self.scope.attach(self.linker)
        self.core: set[str] = set()
        """Modules that the unit cannot do without, as far as loaded: modules that come with the unit's packages."""
        self._found: dict[str, str] = {}
        """Other top-level names looked for by executed modules of the unit -> the content found; empty if nothing was
        to be shared."""
        self._imports: dict[str, frozenset[str]] = {}

    def load(self, name: str) -> ModuleType:
        """Load a module with which use of the distribution begins: a package, or the distribution's portion of one."""
        module = self.linker.load(name)
        self.core.update(self.linker.table.modules.copy())
        return module

    def owns(self, name: str) -> bool:
        """Tell whether a module belongs to the distribution, or to its surroundings."""
        return not self.index.relations.surroundings(self.distribution).isdisjoint(self.index.owners(name))

    def finds(self, name: str) -> bool:
        """Tell whether a module of the unit, while executed, finds a name among distributions of bizs.

        The answer is remembered, for `suits`.
        """
        if self.owns(name):
            return True
        top = name.partition(".")[0]
        return bool(self._found.setdefault(top, _shared_content(self.index, top)))

    def suits(self, index: Index) -> bool:
        """Tell whether ``index`` has the contents of other distributions that the unit has found."""
        return all(_shared_content(index, top) == content for top, content in self._found.copy().items())

    def imports(self, name: str) -> frozenset[str]:
        """Return the names that a Python module of the distribution cannot do without; nothing without such a file."""
        known = self._imports.get(name)
        if known is None:
            stem = os.path.join(self.index.place(self.distribution), *name.split("."))  # noqa: PTH118 - texts
            known = frozenset()
            for path, package in ((f"{stem}.py", name.rpartition(".")[0]), (f"{stem}/__init__.py", name)):
                with contextlib.suppress(OSError), open(path, encoding="utf-8", errors="replace") as file:  # noqa: PTH123
                    known = imported_for_sure(file.read(), package)
            self._imports[name] = known
        return known

    def move(self, index: Index) -> None:
        """Take further files from another copy of the same content, once the first copy is gone from disk."""
        old, new = self.index.place(self.distribution), index.place(self.distribution)
        if old == new or os.path.isdir(old):  # noqa: PTH112
            return
        self.index = index
        for module in list(self.linker.table.modules.values()):
            path = getattr(module, "__path__", None)
            if path is not None:
                module.__path__ = type(path)(entry.replace(old, new, 1) for entry in path)
        self._finder.move(index.paths)

    def __repr__(self) -> str:
        return f"<Unit {self.scope.biz}>"


def _shared_content(index: Index, top: str) -> str:
    """Return the digests of a top-level package's distributions that are to be shared; empty if there are none."""
    return " ".join(index.contents.of(name) for name in index.owners(top) if name in index.shared)


ALONE: Final = {"lxml": "the library keeps parsers by thread, under a name that is the same for all versions"}
"""Distributions of which a process can have one content only, with the cause: found by scripts/versions, no cure known.

A second content used in the same thread fails there, with an error that nobody understands.
"""


class Shelf:
    """The units of the process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._units: dict[tuple[str, str], list[Unit]] = {}

    def conflicts(self, index: Index, base: Index) -> tuple[str, ...]:
        """Say why distributions of ``index`` cannot be loaded beside the base's, one sentence each. Thread-safe."""
        found = []
        for name in ALONE.keys() & index.versions.keys():
            if name in base.versions and not index.has_same(name, base):
                found.append(_conflict(name, index.versions[name], f"this base has {base.versions[name]}"))
            elif name not in base.versions:
                with self._lock:
                    found += self._loaded_locked(name, index)
        return tuple(sorted(found))

    def _loaded_locked(self, name: str, index: Index) -> list[str]:
        content = index.contents.of(name, alone=True)
        others = [unit for unit in self._all_of(name) if unit.index.contents.of(name, alone=True) != content]
        loaded = [unit.index.versions[name] for unit in others if len(unit.linker.table.modules) > 1]
        why = "a module has loaded {}, which stays until this base is started again"
        return [_conflict(name, index.versions[name], why.format(other)) for other in loaded]

    def _all_of(self, name: str) -> list[Unit]:
        return [unit for key, units in self._units.items() if key[0] == name for unit in units]

    def borrow(self, distribution: str, index: Index, make_finder: Callable[[Unit], Finder]) -> Unit:
        """Return the unit for the content of a distribution in ``index``, made if there is none yet. Thread-safe.

        Raises ``ModuleRefused`` if a process can have only one content of the distribution, and has another.
        """
        is_alone = distribution in ALONE
        key = (distribution, index.contents.of(distribution, alone=is_alone))
        with self._lock:
            if is_alone and (conflicts := self._loaded_locked(distribution, index)):
                raise ModuleRefused(conflicts[0], name=distribution, biz=BizId.of(distribution, key[1][:12]))
            units = self._units.setdefault(key, [])
            # A distribution in ALONE has one unit, with the libraries that its first user has beside the distribution.
            unit = next((unit for unit in units if is_alone or unit.suits(index)), None)
            if unit is None:
                units.append(unit := Unit(distribution, index, make_finder))
            elif not is_alone or unit.index.contents.of(distribution) == index.contents.of(distribution):
                unit.move(index)
            return unit

    def __len__(self) -> int:
        return sum(map(len, self._units.values()))


def _conflict(name: str, version: str, other: str) -> str:
    return (
        f"{name} {version} cannot be loaded beside another version ({ALONE[name]}), and {other}; "
        "leave the library to the base, bring the same version, or give the module a base of its own; "
        'isolation = "process" is for modules with such needs, and not available yet'
    )


shelf: Final = Shelf()
