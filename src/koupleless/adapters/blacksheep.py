"""blacksheep: a default router and settings of each biz.

Modules rather bring the library along, and those that bring the same version share all of it, as there is compiled
code. An application without a router of its own takes the default router, which a second application may not, and the
application is kept under its router for good. The settings have functions for JSON, pages and services.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Final

from koupleless.adapters.containers import own_containers
from koupleless.adapters.own import own_object

if TYPE_CHECKING:
    import contextlib
    from collections.abc import Callable

distribution: Final = "blacksheep"


def _follow_router(undo: contextlib.ExitStack, module: Any) -> None:
    """``blacksheep.server.routing``."""
    own_object(undo, module.router, type(module.router))
    own_containers(undo, module, "_apps_by_router_id")


def _follow_settings(name: str, undo: contextlib.ExitStack, module: Any) -> None:
    settings = getattr(module, name)
    own_object(undo, settings, type(settings))


follow: Final[dict[str, Callable[[contextlib.ExitStack, Any], None]]] = {
    "blacksheep.server.routing": _follow_router,
    **{
        f"blacksheep.settings.{name}": functools.partial(_follow_settings, f"{name}_settings")
        for name in ("di", "encodings", "html", "json")
    },
}
follow_own: Final = follow
