"""Django: receivers of a biz leave signals of the base with the biz, where bizs share Django."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Final

from koupleless.adapters.signals import Signals, follow_signals

if TYPE_CHECKING:
    import contextlib
    from collections.abc import Callable

distribution: Final = "django"


def _take_out(signal: Any, key: Any) -> None:
    with signal.lock:
        signal.receivers = [entry for entry in signal.receivers if entry[0] != key]
        signal.sender_receivers_cache.clear()


_SIGNALS: Final = Signals(lambda signal: {entry[0]: entry[1] for entry in list(signal.receivers)}, _take_out)

follow: Final[dict[str, Callable[[contextlib.ExitStack, Any], None]]] = {
    "django.dispatch.dispatcher": functools.partial(follow_signals, _SIGNALS)
}
