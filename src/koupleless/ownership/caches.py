"""The question which objects belong to a biz, decided by identity; and shared caches with entries of a biz.

Names of Python modules are plain and therefore not unique, so nothing here decides by name alone. A function belongs to
the biz if its globals are the dictionary of a Python module of the biz, a class if one of its functions or bases does,
an instance if its class does. A `Survey` remembers the dictionaries before the Python modules are dropped, and keeps
none of the dictionaries alive.

Nothing here may run code of the objects looked at: lazy objects and proxies answer even ``isinstance`` by waking up, so
the types are asked instead of the objects.
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
from collections import Counter, deque
from typing import TYPE_CHECKING, Any, Final

from koupleless.context import as_base
from koupleless.frames import standing_for
from koupleless.ownership.ledger import Ledger, take_out
from koupleless.readers import home_of_class

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from koupleless.context import Scope
    from koupleless.ownership.ledger import Entered, Patches

_MARK: Final = "__koupleless_mark__"
_NODES: Final = 2000
_DEPTH: Final = 8

LRU_CACHE: Final = type(functools.lru_cache(maxsize=1)(lambda: None))
_REGISTER_CODE: Final = next(
    constant
    for constant in functools.singledispatch.__code__.co_consts
    if isinstance(constant, types.CodeType) and constant.co_name == "register"
)
# Kinds are looked up by address, here and wherever objects of anybody's making are looked at: ``==`` and ``hash`` of a
# class are code of its metaclass.
_SUSPENDED: Final[dict[int, str]] = {
    id(types.GeneratorType): "gi_frame",
    id(types.CoroutineType): "cr_frame",
    id(types.AsyncGeneratorType): "ag_frame",
}


def is_a(thing: Any, kind: type | tuple[type, ...]) -> bool:
    """Test as ``isinstance`` does, but ask the type alone: a proxy with a ``__class__`` of its own is not woken."""
    return issubclass(type(thing), kind)


def attributes(thing: object) -> Any:
    """The instance dictionary of any object, past any ``__getattribute__`` of a class; ``None`` where there is none."""
    try:
        return object.__getattribute__(thing, "__dict__")
    except AttributeError:
        return None


def builtins_of(table: dict[Any, Any]) -> Any:
    """The builtins of code with these globals; ``None`` for any other dictionary."""
    own = table.get("__builtins__")
    return attributes(own) if is_a(own, types.ModuleType) else own


def suspended(thing: object) -> types.FrameType | None:
    """The frame of a suspended generator or coroutine; ``None`` for any other object."""
    name = _SUSPENDED.get(id(type(thing)))
    return None if name is None else getattr(thing, name)


def tracked_of(*kinds: type) -> list[Any]:
    """List all objects of exactly these types in the collector's sight. No type may be list, tuple or partial.

    A tuple in the making by C code of another thread is among all objects, and the C code fails if anybody else refers
    to the tuple. So all objects are listed, and let go of, within one call of C code, in which no other thread has its
    turn.
    """
    found: list[Any] = []
    kept: list[Any] = []
    keep = [
        functools.partial(
            kept.extend, itertools.compress(found, map(operator.is_, map(type, found), itertools.repeat(kind)))
        )
        for kind in kinds
    ]
    take = functools.partial(found.extend, itertools.chain.from_iterable(map(operator.call, (gc.get_objects,))))
    steps: list[Callable[[], object]] = [take, *keep, found.clear]
    deque(map(operator.call, steps), maxlen=0)
    return kept


class _Mark:
    """A mark in the globals of a Python module: lives exactly as long as the globals, which may outlive the module."""

    __slots__ = ("__weakref__", "table")

    def __init__(self, table: dict[str, Any]) -> None:
        self.table = table


class Survey:
    """The objects that belong to one life of a biz, noted before its namespace is dropped.

    ``modules`` are the Python modules to die, by name; ``namesakes`` are Python modules of other bizs under the same
    names. The survey keeps no object of any biz alive, and may outlive the scope. Made and used by the thread of the
    uninstall.
    """

    def __init__(
        self, scope: Scope, modules: Mapping[str, object], namesakes: Iterable[tuple[str, types.ModuleType]] = ()
    ) -> None:
        self.biz = scope.biz
        self._namesakes = [(name, weakref.ref(module)) for name, module in namesakes]
        ledger = scope.find_facet(Ledger)
        self.undone: Mapping[str, int] = {} if ledger is None else ledger.undone
        self.before: Mapping[object, Any] = {} if ledger is None else ledger.before
        """The functions in hooks of the process when the biz came."""
        self.finalizers: set[int] = set() if ledger is None else set(ledger.finalizers)
        """Finalisers (``weakref.finalize``) made while the biz was running, by their place in the order of all."""
        self.entered: Entered = {} if ledger is None else ledger.entered
        """Entries of the biz in caches of the standard library; taken out, and forgotten, by the first purge."""
        self.files: set[str] = set()
        """The source files of the Python modules."""
        self._marks: dict[int, tuple[str, weakref.ref[_Mark]]] = {}
        self._things: list[tuple[str, str, weakref.ref[Any]]] = []
        self._globals: set[int] = set()
        self.names: set[str] = set()
        """The names of the Python modules, except names that every biz has."""
        self._classes: dict[int, tuple[weakref.ref[type], bool]] = {}
        """The answers of `owns_class`, by address: a class is compared, and hashed, by code of its metaclass."""
        table = [(name, module) for name, module in modules.items() if module is not None]
        for name, module in table:
            self._enlist(name, module)
        self._globals = {key for key, (_, mark) in self._marks.items() if mark() is not None}
        for name, module in table:
            self._watch_members(name, module)

    def _enlist(self, name: str, module: object) -> None:
        if is_a(module, types.ModuleType):
            self._things.append((name, name, weakref.ref(module)))
        # A biz has a ``builtins`` and a ``__main__`` of its own: such names say nothing.
        if name not in sys.stdlib_module_names and name not in ("__main__", "__mp_main__"):
            self.names.add(name)
        table = attributes(module)
        if type(table) is not dict or id(table) in self._marks:
            return
        mark = table[_MARK] = _Mark(table)
        self._marks[id(table)] = (name, weakref.ref(mark))
        file = table.get("__file__")
        if isinstance(file, str):
            self.files.add(file)

    def _watch_members(self, name: str, module: object) -> None:
        table = attributes(module)
        if type(table) is not dict:
            return
        for label, member in list(table.items()):
            if is_a(member, types.FunctionType):
                mine = id(member.__globals__) == id(table)
            else:
                mine = is_a(member, type) and home_of_class(member) == name and self.owns_class(member)
            if mine:
                self._things.append((name, f"{name}.{label}", weakref.ref(member)))

    def alive(self) -> dict[str, list[str]]:
        """List survivors: Python module -> names of objects alive, the module's own first where the globals live."""
        left: dict[str, list[str]] = {}
        for name, mark in self._marks.values():
            if mark() is not None:
                left.setdefault(name, []).append(name)
        for module, name, reference in self._things:
            if reference() is not None and name not in left.setdefault(module, []):
                left[module].append(name)
        alive = {module: names for module, names in left.items() if names}
        if len(alive) > 1:
            alive.pop("builtins", None)  # every biz has one; it lives as long as any code of the biz and tells nothing
        return alive

    def is_gone(self) -> bool:
        """Whether no object of the biz lives any more."""
        return all(mark() is None for _, mark in self._marks.values()) and all(
            reference() is None for _, _, reference in self._things
        )

    def survivors(self) -> list[tuple[str, object]]:
        """List the living objects, as (name of the Python module, globals or object). The caller drops the list."""
        found: list[tuple[str, object]] = []
        found += [(name, mark.table) for name, ref in self._marks.values() if (mark := ref()) is not None]
        found += [(module, thing) for module, _, ref in self._things if (thing := ref()) is not None]
        return found

    def refresh(self) -> None:
        """Forget the globals that died: the addresses may belong to other objects by now."""
        self._globals = {key for key, (_, mark) in self._marks.items() if mark() is not None}

    # --- belonging ----------------------------------------------------------------------------------------------------

    def owns_globals(self, table: object) -> bool:
        """Whether a dictionary is the globals of a Python module of the biz."""
        return id(table) in self._globals

    def owns_code(self, table: object, builtins: object) -> bool:
        """Whether code with these globals and builtins belongs to the biz.

        Every biz has builtins of its own. So the builtins also tell the owner of a Python module after a failed import,
        and of code executed by the biz in a dictionary.
        """
        return id(table) in self._globals or id(builtins) in self._globals

    def owns_class(self, kind: type) -> bool:
        """Whether the biz defined a class: told by functions, bases, or as the last resort the Python module."""
        known = self._classes.get(id(kind))
        if known is None or known[0]() is not kind:
            known = self._classes[id(kind)] = weakref.ref(kind), self._judge_class(kind)
        return known[1]

    def _judge_class(self, kind: type) -> bool:
        if is_findable(kind):
            return False  # also when the biz patched a method into the class
        home = home_of_class(kind)
        is_of_others = False
        for member in type.__dict__["__dict__"].__get__(kind).values():
            function = member.__func__ if is_a(member, (classmethod, staticmethod)) else member
            if type(member) is property:
                function = member.fget
            if is_a(function, types.FunctionType):
                if self.owns(function):
                    return True
                is_of_others = is_of_others or getattr(function, "__module__", None) == home
        bases = type.__dict__["__bases__"].__get__(kind)
        if any(base is not object and self.owns_class(base) for base in bases):
            return True
        # Code of another Python module of this name made the class; or no member tells, and nobody else finds the class
        # there.
        return home in self.names and not is_of_others and not self._is_found_elsewhere(kind)

    def _is_found_elsewhere(self, kind: type) -> bool:
        home = home_of_class(kind)
        modules = [module() for name, module in self._namesakes if name == home]
        return any(_is_at_its_name(kind, module) for module in modules if module is not None)

    def owns(self, thing: Any) -> bool:  # noqa: PLR0911 - one case per type
        """Whether an object belongs to the biz by itself, whatever the object refers to."""
        if is_a(thing, types.FunctionType):
            return self.owns_code(thing.__globals__, thing.__builtins__)
        if is_a(thing, type):
            return self.owns_class(thing)
        if is_a(thing, types.ModuleType):
            thing = attributes(thing)
        if type(thing) is dict:
            return self.owns_code(thing, builtins_of(thing))
        if is_a(thing, types.TracebackType):
            thing = thing.tb_frame
        if is_a(thing, types.FrameType):
            return self.owns_code(thing.f_globals, thing.f_builtins)
        if is_a(thing, LRU_CACHE):
            return self.owns(getattr(thing, "__wrapped__", None))
        frame = suspended(thing)
        if frame is not None:
            return self.owns(frame)
        return self.owns_class(type(thing))

    def reaches(self, thing: object) -> bool:
        """Whether an object belongs to the biz, or has a part that does and without which the object could not be.

        Looked through are tuples, partials, bound and wrapped functions, closures, annotations, which cannot belong to
        anybody else. Not looked through are lists, dictionaries and objects, which a biz may have added to.
        """
        return self._search(thing, _parts)

    def reaches_deeply(self, thing: object) -> bool:
        """Whether an object `reaches` the biz, or does through containers and attributes within the limits."""
        return self._search(thing, _everything)

    def _search(self, thing: object, parts: Callable[[Any], Iterable[Any]]) -> bool:
        seen = {id(thing)}
        todo = deque([(thing, 0)])
        kept = []  # so that no address is used twice during the search
        while todo and len(seen) < _NODES:
            thing, depth = todo.popleft()
            if self.owns(thing):
                return True
            if depth < _DEPTH:
                for part in parts(thing):
                    if id(part) not in seen:
                        seen.add(id(part))
                        kept.append(part)
                        todo.append((part, depth + 1))
        return False


def _parts(thing: Any) -> Iterator[Any]:  # noqa: C901, PLR0912 - one case per type
    kind = type(thing)
    if id(kind) in _PLAIN:
        return
    if kind is tuple or kind is frozenset:
        yield from thing
    elif is_a(thing, types.FunctionType):
        for cell in thing.__closure__ or ():
            try:
                yield cell.cell_contents
            except ValueError:
                continue
        yield from thing.__defaults__ or ()
        yield from (thing.__kwdefaults__ or {}).values()
    elif kind is types.MethodType:
        yield thing.__func__
        yield thing.__self__
    elif is_a(thing, functools.partial):
        yield thing.func
        yield from thing.args
        yield from thing.keywords.values()
    elif kind is staticmethod or kind is classmethod:
        yield thing.__func__
    elif kind is property:
        yield from (thing.fget, thing.fset, thing.fdel)
    elif home_of_class(kind) in ("typing", "types", "typing_extensions"):
        for name in ("__origin__", "__args__", "__metadata__", "__bound__", "__constraints__"):
            part = getattr(thing, name, None)
            if part is not None:
                yield part
    elif is_a(thing, type):
        # pydantic: G[M] is a class of G's Python module, made for M alone.
        generic = type.__dict__["__dict__"].__get__(thing).get("__pydantic_generic_metadata__")
        if is_a(generic, dict):
            yield from generic.get("args") or ()


def _everything(thing: Any) -> Iterable[Any]:
    if id(type(thing)) in _PLAIN or is_a(thing, type) or is_a(thing, types.ModuleType):
        return _parts(thing)
    if is_a(thing, types.FunctionType):
        return _parts(thing)
    if type(thing) is dict and "__builtins__" in thing:
        return ()
    return gc.get_referents(thing)


def is_findable(thing: Any) -> bool:
    """Whether the base finds a function or class under its dotted name.

    A function made by a decorator on somebody's behalf is not found so, nor is a function of a biz.
    """
    home = home_of_class(thing) if is_a(thing, type) else getattr(thing, "__module__", None)
    with as_base():
        module = sys.modules.get(home) if type(home) is str else None
    return _is_at_its_name(thing, module)


def _is_at_its_name(thing: Any, module: object) -> bool:
    """Whether the qualified name of a function or class leads to the same object in a Python module."""
    is_class = is_a(thing, type)
    name = type.__dict__["__qualname__"].__get__(thing) if is_class else getattr(thing, "__qualname__", "")
    found: Any = module
    for part in name.split("."):
        # Not getattr, which may import a lazy attribute of a Python module.
        table = type.__dict__["__dict__"].__get__(found) if is_a(found, type) else attributes(found)
        found = None if table is None else table.get(part)
    return found is thing


_PLAIN: Final = frozenset(
    map(id, (int, str, bytes, float, bool, complex, type(None), types.CodeType, types.BuiltinFunctionType))
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


def install(patches: Patches) -> None:
    """Note every cache made from now on, by any code."""
    global _is_searched  # noqa: PLW0603 - the process has one set of caches
    _is_searched = False
    patches.replace(functools, "update_wrapper", _noting)


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
    ``deeply`` looks into keys as far as the limits allow, but only at keys referred to by nothing but the cache.
    """
    lru = dispatch = 0
    for cache in shared_caches():
        if type(cache) is not LRU_CACHE:
            dispatch += _purge_dispatch(survey, cache)
        elif not survey.owns(cache) and _lru_reaches(survey, cache, deeply=deeply):
            cache.cache_clear()
            lru += 1
    return {"lru cache": lru, "singledispatch": dispatch}


def _lru_reaches(survey: Survey, cache: Any, *, deeply: bool) -> bool:
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
    entries += [part for key, value in table.copy().items() for part in (key, value)]
    if any(survey.reaches(part) for part in entries):
        return True
    if not deeply:
        return False
    uses = Counter(id(entry) for entry in entries)
    uses.update(id(part) for key in table if type(key) is tuple for part in key)
    entries.clear()
    parts.clear()
    # The loop's own name and the argument of getrefcount are two; a key with more references than the cache has is
    # shared.
    return any(
        sys.getrefcount(part) - 2 <= uses[id(part)] and survey.reaches_deeply(part)
        for key in list(table)
        if type(key) is tuple
        for part in key
    )


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
    """Empty the caches of ``typing``, which are refilled at need: for entries out of the sight of `purge_caches`."""
    for clean in getattr(typing, "_cleanups", ()):
        clean()
