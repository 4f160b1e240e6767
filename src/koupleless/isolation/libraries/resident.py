"""Libraries that came into the process because a biz needed them, and that stay when it has left.

A library that bizs share is loaded into the base by the first that imports it, and is the base's from then on: compiled
code is never unloaded. Here is written down which libraries came that way, by how much the process grew for each, and
which bizs use one now. What the base has imported by itself is no business of this account.
"""

from __future__ import annotations

import contextlib
import functools
import os
import sys
import threading
import weakref
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from koupleless.descriptions import Resident
from koupleless.isolation.interpreter import all_of_base
from koupleless.isolation.libraries import distributions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from collections.abc import Set as AbstractSet
    from types import ModuleType

    from koupleless.isolation.libraries.distributions import Index
    from koupleless.isolation.linking.linker import Linker

STDLIB: Final = "the standard library"
"""Stands for its modules, which are no distribution's."""


@dataclass(slots=True)
class _Arrival:
    """What is known of the modules of one top-level package."""

    size_bytes: int = 0
    modules: dict[str, Callable[[], ModuleType | None]] = field(default_factory=dict)
    """By name, weakly: one that the base removes and imports again is not the one that came."""

    def add(self, name: str, module: ModuleType) -> None:
        """Write down a module that was loaded."""
        with contextlib.suppress(TypeError):  # something that code put in the place of a module, and cannot be watched
            self.modules[name] = weakref.ref(module)

    def present(self, table: Mapping[str, ModuleType]) -> set[str]:
        """The names under which what came is still there."""
        return {name for name, module in self.modules.copy().items() if name in table and table[name] is module()}


class _Loading(threading.local):
    """What this thread is loading on behalf of a biz, from the outermost import inwards; empty if it is not."""

    stack: list[tuple[str, _Arrival]]
    seen_bytes: int

    def __init__(self) -> None:
        self.stack = []
        self.seen_bytes = 0


class Arrivals:
    """The account of one process. Thread-safe; several threads that load at once are taken for each other's growth."""

    def __init__(self) -> None:
        self._loading = _Loading()
        self._lock = threading.Lock()
        self._by_top: dict[str, _Arrival] = {}
        self._taken: weakref.WeakKeyDictionary[Linker, AbstractSet[str]] = weakref.WeakKeyDictionary()
        self._known: weakref.WeakKeyDictionary[Linker, tuple[Index, int, AbstractSet[str]]] = (
            weakref.WeakKeyDictionary()
        )

    def follow(self, linker: Linker, taken: AbstractSet[str]) -> None:
        """Count a biz among the users of what it takes: ``taken`` grows by the names of modules of the base."""
        with self._lock:
            self._taken[linker] = taken

    def taken_by(self, linker: Linker) -> AbstractSet[str]:
        """The modules of the base that an owner has got so far; grows."""
        return self._taken.get(linker, frozenset())

    # --- while modules are loaded ----------------------------------------------------------------------------------

    @contextlib.contextmanager
    def written_down(self) -> Iterator[None]:
        """Write down what comes while the body imports modules of the base on behalf of a biz."""
        stack = self._loading.stack
        if stack:  # somebody further out does
            yield
            return
        stack.append(("", _Arrival()))
        try:
            yield
        finally:
            stack.pop()

    @contextlib.contextmanager
    def measured(self, name: str) -> Iterator[Callable[[ModuleType], None]]:
        """The body loads a module, and hands it over: write down by how much the process grows, if somebody wants it.

        A library grows by what it loads of itself; what it loads of others is theirs.
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
        """These modules have left again; what their top-level packages take is not known any more once all have."""
        with self._lock:
            for name in names:
                arrival = self._by_top.get(name.partition(".")[0])
                if arrival is not None:
                    arrival.modules.pop(name, None)
            self._by_top = {top: arrival for top, arrival in self._by_top.items() if arrival.modules}

    # --- what there is ---------------------------------------------------------------------------------------------

    def __bool__(self) -> bool:
        """Whether any library came; the standard library's modules do not count."""
        return any(top not in sys.stdlib_module_names for top in list(self._by_top))

    def listing(self) -> tuple[Resident, ...]:
        """All that came because bizs needed it and is still here, the largest first."""
        index = distributions.base_index()
        loaded = all_of_base()
        users, possible_users = self._users(index)
        found: dict[str, tuple[int, int]] = {}
        with self._lock:
            arrivals = {top: (one.size_bytes, len(one.present(loaded))) for top, one in self._by_top.items()}
        for top, (size, present) in arrivals.items():
            owners = index.owners(top)
            if present:
                owner = STDLIB if top in sys.stdlib_module_names else owners[0] if owners else top
                known = found.get(owner, (0, 0))
                found[owner] = known[0] + size, known[1] + present
        residents = [
            Resident(
                name=name,
                version=".".join(map(str, sys.version_info[:3])) if name == STDLIB else index.versions.get(name, ""),
                size_bytes=max(0, size),
                modules=modules,
                users=tuple(sorted(users.get(name, ()))),
                is_idle=name != STDLIB and name not in possible_users,
            )
            for name, (size, modules) in found.items()
        ]
        return tuple(sorted(residents, key=lambda resident: (-resident.size_bytes, resident.name)))

    def modules_of(self, residents: Iterable[Resident]) -> dict[str, list[str]]:
        """Library -> its loaded Python modules, of those libraries that came as a whole for bizs and are not compiled.

        Of a library of which the base has imported anything by itself nothing is known: it is left out. Names under
        which a library shows modules of another one, as ``requests.packages`` does, are among its names.
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
            else:  # files of several: none of them is removed
                for owner in wanted.intersection(owners):
                    wanted.discard(owner)
        own = {name for name, module in table.items() if getattr(module, "__name__", None) == name}
        whole = {owner for owner in wanted if found[owner] and arrived.issuperset(own.intersection(found[owner]))}
        return {owner: found[owner] for owner in whole}

    @staticmethod
    def directories(residents: Iterable[Resident]) -> frozenset[str]:
        """Where the compiled files of libraries lie, those that they share with no other library."""
        index = distributions.base_index()
        return frozenset().union(*(index.directories(one.name) for one in residents if one.name in index.extended))

    def _users(self, index: Index) -> tuple[Mapping[str, set[str]], AbstractSet[str]]:
        """Distribution -> the bizs that got modules of it, or of one that requires it; and all that these might use.

        What might be used are the extras of what is used, too: nobody has seen whether a library looks for them.
        """
        users: dict[str, set[str]] = {}
        possible: set[str] = set()
        with self._lock:
            followed = [(linker, taken) for linker, taken in self._taken.items() if not linker.is_gone]
        for linker, taken in followed:
            for owner in self._owners(index, linker, taken):
                possible |= index.closure(owner)
                for name in _required(index, owner):
                    users.setdefault(name, set()).add(str(linker.scope.biz))
        return users, possible

    def _owners(self, index: Index, linker: Linker, taken: AbstractSet[str]) -> AbstractSet[str]:
        """The distributions that a biz got modules of; remembered, as long as it gets no more."""
        known = self._known.get(linker)
        if known is None or known[0] is not index or known[1] != len(taken):
            owners = frozenset(owner for name in set(taken) for owner in index.owners(name))
            known = self._known[linker] = (index, len(taken), owners)
        return known[2]


def _required(index: Index, name: str) -> AbstractSet[str]:
    """A distribution and those that it requires, directly or not, without extras."""
    found, ahead = {name}, [name]
    while ahead:
        further = index.needs(ahead.pop()) - found
        found |= further
        ahead += further
    return found


def _nobody_asks(module: ModuleType) -> None:
    """Takes what is not written down."""


_STATM: Final = Path("/proc/self/statm")


def resident_bytes() -> int:
    """The resident set size of this process; 0 where the system does not say (anything but Linux). Imports nothing."""
    try:
        return int(_STATM.read_bytes().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


arrivals: Final = Arrivals()
"""The account of this process."""
