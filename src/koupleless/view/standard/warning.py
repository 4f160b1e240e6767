"""Give each biz its own warnings: filters, the record of warnings shown once, and the functions to show them.

In one process two threads in ``warnings.catch_warnings`` undo each other's filters, and a filter set by one application
counts for all. So the variables of the ``warnings`` module answer by context, to Python as to C code, which asks the
module for the variables at every warning. A variable not set by the biz is the process's. Within one biz, threads share
the variables as in a process of their own.
"""

from __future__ import annotations

import functools
import warnings
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

from koupleless.context import as_base, current
from koupleless.contextual import assign_by_context
from koupleless.frames import seen_as, standing_for
from koupleless.replacing import Shared, replace

if TYPE_CHECKING:
    import contextlib
    from collections.abc import Callable

_VARIABLES: Final = ("filters", "onceregistry", "showwarning", "_showwarnmsg_impl", "formatwarning")


class Warnings:
    """The variables of ``warnings`` set by one biz: a facet of its scope.

    Lifetime: attached before the biz's first import, closed when the biz leaves. Threads: as the module's own
    variables.
    """

    def __init__(self) -> None:
        self.own: dict[str, Any] = _Own(onceregistry={})
        """By name; a missing variable is the process's."""

    def filters_to_change(self) -> list[Any]:
        """Return the filters of this biz, which start as a copy of the process's."""
        if "filters" not in self.own:
            self.own["filters"] = _of_process("filters")
        return self.own["filters"]  # type: ignore[no-any-return]

    def close(self) -> None:
        """Empty the variables, and show the interpreter other filters: it keeps hold of the list seen last."""
        for name in _COPIES:
            self.own.pop(name, []).clear()
        self.own.clear()
        token = _is_closing.set(True)
        try:
            _WARN("nothing", Warning, "", 0)
        finally:
            _is_closing.reset(token)


_WARN: Final = warnings.warn_explicit
_is_closing: Final = ContextVar("koupleless_closing_warnings", default=False)
_NO_BIZ: Final[dict[str, Any]] = {"filters": [("ignore", None, Warning, None, 0)], "onceregistry": {}}


class _Own(dict[str, Any]):
    """Variables assigned by a biz, containers copied: the assigned one may be the process's, and change later."""

    def __setitem__(self, name: str, value: Any) -> None:
        super().__setitem__(name, _COPIES[name](value) if name in _COPIES else value)


_COPIES: Final[dict[str, Callable[[Any], Any]]] = {"filters": list, "onceregistry": dict}


def _of_process(name: str) -> Any:
    with as_base():
        return getattr(warnings, name)


def _here() -> Warnings | None:
    """Return the variables of the running biz, new ones for a biz that is gone; ``None`` for the process."""
    scope = current()
    if scope is None:
        return None
    return Warnings() if scope.is_closed else scope.find_facet(Warnings)


def _assigned() -> dict[str, Any] | None:
    if _is_closing.get():
        return _NO_BIZ
    here = _here()
    return None if here is None else here.own


# --- blocks ----------------------------------------------------------------------------------------------------------
# A block ends for the biz in which it began, with the variables of the start: meanwhile the process's may have become
# others.


def _enter(original: Callable[[Any], Any]) -> Callable[[Any], Any]:
    @standing_for(original)
    def __enter__(self: Any) -> Any:  # noqa: N807 - it takes the place of one
        here = _here()
        before = None if here is None else dict(here.own)
        result = original(self)
        vars(self)[_BLOCK] = here, before
        return result

    return __enter__


def _exit(original: Callable[..., None]) -> Callable[..., None]:
    @standing_for(original)
    def __exit__(self: Any, *error: Any) -> None:  # noqa: N807 - as above
        here, before = vars(self).pop(_BLOCK, (None, None))
        with as_base():
            if here is None or not getattr(self, "_entered", False):
                original(self, *error)
                return
        self._entered = False
        for name in _BLOCKED:
            here.own.pop(name, None)
        here.own.update((name, before[name]) for name in _BLOCKED if name in before)  # the very same, not copies
        _have_changed()

    return __exit__


_BLOCK: Final = "_koupleless_block"
_BLOCKED: Final = ("filters", "showwarning", "_showwarnmsg_impl")
"""Variables put back at the end of a block."""


# --- the functions of the module that read its globals instead --------------------------------------------------------


def _add_filter(original: Callable[..., None]) -> Callable[..., None]:
    @standing_for(original)
    def add_filter(*item: Any, append: bool) -> None:
        here = _here()
        if here is None:
            original(*item, append=append)
            return
        filters = here.filters_to_change()
        if append and item in filters:
            return
        if item in filters:
            filters.remove(item)
        filters.insert(len(filters) if append else 0, item)
        _have_changed()

    return add_filter


def _reset(original: Callable[[], None]) -> Callable[[], None]:
    @standing_for(original)
    def resetwarnings() -> None:
        here = _here()
        if here is None:
            original()
            return
        here.filters_to_change().clear()
        _have_changed()

    return resetwarnings


def _show(original: Callable[[Any], None]) -> Callable[[Any], None]:
    @seen_as(original)
    @functools.wraps(original)
    def showwarnmsg(message: warnings.WarningMessage) -> None:
        here = _here()
        if here is None or not here.own.keys() & {"showwarning", "_showwarnmsg_impl"}:
            original(message)
            return
        show: Any = warnings.showwarning
        if show is _of_process("_showwarning_orig"):
            warnings._showwarnmsg_impl(message)  # type: ignore[attr-defined]  # noqa: SLF001 - as the original does
            return
        if not callable(show):
            raise TypeError("warnings.showwarning() must be set to a function or method")
        show(message.message, message.category, message.filename, message.lineno, message.file, message.line)

    return showwarnmsg


def _show_plainly(original: Callable[..., None]) -> Callable[..., None]:
    @seen_as(original)
    @functools.wraps(original)
    def showwarning(  # noqa: PLR0917 - those of the original
        message: Any, category: Any, filename: str, lineno: int, file: Any = None, line: str | None = None
    ) -> None:
        shown = warnings.WarningMessage(message, category, filename, lineno, file, line)
        warnings._showwarnmsg_impl(shown)  # type: ignore[attr-defined]  # noqa: SLF001 - as the original does

    return showwarning


def _format(original: Callable[[Any], str]) -> Callable[[Any], str]:
    @standing_for(original)
    def formatwarnmsg(message: warnings.WarningMessage) -> str:
        here = _here()
        own = None if here is None else here.own.get("formatwarning")
        if own is None:
            return original(message)
        return own(message.message, message.category, message.filename, message.lineno, message.line)  # type: ignore[no-any-return]

    return formatwarnmsg


def _have_changed() -> None:
    warnings._filters_mutated()  # type: ignore[attr-defined]  # noqa: SLF001 - what the module itself calls


def _put_in(undo: contextlib.ExitStack) -> None:
    replace(undo, warnings, "_add_filter", _add_filter(_of_process("_add_filter")))
    replace(undo, warnings, "resetwarnings", _reset(warnings.resetwarnings))
    replace(undo, warnings, "_showwarnmsg", _show(_of_process("_showwarnmsg")))
    plain = _of_process("_showwarning_orig")
    plainly = _show_plainly(plain)
    replace(undo, warnings, "_showwarning_orig", plainly)
    if _of_process("showwarning") is plain:
        replace(undo, warnings, "showwarning", plainly)
    replace(undo, warnings, "_formatwarnmsg", _format(_of_process("_formatwarnmsg")))
    replace(undo, warnings.catch_warnings, "__enter__", _enter(warnings.catch_warnings.__enter__))
    replace(undo, warnings.catch_warnings, "__exit__", _exit(warnings.catch_warnings.__exit__))
    for name in _VARIABLES:
        assign_by_context(undo, warnings, name, _assigned)


WARNINGS: Final = Shared("views of warnings", _put_in)
"""The variables of ``warnings`` by context."""
