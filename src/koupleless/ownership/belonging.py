"""The question which objects belong to a biz, decided by identity.

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
import weakref
from collections import deque
from typing import TYPE_CHECKING, Any, Final, TypeVar

from koupleless.context import enter, leave
from koupleless.ownership.kinds import swept_of
from koupleless.ownership.ledger import Ledger
from koupleless.readers import home_of_class

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from koupleless.context import Scope
    from koupleless.ownership.kinds import Own

T = TypeVar("T")

_MARK: Final = "__koupleless_mark__"
_NODES: Final = 2000
_DEPTH: Final = 8

_MADE_BY_CODE: Final = 1 << 9
"""The flag ``Py_TPFLAGS_HEAPTYPE``: other classes are static data of the interpreter, or of a compiled module."""
LRU_CACHE: Final = type(functools.lru_cache(maxsize=1)(lambda: None))
# Kinds are looked up by address, here and wherever objects of anybody's making are looked at: ``==`` and ``hash`` of a
# class are code of its metaclass.
_SUSPENDED: Final[dict[int, str]] = {
    id(types.GeneratorType): "gi_frame",
    id(types.CoroutineType): "cr_frame",
    id(types.AsyncGeneratorType): "ag_frame",
}


PLAIN: Final = frozenset(
    map(id, (int, str, bytes, float, bool, complex, type(None), types.CodeType, types.BuiltinFunctionType))
)
"""The addresses of types without objects that belong to a biz, or have a part that does."""


def is_a(thing: Any, kind: type | tuple[type, ...]) -> bool:
    """Test as ``isinstance`` does, but ask the type alone: a proxy with a ``__class__`` of its own is not woken."""
    return issubclass(type(thing), kind)


def attributes(thing: object) -> Any:
    """The instance dictionary of any object, past any ``__getattribute__`` of a class; ``None`` where there is none."""
    try:
        return object.__getattribute__(thing, "__dict__")
    except AttributeError:
        return None


def tables_of_base() -> list[dict[str, Any]]:
    """The attributes of all Python modules of the base. Called as the base.

    The collector is not asked for the objects in a Python module: ``_asyncio`` of CPython 3.12 answers with objects
    freed already, and a reference to one of these ends the process, or takes all memory.
    """
    return [_table_of(module) for module in list(sys.modules.values()) if is_a(module, types.ModuleType)]


_table_of: Final[Callable[[Any], dict[str, Any]]] = vars(types.ModuleType)["__dict__"].__get__


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


def _no_namesakes(_name: str, _life: int) -> list[types.ModuleType]:
    """List no Python modules: there is one biz."""
    return []


class Survey:
    """The objects that belong to one life of a biz, noted before its namespace is dropped.

    ``modules`` are the Python modules to die, by name. ``namesakes`` is given a name, and the number of this life, and
    lists the Python modules of other bizs under the name. The survey keeps no object of any biz alive, and may outlive
    the scope. Made and used by the thread of the uninstall.
    """

    def __init__(
        self,
        scope: Scope,
        modules: Mapping[str, object],
        namesakes: Callable[[str, int], list[types.ModuleType]] = _no_namesakes,
    ) -> None:
        self.biz = scope.biz
        self.life = scope.generation
        """The number of this life among the lives of all bizs of the process."""
        self._namesakes = namesakes
        self._modules: dict[str, weakref.ref[Any]] = {}
        ledger = scope.find_facet(Ledger)
        self.undone: Mapping[str, int] = {} if ledger is None else ledger.undone
        self._swept = swept_of(scope)
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
            self._modules[name] = weakref.ref(module)
            self._things.append((name, name, self._modules[name]))
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

    def find(self, own: Own[T]) -> T | None:
        """The value of the biz that a recorder has kept for the purge, if the value has been made."""
        return self._swept.get(own)

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
        if not type.__dict__["__flags__"].__get__(kind) & _MADE_BY_CODE or is_findable(kind):
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
        # Code of another Python module of this name made the class; or no member tells, and the class is found here, or
        # nobody else finds the class there. To ask all the others takes long, so that is the last question.
        if home not in self.names or is_of_others:
            return False
        own = self._modules[home]() if home in self._modules else None
        if own is not None and _is_at_its_name(kind, own):
            return True
        return not any(
            _is_at_its_name(kind, module) for module in self._namesakes(home, self.life) if module is not own
        )

    def owns(self, thing: Any) -> bool:  # noqa: PLR0911 - one case per type
        """Whether an object belongs to the biz by itself, whatever the object refers to."""
        kind = type(thing)
        if id(kind) in PLAIN:
            return False
        if kind is types.FunctionType:
            return self.owns_code(thing.__globals__, thing.__builtins__)
        if issubclass(kind, type):
            return self.owns_class(thing)
        if issubclass(kind, types.ModuleType):
            thing = attributes(thing)
            kind = type(thing)
        if kind is dict:
            return self.owns_code(thing, builtins_of(thing))
        if kind is types.TracebackType:
            return self.owns(thing.tb_frame)
        if kind is types.FrameType:
            return self.owns_code(thing.f_globals, thing.f_builtins)
        if issubclass(kind, LRU_CACHE):
            return self.owns(getattr(thing, "__wrapped__", None))
        frame = suspended(thing)
        if frame is not None:
            return self.owns(frame)
        return self.owns_class(kind)

    def reaches(self, thing: object) -> bool:
        """Whether an object belongs to the biz, or has a part that does and without which the object could not be.

        Looked through are tuples, partials, bound and wrapped functions, closures, annotations, which cannot belong to
        anybody else. Not looked through are lists, dictionaries and objects, which a biz may have added to.
        """
        return id(type(thing)) not in PLAIN and self._search(thing, _parts)

    def reaches_any(self, things: Iterable[Any], judged: dict[int, Any]) -> bool:
        """Whether any of many objects `reaches` the biz. ``judged`` are objects that do not, by address, and gets more.

        Looks at each part once, however many objects have the part, and at most objects by class.
        """
        level = things
        looked: dict[int, Any] = {}
        for _ in range(_DEPTH):
            fresh = {
                id(thing): thing
                for thing in level
                if id(type(thing)) not in PLAIN and id(thing) not in judged and id(thing) not in looked
            }
            looked |= fresh
            by_kind: dict[int, list[Any]] = {}
            for thing in fresh.values():
                by_kind.setdefault(id(type(thing)), []).append(thing)
            level = []
            for alike in by_kind.values():
                kind = type(alike[0])
                if kind is tuple:
                    level += gc.get_referents(*alike)
                elif _is_whole(kind):
                    if self.owns_class(kind):
                        return True
                elif any(map(self.owns, alike)):
                    return True
                else:
                    level += itertools.chain.from_iterable(map(_parts, alike))
            if not level:
                break
        judged |= looked
        return False

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
                    if id(type(part)) not in PLAIN and id(part) not in seen:
                        seen.add(id(part))
                        kept.append(part)
                        todo.append((part, depth + 1))
        return False


def _parts(thing: Any) -> Iterator[Any]:  # noqa: C901, PLR0912 - one case per type
    kind = type(thing)
    if id(kind) in PLAIN:
        return
    if kind is tuple or kind is frozenset:
        yield from thing
    elif kind is types.FunctionType:
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
    elif home_of_class(kind) in _HOMES_OF_TYPES:
        for name in ("__origin__", "__args__", "__metadata__", "__bound__", "__constraints__"):
            part = getattr(thing, name, None)
            if part is not None:
                yield part
    elif is_a(thing, type):
        # pydantic: G[M] is a class of G's Python module, made for M alone.
        generic = type.__dict__["__dict__"].__get__(thing).get("__pydantic_generic_metadata__")
        if is_a(generic, dict):
            yield from generic.get("args") or ()


def _is_whole(kind: type) -> bool:
    """Whether objects of a class have no parts, in the sense of `_parts`, and belong to a biz by the class alone."""
    return not issubclass(kind, _WITH_PARTS) and home_of_class(kind) not in _HOMES_OF_TYPES


_HOMES_OF_TYPES: Final = ("typing", "types", "typing_extensions")
_WITH_PARTS: Final = (
    *(tuple, frozenset, dict, type, property, staticmethod, classmethod, functools.partial, LRU_CACHE),
    *(types.FunctionType, types.MethodType, types.ModuleType, types.FrameType, types.TracebackType),
    *(types.GeneratorType, types.CoroutineType, types.AsyncGeneratorType),
)


def surroundings(things: Iterable[Any]) -> list[Any]:
    """List the objects that any of these refer to, except functions, classes and Python modules, which refer to all."""
    return gc.get_referents(
        *(thing for thing in things if not is_a(thing, (type, types.FunctionType, types.ModuleType)))
    )


def _everything(thing: Any) -> Iterable[Any]:
    if id(type(thing)) in PLAIN or is_a(thing, type) or is_a(thing, types.ModuleType):
        return _parts(thing)
    if is_a(thing, types.FunctionType):
        return _parts(thing)
    if type(thing) is dict and "__builtins__" in thing:
        return ()
    return gc.get_referents(thing)


def is_findable(thing: Any, known: dict[str, object] | None = None) -> bool:
    """Whether the base finds a function or class under its dotted name.

    A function made by a decorator on somebody's behalf is not found so, nor is a function of a biz. ``known`` are
    Python modules of the base by name, for many questions at once, and gets more.
    """
    home = home_of_class(thing) if is_a(thing, type) else getattr(thing, "__module__", None)
    if type(home) is not str:
        return False
    if known is None:
        module = _module_of_base(home)
    elif home in known:
        module = known[home]
    else:
        module = known[home] = _module_of_base(home)
    return module is not None and _is_at_its_name(thing, module)


def _module_of_base(name: str) -> object:
    token = enter(None)
    try:
        return sys.modules.get(name)
    finally:
        leave(token)


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
