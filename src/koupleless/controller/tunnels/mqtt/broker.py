"""The broker of a controller: the address, and the way in."""

from __future__ import annotations

import importlib.util
import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from koupleless.certificates import show, trusting
from koupleless.errors import SettingsError

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable
    from pathlib import Path

    import aiomqtt

PLAIN_PORT: Final = 1883
SECURE_PORT: Final = 8883
_KEEP_ALIVE_S: Final = 30
"""Seconds after which a silent broker is asked for a sign of life."""
_TIMEOUT_S: Final = 5.0
_MOST_INCOMING: Final = 10_000
"""Messages of bases that wait to be read; of more, the newest are lost, and told again by the bases."""
_MOST_IN_FLIGHT: Final = 1_000

_silent: Final = logging.getLogger("koupleless.controller.mqtt")
"""The logger of paho-mqtt, which logs each failure that is also raised; silent unless an operator sets a level."""
if not _silent.level:
    _silent.setLevel(logging.CRITICAL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Broker:
    """A broker. Secrets and certificates are read anew for each connection: they may change."""

    host: str
    port: int
    client_id: str
    username: str | None = None
    read_password: Callable[[], str | None] = field(default=lambda: None, repr=False)
    """May raise ``SettingsError``."""
    read_tls: Callable[[], ssl.SSLContext] | None = field(default=None, repr=False)
    """May raise ``SettingsError``; ``None`` means a connection without TLS."""

    def __str__(self) -> str:
        return f"the MQTT broker at {self.host}:{self.port}"

    def client(self) -> aiomqtt.Client:
        """Make the client of one connection, on a running event loop. Raises ``SettingsError``."""
        import aiomqtt  # noqa: PLC0415 - not for a controller without a broker

        return aiomqtt.Client(
            self.host,
            self.port,
            username=self.username,
            password=self.read_password(),
            identifier=self.client_id,
            protocol=aiomqtt.ProtocolVersion.V311,
            clean_session=True,
            keepalive=_KEEP_ALIVE_S,
            timeout=_TIMEOUT_S,
            tls_context=None if self.read_tls is None else self.read_tls(),
            max_queued_incoming_messages=_MOST_INCOMING,
            max_inflight_messages=_MOST_IN_FLIGHT,
            logger=_silent,
        )


def check_library() -> None:
    """Raise ``SettingsError`` without the library for brokers."""
    if importlib.util.find_spec("aiomqtt") is None:
        raise SettingsError("a broker needs one more library: pip install 'koupleless[controller]'")


def tls_of(
    issuers: Path | None, certificate: Path | None, key: Path | None, *, is_secure: bool
) -> Callable[[], ssl.SSLContext] | None:
    """Return the reader of the TLS context from settings: TLS for ``is_secure``, or with ``issuers``.

    Certificate and name of the broker are checked, other than by the original. Raises ``SettingsError`` for files of no
    use.
    """
    if not is_secure and issuers is None:
        if certificate is not None:
            raise SettingsError("mqtt-client-crt-path is set, and without mqtt-ca-path or mqtt-tls there is no TLS")
        return None

    def read() -> ssl.SSLContext:
        context = trusting(issuers, "mqtt-ca-path")
        if certificate is not None:
            show(context, certificate, key, "mqtt-client-crt-path")
        return context

    read()
    return read
