"""The search for the object behind a reference, made at every use, so that nothing is held in between."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FunctionType

    from koupleless.context import Scope


class Provider(NamedTuple):
    """The object behind a reference, and the life of its owner."""

    obj: Any
    scope: Scope | None
    """The life of the biz that offers the object; ``None`` is the base."""
    methods: dict[str, tuple[FunctionType, Any]]
    """Name -> a plain function of the class of the object, and the method that references hand out for the function."""


class Known:
    """The providers found since the last change of services or bizs. One for each registry.

    Every change replaces the dict after the change has been made, and a search stores its result in the dict of the
    moment when the search began. So a result from before a change is never found after the change, although no reader
    takes a lock.
    """

    __slots__ = ("providers",)

    def __init__(self) -> None:
        self.providers: dict[str, Provider] = {}

    def clear(self) -> None:
        """Forget all providers: services or bizs have changed."""
        self.providers = {}


class Lookup:
    """The search for the provider of one name or type, which every use of a reference makes.

    Lifetime: as the longest-lived of its references; holds the registry, and nothing of a provider. From any thread.
    """

    __slots__ = ("_search", "key", "known", "label")

    def __init__(self, known: Known, key: str, search: Callable[[], tuple[Provider, bool]], label: str) -> None:
        """``search`` returns the provider, and whether the provider stays until `Known.clear` is called."""
        self.known = known
        self.key = key
        """A text shared by all lookups of one name or type in the same bizs, and by no other lookup."""
        self.label = label
        self._search = search

    def provider(self) -> Provider:
        """Return the provider. Raises ``ServiceError`` while there is none.

        The hottest callers look into ``known`` themselves before they call `find`.
        """
        return self.known.providers.get(self.key) or self.find()

    def find(self) -> Provider:
        """Search anew, and remember the provider. Raises ``ServiceError`` while there is none."""
        providers = self.known.providers  # from before the search
        found, stays = self._search()
        if stays:
            providers[self.key] = found
        return found
