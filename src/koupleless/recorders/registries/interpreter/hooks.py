"""Sweeps of hooks and lists of the interpreter: hooks of the base are put back, callbacks of the biz are taken out."""

from __future__ import annotations

import gc
import logging
import sys
import threading
from typing import TYPE_CHECKING, Any, Final

from koupleless.ownership.kinds import Own
from koupleless.ownership.ledger import take_out
from koupleless.ownership.purge import Sweep

if TYPE_CHECKING:
    import types

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
_BEFORE: Final[Own[dict[object, Any]]] = Own(dict, is_swept=True)
"""The functions in the hooks when the biz came."""


def _remember_hooks(ledger: Ledger) -> None:
    _BEFORE.of(ledger.scope).update({hook: getattr(*hook, None) for hook in _HOOKS})


def _put_hooks_back(survey: Survey) -> int:
    # The hook found by a starting biz may be another biz's, which may leave first: then the hook before is remembered.
    mine = survey.find(_BEFORE) or {}
    everybody = _BEFORE.of_everybody()
    # A thousand bizs found the same few functions.
    found = {id(value): value for before in everybody for value in before.values() if value is not None}
    leaving = {key for key, value in found.items() if survey.reaches(value)}
    for before in everybody if leaving else ():
        before.update({hook: mine.get(hook) for hook, value in before.items() if id(value) in leaving})
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
