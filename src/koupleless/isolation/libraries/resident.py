"""Account for libraries brought into the process because a biz needed them, and left behind when the biz leaves.

A library shared by bizs is loaded into the base by the first import, and is the base's from then on: compiled code is
never unloaded. The account says which libraries came this way, by how much the process grew for each, and which bizs
use each now. Libraries imported by the base for itself are not in the account.
"""

from __future__ import annotations

import contextlib
import functools
import os
import sys
import threading
import weakref
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from koupleless.descriptions import Resident
from koupleless.isolation.interpreter import all_of_base
from koupleless.isolation.libraries import distributions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from collections.abc import Set as AbstractSet
    from types import ModuleType

    from koupleless.isolation.libraries.installed.index import Index
    from koupleless.isolation.linking.linker import Linker

STDLIB: Final = "the standard library"
"""Stands for all modules of the standard library, which belong to no distribution."""


@dataclass(slots=True)
class _Arrival:
    """Account of the Python modules of one top-level package."""

    size_bytes: int = 0
    modules: dict[str, Callable[[], ModuleType | None]] = field(default_factory=dict)
    """Weak references by name: a module imported again, after the base removed the first, is not the one on account."""

    def add(self, name: str, module: ModuleType) -> None:
        """Write down a loaded Python module."""
        with contextlib.suppress(TypeError):  # an object in the place of a module may take no weak reference
            self.modules[name] = weakref.ref(module)

    def present(self, table: Mapping[str, ModuleType]) -> set[str]:
        """Return the names of Python modules that came and are still in the table."""
        return {name for name, module in self.modules.copy().items() if name in table and table[name] is module()}


class _Loading(threading.local):
    """Packages in loading by this thread on behalf of a biz, from the outermost import inwards; else empty."""

    stack: list[tuple[str, _Arrival]]
    seen_bytes: int

    def __init__(self) -> None:
        self.stack = []
        self.seen_bytes = 0


class Arrivals:
    """Account of one process. Thread-safe; threads that load at the same time count each other's growth."""

    def __init__(self) -> None:
        self._loading = _Loading()
        self._lock = threading.Lock()
        self._by_top: dict[str, _Arrival] = {}
        self._users: weakref.WeakKeyDictionary[Linker, _User] = weakref.WeakKeyDictionary()

    def follow(self, linker: Linker) -> None:
        """Count an owner among the users of libraries, by the Python modules of the base that the owner has got."""
        with self._lock:
            self._users[linker] = _User(linker.table.taken)

    # --- while modules are loaded ----------------------------------------------------------------------------------

    @contextlib.contextmanager
    def written_down(self) -> Iterator[None]:
        """Write down each Python module of the base imported by the body on behalf of a biz."""
        stack = self._loading.stack
        if stack:  # a caller further out does so
            yield
            return
        stack.append(("", _Arrival()))
        try:
            yield
        finally:
            stack.pop()

    @property
    def is_outermost(self) -> bool:
        """Whether this thread imports on behalf of a biz, and loads no Python module yet."""
        return len(self._loading.stack) == 1

    @contextlib.contextmanager
    def measured(self, name: str) -> Iterator[Callable[[ModuleType], None]]:
        """Write down a Python module loaded by the body, with the process's growth; nothing outside `written_down`.

        The body hands the module to the function yielded. A library grows by loading its own modules; growth by modules
        of another library is counted for the other.
        """
        loading = self._loading
        if not loading.stack:
            yield _nobody_asks
            return
        top = name.partition(".")[0]
        outer_top, outer = loading.stack[-1]
        if top == outer_top:
            yield functools.partial(outer.add, name)
            return
        with self._lock:
            arrival = self._by_top.setdefault(top, _Arrival())
        now = resident_bytes()
        outer.size_bytes += now - loading.seen_bytes
        loading.seen_bytes = now
        loading.stack.append((top, arrival))
        try:
            yield functools.partial(arrival.add, name)
        finally:
            loading.stack.pop()
            now = resident_bytes()
            arrival.size_bytes += now - loading.seen_bytes
            loading.seen_bytes = now

    def forget(self, names: Iterable[str]) -> None:
        """Forget Python modules that have left again; the growth of a top-level package goes with the last one."""
        with self._lock:
            for name in names:
                arrival = self._by_top.get(name.partition(".")[0])
                if arrival is not None:
                    arrival.modules.pop(name, None)
            self._by_top = {top: arrival for top, arrival in self._by_top.items() if arrival.modules}

    # --- what there is ---------------------------------------------------------------------------------------------

    def __bool__(self) -> bool:
        """Tell whether any library came; the standard library's modules do not count."""
        return any(top not in sys.stdlib_module_names for top in list(self._by_top))

    def listing(self) -> tuple[Resident, ...]:
        """Return all libraries on account that are still here, with the bizs that use each; the largest first."""
        index = distributions.base_index()
        users: dict[str, set[str]] = {}
        for linker, owners in self._owners(index):
            for owner in owners:
                for name in _required(index, owner):
                    users.setdefault(name, set()).add(str(linker.scope.biz))
        return self._described(index, self._present(index), users)

    def idle(self, *, but_for: AbstractSet[str] = frozenset()) -> tuple[Resident, ...]:
        """Return the libraries on account that are still here, and that no biz uses; the largest first.

        Libraries ``but_for`` are left out, and nobody is asked about these.
        """
        if not self:
            return ()
        index = distributions.base_index()
        found = {name: sizes for name, sizes in self._present(index).items() if name not in but_for}
        return tuple(one for one in self._described(index, found, {}) if one.is_idle)

    def unused_by(self, linker: Linker | None) -> frozenset[str]:
        """Return the libraries on account that are still here, and that one owner cannot use."""
        if not self:
            return frozenset()
        index = distributions.base_index()
        present = frozenset(self._present(index))
        with self._lock:
            user = None if linker is None else self._users.get(linker)
        return present if user is None else present.difference(*map(index.relations.closure, user.owners(index)))

    def _present(self, index: Index) -> dict[str, tuple[int, int]]:
        """Return library -> size in bytes and number of Python modules, for libraries on account still here."""
        loaded = all_of_base()
        found: dict[str, tuple[int, int]] = {}
        with self._lock:
            arrivals = {top: (one.size_bytes, len(one.present(loaded))) for top, one in self._by_top.items()}
        for top, (size, present) in arrivals.items():
            owners = index.owners(top)
            if present:
                owner = STDLIB if top in sys.stdlib_module_names else owners[0] if owners else top
                known = found.get(owner, (0, 0))
                found[owner] = known[0] + size, known[1] + present
        return found

    def _described(
        self, index: Index, found: Mapping[str, tuple[int, int]], users: Mapping[str, AbstractSet[str]]
    ) -> tuple[Resident, ...]:
        unused = self._without_user(index, found.keys() - {STDLIB})
        residents = [
            Resident(
                name=name,
                version=".".join(map(str, sys.version_info[:3])) if name == STDLIB else index.versions.get(name, ""),
                size_bytes=max(0, size),
                modules=modules,
                users=tuple(sorted(users.get(name, ()))),
                is_idle=name in unused,
            )
            for name, (size, modules) in found.items()
        ]
        return tuple(sorted(residents, key=lambda resident: (-resident.size_bytes, resident.name)))

    def modules_of(self, residents: Iterable[Resident]) -> dict[str, list[str]]:
        """Return library -> its loaded Python modules, for pure-Python libraries that came as a whole for bizs.

        A library is left out if the base has imported one of its modules by itself. The modules include names under
        which a library shows modules of another one, as ``requests.packages`` does.
        """
        index = distributions.base_index()
        wanted = {one.name for one in residents if one.name in index.versions} - index.extended
        found: dict[str, list[str]] = {name: [] for name in wanted}
        table = all_of_base().copy()
        with self._lock:
            arrived = {name for arrival in self._by_top.values() for name in arrival.present(table)}
        for name in table:
            owners = index.owners(name)
            if len(owners) == 1 and owners[0] in wanted:
                found[owners[0]].append(name)
            else:  # files of several libraries: none of these libraries is removed
                for owner in wanted.intersection(owners):
                    wanted.discard(owner)
        own = {name for name, module in table.items() if getattr(module, "__name__", None) == name}
        whole = {owner for owner in wanted if found[owner] and arrived.issuperset(own.intersection(found[owner]))}
        return {owner: found[owner] for owner in whole}

    @staticmethod
    def directories(residents: Iterable[Resident]) -> frozenset[str]:
        """Return the directories of the libraries' compiled files, without directories shared with another library."""
        index = distributions.base_index()
        return frozenset().union(*(index.directories(one.name) for one in residents if one.name in index.extended))

    def _without_user(self, index: Index, libraries: AbstractSet[str]) -> AbstractSet[str]:
        """Return those of the libraries that no biz can use. Bizs are asked until each library has a user.

        A biz can use the distributions of Python modules that the biz has got, and all that these distributions
        require. Extras are among these: nobody has seen whether a library looks for an extra.
        """
        unused, known = set(libraries), set[frozenset[str]]()
        with self._lock:
            for linker, user in self._users.items() if unused else ():
                # A thousand bizs use few combinations of libraries.
                if not linker.is_gone and (owners := user.owners(index)) not in known:
                    known.add(owners)
                    unused.difference_update(*map(index.relations.closure, owners))
                    if not unused:
                        break
        return unused

    def _owners(self, index: Index) -> list[tuple[Linker, frozenset[str]]]:
        """Return each biz with the distributions of the Python modules given to the biz."""
        with self._lock:
            users = [(linker, user) for linker, user in self._users.items() if not linker.is_gone]
        return [(linker, user.owners(index)) for linker, user in users]


_combinations: Final[weakref.WeakValueDictionary[frozenset[str], frozenset[str]]] = weakref.WeakValueDictionary()
"""Sets of distributions used by bizs, each as one object."""


class _User:
    """A biz's use of libraries. The distributions are remembered until the biz gets another Python module."""

    __slots__ = ("_count", "_index", "_owners", "taken")

    def __init__(self, taken: AbstractSet[str]) -> None:
        self.taken = taken
        """The names of Python modules given to the biz; the set grows."""
        self._index: Index | None = None
        self._count = 0
        self._owners: frozenset[str] = frozenset()

    def owners(self, index: Index) -> frozenset[str]:
        """Return the distributions of the Python modules given to the biz. Bizs with equal ones get one object."""
        if self._index is not index or self._count != len(self.taken):
            self._count = len(self.taken)
            owners = frozenset(owner for name in set(self.taken) for owner in index.owners(name))
            self._owners = _combinations.setdefault(owners, owners)
            self._index = index
        return self._owners


def _required(index: Index, name: str) -> AbstractSet[str]:
    """Return a distribution and its requirements, direct and indirect ones, without extras."""
    found, ahead = {name}, [name]
    while ahead:
        further = index.relations.needs(ahead.pop()) - found
        found |= further
        ahead += further
    return found


def _nobody_asks(module: ModuleType) -> None:
    """Take a Python module and write nothing down."""


_PAGE: Final = os.sysconf("SC_PAGE_SIZE")


def resident_bytes() -> int:
    """Return the resident set size of this process in bytes; 0 where the system does not say. Imports nothing.

    Only Linux says.
    """
    try:
        statm = os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return 0
    try:
        return int(os.read(statm, 128).split()[1]) * _PAGE
    finally:
        os.close(statm)


arrivals: Final = Arrivals()
"""The account of this process."""
