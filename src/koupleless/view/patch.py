"""Replace objects of the process for as long as somebody needs the replacement, and put the originals back.

Every replacement answers exactly as the original does while no biz is running, because the base and its libraries go on
using it.
"""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

_ABSENT = object()


def replace(undo: contextlib.ExitStack, target: Any, name: str, value: object) -> None:
    """Set ``target.name`` and leave the way back with ``undo``.

    Afterwards an attribute that was inherited, or missing, is again not set on ``target``. A replacement put over ours
    by somebody else in the meantime stays: it relies on ours, and ours passes everything through.
    """
    before = vars(target).get(name, _ABSENT)
    setattr(target, name, value)

    def restore() -> None:
        if vars(target).get(name, _ABSENT) is not value:
            return
        if before is _ABSENT:
            delattr(target, name)
        else:
            setattr(target, name, before)

    undo.callback(restore)


def specialise(undo: contextlib.ExitStack, instance: Any, view: type) -> None:
    """Make a living object an instance of ``view``, a subclass of its class, and leave the way back with ``undo``.

    The object keeps identity and data: code with an import from before the first biz sees the same as code with a later
    import. Raises ``TypeError`` if somebody has put an object of another kind there.
    """
    before = type(instance)
    if before is not view.__base__:
        raise TypeError(f"{view.__name__} needs an instance of {view.__base__}, but found one of {before}")
    instance.__class__ = view

    def restore() -> None:
        if type(instance) is view:
            instance.__class__ = before

    undo.callback(restore)


class Shared:
    """Replacements shared by several containers of a process: in with the first container, out with the last.

    ``put_in`` makes the replacements and leaves the way back of each with the stack given; if ``put_in`` raises, all
    replacements are undone. ``put_in`` may keep the stack and add to it for as long as the replacements are in.
    Thread-safe.
    """

    def __init__(self, put_in: Callable[[contextlib.ExitStack], None]) -> None:
        self._put_in = put_in
        self._lock = threading.Lock()
        self._users = 0
        self._undo = contextlib.ExitStack()

    @property
    def is_in(self) -> bool:
        """Whether anybody needs the replacements now."""
        return self._users > 0

    def acquire(self) -> None:
        """Count one more user; the first makes the replacements. Raises errors of ``put_in``, and then counts none."""
        with self._lock:
            if not self._users:
                try:
                    self._put_in(self._undo)
                except BaseException:
                    self._undo.close()
                    raise
            self._users += 1

    def release(self) -> None:
        """Count one user less; the last takes the replacements back. Releases beyond acquisitions do nothing."""
        with self._lock:
            if not self._users:
                return
            self._users -= 1
            if not self._users:
                self._undo.close()
