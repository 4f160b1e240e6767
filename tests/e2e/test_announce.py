"""A base under a controller: told of from the first request it can take to the begin of its end."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import httpx
import pytest
from tests.controllers import controller_on
from tests.state.conftest import make_module

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.controllers import FakeController
    from tests.e2e.conftest import BaseProcess


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
