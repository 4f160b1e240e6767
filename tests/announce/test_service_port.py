"""The port of the application that a base announces."""

from __future__ import annotations

import socket
from pathlib import Path

from koupleless.base import _with_service_port
from koupleless.settings.base import ArkletSettings, BaseSettings


def announced(settings: BaseSettings, *sockets: socket.socket) -> int | None:
    return _with_service_port(settings, sockets).arklet.service_port


def test_a_server_of_its_own_announces_its_port_and_a_setting_is_stronger() -> None:
    assert announced(BaseSettings(port=8081)) == 8081
    assert announced(BaseSettings(port=8081, arklet=ArkletSettings(service_port=80))) == 80
    assert announced(BaseSettings(port=0)) == 0  # chosen after the base has begun


def test_a_socket_of_the_service_manager_has_the_port() -> None:
    with socket.socket() as handed, socket.socket(socket.AF_UNIX) as unix:
        handed.bind(("127.0.0.1", 0))
        assert announced(BaseSettings(), unix, handed) == handed.getsockname()[1]
        assert announced(BaseSettings(), unix) == 0


def test_a_unix_socket_has_no_port() -> None:
    assert announced(BaseSettings(uds=Path("base.sock"))) is None
