"""A controller observed from outside: metrics, alerts, and reports to webhooks that nobody waits for."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import yaml  # type: ignore[import-untyped]
from tests.controller.documents import container
from tests.controller.floor import Floor, floor_in_memory
from tests.controller.world import World
from tests.controller.world import play as with_a_steward

from koupleless.controller.running import probes
from koupleless.controller.watching.figures import Facts, Figures
from koupleless.controller.watching.webhooks import Receiver, Report, Webhooks, bare
from koupleless.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from tests.kube.memory.app import MemoryServer

    from koupleless.controller.controller import Controller

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "module-controller.md"
ALERTS = ROOT / "examples" / "prometheus" / "controller.yml"


def play(act: Callable[[Floor, MemoryServer], Awaitable[None]]) -> None:
    with floor_in_memory(bases=1) as (floor, server):

        async def run() -> None:
            async with asyncio.timeout(60):
                await act(floor, server)

        asyncio.run(run())


async def ask(controller: Controller, path: str) -> httpx.Response:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(probes(controller)), base_url="http://probes") as client:
        return await client.get(path)


def test_a_scrape_shows_bases_pods_queues_requests_and_operations() -> None:
    async def act(floor: Floor, _: MemoryServer) -> None:
        async with floor.controlled() as controller:
            (identity,) = floor.bases
            await floor.create_pod("a", identity, container("orders", "1"))
            await floor.soon(lambda: floor.is_pod_ready("a"))

            async def shows() -> bool:
                return 'koupleless_controller_pods{phase="Running"} 1.0' in (await ask(controller, "/metrics")).text

            await floor.soon(shows)
            text = (await ask(controller, "/metrics")).text
            for line in (
                'koupleless_controller_bases{life="alive"} 1.0',
                "koupleless_controller_members 1.0",
                "koupleless_controller_up 1.0",
                'koupleless_controller_queue_depth{queue="leases"} 0.0',
                'koupleless_controller_heartbeats_total{outcome="heard"} 1.0',
                'koupleless_controller_operation_duration_seconds_count{operation="install",outcome="done"} 1.0',
                'koupleless_controller_api_request_duration_seconds_count{code="201",verb="create"}',
                'koupleless_controller_queue_wait_seconds_bucket{le="10.0",queue="bases"}',
            ):
                assert line in text
            assert floor.env not in text  # nothing told by a base or a user becomes a label
            assert "orders" not in text

    play(act)


def series() -> set[str]:
    """Return all series, with the suffixes of queries."""
    figures = Figures(lambda: Facts({"alive": 1}, {"Running": 1}, {"bases": 0}, {"bases": 0}))
    figures.request("get", "200", 1)
    figures.wait("bases", 1)
    figures.operation("install", "done", 1)
    figures.heartbeat("heard")
    figures.report("sent")
    text, _ = figures.text("")
    return {line.split("{")[0].split(" ")[0] for line in text.decode().splitlines() if not line.startswith("#")}


def test_every_series_is_on_the_page_and_the_page_has_no_other() -> None:
    bare_names = {re.sub(r"_(bucket|count|sum)$", "", name) for name in series() if not name.endswith("_created")}
    told = set(re.findall(r"`(koupleless_controller_\w+)` \|", PAGE.read_text(encoding="utf-8")))
    assert told == bare_names


def test_alerts_ask_for_series_that_there_are() -> None:
    rules = [rule for group in yaml.safe_load(ALERTS.read_text(encoding="utf-8"))["groups"] for rule in group["rules"]]
    assert len(rules) > 3
    for rule in rules:
        names = set(re.findall(r"koupleless_controller_\w+", rule["expr"]))
        assert names
        assert names <= series()
        assert rule["annotations"]["summary"]


def test_phases_of_a_strange_server_are_one_label() -> None:
    figures = Figures(lambda: Facts(pods={"Running": 1, "Odd-1": 2, "Odd-2": 3, "": 1}))
    text, content_type = figures.text("application/openmetrics-text; version=1.0.0")
    assert 'koupleless_controller_pods{phase="other"} 6.0' in text.decode()
    assert content_type.startswith("application/openmetrics-text")
    assert figures.text("application/openmetrics-text; version=x")[0]


# --- reports ---------------------------------------------------------------------------------------------------------


class Hook:
    """A receiver of reports that answers as it is told."""

    def __init__(self, *answers: int, holds: bool = False) -> None:
        self.answers = list(answers)
        self.holds = holds
        self.got: list[tuple[str, dict[str, Any]]] = []
        self.requests = 0

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[str]:
        connections: list[asyncio.StreamWriter] = []

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            connections.append(writer)
            with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
                while True:
                    head = (await reader.readuntil(b"\r\n\r\n")).decode()
                    length = re.search(r"content-length: (\d+)", head, re.IGNORECASE)
                    body = await reader.readexactly(int(length[1]) if length else 0)
                    self.requests += 1
                    if self.holds:
                        await asyncio.Event().wait()
                    status = self.answers.pop(0) if self.answers else 200
                    if status == 200:
                        sort = re.search(r"content-type: (\S+)", head, re.IGNORECASE)
                        self.got.append((sort[1] if sort else "", json.loads(body)))
                    writer.write(f"HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n".encode())

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        try:
            yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hook?access_token=s3cret"
        finally:
            server.close()
            for writer in connections:
                writer.close()


REPORT = Report("BaseGone", "no sign of life of http://u:pw@10.0.0.7:1238/x?t=1", "vnode.a.dev", "Node", "vnode.a.dev")


async def until_there(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - the receiver tells it nowhere else
            await asyncio.sleep(0.01)


def reporting(*urls: str, **members: Any) -> Webhooks:
    return Webhooks([Receiver.of(url) for url in urls], source="koupleless/controller/dev/one", **members)


def test_a_report_is_a_cloud_event_or_the_message_of_a_robot_without_secrets() -> None:
    async def run() -> None:
        plain, robot = Hook(), Hook()
        async with plain.open() as one, robot.open() as two, reporting(one, f"dingtalk+{two}") as hooks:
            hooks.report(REPORT)
            await until_there(lambda: plain.got and robot.got)
        ((sort, event),) = plain.got
        assert sort == "application/cloudevents+json"
        assert event | {"id": "", "time": ""} == {
            "specversion": "1.0",
            "id": "",
            "source": "koupleless/controller/dev/one",
            "type": "io.koupleless.BaseGone",
            "subject": "vnode.a.dev",
            "time": "",
            "datacontenttype": "application/json",
            "data": {
                "reason": "BaseGone",
                "message": "no sign of life of http://10.0.0.7:1238/x",
                "kind": "Node",
                "subject": "vnode.a.dev",
                "node": "vnode.a.dev",
            },
        }
        ((sort, message),) = robot.got
        assert (sort, message["msgtype"]) == ("application/json", "markdown")
        assert "http://10.0.0.7:1238/x" in message["markdown"]["text"]
        assert "pw" not in str(message)

    asyncio.run(run())


def test_a_slow_and_a_dead_receiver_hold_up_nobody(caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        slow, good = Hook(holds=True), Hook()
        counts: list[str] = []
        async with slow.open() as one, good.open() as two:
            async with reporting(
                one, "http://127.0.0.1:9/dead?access_token=s3cret", two, pauses_s=(0.01,), timeout_s=0.5, end_s=0.3
            ) as hooks:
                hooks.count_by(counts.append)
                begun = time.monotonic()
                for number in range(1_000):
                    hooks.report(Report("BaseGone", f"message {number}", "n", "Node", "n"))
                assert time.monotonic() - begun < 0.5
                await until_there(lambda: len(good.got) >= 200)
                left = time.monotonic()
            assert time.monotonic() - left < 3  # the end waits for receivers, but not for long
        assert good.got[-1][1]["data"]["message"] == "message 999"  # the newest are kept
        assert counts.count("lost") >= 3 * 800 - 3
        assert "failed" in counts
        assert "s3cret" not in caplog.text

    asyncio.run(run())


@pytest.mark.parametrize(("answers", "requests", "got"), [([503, 429], 3, 1), ([400], 1, 0), ([500] * 3, 3, 0)])
def test_a_report_is_tried_again_a_little(answers: list[int], requests: int, got: int) -> None:
    async def run() -> None:
        hook = Hook(*answers)
        counts: list[str] = []
        async with hook.open() as url, reporting(url, pauses_s=(0.01, 0.01)) as hooks:
            hooks.count_by(counts.append)
            hooks.report(REPORT)
            await until_there(lambda: counts)
        assert (hook.requests, len(hook.got), counts) == (requests, got, ["sent" if got else "failed"])

    asyncio.run(run())


def test_an_equal_report_comes_again_after_five_minutes_at_the_earliest() -> None:
    async def run() -> None:
        now, hook = [0.0], Hook()
        async with hook.open() as url, reporting(url, clock=lambda: now[0]) as hooks:
            for moment in (0.0, 1.0, 299.0, 301.0, 302.0):
                now[0] = moment
                hooks.report(REPORT)
            await until_there(lambda: len(hook.got) == 2)
        assert len(hook.got) == 2

    asyncio.run(run())


@pytest.mark.parametrize("text", ["", "x", "ftp://h/", "http://", "http://h:99999/", "dingtalk+h"])
def test_other_texts_are_no_receivers_and_are_not_repeated(text: str) -> None:
    with pytest.raises(SettingsError, match=r"no http or https address$"):
        Receiver.of(text)


def test_a_robot_is_known_by_host_and_an_address_is_never_shown_whole() -> None:
    robot = Receiver.of("https://oapi.dingtalk.com/robot/send?access_token=s3cret")
    assert robot.is_dingtalk
    assert not Receiver.of("https://hooks.example/x").is_dingtalk
    assert (str(robot), "s3cret" in repr(robot)) == ("https://oapi.dingtalk.com", False)


@pytest.mark.parametrize(
    ("message", "left"),
    [
        ("https://user:pw@h/a.zip?sig=1#x failed", "https://h/a.zip failed"),
        ("oci://tok@h/r and HTTPS://h?q=1", "oci://h/r and HTTPS://h"),
        ("no address", "no address"),
        ("x" * 5_000, "x" * 1_000),
    ],
)
def test_messages_without_logins_and_queries(message: str, left: str) -> None:
    assert bare(message) == left


def test_the_life_of_a_base_is_told_by_events_about_the_node() -> None:
    async def act(world: World) -> None:
        await world.settle()
        world.base.is_reachable = False
        await world.pass_time(30)
        await world.pass_time(40)
        reasons = [reason for name, reason, _ in world.cluster.events if name == world.steward.name]
        assert reasons[-2:] == ["BaseSilent", "BaseGone"]

    with_a_steward(act)
