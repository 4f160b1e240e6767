"""Registrations of shared libraries that concern nothing but themselves, and how they are taken back.

A library that nobody uses any more is still known to the interpreter: by exit functions, finalisers of its own objects,
filters for warnings of its own, error handlers of codecs, finders of its own, hooks of ``sys``. None of these is a
reason for it to stay. When it goes they are taken back, and a library that is loaded again registers them again.
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
from koupleless.ownership.caches import Survey, is_a
from koupleless.ownership.ledger import take_out

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@dataclass(frozen=True, slots=True)
class Registration:
    """One thing that a registry holds for a library."""

    thing: Any
    """What the registry holds: the library's function, or a record that refers to something of the library."""
    take_back: Callable[[], object]


_exits: Final[list[weakref.ref[Any]]] = []
_errors: Final[set[str]] = set()


def note_exit(function: Any) -> None:
    """Code of the base registered a function with ``atexit``, to be called without arguments."""
    try:
        _exits.append(weakref.ref(function, _exits.remove))
    except TypeError:  # it cannot be watched, so what it is of stays
        return


def note_error(name: str) -> None:
    """Code of the base registered an error handler with ``codecs``."""
    _errors.add(name)


def registrations(survey: Survey) -> list[Registration]:
    """What the interpreter's registries hold for the libraries of a survey alone."""
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
    """Stands for an error handler that is not there any more, which ``codecs`` has no way to say."""

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
    """What a library put where imports are looked up: objects of its own classes, for names of its own."""
    for hooks in (sys.meta_path, sys.path_hooks):
        for finder in hooks:
            if not is_a(finder, type) and survey.owns_class(type(finder)):
                yield Registration(finder, functools.partial(_remove, hooks, finder))


def _hooks(survey: Survey) -> Iterator[Registration]:
    """Functions that the interpreter calls; its own comes back, since nobody knows which was there before."""
    for name in ("displayhook", "excepthook", "unraisablehook"):
        hook = getattr(sys, name)
        if survey.reaches(hook):
            yield Registration(hook, functools.partial(setattr, sys, name, getattr(sys, f"__{name}__")))


def _remove(hooks: list[Any], finder: Any) -> None:
    hooks[:] = [hook for hook in hooks if hook is not finder]


def _finalizers(survey: Survey) -> Iterator[Registration]:
    """Those of ``weakref.finalize`` whose object and function are both the library's; they run when it goes."""
    registry: dict[Any, Any] = getattr(weakref.finalize, "_registry", {})
    for finalizer, info in list(registry.items()):
        thing = info.weakref()
        if thing is not None and _is_of(survey, thing) and survey.reaches(info.func):
            yield Registration(info, finalizer)


def _is_of(survey: Survey, thing: Any) -> bool:
    return survey.owns(thing) or (is_a(thing, types.FunctionType) and survey.reaches(thing))


class Overloads:
    """What ``typing.get_overloads`` knows of some modules, moved from its registry into them, where it belongs to them.

    Whoever executes the modules again enters it again.
    """

    def __init__(self, modules: dict[str, types.ModuleType]) -> None:
        registry: dict[str, Any] = getattr(typing, "_overload_registry", {})
        self._modules = modules
        self._names = [name for name in list(registry) if name in modules]
        for name in self._names:
            vars(modules[name])[_OVERLOADS] = registry.pop(name)
        # One function stands for all overloads; what a decorator noted on it last stays there and means nothing.
        vars(getattr(typing, "_overload_dummy", note_error)).pop("__dataclass_transform__", None)

    def put_back(self) -> None:
        """Move it back."""
        registry: dict[str, Any] = getattr(typing, "_overload_registry", {})
        for name in self._names:
            registry[name] = vars(self._modules[name]).pop(_OVERLOADS)


_OVERLOADS: Final = "__koupleless_overloads__"
