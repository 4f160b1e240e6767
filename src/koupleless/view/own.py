"""Keep variables set by a biz in Python modules of the standard library, and make containers answer by context.

Registries of the standard library are lists and dictionaries among the variables of Python modules, read as globals by
functions of these modules. Where such a container answers by context, every function sees entries of the running biz
over entries of the process, however and whenever somebody got hold of the function; other bizs and the base see nothing
of the biz's.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Callable, Iterator, MutableMapping
from typing import TYPE_CHECKING, Any, Final

from koupleless.context import current
from koupleless.contextual import ContextList, ContextMapping
from koupleless.frames import standing_for
from koupleless.late import when_imported
from koupleless.replacing import replace

if TYPE_CHECKING:
    import contextlib


class Own:
    """Variables set by one biz: a facet of its scope.

    Lifetime: attached before the biz's first import, dropped with its scope. Threads: as dictionaries.
    """

    def __init__(self) -> None:
        self.values: dict[str, dict[str, Any]] = {}
        """By the name of the Python module, then by the name of the variable."""

    def of(self, module: str) -> dict[str, Any]:
        """Return the variables of one Python module, to be read and changed."""
        return self.values.setdefault(module, {})


def own_of(module: str) -> dict[str, Any] | None:
    """Return the variables of ``module`` set by the running biz; ``None`` for the process.

    A biz that is gone gets a dictionary seen by nobody else.
    """
    scope = current()
    if scope is None:
        return None
    own = scope.find_facet(Own)
    if own is None:
        return {} if scope.is_closed else None
    return own.of(module)


# --- containers ------------------------------------------------------------------------------------------------------

_GONE: Final = object()
_ABSENT: Final = object()


class Overlay(MutableMapping[Any, Any]):
    """A mapping over another one, which stays unchanged: writes and deletions stay here.

    ``copied`` makes a copy of each value read from below, for values that are changed in place.
    """

    __slots__ = ("_below", "_copied", "_own")

    def __init__(self, below: MutableMapping[Any, Any], *, copied: Callable[[Any], Any] | None = None) -> None:
        self._below = below
        self._copied = copied
        self._own: dict[Any, Any] = {}

    def __getitem__(self, key: Any) -> Any:
        value = self._own.get(key, _ABSENT)
        if value is _ABSENT:
            value = self._below[key]
            if self._copied is not None:
                value = self._own[key] = self._copied(value)
        if value is _GONE:
            raise KeyError(key)
        return value

    def __setitem__(self, key: Any, value: Any) -> None:
        self._own[key] = value

    def __delitem__(self, key: Any) -> None:
        if key not in self:
            raise KeyError(key)
        self._own[key] = _GONE

    def __contains__(self, key: object) -> bool:
        value = self._own.get(key, _ABSENT)
        return key in self._below if value is _ABSENT else value is not _GONE

    def __iter__(self) -> Iterator[Any]:
        hidden = {key for key, value in list(self._own.items()) if value is _GONE}
        keys = dict.fromkeys((*self._below, *self._own))
        return iter([key for key in keys if key not in hidden])

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __repr__(self) -> str:
        return repr(dict(self))

    def copy(self) -> dict[Any, Any]:
        """Return an independent dictionary."""
        return dict(self)


class OwnList(ContextList[Any]):
    """The list of a Python module; a biz has its own copy from the first change on."""

    __slots__ = ("_claim", "of_base")

    def __init__(self, of_base: list[Any], module: str, name: str) -> None:
        def target() -> list[Any]:
            own = own_of(module)
            return of_base if own is None else own.get(name, of_base)

        def claim() -> None:
            own = own_of(module)
            if own is not None and name not in own:
                own[name] = list(of_base)

        super().__init__(target, mirror=of_base)
        self.of_base = of_base
        self._claim = claim

    def __contains__(self, item: object) -> bool:
        # The short way for the most frequent operation of functions of such modules, first of all for the base.
        return item in (self.of_base if current() is None else self._target())


def _changing(name: str) -> Callable[..., Any]:
    inherited = getattr(ContextList, name)

    @standing_for(inherited)
    def method(self: OwnList, /, *args: Any, **kwargs: Any) -> Any:
        self._claim()
        return inherited(self, *args, **kwargs)

    return method


_CHANGES = "__delitem__ __iadd__ __imul__ __setitem__ append clear extend insert pop remove reverse sort"
for _name in _CHANGES.split():
    setattr(OwnList, _name, _changing(_name))


def own_mapping(undo: contextlib.ExitStack, module: types.ModuleType, name: str) -> None:
    """Let the dictionary at ``module.name`` answer by context, and leave the way back with ``undo``."""
    of_base: MutableMapping[Any, Any] = getattr(module, name)

    def target() -> MutableMapping[Any, Any]:
        own = own_of(module.__name__)
        if own is None:
            return of_base
        if name not in own:
            own.setdefault(name, Overlay(of_base))
        return own[name]  # type: ignore[no-any-return]

    replace(undo, module, name, ContextMapping(target))


def own_list(undo: contextlib.ExitStack, module: types.ModuleType, name: str) -> None:
    """Let the list at ``module.name`` answer by context, and leave the way back with ``undo``."""
    replace(undo, module, name, OwnList(getattr(module, name), module.__name__, name))


def put_in_late(undo: contextlib.ExitStack, name: str, put_in: Callable[[contextlib.ExitStack, Any], None]) -> None:
    """Call ``put_in(undo, module)`` once the process has the Python module, as long as ``undo`` has not been closed."""
    undo.callback(when_imported(name, functools.partial(put_in, undo)))


# --- functions that read the module's globals ------------------------------------------------------------------------


def with_own_globals(
    undo: contextlib.ExitStack, module: types.ModuleType, holder: Any, name: str, *variables: str
) -> None:
    """Let a function of ``module`` read the running biz's own values of ``variables``, which are globals of the module.

    ``holder`` has the function as an attribute: the module, or a class in the module. Where the biz has set none of the
    variables, the original function runs.
    """
    original: Any = vars(holder)[name]
    code = original.__code__  # code that may ask, later, for variables set by bizs (`koupleless.readers`)

    @standing_for(original)
    def function(*args: Any, **kwargs: Any) -> Any:
        own = own_of(module.__name__)
        mine = own and {variable: own[variable] for variable in variables if variable in own}
        return (_rebound(original, code, {**vars(module), **mine}) if mine else original)(*args, **kwargs)

    replace(undo, holder, name, function)


def _rebound(function: Any, code: types.CodeType, variables: dict[str, Any]) -> Any:
    made = types.FunctionType(code, variables, function.__name__, function.__defaults__, function.__closure__)
    made.__kwdefaults__ = function.__kwdefaults__
    return made
