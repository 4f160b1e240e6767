"""Values of each biz in the place of one value of the process, which stays the base's."""

from __future__ import annotations

import copy
import functools
import itertools
import sys
import types
from typing import TYPE_CHECKING, Any, Final

from koupleless.context import as_base, current
from koupleless.frames import standing_for
from koupleless.isolation.interpreter import is_initialising
from koupleless.ownership.kinds import Own
from koupleless.replacing import MISSING, present, replace

if TYPE_CHECKING:
    import contextlib
    from collections.abc import Callable, Iterable, Iterator


# --- the thread of the loop ------------------------------------------------------------------------------------------


class LoopCalls:
    """Calls to make on the thread of the event loop once a biz is imported: a facet of the scope.

    Alone, one thread imports and serves, so a value that a library keeps by thread is there in requests.
    """

    __slots__ = ("calls",)

    def __init__(self) -> None:
        self.calls: dict[Callable[[], object], None] = {}

    def take(self) -> list[Callable[[], object]]:
        """The calls, each once; they are forgotten."""
        calls, self.calls = self.calls, {}
        return list(calls)


def call_on_loop(call: Callable[[], object]) -> None:
    """Have ``call`` called, as the running biz, on the thread of the loop once the biz is imported.

    Nothing happens after the import, and for the base.
    """
    scope = current()
    calls = None if scope is None else scope.find_facet(LoopCalls)
    if calls is not None:
        calls.calls[call] = None


# --- putting something in the place of something else ---------------------------------------------------------------


def holders_of(things: Iterable[object], package: str, *, since: str = "") -> Iterator[tuple[Any, str, object]]:
    """The Python modules of the package with one of ``things``: the Python module, the name, and the thing.

    ``since`` is the maker of the things, while the import of ``since`` goes on: only Python modules imported by
    ``since`` can have the things.
    """
    wanted = frozenset(map(id, things))
    modules = list(sys.modules.items())
    if since:
        modules = list(itertools.dropwhile(lambda entry: entry[0] != since, modules))
    for name, module in modules:
        if name.partition(".")[0] == package and isinstance(module, types.ModuleType):
            yield from ((module, label, value) for label, value in _those_of(vars(module), wanted))
            variables = _variables_of_functions(module)
            if variables is not vars(module):
                yield from ((variables, label, value) for label, value in _those_of(variables, wanted))


def _those_of(variables: dict[str, Any], wanted: frozenset[int]) -> list[tuple[str, Any]]:
    if wanted.isdisjoint(map(id, list(variables.values()))):  # in C: a library has thousands
        return []
    return [(label, value) for label, value in list(variables.items()) if id(value) in wanted]


def _variables_of_functions(module: types.ModuleType) -> dict[str, Any]:
    """The variables for functions of a Python module: of a replacement, if the Python module has put one in place."""
    name = module.__name__
    for member in list(vars(module).values()):
        if type(member) is types.FunctionType and member.__globals__.get("__name__") == name:
            return member.__globals__  # one tells for all
    return vars(module)


def replace_function(undo: contextlib.ExitStack, module: types.ModuleType, name: str, new: object) -> None:
    """Replace a function of a Python module, under all names in Python modules of the package."""
    original = vars(module)[name]
    is_new = is_initialising(module) and getattr(original, "__module__", None) == module.__name__
    since = module.__name__ if is_new else ""
    for holder, label, _ in list(holders_of([original], module.__name__.partition(".")[0], since=since)):
        replace(undo, holder, label, new)


def named(function: Callable[..., Any], plain: Any) -> Callable[..., Any]:
    """Name and describe a function as the function in whose place it stands."""
    function.__name__ = function.__qualname__ = plain.__name__
    function.__doc__ = plain.__doc__
    return function


# --- results ---------------------------------------------------------------------------------------------------------


def own_cache(undo: contextlib.ExitStack, holder: Any, name: str) -> None:
    """Keep the results of a function, or method, under ``functools.lru_cache`` apart for each biz."""
    original: Any = vars(holder)[name]
    limits = original.cache_parameters()
    own = Own(lambda: functools.lru_cache(**limits)(original.__wrapped__))

    def of_whom() -> Any:
        return own.get() or original

    @standing_for(original.__wrapped__)
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
    """Stands in a class for an attribute of which each biz may have its own value, from ``make`` or `put`.

    Where a biz has none, and for the base, the attribute is the original, or inherited.
    """

    def __init__(self, holder: type, name: str, make: Callable[[], Any] = lambda: None) -> None:
        self._holder = holder
        self._name = name
        self.of_base = present(holder, name)
        self._own: Own[Any] = Own(make)
        self.put, self.peek = self._own.put, self._own.peek

    def put_in(self, undo: contextlib.ExitStack) -> None:
        """Take the place, and leave the way back with ``undo``."""
        replace(undo, self._holder, self._name, self, back=lambda: self.of_base)

    def __get__(self, instance: Any, kind: type | None = None) -> Any:
        value = self._own.get()
        if value is None:
            value = self.of_base
        if value is MISSING:  # the inherited attribute, as if nothing stood here
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
"""Special methods of the class of such an object, which the interpreter finds without asking the object."""


def own_object(undo: contextlib.ExitStack, thing: Any, make: Callable[[], Any]) -> None:
    """Let one object of a library be another one for each biz, of the same class, made by ``make``.

    The object keeps its identity everywhere; every use by a biz goes to the object of the biz.
    """
    kind: Any = type(thing)

    def make_as_base() -> Any:  # the maker may start from the object
        with as_base():
            return make()

    own: Own[Any] = Own(make_as_base)

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

    return named(forwarded, method)


def own_dict(undo: contextlib.ExitStack, thing: Any) -> None:
    """Do as `own_object` for an instance of a subclass of ``dict``: a biz starts with a copy of the base's entries."""

    def make() -> Any:
        kind: Any = type(thing).__mro__[1]  # the class of its own, from which the class made here is derived
        made = kind.__new__(kind)
        dict.update(made, dict(dict.items(thing)))
        vars(made).update(
            (name, copy.copy(value)) for name, value in object.__getattribute__(thing, "__dict__").items()
        )
        return made

    own_object(undo, thing, make)
