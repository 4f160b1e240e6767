"""Search for the holders of a biz that lives on, and tell each as the shortest chain of referrers in words.

There are two directions. Outwards, from the Python modules that live on to their referrers: each step is one pass over
the heap in C code, during which no request is served, so a heap beyond a limit is not searched outwards.
Inwards, from the globals of the base's Python modules: in small steps between which other threads run, as long as the
processor time of the search allows.

A search collects nothing and frees nothing; `koupleless.ownership.purge` does, between one search and the next.
"""

from __future__ import annotations

import contextlib
import gc
import itertools
import sys
import threading
import time
import types
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from koupleless.ownership.belonging import LRU_CACHE, Survey, attributes, is_a, is_findable, suspended
from koupleless.ownership.collect import LARGE, LAST_RESORT_S, heap_size, length_of, other_biz, reach
from koupleless.readers import home_of_class

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["Chains", "Search", "can_search_outwards", "nowhere", "running_code"]

Chains = dict[str, tuple[str, ...]]
"""Chains by the Python module at the inner end, the outermost holder first. Few Python modules have a chain, since each
chain is told once."""

_LINKS: Final = 6
"""The number of links of a chain that are told, the outermost ones."""
_LISTED_S: Final = 4e-8
"""Seconds that a pass over the heap takes for each object the collector knows, with a few sought at once."""
_SOUGHT: Final = 16
"""Objects whose referrers are sought in one pass."""
_SEEN: Final = 100_000
"""Referrers after which the search outwards ends."""
_BATCH: Final = 500
"""Objects of one step inwards."""


def can_search_outwards() -> bool:
    """Tell whether a pass over the heap is short enough to let requests wait."""
    return heap_size() * _LISTED_S <= LAST_RESORT_S


def running_code(survey: Survey) -> Chains:
    """Name a thread that executes code of the biz: the collector does not list running frames as referrers."""
    me = threading.get_ident()
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    for ident, frame in sys._current_frames().items():  # noqa: SLF001 - the documented way
        inner: types.FrameType | None = frame
        while inner is not None and ident != me:
            if survey.owns(inner):
                code = inner.f_code
                thread = f"thread {names.get(ident, str(ident))!r}"
                link = f"{thread} running {code.co_qualname} at {code.co_filename}:{inner.f_lineno}"
                return dict.fromkeys(survey.alive(), (link,))
            inner = inner.f_back
    return {}


def nowhere(survey: Survey, *, budget_s: float) -> Chains:
    """Say for every survivor that no holder was found in ``budget_s`` seconds."""
    name = f"something that was not found in {budget_s:g} s among about {heap_size():,} objects"
    return dict.fromkeys(survey.alive(), (name,))


class Search:
    """One search for holders of the Python modules of a biz that live on.

    Lifetime: a search refers to every object it has looked at, so it is dropped before anything is collected.
    Thread: the one of the purge. ``ends`` is a time of `time.thread_time`, in seconds.
    """

    def __init__(self, survey: Survey, ends: float) -> None:
        self.sizes: dict[str, int] = {}
        """Bytes kept alive, about, by the nearest Python module."""
        self.is_complete = False
        """Whether the search outwards came to an end: nothing the collector lists refers to the last objects found."""
        self._survey = survey
        self._ends = ends
        self._tables = {
            id(attributes(module)): name for name, module in list(sys.modules.items()) if is_a(module, types.ModuleType)
        }
        self._reached = reach(survey)
        self._modules = {id(thing): name for name, thing in survey.survivors() if id(thing) in self._reached}
        self._outer: dict[int, Any] = {}
        """Holders that the biz does not reach, by address."""
        self._inner: dict[int, int] = {}
        """Address of a holder -> address of the object held, one step further in."""
        self._entries = self._link()

    def _link(self) -> list[int]:
        """Link each object reached to a survivor; returns objects with referrers outside, the nearest first."""
        reached, owners = self._reached, dict(self._modules)
        uses: Counter[int] = Counter()
        holders: dict[int, list[int]] = {}
        counted: set[int] = set()
        for key, thing in reached.items():
            owner = owners.get(key, "")
            size = _size_of(thing)
            for part in gc.get_referents(thing):
                inner = id(part)
                if inner in reached:
                    uses[inner] += 1
                    holders.setdefault(inner, []).append(key)
                    owners.setdefault(inner, owner)
                elif id(type(part)) in _LEAVES and inner not in counted:
                    counted.add(inner)
                    size += _size_of(part)
            self.sizes[owner] = self.sizes.get(owner, 0) + size
        thing = part = None
        order = list(self._modules)
        known = set(order)
        for key in order:
            for holder in holders.get(key, ()):
                if holder not in known:
                    known.add(holder)
                    self._inner[holder] = key
                    order.append(holder)
        # The dictionary and the argument of the call are two more references.
        return [key for key in order if sys.getrefcount(reached[key]) - 2 > uses[key]]

    # --- outwards: one pass over the heap for each step ---------------------------------------------------------------

    def climb(self) -> Chains:
        """Go from survivors to their referrers, and on, until a referrer has a name: the shortest chain there is."""
        frontier = self._entries
        named = [key for key in frontier if self._name(self._reached[key]) is not None]
        while frontier and not named and time.thread_time() < self._ends and len(self._outer) < _SEEN:
            holders: list[int] = []
            for start in range(0, len(frontier), _SOUGHT):
                holders += self._holders_of(frontier[start : start + _SOUGHT])
                if time.thread_time() > self._ends:
                    return self._chains([key for key in holders if self._name(self._outer[key]) is not None])
                time.sleep(0)  # a thread that waits for the interpreter takes its turn
            named = [key for key in holders if self._name(self._outer[key]) is not None]
            frontier = holders
        self.is_complete = not frontier
        return self._chains(named)

    def _chains(self, roots: list[int]) -> Chains:
        found: Chains = {}
        for root in roots:
            thing = self._thing(root)
            found.setdefault(self._modules[self._innermost(root)], self._chain(thing, self._name(thing) or ""))
        return found

    def _holders_of(self, keys: list[int]) -> list[int]:
        things = [self._thing(key) for key in keys]
        wanted = set(keys)
        ours = {id(self._reached), id(self._outer), id(things)}
        found = []
        for holder in gc.get_referrers(*things):
            key = id(holder)
            if key in self._reached or key in self._outer or key in ours or _is_search(holder):
                continue
            if not _is_followed(holder):
                continue
            # The arguments of the call: only the list, this name and getrefcount refer to the tuple.
            if type(holder) is tuple and sys.getrefcount(holder) <= 3:  # noqa: PLR2004
                continue
            inner = next((id(part) for part in gc.get_referents(holder) if id(part) in wanted), None)
            if inner is not None:
                self._outer[key] = holder
                self._inner[key] = inner
                found.append(key)
        return found

    def take(self) -> list[Any]:
        """Return every object the search has looked at, and let go of all."""
        taken = [*self._reached.values(), *self._outer.values()]
        self._reached.clear()
        self._outer.clear()
        return taken

    def unseen(self) -> Chains:
        """Tell of a survivor without a visible referrer, held by compiled code or by a running frame."""
        for key, thing in [*self._outer.items(), *((key, self._reached[key]) for key in self._entries)]:
            if type(thing) is dict and "__builtins__" in thing and not self._survey.owns(thing):
                return {
                    self._modules[self._innermost(key)]: self._chain(thing, self._global(thing, "outside sys.modules"))
                }
        for key in self._entries:
            thing = self._reached[key]
            name = f"{_describe(thing)} that something outside Python's sight refers to"
            return {self._modules[self._innermost(key)]: self._chain(thing, name)}
        return {}

    # --- inwards: in small steps, as far as the time goes -------------------------------------------------------------

    def descend(self) -> Chains:
        """Go from the globals of the base's Python modules inwards until an object refers to a survivor.

        Finds the shortest way, through frozen objects too, if the time is enough; large containers come last.
        """
        targets = set(self._modules) | self._inner.keys()
        level: list[Any] = [table for module in list(sys.modules.values()) if type(table := attributes(module)) is dict]
        level = [table for table in level if id(table) not in self._reached]
        levels: list[list[Any]] = []
        large: list[Any] = []
        known = {id(table) for table in level} | {id(levels), id(large), id(self._reached), id(self._outer)}
        while level:
            levels.append(level)
            fresh: list[Any] = []
            for start in range(0, len(level), _BATCH):
                batch = level[start : start + _BATCH]
                parts = {id(part): part for part in filter(_is_followed, gc.get_referents(*batch))}
                hit = next(iter(targets & parts.keys()), None)
                if hit is not None:
                    return self._found(hit, parts[hit], levels)
                if time.thread_time() > self._ends:
                    return {}
                new = parts.keys() - known
                known |= new
                fresh += [parts[key] for key in new]
            large += [thing for thing in fresh if length_of(thing) > LARGE]
            level = [thing for thing in fresh if length_of(thing) <= LARGE and not _is_search(thing)]
        return self._look_into(large, targets, levels)

    def _look_into(self, large: list[Any], targets: set[int], levels: list[list[Any]]) -> Chains:
        for thing in large:
            for piece in _slices(thing):
                if time.thread_time() > self._ends:
                    return {}
                things = list(filter(_is_followed, piece))
                parts = {id(part): part for part in things}
                parts.update((id(part), part) for part in gc.get_referents(*things))
                hit = next(iter(targets & parts.keys()), None)
                if hit is not None:
                    path = [[thing], things] if any(id(part) == hit for part in things) else [[thing], things, things]
                    return self._found(hit, parts[hit], [*levels, *path[:-1]])
        return {}

    def _found(self, key: int, thing: Any, levels: list[list[Any]]) -> Chains:
        """Make the chain through ``levels``, the outermost of which is the first, to a survivor or its referrer."""
        inner = thing
        roots = []
        for level in reversed(levels):
            holder = next((one for one in level if any(part is inner for part in gc.get_referents(one))), None)
            if holder is None:  # the object was reached from further out than the level before
                continue
            self._outer[id(holder)] = holder
            self._inner[id(holder)] = id(inner)
            roots.append(id(holder))
            inner = holder
        named = next((root for root in roots if self._name(self._outer[root]) is not None), None)
        return self._chains([key if named is None else named])

    # --- in words ----------------------------------------------------------------------------------------------------

    def _thing(self, key: int) -> Any:
        return self._reached[key] if key in self._reached else self._outer[key]

    def _innermost(self, key: int) -> int:
        while key in self._inner:
            key = self._inner[key]
        return key

    def _chain(self, root: Any, name: str) -> tuple[str, ...]:
        path = [root]
        while (key := self._inner.get(id(path[-1]))) is not None:
            path.append(self._thing(key))
        links = [name]
        for index, thing in enumerate(path[1:], 1):
            if type(thing) is dict and (attributes(path[index - 1]) is thing or self._survey.owns_globals(thing)):
                continue  # told together with the object, or the Python module, of these attributes
            links.append(_describe(thing, path[index + 1 : index + 3]))
        return tuple(links[:_LINKS])

    def _name(self, holder: Any) -> str | None:  # noqa: PLR0911 - one case per type
        """Name an object outside the biz in words, if users can find the object by a name; else return ``None``."""
        if type(holder) is dict:
            return self._name_of_table(holder)
        if self._survey.owns(holder):
            return None
        # A cache of another kind leads on: a connection of sqlite3 has a cache around itself, and both leave together.
        if is_a(holder, LRU_CACHE) and is_a(getattr(holder, "__wrapped__", None), types.FunctionType):
            where = "in the base" if is_findable(holder) else self._where(holder)
            return f"functools.lru_cache of {_dotted(holder)}{where and ' '}{where}"
        if is_a(holder, types.FunctionType) and is_findable(holder):
            return f"function {_dotted(holder)} in the base"
        if is_a(holder, type) and is_findable(holder):
            return f"class {_dotted(holder)} in the base"
        if is_a(holder, threading.Thread) and threading.Thread.is_alive(holder):
            return f"thread {holder.name!r}"
        return None

    def _name_of_table(self, table: dict[Any, Any]) -> str | None:
        if table is sys.modules:
            return "sys.modules"
        if id(table) in self._tables:
            return self._global(table, "in the base")
        # Globals of code that was generated, or executed elsewhere, lead on.
        is_module = "__builtins__" in table and "__spec__" in table
        biz = other_biz(self._survey, table) if is_module else None
        return None if biz is None else self._global(table, f"in {biz}")

    def _global(self, table: dict[Any, Any], where: str) -> str:
        inner = self._inner.get(id(table))
        key = next((key for key, value in table.copy().items() if id(value) == inner), "?")
        return f"global {self._tables.get(id(table)) or table.get('__name__', '?')}.{key} {where}"

    def _where(self, cache: Any) -> str:
        table = getattr(getattr(cache, "__wrapped__", None), "__globals__", None)
        return "" if table is None else self._side(table)

    def _side(self, table: dict[Any, Any]) -> str:
        if id(table) in self._tables:
            return "in the base"
        biz = other_biz(self._survey, table)
        return "" if biz is None else f"in {biz}"


def _is_followed(thing: Any) -> bool:
    # A module is not asked for its referents: _asyncio of 3.12 answers with freed objects, which ends badly.
    return gc.is_tracked(thing) and not is_a(thing, types.ModuleType)


def _is_search(holder: Any) -> bool:
    if is_a(holder, types.FrameType):
        return bool(holder.f_code.co_filename in _FILES)
    return id(type(holder)) in _ITERATORS


def _slices(thing: Any) -> Iterator[list[Any]]:
    """Yield the elements of a large container in pieces; ends early if the container changes meanwhile."""
    parts = iter(thing.values() if is_a(thing, dict) else thing)
    with contextlib.suppress(RuntimeError):
        while piece := list(itertools.islice(parts, LARGE)):
            yield piece


_FILES: Final = frozenset({__file__, reach.__code__.co_filename, str(Path(__file__).with_name("purge.py"))})
_ITERATORS: Final = frozenset(
    map(id, (type(iter([])), type(iter({})), type(iter({}.items())), type(iter({}.values()))))
)
_LEAVES: Final = frozenset(map(id, (int, str, bytes, float, complex, types.CodeType)))


def _size_of(thing: Any) -> int:
    try:
        return sys.getsizeof(thing, 0)
    except BaseException:  # noqa: BLE001 - ``__sizeof__`` may be code of the biz
        return 0


def _dotted(thing: Any) -> str:
    if is_a(thing, type):
        return f"{home_of_class(thing)}.{_qualname.__get__(thing)}"
    try:
        return f"{getattr(thing, '__module__', '?')}.{getattr(thing, '__qualname__', _qualname.__get__(type(thing)))}"
    except BaseException:  # noqa: BLE001 - a method may be bound to anything, which is code of the biz
        return _dotted(type(thing))


_qualname: Final[Any] = type.__dict__["__qualname__"]


def _describe(thing: Any, inner: Sequence[Any] = ()) -> str:
    """Describe a link of a chain; ``inner`` are the next links, to tell under which name the first of them is held."""
    if is_a(thing, types.FunctionType) or is_a(thing, type) or is_a(thing, types.MethodType):
        word = "class" if is_a(thing, type) else "function" if is_a(thing, types.FunctionType) else "method"
        return f"{word} {_dotted(thing)}"
    if is_a(thing, types.ModuleType):
        return f"module {(attributes(thing) or {}).get('__name__', '?')}"
    frame = suspended(thing)
    if frame is not None:
        return f"suspended {thing.__qualname__} at {frame.f_code.co_filename}:{frame.f_lineno}"
    if is_a(thing, types.FrameType):
        return f"frame of {thing.f_code.co_qualname} at {thing.f_code.co_filename}:{thing.f_lineno}"
    return f"{_place(thing, inner)}a {_dotted(type(thing)).removeprefix('builtins.')}"


def _place(thing: Any, inner: Sequence[Any]) -> str:
    table = thing if type(thing) is dict else attributes(thing)
    for target in inner[:2]:
        for key, value in list(table.items()) if type(table) is dict else ():
            if value is target and type(key) is str:
                return f"item {key!r} of " if table is thing else f"attribute {key} of "
    return ""
