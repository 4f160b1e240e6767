"""The functions that code of bizs and of the base calls, each in the registry of the biz that is running."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar, overload

from koupleless.context import current
from koupleless.service.registry import Registry, ServiceSpace, default_registry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from koupleless.service.offers import Registration

T = TypeVar("T")


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

    Without ``type``, ``obj`` is found under its class and the bases of the class. The offer is withdrawn when the
    offering module stops, and ``on_close`` is called then; ``withdraw`` of the returned `Registration` takes the offer
    back earlier. May be called from any thread, during the import and later. Others call ``obj`` on their own threads.

    Raises ``TypeError`` for an object that is none of the types given, or can only be found by name and has none, and
    for a ``name`` that is no text; ``ServiceError`` if this module offers the name already, or is gone.
    """
    return _registry_here().offer(obj, name=name, type=type, scope=current(), on_close=on_close)


@overload
def use(key: str, *, biz: str | None = None, version: str | None = None) -> Any: ...


@overload
def use(key: type[T], *, biz: str | None = None, version: str | None = None) -> T: ...


def use(key: str | type[Any], *, biz: str | None = None, version: str | None = None) -> Any:
    """Return a `ServiceReference` to the service of that name or type, to be used like the object itself.

    With ``biz``, the service is an offer of the named module: of the given ``version``, else of the version that is
    active at the moment of a call. Without ``biz``, the service is an offer of the base, or, if the base has none, of
    the only active module with such an offer. The service need not be there yet, may be replaced, and is looked up at
    every use; while there is none, a use raises ``ServiceError``. May be called from any thread, and as early as at
    import; the reference may be kept for good.

    Raises ``ServiceError`` for a version without ``biz``, and for a module that is broken or stopped, ``TypeError`` for
    a key that is neither text nor type.
    """
    return _registry_here().use(key, biz=biz, version=version)


@overload
def use_all(key: str) -> dict[str, Any]: ...


@overload
def use_all(key: type[T]) -> dict[str, T]: ...


def use_all(key: str | type[Any]) -> dict[str, Any]:
    """Return references to all active modules that offer such a service now, by the name of the module.

    Modules that come later are in the next answer; the references are those of `use`. May be called from any thread.
    Raises ``TypeError`` for a key that is neither text nor type.
    """
    return _registry_here().use_all(key)
