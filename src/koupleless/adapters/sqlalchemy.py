"""SQLAlchemy: what a biz puts on classes of the library works for it alone.

Listeners on `Engine`, `Session`, `Pool`, `Mapper`, `Table` and the like are called while the biz is running that has
put them there. Those of the base are called while no biz is, and for its own engines whoever uses them. ``@compiles``
for a construct of the library, dialects, plugins and reflected types that are registered are each biz's own, and
``configure_mappers`` and ``clear_mappers`` are about the registries that the caller has made. ``close_all_sessions``
closes those of all. What a biz does with an engine or a model of the base is seen by all who use that.
"""

from __future__ import annotations

import functools
import inspect
import weakref
from typing import TYPE_CHECKING, Any, Final

from koupleless.adapters.containers import own_containers
from koupleless.adapters.own import MISSING, OwnAttribute, replace, replace_function
from koupleless.context import current
from koupleless.ownership.libraries import maker_of

if TYPE_CHECKING:
    import contextlib
    from collections.abc import Callable

    from koupleless.context import Scope

DISTRIBUTIONS: Final = ("sqlalchemy",)

_UNCHANGED: Final[dict[str, Callable[..., Any]]] = {
    "before_execute": lambda *args, **_: args[1:4],
    "before_cursor_execute": lambda *args, **_: args[2:4],
}
"""What listeners return who leave things as they are, where that is not ``None``."""


def _follow_events(undo: contextlib.ExitStack, module: Any) -> None:
    """``sqlalchemy.event.registry``."""
    original = module._EventKey.listen  # noqa: SLF001

    @functools.wraps(original)
    def listen(self: Any, *args: Any, named: bool = False, **kwargs: Any) -> None:
        scope = current()
        if not _is_of_library(self.target) or _is_internal(self._listen_fn):
            original(self, *args, named=named, **kwargs)
            return
        # How the listener wants to be called is read from its signature, which the one around it does not have.
        events = getattr(self.dispatch_target.dispatch, self.identifier)
        adjusted = events._adjust_fn_spec(self._listen_fn, named)  # noqa: SLF001
        is_for = _is_for_base if scope is None else _running(scope)
        original(self.with_wrapper(_heard(self.identifier, adjusted, is_for)), *args, **kwargs)

    _leave_to_base(undo, module)
    replace(undo, module._EventKey, "listen", listen)  # noqa: SLF001


def _leave_to_base(undo: contextlib.ExitStack, registry: Any) -> None:
    """Have the listeners that the base has put on classes of the library be called for the base alone."""
    for reference, keys in list(registry._collection_to_key.items()):  # noqa: SLF001
        collection = reference()
        levels = getattr(collection, "_clslevel", None)
        if levels is None:
            continue
        for known, key in list(keys.items()):
            listener = known()
            if listener is not None and not _is_internal(listener):
                places = [heard for kind, heard in list(levels.items()) if _is_of_library(kind) and listener in heard]
                of_base = _heard(collection.name, listener, _is_for_base)
                swap = functools.partial(_swap, registry, reference, key, places)
                if places:
                    swap(listener, of_base)
                    undo.callback(swap, of_base, listener)


def _swap(  # noqa: PLR0917 - a partial of it is made in one place
    registry: Any, reference: Any, key: Any, places: list[Any], old: Callable[..., Any], new: Callable[..., Any]
) -> None:
    for heard in places:
        for index, listener in enumerate(heard):
            if listener is old:
                heard[index] = new
    if reference in registry._key_to_collection.get(key, ()):  # noqa: SLF001 - it was not removed meanwhile
        registry._key_to_collection[key][reference] = weakref.ref(new)  # noqa: SLF001
        registry._collection_to_key[reference].pop(weakref.ref(old), None)  # noqa: SLF001
        registry._collection_to_key[reference][weakref.ref(new)] = key  # noqa: SLF001


def _is_internal(listener: Any) -> bool:
    """Whether a listener is the library's own, and not a wrapper of its around somebody else's."""
    for _ in range(_WRAPPED):
        if getattr(listener, "__module__", "").partition(".")[0] != "sqlalchemy":
            return False
        cells = inspect.getclosurevars(listener).nonlocals.values() if inspect.isfunction(listener) else ()
        inner = [content for content in cells if callable(content) and not isinstance(content, type)]
        if not inner:
            return True
        listener = inner[0]
    return True


_WRAPPED: Final = 4
"""Wrappers one around the other that are looked through."""


def _is_of_library(target: object) -> bool:
    """Whether one may listen to something of the library itself: a class, or a function that stands for one."""
    return hasattr(target, "__qualname__") and getattr(target, "__module__", "").partition(".")[0] == "sqlalchemy"


def _heard(event: str, listener: Callable[..., Any], is_for: Callable[..., bool]) -> Callable[..., Any]:
    """A listener that is called for those that it is for."""
    unchanged = _UNCHANGED.get(event)

    def heard(*args: Any, **kwargs: Any) -> Any:
        if is_for(*args):
            return listener(*args, **kwargs)
        return None if unchanged is None else unchanged(*args, **kwargs)

    return heard


def _running(scope: Scope) -> Callable[..., bool]:
    return lambda *_: current() is scope


_makers: Final[weakref.WeakKeyDictionary[Any, weakref.ref[Scope]]] = weakref.WeakKeyDictionary()
"""Engine or pool -> the biz that has made it; those of the base are not here."""


def _is_for_base(*args: Any) -> bool:
    """Whether an event is about an engine or a pool of the base; if it is about neither, whether no biz is running."""
    for arg in args[:2]:
        thing = getattr(arg, "engine", None) or getattr(arg, "_ConnectionRecord__pool", None)
        if thing is not None:
            return thing not in _makers
    return current() is None


def _follow_makers(name: str, undo: contextlib.ExitStack, module: Any) -> None:
    """The module of a class, of which it is noted who makes which instance."""
    kind = getattr(module, name)
    original = kind.__init__

    @functools.wraps(original)
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:  # noqa: N807
        scope = current()
        if scope is not None:
            _makers[self] = weakref.ref(scope)
        original(self, *args, **kwargs)

    replace(undo, kind, "__init__", __init__)


def _follow_compilers(undo: contextlib.ExitStack, module: Any) -> None:
    """``sqlalchemy.ext.compiler``."""
    original = module.compiles
    names = ("_compiler_dispatcher", "_compiler_dispatch")

    def compiles(class_: Any, *specs: str) -> Callable[[Any], Any]:
        def decorate(function: Any) -> Any:
            if _is_of_library(class_):
                for name in names:
                    if type(vars(class_).get(name)) is not OwnAttribute:
                        OwnAttribute(class_, name).put_in(undo)
                _enter(vars(class_)[names[0]], vars(class_)[names[1]], class_, specs, function)
            else:
                original(class_, *specs)(function)
            return function

        return decorate

    def _enter(dispatcher: OwnAttribute, dispatch: OwnAttribute, class_: Any, specs: Any, function: Any) -> None:
        """Do as the original does for a class, to one that stands in for it, with what whoever runs has so far."""
        mine = (
            dispatcher.peek()
            if current() is not None
            else None
            if dispatcher.of_base is MISSING
            else dispatcher.of_base
        )
        stand_in: Any = type(class_.__name__, (), {"_compiler_dispatch": class_._compiler_dispatch})  # noqa: SLF001
        if mine is not None and mine is not MISSING:
            stand_in._compiler_dispatcher = mine  # noqa: SLF001
        original(stand_in, *specs)(function)
        mine = stand_in._compiler_dispatcher  # noqa: SLF001
        if current() is None:
            dispatcher.of_base, dispatch.of_base = mine, _Dispatch(mine)
        else:
            dispatcher.put(mine)
            dispatch.put(_Dispatch(mine))

    replace_function(undo, module, "compiles", functools.wraps(original)(compiles))


class _Dispatch:
    """The method of a class by which a dispatcher is called."""

    def __init__(self, dispatcher: Callable[..., Any]) -> None:
        self._dispatcher = dispatcher

    def __get__(self, instance: Any, kind: type | None = None) -> Callable[..., Any]:
        return self._dispatcher if instance is None else functools.partial(self._dispatcher, instance)


def _follow_mappers(undo: contextlib.ExitStack, module: Any) -> None:
    """``sqlalchemy.orm.mapper``."""
    original = module._all_registries  # noqa: SLF001

    @functools.wraps(original)
    def _all_registries() -> set[Any]:
        scope = current()
        return {registry for registry in original() if maker_of(registry) is scope}

    replace_function(undo, module, "_all_registries", _all_registries)


def _follow_dialects(undo: contextlib.ExitStack, module: Any) -> None:
    """``sqlalchemy.dialects``."""
    own_containers(undo, module.registry, "impls")
    own_containers(undo, module.plugins, "impls")


def _follow_types(undo: contextlib.ExitStack, module: Any) -> None:
    """The base module of a dialect, whose class has the same dictionary."""
    original = module.ischema_names
    own_containers(undo, module, "ischema_names", package="sqlalchemy")
    for kind in [member for member in vars(module).values() if isinstance(member, type)]:
        if vars(kind).get("ischema_names") is original:
            replace(undo, kind, "ischema_names", module.ischema_names)


FOLLOWED: Final = {
    "sqlalchemy.event.registry": _follow_events,
    "sqlalchemy.engine.base": functools.partial(_follow_makers, "Engine"),
    "sqlalchemy.pool.base": functools.partial(_follow_makers, "Pool"),
    "sqlalchemy.ext.compiler": _follow_compilers,
    "sqlalchemy.orm.mapper": _follow_mappers,
    "sqlalchemy.dialects": _follow_dialects,
    **{
        f"sqlalchemy.dialects.{name}.base": _follow_types
        for name in ("postgresql", "mysql", "sqlite", "oracle", "mssql")
    },
}
