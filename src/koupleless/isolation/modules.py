"""Views: ``sys.modules``, ``sys.path`` and ``sys.meta_path`` as seen by code, each with the answer for the running biz.

While a biz runs, Python modules of the biz lie over those of the base, the search path of the biz lies before the path
of the base, and the import hooks of the biz are seen by the biz alone. While no biz runs, all are as they were without
bizs. Assignments of a biz to ``sys.path``, ``sys.meta_path``, ``sys.argv``, ``sys.tracebacklimit`` or hooks such as
``sys.excepthook`` are seen by the biz alone, too.

The interpreter keeps a table of its own (``interpreter.REAL``), read directly by C code. A Python module of a biz is in
there only while compiled code of the biz needs the Python module there.
"""
# ruff: noqa: D102 - the methods are those of dict and list

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeVar, cast, overload

from koupleless.context import current
from koupleless.contextual import ContextList, assign_by_context, call_by_context
from koupleless.isolation.interpreter import (
    REAL,
    all_of_base,
    find_of_base,
    is_of_base,
    name_of,
    of_base,
    set_of_base,
    store,
    take_of_base,
    unstore,
    variables_of,
    views,
)
from koupleless.isolation.linking.linker import ABSENT, asking, base_changed, linker_of, owner_of

if TYPE_CHECKING:
    import contextlib
    from collections.abc import Callable, ItemsView, Iterator, KeysView, ValuesView
    from types import FrameType, ModuleType
    from typing import Self, SupportsIndex

    from koupleless.isolation.linking.linker import Linker

T = TypeVar("T")


class ModulesView(dict[str, "ModuleType"]):
    """The object at ``sys.modules`` while there are bizs.

    A ``dict`` for code that checks; every operation goes to the table of the running biz over the interpreter's table,
    or straight to the interpreter's table. A Python module of the base, once deleted by a biz, is out of sight for this
    biz only. ``keys``, ``values`` and ``items`` return snapshots to a biz.
    """

    __slots__ = ()

    def __getitem__(self, name: str) -> ModuleType:
        linker = asking()
        try:
            return of_base(name) if linker is None else _seen(linker, name)
        except KeyError as error:
            error.__traceback__ = None  # as if a dictionary raised the error, out of the subscription
            raise

    @overload
    def get(self, name: str, default: None = None, /) -> ModuleType | None: ...
    @overload
    def get(self, name: str, default: ModuleType | T, /) -> ModuleType | T: ...
    def get(self, name: str, default: Any = None, /) -> Any:
        linker = asking()
        try:
            return of_base(name) if linker is None else _seen(linker, name)
        except KeyError:
            return default

    def __contains__(self, name: object) -> bool:
        linker = asking()
        if linker is None or not isinstance(name, str):
            return is_of_base(cast("str", name))  # an object of any type
        try:
            _seen(linker, name)
        except KeyError:
            return False
        return True

    def __setitem__(self, name: str, module: ModuleType) -> None:
        _enter(*_who(), name, module)

    def __delitem__(self, name: str) -> None:
        _take(*_who(), name)

    def pop(self, name: str, default: Any = ABSENT, /) -> Any:
        linker, is_narrow = _who()
        try:
            return _take(linker, is_narrow, name)
        except KeyError:
            if default is ABSENT:
                raise
            return default

    def popitem(self) -> tuple[str, ModuleType]:
        linker, is_narrow = _who()
        if linker is not None:
            name = next(reversed(_shown(linker, is_narrow)))
            return name, linker.take(name, is_narrow=is_narrow)
        name, module = REAL.popitem()
        base_changed(name)
        return name, module

    def setdefault(self, name: str, default: ModuleType | None = None, /) -> ModuleType:
        linker = asking()
        if linker is None:
            known = find_of_base(name)
            if known is None and not is_of_base(name):
                set_of_base(name, cast("ModuleType", default))
                store(name, cast("ModuleType", default))
                return cast("ModuleType", default)
            return cast("ModuleType", known)
        try:
            return _seen(linker, name)
        except KeyError:
            linker.put(name, default, is_narrow=_who()[1])
            return cast("ModuleType", default)

    def update(self, other: Any = (), /, **names: ModuleType) -> None:
        linker, is_narrow = _who()
        for name, module in dict(other, **names).items():
            _enter(linker, is_narrow, name, module)

    def clear(self) -> None:
        linker, is_narrow = _who()
        if linker is None:
            REAL.clear()
        else:
            linker.clear(is_narrow=is_narrow)

    def copy(self) -> dict[str, ModuleType]:
        return _shown(*_who()).copy()

    def __iter__(self) -> Iterator[str]:
        return iter(list(_shown(*_who())))  # a copy: other threads import meanwhile

    def __reversed__(self) -> Iterator[str]:
        return reversed(_shown(*_who()))

    def __len__(self) -> int:
        return len(_shown(*_who()))

    def __bool__(self) -> bool:
        return True

    def keys(self) -> KeysView[str]:  # type: ignore[override]
        return _shown(*_who()).keys()

    def values(self) -> ValuesView[ModuleType]:  # type: ignore[override]
        return _shown(*_who()).values()

    def items(self) -> ItemsView[str, ModuleType]:  # type: ignore[override]
        return _shown(*_who()).items()

    def __or__(self, other: Any) -> Any:
        return _shown(*_who()) | dict(other) if isinstance(other, dict) else NotImplemented

    def __ror__(self, other: Any) -> Any:
        return dict(other) | _shown(*_who()) if isinstance(other, dict) else NotImplemented

    def __ior__(self, other: Any) -> Self:  # type: ignore[override]
        linker, is_narrow = _who()
        for name, module in dict(other).items():
            _enter(linker, is_narrow, name, module)
        return self

    def __eq__(self, other: object) -> bool:
        return other is self or _shown(*_who()) == other

    def __ne__(self, other: object) -> bool:  # ``dict`` defines the method, too
        return other is not self and _shown(*_who()) != other

    __hash__: ClassVar[None]

    def __repr__(self) -> str:
        return repr(_shown(*_who()))

    def __reduce_ex__(self, protocol: SupportsIndex) -> Any:
        return _shown(*_who()).copy().__reduce_ex__(protocol)

    def __copy__(self) -> dict[str, ModuleType]:
        return _shown(*_who()).copy()

    def __sizeof__(self) -> int:
        return REAL.__sizeof__()


_getframe: Final = sys._getframe  # noqa: SLF001 - code of a biz may replace the function, as some tests do
_TOOLS: Final = frozenset({"importlib", "importlib.util", "pkgutil", "runpy"})
"""Python modules of the standard library that look up Python modules on behalf of their callers."""


def _is_narrow(linker: Linker, frame: FrameType) -> bool:
    """Whether code sees only the libraries of the base in the owner's sight.

    Such is the owner's code, and code that looks up Python modules on behalf of the owner. A shared library at work for
    the owner finds all Python modules loaded by the base: the library needs Python modules of its own and of the
    libraries required.
    """
    if frame.f_builtins is linker.builtins:
        return True
    return frame.f_globals.get("__name__") in _TOOLS


def _who() -> tuple[Linker | None, bool]:
    """Return the linker that the caller's caller works for, as `linker.asking`, and whether the caller is narrow."""
    frame, scope = _getframe(2), current()
    linker = owner_of(frame.f_builtins) if scope is None else linker_of(scope)
    return linker, linker is not None and _is_narrow(linker, frame)


def _seen(linker: Linker, name: str) -> ModuleType:
    """Return the Python module under a name, as seen by the caller's caller. Raises ``KeyError`` if there is none."""
    known: ModuleType | None = linker.table.get(name, ABSENT)
    if known is not ABSENT:
        return known  # type: ignore[return-value]  # `cast` is a call
    known = linker.shown.get(name)
    if known is not None and REAL.get(name) is known:
        return known
    return _look_up(linker, name, _getframe(2))


def _look_up(linker: Linker, name: str, frame: FrameType) -> ModuleType:
    if not linker.lenders and linker.shown.get(name, ABSENT) is None and _is_narrow(linker, frame):
        raise KeyError(name)
    known = linker.find(name)
    if known is ABSENT:
        known = of_base(name)
        if _is_hidden(linker, name, known):
            raise KeyError(name)
        if not linker.sight()(name):
            linker.shown[name] = None
            if linker.sight()(name):  # another thread has just taken the Python module from the base
                linker.shown.pop(name, None)
            elif _is_narrow(linker, frame):
                raise KeyError(name)
        elif linker.is_settled(name):
            linker.shown[name] = known
    return known  # type: ignore[return-value]


def _is_hidden(linker: Linker, name: str, module: object) -> bool:
    """Whether a Python module of the base is out of sight for a biz, by the name given or by its ``__name__``.

    Some code executes a library once more, with some Python modules replaced, and enters the results under new names;
    a biz with the library for itself has to do the same again.
    """
    if linker.hides(name):
        return True
    own = name_of(module)
    if own is None or own == name:
        return False
    top = name.partition(".")[0]
    return name_of(find_of_base(top)) != top and linker.hides(own)


def _shown(linker: Linker | None, is_narrow: bool) -> dict[str, ModuleType]:
    """Return the table of the base itself, or a snapshot of the table seen by code at work for a biz."""
    if linker is None:
        return all_of_base()
    is_seen = linker.sight() if is_narrow else bool
    shown = {
        name: module
        for name, module in all_of_base().copy().items()
        if is_seen(name) and not _is_hidden(linker, name, module)
    }
    for name in linker.names():
        found = linker.find(name)
        if found is not ABSENT:  # removed by another thread meanwhile
            shown[name] = cast("ModuleType", found)
    return shown


def _take(linker: Linker | None, is_narrow: bool, name: str) -> ModuleType:
    if linker is not None:
        return linker.take(name, is_narrow=is_narrow)
    module = take_of_base(name)
    unstore(name)
    base_changed(name)
    return module


def _enter(linker: Linker | None, is_narrow: bool, name: str, module: ModuleType) -> None:
    if linker is not None:
        linker.put(name, module, is_narrow=is_narrow)
        return
    known = find_of_base(name)
    set_of_base(name, module)
    store(name, module)
    if known is not None and known is not module:
        base_changed(name)


def base_path() -> list[str]:
    """The ``sys.path`` of the base, for any running biz."""
    path: Any = variables_of(sys)["path"]
    return path.of_base if isinstance(path, _SysList) else path


class _SysList(ContextList[Any]):
    """The object at ``sys.path`` or ``sys.meta_path`` while there are bizs; shows the running biz's list or base's."""

    __slots__ = ("of_base",)

    def __init__(self, of_base: list[Any], of: Callable[[Linker], list[Any]]) -> None:
        def target() -> list[Any]:
            scope = current()
            if scope is None:
                return of_base
            linker = linker_of(scope)
            # Changes by code of a gone biz go into a copy, which nobody sees.
            return of(linker) if linker is not None else of_base.copy() if scope.is_closed else of_base

        super().__init__(target, mirror=of_base)
        self.of_base = of_base


def place_views(undo: contextlib.ExitStack) -> None:
    """Put the views in their places; ``undo`` gets callbacks that put back the originals.

    A callback does nothing where another object has replaced the view. Called under the lock that guards the count of
    installers.
    """
    placed = {
        "modules": _modules,
        "path": _SysList(sys.path, lambda linker: linker.search_path),
        "meta_path": _SysList(sys.meta_path, lambda linker: linker.meta_path),
    }
    dict.update(_modules, REAL)
    views.append(_modules)
    undo.callback(dict.clear, _modules)
    undo.callback(views.remove, _modules)
    for name, view in placed.items():
        undo.callback(_put_back, name, view, getattr(sys, name))
        setattr(sys, name, view)
    variables: dict[str, Any] = {**placed, "argv": sys.argv, "tracebacklimit": None}
    for name, view in variables.items():
        if name != "modules":
            is_by_context = isinstance(view, ContextList)
            assign_by_context(undo, sys, name, _assigned, default=view if is_by_context else None)
    for name in ("path_hooks", "path_importer_cache"):  # each linker has its own from the beginning
        assign_by_context(undo, sys, name, _assigned)
    for name in ("excepthook", "unraisablehook", "displayhook"):
        call_by_context(undo, sys, name, _assigned)


def _put_back(name: str, view: object, original: object) -> None:
    if getattr(sys, name) is view:
        setattr(sys, name, original)


_modules: Final = ModulesView()  # always the same object, for code that keeps the object found at ``sys.modules``


def _assigned() -> dict[str, Any] | None:
    scope = current()
    if scope is None:
        return None
    linker = linker_of(scope)
    # Assignments by code of a gone biz go into an empty dictionary, which nobody sees.
    return linker.assigned if linker is not None else {} if scope.is_closed else None
