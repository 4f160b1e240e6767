"""Specs of modules that are somebody else's, as code of one owner gets them.

They are copies, since code changes what it finds (``spec.loader = LazyLoader(spec.loader)``). An import hook that
answers with such a spec, its loader wrapped or not, has the owner get the very module that all share, and does with it
what the hook does when a module was executed. Code that makes a module of the spec by hand gets one of its own.
"""

from __future__ import annotations

import copy
from importlib.machinery import SourceFileLoader
from typing import TYPE_CHECKING, Final, Protocol

from koupleless.frames import passed_over

if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec
    from types import ModuleType


class Lender(Protocol):
    """Hands out the module of a name while it is imported for one owner."""

    def __call__(self, name: str, /) -> ModuleType | None:
        """The module; ``None`` if nobody imports it now."""


class LentLoader(SourceFileLoader):
    """The loader of a module that was executed by somebody else, or is about to be."""

    __slots__ = ("_lend", "_lent")  # not among the variables, by which loaders are compared

    def __init__(self, fullname: str, path: str, lend: Lender) -> None:
        super().__init__(fullname, path)
        self._lend = lend
        self._lent: ModuleType | None = None

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """See ``importlib.abc.Loader``."""
        self._lent = self._lend(spec.name)
        return self._lent

    @passed_over
    def exec_module(self, module: ModuleType) -> None:
        """See ``importlib.abc.Loader``: what is lent was executed before."""
        if module is not self._lent:
            super().exec_module(module)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SourceFileLoader) and vars(self) == vars(other)

    def __hash__(self) -> int:
        return super().__hash__()


def lent_spec(spec: ModuleSpec, lend: Lender) -> ModuleSpec:
    """A copy of the spec of a module of somebody else."""
    copied = copy.copy(spec)
    if isinstance(spec.loader, SourceFileLoader):
        copied.loader = LentLoader(spec.name, spec.loader.path, lend)
    return copied


_AT_START: Final = """
__main__ _abc _codecs _collections_abc _frozen_importlib _frozen_importlib_external _imp _io _signal _sitebuiltins _stat
_thread _warnings _weakref abc builtins codecs encodings encodings.aliases encodings.utf_8 genericpath io marshal os
os.path posix posixpath site stat sys time zipimport
"""
AT_START: Final = frozenset(_AT_START.split())
"""Modules that the interpreter imports before any code runs, which no import hook ever sees."""
