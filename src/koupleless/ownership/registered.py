"""Registrations that concern no other object than their own shared library, and the way to take them back.

A library without users is still known to the interpreter: by exit functions, finalisers of own objects, filters for own
warnings, error handlers of codecs, own finders, hooks of ``sys``. No such registration is a reason for the library to
stay. When the library goes, its registrations are taken back; a library loaded again registers again.
"""

from __future__ import annotations

import atexit
import codecs
import functools
import sys
import types
import typing
import warnings
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from koupleless.context import as_base
from koupleless.ownership.belonging import Survey, is_a
from koupleless.ownership.ledger import take_out

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@dataclass(frozen=True, slots=True)
class Registration:
    """One entry of a registry, made by a library."""

    thing: Any
    """The object in the registry: a function of the library, or a record with a reference to an object of the library.
    """
    take_back: Callable[[], object]


_exits: Final[list[weakref.ref[Any]]] = []
_errors: Final[set[str]] = set()


def note_exit(function: Any) -> None:
    """Note a function registered with ``atexit`` by code of the base, to be called without arguments."""
    try:
        _exits.append(weakref.ref(function, _exits.remove))
    except TypeError:  # the function cannot be watched, so its library stays
        return


def note_error(name: str) -> None:
    """Note the name of an error handler registered with ``codecs`` by code of the base."""
    _errors.add(name)


def registrations(survey: Survey) -> list[Registration]:
    """List the registrations of the libraries of a survey alone, in all registries of the interpreter."""
    with as_base():
        return [
            *_exit_functions(survey),
            *_error_handlers(survey),
            *_filters(survey),
            *_finalizers(survey),
            *_finders(survey),
            *_hooks(survey),
        ]


def _exit_functions(survey: Survey) -> Iterator[Registration]:
    for reference in _exits:
        function = reference()
        if function is not None and survey.reaches(function):
            yield Registration(function, functools.partial(_exit_now, function))


def _exit_now(function: Any) -> None:
    atexit.unregister(function)
    function()


def _error_handlers(survey: Survey) -> Iterator[Registration]:
    for name in list(_errors):
        handler = codecs.lookup_error(name)
        if survey.reaches(handler):
            yield Registration(handler, functools.partial(codecs.register_error, name, _Unknown(name)))


class _Unknown:
    """An error handler in the place of a former one: ``codecs`` has no way to remove a handler."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __call__(self, error: UnicodeError) -> tuple[str, int]:
        raise LookupError(f"unknown error handler name {self._name!r}") from error


def _filters(survey: Survey) -> Iterator[Registration]:
    for item in list(warnings.filters):
        if is_a(item[2], type) and survey.owns(item[2]):
            yield Registration(item, functools.partial(_remove_filter, item))


def _remove_filter(item: Any) -> None:
    filters: Any = warnings.filters
    take_out(filters, item)
    getattr(warnings, "_filters_mutated", lambda: None)()


def _finders(survey: Survey) -> Iterator[Registration]:
    """Yield finders of a library in the lists for imports: objects of its classes, for names of the library."""
    for hooks in (sys.meta_path, sys.path_hooks):
        for finder in hooks:
            if not is_a(finder, type) and survey.owns_class(type(finder)):
                yield Registration(finder, functools.partial(_remove, hooks, finder))


def _hooks(survey: Survey) -> Iterator[Registration]:
    """Yield functions of a library in hooks of ``sys``. The interpreter's own comes back: the former is unknown."""
    for name in ("displayhook", "excepthook", "unraisablehook"):
        hook = getattr(sys, name)
        if survey.reaches(hook):
            yield Registration(hook, functools.partial(setattr, sys, name, getattr(sys, f"__{name}__")))


def _remove(hooks: list[Any], finder: Any) -> None:
    hooks[:] = [hook for hook in hooks if hook is not finder]


def _finalizers(survey: Survey) -> Iterator[Registration]:
    """Yield finalisers (``weakref.finalize``) with object and function of the library; they run when it goes."""
    registry: dict[Any, Any] = getattr(weakref.finalize, "_registry", {})
    for finalizer, info in list(registry.items()):
        thing = info.weakref()
        if thing is not None and _is_of(survey, thing) and survey.reaches(info.func):
            yield Registration(info, finalizer)


def _is_of(survey: Survey, thing: Any) -> bool:
    return survey.owns(thing) or (is_a(thing, types.FunctionType) and survey.reaches(thing))


class Overloads:
    """Overloads of some Python modules, moved from the registry of ``typing`` into the Python modules, their owners.

    Code which executes the Python modules again enters the overloads again.
    """

    def __init__(self, modules: dict[str, types.ModuleType]) -> None:
        registry: dict[str, Any] = getattr(typing, "_overload_registry", {})
        self._modules = modules
        self._names = [name for name in list(registry) if name in modules]
        for name in self._names:
            vars(modules[name])[_OVERLOADS] = registry.pop(name)
        # One function stands for all overloads; the last note of a decorator stays on the function and means nothing.
        vars(getattr(typing, "_overload_dummy", note_error)).pop("__dataclass_transform__", None)

    def put_back(self) -> None:
        """Move the overloads back into the registry."""
        registry: dict[str, Any] = getattr(typing, "_overload_registry", {})
        for name in self._names:
            registry[name] = vars(self._modules[name]).pop(_OVERLOADS)


_OVERLOADS: Final = "__koupleless_overloads__"
