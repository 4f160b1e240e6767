"""Functions put by bizs in the place of shared ones, each working for its own biz alone.

In the place of the shared function stands a dispatcher, which calls the function of the running biz, else the original.
Bizs patch on top of each other: the second biz finds the dispatcher of the first, wraps the dispatcher, and calls it in
turn. So patches have levels. A dispatcher of level *n* knows the functions put there by each biz up to this level, and
calls the highest of these. In the biz with the patch of level *n* the highest is its own wrapper, which calls the
dispatcher below; the dispatcher below knows no function of this biz and calls the original. Nobody's patch is ever
called for somebody else, in whatever order bizs come and go, and a call costs one look-up however many bizs there are.

No patched object is woken here: its type is asked, and the attribute is set past any ``__setattr__``.
"""

from __future__ import annotations

import types
import weakref
from typing import TYPE_CHECKING, Any, Final

from koupleless.changes import forwarding
from koupleless.changes.forwarding import ABSENT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from koupleless.context import Scope

_TABLE: Final[Any] = type.__dict__["__dict__"].__get__
_MODULE_TABLE: Final[Any] = vars(types.ModuleType)["__dict__"].__get__


def table_of(holder: Any) -> Any:
    """The variables of a Python module, as the process has them, or of a class; read without running any code."""
    return _TABLE(holder) if issubclass(type(holder), type) else _MODULE_TABLE(holder)


def put(holder: Any, name: str, value: object) -> None:
    """Set an attribute of a Python module or class for the process, or delete it (``ABSENT``), past any hooks."""
    if issubclass(type(holder), type):
        if value is not ABSENT:
            type.__setattr__(holder, name, value)
        elif name in _TABLE(holder):
            type.__delattr__(holder, name)
    elif value is not ABSENT:
        _MODULE_TABLE(holder)[name] = value
    else:
        _MODULE_TABLE(holder).pop(name, None)


class Change:
    """The value put by one biz in one place."""

    __slots__ = ("level", "saw", "scope", "value")

    def __init__(self, scope: Scope, level: int, value: object, saw: object) -> None:
        self.scope = scope
        self.level = level
        self.value = value
        self.saw = saw
        """The value before; the biz puts this value back when the biz takes the change back itself."""


class Place:
    """One attribute of a shared Python module or class, changed by bizs; a data attribute, which all see.

    Lifetime: from the first change until the last biz leaves. Guarded by the lock of `changes`.
    """

    kind = "shared attribute"

    def __init__(self, holder: Any, name: str, original: object) -> None:
        self.holder = holder
        self.name = name
        self.original = original
        """The value in the holder's own table; ``ABSENT`` for an inherited attribute, or none."""
        self.standing = original
        """The value last known to stand there."""
        self.changes: list[Change] = []

    def change(self, scope: Scope, value: object) -> None:
        """Note a value put there by a biz, in the place of the value last known."""
        self.changes.append(Change(scope, self._next_level(), value, self.standing))
        self._stand(value)

    def take_back(self, found: object) -> Scope | None:
        """Forget the change of a biz which has put ``found``, the former value, back. Returns the scope, if any."""
        taken = next((change for change in reversed(self.changes) if change.saw is found), None)
        if taken is None:
            return None
        scope = taken.scope
        self.changes = [change for change in self.changes if change.scope is not scope or change.level < taken.level]
        self._renew(scope)
        self._put_top()
        return scope

    def leave(self, scope: Scope) -> bool:
        """Forget the changes of a biz; returns whether there were any. After the last one the original is back."""
        left = [change for change in self.changes if change.scope is not scope]
        if len(left) == len(self.changes):
            return False
        gone = [change for change in self.changes if change.scope is scope]
        for change in left:  # the value before for another biz may be one of these values
            for lower in reversed(gone):
                if change.saw is lower.value:
                    change.saw = lower.saw
        self.changes = left
        self._renew(scope)
        if table_of(self.holder).get(self.name, ABSENT) is self.standing:
            self._put_top()
        else:  # a value of somebody else, who relies on ours or does without
            self.standing = self._top()
        return True

    def is_of(self, scope: Scope) -> bool:
        """Whether a biz changed the attribute."""
        return any(change.scope is scope for change in self.changes)

    def _next_level(self) -> int:
        return max((change.level for change in self.changes), default=0) + 1

    def _put_top(self) -> None:
        top = self._top()
        self.standing = top
        if table_of(self.holder).get(self.name, ABSENT) is not top:
            put(self.holder, self.name, top)

    def _top(self) -> object:
        return self.changes[-1].value if self.changes else self.original

    def _stand(self, value: object) -> None:
        self.standing = value

    def _renew(self, scope: Scope) -> None:
        """Take in that a biz has fewer changes here."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name} of {self.holder!r}, {len(self.changes)} changes>"


class Patched(Place):
    """A place with a dispatcher: a function, method, class or static method, property, or an object used as such."""

    kind = "patch"

    def __init__(self, holder: Any, name: str, original: object) -> None:
        super().__init__(holder, name, original)
        self._tables: list[weakref.ref[_Chosen]] = []
        self._dispatcher: object = ABSENT

    def change(self, scope: Scope, value: object) -> None:
        """Note a value put there by a biz, from now on for this biz alone."""
        super().change(scope, value)
        level = self.changes[-1].level
        parts = forwarding.parts_of(self.holder, self.name, self.original, value)
        made = []
        for piece in parts.pieces:
            chosen = _Chosen(level, piece.extract)
            self._fill(chosen)
            self._tables.append(weakref.ref(chosen))
            made.append(parts.make(chosen, piece))
        self._dispatcher = parts.assemble(made)
        put(self.holder, self.name, self._dispatcher)
        self.standing = self._dispatcher

    def _fill(self, chosen: _Chosen, only: Scope | None = None) -> None:
        for change in self.changes:  # the highest comes last
            if change.level <= chosen.level and (only is None or change.scope is only):
                chosen[change.scope] = chosen.extract(change.value)

    def _renew(self, scope: Scope) -> None:
        for chosen in self._living():
            chosen.pop(scope, None)
            self._fill(chosen, scope)

    def _living(self) -> Iterator[_Chosen]:
        self._tables = [reference for reference in self._tables if reference() is not None]
        for reference in self._tables:
            chosen = reference()
            if chosen is not None:
                yield chosen

    def _top(self) -> object:
        return self._dispatcher if self.changes else self.original


class Shown(Patched):
    """A data attribute of a class, which each biz is shown with its own value."""

    kind = "shared attribute"


class _Chosen(dict["Scope | None", Any]):
    """The functions that a dispatcher calls, by the scope of the running biz."""

    __slots__ = ("__weakref__", "extract", "level")

    def __init__(self, level: int, extract: Callable[[Any], Any]) -> None:
        super().__init__()
        self.level = level
        self.extract = extract

    # Found by identity where the collector's search for holders compares.
    __hash__ = object.__hash__  # type: ignore[assignment]
    __eq__ = object.__eq__
