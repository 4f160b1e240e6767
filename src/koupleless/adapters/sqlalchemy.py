"""SQLAlchemy: additions of a biz to classes of the library work for the biz alone (listeners: `sqlalchemy_events`).

``@compiles`` for a construct of the library, dialects, plugins and reflected types that are registered are each biz's
own. ``configure_mappers`` and ``clear_mappers`` act on the registries that the caller has made, ``close_all_sessions``
closes the sessions of all. Changes of a biz to an engine or a model of the base are seen by all users of the engine or
model.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Final

from koupleless.adapters.containers import own_containers
from koupleless.adapters.own import OwnAttribute, replace_function
from koupleless.adapters.sqlalchemy_events import is_of_library
from koupleless.adapters.sqlalchemy_models import maker_of
from koupleless.context import current
from koupleless.frames import standing_for
from koupleless.replacing import MISSING, replace

if TYPE_CHECKING:
    import contextlib
    from collections.abc import Callable

distribution: Final = "sqlalchemy"


def _follow_compilers(undo: contextlib.ExitStack, module: Any) -> None:
    """``sqlalchemy.ext.compiler``."""
    original = module.compiles
    names = ("_compiler_dispatcher", "_compiler_dispatch")

    def compiles(class_: Any, *specs: str) -> Callable[[Any], Any]:
        def decorate(function: Any) -> Any:
            if is_of_library(class_):
                for name in names:
                    if type(vars(class_).get(name)) is not OwnAttribute:
                        OwnAttribute(class_, name).put_in(undo)
                _enter(vars(class_)[names[0]], vars(class_)[names[1]], class_, specs, function)
            else:
                original(class_, *specs)(function)
            return function

        return decorate

    def _enter(dispatcher: OwnAttribute, dispatch: OwnAttribute, class_: Any, specs: Any, function: Any) -> None:
        """Do as the original, to a stand-in for the class that has the additions of the running biz so far."""
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

    @standing_for(original)
    def _all_registries() -> set[Any]:
        scope = current()
        return {registry for registry in original() if maker_of(registry) is scope}

    replace_function(undo, module, "_all_registries", _all_registries)


def _follow_dialects(undo: contextlib.ExitStack, module: Any) -> None:
    """``sqlalchemy.dialects``."""
    own_containers(undo, module.registry, "impls")
    own_containers(undo, module.plugins, "impls")


def _follow_types(undo: contextlib.ExitStack, module: Any) -> None:
    """The base module of a dialect, with a class that has the same dictionary."""
    original = module.ischema_names
    own_containers(undo, module, "ischema_names", package="sqlalchemy")
    for kind in [member for member in vars(module).values() if isinstance(member, type)]:
        if vars(kind).get("ischema_names") is original:
            replace(undo, kind, "ischema_names", module.ischema_names)


follow: Final = {
    "sqlalchemy.ext.compiler": _follow_compilers,
    "sqlalchemy.orm.mapper": _follow_mappers,
    "sqlalchemy.dialects": _follow_dialects,
    **{
        f"sqlalchemy.dialects.{name}.base": _follow_types
        for name in ("postgresql", "mysql", "sqlite", "oracle", "mssql")
    },
}
