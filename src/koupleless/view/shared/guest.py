"""Who is a guest of the process, and what it is told when it would change something for everybody."""

from __future__ import annotations

import errno
import os
import warnings
from typing import TYPE_CHECKING

from koupleless.context import current
from koupleless.frames import passed_over

if TYPE_CHECKING:
    from koupleless.context import Scope


class ProcessWideWarning(RuntimeWarning):
    """A biz tried to change something that belongs to the whole process; nothing was changed."""


@passed_over
def ignored(call: str, what: str) -> None:
    """Warn that the running biz made a call that was ignored; ``what`` it would have changed. For a replacement."""
    scope = current()
    assert scope is not None
    warnings.warn(
        f"biz {scope.biz} called {call}; {what} belongs to the whole process, so this was ignored",
        ProcessWideWarning,
        stacklevel=3,
    )


_home = 0
"""The process that bizs are guests of."""


def begin() -> None:
    """Bizs are guests of this process from now on: a server may have forked it since the last time."""
    global _home  # noqa: PLW0603 - a forked child has a copy of it
    _home = os.getpid()


def guest() -> Scope | None:
    """The biz that is running beside others: ``None`` for the base, and in a child process that a biz has forked."""
    scope = current()
    return scope if scope is None or os.getpid() == _home else None


def refused(call: str, what: str) -> PermissionError:
    """The error for a call of the running biz after which it must not go on as if it had been made."""
    message = (
        f"biz {current_name()} called {call}; {what} belongs to the whole process, so this was refused; "
        "do it in a child process, or before the base is started"
    )
    return PermissionError(errno.EPERM, message)


def current_name() -> str:
    """The running biz, for a message."""
    scope = current()
    return "?" if scope is None else str(scope.biz)
