"""Find the biz that is a guest of the process; make warnings and errors for calls that would change the process."""

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
    """A biz tried to change a setting of the whole process; nothing was changed."""


@passed_over
def ignored(call: str, what: str) -> None:
    """Warn that a call of the running biz was ignored; ``what`` names the setting in words. For a replacement."""
    scope = current()
    assert scope is not None
    warnings.warn(
        f"biz {scope.biz} called {call}; {what} belongs to the whole process, so the call was ignored",
        ProcessWideWarning,
        stacklevel=3,
    )


_home = 0
"""Identifier of the process in which bizs are guests."""


def begin() -> None:
    """Make bizs guests of this process from now on: a server may have forked the process since the last call."""
    global _home  # noqa: PLW0603 - a forked child has a copy of it
    _home = os.getpid()


def guest() -> Scope | None:
    """Return the biz running beside others: ``None`` for the base, and in a child process forked by a biz."""
    scope = current()
    return scope if scope is None or os.getpid() == _home else None


def refused(call: str, what: str) -> PermissionError:
    """Make the error that refuses a call of the running biz; ``what`` names the setting in words.

    For calls after which a biz must not go on as if the call had been made.
    """
    message = (
        f"biz {current_name()} called {call}; {what} belongs to the whole process, so the call was refused; "
        "make the call in a child process, or before the base is started"
    )
    return PermissionError(errno.EPERM, message)


def current_name() -> str:
    """Return the running biz, for a message."""
    scope = current()
    return "?" if scope is None else str(scope.biz)
