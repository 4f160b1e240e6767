"""Collect the objects left behind by one biz, at a cost that follows the size of the biz and not the size of the heap.

The collector frees a cycle if no object outside the generation looked at refers to the cycle. So all objects that the
biz reaches are moved into the youngest generation, from wherever they were, and the youngest generation alone is
collected: CPython's own collector decides, as always, about garbage, and finalisers and weak reference callbacks run as
always. But the collector looks at a few hundred objects where a full collection looks at all (0.1 s for each million,
in which nothing else runs).

Moving an object is two calls of C, ``PyObject_GC_UnTrack`` and ``PyObject_GC_Track``. In between nothing else may touch
the object, so all are moved within one call which no other thread and no collection interrupts.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import itertools
import operator
import sys
import sysconfig
import threading
import time
import types
from collections import Counter, deque
from typing import TYPE_CHECKING, Any, Final

from koupleless.context import Scope
from koupleless.ownership.belonging import LRU_CACHE, builtins_of, is_findable, tables_of_base
from koupleless.ownership.caches import allocated_since_freeze

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from koupleless.ownership.belonging import Survey

PAUSE_S: Final = 0.008
"""Seconds for one uninterruptible look at the heap, about: requests wait as long."""

LAST_RESORT_S: Final = 0.1
"""Seconds for one full collection, or one search of the heap for referrers, about, where nothing else freed a biz.
Until then a biz is kept by garbage of others with a reference to the biz, an exception of a request say; and without
the search the report could not name a holder."""

_COLLECTED_S: Final = 1.2e-7
"""Seconds of a full collection for each object known to the collector (110 to 150 ns)."""

_BLOCKS_EACH: Final = 2.5
"""Blocks of memory for each object known to the collector: 2.5 in a heap of small lists, 4 after importing FastAPI."""

_BATCH: Final = 1_000
_FEW: Final = 5_000
"""The number of objects up to which moving objects of the base, too, is cheaper than telling its globals apart."""
_MOST: Final = 3_000_000
LARGE: Final = 10_000
"""The length from which containers are entered only if nothing but the biz refers to them."""
_CROWD: Final = 50_000
"""The size of the youngest generation from which the collector of the process is, or was, taken to be switched off."""
_CALL: Final[Callable[[Any], object]] = operator.call
_DISABLE: Final = gc.disable
_FREEZE: Final = gc.freeze
"""The functions of C code, while bizs find others: no other thread gets its turn in the middle of these steps."""
_ROUNDS: Final = 3
_TRIES: Final = 20


def heap_size() -> int:
    """Estimate the number of objects of a full collection, rather too high. Takes less than a millisecond.

    With another allocator than Python's own (``PYTHONMALLOC``) the objects are listed: 20 ms for each million.
    """
    blocks = allocated_since_freeze()
    if blocks is None:  # listed and let go of in one call of C code, as `tracked_of` does
        return sum(map(len, map(operator.call, (gc.get_objects,))))
    return int(blocks / _BLOCKS_EACH)


@contextlib.contextmanager
def held_back() -> Iterator[None]:
    """Hold automatic collections back while a biz is let go and purged.

    An automatic collection finalises on any thread: a coroutine that catches everything would spin there, on the thread
    of an event loop too, and no other thread could collect. The purge finalises such a coroutine with a loop at hand.
    Any number of threads may be in such a body; the last one lets collections go on, if they did before the first.
    """
    global _holders, _was_enabled  # noqa: PLW0603 - the process has one collector
    with _lock:
        if _holders == 0:
            _was_enabled = gc.isenabled()
        _holders += 1
        gc.disable()
    try:
        yield
    finally:
        with _lock:
            _holders -= 1
            if _holders == 0 and _was_enabled:
                gc.enable()


_lock: Final = threading.Lock()
_holders = 0
_was_enabled = False


def collect_all(*, pause_s: float = PAUSE_S) -> bool:
    """Collect the whole heap if this stops all threads for about ``pause_s`` seconds at most; returns whether so."""
    is_short = heap_size() * _COLLECTED_S <= pause_s
    if is_short:
        gc.collect()
    return is_short


def collect_young() -> bool:
    """Collect objects of the last minutes, give or take; returns ``False``, and does not, if that may be long."""
    is_enabled = gc.isenabled() or (_holders > 0 and _was_enabled)
    is_short = is_enabled and gc.get_count()[0] <= _CROWD
    if is_short:
        gc.collect(1)
    return is_short


def collect(survey: Survey, also: list[Any] | None = None) -> bool:
    """Free objects of the biz without a holder outside; returns whether no object of the biz lives any more.

    ``also`` are objects reached by the biz before the biz was taken out of registries; the list is emptied. Runs
    finalisers of the biz. Called by a thread that holds nothing of the biz. On an interpreter with an unknown
    collector, the whole heap is collected.
    """
    left = len(survey.survivors())
    for _ in range(_ROUNDS):
        if left == 0:
            break
        # Objects reached before are nearly always the same: those made since are young, and collected with these.
        doomed = also.copy() if also else list(reach(survey).values())
        if also:
            also.clear()
        _show_names(survey, doomed)
        collect_these(doomed)
        before, left = left, len(survey.survivors())
        if left == before:
            break
    return left == 0


def _show_names(survey: Survey, things: list[Any]) -> None:
    """Give classes of the biz plain texts as names.

    The collector is not shown the name of a class. A name may be a text with attributes that lead back to the class, as
    for proxies of Celery: such a class would never be freed.
    """
    for thing in things:
        if issubclass(type(thing), type) and survey.owns_class(thing):
            for name in _NAMES:
                if type(text := name.__get__(thing)) is not str and issubclass(type(text), str):
                    name.__set__(thing, str.__str__(text))


_NAMES: Final[tuple[Any, ...]] = tuple(type.__dict__[name] for name in ("__name__", "__qualname__"))


def collect_these(things: list[Any]) -> None:
    """Collect among ``things`` and the latest objects, and nothing else. Empties the list, which is the only one."""
    movers = _movers()
    if movers is None:
        things.clear()
        gc.collect()
        return
    untrack, track = movers
    known: list[Any] = []
    before = _collections()
    was_enabled = gc.isenabled()
    # A switched-off collector has left objects lying, which would all be looked at: freezing them takes no time.
    is_crowded = gc.get_count()[0] > _CROWD
    steps: Iterable[object] = itertools.chain(
        map(_CALL, (_DISABLE, _FREEZE) if is_crowded else (_DISABLE,)),
        map(known.append, filter(gc.is_tracked, things)),
        map(untrack, map(id, known)),
        map(track, map(id, known)),
        map(_CALL, (things.clear, known.clear, functools.partial(gc.collect, 0))),
    )
    try:
        deque(steps, maxlen=0)
        for _ in range(_TRIES):
            if _collections() != before:
                break
            time.sleep(0.01)  # another thread is in the middle of a collection, in code of a finaliser
            gc.collect(0)
    finally:
        if is_crowded:
            gc.unfreeze()
        if was_enabled:
            gc.enable()


def _collections() -> int:
    count: int = gc.get_stats()[0]["collections"]
    return count


@functools.cache
def _movers() -> tuple[Callable[[int], None], Callable[[int], None]] | None:
    if (
        sys.implementation.name != "cpython"
        or sys.version_info >= (3, 16)
        or gc.get_threshold()[2] == 0  # the only sign of the collector of the first releases of 3.14
        or sysconfig.get_config_var("Py_GIL_DISABLED")
    ):
        return None
    try:
        import ctypes  # noqa: PLC0415 - a Python may be built without it
    except ImportError:
        return None
    # Keeps the interpreter lock, and takes addresses: of an object ctypes would ask the class, which may be code.
    call = ctypes.PYFUNCTYPE(None, ctypes.c_void_p)
    return call(("PyObject_GC_UnTrack", ctypes.pythonapi)), call(("PyObject_GC_Track", ctypes.pythonapi))


# --- what a biz reaches ----------------------------------------------------------------------------------------------


def reach(survey: Survey) -> dict[int, Any]:
    """Map addresses to all objects which survivors of a biz refer to, the nearest first, without objects of the base.

    A few objects of the base are in the list, if nothing tells them apart. The caller drops the list soon.
    """
    reached = _Reach(survey, few=_FEW).walk()
    if reached is None:
        reached = _Reach(survey, few=0).walk()
    return reached or {}


class _Reach:
    """One walk. Refers to the objects looked at, and is dropped with them."""

    def __init__(self, survey: Survey, *, few: int) -> None:
        self._survey = survey
        self._few = few
        tables = tables_of_base()
        self._tables = set(map(id, tables))
        self._known: dict[str, object] = {}
        """Python modules of the base by name, as asked for."""
        self._globals: set[int] = set()
        if few == 0:
            for table in tables:
                self._globals.update(map(id, list(table.values())))
        self._reached: dict[int, Any] = {}
        self._foreign: dict[int, Any] = {}
        self._large: dict[int, Any] = {}

    def walk(self) -> dict[int, Any] | None:
        """Walk as `reach` says; ``None`` if there turned out to be more than a few objects."""
        self._reached = {id(thing): thing for _, thing in self._survey.survivors()}
        todo = deque(self._reached.values())
        while todo:
            while todo:
                batch = [todo.popleft() for _ in range(min(len(todo), _BATCH))]
                todo.extend(self._enter(gc.get_referents(*batch)))
                if self._few and len(self._reached) > self._few:
                    return None
                if len(self._reached) > _MOST:
                    return self._reached
            del batch
            todo.extend(self._enter_large())
        return self._reached

    def _enter(self, parts: list[Any]) -> list[Any]:
        reached, foreign, entered = self._reached, self._foreign, []
        for part in filter(gc.is_tracked, parts):
            key = id(part)
            if key in reached or key in foreign:
                continue
            if not self._is_reached(part):
                foreign[key] = part
            elif length_of(part) > LARGE and not self._survey.owns(part):
                self._large[key] = part
            else:
                reached[key] = part
                entered.append(part)
        return entered

    def _is_reached(self, thing: Any) -> bool:
        kind = type(thing)
        if kind is types.FunctionType or kind is LRU_CACHE:
            return self._survey.owns(thing) or not is_findable(thing, self._known)
        if issubclass(kind, type):
            return self._survey.owns_class(thing) or not is_findable(thing, self._known)
        if issubclass(kind, types.ModuleType):
            # A library with Python modules of a class of its own (six) need not have them in the interpreter's table.
            return self._survey.owns(thing) or (kind is not types.ModuleType and self._survey.owns_class(kind))
        if kind is dict:
            if id(thing) in self._tables:
                return False
            if "__builtins__" in thing:
                return other_biz(self._survey, thing) is None
        return id(thing) not in self._globals or self._survey.owns(thing)

    def _enter_large(self) -> list[Any]:
        """Enter the large containers without other referrers: looking at any other one alone takes too long."""
        if not self._large:
            return []
        uses: Counter[int] = Counter()
        things = list(self._reached.values())
        for start in range(0, len(things), _BATCH):
            uses.update(key for key in map(id, gc.get_referents(*things[start : start + _BATCH])) if key in self._large)
        entered = []
        for key in list(self._large):
            thing = self._large[key]
            # The dictionary, the name and the argument are three.
            if sys.getrefcount(thing) - 3 <= uses[key]:
                self._reached[key] = self._large.pop(key)
                entered.append(thing)
        return entered


def other_biz(survey: Survey, table: dict[str, Any]) -> str | None:
    """``biz shop:1.0`` if globals belong to another biz; ``None`` if they do not.

    Every biz has a Python module ``builtins`` of its own, which leads code of the biz, wherever run, to its modules.
    """
    own = builtins_of(table)
    if type(own) is not dict or own is _BUILTINS or "__import__" not in own or survey.owns(table):
        return None
    for cell in getattr(own["__import__"], "__closure__", None) or ():
        try:
            scope = getattr(cell.cell_contents, "scope", None)
        except ValueError:
            continue
        if type(scope) is Scope:
            return f"biz {scope.biz}"
    return "another biz"


_BUILTINS: Final[dict[str, Any]] = vars(sys.modules["builtins"])


def length_of(thing: Any) -> int:
    """The length of a container of Python's own, past any ``__len__`` of a subclass; 0 for any other object."""
    length = _LENGTHS.get(id(type(thing)))
    if length is None and issubclass(type(thing), _CONTAINERS):
        length = next(_LENGTHS[id(kind)] for kind in _CONTAINERS if issubclass(type(thing), kind))
    return 0 if length is None else length(thing)


_CONTAINERS: Final = (dict, list, tuple, set, frozenset, deque)
_LENGTHS: Final[dict[int, Callable[[Any], int]]] = {id(kind): kind.__len__ for kind in _CONTAINERS}
