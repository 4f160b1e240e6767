"""pymongo: each biz has its own listeners for every client (``pymongo.monitoring.register``).

pymongo has no way to take a listener back, so a biz that traces its clients would stay in memory.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from koupleless.adapters.containers import OwnList, is_hidden
from koupleless.replacing import replace

if TYPE_CHECKING:
    import contextlib
    from collections.abc import Callable

DISTRIBUTIONS: Final = ("pymongo",)


def _follow_monitoring(undo: contextlib.ExitStack, module: Any) -> None:
    """``pymongo.monitoring``, with a list for each kind of listener in one named tuple."""
    listeners = module._LISTENERS  # noqa: SLF001 - it has no public name
    own = type(listeners)(*(OwnList(each, is_hidden) for each in listeners))

    def original() -> Any:
        for each, before in zip(own, listeners, strict=True):
            each.restore(before)
        return listeners

    replace(undo, module, "_LISTENERS", own, back=original)


FOLLOWED: Final[dict[str, Callable[[contextlib.ExitStack, Any], None]]] = {"pymongo.monitoring": _follow_monitoring}
