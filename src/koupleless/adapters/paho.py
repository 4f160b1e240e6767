"""Paho: MQTT clients of a biz are disconnected with the biz."""

from __future__ import annotations

from typing import Any, Final

from koupleless.recorders.running.closing import Closer

distribution: Final = "paho-mqtt"


def _end_paho(client: Any, _: float) -> bool:
    is_running = getattr(client, "_thread", None) is not None
    is_connected = client.is_connected()
    client.disconnect()
    client.loop_stop()
    return is_running or is_connected


KINDS: Final = (Closer("MQTT client", "paho.mqtt.client", "Client", _end_paho),)

follow: Final = {closer.module: closer.follow for closer in KINDS}
follow_own: Final = follow
"""Followed in own copies and own versions of a biz, too."""
