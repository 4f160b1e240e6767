"""Sweeps of hooks and lists of the interpreter: hooks of the base are put back, callbacks of the biz are taken out."""

from __future__ import annotations

import gc
import logging
import sys
import threading
import weakref
from typing import TYPE_CHECKING, Any, Final

from koupleless.ownership.kinds import Own
from koupleless.ownership.ledger import take_out
from koupleless.ownership.purge import Sweep

if TYPE_CHECKING:
    import types
    from collections.abc import Callable

    from koupleless.ownership.belonging import Survey
    from koupleless.ownership.ledger import Ledger
    from koupleless.ownership.recording import Patches


def install(patches: Patches) -> None:
    """Remember the hooks as a starting biz finds them."""
    patches.when_opened(_remember_hooks)


_HOOKS: Final[tuple[tuple[types.ModuleType, str], ...]] = (
    (sys, "excepthook"),
    (sys, "unraisablehook"),
    (sys, "displayhook"),
    (sys, "breakpointhook"),
    (sys, "stdin"),
    (sys, "stdout"),
    (sys, "stderr"),
    (threading, "excepthook"),
    (threading, "_trace_hook"),
    (threading, "_profile_hook"),
    (logging, "_logRecordFactory"),
    (logging, "_loggerClass"),
    (logging, "lastResort"),
)


class _Found:
    """The values of the hooks as a biz found them. Bizs that come one after another and find the same share one."""

    __slots__ = ("__weakref__", "values")

    def __init__(self, values: dict[object, Any]) -> None:
        self.values = values


_found: Final[weakref.WeakSet[_Found]] = weakref.WeakSet()
_latest: Callable[[], _Found | None] = lambda: None  # noqa: E731 - the place of a weak reference


def _find() -> _Found:
    global _latest  # noqa: PLW0603 - the process has one set of hooks
    values: dict[object, Any] = {hook: getattr(*hook, None) for hook in _HOOKS}
    latest = _latest()
    if latest is None or any(latest.values[hook] is not value for hook, value in values.items()):
        latest = _Found(values)
        _found.add(latest)
        _latest = weakref.ref(latest)
    return latest


_BEFORE: Final = Own(_find, is_swept=True)


def _remember_hooks(ledger: Ledger) -> None:
    _BEFORE.of(ledger.scope)


def _put_hooks_back(survey: Survey) -> int:
    # The hook found by a starting biz may be another biz's, which may leave first: then the hook before is remembered.
    before = survey.find(_BEFORE)
    mine: dict[object, Any] = {} if before is None else before.values
    for found in list(_found):
        for hook, value in found.values.items():
            if value is not None and survey.reaches(value):
                found.values[hook] = mine.get(hook)
    count = 0
    for hook in _HOOKS:
        value = getattr(*hook, None)
        if value is not None and survey.reaches(value):
            setattr(*hook, mine.get(hook))
            count += 1
    return count


def _sweep_lists(survey: Survey) -> int:
    """Take callbacks and hooks of the biz out of lists of the interpreter. Returns the number of entries taken out."""
    count = 0
    lists: tuple[list[Any], ...] = (gc.callbacks, sys.path_hooks, sys.meta_path)
    for listed in lists:
        for item in [item for item in listed if survey.reaches(item)]:
            take_out(listed, item)
            count += 1
    return count


SWEEPS: Final = (
    Sweep("hook", "hooks and streams of sys, hooks of threading and logging", _put_hooks_back),
    Sweep("callback", "gc.callbacks, sys.path_hooks, sys.meta_path", _sweep_lists),
)
