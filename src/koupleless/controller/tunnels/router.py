"""The way to each base: the tunnel by which the base was heard."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from koupleless.controller.tunnels.tunnel import NoAnswer
from koupleless.controller.vnodes.base import Way

if TYPE_CHECKING:
    from collections.abc import Mapping

    from koupleless.controller.tunnels.answers import Answer
    from koupleless.controller.tunnels.tunnel import Commands, Health, Tunnel
    from koupleless.controller.vnodes.base import AnnouncedBase
    from koupleless.controller.vpods.hooks import Visit
    from koupleless.controller.vpods.module import Module, ModuleKey


class Router:
    """All tunnels of a controller, as one. Lifetime: as that of the tunnels."""

    def __init__(self, visitor: Tunnel, ways: Mapping[Way, Commands]) -> None:
        """``visitor`` goes to modules, at the address of the base, whatever the way of commands is."""
        self._visitor = visitor
        self._ways = dict(ways)

    async def install(self, base: AnnouncedBase, module: Module, *, replaces: bool = False) -> Answer:
        """See `Commands.install`."""
        return await self._way(base).install(base, module, replaces=replaces)

    async def uninstall(self, base: AnnouncedBase, key: ModuleKey, *, drain_s: float | None = None) -> Answer:
        """See `Commands.uninstall`."""
        return await self._way(base).uninstall(base, key, drain_s=drain_s)

    async def switch(self, base: AnnouncedBase, key: ModuleKey) -> Answer:
        """See `Commands.switch`. Bases of the original know the command over HTTP alone, and have an arklet there."""
        arklet = self._ways.get(Way.HTTP)
        if base.way is Way.MQTT and not base.start and arklet is not None:
            with contextlib.suppress(NoAnswer):  # the other tunnel knows a detour
                return await arklet.switch(base, key)
        return await self._way(base).switch(base, key)

    async def modules(self, base: AnnouncedBase) -> tuple[Mapping[str, Any], ...]:
        """See `Commands.modules`."""
        return await self._way(base).modules(base)

    async def health(self, base: AnnouncedBase) -> Health:
        """See `Commands.health`."""
        return await self._way(base).health(base)

    async def visit(self, base: AnnouncedBase, visit: Visit) -> None:
        """See `Tunnel.visit`."""
        await self._visitor.visit(base, visit)

    def _way(self, base: AnnouncedBase) -> Commands:
        found = self._ways.get(base.way)
        if found is None:
            words = f"base {base.identity} was heard over {base.way.name}, and this controller has no such tunnel"
            raise NoAnswer(f"{words}; see the settings http-tunnel and mqtt-broker")
        return found
