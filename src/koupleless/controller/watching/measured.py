"""A tunnel with a stop-watch."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, TypeVar

from koupleless.controller.tunnels.answers import Answer
from koupleless.controller.tunnels.tunnel import NoAnswer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Mapping

    from koupleless.controller.tunnels.tunnel import Health, Tunnel
    from koupleless.controller.vnodes.base import AnnouncedBase
    from koupleless.controller.vpods.hooks import Visit
    from koupleless.controller.vpods.module import Module, ModuleKey
    from koupleless.controller.watching.figures import Figures

_AnswerT = TypeVar("_AnswerT")


class MeasuredTunnel:
    """See `Tunnel`: every call is passed on, and counted with its outcome and duration."""

    def __init__(self, tunnel: Tunnel, figures: Figures) -> None:
        self._tunnel = tunnel
        self._figures = figures

    async def install(self, base: AnnouncedBase, module: Module, **members: Any) -> Answer:
        """See `Tunnel.install`."""
        return await self._measure("install", self._tunnel.install(base, module, **members))

    async def uninstall(self, base: AnnouncedBase, key: ModuleKey, **members: Any) -> Answer:
        """See `Tunnel.uninstall`."""
        return await self._measure("uninstall", self._tunnel.uninstall(base, key, **members))

    async def switch(self, base: AnnouncedBase, key: ModuleKey, **members: Any) -> Answer:
        """See `Tunnel.switch`."""
        return await self._measure("switch", self._tunnel.switch(base, key, **members))

    async def modules(self, base: AnnouncedBase) -> tuple[Mapping[str, Any], ...]:
        """See `Tunnel.modules`."""
        return await self._measure("list", self._tunnel.modules(base))

    async def health(self, base: AnnouncedBase) -> Health:
        """See `Tunnel.health`."""
        return await self._measure("health", self._tunnel.health(base))

    async def visit(self, base: AnnouncedBase, visit: Visit, **members: Any) -> None:
        """See `Tunnel.visit`."""
        await self._measure("visit", self._tunnel.visit(base, visit, **members))

    async def _measure(self, operation: str, call: Awaitable[_AnswerT]) -> _AnswerT:
        begun, outcome = time.monotonic(), "failed"
        try:
            answer = await call
            outcome = answer.outcome.value if isinstance(answer, Answer) else "done"
        except NoAnswer:
            outcome = "unanswered"
            raise
        except asyncio.CancelledError:
            outcome = "cancelled"
            raise
        finally:
            self._figures.operation(operation, outcome, time.monotonic() - begun)
        return answer
