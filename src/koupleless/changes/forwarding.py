"""The making of dispatchers: objects which pass on to the choice of the context, and look like the original.

Each kind of attribute gets the cheapest dispatcher that behaves as the original does in every use: plain functions for
functions and methods, wrapped again for class and static methods and properties; descriptors which answer by context
for all other attributes of a class; callable objects which pass attributes on for all other variables of a Python
module.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import sys
import types
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

from koupleless.context import current
from koupleless.frames import handing_on, passed_over
from koupleless.tracebacks import leave

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from koupleless.context import Scope

Chosen: TypeAlias = "Mapping[Scope | None, Any]"

ABSENT: Final = type("_Absent", (), {"__slots__": (), "__repr__": lambda _: "ABSENT"})()
"""The value of an attribute that is not there."""


class Piece(NamedTuple):
    """One function to be made."""

    extract: Callable[[Any], Any]
    """Gets the function from a value put there by a biz."""
    original: Any
    model: Any = None
    """The object to look like, if not the original."""


class Parts(NamedTuple):
    """The parts of the dispatcher of one attribute."""

    pieces: tuple[Piece, ...]
    make: Callable[[Chosen, Piece], Any]
    assemble: Callable[[list[Any]], object]
    """Makes the attribute from the functions made for the pieces."""


def parts_of(holder: Any, name: str, original: Any, value: Any) -> Parts:
    """Choose the parts to dispatch between ``value`` and ``original``, at an attribute of a Python module or class."""
    if not issubclass(type(holder), type):
        is_plain = type(original) in _PLAIN and (type(value) in _PLAIN or hasattr(type(value), "__get__"))
        return Parts((Piece(_itself, original),), make_function if is_plain else Forwarder.of, _first)
    before = inherited(holder, name) if original is ABSENT else original
    kind = _kind_of(value)
    if before is ABSENT or kind == _kind_of(before):
        if kind == "method":
            mine = original if type(original) in _METHODS else _bound_to(original, holder, name, before)
            return Parts((Piece(_as_method, mine, _model(before, value)),), make_function, _first)
        if kind == "classmethod":
            mine = _above(holder, name, before) if original is ABSENT else _as_class_method(original)
            piece = Piece(_as_class_method, mine, _model(before, value))
            return Parts((piece,), make_function, lambda made: classmethod(made[0]))
        if kind == "staticmethod":
            mine = _missing(holder, name) if before is ABSENT else before.__func__
            piece = Piece(_as_static_method, mine, _model(before, value))
            return Parts((piece,), make_function, lambda made: staticmethod(made[0]))
        if kind == "property" and original is not ABSENT:
            return _parts_of_property(name, original)
    is_data = any(hasattr(type(one), "__set__") or hasattr(type(one), "__delete__") for one in (before, value))
    kind_of_shown = ShownData if is_data else Shown
    return Parts((Piece(_itself, original),), functools.partial(kind_of_shown.of, holder, name), _first)


_PLAIN: Final = frozenset({types.FunctionType, types.BuiltinFunctionType})
_METHODS: Final = frozenset({types.MethodDescriptorType, types.WrapperDescriptorType, types.FunctionType})


def _kind_of(raw: Any) -> str:
    kind = type(raw)
    if kind in _METHODS:
        return "method"
    if kind is property:
        return "property"
    if kind in (classmethod, types.ClassMethodDescriptorType):
        return "classmethod"
    if kind is staticmethod:
        return "staticmethod"
    # An object like wrapt's, which passes for the function it was made from, or a function of Cython's.
    is_bound = callable(raw) and hasattr(kind, "__get__") and not hasattr(kind, "__set__")
    is_function = hasattr(kind, "__wrapped__") or "__code__" in type.__dict__["__dict__"].__get__(kind)
    return "method" if is_bound and is_function and not issubclass(kind, type) else "other"


def _model(before: Any, value: Any) -> Any:
    """Choose the object for the new function to look like: the former value, or a new attribute's own value."""
    raw = value if before is ABSENT else before
    return raw.__func__ if type(raw) in (classmethod, staticmethod) else raw


def inherited(holder: type, name: str) -> Any:
    """The value which a class inherits under a name from its bases; ``ABSENT`` for none."""
    for kind in type.__dict__["__mro__"].__get__(holder)[1:]:
        table = type.__dict__["__dict__"].__get__(kind)
        if name in table:
            return table[name]
    return ABSENT


# --- calling an attribute of a class, with the instance or class as its first argument --------------------------------


def _itself(raw: Any) -> Any:
    return raw


def _first(made: list[Any]) -> object:
    return made[0]


@passed_over
def _as_method(raw: Any) -> Any:
    if type(raw) in _METHODS:
        return raw
    if hasattr(type(raw), "__get__"):
        bind = type(raw).__get__

        def bound(self: Any, /, *args: Any, **kwargs: Any) -> Any:
            return bind(raw, self, type(self))(*args, **kwargs)

        return bound

    def unbound(_: Any, /, *args: Any, **kwargs: Any) -> Any:
        return raw(*args, **kwargs)

    return unbound


@passed_over
def _as_class_method(raw: Any) -> Any:
    if type(raw) is classmethod and type(raw.__func__) is types.FunctionType:
        return raw.__func__
    if not hasattr(type(raw), "__get__"):
        return _as_method(raw)
    bind = type(raw).__get__

    def bound(cls: Any, /, *args: Any, **kwargs: Any) -> Any:
        return bind(raw, None, cls)(*args, **kwargs)

    return functools.update_wrapper(bound, raw)


def _as_static_method(raw: Any) -> Any:
    return raw.__func__ if type(raw) is staticmethod else raw.__get__(None, object) if _has_get(raw) else raw


def _has_get(raw: Any) -> bool:
    return hasattr(type(raw), "__get__")


def _bound_to(original: Any, holder: type, name: str, before: Any) -> Any:
    return _above(holder, name, before) if original is ABSENT else _as_method(original)


@passed_over
def _above(holder: type, name: str, before: Any) -> Any:
    """Make a function to call the inherited method, as if the class had no such attribute: found anew at each call."""
    if before is ABSENT:
        return _missing(holder, name)

    def above(self: Any, /, *args: Any, **kwargs: Any) -> Any:
        return getattr(super(holder, self), name)(*args, **kwargs)

    return above


class _missing:  # noqa: N801 - called as the function that is not there
    """Raises, when called, the error of a call of an attribute that is not there."""

    def __init__(self, holder: type, name: str) -> None:
        self._holder = holder.__name__
        self._name = name

    def __call__(self, *args: Any, **_kwargs: Any) -> Any:
        name = args[-1] if self._name == "__getattr__" and args else self._name
        raise AttributeError(f"{self._holder!r} object has no attribute {name!r}", name=name)


def _described(thing: Any) -> str:
    is_class = issubclass(type(thing), type)
    return f"type object {thing.__name__!r}" if is_class else f"{type(thing).__name__!r} object"


# --- functions --------------------------------------------------------------------------------------------------------


@handing_on
@passed_over
def make_function(chosen: Chosen, piece: Piece) -> Any:
    """Make a function to call the choice for the running biz, else the original, and to look like the original."""
    find, running, original = chosen.get, current, piece.original

    def dispatched(*args: Any, **kwargs: Any) -> Any:
        scope = running()
        function = original if scope is None else find(scope, original)
        try:
            return function(*args, **kwargs)
        except BaseException as error:
            leave(error)
            raise

    model = original if piece.model is None else piece.model
    made: Any = dispatched
    if inspect.isgeneratorfunction(model):
        made = _make_generator(dispatched)
    elif inspect.isasyncgenfunction(model):
        made = _make_async_generator(dispatched)
    elif inspect.iscoroutinefunction(model):
        made = _make_coroutine(dispatched)
    is_new = type(original) is _missing  # then the function must not keep a value of a biz
    with contextlib.suppress(AttributeError, TypeError):  # a stand-in for a function may lack anything
        functools.update_wrapper(made, model, updated=() if is_new else functools.WRAPPER_UPDATES)
    if is_new:
        vars(made).pop("__wrapped__", None)
    return made


@passed_over
def _make_generator(call: Callable[..., Any]) -> Any:
    def dispatched(*args: Any, **kwargs: Any) -> Any:
        return (yield from call(*args, **kwargs))

    return dispatched


@passed_over
def _make_async_generator(call: Callable[..., Any]) -> Any:
    async def dispatched(*args: Any, **kwargs: Any) -> Any:
        inner = call(*args, **kwargs)
        try:
            value = await inner.__anext__()
            while True:
                try:
                    sent = yield value
                except GeneratorExit:
                    await inner.aclose()
                    raise
                except BaseException as error:  # noqa: BLE001 - handed on to the generator meant by the caller
                    value = await inner.athrow(error)
                else:
                    value = await inner.asend(sent)
        except StopAsyncIteration:
            return

    return dispatched


if sys.version_info >= (3, 12):

    @passed_over
    def _make_coroutine(call: Callable[..., Any]) -> Any:
        return inspect.markcoroutinefunction(call)

else:

    @passed_over
    def _make_coroutine(call: Callable[..., Any]) -> Any:
        async def dispatched(*args: Any, **kwargs: Any) -> Any:
            result = call(*args, **kwargs)
            return await result if inspect.isawaitable(result) else result

        return dispatched


# --- properties -------------------------------------------------------------------------------------------------------


@passed_over
def _parts_of_property(name: str, original: Any) -> Parts:
    def getter(which: str) -> Callable[[Any], Any]:
        def extract(raw: Any) -> Any:
            if type(raw) is property:
                return getattr(raw, which) or _refusing(name, which)
            method = {"fget": "__get__", "fset": "__set__", "fdel": "__delete__"}[which]
            function = getattr(type(raw), method, None)
            if which == "fget":
                return (lambda _: raw) if function is None else lambda self: function(raw, self, type(self))
            return _refusing(name, which) if function is None else functools.partial(function, raw)

        return extract

    names = ("fget", "fset", "fdel")
    pieces = tuple(Piece(getter(which), getattr(original, which) or _refusing(name, which)) for which in names)
    doc = original.__doc__
    return Parts(pieces, make_function, lambda made: property(made[0], made[1], made[2], doc))


def _refusing(name: str, which: str) -> Any:
    verb = {"fget": "getter", "fset": "setter", "fdel": "deleter"}[which]

    def refuse(self: Any, *_: Any) -> Any:
        raise AttributeError(f"property {name!r} of {type(self).__name__!r} object has no {verb}")

    return refuse


# --- anything else ----------------------------------------------------------------------------------------------------


class Shown:
    """A stand-in on a class, read as the choice for the running biz, else as the original."""

    __slots__ = ("__weakref__", "_find", "_holder", "_name", "_original")

    def __init__(self, holder: type, name: str, chosen: Chosen, original: Any) -> None:
        self._holder = holder
        self._name = name
        self._find = chosen.get
        self._original = original

    @classmethod
    def of(cls, holder: type, name: str, chosen: Chosen, piece: Piece) -> Shown:
        """Make a stand-in, as `Parts.make`."""
        return cls(holder, name, chosen, piece.original)

    def _meant(self) -> Any:
        found = self._find(current(), self._original)
        return inherited(self._holder, self._name) if found is ABSENT else found

    @passed_over
    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        found = self._meant()
        if found is ABSENT:
            thing = owner if instance is None else instance
            raise AttributeError(f"{_described(thing)} has no attribute {self._name!r}", name=self._name, obj=thing)
        get = getattr(type(found), "__get__", None)
        return found if get is None else get(found, instance, owner)


class ShownData(Shown):
    """A stand-in on a class which also takes part when the attribute of an instance is set or deleted."""

    __slots__ = ()

    @passed_over
    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        if instance is not None and not hasattr(type(self._meant()), "__set__"):
            own = getattr(instance, "__dict__", {})
            if self._name in own:
                return own[self._name]
        return super().__get__(instance, owner)

    @passed_over
    def __set__(self, instance: Any, value: Any) -> None:
        found = self._meant()
        setter = getattr(type(found), "__set__", None)
        if setter is None:
            instance.__dict__[self._name] = value
        else:
            setter(found, instance, value)

    @passed_over
    def __delete__(self, instance: Any) -> None:
        found = self._meant()
        deleter = getattr(type(found), "__delete__", None)
        if deleter is not None:
            deleter(found, instance)
            return
        try:
            del instance.__dict__[self._name]
        except KeyError:
            raise AttributeError(self._name) from None


class Forwarder:
    """A stand-in in a Python module; calls and attributes go to the choice for the running biz, or to the original."""

    __slots__ = ("__weakref__", "_koupleless_find", "_koupleless_original")

    def __init__(self, chosen: Chosen, original: Any) -> None:
        object.__setattr__(self, "_koupleless_find", chosen.get)
        object.__setattr__(self, "_koupleless_original", original)

    @classmethod
    def of(cls, chosen: Chosen, piece: Piece) -> Forwarder:
        """Make a stand-in, as `Parts.make`."""
        return cls(chosen, piece.original)

    @property
    def __call__(self) -> Any:
        """The choice for the running biz, which is called with no frame of ours in between."""
        return _meant(self)

    @property
    def __signature__(self) -> inspect.Signature:
        return inspect.signature(_meant(self))

    def __getattr__(self, name: str) -> Any:
        return getattr(_meant(self), name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(_meant(self), name, value)

    def __delattr__(self, name: str) -> None:
        delattr(_meant(self), name)

    @passed_over
    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        found = _meant(self)
        get = getattr(type(found), "__get__", None)
        return found if get is None else get(found, instance, owner)

    def __repr__(self) -> str:
        return repr(_meant(self))


def _meant(forwarder: Any) -> Any:
    find = object.__getattribute__(forwarder, "_koupleless_find")
    return find(current(), object.__getattribute__(forwarder, "_koupleless_original"))
