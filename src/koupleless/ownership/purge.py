"""Drop, collect, check, explain: the proof that a biz is gone, or who holds it by which chain of referrers.

An uninstall runs beside requests, and whatever looks at the whole heap in one call stops them meanwhile. So a biz is
collected by itself (`collect`). Only where it lives on after that is more looked at, as far as the size of the heap
allows: holders are looked for among all objects, everything is collected once more; and in a large heap neither, but
holders are looked for from the globals of the base's modules inwards, in small steps.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import itertools
import sys
import threading
import time
import types
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from koupleless.context import as_base
from koupleless.errors import in_words
from koupleless.ownership import interpreter, libraries, stdlib
from koupleless.ownership.caches import (
    LRU_CACHE,
    Survey,
    attributes,
    freeze_base,
    is_a,
    is_findable,
    purge_caches,
    purge_typing,
    suspended,
)
from koupleless.ownership.changes import NOT_COMPARED
from koupleless.ownership.collect import (
    LARGE,
    LAST_RESORT_S,
    collect,
    collect_all,
    collect_these,
    collect_young,
    heap_size,
    length_of,
    other_biz,
    reach,
)
from koupleless.readers import home_of_class

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from koupleless.biz import BizId, Resident
    from koupleless.ownership.changes import Left
    from koupleless.ownership.ledger import Failure

__all__ = ["Held", "PurgeReport", "Survey", "freeze_base", "purge"]

EXPLAIN_BUDGET_S: Final = 1.0
"""How much processor time goes into looking for holders, in steps that let others run; not enough for a large heap."""


@dataclass(frozen=True, slots=True)
class Held:
    """Something of a biz that outlived it."""

    name: str
    """A module, or what of it lives where its globals died: ``shop.models.Order``."""
    holders: tuple[str, ...]
    """The shortest chain found, the outermost holder first; empty if none was found in time."""
    size_bytes: int | None = None
    """An estimate of what it keeps alive, but for what another module was found to keep."""
    since_ms: int | None = None
    """When it should have been gone, in milliseconds since the epoch."""

    def __str__(self) -> str:
        return f"{self.name} {_by(self)}"


@dataclass(frozen=True, slots=True)
class PurgeReport:
    """What became of a biz that left. Refers to nothing of it."""

    biz: BizId
    clean: bool
    """Nothing of the biz lives, and all it registered was undone."""
    held: tuple[Held, ...]
    undone: Mapping[str, int]
    """How many registrations of each kind were undone or swept."""
    failures: tuple[str, ...]
    """What could not be undone, and what raised while it was."""
    elapsed_ms: float
    changed: tuple[str, ...] = ()
    """What of the shared state is still as the biz made it, by name."""
    is_compared: bool = False
    """Whether the shared state was compared, or no code of the biz could change it; else nothing is known of it."""
    ended: tuple[str, ...] = ()
    """What of the biz did not end by itself and was ended, in words that say how."""
    stays: tuple[Resident, ...] = ()
    """Libraries that the biz was the last to use and that stay, since compiled code is never unloaded."""
    notes: tuple[str, ...] = ()
    """Sentences for whoever operates the base about something else than what is left of the biz in the process."""

    def summary(self) -> str:
        """One line: ``clean``, or what still lives, what failed and what stays changed."""
        if self.clean and not self.changed:
            return "clean"
        said = []
        if self.held:
            said.append(_in_summary(self.held))
        if self.failures:
            said.append(f"{len(self.failures)} not undone: " + "; ".join(self.failures[:3]))
        if self.changed:
            more = f" and {len(self.changed) - _TOLD} more" if len(self.changed) > _TOLD else ""
            said.append(f"still changed for every module: {', '.join(self.changed[:_TOLD])}{more}")
        return "; ".join(said)


def _in_summary(held: Sequence[Held]) -> str:
    """``2 modules still alive: app, app.models held by ... (1,200 bytes since ...)``; together what one thing holds."""
    together: dict[str, list[str]] = {}
    for one in held:
        together.setdefault(_by(one), []).append(one.name)
    said = []
    for by, names in list(together.items())[:_TOLD]:
        more = f" and {len(names) - _TOLD} more" if len(names) > _TOLD else ""
        said.append(f"{', '.join(names[:_TOLD])}{more} {by}")
    size = sum(one.size_bytes or 0 for one in held)
    about = [f"{size:,} bytes"] if size else []
    since = min((one.since_ms for one in held if one.since_ms is not None), default=None)
    if since is not None:
        about.append(f"since {time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(since / 1000))}")
    facts = f" ({' '.join(about)})" if since is not None else ""
    return f"{len(held)} module{'s' * (len(held) != 1)} still alive: {'; '.join(said)}{facts}"


def _by(held: Held) -> str:
    return f"held by {held.holders[0]}" if held.holders else "(holder not found)"


_TOLD: Final = 3
"""How many things of a kind a summary names."""


# --- purging ---------------------------------------------------------------------------------------------------------

_one_at_a_time = threading.Lock()
_TURN_S: Final = 5.0
"""How long a purge waits for another one, which may hang in a finaliser of its biz."""


def purge(
    survey: Survey,
    failures: Sequence[Failure | str] = (),
    *,
    left: Left = NOT_COMPARED,
    ended: Sequence[str] = (),
) -> PurgeReport:
    """Purge what shared libraries keep of the biz, collect, and report what is left.

    Called after the biz's registrations were undone, its namespace dropped and its scope closed, by a thread that
    holds nothing of the biz, not that of the event loop. ``failures`` are those of `Ledger.undo_all` and of the stop,
    ``left`` is what became of its changes to shared modules, ``ended`` what `Ledger.undo_all` ended by force.
    """
    started = time.perf_counter()
    counts = dict(survey.undone)
    _add(counts, left.undone)
    words = [str(failure) for failure in failures]
    held: tuple[Held, ...] = ()
    # What one purge looks at, the next one would find to be held.
    has_turn = _one_at_a_time.acquire(timeout=_TURN_S)
    try:
        with as_base():
            if not _sweep_and_collect(survey, counts, words):
                held = _explain(survey, words)
    finally:
        if has_turn:
            _one_at_a_time.release()
    return PurgeReport(
        biz=survey.biz,
        clean=not held and not words,
        held=held,
        undone={kind: count for kind, count in sorted(counts.items()) if count},
        failures=tuple(words),
        elapsed_ms=(time.perf_counter() - started) * 1000,
        changed=left.remaining(),
        is_compared=left.is_compared,
        ended=tuple(ended),
    )


def _sweep_and_collect(survey: Survey, counts: dict[str, int], failures: list[str]) -> bool:
    def sweep(name: str, action: Callable[[Survey], Mapping[str, int]]) -> None:
        try:
            _add(counts, action(survey))
        except BaseException as error:  # noqa: BLE001 - objects of the biz answer as they like; the others' turn comes
            failures.append(f"{name}: {in_words(error)}")

    survey.refresh()
    # What a library made for the biz may be garbage, and refer to it, once the library has let go of both.
    reached = list(reach(survey).values())
    sweep("caches", purge_caches)
    sweep("interpreter", interpreter.sweep)
    sweep("libraries", libraries.sweep)
    if collect(survey, reached):
        return True
    survey.refresh()
    purge_typing()
    sweep("caches", functools.partial(purge_caches, deeply=True))
    if collect(survey):
        return True
    survey.refresh()
    # These look through all that the base has, and take the longest.
    sweep("finalizers", interpreter.sweep_finalizers)
    sweep("registries", lambda survey: {"registry": stdlib.sweep_registries(survey)})
    # Garbage of others that refers to the biz, an exception of its last request say, is usually young.
    return collect(survey) or (collect_young() and collect(survey)) or (collect_all() and survey.is_gone())


def _explain(survey: Survey, failures: list[str]) -> tuple[Held, ...]:
    since_ms = time.time_ns() // 1_000_000
    chains: dict[str, tuple[str, ...]] = {}
    sizes: dict[str, int] = {}
    try:
        chains, sizes = explain(survey, budget_s=EXPLAIN_BUDGET_S)
    except BaseException as error:  # noqa: BLE001 - it looks at objects of anybody's making, and the rest stands
        failures.append(f"explaining what is held: {in_words(error)}")
    fallback = next(iter(chains.values()), ())
    return tuple(
        Held(name, chains.get(module, fallback), sizes.get(module) if index == 0 else None, since_ms)
        for module, names in survey.alive().items()
        for index, name in enumerate([module] if module in names else names)
    )


def _add(counts: dict[str, int], more: Mapping[str, int]) -> None:
    for kind, count in more.items():
        counts[kind] = counts.get(kind, 0) + count


# --- explaining ------------------------------------------------------------------------------------------------------

_CHAIN: Final = 6
"""The links of a chain that are told, the outermost ones."""
_LISTED_S: Final = 4e-8
"""What a search for referrers takes for each object the collector knows, with a few sought at once."""
_SOUGHT: Final = 16
_SEEN: Final = 100_000
_BATCH: Final = 500


def explain(  # noqa: PLR0911 - each way to find somebody ends the search
    survey: Survey, *, budget_s: float
) -> tuple[dict[str, tuple[str, ...]], dict[str, int]]:
    """For modules that something of lives, who holds it, as the shortest chain of referrers in words; and their sizes.

    May find that nobody does, and free it. One chain is told for all that it leads to, so few modules have one.
    """
    ends = time.thread_time() + budget_s
    survey.refresh()
    search = _Search(survey, ends)
    running = _running(survey)
    if running:
        return dict.fromkeys(survey.alive(), running), search.sizes
    heap = heap_size()
    is_seen = False
    if heap * _LISTED_S <= LAST_RESORT_S:
        chains = search.climb()
        if chains:
            return chains, search.sizes
        is_seen = search.has_seen_all
        if is_seen:
            # No name leads here: garbage of others that refers to the biz and that the collector has not come to yet.
            garbage = search.take()
            del search
            collect_these(garbage)
            if survey.is_gone():
                return {}, {}
            survey.refresh()
            search = _Search(survey, ends)
    chains = search.descend()
    if chains:
        return chains, search.sizes
    sizes = search.sizes
    del search  # it holds what it looked at
    # Twice: what compiled code holds unseen, as a database connection its functions, is garbage only after the first.
    if any(collect_all(pause_s=LAST_RESORT_S) and survey.is_gone() for _ in range(2)):
        return {}, {}
    if is_seen:
        # It came to the end before, so it will again, whatever the search inwards left of the time.
        survey.refresh()
        search = _Search(survey, time.thread_time() + budget_s)
        search.climb()
        return search.unseen(), search.sizes
    name = f"something that was not found in {budget_s:g} s among about {heap:,} objects"
    return dict.fromkeys(survey.alive(), (name,)), sizes


def _running(survey: Survey) -> tuple[str, ...]:
    """A thread that is executing code of the biz, which the collector does not show as a referrer."""
    me = threading.get_ident()
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    for ident, frame in sys._current_frames().items():  # noqa: SLF001 - the documented way
        inner: types.FrameType | None = frame
        while inner is not None and ident != me:
            if survey.owns(inner):
                code = inner.f_code
                thread = f"thread {names.get(ident, str(ident))!r}"
                return (f"{thread} running {code.co_qualname} at {code.co_filename}:{inner.f_lineno}",)
            inner = inner.f_back
    return ()


class _Search:
    """Who holds what is left of a biz. It refers to what it looks at and is dropped with it at once."""

    def __init__(self, survey: Survey, ends: float) -> None:
        self.sizes: dict[str, int] = {}
        """About how many bytes are kept alive, by the module that they are reached from first."""
        self.has_seen_all = False
        """Whether `climb` came to an end because nothing that the collector lists refers to what it arrived at."""
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
        """Holder -> what it holds, one step further in."""
        self._entries = self._link()

    def _link(self) -> list[int]:
        """Find the way from all that is reached to what is left; returns what others refer to, the nearest first."""
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
        # Besides what was counted, the dictionary and the argument refer to it.
        return [key for key in order if sys.getrefcount(reached[key]) - 2 > uses[key]]

    # --- outwards: one pass over the heap for each step ---------------------------------------------------------------

    def climb(self) -> dict[str, tuple[str, ...]]:
        """Go from what is left to its referrers and theirs until something has a name: the shortest chain there is."""
        frontier = self._entries
        named = [key for key in frontier if self._name(self._reached[key]) is not None]
        while frontier and not named and time.thread_time() < self._ends and len(self._outer) < _SEEN:
            holders: list[int] = []
            for start in range(0, len(frontier), _SOUGHT):
                holders += self._holders_of(frontier[start : start + _SOUGHT])
                if time.thread_time() > self._ends:
                    return self._chains([key for key in holders if self._name(self._outer[key]) is not None])
                time.sleep(0)  # whoever waits for the interpreter takes his turn
            named = [key for key in holders if self._name(self._outer[key]) is not None]
            frontier = holders
        self.has_seen_all = not frontier
        return self._chains(named)

    def _chains(self, roots: list[int]) -> dict[str, tuple[str, ...]]:
        found: dict[str, tuple[str, ...]] = {}
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
            # The arguments of the call itself: nothing refers to them but this list, this name and getrefcount.
            if type(holder) is tuple and sys.getrefcount(holder) <= 3:  # noqa: PLR2004
                continue
            inner = next((id(part) for part in gc.get_referents(holder) if id(part) in wanted), None)
            if inner is not None:
                self._outer[key] = holder
                self._inner[key] = inner
                found.append(key)
        return found

    def take(self) -> list[Any]:
        """All that this search has looked at, which it lets go of."""
        taken = [*self._reached.values(), *self._outer.values()]
        self._reached.clear()
        self._outer.clear()
        return taken

    def unseen(self) -> dict[str, tuple[str, ...]]:
        """What to say where nothing the collector lists refers to what is left: C code does, or a running frame."""
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

    def descend(self) -> dict[str, tuple[str, ...]]:
        """Go from the globals of the base's modules inwards until something refers to what is left.

        Finds the shortest way, also through what is frozen, if the time is enough; large containers come last.
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

    def _look_into(self, large: list[Any], targets: set[int], levels: list[list[Any]]) -> dict[str, tuple[str, ...]]:
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

    def _found(self, key: int, thing: Any, levels: list[list[Any]]) -> dict[str, tuple[str, ...]]:
        """The chain through ``levels``, of which the outermost is the first, to something that is reached."""
        inner = thing
        roots = []
        for level in reversed(levels):
            holder = next((one for one in level if any(part is inner for part in gc.get_referents(one))), None)
            if holder is None:  # it was reached from further out than the level before
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
                continue  # told together with the object, or the module, it belongs to
            links.append(_describe(thing, path[index + 1 : index + 3]))
        return tuple(links[:_CHAIN])

    def _name(self, holder: Any) -> str | None:  # noqa: PLR0911 - one case per type
        """Words for something outside the biz that can be found by its name; ``None`` for what is on the way."""
        if type(holder) is dict:
            return self._name_of_table(holder)
        if self._survey.owns(holder):
            return None
        # What else is cached leads on: a connection of sqlite3 has a cache around itself, which both leave with.
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
        # Of code that was executed, or generated, elsewhere: it is on the way.
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
    # A module is not asked what it refers to: _asyncio of 3.12 answers with freed objects of its, which ends badly.
    return gc.is_tracked(thing) and not is_a(thing, types.ModuleType)


def _is_search(holder: Any) -> bool:
    if is_a(holder, types.FrameType):
        return bool(holder.f_code.co_filename in _FILES)
    return id(type(holder)) in _ITERATORS


def _slices(thing: Any) -> Iterator[list[Any]]:
    """What a large container holds, in pieces; ends early if it changes meanwhile."""
    parts = iter(thing.values() if is_a(thing, dict) else thing)
    with contextlib.suppress(RuntimeError):
        while piece := list(itertools.islice(parts, LARGE)):
            yield piece


_FILES: Final = frozenset({__file__, reach.__code__.co_filename})
_ITERATORS: Final = frozenset(
    map(id, (type(iter([])), type(iter({})), type(iter({}.items())), type(iter({}.values()))))
)
_LEAVES: Final = frozenset(map(id, (int, str, bytes, float, complex, types.CodeType)))


def _size_of(thing: Any) -> int:
    try:
        return sys.getsizeof(thing, 0)
    except BaseException:  # noqa: BLE001 - its ``__sizeof__`` is code of the biz
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
    """A link of a chain in words; ``inner`` are the next ones, to tell where in it they are."""
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
