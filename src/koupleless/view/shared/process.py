"""Keep settings that exist once per process out of a biz's reach.

A call of a biz to change one for everybody is refused where going on would do harm (the user of the process). Such a
call is ignored, with a warning naming the biz, where the biz can do without. The working directory is each biz's own.
Asking for the present value is always allowed. Signals and exception hooks belong to ``ownership``, where registrations
can be undone.
"""

from __future__ import annotations

import errno
import locale
import os
import signal
import socket
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from koupleless.frames import standing_for
from koupleless.replacing import Shared, replace
from koupleless.view.shared import settings
from koupleless.view.shared.guest import ProcessWideWarning, begin, guest, ignored
from koupleless.view.working import WorkingDirectory

if TYPE_CHECKING:
    import contextlib
    from collections.abc import Callable

__all__ = ["GUARDS", "ProcessWideWarning"]

_STATUS: Final = Path("/proc/self/status")


def _change_directory(original: Callable[[Any], None]) -> Callable[[Any], None]:
    @standing_for(original)
    def change(path: Any) -> None:
        scope = guest()
        if scope is None or scope.find_facet(WorkingDirectory) is not None:
            original(path)
        elif not os.path.samestat(os.stat(path), os.stat(os.curdir)):  # noqa: PTH116 - it may be a descriptor
            raise PermissionError(
                errno.EPERM,
                f"biz {scope.biz} may not change the working directory, which belongs to the whole process; "
                "use absolute paths",
                path,
            )

    return change


def _set_locale(original: Callable[..., str]) -> Callable[..., str]:
    @standing_for(original)
    def setlocale(category: int, locale: Any = None) -> str:
        now = original(category, None)
        if guest() is None or locale is None:
            return original(category, locale)
        if not _is_locale(now, locale):
            ignored(f"locale.setlocale({category}, {locale!r})", "the locale")
        return now

    return setlocale


def _replace_setlocale(undo: contextlib.ExitStack) -> None:
    """Replace the function of the C library under all its names."""
    compiled: Any = sys.modules["_locale"]
    guarded = _set_locale(compiled.setlocale)
    replace(undo, compiled, "setlocale", guarded)
    replace(undo, locale, "_setlocale", guarded)  # called by ``locale.resetlocale``
    replace(undo, locale, "setlocale", _set_locale(locale.setlocale))


def _is_locale(now: str, wanted: Any) -> bool:
    if not isinstance(wanted, str):
        wanted = locale.normalize(".".join(part for part in wanted if part)) if wanted else "C"
    return wanted == now or (wanted == "C" and now == "POSIX")


def _set_timeout(original: Callable[[float | None], None]) -> Callable[[float | None], None]:
    @standing_for(original)
    def setdefaulttimeout(timeout: float | None, /) -> None:
        if guest() is None:
            original(timeout)
        elif timeout != socket.getdefaulttimeout():
            ignored(f"socket.setdefaulttimeout({timeout})", "the default timeout of sockets")

    return setdefaulttimeout


def _set_umask(original: Callable[[int], int]) -> Callable[[int], int]:
    @standing_for(original)
    def umask(mask: int, /) -> int:
        if guest() is None:
            return original(mask)
        now = _present_umask()
        if mask != now:
            ignored(f"os.umask({mask:#o})", "the mask of new files' permissions")
        return now

    return umask


def _present_umask() -> int:
    """Return the mask without setting one: another thread could create a file in the moment between two settings."""
    try:
        for line in _STATUS.read_text().splitlines():
            if line.startswith("Umask:"):
                return int(line.split()[1], 8)
    except OSError:
        pass  # no /proc on this system
    return 0o022


def _set_recursion_limit(original: Callable[[int], None]) -> Callable[[int], None]:
    @standing_for(original)
    def setrecursionlimit(limit: int, /) -> None:
        if guest() is None:
            original(limit)
        elif limit != sys.getrecursionlimit():
            ignored(f"sys.setrecursionlimit({limit})", "the recursion limit")

    return setrecursionlimit


def _set_signal(original: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    @standing_for(original)
    def handle(signalnum: Any, handler: Any) -> Any:
        if guest() is None:
            return original(signalnum, handler)
        now = signal.getsignal(signalnum)
        if handler != now:
            ignored(f"signal.signal({signalnum!s}, ...)", "the handling of signals")
        return now

    return handle


def _set_wakeup_fd(original: Callable[..., int]) -> Callable[..., int]:
    @standing_for(original)
    def set_wakeup_fd(*args: Any, **kwargs: Any) -> int:
        if guest() is None:
            return original(*args, **kwargs)
        ignored("signal.set_wakeup_fd", "the handling of signals")
        return -1

    return set_wakeup_fd


def _set_tracer(what: str) -> Callable[[Callable[[Any], None]], Callable[[Any], None]]:
    def make(original: Callable[[Any], None]) -> Callable[[Any], None]:
        @standing_for(original)
        def set_tracer(func: Any) -> None:
            if guest() is None:
                original(func)
            else:
                ignored(f"threading.{what}", "the trace function of new threads")

        return set_tracer

    return make


def _close_stream(name: str, original: Callable[[], Any]) -> Callable[[], Any]:
    @standing_for(original)
    def close() -> Any:
        if guest() is None:
            return original()
        ignored(f"sys.{name}.close()", "a standard stream")
        return None

    return close


def _keep_streams_open(undo: contextlib.ExitStack) -> None:
    """Keep the present standard streams open; a stream that takes no attributes cannot be guarded."""
    for name in ("stdin", "stdout", "stderr"):
        for stream in dict.fromkeys((getattr(sys, name), getattr(sys, f"__{name}__"))):
            if hasattr(stream, "__dict__") and hasattr(stream, "close"):
                replace(undo, stream, "close", _close_stream(name, stream.close))


def _put_in(undo: contextlib.ExitStack) -> None:
    begin()
    _keep_streams_open(undo)
    replace(undo, os, "chdir", _change_directory(os.chdir))
    replace(undo, os, "fchdir", _change_directory(os.fchdir))
    replace(undo, os, "umask", _set_umask(os.umask))
    _replace_setlocale(undo)
    replace(undo, socket, "setdefaulttimeout", _set_timeout(socket.setdefaulttimeout))
    replace(undo, signal, "signal", _set_signal(signal.signal))
    replace(undo, signal, "set_wakeup_fd", _set_wakeup_fd(signal.set_wakeup_fd))
    replace(undo, threading, "settrace", _set_tracer("settrace")(threading.settrace))
    replace(undo, threading, "setprofile", _set_tracer("setprofile")(threading.setprofile))
    replace(undo, sys, "setrecursionlimit", _set_recursion_limit(sys.setrecursionlimit))
    settings.put_in(undo)


GUARDS: Final = Shared("guards of settings of the process", _put_in)
"""Process-wide settings out of the reach of bizs."""
