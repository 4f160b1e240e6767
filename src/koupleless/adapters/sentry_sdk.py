"""Sentry: a client of the base says nothing of bizs that have Sentry themselves, and its threads are the base's.

Hooks of the base's client in shared libraries and in Python run for bizs too, and ask for the client each time. While a
biz with its own copy of Sentry runs, the client of the base is not found; nor does this client report an error from a
request of such a biz when the server logs the error. Errors of a biz without Sentry are reported by the base.
"""

from __future__ import annotations

import functools
import sys
from typing import TYPE_CHECKING, Any, Final

from koupleless.context import as_base, current
from koupleless.frames import standing_for
from koupleless.isolation.linking.linker import linker_of, owner_of
from koupleless.isolation.linking.table import ABSENT
from koupleless.replacing import replace
from koupleless.router.gate import Gate

if TYPE_CHECKING:
    import contextlib
    from collections.abc import Callable, Mapping
    from types import TracebackType

    from koupleless.isolation.linking.linker import Linker

distribution: Final = "sentry-sdk"

_THREADS: Final = {
    "sentry_sdk.worker": "BackgroundWorker.start",
    "sentry_sdk.sessions": "SessionFlusher._ensure_running",
    "sentry_sdk.monitor": "Monitor._ensure_running",
    "sentry_sdk._batcher": "Batcher._ensure_thread",
}
"""The methods that start a thread of the client at the first need; a version may lack some."""


def _follow_scope(undo: contextlib.ExitStack, module: Any) -> None:
    """``sentry_sdk.scope``."""
    original: Callable[[Any], Any] = vars(module.Scope)["get_client"].__func__
    nobody = sys.modules["sentry_sdk.client"].NonRecordingClient

    @standing_for(original)
    def get_client(cls: Any) -> Any:
        scope = current()
        return original(cls) if scope is None or not _has_own(linker_of(scope)) else nobody()

    replace(undo, module.Scope, "get_client", classmethod(get_client))


def _follow_client(undo: contextlib.ExitStack, module: Any) -> None:
    """``sentry_sdk.client``."""
    kind = module._Client  # noqa: SLF001 - ``Client`` may be asked for, and not be changed
    original = vars(kind)["capture_event"]

    @standing_for(original)
    def capture_event(self: Any, event: Any, hint: Any = None, scope: Any = None) -> Any:
        return None if _is_reported(hint or {}) else original(self, event, hint, scope)

    replace(undo, kind, "capture_event", capture_event)


def _has_own(linker: Linker | None) -> bool:
    return linker is not None and linker.table.find("sentry_sdk") is not ABSENT


def _is_reported(hint: Mapping[str, Any]) -> bool:
    """Whether an error has come out of a request of a biz with its own Sentry."""
    info = hint.get("exc_info")
    trace: TracebackType | None = info[2] if type(info) is tuple else getattr(info, "__traceback__", None)
    is_of_request = False
    while trace is not None:
        frame = trace.tb_frame
        is_of_request = is_of_request or frame.f_code is _SERVE
        if is_of_request and _has_own(owner_of(frame.f_builtins)):
            return True
        trace = trace.tb_next
    return False


_SERVE: Final = Gate.serve.__code__


def _follow_thread(path: str, undo: contextlib.ExitStack, module: Any) -> None:
    kind_name, _, name = path.partition(".")
    kind = getattr(module, kind_name, None)
    if kind is None or name not in vars(kind):
        return
    original = vars(kind)[name]

    @standing_for(original)
    def start(*args: Any, **kwargs: Any) -> Any:
        with as_base():
            return original(*args, **kwargs)

    replace(undo, kind, name, start)


follow: Final = {
    "sentry_sdk.scope": _follow_scope,
    "sentry_sdk.client": _follow_client,
    **{name: functools.partial(_follow_thread, path) for name, path in _THREADS.items()},
}
