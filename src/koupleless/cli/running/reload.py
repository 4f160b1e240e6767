"""``arkctl serve --reload``: the base as a child process, ended and started again when its code changes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Final

from koupleless.cli.running import RELOADED

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import FrameType

_GONE_S: Final = 60.0
"""Seconds for a base to end in order; then it is killed."""


def serve_again(
    arguments: Sequence[str], directories: Sequence[Path], *, ignored: Sequence[Path], say: Callable[[str], object]
) -> int:
    """Serve until a signal ends this process; returns the exit status of the last base.

    ``arguments`` are those of ``arkctl``, ``ignored`` are directories to which bases write. A base that does not start,
    or ends, is started again at the next change. The modules come back as after any restart of a base. Only for the
    main thread.
    """
    import watchfiles  # noqa: PLC0415 - for this flag alone

    watched = [path.absolute() for path in directories] or [Path.cwd()]
    ending = threading.Event()
    before = {number: signal.signal(number, _setting(ending)) for number in (signal.SIGINT, signal.SIGTERM)}
    base = _start(arguments)
    try:
        say(f"watching {', '.join(map(str, watched))}: a saved Python file starts the base again")
        for changes in watchfiles.watch(
            *watched,
            watch_filter=watchfiles.PythonFilter(ignore_paths=ignored),
            debounce=200,
            step=50,
            stop_event=ending,
            raise_interrupt=False,
        ):
            changed = sorted({Path(path).name for _, path in changes})
            say(f"{', '.join(changed[:3])} changed: the base is started again")
            _end(base)
            base = _start(arguments)
    finally:
        status = _end(base)
        for number, handler in before.items():
            signal.signal(number, handler)
    return status


def _setting(ending: threading.Event) -> Callable[[int, FrameType | None], None]:
    def handle(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - as Python calls it
        ending.set()

    return handle


def _start(arguments: Sequence[str]) -> subprocess.Popen[bytes]:
    """Start the base in a process group of its own, so that Ctrl-C reaches this process alone."""
    command = [sys.executable, "-P", "-m", "koupleless", *arguments]
    return subprocess.Popen(command, env={**os.environ, RELOADED: "1"}, process_group=0)  # noqa: S603 - this program


def _end(base: subprocess.Popen[bytes]) -> int:
    base.terminate()
    try:
        return base.wait(_GONE_S)
    except subprocess.TimeoutExpired:
        base.kill()
        return base.wait()
