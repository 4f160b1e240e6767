"""The kinds of registration of a biz: each has a way to be seen, a way to be undone, or a way to be found.

A recorder declares each kind that it sees as one value, and writes registrations into ledgers by the value alone:

- a `Kind` for registrations with an undo of their own;
- a `Pair` for registrations that one function adds and another one removes;
- a `Herd` for objects of one class, kept weakly, with one entry for all objects of a biz;
- an `OwnEntry` for registries in which each biz has an entry of its own under a key that all share;
- a `Trampoline` for hooks without a way back.

Registrations that are only found, when a biz leaves, are a `Sweep` of ``purge``. `Own` is a value for each biz, and
keeps the books of the kinds.
"""

from __future__ import annotations

import functools
import weakref
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from koupleless.context import current
from koupleless.ownership.ledger import NOTHING, Entry, Order, owner, take_out

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from koupleless.context import Scope
    from koupleless.ownership.ledger import Ledger

K = TypeVar("K")
T = TypeVar("T")


# --- a value for each biz --------------------------------------------------------------------------------------------


class _Values:
    """The values of one biz by key: a facet of the scope."""

    __slots__ = ("__weakref__", "table")

    def __init__(self) -> None:
        self.table: dict[Own[Any], Any] = {}


_everybody: Final[dict[int, weakref.ref[_Values]]] = {}
"""The values of all present bizs, by address, in the order of arrival."""


def _values_of(scope: Scope) -> _Values:
    values = scope.find_facet(_Values)
    if values is None:
        made = _Values()
        values = scope.attach_once(made)
        if values is made:
            key = id(made)
            _everybody[key] = weakref.ref(made, lambda _: _everybody.pop(key, None))
    return values


class Own(Generic[T]):
    """A value of each biz alone, made by ``make`` when the biz first needs the value.

    Lifetime: the value goes with the biz; with ``is_swept`` it stays for the purge, which asks the `Survey` for it, and
    keeps nothing of the biz alive. Threads: any; if two threads make the value at once, one result is kept. No
    lock is taken, since a collection may run code of a biz, which asks for a value, at any moment.
    """

    __slots__ = ("__weakref__", "_make", "is_swept")

    def __init__(self, make: Callable[[], T], *, is_swept: bool = False) -> None:
        self._make = make
        self.is_swept = is_swept

    def find(self, scope: Scope) -> T | None:
        """The value of a biz, if the value has been made."""
        values = scope.find_facet(_Values)
        return None if values is None else values.table.get(self)

    def of(self, scope: Scope) -> T:
        """The value of a biz. A closed scope gets a value that is not kept."""
        known = self.find(scope)
        if known is not None:
            return known
        made = self._make()  # may import Python modules, and ask for other values
        return made if scope.is_closed else _values_of(scope).table.setdefault(self, made)

    def take(self, scope: Scope) -> T | None:
        """Take the value of a biz out and return it; a later need makes another value."""
        values = scope.find_facet(_Values)
        return None if values is None else values.table.pop(self, None)

    def peek(self) -> T | None:
        """The value of the running biz, if the value has been made; ``None`` otherwise, and for the base."""
        scope = current()
        return None if scope is None else self.find(scope)

    def get(self) -> T | None:
        """The value of the running biz; ``None`` for the base, and after the biz has left."""
        scope = current()
        return None if scope is None or scope.is_closed else self.of(scope)

    def put(self, value: T) -> None:
        """Make ``value`` the value of the running biz. Nothing happens for the base, and after the biz has left."""
        scope = current()
        if scope is not None and not scope.is_closed:
            _values_of(scope).table[self] = value

    def of_everybody(self) -> list[T]:
        """The values made so far, of all present bizs."""
        tables = [values.table for reference in tuple(_everybody.values()) if (values := reference()) is not None]
        return [table[self] for table in tables if self in table]


def swept_of(scope: Scope) -> dict[Own[Any], Any]:
    """The values of a biz that stay for the purge."""
    values = scope.find_facet(_Values)
    table = {} if values is None else values.table
    return {own: value for own, value in list(table.items()) if own.is_swept}


# --- kinds -----------------------------------------------------------------------------------------------------------


class Kind:
    """One kind of registration, as reports and the table of kinds name it.

    ``seen`` names the functions that make such a registration, and ``undone`` says how it is taken back.
    """

    __slots__ = ("name", "order", "seen", "undone")

    def __init__(self, name: str, seen: str, undone: str, *, order: Order = Order.REST) -> None:
        self.name = name
        self.seen = seen
        self.undone = undone
        self.order = order

    def record(self, ledger: Ledger, what: str, undo: Callable[[], object]) -> Entry:
        """Write one registration of this kind down; see `Ledger.record`."""
        return ledger.record(self.name, what, undo, order=self.order)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"


class Pair(Kind, Generic[K]):
    """Registrations that one function adds and another one removes; a removed registration is struck out.

    The recorder knows a registration by a key, of which each biz has its own.
    """

    __slots__ = ("_entries",)

    def __init__(self, name: str, seen: str, undone: str, *, order: Order = Order.REST) -> None:
        super().__init__(name, seen, undone, order=order)
        self._entries: Own[dict[K, Entry]] = Own(dict)

    def add(self, ledger: Ledger, key: K, what: str, undo: Callable[[], object]) -> None:
        """Write a registration down under ``key``."""
        self._entries.of(ledger.scope)[key] = self.record(ledger, what, undo)

    def of_running(self) -> Mapping[K, Entry]:
        """The registrations of the running biz that were not removed, by key; none for the base."""
        return self._entries.peek() or {}

    def remove(self, key: K) -> bool:
        """Strike out a registration of the running biz. Returns whether there was one under ``key``."""
        ledger, entries = owner(), self._entries.peek()
        entry = None if entries is None else entries.pop(key, None)
        if ledger is None or entry is None:
            return False
        ledger.forget(entry)
        return True


class Herd(Kind, Generic[T]):
    """Objects made by a biz, kept weakly and by address, with one entry for all of them.

    An object may have no hash yet, or claim to equal others. ``end`` is called with the ledger and the objects that are
    still in memory, the first made first; it may return a `Pending`.
    """

    __slots__ = ("_end", "_members", "_what")

    def __init__(
        self,
        name: str,
        seen: str,
        undone: str,
        *,
        what: str,
        end: Callable[[Ledger, list[T]], object],
        order: Order = Order.REST,
    ) -> None:
        super().__init__(name, seen, undone, order=order)
        self._what = what
        self._end = end
        self._members: Own[dict[int, weakref.ref[Any]]] = Own(dict)

    def add(self, ledger: Ledger, thing: T) -> None:
        """Add an object to the herd of a biz. Raises ``TypeError`` for an object without weak references."""
        while not ledger.scope.is_closed:
            members = self._members.find(ledger.scope)
            if members is None:
                members = self._members.of(ledger.scope)
                self.record(ledger, self._what, functools.partial(self._undo, ledger))
            address = id(thing)
            members[address] = weakref.ref(thing, functools.partial(_forget, members, address))
            if self._members.find(ledger.scope) is members:
                break  # otherwise another thread has ended the herd meanwhile, perhaps without this object

    def has(self, ledger: Ledger, thing: T) -> bool:
        """Tell whether an object is in the herd of a biz."""
        return id(thing) in (self._members.find(ledger.scope) or ())

    def _undo(self, ledger: Ledger) -> object:
        members = self._members.take(ledger.scope) or {}
        things = [thing for reference in list(members.values()) if (thing := reference()) is not None]
        return self._end(ledger, things) if things else NOTHING


def _forget(members: dict[int, weakref.ref[Any]], address: int, _: object) -> None:
    members.pop(address, None)


class OwnEntry(Kind):
    """Registries in which each biz has an entry of its own, under a key that other bizs and the base may use, too."""

    __slots__ = ()

    def enter(
        self,
        registry: dict[Any, Any],
        key: Any,
        function: Callable[[Any], Any],
        put: Callable[[Any], object],
        none: Callable[[Any], Any],
    ) -> None:
        """Enter ``function`` under ``key`` for the running biz; ``none`` answers where nobody has registered the key.

        ``put`` enters a function into the registry, as the base does.
        """
        ledger = owner()
        there = registry.get(key)
        if ledger is None:
            if isinstance(there, ByOwner):
                there.of_base = function
            else:
                put(function)
            return
        if not isinstance(there, ByOwner):
            there = ByOwner(there, none)
            put(there)
        if there.own.find(ledger.scope) is None:
            there.users += 1
            what = key if isinstance(key, str) else (key[0] if isinstance(key, tuple) else key).__qualname__
            self.record(ledger, what, functools.partial(_leave, ledger.scope, registry, key, there))
        there.own.put(function)


class ByOwner:
    """An entry of a registry under one key: calls the function of the running biz, else the function of the base.

    Two bizs may register the same key, and leave in any order; the last one to leave takes this entry out again.
    """

    def __init__(self, of_base: Callable[[Any], Any] | None, none: Callable[[Any], Any]) -> None:
        self.of_base = of_base
        self.none = none
        self.own: Own[Callable[[Any], Any]] = Own(lambda: none)
        self.users = 0

    @property
    def __call__(self) -> Callable[[Any], Any]:
        """The function of the running biz or of the base, which is called with no frame of ours in between."""
        return self.own.peek() or self.of_base or self.none


def _leave(scope: Scope, registry: dict[Any, Any], key: Any, mine: ByOwner) -> None:
    mine.own.take(scope)
    mine.users -= 1
    if mine.users or not any(value is mine for value in list(registry.values())):
        return
    if mine.of_base is None:
        take_out(registry, key)
    else:
        registry[key] = mine.of_base


class Box(Generic[T]):
    """Content of a biz for a trampoline; emptied when the biz leaves."""

    __slots__ = ("content",)

    def __init__(self, content: T) -> None:
        self.content: T | None = content

    def empty(self) -> None:
        """Let go of the content, for good: the trampoline does nothing for the biz from now on."""
        self.content = None


class Trampoline(Kind, Generic[T]):
    """Hooks without a way back: one function of ours, registered once and for ever, calls the hooks of all bizs."""

    __slots__ = ("_boxes", "is_registered")

    def __init__(self, name: str, seen: str, undone: str = "emptied", *, order: Order = Order.REST) -> None:
        super().__init__(name, seen, undone, order=order)
        self.is_registered = False
        """Whether the function of ours is registered with the interpreter."""
        self._boxes: list[Box[T]] = []

    def keep(self, ledger: Ledger, content: T, what: str) -> None:
        """Keep ``content`` for the function of ours, in a box, until the biz leaves."""
        box = Box(content)
        self._boxes.append(box)

        def undo() -> None:
            box.empty()
            self._boxes.remove(box)

        self.record(ledger, what, undo)

    def boxes(self) -> tuple[Box[T], ...]:
        """The boxes of all bizs, the first kept first."""
        return tuple(self._boxes)
