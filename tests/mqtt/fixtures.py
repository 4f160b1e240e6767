"""Fixtures with an MQTT broker, for tests of any room: mosquitto, as installed, or as `scripts/mosquitto` finds it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.certificates import Authority
from tests.conftest import lacks, made_once, shared_directory
from tests.mqtt.broker import Broker

if TYPE_CHECKING:
    from collections.abc import Iterator

_SCRIPT = Path(__file__).parents[2] / "scripts" / "mosquitto"


@pytest.fixture(scope="session")
def mosquitto(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The path of the broker's program, fetched once if the machine has none."""

    def find(path: Path) -> None:
        done = subprocess.run([str(_SCRIPT)], capture_output=True, text=True, check=False, timeout=110)
        path.write_text(done.stdout if done.returncode == 0 else f"!{done.stderr}", encoding="utf-8")

    found = made_once(shared_directory(tmp_path_factory, "mqtt") / "program", find).read_text(encoding="utf-8").strip()
    if found.startswith("!"):
        lacks(f"scripts/mosquitto found no broker: {found[1:]}")
    return found


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
