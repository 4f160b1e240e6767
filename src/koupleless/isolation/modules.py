"""View of ``sys.modules`` as seen by code, with the answer for the running biz.

While a biz runs, Python modules of the biz lie over those of the base. While no biz runs, all are as they were without
bizs.

The interpreter keeps a table of its own (``interpreter.REAL``), read directly by C code. A Python module of a biz is in
there only while compiled code of the biz needs the Python module there.
"""
# ruff: noqa: D102 - the methods are those of dict

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeVar, cast, overload

from koupleless.context import current
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
    views,
)
from koupleless.isolation.linking.answers import base_changed
from koupleless.isolation.linking.linker import asking, linker_of, owner_of
from koupleless.isolation.linking.table import ABSENT
from koupleless.replacing import replace

if TYPE_CHECKING:
    import contextlib
    from collections.abc import ItemsView, Iterator, KeysView, ValuesView
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
            return name, linker.edits.take(name, is_narrow=is_narrow)
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
            linker.edits.put(name, default, is_narrow=_who()[1])
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
            linker.edits.clear(is_narrow=is_narrow)

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
    known: ModuleType | None = linker.table.modules.get(name, ABSENT)
    if known is not ABSENT:
        return known  # type: ignore[return-value]  # `cast` is a call
    known = linker.answers.shown.get(name)
    if known is not None and REAL.get(name) is known:
        return known
    return _look_up(linker, name, _getframe(2))


def _look_up(linker: Linker, name: str, frame: FrameType) -> ModuleType:
    if not linker.table.lenders and linker.answers.shown.get(name, ABSENT) is None and _is_narrow(linker, frame):
        raise KeyError(name)
    known = linker.table.find(name)
    if known is ABSENT:
        known = of_base(name)
        if _is_hidden(linker, name, known):
            raise KeyError(name)
        if not linker.table.locator.sight()(name):
            linker.answers.shown[name] = None
            if linker.table.locator.sight()(name):  # another thread has just taken the Python module from the base
                linker.answers.shown.pop(name, None)
            elif _is_narrow(linker, frame):
                raise KeyError(name)
        elif linker.table.locator.is_settled(name):
            linker.answers.shown[name] = known
    return known  # type: ignore[return-value]


def _is_hidden(linker: Linker, name: str, module: object) -> bool:
    """Whether a Python module of the base is out of sight for a biz, by the name given or by its ``__name__``.

    Some code executes a library once more, with some Python modules replaced, and enters the results under new names;
    a biz with the library for itself has to do the same again.
    """
    if linker.table.hides(name):
        return True
    own = name_of(module)
    if own is None or own == name:
        return False
    top = name.partition(".")[0]
    return name_of(find_of_base(top)) != top and linker.table.hides(own)


def _shown(linker: Linker | None, is_narrow: bool) -> dict[str, ModuleType]:
    """Return the table of the base itself, or a snapshot of the table seen by code at work for a biz."""
    if linker is None:
        return all_of_base()
    is_seen = linker.table.locator.sight() if is_narrow else bool
    shown = {
        name: module
        for name, module in all_of_base().copy().items()
        if is_seen(name) and not _is_hidden(linker, name, module)
    }
    for name in linker.table.names():
        found = linker.table.find(name)
        if found is not ABSENT:  # removed by another thread meanwhile
            shown[name] = cast("ModuleType", found)
    return shown


def _take(linker: Linker | None, is_narrow: bool, name: str) -> ModuleType:
    if linker is not None:
        return linker.edits.take(name, is_narrow=is_narrow)
    module = take_of_base(name)
    unstore(name)
    base_changed(name)
    return module


def _enter(linker: Linker | None, is_narrow: bool, name: str, module: ModuleType) -> None:
    if linker is not None:
        linker.edits.put(name, module, is_narrow=is_narrow)
        return
    known = find_of_base(name)
    set_of_base(name, module)
    store(name, module)
    if known is not None and known is not module:
        base_changed(name)


def place_view(undo: contextlib.ExitStack) -> None:
    """Put the view in its place; ``undo`` gets callbacks that put back the original.

    A callback does nothing where another object has replaced the view. Called under the lock that guards the count of
    installers.
    """
    dict.update(_modules, REAL)
    views.append(_modules)
    undo.callback(dict.clear, _modules)
    undo.callback(views.remove, _modules)
    replace(undo, sys, "modules", _modules)


_modules: Final = ModulesView()  # always the same object, for code that keeps the object found at ``sys.modules``
