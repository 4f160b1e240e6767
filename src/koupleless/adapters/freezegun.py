"""freezegun: a biz that freezes time freezes its own time.

Functions put into ``time`` and ``datetime`` are seen by the biz alone (`view.clocks`). freezegun also goes through all
loaded Python modules and replaces functions imported by name: here, only in Python modules executed by the biz itself,
for the others are shared. The way ``pickle`` reduces dates is each biz's own as well.
"""

from __future__ import annotations

import copyreg
import pickle
import sys
from collections.abc import Iterator, Mapping
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final

from koupleless.context import current
from koupleless.isolation.linking.linker import linker_of
from koupleless.replacing import replace

if TYPE_CHECKING:
    import contextlib
    from collections.abc import Callable
    from types import ModuleType

distribution: Final = "freezegun"  # keeps the frozen times, so each biz has a copy


class _Modules(Mapping[str, "ModuleType"]):
    """The Python modules executed by the running biz."""

    def _table(self) -> Mapping[str, ModuleType]:
        linker = linker_of(current())
        return sys.modules if linker is None else linker.table.executed()

    def __getitem__(self, name: str) -> ModuleType:
        return self._table()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._table())

    def __len__(self) -> int:
        return len(self._table())


class _Reducers:
    """``copyreg.dispatch_table``, through the function by which each biz has entries of its own."""

    def __setitem__(self, kind: type, reduce: Callable[[Any], Any]) -> None:
        copyreg.pickle(kind, reduce)

    def pop(self, kind: type) -> None:
        """Let objects of a class be pickled as ever."""
        if current() is None:
            copyreg.dispatch_table.pop(kind)
        else:
            copyreg.pickle(kind, _reduce)


def _reduce(value: Any) -> Any:
    return value.__reduce_ex__(pickle.HIGHEST_PROTOCOL)


def _follow(undo: contextlib.ExitStack, module: Any) -> None:
    """``freezegun.api``."""
    for name, stand_in in {
        "sys": SimpleNamespace(modules=_Modules()),
        "copyreg": SimpleNamespace(dispatch_table=_Reducers()),
    }.items():
        replace(undo, module, name, stand_in)


follow: Final = {"freezegun.api": _follow}
follow_own: Final = follow
"""Followed in own copies and own versions of a biz, too."""
