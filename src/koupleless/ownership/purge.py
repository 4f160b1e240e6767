"""Drop, collect, check, explain: the proof that a biz is gone, or who holds it by which chain of referrers."""

from __future__ import annotations

import functools
import gc
import sys
import threading
import time
import types
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from koupleless.context import as_base
from koupleless.ownership import interpreter, libraries
from koupleless.ownership.caches import (
    Survey,
    attributes,
    freeze_base,
    is_a,
    is_findable,
    purge_caches,
    purge_typing,
    suspended,
)
from koupleless.ownership.ledger import in_words

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from koupleless.biz import BizId
    from koupleless.ownership.ledger import Failure

__all__ = ["Held", "PurgeReport", "Survey", "freeze_base", "purge"]

EXPLAIN_BUDGET_S: Final = 0.2


@dataclass(frozen=True, slots=True)
class Held:
    """Something of a biz that outlived it."""

    name: str
    """A module, or what of it lives where its globals died: ``shop.models.Order``."""
    holders: tuple[str, ...]
    """The shortest chain found, the outermost holder first; empty if none was found in time."""
    size_bytes: int | None = None
    """An estimate of what it keeps alive."""

    def __str__(self) -> str:
        return f"{self.name} held by {self.holders[0]}" if self.holders else f"{self.name} (holder not found)"


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

    def summary(self) -> str:
        """One line: ``clean``, or what still lives and what failed."""
        if self.clean:
            return "clean"
        said = []
        if self.held:
            modules = f"{len(self.held)} module{'s' * (len(self.held) != 1)} still alive"
            said.append(f"{modules}: " + "; ".join(str(held) for held in self.held[:3]))
        if self.failures:
            said.append(f"{len(self.failures)} not undone: " + "; ".join(self.failures[:3]))
        return "; ".join(said)


def purge(survey: Survey, failures: Sequence[Failure | str] = ()) -> PurgeReport:
    """Purge what shared libraries keep of the biz, collect, and report what is left.

    Called after the biz's registrations were undone, its namespace dropped and its scope closed, by a thread that
    holds nothing of the biz, not that of the event loop. ``failures`` are those of `Ledger.undo_all` and of the stop.
    """
    started = time.perf_counter()
    counts = dict(survey.undone)
    with as_base():
        survey.refresh()
        for swept in (purge_caches(survey), interpreter.sweep(survey), libraries.sweep(survey)):
            _add(counts, swept)
        if not _collect(survey):
            survey.refresh()
            purge_typing()
            _add(counts, purge_caches(survey, deeply=True))
            _add(counts, interpreter.sweep_finalizers(survey))
            gc.collect()
        words = [str(failure) for failure in failures]
        held = () if survey.is_gone() else _explain(survey, words)
    return PurgeReport(
        biz=survey.biz,
        clean=not held and not words,
        held=held,
        undone={kind: count for kind, count in sorted(counts.items()) if count},
        failures=tuple(words),
        elapsed_ms=(time.perf_counter() - started) * 1000,
    )


def _collect(survey: Survey) -> bool:
    # A biz that did not live long is young garbage, and the young generations cost next to nothing.
    for generation in range(3):
        if survey.is_gone():
            return True
        gc.collect(generation)
    return survey.is_gone()


def _explain(survey: Survey, failures: list[str]) -> tuple[Held, ...]:
    try:
        chains = explain(survey, budget_s=EXPLAIN_BUDGET_S)
    except Exception as error:  # noqa: BLE001 - it looks at objects of anybody's making, and the rest of the report stands
        chains = {}
        failures.append(f"explaining what is held: {in_words(error)}")
    alive = survey.alive()
    fallback = next(iter(chains.values()), ())
    things: dict[str, list[Any]] = {}
    for name, thing in survey.survivors():
        things.setdefault(name, []).append(thing)
    held = []
    ends = time.monotonic() + EXPLAIN_BUDGET_S
    for module, names in alive.items():
        size = _size(survey, things.pop(module, [])) if time.monotonic() < ends else None
        whole = [module] if module in names else names
        held += [Held(name, chains.get(module, fallback), size) for name in whole]
    return tuple(held)


def _add(counts: dict[str, int], more: Mapping[str, int]) -> None:
    for kind, count in more.items():
        counts[kind] = counts.get(kind, 0) + count


# --- explaining ------------------------------------------------------------------------------------------------------

_LEVELS: Final = 30
_SEEN: Final = 200_000
_CHAIN: Final = 6
"""The links of a chain that are told, the outermost ones."""


def explain(survey: Survey, *, budget_s: float) -> dict[str, tuple[str, ...]]:
    """For each module that something of lives: who holds it, as the shortest chain of referrers in words.

    Walks from the survivors outwards, breadth first, one pass over the heap for each step, until it meets something
    that has a name outside the biz. Modules that are found no chain for in time are missing from the result.
    """
    survey.refresh()
    running = _running(survey)
    if running:
        return dict.fromkeys(survey.alive(), running)
    return _Search(survey, time.monotonic() + budget_s).run()


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
    """One breadth-first search. It refers to what it looks at and is dropped with it at once."""

    def __init__(self, survey: Survey, ends: float) -> None:
        self._survey = survey
        self._ends = ends
        self._tables = {
            id(attributes(module)): name for name, module in list(sys.modules.items()) if is_a(module, types.ModuleType)
        }
        self._seen: dict[int, Any] = {}
        self._inner: dict[int, int] = {}
        """Holder -> what it holds, one step further in."""

    def run(self) -> dict[str, tuple[str, ...]]:
        survivors = self._survey.survivors()
        names = {id(thing): module for module, thing in survivors}
        frontier = list({id(thing): thing for _, thing in survivors}.values())
        del survivors
        self._seen = {id(thing): thing for thing in frontier}
        found: dict[str, tuple[str, ...]] = {}
        roots: list[Any] = frontier
        for _ in range(_LEVELS):
            if not frontier or time.monotonic() > self._ends or len(self._seen) > _SEEN:
                break
            roots, frontier = frontier, []
            for holder in self._holders_of(roots):
                name = self._name(holder)
                if name is None:
                    frontier.append(holder)
                    continue
                found.setdefault(names[self._innermost(id(holder))], self._chain(holder, name))
            if found:
                break
        if not found and not frontier:
            # Nothing the collector lists refers to the last ones: an object that was frozen does, or C code.
            key, chain = self._from_base() if gc.get_freeze_count() else (0, ())
            if not chain:
                key = id(roots[0])
                chain = self._chain(roots[0], f"{_describe(roots[0])} that something outside Python's sight refers to")
            found[names[self._innermost(key)]] = chain
        return found

    def _from_base(self) -> tuple[int, tuple[str, ...]]:
        """Search the other way, from the globals of the base's modules inwards, for what that search arrived at."""
        outer: dict[int, Any] = {}
        todo: deque[Any] = deque(attributes(module) for module in list(sys.modules.values()))
        known = {id(table) for table in todo} | {
            id(self._seen),
            id(self._inner),
            id(self.__dict__),
            id(outer),
            id(todo),
        }
        while todo and time.monotonic() < self._ends:
            holder = todo.popleft()
            for part in gc.get_referents(holder):
                key = id(part)
                if key in self._seen:
                    outer[key] = holder
                    return key, self._inward(part, outer)
                if key not in known and type(part) not in _LEAVES and not self._is_search(part):
                    known.add(key)
                    outer[key] = holder
                    todo.append(part)
        return 0, ()

    def _inward(self, thing: Any, outer: dict[int, Any]) -> tuple[str, ...]:
        inner = self._seen[id(thing)]
        while id(thing) in outer:
            holder = outer[id(thing)]
            self._seen[id(holder)] = holder
            self._inner[id(holder)] = id(thing)
            name = self._name(holder)
            if name is not None:
                return self._chain(holder, name)
            thing = holder
        return self._chain(inner, _describe(thing))

    def _holders_of(self, things: list[Any]) -> list[Any]:
        holders: list[Any] = []
        wanted = {id(thing) for thing in things}
        ours = {id(self._seen), id(self._inner), id(things), id(holders), id(self.__dict__), id(self)}
        for holder in gc.get_referrers(*things):
            key = id(holder)
            if key in self._seen or key in ours or self._is_search(holder):
                continue
            # The arguments of the call itself: nothing refers to them but this list, this name and getrefcount.
            if type(holder) is tuple and sys.getrefcount(holder) <= 3:  # noqa: PLR2004
                continue
            inner = next((id(part) for part in gc.get_referents(holder) if id(part) in wanted), None)
            if inner is None:
                continue
            self._seen[key] = holder
            self._inner[key] = inner
            holders.append(holder)
        return holders

    @staticmethod
    def _is_search(holder: Any) -> bool:
        if is_a(holder, types.FrameType):
            return bool(holder.f_code.co_filename == __file__)
        return type(holder) in (_LIST_ITERATOR, _DICT_ITERATOR)

    def _innermost(self, key: int) -> int:
        while key in self._inner:
            key = self._inner[key]
        return key

    def _chain(self, root: Any, name: str) -> tuple[str, ...]:
        path = [root]
        while (key := self._inner.get(id(path[-1]))) is not None:
            path.append(self._seen[key])
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
        if is_a(holder, _LRU_CACHE):
            return f"functools.lru_cache of {_dotted(holder)} {self._side(holder)}"
        if is_a(holder, types.FunctionType) and is_findable(holder):
            return f"function {_dotted(holder)} {self._side(holder)}"
        if is_a(holder, type) and is_findable(holder):
            return f"class {_dotted(holder)} {self._side(holder)}"
        if is_a(holder, threading.Thread) and holder.is_alive():
            return f"thread {holder.name!r}"
        return None

    def _name_of_table(self, table: dict[Any, Any]) -> str | None:
        if table is sys.modules:
            return "sys.modules"
        name = self._tables.get(id(table))
        if name is None and ("__builtins__" not in table or self._survey.owns_globals(table)):
            return None
        inner = self._inner[id(table)]
        key = next((key for key, value in table.copy().items() if id(value) == inner), "?")
        if name is None:
            return f"global {table.get('__name__')}.{key} in another biz"
        return f"global {name}.{key} in the base"

    @staticmethod
    def _side(thing: Any) -> str:
        module = sys.modules.get(getattr(thing, "__module__", None) or "")
        table = getattr(getattr(thing, "__wrapped__", thing), "__globals__", None)
        is_base = module is not None and (table is None or table is attributes(module))
        return "in the base" if is_base else "in another biz"


_LRU_CACHE: Final = type(functools.lru_cache(maxsize=1)(lambda: None))
_LIST_ITERATOR: Final[type] = type(iter([]))
_DICT_ITERATOR: Final[type] = type(iter({}))
_LEAVES: Final = frozenset({int, str, bytes, float, bool, type(None), types.CodeType, types.ModuleType})


def _dotted(thing: Any) -> str:
    name = getattr(thing, "__qualname__", type(thing).__qualname__)
    return f"{getattr(thing, '__module__', '?')}.{name}"


def _describe(thing: Any, inner: Sequence[Any] = ()) -> str:
    """A link of a chain in words; ``inner`` are the next ones, to tell where in it they are."""
    if is_a(thing, types.FunctionType) or is_a(thing, type) or is_a(thing, types.MethodType):
        word = "class" if is_a(thing, type) else "function" if is_a(thing, types.FunctionType) else "method"
        return f"{word} {_dotted(thing)}"
    if is_a(thing, types.ModuleType):
        return f"module {thing.__name__}"
    frame = suspended(thing)
    if frame is not None:
        return f"suspended {thing.__qualname__} at {frame.f_code.co_filename}:{frame.f_lineno}"
    if is_a(thing, types.FrameType):
        return f"frame of {thing.f_code.co_qualname} at {thing.f_code.co_filename}:{thing.f_lineno}"
    kind = type(thing)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    return f"{_place(thing, inner)}a {name}"


def _place(thing: Any, inner: Sequence[Any]) -> str:
    table = thing if type(thing) is dict else attributes(thing)
    for target in inner[:2]:
        for key, value in list(table.items()) if type(table) is dict else ():
            if value is target and isinstance(key, str):
                return f"item {key!r} of " if table is thing else f"attribute {key} of "
    return ""


# --- how much is kept ------------------------------------------------------------------------------------------------

_SIZED: Final = 20_000
"""Objects that are added up, at most."""


def _size(survey: Survey, things: list[Any]) -> int:
    """About how many bytes these keep alive: what they reach without passing through modules and classes of others."""
    seen = {id(thing) for thing in things}
    total = 0
    while things and len(seen) < _SIZED:
        thing = things.pop()
        total += sys.getsizeof(thing, 0)
        for part in gc.get_referents(thing):
            is_foreign = (is_a(part, type) or is_a(part, types.ModuleType)) and not survey.owns(part)
            is_foreign = is_foreign or (type(part) is dict and "__builtins__" in part and not survey.owns(part))
            if not is_foreign and id(part) not in seen:
                seen.add(id(part))
                things.append(part)
    return total
