"""Recorder for ``tracemalloc``: tracing started by a biz ends with the biz, and no biz ends the tracing of others."""

from __future__ import annotations

import tracemalloc
from typing import TYPE_CHECKING, Any, Final

from koupleless.frames import standing_for
from koupleless.ownership.kinds import Pair
from koupleless.ownership.ledger import owner

if TYPE_CHECKING:
    from collections.abc import Callable

    from koupleless.ownership.recording import Patches

_TRACING: Final[Pair[None]] = Pair("tracemalloc", "tracemalloc.start", "tracemalloc.stop")
KINDS: Final = (_TRACING,)


def install(patches: Patches) -> None:
    """Replace the functions that start and stop the tracing."""
    patches.replace(tracemalloc, "start", _start_tracing)
    patches.replace(tracemalloc, "stop", _stop_tracing)


def _start_tracing(original: Callable[..., None]) -> Any:
    @standing_for(original)
    def start(nframe: int = 1) -> None:
        ledger = owner()
        if ledger is not None and not tracemalloc.is_tracing():
            _TRACING.add(ledger, None, "start", tracemalloc.stop)
        original(nframe)

    return start


def _stop_tracing(original: Callable[[], None]) -> Any:
    @standing_for(original)
    def stop() -> None:
        # The tracing of the base, or of another biz, goes on.
        if owner() is None or _TRACING.remove(None):
            original()

    return stop
