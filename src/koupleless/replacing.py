"""Replace parts of the process for as long as somebody needs the replacement, and put the originals back.

Every replacement answers exactly as the original does while no biz is running, because the base and its libraries go on
using it. All attributes that are replaced by Koupleless are replaced here: by the views, the hooks of imports, the
recorders and the adapters. Three kinds of replacement are different, and stand elsewhere:

- a variable of a Python module by context (`koupleless.contextual`): no attribute is replaced. The Python module
  becomes an instance of another class, because code reads the variable in the dictionary of the Python module, too;
- a dispatcher between the patches of bizs (`koupleless.changes`): a biz has replaced the attribute already, so the
  original comes from an earlier survey, and the dispatcher goes with the last patch below it;
- changes of a biz that are swept (`koupleless.recorders`): the attribute gets back what it had before the biz.
"""

from __future__ import annotations

import threading
import types
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable

MISSING: Final = object()
"""A value that is not there, where ``None`` may be one."""


def present(holder: Any, name: str) -> Any:
    """The value of an attribute set on ``holder`` itself, or of a key if ``holder`` is a dictionary; else `MISSING`.

    An inherited attribute is not set on ``holder``. An object without a dictionary is asked for the attribute.
    """
    if type(holder) is dict:
        return holder.get(name, MISSING)
    return vars(holder).get(name, MISSING) if hasattr(holder, "__dict__") else getattr(holder, name, MISSING)


class Replacement:
    """A value of ours in the place of an attribute of a Python module, class or object, or under a key of a dictionary.

    Replaces at once. ``back`` returns the value to put back, which is the one before by default; `MISSING` stands for
    an attribute that was inherited or not there, and is then again not set on ``holder``.
    """

    __slots__ = ("_back", "_before", "_holder", "_name", "_value")

    def __init__(self, holder: Any, name: str, value: object, *, back: Callable[[], object] | None = None) -> None:
        self._holder = holder
        self._name = name
        self._value = value
        self._before = present(holder, name)
        self._back = back
        _put(holder, name, value)

    def is_at(self, holder: object, name: str) -> bool:
        """Whether this is the place of the replacement."""
        return self._holder is holder and self._name == name

    def take_back(self) -> bool:
        """Put the original back, and return whether the replacement stood in its place.

        A replacement put over ours by somebody else in the meantime stays: it relies on ours, and ours passes
        everything through.
        """
        if present(self._holder, self._name) is not self._value:
            return False
        before = self._before if self._back is None else self._back()
        if before is MISSING:
            _take(self._holder, self._name)
        else:
            _put(self._holder, self._name, before)
        return True


def _put(holder: Any, name: str, value: object) -> None:
    if type(holder) is dict:
        holder[name] = value
    elif isinstance(holder, type | types.ModuleType):
        setattr(holder, name, value)
    else:  # past a ``__setattr__`` of the class, which may check the value, or do more than to keep it
        object.__setattr__(holder, name, value)


def _take(holder: Any, name: str) -> None:
    if type(holder) is dict:
        holder.pop(name, None)
    elif isinstance(holder, type | types.ModuleType):
        delattr(holder, name)
    else:
        object.__delattr__(holder, name)


def replace(
    undo: ExitStack, holder: Any, name: str, value: object, *, back: Callable[[], object] | None = None
) -> None:
    """Make a `Replacement`, and leave the way back with ``undo``."""
    undo.callback(Replacement(holder, name, value, back=back).take_back)


def specialise(undo: ExitStack, instance: Any, view: type) -> None:
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
    """Replacements shared by several users in a process: in with the first user, out with the last.

    ``put_in`` makes the replacements and leaves the way back of each with the stack given; if ``put_in`` raises, all
    replacements are undone. ``put_in`` may keep the stack and add to it for as long as the replacements are in.
    ``name`` stands for the replacements in errors, a plural. Thread-safe.
    """

    def __init__(self, name: str, put_in: Callable[[ExitStack], object]) -> None:
        self._name = name
        self._put_in = put_in
        self._lock = threading.Lock()
        self._users = 0
        self._undo = ExitStack()

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
        """Count one user less; the last takes the replacements back. Raises ``RuntimeError`` if there is no user."""
        with self._lock:
            if not self._users:
                raise RuntimeError(f"no {self._name} are installed")
            self._users -= 1
            if not self._users:
                self._undo.close()
