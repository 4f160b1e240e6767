"""Values that each biz has for itself in the place of one of the process, which stays the base's."""

from __future__ import annotations

import copy
import dis
import functools
import sys
import threading
import types
import weakref
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from koupleless.context import current
from koupleless.contextual import assign_by_context

if TYPE_CHECKING:
    import contextlib
    from collections.abc import Callable, Iterator

    from koupleless.context import Scope

T = TypeVar("T")


class _Values:
    """The values of one biz by their keys: a facet of its scope."""

    __slots__ = ("__weakref__", "table")

    def __init__(self) -> None:
        self.table: dict[object, Any] = {}


_one_at_a_time: Final = threading.Lock()
_everybody: Final[weakref.WeakSet[_Values]] = weakref.WeakSet()


def _values_of(scope: Scope) -> _Values:
    values = scope.find_facet(_Values)
    if values is None:
        scope.attach(values := _Values())
        _everybody.add(values)
    return values


class Own(Generic[T]):
    """A value that each biz has for itself, made by ``make`` when the biz first needs it.

    Lifetime: the value goes with the biz. Threads: any; of what two of them make at once, one is kept.
    """

    __slots__ = ("__weakref__", "_make")

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make

    def peek(self) -> T | None:
        """The value of the running biz if it has been made; ``None`` otherwise, and for the base."""
        scope = current()
        values = None if scope is None else scope.find_facet(_Values)
        return None if values is None else values.table.get(self)

    def get(self) -> T | None:
        """The value of the running biz; ``None`` for the base, and for a biz that has left."""
        known = self.peek()
        scope = current()
        if known is not None or scope is None or scope.is_closed:
            return known
        made = self._make()  # without the lock: it may import modules, and ask for other values
        with _one_at_a_time:
            return _values_of(scope).table.setdefault(self, made)  # type: ignore[no-any-return]

    def put(self, value: T) -> None:
        """Make ``value`` the one of the running biz. Nothing for the base, and for a biz that has left."""
        scope = current()
        if scope is None or scope.is_closed:
            return
        with _one_at_a_time:
            _values_of(scope).table[self] = value

    def of_everybody(self) -> list[T]:
        """The values that have been made, of all bizs there are."""
        with _one_at_a_time:
            return [values.table[self] for values in _everybody if self in values.table]


# --- containers ------------------------------------------------------------------------------------------------------


class OwnDict(dict[Any, Any]):
    """A dictionary that a biz has a copy of as soon as it changes it. The storage is the base's.

    What the base puts in later, as a library does that imports parts of itself when they are needed, reaches every biz
    that has not changed the same key. Dictionaries and lists among the values are treated likewise, at any depth. C
    code that reads past the methods sees those of the base.
    """

    __slots__ = ("_own",)

    def __init__(self, of_base: dict[Any, Any]) -> None:
        super().__init__((key, _deep(value)) for key, value in of_base.items())
        self._own: Own[dict[Any, Any]] = Own(lambda: dict(dict.items(self)))

    def restore(self, original: dict[Any, Any]) -> dict[Any, Any]:
        """Bring ``original`` to the present state of the base, and hand it back."""
        before = dict(original)
        original.clear()
        original.update((key, _plain(value, before.get(key))) for key, value in dict.items(self))
        return original

    def _of_base(self) -> dict[Any, Any]:
        return dict(dict.items(self))

    def _tell(self, before: dict[Any, Any]) -> None:
        """Bring a change of the base to those who have a copy."""
        after = self._of_base()
        for own in self._own.of_everybody():
            for key, value in after.items():
                if value is not before.get(key, _MISSING) and own.get(key, _MISSING) is before.get(key, _MISSING):
                    own[key] = value
            for key in before.keys() - after.keys():
                if own.get(key, _MISSING) is before[key]:
                    own.pop(key, None)

    def __reduce_ex__(self, protocol: Any, /) -> Any:
        return dict, (dict(self.items()),)

    def __copy__(self) -> dict[Any, Any]:
        return dict(self.items())


class OwnList(list[Any]):
    """A list that a biz has a copy of as soon as it changes it, otherwise as `OwnDict`."""

    __slots__ = ("_own",)

    def __init__(self, of_base: list[Any]) -> None:
        super().__init__(of_base)
        self._own: Own[list[Any]] = Own(self._of_base)

    def restore(self, original: list[Any]) -> list[Any]:
        """Bring ``original`` to the present state of the base, and hand it back."""
        original[:] = self._of_base()
        return original

    def _of_base(self) -> list[Any]:
        return list(list.__iter__(self))

    def _tell(self, before: list[Any]) -> None:
        """Bring what the base has put in to those who have a copy."""
        known = {id(item) for item in before}
        more = [item for item in self._of_base() if id(item) not in known]
        for own in self._own.of_everybody():
            own.extend(more)

    def __reduce_ex__(self, protocol: Any, /) -> Any:
        return list, (list(self),)

    def __copy__(self) -> list[Any]:
        return list(self)


_MISSING: Final = object()
_KINDS: Final[dict[type, Any]] = {dict: OwnDict, list: OwnList}


def _deep(value: object) -> object:
    kind = _KINDS.get(type(value))
    return value if kind is None else kind(value)


def _plain(value: Any, original: Any) -> object:
    if type(value) is OwnDict:
        return value.restore(original if type(original) is dict else {})
    if type(value) is OwnList:
        return value.restore(original if type(original) is list else [])
    return value


def _reader(plain: Any) -> Callable[..., Any]:
    def method(self: Any, /, *args: Any) -> Any:
        own = self._own.peek()
        return plain(self if own is None else own, *args)

    return _named(method, plain)


def _writer(plain: Any) -> Callable[..., Any]:
    def method(self: Any, /, *args: Any, **kwargs: Any) -> Any:
        own = self._own.get()
        if own is not None:
            result = plain(own, *args, **kwargs)
            return self if result is own else result
        before = self._of_base()
        try:
            return plain(self, *args, **kwargs)
        finally:
            self._tell(before)

    return _named(method, plain)


def _named(method: Callable[..., Any], plain: Any) -> Callable[..., Any]:
    method.__name__ = method.__qualname__ = plain.__name__
    method.__doc__ = plain.__doc__
    return method


_METHODS: Final = (
    (
        OwnDict,
        """
        __contains__ __eq__ __getitem__ __iter__ __len__ __ne__ __or__ __repr__ __reversed__ copy get items keys values
        """,
        "__delitem__ __ior__ __setitem__ clear pop popitem setdefault update",
    ),
    (
        OwnList,
        """
        __add__ __contains__ __eq__ __ge__ __getitem__ __gt__ __iter__ __le__ __len__ __lt__ __mul__ __ne__ __repr__
        __reversed__ __rmul__ copy count index
        """,
        "__delitem__ __iadd__ __imul__ __setitem__ append clear extend insert pop remove reverse sort",
    ),
)
for _kind, _readers, _writers in _METHODS:
    for _name in _readers.split():
        setattr(_kind, _name, _reader(getattr(_kind.__base__, _name)))
    for _name in _writers.split():
        setattr(_kind, _name, _writer(getattr(_kind.__base__, _name)))


def own_containers(undo: contextlib.ExitStack, holder: Any, *names: str, package: str = "") -> None:
    """Give each biz its own dictionaries and lists of a module, a class or an object, as far as there are such.

    Where a module is the holder, also under other names in modules of the ``package``, by default the module's.
    """
    for name in names:
        original = vars(holder).get(name)
        kind = _KINDS.get(type(original))
        if kind is None:
            continue
        made = kind(original)
        places = [(holder, name)]
        if isinstance(holder, types.ModuleType):
            places = list(_holders(original, package or holder.__name__.partition(".")[0]))
        for place, label in places:
            _swap(undo, place, label, made, functools.partial(made.restore, original))


def _holders(thing: object, package: str) -> Iterator[tuple[types.ModuleType, str]]:
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] == package and isinstance(module, types.ModuleType):
            for label, value in list(vars(module).items()):
                if value is thing:
                    yield module, label


def replace(undo: contextlib.ExitStack, holder: Any, name: str, new: object) -> None:
    """Put ``new`` in the place of an attribute, and leave with ``undo`` what puts the original back."""
    original = vars(holder)[name]
    _swap(undo, holder, name, new, lambda: original)


def replace_function(undo: contextlib.ExitStack, module: types.ModuleType, name: str, new: object) -> None:
    """The same for a function of a module, which other modules of the package may have under names of their own."""
    for holder, label in list(_holders(vars(module)[name], module.__name__.partition(".")[0])):
        replace(undo, holder, label, new)


def _swap(undo: contextlib.ExitStack, holder: Any, name: str, new: object, old: Callable[[], object]) -> None:
    put: Callable[..., None] = object.__setattr__ if not isinstance(holder, type | types.ModuleType) else setattr
    put(holder, name, new)

    def restore() -> None:
        if vars(holder).get(name) is new:
            put(holder, name, old())

    undo.callback(restore)


# --- results ---------------------------------------------------------------------------------------------------------


def own_cache(undo: contextlib.ExitStack, holder: Any, name: str) -> None:
    """Let a function, or method, that ``functools.lru_cache`` keeps the results of keep those of each biz apart."""
    original: Any = vars(holder)[name]
    limits = original.cache_parameters()
    own = Own(lambda: functools.lru_cache(**limits)(original.__wrapped__))

    def of_whom() -> Any:
        return own.get() or original

    @functools.wraps(original.__wrapped__)
    def cached(*args: Any, **kwargs: Any) -> Any:
        return of_whom()(*args, **kwargs)

    for method in ("cache_clear", "cache_info"):
        setattr(cached, method, _call_of(of_whom, method))
    cached.cache_parameters = original.cache_parameters  # type: ignore[attr-defined]
    (replace_function if isinstance(holder, types.ModuleType) else replace)(undo, holder, name, cached)


def _call_of(of_whom: Callable[[], Any], method: str) -> Callable[[], Any]:
    def call() -> Any:
        return getattr(of_whom(), method)()

    return call


# --- attributes and objects ------------------------------------------------------------------------------------------


class OwnAttribute:
    """Stands in a class for an attribute that each biz may have for itself: what ``make`` makes for it, or was `put`.

    Where that is ``None``, and for the base, it is what stood there, or what the class inherits.
    """

    def __init__(self, holder: type, name: str, make: Callable[[], Any] = lambda: None) -> None:
        self._holder = holder
        self._name = name
        self.of_base = vars(holder).get(name, _MISSING)
        self._own: Own[Any] = Own(make)
        self.put, self.peek = self._own.put, self._own.peek

    def put_in(self, undo: contextlib.ExitStack) -> None:
        """Take the place, and leave the way back with ``undo``."""
        setattr(self._holder, self._name, self)
        undo.callback(self._take_out)

    def _take_out(self) -> None:
        if vars(self._holder).get(self._name) is not self:
            return
        if self.of_base is _MISSING:
            delattr(self._holder, self._name)
        else:
            setattr(self._holder, self._name, self.of_base)

    def __get__(self, instance: Any, kind: type | None = None) -> Any:
        value = self._own.get()
        if value is None:
            value = self.of_base
        if value is _MISSING:  # what is above, as if nothing stood here
            above: Any = super(self._holder, kind if instance is None else instance)
            return getattr(above, self._name)
        get = getattr(type(value), "__get__", None)
        return value if get is None else get(value, instance, kind)


_KEPT: Final = [
    "__class__",
    "__class_getitem__",
    "__del__",
    "__delattr__",
    "__dict__",
    "__doc__",
    "__getattribute__",
    "__init__",
    "__init_subclass__",
    "__module__",
    "__new__",
    "__reduce__",
    "__reduce_ex__",
    "__setattr__",
    "__slots__",
    "__subclasshook__",
    "__weakref__",
]
"""What such an object's class keeps, of the methods that the interpreter finds without asking the object."""


def own_object(undo: contextlib.ExitStack, thing: Any, make: Callable[[], Any]) -> None:
    """Let an object that a library has one of be another for each biz, of the same class, made by ``make``.

    The object stays what it is, wherever it is known; for a biz everything that is done with it is done with the biz's.
    """
    kind: Any = type(thing)
    own: Own[Any] = Own(make)

    def of_whom(self: Any) -> Any:
        mine = own.get() if self is thing else None
        return self if mine is None else mine

    members: dict[str, Any] = {
        "__slots__": (),
        "__module__": kind.__module__,
        "__doc__": kind.__doc__,
        "__getattribute__": lambda self, name: kind.__getattribute__(of_whom(self), name),
        "__setattr__": lambda self, name, value: kind.__setattr__(of_whom(self), name, value),
        "__delattr__": lambda self, name: kind.__delattr__(of_whom(self), name),
    }
    for above in kind.__mro__[:-1]:
        for name in vars(above):
            if name.startswith("__") and name.endswith("__") and name not in _KEPT and callable(getattr(kind, name)):
                members.setdefault(name, _forwarded(getattr(kind, name), of_whom))
    object.__setattr__(thing, "__class__", type(kind)(kind.__name__, (kind,), members))
    undo.callback(object.__setattr__, thing, "__class__", kind)


def _forwarded(method: Any, of_whom: Callable[[Any], Any]) -> Callable[..., Any]:
    def forwarded(self: Any, /, *args: Any, **kwargs: Any) -> Any:
        who = of_whom(self)
        return (method if who is self else getattr(type(who), method.__name__))(who, *args, **kwargs)

    return _named(forwarded, method)


def own_dict(undo: contextlib.ExitStack, thing: Any) -> None:
    """The same for an instance of a class that is derived from ``dict``: a biz's starts as a copy of the base's."""

    def make() -> Any:
        kind: Any = type(thing).__mro__[1]  # its own, which the one made for it here is derived from
        made = kind.__new__(kind)
        dict.update(made, dict(dict.items(thing)))
        vars(made).update(
            (name, copy.copy(value)) for name, value in object.__getattribute__(thing, "__dict__").items()
        )
        return made

    own_object(undo, thing, make)


# --- variables -------------------------------------------------------------------------------------------------------


class _Overlay(dict[str, Any]):
    """The globals of a module with the variables of a biz in front: for functions of the module that run for it."""

    __slots__ = ("_under", "functions")

    def __init__(self, under: dict[str, Any]) -> None:
        super().__init__(__builtins__=under["__builtins__"])
        self._under = under
        self.functions: dict[types.FunctionType, types.FunctionType] = {}

    def __missing__(self, name: str) -> Any:
        return self._under[name]

    def bind(self, function: types.FunctionType) -> types.FunctionType:
        """The same function with these globals."""
        bound = self.functions.get(function)
        if bound is None:
            bound = types.FunctionType(
                function.__code__, self, function.__name__, function.__defaults__, function.__closure__
            )
            bound.__kwdefaults__ = function.__kwdefaults__
            self.functions[function] = bound
        return bound


def own_variables(undo: contextlib.ExitStack, module: types.ModuleType, *names: str) -> None:
    """Let a biz assign module variables for itself, also by and for the functions of the module that know them."""
    under = vars(module)
    assigned = Own(lambda: _Overlay(under))
    for name in names:
        if name in under:
            assign_by_context(undo, module, name, assigned.get)
    concerned = [each for each in _functions(module) if not {*names}.isdisjoint(each[2].__code__.co_names)]
    # One that reads a variable may call another that assigns it, and is to see what that has done.
    is_assigned = any(not _stored(function).isdisjoint(names) for _, _, function in concerned)
    for holder, label, function in concerned:
        made: Any = _by_variables(function, assigned.get if is_assigned else assigned.peek, is_assigned=is_assigned)
        if holder is module:
            replace_function(undo, module, label, made)
        else:
            kind: Any = type(vars(holder)[label])
            replace(undo, holder, label, kind(made) if kind in _WRAPPERS else made)


def _stored(function: types.FunctionType) -> set[str]:
    return {one.argval for one in dis.get_instructions(function) if one.opname == "STORE_GLOBAL"}


_WRAPPERS: Final = (classmethod, staticmethod, property)


def _functions(module: types.ModuleType) -> Iterator[tuple[Any, str, types.FunctionType]]:
    for label, member in list(vars(module).items()):
        if type(member) is types.FunctionType and member.__module__ == module.__name__:
            yield module, label, member
        elif isinstance(member, type) and member.__module__ == module.__name__:
            for part, inner in list(vars(member).items()):
                is_plain = type(inner) is property and (inner.fset, inner.fdel) == (None, None)
                function = inner.fget if is_plain else getattr(inner, "__func__", inner)
                if type(function) is types.FunctionType:
                    yield member, part, function


def _by_variables(
    function: types.FunctionType, of_whom: Callable[[], _Overlay | None], *, is_assigned: bool
) -> Callable[..., Any]:
    @functools.wraps(function)
    def by_variables(*args: Any, **kwargs: Any) -> Any:
        own = of_whom()
        if own is None or (len(own) == 1 and not is_assigned):
            return function(*args, **kwargs)
        return own.bind(function)(*args, **kwargs)

    return by_variables
