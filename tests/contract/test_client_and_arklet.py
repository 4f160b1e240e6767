"""Our client against our arklet over a real container: what one encodes the other decodes."""

from __future__ import annotations

import time
from typing import Any

import pytest

from koupleless.biz import BizId, BizState
from koupleless.client import ArkletClient, Refused
from koupleless.wire.replies import OpsStatus
from koupleless.wire.requests import InstallBiz

COPY = BizId.of("copy01", "1.0.0")


@pytest.fixture
def client(recorded: Any) -> ArkletClient:
    return ArkletClient("127.0.0.1", recorded.port, timeout_s=30)


def test_a_biz_lives_and_leaves(client: ArkletClient, recorded: Any) -> None:
    url = f"file://{recorded.files}/copy01.jar"

    installed = client.install(url, identity=COPY, args=["a"], envs={"K": "v"})
    assert installed.biz_infos is not None
    assert installed.biz_infos[0].identity == "copy01:1.0.0"
    (biz,) = client.query()
    assert (biz.identity, biz.biz_state, biz.web_context_path) == ("copy01:1.0.0", BizState.ACTIVATED, "copy01")
    assert client.switch(COPY).message == "Switch biz: copy01:1.0.0 is activated."
    with pytest.raises(Refused) as caught:
        client.install(url)
    assert caught.value.response_code == "REPEAT_BIZ"

    report = client.uninstall(COPY).purge_report
    assert report is not None
    assert report.biz == "copy01:1.0.0"
    assert report.clean, report.summary
    assert client.query() == []


def test_health_and_help_are_read(client: ArkletClient) -> None:
    health = client.health()

    assert health.master_biz_info is not None
    assert health.master_biz_info.biz_state is BizState.ACTIVATED
    assert health.cpu is not None
    assert {"help", "installBiz", "queryLogs"} <= {item.id for item in client.help()}
    with pytest.raises(Refused, match="can not find biz: nope"):
        client.health(type="biz", name="nope")


def test_a_batch_is_read(client: ArkletClient, recorded: Any) -> None:
    urls = [f"file://{recorded.files}/copy0{number}.jar" for number in (1, 2)]
    data = client.batch_install([InstallBiz(biz_url=url) for url in urls])

    assert {entry.biz_infos[0].identity for entry in data.biz_url_to_response.values()} == {
        "copy01:1.0.0",
        "copy02:1.0.0",
    }


def test_a_background_run_is_followed_to_its_end(client: ArkletClient, recorded: Any) -> None:
    record = client.install(f"file://{recorded.files}/broken-plain.jar", request_id="r-1")
    deadline = time.monotonic() + 20
    while not record.status.is_final:
        assert time.monotonic() < deadline
        record = client.ops("r-1")

    assert record.status is OpsStatus.FAILED
    assert "boom: plain main throws" in (record.message or "")


def test_a_failed_start_shows_the_users_own_frames(client: ArkletClient, recorded: Any) -> None:
    with pytest.raises(Refused, match="boom: plain main throws") as caught:
        client.install(f"file://{recorded.files}/broken-plain.jar")

    trace = caught.value.envelope.error_stack_trace or ""
    assert 'app.py", line 1' in trace
    assert "koupleless/" not in trace


def test_replacing_says_how_the_old_version_left(client: ArkletClient, recorded: Any) -> None:
    client.install(f"file://{recorded.files}/biz1-ark-biz.jar")
    data = client.install(f"file://{recorded.files}/biz1-0.0.2.jar", strategy="replace")

    assert data.replaced is not None
    assert [report.biz for report in data.replaced] == ["biz1-web-single-host:0.0.1-SNAPSHOT"]
    assert [biz.biz_version for biz in client.query()] == ["0.0.2"]
