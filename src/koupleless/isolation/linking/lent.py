"""Specs of modules that are somebody else's, as code of one owner gets them.

They are copies, since code changes what it finds (``spec.loader = LazyLoader(spec.loader)``). An import hook that
answers with such a spec, its loader wrapped or not, has the owner get the very module that all share, and does with it
what the hook does when a module was executed. Code that makes a module of the spec by hand gets one of its own.
"""

from __future__ import annotations

import contextlib
import copy
import weakref
from importlib.machinery import SourceFileLoader
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final

from koupleless.frames import passed_over

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from importlib.machinery import ModuleSpec


@contextlib.contextmanager
def left_as_it_is(module: Any) -> Iterator[None]:
    """Take back what an import hook sets to say where a module came from, which is not for one biz to say."""
    if not isinstance(module, ModuleType):  # what code has put into ``sys.modules``
        yield
        return
    kind = type(module)
    about: dict[str, object] = {name: vars(module)[name] for name in _ABOUT if name in vars(module)}
    loader = getattr(module.__spec__, "loader", None)
    try:
        yield
    finally:
        if type(module) is not kind:
            module.__class__ = kind
        vars(module).update(about)
        if module.__spec__ is not None:
            module.__spec__.loader = loader


_ABOUT: Final = ("__spec__", "__loader__", "__file__", "__cached__", "__path__", "__package__", "__name__")


class LentLoader(SourceFileLoader):
    """The loader of a module that was executed by somebody else, or is about to be.

    ``lend`` is a method that hands out the module of a name while that is imported for its object, else ``None``.
    """

    __slots__ = ("_lend", "_lent")  # not among the variables, by which loaders are compared

    def __init__(self, fullname: str, path: str, lend: Callable[[str], ModuleType | None]) -> None:
        super().__init__(fullname, path)
        self._lend = weakref.WeakMethod(lend)  # it may be kept for longer than its owner lives
        self._lent: ModuleType | None = None

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """See ``importlib.abc.Loader``."""
        lend = self._lend()
        self._lent = None if lend is None else lend(spec.name)
        return self._lent

    @passed_over
    def exec_module(self, module: ModuleType) -> None:
        """See ``importlib.abc.Loader``: what is lent was executed before."""
        if module is not self._lent:
            super().exec_module(module)


def lent_spec(spec: ModuleSpec, lend: Callable[[str], ModuleType | None]) -> ModuleSpec:
    """A copy of the spec of a module of somebody else; ``lend`` as for `LentLoader`."""
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
