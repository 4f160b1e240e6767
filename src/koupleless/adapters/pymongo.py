"""pymongo: each biz has its own listeners for every client (``pymongo.monitoring.register``).

pymongo has no way to take a listener back, so a biz that traces its clients would stay in memory. Clients of a biz are
closed with the biz.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from koupleless.adapters.containers import OwnList, is_hidden
from koupleless.recorders.running.closing import Closer, calling
from koupleless.replacing import replace

if TYPE_CHECKING:
    import contextlib
    from collections.abc import Callable

distribution: Final = "pymongo"


def _follow_monitoring(undo: contextlib.ExitStack, module: Any) -> None:
    """``pymongo.monitoring``, with a list for each kind of listener in one named tuple."""
    listeners = module._LISTENERS  # noqa: SLF001 - it has no public name
    own = type(listeners)(*(OwnList(each, is_hidden) for each in listeners))

    def original() -> Any:
        for each, before in zip(own, listeners, strict=True):
            each.restore(before)
        return listeners

    replace(undo, module, "_LISTENERS", own, back=original)


_CLIENTS: Final = Closer(
    "MongoDB client", "pymongo.synchronous.mongo_client", "MongoClient", calling("close", unless="_closed")
)
KINDS: Final = (_CLIENTS,)

follow_own: Final[dict[str, Callable[[contextlib.ExitStack, Any], None]]] = {_CLIENTS.module: _CLIENTS.follow}
"""Followed in own copies and own versions of a biz, too."""
follow: Final = {"pymongo.monitoring": _follow_monitoring, **follow_own}
