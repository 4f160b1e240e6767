"""Specs of Python modules of other owners, as given to code of one owner.

The specs are copies, since code changes specs (``spec.loader = LazyLoader(spec.loader)``). If an import hook answers
with such a spec, its loader wrapped or not, the owner gets the very Python module that all share, and the hook does the
same work as after the execution of a Python module. Code making a Python module of the spec by hand gets a new one.
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
    """Take back the origin that an import hook sets on a shared Python module: no single biz may change the origin."""
    if not isinstance(module, ModuleType):  # code has put another object into ``sys.modules``
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
    """The loader of a Python module executed by another owner, or about to be.

    ``lend`` is a method of a linker: returns the Python module of a name while the linker imports the name, else
    ``None``.
    """

    __slots__ = ("_lend", "_lent")  # no variables: loaders are compared by variables

    def __init__(self, fullname: str, path: str, lend: Callable[[str], ModuleType | None]) -> None:
        super().__init__(fullname, path)
        self._lend = weakref.WeakMethod(lend)  # code may keep the loader for longer than the owner lives
        self._lent: ModuleType | None = None

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """See ``importlib.abc.Loader``."""
        lend = self._lend()
        self._lent = None if lend is None else lend(spec.name)
        return self._lent

    @passed_over
    def exec_module(self, module: ModuleType) -> None:
        """See ``importlib.abc.Loader``: a lent Python module was executed before, and is left alone."""
        if module is not self._lent:
            super().exec_module(module)


def lent_spec(spec: ModuleSpec, lend: Callable[[str], ModuleType | None]) -> ModuleSpec:
    """Copy the spec of a Python module of another owner; ``lend`` as for `LentLoader`."""
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
"""Python modules that the interpreter imports before any code runs, and no import hook ever sees."""
