"""A session with an MQTT broker, over any number of connections: heartbeats and answers out, commands in."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Self

from koupleless.announce.commands import Commands
from koupleless.announce.fortune import Fortune, Pulse, logger
from koupleless.announce.letters import LAST_MS, Outbox, Topics, letter
from koupleless.certificates import show, trusting
from koupleless.context import as_base
from koupleless.errors import SettingsError, in_words
from koupleless.recorders.running.executors import leave_workers_behind

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Coroutine
    from pathlib import Path

    import aiomqtt

    from koupleless.announce.baseline import Baseline
    from koupleless.wire.announcements import BaseStatus

PERIOD_S: Final = 10.0
"""Seconds between two heartbeats, as in the original."""
_QUERY_EVERY: Final = 6
"""The baseline is asked for with every sixth heartbeat until a controller answers."""
_LONGEST_PAUSE_S: Final = 30.0
_KEEP_ALIVE_S: Final = 60
_TIMEOUT_S: Final = 10.0
_LAST_S: Final = 2.0
"""Seconds for the last heartbeat."""
_GRACE_S: Final = 1.0
"""Seconds for the end of the connection after that."""
_QOS: Final = 1
_PLAIN_PORT: Final = 1883
_SECURE_PORT: Final = 8883
_SUBSCRIBED: Final = range(3)

_silent: Final = logging.getLogger("koupleless.announce.mqtt")
"""The logger of paho-mqtt, which logs each failure that is also raised; silent unless an operator sets a level."""
if not _silent.level:
    _silent.setLevel(logging.CRITICAL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Broker:
    """A broker, and the way in."""

    host: str
    port: int
    client_prefix: str = "koupleless"
    username: str | None = None
    read_password: Callable[[], str | None] = field(default=lambda: None, repr=False)
    """Returns the password, read anew for each connect. May raise ``SettingsError``."""
    tls: ssl.SSLContext | None = field(default=None, repr=False)
    has_will: bool = False
    """Whether the broker tells the controllers of the end of a base with a broken connection."""
    obeys_retained: bool = False
    """Whether changes kept by the broker, perhaps for a former life of the base, are made."""

    @classmethod
    def of(
        cls,
        host: str,
        port: int | None = None,
        *,
        is_secure: bool = False,
        issuers: Path | None = None,
        certificate: Path | None = None,
        key: Path | None = None,
        **options: Any,
    ) -> Self:
        """Make one from settings, with TLS for ``is_secure`` or ``issuers``; ``options`` are further fields.

        Raises ``SettingsError`` for files of no use, and without ``aiomqtt``.
        """
        if importlib.util.find_spec("aiomqtt") is None:
            raise SettingsError(
                "arklet.mqtt.broker is set, and aiomqtt, which speaks to a broker, is not installed: "
                "pip install 'koupleless[mqtt]'"
            )
        tls = None
        if is_secure or issuers is not None:
            tls = trusting(issuers, "arklet.mqtt.ca-path")
            if certificate is not None:
                show(tls, certificate, key, "arklet.mqtt.client-crt-path")
        elif certificate is not None:
            raise SettingsError(
                "arklet.mqtt.client-crt-path is set, and without ca-path or tls the connection speaks no TLS"
            )
        return cls(host=host, port=port or (_PLAIN_PORT if tls is None else _SECURE_PORT), tls=tls, **options)

    def __str__(self) -> str:
        return f"the MQTT broker at {self.host}:{self.port}"


class Session:
    """The tunnel of one base through one broker.

    Lifetime: `begin` once, when the base is ready; `leave`, then `close`, when the base ends. The thread is a daemon,
    awaited by nobody except `close`, and not longer than the last heartbeat may take.
    """

    def __init__(
        self,
        broker: Broker,
        baseline: Baseline,
        status: Callable[[bool], BaseStatus],
        *,
        environment: str,
        period_s: float = PERIOD_S,
    ) -> None:
        """``status`` returns a heartbeat: of a serving base, or for ``False`` of an ending one."""
        self._broker = broker
        self._status = status
        self._period_s = period_s
        self._identity = status(True).base_metadata.identity
        self._topics = Topics.of(environment, self._identity)
        self._fortune = Fortune("mqtt", str(broker))
        self._outbox = Outbox()
        self._commands = Commands(baseline, self._topics, self._outbox, obeys_retained=broker.obeys_retained)
        self._connecting = ThreadPoolExecutor(1, "koupleless-mqtt-connect")
        self._thread = threading.Thread(target=self._run, name="koupleless-mqtt", daemon=True)
        self._leaving = _Signal()

    def begin(self) -> None:
        """Connect, and go on; on a thread."""
        with as_base():  # the thread outlives its maker
            self._thread.start()

    def leave(self) -> None:
        """Begin to send the last heartbeat, and to disconnect. Idempotent."""
        self._leaving.set()

    def close(self) -> None:
        """Wait for this. Idempotent."""
        self.leave()
        if self._thread.ident is not None:
            self._thread.join(_LAST_S + _GRACE_S)
        self._fortune.close()
        self._connecting.shutdown(wait=False, cancel_futures=True)
        leave_workers_behind(self._connecting)  # a connect lasts as long as the look-up of a name

    # --- on the thread -------------------------------------------------------------------------------------------

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:  # which paho-mqtt needs
            runner.run(self._live())

    async def _live(self) -> None:
        loop = asyncio.get_running_loop()
        loop.set_default_executor(self._connecting)
        leaving = loop.create_task(self._leaving.wait(), name="end of the MQTT session")
        pulse = Pulse(self._period_s, longest_s=_LONGEST_PAUSE_S)
        while not leaving.done():
            connection = loop.create_task(self._connection(pulse), name="MQTT connection")
            await asyncio.wait({connection, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if leaving.done():
                connection.cancel()
                await asyncio.wait({connection}, timeout=_LAST_S + _GRACE_S)
            else:
                await asyncio.wait({leaving}, timeout=pulse.after(is_success=False))

    async def _connection(self, pulse: Pulse) -> None:
        """One connection, from the connect to the loss, which is noted and raised to nobody."""
        import aiomqtt  # noqa: PLC0415 - an extra, and not for a base without a broker

        is_in, client = False, None
        try:
            client = self._make(aiomqtt)
            async with client:
                await self._subscribe(client)
                is_in = True
                pulse.after(is_success=True)
                self._outbox.renew()
                try:
                    await _all_or_none(self._hear(client), self._beat(), self._send(client))
                except asyncio.CancelledError:  # by `_live`; no heartbeat of these parts comes after the last one
                    await self._take_leave(client)
                    raise
        except _Deaf as error:
            self._fortune.fail("refuses this base", str(error))
        except (aiomqtt.MqttError, SettingsError) as error:
            is_refusal = isinstance(error, aiomqtt.MqttCodeError) and not is_in
            self._fortune.fail("refuses this base" if is_refusal else "cannot be reached", str(error))
        except Exception as error:  # noqa: BLE001 - whatever it is, the next connection may last
            self._fortune.fail("cannot be talked to", in_words(error))
        finally:
            if client is not None:
                _let_go(client)

    def _make(self, library: Any) -> aiomqtt.Client:
        broker, will = self._broker, None
        if broker.has_will:
            content = letter(self._status(False), time_ms=LAST_MS)
            will = library.Will(self._topics.out("heart"), content, qos=_QOS)
        client: aiomqtt.Client = library.Client(
            broker.host,
            broker.port,
            username=broker.username,
            password=broker.read_password(),
            identifier=f"{broker.client_prefix}@@@{self._identity}",
            protocol=library.ProtocolVersion.V311,
            clean_session=True,
            keepalive=_KEEP_ALIVE_S,
            timeout=_TIMEOUT_S,
            tls_context=broker.tls,
            will=will,
            logger=_silent,
        )
        return client

    async def _subscribe(self, client: aiomqtt.Client) -> None:
        granted = await client.subscribe([(self._topics.commands, _QOS), (self._topics.baseline, _QOS)])
        if any(code not in _SUBSCRIBED for code in granted):
            raise _Deaf(f"this base may not hear {self._topics.commands} and {self._topics.baseline}")

    async def _hear(self, client: aiomqtt.Client) -> None:
        async for message in client.messages:
            self._commands.take(message.topic.value, bytes(message.payload), is_retained=bool(message.retain))

    async def _beat(self) -> None:
        beats = 0
        while True:
            status = self._status(True)
            self._outbox.put(self._topics.out("heart"), letter(status))
            if not self._commands.has_baseline and beats % _QUERY_EVERY == 0:
                self._outbox.put(self._topics.out("queryBaseline"), letter(status.base_metadata))
            beats += 1
            await asyncio.sleep(self._period_s)

    async def _send(self, client: aiomqtt.Client) -> None:
        while True:
            first = await self._outbox.first()
            await client.publish(first.topic, first.content, qos=_QOS)
            self._outbox.drop(first)
            self._fortune.succeed(f"carries the heartbeats of this base as {self._identity}")

    async def _take_leave(self, client: aiomqtt.Client) -> None:
        try:
            content = letter(self._status(False))
            await client.publish(self._topics.out("heart"), content, qos=_QOS, timeout=_LAST_S)
        except Exception as error:  # noqa: BLE001 - the base ends anyway
            logger.warning("%s was not told that this base ends: %s", self._broker, in_words(error))


def _let_go(client: aiomqtt.Client) -> None:
    """Close the socket of a client whose connect was cut off, which nobody else does before its end as an object.

    That may come after the end of the loop, on which the callbacks of the client depend.
    """
    inner = client._client  # noqa: SLF001 - there is no other way to the socket
    inner._reset_sockets()  # noqa: SLF001
    inner.on_socket_close = inner.on_socket_unregister_write = None


class _Deaf(Exception):
    """The broker has not let the base subscribe."""


class _Signal:
    """A signal from any thread to one loop, which may not run yet."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._is_set = False
        self._event: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def set(self) -> None:
        """Give the signal. Idempotent."""
        with self._lock:
            self._is_set = True
            if self._loop is not None and self._event is not None:
                with contextlib.suppress(RuntimeError):  # the loop has ended
                    self._loop.call_soon_threadsafe(self._event.set)

    async def wait(self) -> None:
        """Wait for the signal; once."""
        with self._lock:
            self._event, self._loop = asyncio.Event(), asyncio.get_running_loop()
            if self._is_set:
                return
        await self._event.wait()


async def _all_or_none(*parts: Coroutine[Any, Any, None]) -> None:
    """Run all parts until one ends, then end the others. Raises the error of the first that ended."""
    tasks = {asyncio.ensure_future(part) for part in parts}
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
