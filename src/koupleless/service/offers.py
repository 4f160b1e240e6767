"""Offered objects: a registration for each, with its names and types, and all offers of one owner."""

from __future__ import annotations

import abc
import inspect
import typing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias

from koupleless.context import Scope, as_base, call_as

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

Key: TypeAlias = "str | type[Any]"
"""The name or type of a service."""

WITHDRAWN: Final = object()
"""The target of a registration that has been closed."""

_TOO_GENERAL: Final = frozenset(map(id, (object, abc.ABC, typing.Generic, typing.Protocol)))
_qualname: Final[Any] = type.__dict__["__qualname__"]


class _Registry(Protocol):
    def forget(self, registration: Registration) -> None:
        """Remove one registration without closing it."""


@dataclass(slots=True, eq=False)
class Registration:
    """One offered object. `offer` returns the registration, and `withdraw` takes the offer back.

    Lifetime: the registration belongs to the offering biz and is withdrawn together with the biz; the object is let go
    then. From any thread.
    """

    registry: _Registry
    scope: Scope | None
    """The owner; ``None`` is the base."""
    name: str | None
    types: tuple[type, ...]
    """The types that the object was offered as."""
    inherited: tuple[type, ...]
    """The bases of ``types``; the object is found under a base if nothing was offered as the base itself."""
    target: Any
    on_close: Callable[[], object] | None = None

    def withdraw(self) -> None:
        """Stop offering the object, then call ``on_close``, and raise the error of ``on_close``. Idempotent."""
        self.registry.forget(self)
        self.close()

    def close(self) -> None:
        """Let go of the object and call ``on_close`` as the owner. The registry has forgotten the registration before.

        Raises the error of ``on_close``, and ``TypeError`` if ``on_close`` is asynchronous.
        """
        on_close, self.on_close, self.target = self.on_close, None, WITHDRAWN
        if on_close is None:
            return
        if self.scope is None:
            with as_base():
                result = on_close()
        else:
            result = call_as(self.scope, on_close)
        if inspect.iscoroutine(result):
            result.close()
            raise TypeError("on_close must not be asynchronous; use koupleless.on_stop for that")

    def found_under(self) -> Iterator[str | int]:
        """All keys of the object: the name, and the addresses of the types and of their bases.

        Classes are told apart by address: ``==`` and ``hash`` of a class are code of the metaclass, so of a biz.
        """
        if self.name is not None:
            yield self.name
        yield from map(id, self.types)
        yield from map(id, self.inherited)

    def __str__(self) -> str:
        return f"service {words(self.name if self.name is not None else self.types[0])}"


class Offers:
    """The registrations of one owner, in order. Changed under the lock of the registry; readers take no lock."""

    def __init__(self) -> None:
        self.every: dict[Registration, None] = {}
        self._by_name: dict[str, Registration] = {}
        self._by_type: dict[int, dict[Registration, None]] = {}
        self._by_base: dict[int, dict[Registration, None]] = {}

    def add(self, registration: Registration) -> None:
        """Add a registration of a name that is free."""
        self.every[registration] = None
        if registration.name is not None:
            self._by_name[registration.name] = registration
        for table, classes in self._classes_of(registration):
            for one in classes:
                table.setdefault(id(one), {})[registration] = None

    def remove(self, registration: Registration) -> bool:
        """Remove a registration; return ``False`` if the registration was not there."""
        if registration not in self.every:
            return False
        del self.every[registration]
        if registration.name is not None:
            del self._by_name[registration.name]
        for table, classes in self._classes_of(registration):
            for one in classes:
                left = table[id(one)]
                left.pop(registration, None)
                if not left:
                    del table[id(one)]
        return True

    def _classes_of(
        self, registration: Registration
    ) -> tuple[tuple[dict[int, dict[Registration, None]], tuple[type, ...]], ...]:
        return (self._by_type, registration.types), (self._by_base, registration.inherited)

    def __contains__(self, key: str | int) -> bool:
        return key in self._by_name or key in self._by_type or key in self._by_base

    def find(self, key: str | int) -> tuple[Registration, ...]:
        """The registrations under a name, or the address of a type: offers as the very type, else as a subclass."""
        if isinstance(key, str):
            found = self._by_name.get(key)
            return () if found is None else (found,)
        return tuple(self._by_type.get(key, ()) or self._by_base.get(key, ()))


def types_of(obj: object, given: type[Any] | Iterable[type[Any]] | None, *, is_named: bool) -> tuple[type[Any], ...]:
    """The types of an offer: the ``given`` ones, else the class. Raises ``TypeError`` if ``obj`` does not fit."""
    if given is None:
        if not (inspect.isroutine(obj) or inspect.isclass(obj) or inspect.ismodule(obj)):
            return (obj.__class__,)
        if not is_named:
            raise TypeError(f"{obj!r} can only be found by name; offer it with name=")
        return ()
    types = (given,) if isinstance(given, type) else tuple(given)
    if not types and not is_named:
        raise TypeError("a service with neither a name nor a type can not be found")
    for one in types:
        if not isinstance(one, type):
            raise TypeError(f"{one!r} is no type; offer a service under its name with name=")
        # Whether an object fits a protocol is for the type checker; at run time only names could be compared.
        if not getattr(one, "_is_protocol", False) and not isinstance(obj, one):
            raise TypeError(f"{obj!r} is offered as {words(one)}, but is no such object")
    return types


def bases_of(types: tuple[type[Any], ...]) -> tuple[type[Any], ...]:
    """The bases of ``types`` that say something about an object: all but ``object`` and the makers of abstract ones."""
    known = {id(one) for one in types} | _TOO_GENERAL
    bases: dict[int, type[Any]] = {id(base): base for one in types for base in one.__mro__ if id(base) not in known}
    return tuple(bases.values())


def key_of(given: object) -> Key:
    """Check the name or type of a service. Raises ``TypeError`` for anything else."""
    return given if isinstance(given, type) else text_of(given)


def text_of(name: object) -> str:
    """A plain text of the same characters: ``==`` and ``hash`` of a class of texts are code of its owner.

    Raises ``TypeError`` for an object that is no text.
    """
    if not isinstance(name, str):
        raise TypeError(f"a service has a text for a name, or a type; this is a {type(name).__name__}")
    return str.__str__(name)


def indexed(key: Key) -> str | int:
    """The key of an index for a name or a type: the text, or the address of the class."""
    return key if isinstance(key, str) else id(key)


def words(key: Key) -> str:
    """A name in quotes, or the name of a class, for messages."""
    return repr(key) if isinstance(key, str) else str(_qualname.__get__(key))


def party(scope: Scope | None) -> str:
    """The base, or the biz of a scope, for messages."""
    return "the base" if scope is None else f"biz {scope.biz}"
