"""Who offers what: registrations by owner, found again at every use, closed in reverse when their owner leaves.

One dict from owner to its registrations is all there is. Which version of a biz answers is the container's knowledge;
it is asked through a `Directory`, each time, so a reference follows a switch or a reinstall by itself.
"""

from __future__ import annotations

import abc
import functools
import inspect
import threading
import typing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar, overload

from koupleless.biz import BizState
from koupleless.context import Scope, as_base, call_as, current
from koupleless.errors import ServiceError, in_words
from koupleless.service.crossing import tell_offer
from koupleless.service.reference import ServiceReference, Target

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from koupleless.biz import BizId

T = TypeVar("T")

CONTEXT_MISSING: Final = "100002"
BIZ_ABSENT: Final = "100003"
BIZ_INVALID: Final = "100004"
NOT_FOUND: Final = "200001"

_WITHDRAWN: Final = object()
_NAMED: Final = 5
"""How many of several services a message names."""
_TOO_GENERAL: Final = frozenset(map(id, (object, abc.ABC, typing.Generic, typing.Protocol)))
_qualname: Final[Any] = type.__dict__["__qualname__"]


class Directory(Protocol):
    """What a container tells about its bizs. Both are called at every use of a service, from any thread."""

    def locate(self, name: str, version: str | None = None) -> tuple[BizId, BizState] | None:
        """The biz of that name and version, whatever its state; without a version the one that is activated."""
        ...

    def scope_of(self, biz: BizId) -> Scope | None:
        """The life that answers for ``biz`` now: while it is being replaced by itself there are two of them."""
        ...


@dataclass(slots=True, eq=False)
class Registration:
    """One offered object, returned by `offer`; `withdraw` takes the object back.

    A registration belongs to the biz that offered the object and is withdrawn with the biz, which lets the object go.
    """

    registry: Registry
    scope: Scope | None
    """The owner; ``None`` is the base."""
    name: str | None
    types: tuple[type, ...]
    """What it was offered as."""
    inherited: tuple[type, ...]
    """The bases of those: asked for only if nothing was offered as the type itself."""
    target: Any
    on_close: Callable[[], object] | None = None

    def withdraw(self) -> None:
        """Stop offering the object, then call ``on_close``, whose exceptions arrive here. Idempotent."""
        self.registry.forget(self)
        self.close()

    def close(self) -> None:
        """Let go of the object and call ``on_close`` as the owner. The registry has forgotten it before."""
        on_close, self.on_close, self.target = self.on_close, None, _WITHDRAWN
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

    def __str__(self) -> str:
        return f"service {_words(self.name if self.name is not None else self.types[0])}"


class _Offers:
    """What one owner offers, in order. Changed under the registry's lock; readers take none, and see each change whole.

    Classes are told apart by what they are: ``==`` and ``hash`` of a class are code of its metaclass, so of a biz.
    """

    def __init__(self) -> None:
        self.every: dict[Registration, None] = {}
        self._by_name: dict[str, Registration] = {}
        self._by_type: dict[int, dict[Registration, None]] = {}
        self._by_base: dict[int, dict[Registration, None]] = {}

    def add(self, registration: Registration) -> None:
        self.every[registration] = None
        if registration.name is not None:
            self._by_name[registration.name] = registration
        for table, classes in self._classes_of(registration):
            for one in classes:
                table.setdefault(id(one), {})[registration] = None

    def remove(self, registration: Registration) -> None:
        if registration not in self.every:
            return
        del self.every[registration]
        if registration.name is not None:
            del self._by_name[registration.name]
        for table, classes in self._classes_of(registration):
            for one in classes:
                left = table[id(one)]
                left.pop(registration, None)
                if not left:
                    del table[id(one)]

    def _classes_of(
        self, registration: Registration
    ) -> tuple[tuple[dict[int, dict[Registration, None]], tuple[type, ...]], ...]:
        return (self._by_type, registration.types), (self._by_base, registration.inherited)

    def find(self, key: str | type[Any]) -> tuple[Registration, ...]:
        if isinstance(key, str):
            found = self._by_name.get(key)
            return () if found is None else (found,)
        return tuple(self._by_type.get(id(key), ()) or self._by_base.get(id(key), ()))


_NOTHING: Final = _Offers()


class ServiceSpace:
    """The facet that says which registry a biz's `offer` and `use` mean."""

    __slots__ = ("registry",)

    def __init__(self, registry: Registry) -> None:
        self.registry = registry


class Registry:
    """The services of a base and its bizs. Thread-safe; readers take no lock.

    Lifetime: as long as the process for `default_registry`, else as long as whoever made it. It holds what is offered
    until that is withdrawn; references hold the registry, and nothing of what they refer to.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._offers: dict[Scope | None, _Offers] = {}
        self._directories: tuple[Directory, ...] = ()

    def join(self, directory: Directory) -> Callable[[], None]:
        """Ask ``directory``, too, which bizs there are; returns the undo.

        While nobody has joined, whoever offers something counts as activated until its scope is closed.
        """
        with self._lock:
            self._directories = (*self._directories, directory)

        def leave() -> None:
            with self._lock:
                self._directories = tuple(one for one in self._directories if one is not directory)

        return leave

    def space(self, scope: Scope) -> ServiceSpace:  # noqa: ARG002 - as the other facets are made
        """The facet for a biz that offers its services here."""
        return ServiceSpace(self)

    # --- offering ------------------------------------------------------------------------------------------------

    def offer(
        self,
        obj: object,
        *,
        name: str | None = None,
        type: type[Any] | Iterable[type[Any]] | None = None,  # noqa: A002 - the word of the API
        scope: Scope | None = None,
        on_close: Callable[[], object] | None = None,
    ) -> Registration:
        """Offer ``obj`` under a name, or types, or both, in the name of ``scope`` (``None``: the base).

        Without ``type`` it is found under its class, and in both cases under the bases of these. ``on_close`` is
        called, as the owner, when the registration is withdrawn.

        Raises ``TypeError`` for an object that is none of the types given, or that can only be found by name and has
        none, and for a name that is no text or a type that is none; ``ServiceError`` if the name is taken by the same
        owner, or if the owner is gone.
        """
        name = None if name is None else _text(name)
        types = _types_of(obj, type, is_named=name is not None)
        registration = Registration(self, scope, name, types, _bases_of(types), obj, on_close)
        with self._lock:
            if scope is not None and scope.is_closed:
                raise ServiceError(CONTEXT_MISSING, f"biz {scope.biz} was uninstalled; it can offer nothing any more")
            offers = self._offers.setdefault(scope, _Offers())
            if name is not None and offers.find(name):
                raise ServiceError(
                    CONTEXT_MISSING, f"{_owner(scope)} offers a service {name!r} already; withdraw it first"
                )
            offers.add(registration)
        tell_offer(scope, types)
        return registration

    def forget(self, registration: Registration) -> None:
        """Remove one registration without closing it. Idempotent."""
        scope = registration.scope
        with self._lock:
            offers = self._offers.get(scope)
            if offers is not None:
                offers.remove(registration)
                if not offers.every:
                    del self._offers[scope]

    def withdraw(self, scope: Scope | None) -> tuple[str, ...]:
        """Withdraw everything an owner offers and close it, last in first out.

        Nothing of it can be found any more before the first one is closed. Returns what failed, in words: keeping the
        exceptions would keep what is leaving.
        """
        with self._lock:
            offers = self._offers.pop(scope, _NOTHING)
        failures = []
        for registration in reversed(offers.every):
            label = str(registration)
            try:
                registration.close()
            except BaseException as error:  # noqa: BLE001 - code of the owner, SystemExit too; returned, not lost
                failures.append(f"{label} failed to close: {in_words(error)}")
        return tuple(failures)

    # --- using ---------------------------------------------------------------------------------------------------

    def use(self, key: str | type[Any], *, biz: str | None = None, version: str | None = None) -> Any:
        """A `ServiceReference` to the service of that name or type.

        With ``biz`` it is that biz's: its given ``version``, else whichever is activated at the moment of a call.
        Without, it is the base's, or, if the base has none, that of the only activated biz which offers one.

        Nothing has to be there yet: a biz that is absent or still starting may come. Raises ``ServiceError`` if it is
        there in a state from which it cannot answer, ``TypeError`` for what is neither a text nor a type.
        """
        key = _key(key)
        if biz is None and version is not None:
            raise ServiceError(CONTEXT_MISSING, "a version without a biz says nothing; pass biz=, too")
        if (
            biz is not None
            and (located := self._locate(biz, version)) is not None
            and located[1] is not BizState.RESOLVED
        ):
            _check_state(*located)
        of = "" if biz is None else f" of biz {biz}" + (f":{version}" if version is not None else "")
        return ServiceReference(functools.partial(self.resolve, key, biz, version), f"{_words(key)}{of}")

    def use_all(self, key: str | type[Any]) -> dict[str, Any]:
        """Every activated biz that offers such a service now, by name. Each handle follows that name's versions."""
        key = _key(key)
        names = {scope.biz.name for scope in self._activated() if self._find(scope, key)}
        return {name: self.use(key, biz=name) for name in sorted(names)}

    def resolve(self, key: str | type[Any], biz: str | None, version: str | None) -> Target:
        """Who answers now. Raises ``ServiceError`` with the codes of the field."""
        if biz is None:
            return self._resolve_anywhere(key)
        located = self._locate(biz, version)
        if located is None or (version is None and located[1] is BizState.DEACTIVATED):
            shown = biz if version is None else f"{biz}:{version}"
            raise ServiceError(BIZ_ABSENT, f"biz {shown} does not exist when called")
        identity, state = located
        if state is BizState.RESOLVED:
            raise ServiceError(BIZ_ABSENT, f"biz {identity} is still installing when called")
        _check_state(identity, state)
        scope = self._scope_of(identity)
        found = () if scope is None else self._find(scope, key)
        if not found:
            raise ServiceError(
                BIZ_INVALID, f"Cannot find service bean from the biz {identity}: it offers no {_words(key)}"
            )
        return _only(found, key)

    def _resolve_anywhere(self, key: str | type[Any]) -> Target:
        found = self._find(None, key)
        if not found:
            owners = [owned for scope in self._activated() if (owned := self._find(scope, key))]
            if len(owners) > 1:
                names = ", ".join(sorted(_owner(owned[0].scope) for owned in owners))
                raise ServiceError(CONTEXT_MISSING, f"service {_words(key)} is offered by {names}; say which with biz=")
            if not owners:
                raise ServiceError(
                    NOT_FOUND, f"service {_words(key)} was not found: neither the base nor an activated biz offers it"
                )
            found = owners[0]
        return _only(found, key)

    def _find(self, scope: Scope | None, key: str | type[Any]) -> tuple[Registration, ...]:
        return self._offers.get(scope, _NOTHING).find(key)

    def _locate(self, name: str, version: str | None) -> tuple[BizId, BizState] | None:
        for directory in self._directories:
            located = directory.locate(name, version)
            if located is not None:
                return located
        if self._directories:
            return None
        for scope in self._open_scopes():
            if scope.biz.name == name and version in (None, scope.biz.version):
                return scope.biz, BizState.ACTIVATED
        return None

    def _scope_of(self, biz: BizId) -> Scope | None:
        for directory in self._directories:
            scope = directory.scope_of(biz)
            if scope is not None:
                return scope
        return None if self._directories else next((one for one in self._open_scopes() if one.biz == biz), None)

    def _open_scopes(self) -> list[Scope]:
        """Of bizs that offer anything, newest life first."""
        scopes = [scope for scope in list(self._offers) if scope is not None and not scope.is_closed]
        return sorted(scopes, key=lambda scope: -scope.generation)

    def _activated(self) -> list[Scope]:
        return [
            scope
            for scope in self._open_scopes()
            if self._locate(scope.biz.name, scope.biz.version) == (scope.biz, BizState.ACTIVATED)
            and self._scope_of(scope.biz) is scope
        ]

    def __repr__(self) -> str:
        return f"<Registry of {sum(len(offers.every) for offers in list(self._offers.values()))} services>"


def _types_of(obj: object, given: type[Any] | Iterable[type[Any]] | None, *, is_named: bool) -> tuple[type[Any], ...]:
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
            raise TypeError(f"{obj!r} is offered as {_words(one)}, but it is none")
    return types


def _bases_of(types: tuple[type[Any], ...]) -> tuple[type[Any], ...]:
    known = {id(one) for one in types} | _TOO_GENERAL
    bases: dict[int, type[Any]] = {id(base): base for one in types for base in one.__mro__ if id(base) not in known}
    return tuple(bases.values())


def _key(key: object) -> str | type[Any]:
    return key if isinstance(key, type) else _text(key)


def _text(name: object) -> str:
    """A plain text of the same characters: ``==`` and ``hash`` of a class of texts are code of its owner."""
    if not isinstance(name, str):
        raise TypeError(f"a service has a text for a name, or a type; this is a {type(name).__name__}")
    return str.__str__(name)


def _only(found: tuple[Registration, ...], key: str | type[Any]) -> Target:
    targets = [target for one in found if (target := one.target) is not _WITHDRAWN]
    if not targets:  # between finding it and here
        raise ServiceError(NOT_FOUND, f"{_owner(found[0].scope)} has just withdrawn its {_words(key)}")
    if any(target is not targets[0] for target in targets):
        names = ", ".join(str(one) for one in found[:_NAMED])
        if len(found) > _NAMED:
            names += f" and {len(found) - _NAMED} more"
        raise ServiceError(
            CONTEXT_MISSING, f"{_owner(found[0].scope)} offers several of type {_words(key)} ({names}); ask by name"
        )
    return Target(targets[0], found[0].scope)


def _check_state(identity: BizId, state: BizState) -> None:
    if not state.is_started:
        raise ServiceError(BIZ_INVALID, f"biz {identity} state {state.value.lower()} is not valid")


def _words(key: str | type[Any]) -> str:
    return repr(key) if isinstance(key, str) else str(_qualname.__get__(key))


def _owner(scope: Scope | None) -> str:
    return "the base" if scope is None else f"biz {scope.biz}"


# --- the functions that biz and base code call ----------------------------------------------------------------


_of_process: Final = Registry()


def default_registry() -> Registry:
    """The registry of the process: of bases that were given no other, and of modules that run alone."""
    return _of_process


def _registry_here() -> Registry:
    scope = current()
    space = None if scope is None else scope.find_facet(ServiceSpace)
    return default_registry() if space is None else space.registry


def offer(
    obj: object,
    *,
    name: str | None = None,
    type: type[Any] | Iterable[type[Any]] | None = None,  # noqa: A002 - the word of the API
    on_close: Callable[[], object] | None = None,
) -> Registration:
    """Offer ``obj`` to the base and to the other modules, under a name, or types, or both.

    Without ``type`` it is found under its class and the bases of that. It is withdrawn when the offering module stops,
    and ``on_close`` is called then; to take it back earlier, call ``withdraw`` of what is returned.

    Raises ``TypeError`` for an object that is none of the types given, or that can only be found by name and has none,
    ``ServiceError`` if this module offers that name already.
    """
    return _registry_here().offer(obj, name=name, type=type, scope=current(), on_close=on_close)


@overload
def use(key: str, *, biz: str | None = None, version: str | None = None) -> Any: ...


@overload
def use(key: type[T], *, biz: str | None = None, version: str | None = None) -> T: ...


def use(key: str | type[Any], *, biz: str | None = None, version: str | None = None) -> Any:
    """A `ServiceReference` to the service of that name or type, to be used like the object itself.

    With ``biz`` it is that module's: the given ``version``, else whichever is active at the moment of a call. Without,
    it is the base's, or, if the base has none, that of the only active module which offers one. The service need not be
    there yet, may be replaced, and is looked up at every use; while it is not there, a use raises ``ServiceError``.
    """
    return _registry_here().use(key, biz=biz, version=version)


@overload
def use_all(key: str) -> dict[str, Any]: ...


@overload
def use_all(key: type[T]) -> dict[str, T]: ...


def use_all(key: str | type[Any]) -> dict[str, Any]:
    """The references to all active modules that offer such a service now, by the modules' names."""
    return _registry_here().use_all(key)
