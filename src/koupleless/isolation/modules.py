"""``sys.modules``, ``sys.path`` and ``sys.meta_path`` as code sees them: each answers for the biz that is running.

While a biz runs, its own modules lie over those of the base, its own search path before the base's, and its import
hooks are its alone; with no biz running they are what they were before. The interpreter keeps its own table
(``linker.REAL``), which C code reads directly and which never holds a module of a biz.
"""
# ruff: noqa: D102 - the methods are those of dict and list

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, cast, overload

from koupleless.context import current
from koupleless.isolation.interpreter import (
    REAL,
    all_of_base,
    find_of_base,
    of_base,
    set_of_base,
    store,
    take_of_base,
    unstore,
    views,
    withheld,
)
from koupleless.isolation.linker import asking, base_changed, linker_of

if TYPE_CHECKING:
    from collections.abc import Callable, ItemsView, Iterable, Iterator, KeysView, Mapping, ValuesView
    from types import ModuleType
    from typing import Self, SupportsIndex

    from koupleless.isolation.linker import Linker

T = TypeVar("T")
_ABSENT: Any = object()


class ModulesView(dict[str, "ModuleType"]):
    """What stands at ``sys.modules`` while there are bizs.

    A ``dict`` for code that checks; every operation goes to the running biz's table over the interpreter's, or straight
    to the interpreter's. Deleting a module of the base as a biz leaves it where it is. What ``keys``, ``values`` and
    ``items`` return as a biz are snapshots.
    """

    __slots__ = ()

    def __getitem__(self, name: str) -> ModuleType:
        linker = asking()
        return of_base(name) if linker is None else _seen(linker, name)

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
            return name in REAL or name in withheld
        try:
            _seen(linker, name)
        except KeyError:
            return False
        return True

    def __setitem__(self, name: str, module: ModuleType) -> None:
        _enter(asking(), name, module)

    def __delitem__(self, name: str) -> None:
        linker = asking()
        if linker is not None:
            linker.take(name)
            return
        take_of_base(name)
        unstore(name)
        base_changed(name)

    def pop(self, name: str, default: Any = _ABSENT, /) -> Any:
        linker = asking()
        try:
            if linker is not None:
                return linker.take(name)
            module = take_of_base(name)
        except KeyError:
            if default is _ABSENT:
                raise
            return default
        unstore(name)
        base_changed(name)
        return module

    def popitem(self) -> tuple[str, ModuleType]:
        linker = asking()
        table = REAL if linker is None else linker.table
        name, module = table.popitem()
        if linker is None:
            base_changed(name)
        else:
            linker.forget()
        return name, module

    def setdefault(self, name: str, default: ModuleType | None = None, /) -> ModuleType:
        linker = asking()
        if linker is None:
            known = find_of_base(name)
            return REAL.setdefault(name, cast("ModuleType", default)) if known is None else known
        try:
            return _seen(linker, name)
        except KeyError:
            linker.put(name, cast("ModuleType", default))
            return cast("ModuleType", default)

    def update(self, other: Any = (), /, **names: ModuleType) -> None:
        linker = asking()
        for name, module in dict(other, **names).items():
            _enter(linker, name, module)

    def clear(self) -> None:
        linker = asking()
        if linker is None:
            REAL.clear()
        else:
            linker.table.clear()
            linker.forget()

    def copy(self) -> dict[str, ModuleType]:
        return _shown(asking()).copy()

    def __iter__(self) -> Iterator[str]:
        return iter(_shown(asking()))

    def __reversed__(self) -> Iterator[str]:
        return reversed(_shown(asking()))

    def __len__(self) -> int:
        return len(_shown(asking()))

    def __bool__(self) -> bool:
        return True

    def keys(self) -> KeysView[str]:  # type: ignore[override]
        return _shown(asking()).keys()

    def values(self) -> ValuesView[ModuleType]:  # type: ignore[override]
        return _shown(asking()).values()

    def items(self) -> ItemsView[str, ModuleType]:  # type: ignore[override]
        return _shown(asking()).items()

    def __or__(self, other: Any) -> Any:
        return _shown(asking()) | dict(other) if isinstance(other, dict) else NotImplemented

    def __ror__(self, other: Any) -> Any:
        return dict(other) | _shown(asking()) if isinstance(other, dict) else NotImplemented

    def __ior__(self, other: Any) -> Self:  # type: ignore[override]
        linker = asking()
        for name, module in dict(other).items():
            _enter(linker, name, module)
        return self

    def __eq__(self, other: object) -> bool:
        return other is self or _shown(asking()) == other

    def __ne__(self, other: object) -> bool:  # a dict has one of its own
        return other is not self and _shown(asking()) != other

    __hash__: ClassVar[None]

    def __repr__(self) -> str:
        return repr(_shown(asking()))

    def __reduce_ex__(self, protocol: SupportsIndex) -> Any:
        return _shown(asking()).copy().__reduce_ex__(protocol)

    def __copy__(self) -> dict[str, ModuleType]:
        return _shown(asking()).copy()

    def __sizeof__(self) -> int:
        return REAL.__sizeof__()


def _seen(linker: Linker, name: str) -> ModuleType:
    try:
        return cast("ModuleType", linker.find(name))
    except KeyError:
        if linker.hides(name):
            raise
    return of_base(name)


def _shown(linker: Linker | None) -> dict[str, ModuleType]:
    """The table of the base itself, or a snapshot of what a biz sees."""
    if linker is None:
        return all_of_base()
    shown = {name: module for name, module in all_of_base().copy().items() if not linker.hides(name)}
    for name in linker.names():
        with contextlib.suppress(KeyError):  # removed by another thread meanwhile
            shown[name] = cast("ModuleType", linker.find(name))
    return shown


def _enter(linker: Linker | None, name: str, module: ModuleType) -> None:
    if linker is not None:
        linker.put(name, module)
        return
    known = find_of_base(name)
    set_of_base(name, module)
    store(name, module)
    if known is not None and known is not module:
        base_changed(name)


class ListView(list[Any]):
    """What stands at ``sys.path`` or ``sys.meta_path`` while there are bizs: the running biz's list, or the base's.

    A ``list`` for code that checks. Its own storage, which only C code that bypasses every method would read, keeps
    what the base's list held when the view was made.
    """

    __slots__ = ("_of", "_real")

    def __init__(self, real: list[Any], of: Callable[[Linker], list[Any]]) -> None:
        super().__init__(real)
        self._real = real
        self._of = of

    def _shown(self) -> list[Any]:
        linker = linker_of(current())
        shown: list[Any] = self._real if linker is None else self._of(linker)
        return shown

    def __getitem__(self, at: Any) -> Any:
        return self._shown()[at]

    def __setitem__(self, at: Any, value: Any) -> None:
        self._shown()[at] = value

    def __delitem__(self, at: Any) -> None:
        del self._shown()[at]

    def __iter__(self) -> Iterator[Any]:
        return iter(self._shown())

    def __reversed__(self) -> Iterator[Any]:
        yield from reversed(self._shown())

    def __len__(self) -> int:
        return len(self._shown())

    def __contains__(self, value: object) -> bool:
        return value in self._shown()

    def __add__(self, other: Any) -> Any:
        return self._shown() + list(other) if isinstance(other, list) else NotImplemented

    def __radd__(self, other: Any) -> Any:
        return list(other) + self._shown() if isinstance(other, list) else NotImplemented

    def __iadd__(self, other: Iterable[Any]) -> Self:  # type: ignore[misc]
        self._shown().extend(other)
        return self

    def __mul__(self, times: SupportsIndex) -> list[Any]:
        return self._shown() * times

    __rmul__ = __mul__

    def __eq__(self, other: object) -> bool:
        return other is self or self._shown() == other

    def __ne__(self, other: object) -> bool:  # a list has one of its own
        return other is not self and self._shown() != other

    def __lt__(self, other: list[Any]) -> bool:
        return self._shown() < list(other)

    def __le__(self, other: list[Any]) -> bool:
        return self._shown() <= list(other)

    def __gt__(self, other: list[Any]) -> bool:
        return self._shown() > list(other)

    def __ge__(self, other: list[Any]) -> bool:
        return self._shown() >= list(other)

    __hash__: ClassVar[None]

    def append(self, value: Any, /) -> None:
        self._shown().append(value)

    def extend(self, values: Iterable[Any], /) -> None:
        self._shown().extend(values)

    def insert(self, at: SupportsIndex, value: Any, /) -> None:
        self._shown().insert(at, value)

    def pop(self, at: SupportsIndex = -1, /) -> Any:
        return self._shown().pop(at)

    def remove(self, value: Any, /) -> None:
        self._shown().remove(value)

    def clear(self) -> None:
        self._shown().clear()

    def copy(self) -> list[Any]:
        return self._shown().copy()

    def count(self, value: Any, /) -> int:
        return self._shown().count(value)

    def index(self, value: Any, *between: SupportsIndex) -> int:
        return self._shown().index(value, *between)

    def reverse(self) -> None:
        self._shown().reverse()

    def sort(self, *, key: Any = None, reverse: bool = False) -> None:
        self._shown().sort(key=key, reverse=reverse)

    def __repr__(self) -> str:
        return repr(self._shown())

    def __reduce_ex__(self, protocol: SupportsIndex) -> Any:
        return self._shown().copy().__reduce_ex__(protocol)

    def __copy__(self) -> list[Any]:
        return self._shown().copy()


def base_path() -> list[str]:
    """The base's own ``sys.path``, whoever is running."""
    return sys.path._real if isinstance(sys.path, ListView) else sys.path  # noqa: SLF001


class Views:
    """The three views in their places; `remove` puts back what was there, wherever nobody else has replaced it since.

    Made and removed under the lock of whoever counts the installers.
    """

    def __init__(self) -> None:
        self._placed: Mapping[str, tuple[object, object]] = {
            "modules": (sys.modules, ModulesView()),
            "path": (sys.path, ListView(sys.path, lambda linker: linker.search_path)),
            "meta_path": (sys.meta_path, ListView(sys.meta_path, lambda linker: linker.meta_path)),
        }
        self._modules = cast("ModulesView", self._placed["modules"][1])
        dict.update(self._modules, REAL)
        views.append(self._modules)
        for name, (_, view) in self._placed.items():
            setattr(sys, name, view)

    def remove(self) -> None:
        """Undo the construction."""
        for name, (original, view) in self._placed.items():
            if getattr(sys, name) is view:
                setattr(sys, name, original)
        views[:] = [view for view in views if view is not self._modules]
        dict.clear(self._modules)
