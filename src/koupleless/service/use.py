"""One use of a service: finding the object, running as its owner, and keeping the owner from leaving meanwhile."""

from __future__ import annotations

import asyncio
import inspect
from typing import TYPE_CHECKING, Any, NamedTuple

from koupleless import variables
from koupleless.context import crossed, current, enter, leave
from koupleless.frames import passed_over
from koupleless.service.bodies import VALUES, owned, tell
from koupleless.service.call import gone
from koupleless.service.crossing import explain

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

    __slots__ = ("_search", "key", "known", "label", "name")

    def __init__(
        self, known: Known, key: str, search: Callable[[], tuple[Provider, bool]], *, label: str, name: str
    ) -> None:
        """``search`` returns the provider, and whether the provider stays until `Known.clear` is called."""
        self.known = known
        self.key = key
        """A text shared by all lookups of one name or type in the same bizs, and by no other lookup."""
        self.label = label
        """The service in words."""
        self.name = name
        """The name, or the name of the type."""
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


class Use:
    """An action on the object behind a reference, to be called again and again; holds neither the object nor its owner.

    Threads: as safe as the object. A call raises ``ServiceError`` while nobody answers, and ``BizGone`` if the owner
    leaves before the action has ended.

    The names of the fields leave every other name to the objects behind references.
    """

    __slots__ = ("_koupleless_action", "_koupleless_lookup")

    _koupleless_action: str | Callable[..., Any]
    _koupleless_lookup: Lookup

    def __init__(self, lookup: Lookup, action: str | Callable[..., Any]) -> None:
        """``action`` is the name of a method, or a function that is called with the object."""
        object.__setattr__(self, "_koupleless_lookup", lookup)
        object.__setattr__(self, "_koupleless_action", action)

    @passed_over
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Let the object that answers now act as its owner, and keep the owner from leaving meanwhile."""
        lookup, action = self._koupleless_lookup, self._koupleless_action
        obj, scope, _ = lookup.known.providers.get(lookup.key) or lookup.find()
        here = current()
        if scope is None or scope is here:
            return owned(as_owner(scope, _act, obj, action, args, kwargs), scope)
        calls = scope.calls
        calls.plain.append(None)
        if calls.is_shut:
            calls.leave_plain()
            return _by_next(self, scope, args, kwargs)
        try:
            if scope.variables.may_differ or (
                variables.find_decimal(None) is not None if here is None else here.variables.may_differ
            ):
                with crossed(scope):
                    result = _act(obj, action, args, kwargs)
            else:
                token = enter(scope)
                try:
                    if kwargs:
                        result = _act(obj, action, args, kwargs)
                    else:
                        result = getattr(obj, action)(*args) if isinstance(action, str) else action(obj, *args)
                finally:
                    leave(token)
            is_value = type(result) in VALUES
            if not is_value:
                tell(result, scope)
        except BaseException as error:
            if not calls.leave_plain():
                explain(error, scope)
                raise
        else:
            calls.plain.pop()
            if not scope.calls.is_shut or not calls.left_plain():
                return result if is_value else owned(result, scope)
            del result
        raise gone(scope)


class Method(Use):
    """A method of a service, found again at every call. Keeps neither the method nor the object alive."""

    __slots__ = ("__name__",)

    def __init__(self, lookup: Lookup, name: str) -> None:
        super().__init__(lookup, name)
        self.__name__ = name

    @property
    def __signature__(self) -> inspect.Signature:
        """The signature of the method, so that frameworks can read its parameters."""
        return inspect.signature(getattr(self._koupleless_lookup.provider().obj, self.__name__))

    def __repr__(self) -> str:
        return f"<method {self._koupleless_lookup.label}.{self.__name__}>"


class AsyncMethod(Method):
    """A coroutine function of a service, and also one for callers that ask before they call."""

    __slots__ = ()

    # asyncio.iscoroutinefunction and, from 3.12 on, inspect.iscoroutinefunction look for these on other callables.
    _is_coroutine = getattr(asyncio.coroutines, "_is_coroutine", None)
    _is_coroutine_mark = getattr(inspect, "_is_coroutine_mark", None)

    @passed_over
    async def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the method of the object behind the reference when the coroutine begins, as the owner of the object."""
        return await Use.__call__(self, *args, **kwargs)


@passed_over
def _by_next(use: Use, left: Scope, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Let another object act in the place of an object of a leaving owner.

    Between the look-up and the entrance, a biz may begin to leave. Raises ``BizGone`` if no other one answers.
    """
    if use._koupleless_lookup.find().scope is left:  # noqa: SLF001 - of the same file
        raise gone(left)
    return Use.__call__(use, *args, **kwargs)


@passed_over
def _act(obj: Any, action: str | Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return getattr(obj, action)(*args, **kwargs) if isinstance(action, str) else action(obj, *args, **kwargs)


@passed_over
def as_owner(scope: Scope | None, action: Callable[..., Any], *args: Any) -> Any:
    """Call ``action`` as a service of the running biz, or of the base: nobody waits for the end of the call."""
    if current() is scope:
        return action(*args)
    try:
        with crossed(scope):
            result = action(*args)
    except BaseException as error:
        explain(error, scope)
        raise
    tell(result, scope)
    return result
