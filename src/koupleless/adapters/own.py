"""Values that each biz has for itself in the place of one of the process, which stays the base's."""

from __future__ import annotations

import functools
import sys
import threading
import types
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from koupleless.context import current
from koupleless.contextual import assign_by_context

if TYPE_CHECKING:
    import contextlib
    from collections.abc import Callable, Iterator

T = TypeVar("T")


class _Values:
    """The values of one biz by their keys: a facet of its scope."""

    __slots__ = ("table",)

    def __init__(self) -> None:
        self.table: dict[object, Any] = {}


_one_at_a_time: Final = threading.Lock()


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
            values = scope.find_facet(_Values)
            if values is None:
                scope.attach(values := _Values())
            return values.table.setdefault(self, made)  # type: ignore[no-any-return]


# --- mappings --------------------------------------------------------------------------------------------------------


class OwnDict(dict[Any, Any]):
    """A dictionary that a biz has a copy of as soon as it changes it. The storage is the base's.

    Dictionaries among the values are treated likewise, at any depth. C code that reads past the methods sees those of
    the base.
    """

    __slots__ = ("_own",)

    def __init__(self, of_base: dict[Any, Any]) -> None:
        super().__init__((key, _deep(value)) for key, value in of_base.items())
        self._own: Own[dict[Any, Any]] = Own(lambda: dict(dict.items(self)))

    def restore(self, original: dict[Any, Any]) -> dict[Any, Any]:
        """Bring ``original`` to the present state of the base, and hand it back."""
        before = dict(original)
        original.clear()
        for key, value in dict.items(self):
            known = before.get(key)
            is_deep = type(value) is OwnDict
            original[key] = value.restore(known if type(known) is dict else {}) if is_deep else value
        return original

    def __reduce_ex__(self, protocol: Any, /) -> Any:
        return dict, (dict(self.items()),)

    def __copy__(self) -> dict[Any, Any]:
        return dict(self.items())


def _deep(value: object) -> object:
    return OwnDict(value) if type(value) is dict else value


def _reader(name: str) -> Callable[..., Any]:
    plain = getattr(dict, name)

    def method(self: OwnDict, /, *args: Any) -> Any:
        own = self._own.peek()
        return plain(self if own is None else own, *args)

    return _named(method, plain)


def _writer(name: str) -> Callable[..., Any]:
    plain = getattr(dict, name)

    def method(self: OwnDict, /, *args: Any, **kwargs: Any) -> Any:
        own = self._own.get()
        return plain(self if own is None else own, *args, **kwargs)

    return _named(method, plain)


def _named(method: Callable[..., Any], plain: Any) -> Callable[..., Any]:
    method.__name__ = method.__qualname__ = plain.__name__
    method.__doc__ = plain.__doc__
    return method


_READERS = (
    "__contains__ __eq__ __getitem__ __iter__ __len__ __ne__ __or__ __repr__ __reversed__ copy get items keys values"
)
_WRITERS = "__delitem__ __ior__ __setitem__ clear pop popitem setdefault update"
for _name in _READERS.split():
    setattr(OwnDict, _name, _reader(_name))
for _name in _WRITERS.split():
    setattr(OwnDict, _name, _writer(_name))


def own_mapping(undo: contextlib.ExitStack, module: types.ModuleType, name: str, *, package: str = "") -> None:
    """Give each biz its own ``module.name``, a dictionary; also under other names in modules of the ``package``."""
    original = vars(module)[name]
    mapping = OwnDict(original)
    for holder, label in list(_holders(original, package or module.__name__.partition(".")[0])):
        _swap(undo, holder, label, mapping, lambda: mapping.restore(original))


def _holders(thing: object, package: str) -> Iterator[tuple[types.ModuleType, str]]:
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] == package and type(module) is types.ModuleType:
            for label, value in list(vars(module).items()):
                if value is thing:
                    yield module, label


def replace(undo: contextlib.ExitStack, holder: Any, name: str, new: object) -> None:
    """Put ``new`` in the place of an attribute, and leave with ``undo`` what puts the original back."""
    original = vars(holder)[name]
    _swap(undo, holder, name, new, lambda: original)


def _swap(undo: contextlib.ExitStack, holder: Any, name: str, new: object, old: Callable[[], object]) -> None:
    setattr(holder, name, new)

    def restore() -> None:
        if vars(holder).get(name) is new:
            setattr(holder, name, old())

    undo.callback(restore)


# --- variables -------------------------------------------------------------------------------------------------------


class _Overlay(dict[str, Any]):
    """The globals of a function with some variables of a biz in front: for code that runs with them."""

    __slots__ = ("_under",)

    def __init__(self, own: dict[str, Any], under: dict[str, Any]) -> None:
        super().__init__(own)
        self._under = under

    def __missing__(self, name: str) -> Any:
        return self._under[name]


def own_variables(undo: contextlib.ExitStack, module: types.ModuleType, *names: str) -> None:
    """Let a biz assign module variables for itself, also as seen by the functions of the module that read them."""
    assigned: Own[dict[str, Any]] = Own(dict)
    for name in names:
        assign_by_context(undo, module, name, assigned.get)
    for holder, label, function in list(_functions(module)):
        if not {*names}.isdisjoint(function.__code__.co_names):
            original = vars(holder)[label]
            made: Any = _by_variables(function, assigned)
            made = type(original)(made) if type(original) in (classmethod, staticmethod) else made
            replace(undo, holder, label, made)


def _functions(module: types.ModuleType) -> Iterator[tuple[Any, str, types.FunctionType]]:
    for label, member in list(vars(module).items()):
        if type(member) is types.FunctionType and member.__module__ == module.__name__:
            yield module, label, member
        elif isinstance(member, type) and member.__module__ == module.__name__:
            for part, inner in list(vars(member).items()):
                function = inner.__func__ if type(inner) in (classmethod, staticmethod) else inner
                if type(function) is types.FunctionType:
                    yield member, part, function


def _by_variables(function: types.FunctionType, assigned: Own[dict[str, Any]]) -> Callable[..., Any]:
    @functools.wraps(function)
    def by_variables(*args: Any, **kwargs: Any) -> Any:
        own = assigned.peek()
        if not own:
            return function(*args, **kwargs)
        inner = types.FunctionType(
            function.__code__,
            _Overlay({**own, "__builtins__": function.__globals__["__builtins__"]}, function.__globals__),
            function.__name__,
            function.__defaults__,
            function.__closure__,
        )
        inner.__kwdefaults__ = function.__kwdefaults__
        return inner(*args, **kwargs)

    return by_variables
