"""A base under a controller: told of from the first request it can take to the begin of its end."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import httpx
import pytest
from tests.controllers import Remote, controller_on
from tests.state.conftest import make_module

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.controllers import FakeController
    from tests.e2e.conftest import BaseProcess
    from tests.mqtt.broker import Broker


@pytest.fixture
def controller() -> Iterator[FakeController]:
    with controller_on() as controller:
        yield controller


def test_a_base_is_announced_with_the_modules_that_the_controller_wants_and_takes_its_leave(
    serve: Callable[..., BaseProcess], controller: FakeController, tmp_path: Path
) -> None:
    url = make_module(tmp_path, "prices:1").as_uri()
    controller.baseline = [{"bizName": "prices", "bizVersion": "1", "bizUrl": url}]
    base = serve("--name", "shop", "--controller", controller.url, cwd=tmp_path)

    assert base.get("/prices/").text == "prices:1"
    beat = controller.beat()
    assert (beat["state"], beat["port"], beat["localIP"]) == ("ACTIVATED", base.arklet_port, "127.0.0.1")
    reply = httpx.post(f"http://{beat['localIP']}:{beat['port']}/health", json={}, verify=False, timeout=30).json()
    assert reply["baseIdentity"] == beat["baseMetadata"]["identity"]
    assert reply["data"]["healthData"]["masterBizInfo"]["bizName"] == beat["baseMetadata"]["name"] == "shop"
    metrics = httpx.get(f"http://127.0.0.1:{base.arklet_port}/metrics", verify=False, timeout=30).text
    assert re.search(r'_last_success_timestamp_seconds\{tunnel="http"\} 1\.\d', metrics)

    base.end()
    assert controller.beat()["state"] == "DEACTIVATED"
    assert controller.heard.empty()
    assert "knows this base as" in base.log.read_text()


def test_a_base_with_both_tunnels_takes_commands_through_either(
    serve: Callable[..., BaseProcess], controller: FakeController, broker: Broker, tmp_path: Path
) -> None:
    (tmp_path / "koupleless.toml").write_text(
        f"[base.arklet]\nidentity = 'base-7'\nmqtt.broker = '127.0.0.1'\nmqtt.port = {broker.port}\n"
    )
    remote = Remote(broker)
    base = serve("--controller", controller.url, cwd=tmp_path)
    heart, beat = remote.next("heart"), controller.beat()
    assert heart == beat

    remote.send("installBiz", {"bizName": "one", "bizVersion": "1", "bizUrl": make_module(tmp_path, "one:1").as_uri()})
    assert remote.next("bizOperation")["response"]["code"] == "SUCCESS"
    two = {"bizName": "two", "bizVersion": "1", "bizUrl": make_module(tmp_path, "two:1").as_uri()}
    assert base.ask("installBiz", **two)["code"] == "SUCCESS"
    remote.send("queryAllBiz", {})
    assert sorted(each["name"] for each in remote.next("simpleBiz")) == ["one", "two"]
    assert base.get("/one/").text == "one:1"

    base.end()
    assert remote.next("heart")["state"] == controller.until("DEACTIVATED")["state"] == "DEACTIVATED"
    remote.close()
