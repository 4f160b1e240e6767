"""``importlib.reload`` for one owner: Python's own code, with globals that belong to the owner.

Python modules of the owner are executed again. A Python module of another owner is shared by all: import hooks of the
owner's code are asked for the spec, as without a base. If no hook answers, a warning tells the owner so.
"""

from __future__ import annotations

import functools
import importlib
import sys
import threading
import warnings
from types import FunctionType, SimpleNamespace
from typing import TYPE_CHECKING, Any, Final, cast

from koupleless.context import current, entered
from koupleless.frames import passed_over
from koupleless.isolation.interpreter import bootstrap
from koupleless.isolation.libraries import distributions
from koupleless.isolation.policy import is_of_process

if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec
    from types import ModuleType

    from koupleless.isolation.linking.linker import Linker


class SharedModuleWarning(RuntimeWarning):
    """A biz reloaded a shared Python module, of the base or with other bizs, which was not executed again."""


def reload_of(linker: Linker) -> FunctionType:
    """Make the ``importlib.reload`` of one owner, which works inside and outside the owner's context."""
    around = {
        **vars(importlib),
        "__builtins__": linker.builtins,
        "sys": SimpleNamespace(modules=_Modules(linker)),
        "_bootstrap": _Bootstrap(linker),
        "_RELOADING": {},
    }
    return cast("FunctionType", functools.update_wrapper(FunctionType(_RELOAD.__code__, around), _RELOAD, updated=()))


class _Modules:
    """``sys.modules`` as seen by the owner."""

    def __init__(self, linker: Linker) -> None:
        self._scope = linker.scope

    def get(self, name: str) -> ModuleType | None:
        """See ``dict``."""
        with entered(self._scope):
            return sys.modules.get(name)

    def __getitem__(self, name: str) -> ModuleType:
        with entered(self._scope):
            return sys.modules[name]


class _Bootstrap(threading.local):
    """Functions of ``importlib._bootstrap`` for a reload: first `_find_spec`, then `_exec`."""

    _exec: Any
    """The function to call with the spec found and the Python module; without a frame of ours if the owner runs."""

    def __init__(self, linker: Linker) -> None:
        self._linker = linker

    @passed_over
    def _find_spec(self, name: str, path: Any, target: ModuleType) -> ModuleSpec | None:
        if not self._linker.table.has(target):
            self._exec = self._ask_hooks
            return target.__spec__
        self._exec = bootstrap._exec if current() is self._linker.scope else self._exec_as_owner  # noqa: SLF001
        with entered(self._linker.scope):
            return bootstrap._find_spec(name, path, target)  # type: ignore[no-any-return]  # noqa: SLF001

    @passed_over
    def _exec_as_owner(self, spec: ModuleSpec, module: ModuleType) -> None:
        with entered(self._linker.scope):
            bootstrap._exec(spec, module)  # noqa: SLF001

    @passed_over
    def _ask_hooks(self, spec: ModuleSpec, module: ModuleType) -> None:  # noqa: ARG002 - as those of `_exec`
        if not self._linker.reload(spec.name):
            what = f"biz {self._linker.scope.biz} reloaded {spec.name}, which was not executed again:"
            warnings.warn(f"{what} {_reason(spec.name)}", SharedModuleWarning, stacklevel=3)


def _reason(name: str) -> str:
    if is_of_process(name):
        return "the standard library is the whole process's"
    index = distributions.base_index()
    owners = index.owners(name)
    way = "bring" if not index.compiled.isdisjoint(owners) else "own"
    what = " or ".join(owners) or name.partition(".")[0]
    return f'the Python module is shared, with its state; for a copy of your own, say {way} = ["{what}"]'


_RELOAD: Final[Any] = importlib.reload
