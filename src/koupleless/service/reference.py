"""A reference stands for an object of another biz: every use finds the object anew, and nothing is held in between.

Calls run as the owner of the object, including the bodies of coroutines and generators, in every task and thread that
drives them. Results and errors arrive without copies or wrappers. A caller that keeps a result keeps the owner of the
result alive; a reference does not. While a call goes on, the owner does not leave: see `Visits`.
"""

from __future__ import annotations

import inspect
import operator
from types import FunctionType, MethodType
from typing import TYPE_CHECKING, Any, NoReturn

from koupleless.errors import ServiceError
from koupleless.service.bodies import each, each_async
from koupleless.service.use import AsyncMethod, Method, Use, as_owner

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from koupleless.service.use import Lookup


class ServiceReference(Use):
    """Stands for a service. Attributes, calls, items, iteration and operators go to the object that answers now.

    Methods are looked up again at every call, so a method kept in a variable is as good as the reference itself. A
    ``with`` block is not passed on, for the end of the block could meet another object than the beginning; let the
    service have a method that returns a context manager.

    Lifetime: any; a reference keeps neither the object nor the owner alive. Threads: as safe as the object. Every use
    raises ``ServiceError`` while nobody answers, and ``BizGone`` if the owner leaves without having finished the use.
    ``repr`` describes the reference, ``str`` is the text of the object.
    """

    __slots__ = ("__weakref__",)

    def __init__(self, lookup: Lookup) -> None:
        super().__init__(lookup, operator.call)

    def __getattr__(self, name: str) -> Any:
        lookup = self._koupleless_lookup
        obj, _, methods = lookup.known.providers.get(lookup.key) or lookup.find()
        handed_out = methods.get(name)
        if handed_out is not None:
            function, method = handed_out
            # Looking a function of a class up runs no code of the owner.
            found = getattr(obj, name, None)
            if type(found) is MethodType and found.__func__ is function:
                return method
            methods.pop(name, None)
        value = Use(lookup, getattr)(name)
        kind = type(value)
        if kind is MethodType and type(value.__func__) is FunctionType:  # nearly all, so without inspect
            is_async = value.__func__.__code__.co_flags & inspect.CO_COROUTINE
        elif inspect.isroutine(value):
            is_async = inspect.iscoroutinefunction(value)
        else:
            return value
        made = (AsyncMethod if is_async else Method)(lookup, name)
        if kind is MethodType and _is_plain(type(obj), name, value.__func__):
            methods[name] = value.__func__, made
        return made

    def __setattr__(self, name: str, value: object) -> None:
        Use(self._koupleless_lookup, setattr)(name, value)

    def __delattr__(self, name: str) -> None:
        Use(self._koupleless_lookup, delattr)(name)

    def __iter__(self) -> Iterator[Any]:
        obj, scope, _ = self._koupleless_lookup.provider()
        return each(as_owner(scope, iter, obj), scope)

    def __aiter__(self) -> AsyncIterator[Any]:
        obj, scope, _ = self._koupleless_lookup.provider()
        return each_async(as_owner(scope, aiter, obj), scope)

    def __dir__(self) -> list[str]:
        return list(Use(self._koupleless_lookup, dir)())

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        """The class of the object that answers, for ``isinstance``; `ServiceReference` while nobody does."""
        try:
            return type(self._koupleless_lookup.provider().obj)
        except ServiceError:
            return ServiceReference

    def __repr__(self) -> str:
        return f"<ServiceReference {self._koupleless_lookup.label}>"

    def __copy__(self) -> ServiceReference:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> ServiceReference:
        return self

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise TypeError(
            f"{self!r} cannot be pickled: a reference has a meaning in this process only; look the service up there"
        )


def _pass_on(name: str, action: Callable[..., Any]) -> None:
    def special(self: ServiceReference, *args: Any) -> Any:
        others = [_object_of(other) if type(other) is ServiceReference else other for other in args]
        return Use(_lookup_of(self), action)(*others)

    special.__name__ = special.__qualname__ = name
    setattr(ServiceReference, name, special)


def _pass_on_in_place(name: str, action: Callable[..., Any]) -> None:
    def special(self: ServiceReference, other: Any) -> Any:
        obj, scope, _ = _lookup_of(self).provider()
        result = as_owner(scope, action, obj, other)
        return self if result is obj else result

    special.__name__ = special.__qualname__ = name
    setattr(ServiceReference, name, special)


def _lookup_of(reference: ServiceReference) -> Lookup:
    return reference._koupleless_lookup  # noqa: SLF001 - every other attribute is the object's


def _object_of(reference: ServiceReference) -> Any:
    return _lookup_of(reference).provider().obj


def _reflected(action: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    return lambda obj, other: action(other, obj)


_UNARY_AND_COMPARING = (
    *("abs", "index", "invert", "neg", "pos", "getitem", "setitem", "delitem"),
    *("eq", "ge", "gt", "le", "lt", "ne"),
)
_ARITHMETIC = (
    *("add", "and", "floordiv", "lshift", "matmul", "mod", "mul"),
    *("or", "pow", "rshift", "sub", "truediv", "xor"),
)
_PLAIN: dict[str, Callable[..., Any]] = {
    "str": str,
    "bytes": bytes,
    "format": format,
    "hash": hash,
    "bool": bool,
    "len": len,
    "reversed": reversed,
    "next": next,
    "int": int,
    "float": float,
    "complex": complex,
    "round": round,
    "contains": operator.contains,
    **{name: getattr(operator, f"__{name}__") for name in _UNARY_AND_COMPARING},
}
_BINARY: dict[str, Callable[..., Any]] = {
    "divmod": divmod,
    **{name: getattr(operator, f"__{name}__") for name in _ARITHMETIC},
}
for _name, _action in _PLAIN.items():
    _pass_on(f"__{_name}__", _action)
for _name, _action in _BINARY.items():
    _pass_on(f"__{_name}__", _action)
    _pass_on(f"__r{_name}__", _reflected(_action))
    if _name != "divmod":
        _pass_on_in_place(f"__i{_name}__", getattr(operator, f"__i{_name}__"))


def _is_plain(kind: type, name: str, function: object) -> bool:
    """Whether looking up ``name`` in an object of the class finds ``function`` without running any code."""
    return (
        type(function) is FunctionType
        and inspect.getattr_static(kind, "__getattribute__") is object.__getattribute__
        and inspect.getattr_static(kind, name, None) is function
    )
