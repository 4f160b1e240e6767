"""Putting something in the place of what the process had, for as long as somebody needs it, and putting it back.

Every replacement answers exactly as the original does while no biz is running, because the base and its libraries go on
using it.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import MutableMapping
from typing import TYPE_CHECKING, Any, SupportsIndex, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

T = TypeVar("T")
K = TypeVar("K")
V = TypeVar("V")

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


class ContextMapping(MutableMapping[K, V]):
    """A mapping that is another mapping, depending on who asks; ``target`` returns the one that is meant now."""

    __slots__ = ("_target",)

    def __init__(self, target: Callable[[], MutableMapping[K, V]]) -> None:
        self._target = target

    def __getitem__(self, key: K) -> V:
        return self._target()[key]

    def __setitem__(self, key: K, value: V) -> None:
        self._target()[key] = value

    def __delitem__(self, key: K) -> None:
        del self._target()[key]

    def __iter__(self) -> Iterator[K]:
        return iter(self._target())

    def __len__(self) -> int:
        return len(self._target())

    def __repr__(self) -> str:
        return repr(self._target())

    def clear(self) -> None:
        """Empty the mapping that is meant now."""
        self._target().clear()

    def copy(self) -> dict[K, V]:
        """A dictionary of its own."""
        return dict(self._target())


class ContextList(list[T]):
    """A list that is another list, depending on who asks.

    ``target`` returns the one that is meant now. The list's own storage is read by C code only, which cannot ask; it
    keeps what it was given as ``mirror``.
    """

    __slots__ = ("_target",)

    def __init__(self, target: Callable[[], list[T]], *, mirror: list[T] | None = None) -> None:
        super().__init__(mirror or ())
        self._target = target

    def __iadd__(self, other: Any) -> ContextList[T]:  # type: ignore[misc, override]
        self._target().extend(other)
        return self

    def __imul__(self, times: SupportsIndex) -> ContextList[T]:
        target = self._target()
        target *= times
        return self

    def __radd__(self, other: list[T]) -> list[T]:
        return other + self._target()

    def __reduce_ex__(self, protocol: SupportsIndex, /) -> tuple[Any, ...]:
        return list, (list(self._target()),)


def _by_context(name: str) -> Callable[..., Any]:
    plain = getattr(list, name)

    def method(self: ContextList[Any], /, *args: Any, **kwargs: Any) -> Any:
        others = (other._target() if isinstance(other, ContextList) else other for other in args)  # noqa: SLF001
        return plain(self._target(), *others, **kwargs)

    method.__name__ = method.__qualname__ = name
    method.__doc__ = plain.__doc__
    return method


_METHODS = """
__add__ __contains__ __delitem__ __eq__ __ge__ __getitem__ __gt__ __iter__ __le__ __len__ __lt__ __mul__ __ne__ __repr__
__reversed__ __rmul__ __setitem__ append clear copy count extend index insert pop remove reverse sort
"""
for _name in _METHODS.split():
    setattr(ContextList, _name, _by_context(_name))
