"""Putting something in the place of what the process had, for as long as somebody needs it, and putting it back.

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
    """Set ``target.name`` and leave its restoration with ``undo``.

    What was inherited, or not there, is not there again afterwards. If somebody else has put a replacement of theirs
    over ours in the meantime, it stays: it relies on ours, and ours passes everything through.
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

    The object keeps its identity and its data: code that imported it before the first biz came sees what code sees that
    imports it now. Raises ``TypeError`` if somebody has put an object of another kind there.
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
    """Replacements that several containers of a process share: in with the first of them, out with the last.

    ``put_in`` makes them and leaves each one's undo with the stack it is given; if it raises, what it did is undone. It
    may keep the stack and add to it for as long as the replacements are in. Thread-safe.
    """

    def __init__(self, put_in: Callable[[contextlib.ExitStack], None]) -> None:
        self._put_in = put_in
        self._lock = threading.Lock()
        self._users = 0
        self._undo = contextlib.ExitStack()

    @property
    def is_in(self) -> bool:
        """Whether anybody needs them now."""
        return self._users > 0

    def acquire(self) -> None:
        """One more needs them."""
        with self._lock:
            if not self._users:
                try:
                    self._put_in(self._undo)
                except BaseException:
                    self._undo.close()
                    raise
            self._users += 1

    def release(self) -> None:
        """One fewer needs them. More releases than acquisitions do nothing."""
        with self._lock:
            if not self._users:
                return
            self._users -= 1
            if not self._users:
                self._undo.close()
