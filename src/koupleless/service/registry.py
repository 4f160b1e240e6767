"""The services of a base and its bizs: the offers of each owner, and the offer that answers for a name or type.

Offers are kept by owner and closed in reverse when their owner leaves. The container knows the version of a biz that
answers, and publishes a `Directory` at every change; so references follow a switch or a reinstall.
"""

from __future__ import annotations

import functools
import threading
from typing import TYPE_CHECKING, Any, Final

from koupleless.biz import BizState
from koupleless.errors import ServiceError, in_words
from koupleless.service.crossing import tell_offer
from koupleless.service.directory import Directory, Listed
from koupleless.service.offers import (
    WITHDRAWN,
    Offers,
    Registration,
    bases_of,
    indexed,
    key_of,
    party,
    text_of,
    types_of,
    words,
)
from koupleless.service.reference import ServiceReference
from koupleless.service.use import Known, Lookup, Provider

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from koupleless.context import Scope
    from koupleless.service.offers import Key

CONTEXT_MISSING: Final = "100002"
BIZ_ABSENT: Final = "100003"
BIZ_INVALID: Final = "100004"
NOT_FOUND: Final = "200001"

_NOTHING: Final = Offers()
_NAMED: Final = 5
"""Most services that a message names."""


class ServiceSpace:
    """The facet that says in which registry a biz offers and finds services."""

    __slots__ = ("registry",)

    def __init__(self, registry: Registry) -> None:
        self.registry = registry


class Place:
    """The place of one container in a registry, for the directory of the container.

    Lifetime: from `Registry.join` to `leave`. From any thread.
    """

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self.directory = Directory()

    def publish(self, directory: Directory) -> None:
        """Let every further use of a service see ``directory`` instead of the one before."""
        self.directory = directory
        self._registry.known.clear()

    def leave(self) -> None:
        """Take the place, and all bizs of the directory, out of the registry. Idempotent."""
        self._registry.leave(self)


class Registry:
    """The services of a base and its bizs.

    Lifetime: as long as the process for `default_registry`, else as long as the maker wants. A registry holds an
    offered object until the offer is withdrawn; references hold the registry, and nothing of the objects.

    Threads: any. Offers change under a lock, and readers take no lock: a use of a reference is the look-up of a
    remembered provider; every change of an offer or of a directory drops all remembered providers.
    """

    def __init__(self) -> None:
        self.known = Known()
        self._lock = threading.Lock()
        self._offers: dict[Scope | None, Offers] = {}
        self._owners: dict[str | int, dict[Scope | None, None]] = {}
        """The owners that offer an object under a name, or under the address of a type."""
        self._places: tuple[Place, ...] = ()

    def join(self) -> Place:
        """Give a container a place to publish the directory of its bizs in.

        While nobody has joined, an owner of an offer counts as activated until its scope is closed.
        """
        place = Place(self)
        with self._lock:
            self._places = (*self._places, place)
        self.known.clear()
        return place

    def leave(self, place: Place) -> None:
        """Take a place out. Idempotent."""
        with self._lock:
            self._places = tuple(one for one in self._places if one is not place)
        self.known.clear()

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

        Without ``type``, ``obj`` is found under its class. In both cases ``obj`` is found under the bases of these
        types, too. ``on_close`` is called, as the owner, when the registration is withdrawn.

        Raises ``TypeError`` for an object that is none of the types given, or can only be found by name and has none,
        and for a name that is no text or a type that is none; ``ServiceError`` if the owner offers the name already, or
        if the owner is gone.
        """
        name = None if name is None else text_of(name)
        types = types_of(obj, type, is_named=name is not None)
        registration = Registration(self, scope, name, types, bases_of(types), obj, on_close)
        with self._lock:
            if scope is not None and scope.is_closed:
                raise ServiceError(CONTEXT_MISSING, f"biz {scope.biz} was uninstalled, and can offer nothing any more")
            offers = self._offers.setdefault(scope, Offers())
            if name is not None and name in offers:
                raise ServiceError(
                    CONTEXT_MISSING, f"{party(scope)} offers a service {name!r} already; withdraw the first one"
                )
            offers.add(registration)
            for key in registration.found_under():
                self._owners.setdefault(key, {})[scope] = None
        self.known.clear()
        tell_offer(scope, types)
        return registration

    def forget(self, registration: Registration) -> None:
        """Remove one registration without closing it. Idempotent."""
        scope = registration.scope
        with self._lock:
            offers = self._offers.get(scope)
            if offers is None or not offers.remove(registration):
                return
            self._forget_owner_locked(scope, (key for key in registration.found_under() if key not in offers))
            if not offers.every:
                del self._offers[scope]
        self.known.clear()

    def has_offers(self, scope: Scope | None) -> bool:
        """Whether an owner offers anything."""
        with self._lock:
            return scope in self._offers

    def withdraw(self, scope: Scope | None) -> tuple[str, ...]:
        """Withdraw all offers of an owner and close them, last in first out.

        No offer of the owner can be found any more before the first one is closed. Returns the failures in words:
        keeping the exceptions would keep the objects of the owner.
        """
        with self._lock:
            offers = self._offers.pop(scope, _NOTHING)
            self._forget_owner_locked(scope, (key for one in offers.every for key in one.found_under()))
        self.known.clear()
        failures = []
        for registration in reversed(offers.every):
            label = str(registration)
            try:
                registration.close()
            except BaseException as error:  # noqa: BLE001 - code of the owner, SystemExit too; returned, not lost
                failures.append(f"{label} failed to close: {in_words(error)}")
        return tuple(failures)

    def _forget_owner_locked(self, scope: Scope | None, keys: Iterable[str | int]) -> None:
        for key in keys:
            owners = self._owners.get(key, {})
            owners.pop(scope, None)
            if not owners:
                self._owners.pop(key, None)

    # --- using ---------------------------------------------------------------------------------------------------

    def use(self, key: str | type[Any], *, biz: str | None = None, version: str | None = None) -> Any:
        """A `ServiceReference` to the service of a name or type.

        With ``biz``, the service is an offer of the biz: of the given ``version``, else of the version activated at the
        moment of a call. Without ``biz``, the service is an offer of the base, or, if the base has none, of the only
        activated biz with such an offer.

        The service need not be there yet: an absent or starting biz may come. Raises ``ServiceError`` for a biz in a
        state from which no biz answers, ``TypeError`` for a key that is neither text nor type.
        """
        key = key_of(key)
        if biz is None and version is not None:
            raise ServiceError(CONTEXT_MISSING, "a version without a biz says nothing; pass biz=, too")
        if biz is not None:
            listed = self._locate(biz, version)
            if listed is not None and listed.state is not BizState.RESOLVED:
                _check_state(listed)
        of = "" if biz is None else f" of biz {biz}" + (f":{version}" if version is not None else "")
        wanted = "\0".join([f"{type(key) is str} {indexed(key)}", *(one for one in (biz, version) if one is not None)])
        search = functools.partial(self._search, key, biz, version)
        told = words(key)
        return ServiceReference(Lookup(self.known, wanted, search, label=f"{told}{of}", name=told.strip("'\"")))

    def use_all(self, key: str | type[Any]) -> dict[str, Any]:
        """References to all activated bizs with such an offer, by name; each follows the versions of its name."""
        key = key_of(key)
        owners = list(self._owners.get(indexed(key), ()))
        names = {scope.biz.name for scope in owners if scope is not None and self._is_activated(scope)}
        return {name: self.use(key, biz=name) for name in sorted(names)}

    def _search(self, key: Key, biz: str | None, version: str | None) -> tuple[Provider, bool]:
        """Find the provider, and whether `Known.clear` is called when the provider leaves.

        A registry without a container is not told that a scope was closed. Raises ``ServiceError`` with the codes of
        the field.
        """
        found = self._offers_anywhere(key) if biz is None else self._offers_of(key, biz, version)
        provider = _only(found, key)
        return provider, provider.scope is None or bool(self._places)

    def _offers_of(self, key: Key, biz: str, version: str | None) -> tuple[Registration, ...]:
        listed = self._locate(biz, version)
        if listed is None or (version is None and listed.state is BizState.DEACTIVATED):
            shown = biz if version is None else f"{biz}:{version}"
            raise ServiceError(BIZ_ABSENT, f"biz {shown} does not exist when called")
        if listed.state is BizState.RESOLVED:
            raise ServiceError(BIZ_ABSENT, f"biz {listed.biz} is still installing when called")
        _check_state(listed)
        found = () if listed.scope is None else self._find(listed.scope, key)
        if not found:
            raise ServiceError(
                BIZ_INVALID, f"Cannot find service bean from the biz {listed.biz}: it offers no {words(key)}"
            )
        return found

    def _offers_anywhere(self, key: Key) -> tuple[Registration, ...]:
        found = self._find(None, key)
        if found:
            return found
        owners = [scope for scope in list(self._owners.get(indexed(key), ())) if scope is not None]
        by_owner = [found for scope in owners if self._is_activated(scope) and (found := self._find(scope, key))]
        if len(by_owner) > 1:
            names = ", ".join(sorted(party(found[0].scope) for found in by_owner))
            raise ServiceError(CONTEXT_MISSING, f"service {words(key)} is offered by {names}; say which with biz=")
        if not by_owner:
            raise ServiceError(
                NOT_FOUND,
                f"service {words(key)} was not found: neither the base nor an activated biz offers the service",
            )
        return by_owner[0]

    def _find(self, scope: Scope | None, key: Key) -> tuple[Registration, ...]:
        return self._offers.get(scope, _NOTHING).find(indexed(key))

    def _is_activated(self, scope: Scope) -> bool:
        listed = self._locate(scope.biz.name, scope.biz.version)
        return listed is not None and listed.state is BizState.ACTIVATED and listed.scope is scope

    def _locate(self, name: str, version: str | None) -> Listed | None:
        places = self._places
        for place in places:
            listed = place.directory.locate(name, version)
            if listed is not None:
                return listed
        if places:
            return None
        scopes = [scope for scope in list(self._offers) if scope is not None and not scope.is_closed]
        alike = [scope for scope in scopes if scope.biz.name == name and version in (None, scope.biz.version)]
        newest = max(alike, key=lambda scope: scope.generation, default=None)
        return None if newest is None else Listed(newest.biz, BizState.ACTIVATED, newest)

    def __repr__(self) -> str:
        return f"<Registry of {sum(len(offers.every) for offers in list(self._offers.values()))} services>"


def _only(found: tuple[Registration, ...], key: Key) -> Provider:
    targets = [target for one in found if (target := one.target) is not WITHDRAWN]
    if not targets:  # between finding the registration and here
        raise ServiceError(NOT_FOUND, f"{party(found[0].scope)} has just withdrawn its {words(key)}")
    if any(target is not targets[0] for target in targets):
        names = ", ".join(str(one) for one in found[:_NAMED])
        if len(found) > _NAMED:
            names += f" and {len(found) - _NAMED} more"
        raise ServiceError(
            CONTEXT_MISSING, f"{party(found[0].scope)} offers several of type {words(key)} ({names}); ask by name"
        )
    return Provider(targets[0], found[0].scope, {})


def _check_state(listed: Listed) -> None:
    if not listed.state.is_started:
        raise ServiceError(BIZ_INVALID, f"biz {listed.biz} state {listed.state.value.lower()} is not valid")


_of_process: Final = Registry()


def default_registry() -> Registry:
    """The registry of the process: of bases without another one, and of modules that run alone."""
    return _of_process
