"""Variables of a module that each biz assigns for itself, also as seen by the functions of the module."""

from __future__ import annotations

import dis
import functools
import types
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeAlias

from koupleless.adapters.own import Own, replace, replace_function
from koupleless.contextual import assign_by_context

if TYPE_CHECKING:
    import contextlib
    from collections.abc import Callable, Iterator, Mapping


class _Overlay(dict[str, Any]):
    """The globals of a module with the variables of a biz in front: for functions of the module that run for it."""

    __slots__ = ("_under", "functions", "plain")

    def __init__(self, under: dict[str, Any], start: Mapping[str, Any]) -> None:
        # Importing, and making a function, looks for these in the dictionary itself.
        super().__init__((name, value) for name, value in under.items() if name.startswith("__"))
        self.plain = len(self)
        self.update(start)
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


def own_variables(
    undo: contextlib.ExitStack, module: types.ModuleType, *names: str, start: Mapping[str, Any] = MappingProxyType({})
) -> None:
    """Let a biz assign module variables for itself, also by and for the functions of the module that know them.

    A biz starts with the values of the base, or with those of ``start``.
    """
    under = vars(module)
    assigned = Own(lambda: _Overlay(under, start))
    for name in names:
        if name in under:
            assign_by_context(undo, module, name, assigned.get)
    concerned = [each for each in _functions(module) if not {*names}.isdisjoint(each[2].__code__.co_names)]
    # One that reads a variable may call another that assigns it, and is to see what that has done.
    is_assigned = bool(start) or any(not _stored(function).isdisjoint(names) for _, _, function, _ in concerned)
    for holder, label, function, put_back in concerned:
        made: Any = _by_variables(function, assigned.get if is_assigned else assigned.peek, is_assigned=is_assigned)
        if holder is module:
            replace_function(undo, module, label, made)
        else:
            replace(undo, holder, label, put_back(vars(holder)[label], made))


def _stored(function: types.FunctionType) -> set[str]:
    return {one.argval for one in dis.get_instructions(function) if one.opname == "STORE_GLOBAL"}


_Found: TypeAlias = "tuple[Any, str, types.FunctionType, Callable[[Any, Any], Any]]"
"""A function, where it stands, and what turns what stands there, and another function, into what is to stand there."""


def _functions(module: types.ModuleType) -> Iterator[_Found]:
    for label, member in list(vars(module).items()):
        if type(member) is types.FunctionType and member.__module__ == module.__name__:
            yield module, label, member, _itself
        elif isinstance(member, type) and member.__module__ == module.__name__:
            for part, inner in list(vars(member).items()):
                yield from ((member, part, function, put_back) for function, put_back in _within(inner))


def _within(member: Any) -> Iterator[tuple[types.FunctionType, Callable[[Any, Any], Any]]]:
    """The functions that a member of a class is made of."""
    kind = type(member)
    if kind is types.FunctionType:
        yield member, _itself
    elif kind in (classmethod, staticmethod) and type(member.__func__) is types.FunctionType:
        yield member.__func__, lambda _, made: kind(made)
    elif kind is property:
        for name, by in (("fget", "getter"), ("fset", "setter"), ("fdel", "deleter")):
            if type(function := getattr(member, name)) is types.FunctionType:
                yield function, functools.partial(_put_into, by)


def _put_into(by: str, there: Any, made: Any) -> Any:
    return getattr(there, by)(made)


def _itself(_there: Any, made: Any) -> Any:
    return made


def _by_variables(
    function: types.FunctionType, of_whom: Callable[[], _Overlay | None], *, is_assigned: bool
) -> Callable[..., Any]:
    @functools.wraps(function)
    def by_variables(*args: Any, **kwargs: Any) -> Any:
        own = of_whom()
        if own is None or (len(own) == own.plain and not is_assigned):
            return function(*args, **kwargs)
        return own.bind(function)(*args, **kwargs)

    return by_variables
