"""Give each biz its own ``csv`` dialects, over the process's.

C code keeps, and looks up, the process's dialects. So the functions with a name as an argument are replaced; for a biz
they hand on the dialect itself.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Final

from koupleless.frames import standing_for
from koupleless.replacing import replace
from koupleless.view.own import Overlay, own_of

if TYPE_CHECKING:
    import contextlib
    from collections.abc import Callable

_KEY: Final = "dialects"


def put_in(undo: contextlib.ExitStack, csv: Any) -> None:
    """Replace the functions, in the module and in the C half."""
    registry = _Registry(csv)
    functions: dict[str, Callable[..., Any]] = {
        name: getattr(registry, name)
        for name in ("get_dialect", "list_dialects", "reader", "register_dialect", "unregister_dialect", "writer")
    }
    for module in (csv, sys.modules["_csv"]):
        for name, function in functions.items():
            replace(undo, module, name, function)


class _Registry:
    """The functions by context; made for one installation."""

    def __init__(self, csv: Any) -> None:
        self._csv = csv
        self._dialect: Any = sys.modules["_csv"].Dialect
        self._get = csv.get_dialect
        self._list = csv.list_dialects
        self._register = csv.register_dialect
        self._unregister = csv.unregister_dialect
        self.reader = self._resolving(csv.reader)
        self.writer = self._resolving(csv.writer)

    def _here(self) -> Overlay | None:
        own = own_of("csv")
        if own is None:
            return None
        if _KEY not in own:
            own.setdefault(_KEY, Overlay(_OfProcess(self._get, self._list)))
        return own[_KEY]  # type: ignore[no-any-return]

    def _resolved(self, dialect: Any) -> Any:
        """Return the dialect itself, if a name is given and the running biz has dialects."""
        own = own_of("csv")
        if own is None or _KEY not in own or not isinstance(dialect, str):
            return dialect
        return self.get_dialect(dialect)

    def _resolving(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @standing_for(original)
        def make(file: Any, /, dialect: Any = "excel", **options: Any) -> Any:
            return original(file, self._resolved(dialect), **options)

        return make

    def register_dialect(self, name: str, /, dialect: Any = "excel", **options: Any) -> None:
        here = self._here()
        if here is None or not isinstance(name, str):
            self._register(name, dialect, **options)  # the original refuses a name of another type
        else:
            here[name] = self._dialect(self._resolved(dialect), **options)

    def unregister_dialect(self, name: str, /) -> None:
        here = self._here()
        if here is None:
            self._unregister(name)
            return
        if name not in here:
            raise self._csv.Error("unknown dialect")
        del here[name]

    def get_dialect(self, name: str, /) -> Any:
        here = self._here()
        if here is None:
            return self._get(name)
        try:
            return here[name]
        except KeyError:
            raise self._csv.Error("unknown dialect") from None

    def list_dialects(self) -> list[str]:
        here = self._here()
        return self._list() if here is None else list(here)


class _OfProcess(dict[str, Any]):
    """The process's dialects, as a mapping for reads without entries of its own."""

    def __init__(self, get: Callable[[str], Any], names: Callable[[], list[str]]) -> None:
        super().__init__()
        self._get = get
        self._names = names

    def __getitem__(self, name: str) -> Any:
        if name not in self:
            raise KeyError(name)
        return self._get(name)

    def __contains__(self, name: object) -> bool:
        return name in self._names()

    def __iter__(self) -> Any:
        return iter(self._names())
