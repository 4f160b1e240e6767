"""Refuses the functions that would patch the process for all bizs, before such a function has patched anything.

A library of the base is announced when the base imports the library; a library of one biz, by the code that executed
the library.
"""

from __future__ import annotations

import functools
import os
import types
from typing import TYPE_CHECKING, Any, Final

from koupleless.context import current
from koupleless.frames import standing_for
from koupleless.ownership.recording import Patches
from koupleless.patching import FUNCTIONS, is_one, refusal
from koupleless.replacing import Shared

if TYPE_CHECKING:
    import contextlib
    from collections.abc import Callable

    from koupleless.context import Scope

_patches: Final = Patches()


def _put_in(undo: contextlib.ExitStack) -> None:
    undo.callback(_patches.restore)
    for name in FUNCTIONS:
        _patches.when_imported(name, _refuse)


REFUSALS: Final = Shared("refusals", _put_in)
"""The refusals of the functions in the libraries of the base, to bizs."""


def _refuse(patches: Patches, module: types.ModuleType) -> None:
    for name in _functions(module):
        patches.replace(module, name, functools.partial(_refusing, module.__name__, name, None))


def refuse_in(scope: Scope, module: types.ModuleType) -> None:
    """Refuse the functions in a biz's own Python module, just executed: to the biz, in every context."""
    for name in _functions(module):
        setattr(module, name, _refusing(module.__name__, name, scope, vars(module)[name]))


def _functions(module: types.ModuleType) -> list[str]:
    """Name the functions of a Python module that are to be refused and are not yet."""
    return [name for name, value in vars(module).items() if is_one(module.__name__, name) and _is_plain(value)]


def _is_plain(value: object) -> bool:
    return isinstance(value, _KINDS) and not hasattr(value, _MARK)


_KINDS: Final = (types.FunctionType, types.BuiltinFunctionType)
_MARK: Final = "_koupleless_refused"


def _refusing(module: str, name: str, owner: Scope | None, original: Callable[..., Any]) -> Any:
    home = os.getpid()

    @standing_for(original)
    def refuse(*args: Any, **kwargs: Any) -> Any:
        scope = current() or owner
        if scope is None or os.getpid() != home:  # a child process may patch itself
            return original(*args, **kwargs)
        raise refusal(scope.biz, module, name)

    setattr(refuse, _MARK, True)
    return refuse
