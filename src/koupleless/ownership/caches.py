"""Caches of shared code: found once for the process, and purged of entries that reach a biz.

The caches are those of ``functools.lru_cache`` and ``functools.singledispatch``, which keep arguments and functions of
bizs for good, and those of ``typing``. They are found among all objects of the collector, so the freezing of a base is
here, too. Nothing here may run code of the objects looked at: `belonging` asks their types.
"""

from __future__ import annotations

import functools
import gc
import itertools
import operator
import sys
import types
import typing
import weakref
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from koupleless.frames import standing_for
from koupleless.ownership.belonging import LRU_CACHE, PLAIN, attributes, is_a, surroundings, tracked_of
from koupleless.ownership.ledger import take_out
from koupleless.readers import home_of_class

if TYPE_CHECKING:
    from collections.abc import Callable

    from koupleless.ownership.belonging import Survey
    from koupleless.ownership.recording import Patches

FOUND: Final = {
    "lru cache": "functools.lru_cache, functools.cache",
    "singledispatch": "functools.singledispatch",
    "typing": "caches of typing",
}
"""The kinds of registration that are found here, with the registry, as the table of kinds names it."""

_REGISTER_CODE: Final = next(
    constant
    for constant in functools.singledispatch.__code__.co_consts
    if isinstance(constant, types.CodeType) and constant.co_name == "register"
)


# --- finding the caches ---------------------------------------------------------------------------------------------

# Every ``lru_cache`` wrapper and every ``register`` function of ``singledispatch``, by address. Caches made while bizs
# may be installed are noted as they are made, earlier ones are looked for once.
_known: Final[weakref.WeakValueDictionary[int, Any]] = weakref.WeakValueDictionary()
_is_searched = False
_blocks_frozen = 0

_OLDEST: Final = functools.total_ordering
"""A function older than any cache: frozen if one of the caches was."""
_SCANNED: Final = 4_000_000
"""Blocks of memory up to which all objects are looked at, once for a base: listing takes 80 ms, in which nothing else
runs."""
_FEW: Final = 500_000
"""Blocks of memory of a base that has made few objects since the freezing: these are listed within milliseconds."""


def install(patches: Patches) -> None:
    """Note every cache made from now on, by any code; and, in a frozen base, every cache made since the freezing.

    No biz is there yet, so few objects are younger than the freezing, and the first uninstall has none to look for.
    """
    global _is_searched  # noqa: PLW0603 - the process has one set of caches
    _is_searched = False
    patches.replace(functools, "update_wrapper", _noting)
    if _blocks_frozen and (allocated_since_freeze() or _FEW) < _FEW:
        _is_searched = _scan()


def _noting(original: Callable[..., Any]) -> Callable[..., Any]:
    @standing_for(original)
    def update_wrapper(wrapper: Any, *args: Any, **kwargs: Any) -> Any:
        # The last step of both lru_cache and singledispatch with each cache they make.
        _note(wrapper)
        return original(wrapper, *args, **kwargs)

    vars(update_wrapper)[_NOTES] = True
    return update_wrapper


_NOTES: Final = "__koupleless_notes__"


def _note(thing: Any) -> None:
    kind = type(thing)
    if kind is LRU_CACHE:
        _known[id(thing)] = thing
    elif kind is types.FunctionType:
        register = thing if thing.__code__ is _REGISTER_CODE else thing.__dict__.get("register")
        if type(register) is types.FunctionType and register.__code__ is _REGISTER_CODE:
            _known[id(register)] = register


def shared_caches() -> list[Any]:
    """Every ``lru_cache`` wrapper and every ``register`` function of ``singledispatch`` in the process.

    In a heap too large to be listed while requests wait, caches made before the first biz was installed are only those
    found from the globals of Python modules: in the globals themselves, in classes, in closures.
    """
    global _is_searched  # noqa: PLW0603 - as above
    if not _is_searched:
        if not _scan():
            for module in list(sys.modules.values()):
                _search_module(module)
        _is_searched = _NOTES in vars(functools.update_wrapper)
    return [thing for reference in _known.valuerefs() if (thing := reference()) is not None]


def _scan() -> bool:
    """Note the caches among all objects; ``False`` if there are too many, or if the base's own code froze the rest."""
    blocks = allocated_since_freeze()
    if blocks is None or blocks > _SCANNED:
        return False
    things = tracked_of(LRU_CACHE, types.FunctionType)
    for thing in things:
        _note(thing)
    return _blocks_frozen > 0 or any(map(operator.is_, things, itertools.repeat(_OLDEST)))


def _search_module(module: object) -> None:
    table = attributes(module)
    if type(table) is not dict:
        return
    name = table.get("__name__")
    for label, member in list(table.items()):
        kind = type(member)
        if id(kind) in _WRAPPERS:
            if kind is not types.FunctionType or member.__module__ == name:
                _search_member(member)
        elif kind is dict and type(label) is str and "cache" in label:  # as typing keeps its caches
            for part in list(member.values()):
                _note(part)
        elif is_a(member, type) and home_of_class(member) == name:
            for part in list(type.__dict__["__dict__"].__get__(member).values()):
                if id(type(part)) in _WRAPPERS:
                    _search_member(part)


def _search_member(thing: Any) -> None:
    for _ in range(_WRAPPED):
        kind = type(thing)
        if kind is classmethod or kind is staticmethod:
            thing = thing.__func__
        elif kind is property:
            thing = thing.fget
        _note(thing)
        if type(thing) is not types.FunctionType:
            return
        for cell in thing.__closure__ or ():
            try:
                _note(cell.cell_contents)
            except ValueError:
                continue
        if not thing.__dict__:
            return
        thing = thing.__dict__.get("__wrapped__")


_WRAPPERS: Final = frozenset(map(id, (types.FunctionType, LRU_CACHE, classmethod, staticmethod, property)))
_WRAPPED: Final = 4
"""The number of decorators, one upon the other, to look through."""


def allocated_since_freeze() -> int | None:
    """Blocks of memory used by Python, without blocks of objects out of the collector's sight; ``None`` if unknown."""
    blocks = sys.getallocatedblocks()
    return max(blocks - _blocks_frozen, 0) if blocks else None


def freeze_base() -> int:
    """Collect, then put all live objects out of the collector's sight; returns the number of these objects.

    For a base that has loaded its shared libraries and has **no biz installed**: collections, automatic ones too, then
    walk only later objects. Frozen objects are freed by reference counting only, except for objects left behind by
    bizs.
    """
    global _blocks_frozen  # noqa: PLW0603 - the process has one heap
    gc.collect()
    for thing in tracked_of(LRU_CACHE, types.FunctionType):
        _note(thing)
    gc.freeze()
    _blocks_frozen = sys.getallocatedblocks()
    return gc.get_freeze_count()


# --- purging the caches ---------------------------------------------------------------------------------------------


def purge_caches(survey: Survey, *, deeply: bool = False) -> dict[str, int]:
    """Clear the shared caches with entries of the biz; returns the number of caches by kind.

    A cache without such an entry keeps its entries, and so does a cache whose *result* is a shared object to which the
    biz was added: clearing the base's ``@lru_cache def get_registry()`` would be a bug, and is reported instead.
    Parts of keys referred to by nothing but the cache are looked into, one step, and as far as the limits allow if
    ``deeply``.
    """
    lru = dispatch = 0
    judged: dict[int, Any] = {}
    for cache in shared_caches():
        if type(cache) is not LRU_CACHE:
            dispatch += _purge_dispatch(survey, cache)
        elif not _is_ours(cache) and not survey.owns(cache) and _lru_reaches(survey, cache, judged, deeply=deeply):
            cache.cache_clear()
            lru += 1
    return {"lru cache": lru, "singledispatch": dispatch}


def _is_ours(cache: Any) -> bool:
    """Whether a cache is of this package: no such cache has objects of a biz in its entries."""
    home = getattr(cache, "__module__", None)
    return type(home) is str and home.startswith(_PACKAGE)


_PACKAGE: Final = f"{__name__.partition('.')[0]}."


def _lru_reaches(survey: Survey, cache: Any, judged: dict[int, Any], *, deeply: bool) -> bool:
    """Whether an entry of a cache reaches the biz. ``judged`` are objects that do not, by address, and gets more."""
    size = cache.cache_info().currsize
    if size == 0:
        return False
    own = attributes(cache)
    parts = [part for part in gc.get_referents(cache) if part is not own]
    # Results may be dictionaries too; the table comes after them.
    table = next((part for part in reversed(parts) if type(part) is dict and len(part) == size), None)
    if table is None:
        return False
    # In a bounded cache the values of the table are links, and the results are among the referents of the wrapper
    # itself.
    function = getattr(cache, "__wrapped__", None)
    entries = [part for part in parts if part is not table and part is not function]
    entries += itertools.chain.from_iterable(table.copy().items())
    parts.clear()
    if survey.reaches_any(entries, judged):
        return True
    loners = _loners([key for key in list(table) if type(key) is tuple], entries, judged)
    # An object made for a key alone, around a function: as FastAPI makes one for each question about a function.
    if survey.reaches_any(surroundings(loners), judged):
        return True
    return deeply and any(map(survey.reaches_deeply, loners))


def _loners(keys: list[tuple[Any, ...]], entries: list[Any], judged: dict[int, Any]) -> list[Any]:
    """List the parts of keys with no references but those of the cache. Empties ``entries``, all that the cache has."""
    uses = Counter(map(id, entries))
    uses.update(map(id, itertools.chain.from_iterable(keys)))
    entries.clear()
    # The loop's own name and the argument of getrefcount are two.
    return [
        part
        for key in keys
        for part in key
        if id(type(part)) not in PLAIN and sys.getrefcount(part) - 2 - (id(part) in judged) <= uses[id(part)]
    ]


def _purge_dispatch(survey: Survey, register: Any) -> int:
    cells = dict(zip(register.__code__.co_freevars, register.__closure__ or (), strict=False))
    try:
        registry: dict[Any, Any] = cells["registry"].cell_contents
        cache = cells["dispatch_cache"].cell_contents
    except (KeyError, ValueError):
        return 0
    if survey.owns(registry.get(object)):
        return 0
    doomed = [kind for kind, function in registry.items() if survey.reaches(kind) or survey.reaches(function)]
    for kind in doomed:
        take_out(registry, kind)
    if doomed:
        cache.clear()
    return len(doomed)


def purge_typing() -> None:
    """Empty the caches of ``typing``, which are refilled at need.

    Libraries leave thousands of entries there, which would take longer to look through. Some are out of sight.
    """
    for clean in getattr(typing, "_cleanups", ()):
        clean()
