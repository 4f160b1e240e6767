"""Threads and tasks of bizs, counted by reading the lists of the process, and the processor time of the threads."""

from __future__ import annotations

import threading
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Final

from koupleless.recorders.loops.tasks import scope_of, tasks_of
from koupleless.recorders.running.threads import life_of
from koupleless.traffic import SERVES

if TYPE_CHECKING:
    import asyncio

_TASKS: Final = Path("/proc/self/task")
_PER_SECOND: Final = 1_000_000_000


def count_threads() -> Counter[int]:
    """The number of living threads started by each biz, by the number of its life."""
    lives = (life_of(thread) for thread in threading.enumerate())
    return Counter(life for life in lives if life is not None)


def count_tasks(loop: asyncio.AbstractEventLoop) -> Counter[int]:
    """The number of tasks of each biz on a loop that have not ended, by the number of its life. From any thread."""
    scopes = (scope_of(task) for task in tasks_of(loop))
    return Counter(scope.generation for scope in scopes if scope is not None)


def processor_seconds() -> tuple[Counter[int], Counter[str]]:
    """The processor time of living threads: of those started by bizs, by life, and of those that serve, by identity.

    Both are empty on systems other than Linux.
    """
    started: Counter[int] = Counter()
    serving: Counter[str] = Counter()
    for thread in threading.enumerate():
        life, served = life_of(thread), vars(thread).get(SERVES)
        if life is not None:
            started[life] += _seconds_of(thread)  # type: ignore[assignment]  # a counter of any numbers
        elif served is not None:
            serving[served] += _seconds_of(thread)  # type: ignore[assignment]  # the same
    return started, serving


def _seconds_of(thread: threading.Thread) -> float:
    """The processor time of one thread; 0 if the thread has ended, and where the system does not tell.

    Read from a file, since asking the clock of a thread that has just ended may end the process.
    """
    try:
        text = (_TASKS / str(thread.native_id) / "schedstat").read_text(encoding="ascii")
        return int(text.split(maxsplit=1)[0]) / _PER_SECOND
    except (OSError, ValueError, IndexError):
        return 0.0
