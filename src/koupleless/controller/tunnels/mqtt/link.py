"""The link to a broker, over any number of connections: subscriptions are renewed with each."""

from __future__ import annotations

import asyncio
import logging
import random
from typing import TYPE_CHECKING, Final

from koupleless.controller.cluster.delays import Backoff
from koupleless.controller.tunnels.tunnel import Deaf, NoAnswer
from koupleless.errors import SettingsError, in_words

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import aiomqtt

    from koupleless.controller.tunnels.mqtt.broker import Broker

_log: Final = logging.getLogger("koupleless.controller")

_PAUSES: Final = Backoff(first_s=0.5, longest_s=30)
_ACK_S: Final = 5.0
"""Seconds for the broker to confirm a message or a subscription."""
_STEADY_S: Final = 10.0
"""Seconds after which a connection counts as a success."""
_AT_ONCE: Final = 200
"""Filters in one subscription."""
_QOS: Final = 1
_GRANTED: Final = range(3)


class Link:
    """One link. Used on one event loop; lifetime: of a task that calls `run`."""

    def __init__(
        self,
        broker: Broker,
        always: Iterable[str],
        *,
        take: Callable[[str, bytes, bool], object],
        begun: Callable[[], object],
        ended: Callable[[str], object],
    ) -> None:
        """``always`` are filters without which a connection is of no use.

        ``take`` is told topic, content and whether the broker had kept the message, and must not wait or raise.
        ``begun`` is called after each connect with all subscriptions, ``ended`` with a reason after each loss.
        """
        self._broker = broker
        self._take = take
        self._begun = begun
        self._ended = ended
        self._always = frozenset(always)
        self._filters: dict[str, bool] = dict.fromkeys(self._always, False)
        """The wanted subscriptions, and whether the broker has granted each on the present connection."""
        self._client: aiomqtt.Client | None = None
        self._is_up = asyncio.Event()
        self._since = float("-inf")
        """The begin of the present connection, by the clock of the loop."""
        self._failures = 0
        self._trouble = "not connected yet"

    @property
    def trouble(self) -> str:
        """The reason why there is no connection; empty if there is one."""
        return "" if self._client is not None else f"{self._broker} {self._trouble}"

    @property
    def age_s(self) -> float:
        """The seconds since the connect; of use while connected."""
        return asyncio.get_running_loop().time() - self._since

    async def run(self) -> None:
        """Connect, and connect again after each loss, until cancelled. A failure is told once, and ends nothing.

        Connections that break soon count as failures: two clients of one name end the connections of each other.
        """
        while True:
            before = self._trouble
            await self._connection()
            self._failures = 1 if self.age_s >= _STEADY_S else self._failures + 1
            if self._trouble != before:
                _log.warning("%s %s; tried again until it answers", self._broker, self._trouble)
            await asyncio.sleep(_PAUSES.after(self._failures) * random.uniform(0.5, 1))  # noqa: S311 - no secret

    async def up(self) -> None:
        """Wait for a connection."""
        await self._is_up.wait()

    async def publish(self, topic: str, content: bytes, *, is_kept: bool = False) -> None:
        """Publish a message; returns once the broker has the message. Raises `NoAnswer`."""
        client = self._connected()
        try:
            await client.publish(topic, content, qos=_QOS, retain=is_kept, timeout=_ACK_S)
        except Exception as error:  # noqa: BLE001 - whatever it is, the message may be lost
            raise self._lost(error) from None

    async def subscribe(self, filters: Iterable[str]) -> None:
        """Subscribe now and after each reconnect; returns once the broker has granted all. Raises `NoAnswer`.

        The broker may refuse: the filters are then not asked for again by themselves.
        """
        wanted = [one for one in filters if not self._filters.get(one)]
        if not wanted:
            return
        client = self._connected()
        self._filters |= dict.fromkeys(wanted, False)
        try:
            refused = await self._ask_for(client, wanted)
        except Exception as error:  # noqa: BLE001 - whatever it is, nothing is granted
            raise self._lost(error) from None
        if refused:
            self._drop(refused)
            raise NoAnswer(f"{self._broker} does not let this controller hear {', '.join(refused)}")

    async def unsubscribe(self, filters: Iterable[str]) -> None:
        """Hear no more of these filters; quiet if the connection breaks."""
        gone = [one for one in filters if self._filters.pop(one, False)]
        if gone and self._client is not None:
            try:
                await self._client.unsubscribe(gone, timeout=_ACK_S)
            except Exception as error:  # noqa: BLE001 - the next connection has no such subscription
                _log.debug("%s: %s", self._broker, in_words(error))

    # --- one connection ----------------------------------------------------------------------------------------------

    async def _connection(self) -> None:
        """Keep one connection, from the connect to the loss, which becomes the present trouble."""
        client = None
        try:
            client = self._broker.client()
            async with client:
                refused = await self._ask_for(client, list(self._filters))
                if lacking := sorted(self._always.intersection(refused)):
                    self._trouble = f"does not let this controller hear {', '.join(lacking)}"
                    return
                self._drop(refused)
                if self._trouble:
                    _log.info("%s carries the words between bases and this controller", self._broker)
                self._client, self._trouble = client, ""
                self._since = asyncio.get_running_loop().time()
                self._is_up.set()
                self._begun()
                async for message in client.messages:
                    self._take(message.topic.value, bytes(message.payload), bool(message.retain))
        except SettingsError as error:
            self._trouble = f"cannot be asked: {error}"
        except Exception as error:  # noqa: BLE001 - whatever it is, the next connection may last
            self._trouble = f"cannot be reached: {in_words(error)}"
        finally:
            self._client = None
            self._is_up.clear()
            self._filters = dict.fromkeys(self._filters, False)
            self._ended(self.trouble)
            if client is not None:
                _let_go(client)

    async def _ask_for(self, client: aiomqtt.Client, filters: list[str]) -> list[str]:
        """Subscribe, and return the refused filters."""
        refused = []
        for start in range(0, len(filters), _AT_ONCE):
            some = filters[start : start + _AT_ONCE]
            granted = await client.subscribe([(one, _QOS) for one in some], timeout=_ACK_S)
            for one, code in zip(some, granted, strict=True):
                self._filters[one] = code in _GRANTED
                if code not in _GRANTED:
                    refused.append(one)
        return refused

    def _drop(self, refused: Iterable[str]) -> None:
        """Ask for refused filters no more by itself: the next question to the base does."""
        for one in refused:
            self._filters.pop(one, None)

    def _connected(self) -> aiomqtt.Client:
        if self._client is None:
            raise Deaf(self.trouble)
        return self._client

    def _lost(self, error: Exception) -> NoAnswer:
        return Deaf(f"{self._broker} has not confirmed a message: {in_words(error)}")


def _let_go(client: aiomqtt.Client) -> None:
    """Close the socket of a client with a connect that was cut off: nobody else does before the end of the loop."""
    inner = client._client  # noqa: SLF001 - there is no other way to the socket
    inner._reset_sockets()  # noqa: SLF001
    inner.on_socket_close = inner.on_socket_unregister_write = None
