"""Fixtures with an MQTT broker, for tests of any room: mosquitto, as installed, or as `scripts/program` finds it."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest
from tests.certificates import Authority
from tests.conftest import lacks, program
from tests.mqtt.broker import Broker

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="session")
def mosquitto(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The path of the broker's program."""
    return program(tmp_path_factory, "mosquitto")


@pytest.fixture
def broker(mosquitto: str, tmp_path: Path) -> Iterator[Broker]:
    """A broker on loopback that lets everybody in."""
    with Broker(mosquitto, tmp_path / "broker") as running:
        yield running


@pytest.fixture
def tls_broker(mosquitto: str, tmp_path: Path, authority: Authority) -> Iterator[Broker]:
    """A broker on loopback that speaks TLS, and lets clients in that have a certificate of ``authority``."""
    with Broker(mosquitto, tmp_path / "broker", authority=authority) as running:
        yield running


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """A certificate authority of this process, with certificates for servers and clients."""
    if shutil.which("openssl") is None:
        lacks("openssl, which makes certificates, is not here")
    return Authority(tmp_path_factory.mktemp("authority"))
