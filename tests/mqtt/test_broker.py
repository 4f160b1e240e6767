"""The broker of the tests delivers, with and without TLS, and is gone when told."""

from __future__ import annotations

import contextlib
import queue
import ssl
from typing import TYPE_CHECKING, Any

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def connected(broker, context: ssl.SSLContext | None = None) -> Iterator[queue.Queue[bytes]]:
    """A client that sends itself a message as soon as the broker lets it in; the payloads that arrive."""
    got: queue.Queue[bytes] = queue.Queue()

    def let_in(client: mqtt.Client, _data: object, _flags: object, reason: Any, _properties: object) -> None:
        if reason.is_failure:
            return
        client.subscribe("a/+", qos=1)
        client.publish("a/b", b"hello", qos=1)

    client = mqtt.Client(CallbackAPIVersion.VERSION2)
    client.on_connect = let_in
    client.on_message = lambda _client, _data, message: got.put(bytes(message.payload))
    if context is not None:
        client.tls_set_context(context)
    client.connect(broker.host, broker.port)
    client.loop_start()
    try:
        yield got
    finally:
        client.disconnect()
        client.loop_stop()


def test_a_message_arrives(broker):
    with connected(broker) as got:
        assert got.get(timeout=10) == b"hello"


def test_over_tls_a_client_with_a_certificate_is_let_in(tls_broker, authority):
    client = authority.issue("client")
    context = ssl.create_default_context(cafile=authority.certificate)
    context.load_cert_chain(client.certificate, client.key)

    with connected(tls_broker, context) as got:
        assert got.get(timeout=10) == b"hello"


def test_over_tls_a_client_without_a_certificate_is_not(tls_broker, authority):
    context = ssl.create_default_context(cafile=authority.certificate)

    with connected(tls_broker, context) as got, pytest.raises(queue.Empty):
        got.get(timeout=0.3)
    assert "certificate" in tls_broker.log()


def test_a_stopped_broker_is_gone_and_comes_back_at_the_same_place(broker):
    broker.stop()
    with pytest.raises(ConnectionRefusedError), connected(broker):
        pass

    broker.start()
    with connected(broker) as got:
        assert got.get(timeout=10) == b"hello"
