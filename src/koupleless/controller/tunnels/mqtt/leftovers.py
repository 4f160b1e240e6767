"""Commands that the broker has kept for bases: the original publishes everything so, and a base that comes back obeys.

What is kept is heard right after a subscription. Empty messages clear only topics with a kept message, because a base
hears the empty one, too.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from koupleless.controller.tunnels.tunnel import NoAnswer

if TYPE_CHECKING:
    from collections.abc import Iterable

    from koupleless.controller.tunnels.mqtt.link import Link

_log: Final = logging.getLogger("koupleless.controller")

LISTEN_S: Final = 10.0
"""Seconds for the broker to deliver the kept messages of all bases."""
_MOST: Final = 100_000


class Leftovers:
    """The kept commands of one env. Used on one event loop."""

    def __init__(self, filters: Iterable[str], *, listen_s: float = LISTEN_S) -> None:
        self._filters = tuple(filters)
        self._listen_s = listen_s
        self._topics: set[str] = set()

    def note(self, topic: str) -> None:
        """Note a kept command."""
        if len(self._topics) < _MOST:
            self._topics.add(topic)

    async def clear(self, link: Link) -> None:
        """Clear all kept commands, over any number of connections; returns after the first whole round."""
        while True:
            await link.up()
            try:
                await link.subscribe(self._filters)
                await asyncio.sleep(self._listen_s)
                await link.unsubscribe(self._filters)
                await self._publish(link)
            except NoAnswer as error:
                _log.info("commands kept by the broker are not cleared yet: %s", error)
                await asyncio.sleep(self._listen_s)
            else:
                return

    async def _publish(self, link: Link) -> None:
        count = len(self._topics)
        while self._topics:
            topic = next(iter(self._topics))
            await link.publish(topic, b"", is_kept=True)
            self._topics.discard(topic)
        if count:
            _log.info("%s commands that the broker had kept from an earlier controller are cleared", count)
