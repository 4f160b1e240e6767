"""The settings of a controller with a broker: names of the original, secrets, certificates, and mistakes told early."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from koupleless.cli.controlling import _mqtt, _router
from koupleless.controller.tunnels.http import HttpTunnel
from koupleless.controller.tunnels.mqtt.broker import tls_of
from koupleless.controller.tunnels.tunnel import Limits
from koupleless.controller.vnodes.base import Way
from koupleless.errors import SettingsError
from koupleless.settings.control import ControlSettings, load_control

if TYPE_CHECKING:
    from pathlib import Path

    from tests.certificates import Authority


def settings(directory: Path, *, environ: dict[str, str] | None = None, **flags: Any) -> ControlSettings:
    return load_control(flags, environ=environ or {}, directory=directory)


def test_the_variables_of_the_original_are_read(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").touch()
    names = {
        "ENABLE_MQTT_TUNNEL": "true",
        "ENABLE_HTTP_TUNNEL": "false",
        "MQTT_BROKER": "mq.example",
        "MQTT_PORT": "18831",
        "MQTT_USERNAME": "me",
        "MQTT_PASSWORD": "s3cret",
        "MQTT_CLIENT_PREFIX": "shop",
        "MQTT_CA_PATH": "ca.pem",
        "MQTT_CLIENT_CRT_PATH": "crt.pem",
        "MQTT_CLIENT_KEY_PATH": "key.pem",
        "CLIENT_ID": "one",
    }
    found = settings(tmp_path, environ=names)
    assert (found.has_broker, found.http_tunnel) == (True, False)
    assert (found.mqtt_broker, found.mqtt_port, found.mqtt_username) == ("mq.example", 18831, "me")
    assert found.read_mqtt_password() == "s3cret"
    paths = (found.mqtt_ca_path, found.mqtt_client_crt_path, found.mqtt_client_key_path)
    assert [path and path.name for path in paths] == ["ca.pem", "crt.pem", "key.pem"]
    assert "s3cret" not in repr(found)


def test_the_client_is_called_by_prefix_and_name(tmp_path: Path) -> None:
    made = _mqtt(settings(tmp_path, mqtt_broker="mq", mqtt_client_prefix="shop", name="one"), Limits())
    assert made is not None
    assert (made._broker.client_id, made._broker.port) == ("shop@@@one", 1883)
    made = _mqtt(settings(tmp_path, mqtt_broker="mq", mqtt_tls=True), Limits())
    assert made is not None
    assert made._broker.port == 8883
    assert str(made._broker) == "the MQTT broker at mq:8883"


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({}, {Way.HTTP}),
        ({"mqtt_broker": "mq"}, {Way.HTTP, Way.MQTT}),
        ({"mqtt_broker": "mq", "http_tunnel": False}, {Way.MQTT}),
        ({"mqtt_broker": "mq", "mqtt_tunnel": False}, {Way.HTTP}),
    ],
)
def test_either_tunnel_or_both_may_be_on(tmp_path: Path, flags: dict[str, Any], expected: set[Way]) -> None:
    given = settings(tmp_path, **flags)
    assert _router(given, HttpTunnel(), _mqtt(given, Limits()))._ways.keys() == expected


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"mqtt_tunnel": True}, "mqtt-broker names no broker"),
        ({"http_tunnel": False}, "no base can be heard"),
        ({"mqtt_broker": "mq", "mqtt_password_file": "gone"}, "mqtt-password-file: .* cannot be read"),
        ({"mqtt_broker": "mq", "mqtt_ca_path": "gone.pem"}, "mqtt-ca-path: .*gone.pem cannot be used"),
        ({"mqtt_broker": "mq", "mqtt_client_crt_path": "c.pem"}, "without mqtt-ca-path or mqtt-tls there is no TLS"),
    ],
)
def test_mistakes_are_told_before_the_start(tmp_path: Path, flags: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        _mqtt(settings(tmp_path, **flags), Limits())


def test_a_password_in_a_table_is_refused(tmp_path: Path) -> None:
    (tmp_path / "koupleless.toml").write_text("[controller]\nmqtt-password = 's3cret'\n")
    with pytest.raises(SettingsError, match="is a secret in a file that others read"):
        settings(tmp_path)


def test_without_the_http_tunnel_no_token_is_demanded(tmp_path: Path) -> None:
    assert settings(tmp_path, host="0.0.0.0", http_tunnel=False, mqtt_broker="mq").read_token() is None
    with pytest.raises(SettingsError, match="lets everybody announce bases"):
        settings(tmp_path, host="0.0.0.0").read_token()


def test_certificates_are_read_anew_for_each_connection(tmp_path: Path, authority: Authority) -> None:
    mine = authority.issue("controller")
    copy = tmp_path / "client.pem"
    copy.write_bytes(mine.certificate.read_bytes())
    read = tls_of(authority.certificate, copy, mine.key, is_secure=False)
    assert read is not None
    assert read().check_hostname
    copy.write_text("renewed, and not whole yet")
    with pytest.raises(SettingsError, match=r"mqtt-client-crt-path: .*client\.pem cannot be used"):
        read()
