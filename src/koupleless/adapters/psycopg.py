"""psycopg: each biz has global adapters of its own, the template for the adapters of its connections.

Each biz also has its own functions for reading and writing JSON, which all its connections use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from koupleless.adapters.containers import own_containers
from koupleless.adapters.own import OwnAttribute, own_object, replace_function
from koupleless.context import current
from koupleless.frames import standing_for

if TYPE_CHECKING:
    import contextlib
    from collections.abc import Callable

distribution: Final = "psycopg"


def _follow_adapters(undo: contextlib.ExitStack, module: Any) -> None:
    """``psycopg``, with adapters filled by the import."""
    adapters = module.adapters
    kind: Any = type(adapters)
    own_containers(undo, kind, "_optimised")
    own_object(undo, adapters, lambda: kind(adapters))


def _follow_json(undo: contextlib.ExitStack, module: Any) -> None:
    """``psycopg.types.json``."""
    # Classes made for a function are remembered by code object, and bizs share code objects.
    own_containers(undo, module, "_dumpers_cache", "_loaders_cache")
    for setter, holder, name in (
        ("set_json_dumps", module._JsonDumper, "_dumps"),  # noqa: SLF001
        ("set_json_loads", module._JsonLoader, "_loads"),  # noqa: SLF001
    ):
        attribute = OwnAttribute(holder, name)
        attribute.put_in(undo)
        replace_function(undo, module, setter, _setter(vars(module)[setter], attribute))


def _setter(original: Callable[..., None], attribute: OwnAttribute) -> Callable[..., None]:
    @standing_for(original)
    def set_function(function: Any, context: Any = None) -> None:
        if context is not None:
            original(function, context)
        elif current() is None:
            attribute.of_base = function
        else:
            attribute.put(function)

    return set_function


follow: Final = {"psycopg": _follow_adapters, "psycopg.types.json": _follow_json}
