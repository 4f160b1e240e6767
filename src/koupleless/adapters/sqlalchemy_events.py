"""Listeners on classes of SQLAlchemy: a biz's hear the biz alone, the base's hear everything that no biz has made.

So a listener of the application of the base goes on serving an engine of the base, for every user of the engine.
"""

from __future__ import annotations

import functools
import sys
import types
import weakref
from typing import TYPE_CHECKING, Any, Final

from koupleless.adapters.origin import is_of_base_alone
from koupleless.adapters.own import replace_function
from koupleless.adapters.sqlalchemy_models import maker_of
from koupleless.context import current
from koupleless.frames import standing_for
from koupleless.replacing import replace

if TYPE_CHECKING:
    import contextlib
    from collections.abc import Callable, Iterator

    from koupleless.adapters.leaving import Leaving
    from koupleless.context import Scope

distribution: Final = "sqlalchemy"
module: Final = "sqlalchemy.event.registry"
released: Final = {"sqlalchemy listener": "sqlalchemy.event.listen"}

_UNCHANGED: Final[dict[str, Callable[..., Any]]] = {
    "before_execute": lambda *args, **_: args[1:4],
    "before_cursor_execute": lambda *args, **_: args[2:4],
}
"""The results of listeners that change nothing, other than ``None``."""


def _follow_events(undo: contextlib.ExitStack, module: Any) -> None:
    """``sqlalchemy.event.registry``."""
    original = module._EventKey.listen  # noqa: SLF001

    @standing_for(original)
    def listen(self: Any, *args: Any, named: bool = False, **kwargs: Any) -> None:
        scope = current()
        if not is_of_library(self.target) or (scope is None and not _is_of_bases_code(self.fn)):
            original(self, *args, named=named, **kwargs)
            return
        # The arguments of a call are read from the signature of the listener, which a wrapper does not have.
        events = getattr(self.dispatch_target.dispatch, self.identifier)
        adjusted = events._adjust_fn_spec(self._listen_fn, named)  # noqa: SLF001
        made = (
            _of_base(self.identifier, adjusted) if scope is None else _while_running(scope, self.identifier, adjusted)
        )
        original(self.with_wrapper(made), *args, **kwargs)

    replace(undo, module._EventKey, "listen", listen)  # noqa: SLF001
    for collection, event, listener, put in list(_of_classes(module)):
        made = _of_base(event, listener)
        put(made)
        undo.callback(_put_back, module, weakref.ref(collection), made, listener)


def _of_classes(module: Any) -> Iterator[tuple[Any, str, Any, Callable[[Any], None]]]:
    """The listeners of the base's application on classes so far, each with a way to replace the listener."""
    for reference, listeners in list(module._collection_to_key.items()):  # noqa: SLF001
        collection = reference()
        if getattr(collection, "_clslevel", None) is None:
            continue
        for known in list(listeners):
            listener = known()
            if listener is not None and _is_around_the_bases(listener):
                yield (
                    collection,
                    collection.name,
                    listener,
                    functools.partial(_exchange, module, collection, listener),
                )


def _is_around_the_bases(listener: Any) -> bool:
    """Whether a listener is code of the base alone, or a wrapper of the library around such code."""
    if _is_of_bases_code(listener):
        return True
    inner = [cell.cell_contents for cell in getattr(listener, "__closure__", None) or ()]
    return any(isinstance(each, types.FunctionType) and _is_of_bases_code(each) for each in inner)


def _is_of_bases_code(listener: Any) -> bool:
    """Whether a listener is code of the base alone: not one of the library, for which no index has to be made."""
    return not is_of_library(listener) and is_of_base_alone(listener)


def _exchange(module: Any, collection: Any, old: Any, new: Any) -> None:
    """Put a listener in the place of another, for all classes, and in the books for removals."""
    for kind, known in list(collection._clslevel.items()):  # noqa: SLF001
        if is_of_library(kind):
            for index, one in enumerate(known):
                if one is old:
                    known[index] = new
    keys = module._collection_to_key[collection.ref]  # noqa: SLF001
    key = keys.pop(weakref.ref(old), None)
    if key is not None:
        keys[weakref.ref(new)] = key
        module._key_to_collection[key][collection.ref] = weakref.ref(new)  # noqa: SLF001


def _put_back(module: Any, reference: Any, new: Any, old: Any) -> None:
    collection = reference()
    if collection is not None and weakref.ref(new) in module._collection_to_key.get(collection.ref, {}):  # noqa: SLF001
        _exchange(module, collection, new, old)


_made: Final[weakref.WeakKeyDictionary[Any, weakref.ref[Scope]]] = weakref.WeakKeyDictionary()
"""Engines, their dialects, which their pools know, and sessions -> the bizs that made each."""


def _of_base(event: str, listener: Callable[..., Any]) -> Callable[..., Any]:
    """A listener of the base's application, which hears nothing of objects that a biz has made."""
    unchanged = _UNCHANGED.get(event)

    def heard(*args: Any, **kwargs: Any) -> Any:
        if current() is not None and any(map(_is_made_by_biz, (*args, *kwargs.values()))):
            return None if unchanged is None else unchanged(*args, **kwargs)
        return listener(*args, **kwargs)

    return heard


def _is_made_by_biz(thing: Any) -> bool:
    pool = getattr(thing, "_ConnectionRecord__pool", thing)
    for one in (thing, getattr(thing, "engine", None), getattr(pool, "_dialect", None)):
        try:
            if one is not None and one in _made:
                return True
        except TypeError:
            continue  # an object without weak references is none of these
    registry = getattr(thing, "registry", None)
    return registry is not None and hasattr(registry, "mappers") and maker_of(registry) is not None


def _follow_engines(undo: contextlib.ExitStack, module: Any) -> None:
    """``sqlalchemy.engine.create``; the constructors are left alone, because their parameters are looked up."""
    original = module.create_engine

    @standing_for(original)
    def create_engine(*args: Any, **kwargs: Any) -> Any:
        engine = original(*args, **kwargs)
        scope = current()
        if scope is not None:
            _made[engine] = _made[engine.dialect] = weakref.ref(scope)
        return engine

    replace_function(undo, module, "create_engine", create_engine)


def _follow_sessions(undo: contextlib.ExitStack, module: Any) -> None:
    """``sqlalchemy.orm.session``."""
    original = module.Session.__init__

    @standing_for(original)
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:  # noqa: N807
        scope = current()
        if scope is not None:
            _made[self] = weakref.ref(scope)
        original(self, *args, **kwargs)

    replace(undo, module.Session, "__init__", __init__)


def is_of_library(target: object) -> bool:
    """Whether an object is of the library itself: a class, a stand-in function for one, or one of the listeners."""
    home = getattr(target, "__module__", None) if hasattr(target, "__qualname__") else None
    return type(home) is str and home.partition(".")[0] == "sqlalchemy"


def _while_running(scope: Scope, event: str, listener: Callable[..., Any]) -> Callable[..., Any]:
    unchanged = _UNCHANGED.get(event)

    def heard(*args: Any, **kwargs: Any) -> Any:
        if current() is scope:
            return listener(*args, **kwargs)
        return None if unchanged is None else unchanged(*args, **kwargs)

    return heard


def release(leaving: Leaving) -> dict[str, int]:
    """Take the listeners of the biz out, wherever they listen."""
    # A listener on a class stands in a dictionary with weak keys, even if the class is the biz's own. The listener
    # refers to the Python module, and the Python module to the class, so the entry keeps itself alive.
    registry: Any = sys.modules[module]
    collections: dict[Any, dict[Any, Any]] = getattr(registry, "_collection_to_key", {})
    count = 0
    for reference, listeners in list(collections.items()):
        collection = reference()
        doomed = [listener for known in list(listeners) if leaving.owns(listener := known())]
        if collection is None or not doomed:
            continue
        by_class = getattr(collection, "_clslevel", None)
        kept = [collection.listeners] if by_class is None else list(by_class.values())
        for listener in doomed:
            for entries in kept:
                if listener in entries:
                    entries.remove(listener)
            getattr(collection, "propagate", set()).discard(listener)
        registry._clear(collection, doomed)  # noqa: SLF001 - as its own clear() does
        count += len(doomed)
    return {"sqlalchemy listener": count}


follow: Final = {
    "sqlalchemy.engine.create": _follow_engines,
    "sqlalchemy.event.registry": _follow_events,
    "sqlalchemy.orm.session": _follow_sessions,
}
