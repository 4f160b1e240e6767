"""Lazy imports (PEP 810, CPython 3.15 and newer), each resolved for the owner of the code with the statement.

A lazy import keeps the ``__builtins__`` of the code with the statement, and is resolved by the ``__import__`` found
there, for any reader of the name, on any thread. So a lazy import in code of a biz leads to Python modules of the biz;
and the hook at ``builtins.__import__`` can tell a lazy import in code of the base (`is_resolved_for_base`).

Three parts of lazy imports belong to the process, and are made the owner's here.

- ``import a.b`` is remembered by name, with all references to the code, and answers any reader of ``b`` at any Python
  module ``a``. So a biz would stay alive, and its Python modules would reach other owners; hence no such name of a biz
  is remembered there.
- One filter is asked for all lazy imports.
- An import refused by a filter is imported past ``__import__``.
"""

from __future__ import annotations

import builtins
import sys
import types
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final

from koupleless.isolation.interpreter import REAL, bootstrap
from koupleless.tracebacks import clean

if TYPE_CHECKING:
    import contextlib
    from collections.abc import Callable, Mapping, Sequence
    from types import CodeType, FrameType

_MAKE: Final[Callable[..., object] | None] = getattr(builtins, "__lazy_import__", None)
"""The built-in function that makes lazy imports; works only when called by the code of a Python module itself."""


class LazyImports:
    """Lazy imports of one owner of Python modules."""

    __slots__ = ("_entered", "_import", "filter", "names")

    def __init__(self, import_: Callable[..., ModuleType]) -> None:
        """``import_`` is the owner's ``__import__``."""
        self.filter: Any = None
        """The filter that the owner has given to ``sys.set_lazy_imports_filter``."""
        self.names: set[str] = set()
        """Submodules that code may read as attributes of their package before any import."""
        self._entered: set[str] = set()
        self._import = import_

    def place(self, own: dict[str, Any]) -> None:
        """Put the owner's ``__lazy_import__`` among its builtins, where there is one."""
        if _MAKE is not None:
            own["__lazy_import__"] = self.import_

    def import_(
        self,
        name: str,
        globals: dict[str, Any] | None = None,  # noqa: A002 - the signature of the built-in function
        locals: Mapping[str, Any] | None = None,  # noqa: A002
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> object:
        """Make the object that a lazy import leaves under the name, or import at once if the owner's filter says so."""
        namespace = {} if globals is None else globals
        package = bootstrap._calc___package__(namespace) if level else None  # noqa: SLF001
        bootstrap._sanity_check(name, package, level)  # noqa: SLF001
        absolute = bootstrap._resolve_name(name, package, level) if level else name  # noqa: SLF001
        if self.filter is not None and not self.filter(namespace.get("__name__", ""), absolute, fromlist):
            return self._import(name, globals, locals, fromlist, level)
        frame = sys._getframe(1)  # noqa: SLF001
        before = sys.lazy_modules.copy()  # type: ignore[attr-defined]
        if fromlist or "." not in absolute:
            self.names.update(f"{absolute}.{item}" for item in fromlist or ())
            made = _made(frame, name, namespace, fromlist, level)
        else:
            made = self._make_dotted(frame, absolute, namespace)
        self._entered |= sys.lazy_modules - before  # type: ignore[attr-defined]
        return made

    def _make_dotted(self, frame: FrameType, name: str, namespace: dict[str, Any]) -> object:
        """Make the object of ``lazy import a.b``, without the interpreter's knowing of the ``b``."""
        importing = self._import

        def __import__(  # noqa: A001, N807
            asked: str,
            globals: Mapping[str, Any] | None = None,  # noqa: A002
            locals: Mapping[str, Any] | None = None,  # noqa: A002
            fromlist: Sequence[str] | None = None,
            level: int = 0,
        ) -> ModuleType:
            try:  # names are given where ``import a.b as c`` is resolved
                return importing(asked if fromlist else name, globals, locals, fromlist, level)
            except BaseException as error:
                clean(error)
                raise

        about: dict[str, Any] = {"__name__": namespace.get("__name__"), "__builtins__": {"__import__": __import__}}
        parent = name
        while (parts := parent.rpartition("."))[0]:
            self.names.add(parent)
            parent, _, child = parts
            _made(frame, parent, about, (child,), 0)  # so that code can read the submodule at the package
        return _made(frame, parent, about, None, 0)

    def drop(self) -> None:
        """Take the names entered by this owner alone out of ``sys.lazy_modules``, and forget all else. Idempotent."""
        for name in self._entered:
            sys.lazy_modules.discard(name)  # type: ignore[attr-defined]
        self._entered.clear()
        self.names.clear()
        self.filter = None


def _made(frame: FrameType, name: str, namespace: dict[str, Any], fromlist: Sequence[str] | None, level: int) -> object:
    """Make a lazy import as the interpreter does, at the line of the frame."""
    code = _CALL.replace(co_filename=frame.f_code.co_filename, co_firstlineno=frame.f_lineno)
    variables = {
        "__builtins__": _NOTHING,
        "make": _MAKE,
        "name": name,
        "namespace": namespace,
        "fromlist": fromlist,
        "level": level,
    }
    exec(code, variables)  # noqa: S102 - has to be the code of a Python module
    return variables["made"]


_CALL: Final[CodeType] = compile("made = make(name, namespace, None, fromlist, level)", "", "exec")
_NOTHING: Final[dict[str, Any]] = {}
"""The builtins of `_CALL`, by which filters know the code."""


def is_resolved_for_base(owner: object, fromlist: object, level: int) -> bool:
    """Whether a call of the base's ``__import__`` resolves a lazy import of the base, read by code of ``owner``.

    ``owner`` is the owner of the globals given in the call. Statements of an owner's code go to the owner's
    ``__import__``, never to the base's; only a lazy import is resolved with the globals of the reader.
    """
    return owner is not None and level == 0 and (fromlist is None or (type(fromlist) is tuple and bool(fromlist)))


class Filters:
    """``sys.set_lazy_imports_filter`` and ``sys.get_lazy_imports_filter`` by context; made for one installation."""

    def __init__(self, undo: contextlib.ExitStack, asking: Callable[[], Any]) -> None:
        """``asking()`` returns the linker of the owner that the caller's caller works for; ``None`` for the base."""
        self._asking = asking
        self._set: Callable[[Any], None] = getattr(sys, "set_lazy_imports_filter")  # noqa: B009 - not in each Python
        self._get: Callable[[], Any] = getattr(sys, "get_lazy_imports_filter")  # noqa: B009
        self._of_base: Any = None
        self._choose(self._get())
        undo.callback(self._give_back)

    def _choose(self, of_base: Any) -> None:
        self._of_base = of_base
        self._set(None if of_base is None else self._filter)

    def _filter(self, importing: str, name: str, fromlist: Sequence[str] | None) -> bool:
        if sys._getframe(1).f_builtins is _NOTHING:  # noqa: SLF001 - of an owner: the owner's filter has answered
            return True
        return bool(self._of_base(importing, name, fromlist))

    def _give_back(self) -> None:
        if self._get() == self._filter:
            self._set(self._of_base)

    def setter(self, original: Callable[[Any], None]) -> Callable[[Any], None]:
        """Make the ``sys.set_lazy_imports_filter`` for code of the base and of bizs."""

        def set_lazy_imports_filter(filter: Any) -> None:  # noqa: A002 - the signature of the original
            if filter is not None and not callable(filter):
                original(filter)  # raises the error
            linker = self._asking()
            if linker is None:
                self._choose(filter)
            else:
                linker.lazy.filter = filter

        return set_lazy_imports_filter

    def getter(self, original: Callable[[], Any]) -> Callable[[], Any]:  # noqa: ARG002 - as the other
        """Make the ``sys.get_lazy_imports_filter`` for code of the base and of bizs."""

        def get_lazy_imports_filter() -> Any:
            linker = self._asking()
            return self._of_base if linker is None else linker.lazy.filter

        return get_lazy_imports_filter


HAS_LAZY_IMPORTS: Final = _MAKE is not None


def resolve_own() -> None:
    """Resolve the lazy imports of this package; there are some if a process imports everything lazily.

    Called before the hooks are put in: no function called by a hook may have to be imported first. Lazy imports of the
    Python modules of the standard library used by the hooks are resolved, too.
    """
    seen: set[int] = set()
    while waiting := [module for module in REAL.copy().values() if _is_own(module) and id(module) not in seen]:
        for module in waiting:
            seen.add(id(module))
            for used in _resolved(module):
                if type(used) is ModuleType and not _is_own(used):
                    _resolved(used)


def _resolved(module: ModuleType) -> list[object]:
    """Return the values of the variables of a Python module, with lazy imports resolved."""
    return [getattr(module, name) if type(value) is _LAZY else value for name, value in list(vars(module).items())]


def _is_own(module: ModuleType) -> bool:
    return type(module) is ModuleType and module.__name__.partition(".")[0] == _PACKAGE


_PACKAGE: Final = __name__.partition(".")[0]
_LAZY: Final = getattr(types, "LazyImportType", None)
