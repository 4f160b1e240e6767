"""Answers to GET: probes, health in the field's forms, and words for a person; and who gets which."""

from __future__ import annotations

import asyncio
import re
import time
from typing import TYPE_CHECKING, Any

import pytest
from tests.arklet.conftest import get, put

from koupleless.arklet.pages.probes import probe_apps
from koupleless.errors import StartFailed
from koupleless.health.readiness import Status

if TYPE_CHECKING:
    from pathlib import Path

    from tests.arklet.conftest import Running


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/healthz"])
def test_probes_say_up_or_down_to_anybody(running: Running, path: str) -> None:
    wire = running.start(token="secret")
    for host in ("127.0.0.1", "10.244.0.17:1238", "node.example"):
        reply = get(wire, path, host=host)
        assert (reply.status, reply.json) == (200, {"status": "UP"})
    reply = get(wire, path, method="HEAD")
    assert (reply.status, reply.body) == (200, b"")
    assert get(wire, path, Origin="http://evil.example").status == 403


def test_a_base_that_is_not_ready_gets_503(running: Running) -> None:
    wire = running.start()
    running.readiness.base = Status.DOWN
    assert [get(wire, path).status for path in ("/livez", "/readyz", "/healthz")] == [200, 503, 503]
    running.readiness.base = Status.UNKNOWN
    assert (get(wire, "/readyz").status, get(wire, "/readyz").json) == (503, {"status": "UNKNOWN"})


def test_the_health_of_the_original_has_its_shape(running: Running, tmp_path: Path) -> None:
    wire = running.start()
    found = get(wire, "/actuator/health").json
    metrics = found["components"].pop("metrics")
    assert metrics["status"] == "UP"
    assert {name: set(values) for name, values in metrics["details"]["metrics"].items() if name != "timestamp"} == {
        "metaspaceMetrics": {"init", "used", "committed", "max"},
        "noHeapMetrics": {"init", "used", "committed", "max"},
        "heapMetrics": {"init", "used", "committed", "max"},
        "gcmetrics": {"fgcCount", "fgcTime", "ygcCount", "ygcTime"},
        "systemMetrics": {
            "systemLoadAverage",
            "processCpuLoad",
            "systemCpuLoad",
            "freePhysicalMemorySize",
            "totalPhysicalMemorySize",
        },
        "threadMetrics": {"threadCount", "daemonThreadCount", "peakThreadCount", "totalStartedThreadCount"},
        "classLoadingMetrics": {"totalLoadedClassCount", "loadedClassCount", "unloadedClassCount"},
    }
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}", metrics["details"]["metrics"]["timestamp"])
    assert found == {
        "status": "UP",
        "components": {
            "compositeAllBiz": {
                "status": "UP",
                "details": {
                    "shop:1": {
                        "status": "UP",
                        "details": {"disk": {"status": {"status": "UP"}, "details": {"free": 1}}},
                    }
                },
            },
            "baseStartUp": {
                "status": "UP",
                "details": {"base:1.0.0": {"status": "UP"}, "shop:1": {"status": "UP"}},
            },
            "probeAvailabilityStateIndicator": {
                "status": "UP",
                "details": {
                    "baseAvailability": {
                        "livenessState": "CORRECT",
                        "readinessState": "ACCEPTING_TRAFFIC",
                        "healthy": True,
                    },
                    "bizAvailability": {
                        "shop:1": {
                            "livenessState": "CORRECT",
                            "readinessState": "ACCEPTING_TRAFFIC",
                            "healthy": True,
                        }
                    },
                },
            },
        },
    }
    with pytest.raises(StartFailed):
        put(running.host, tmp_path, "till", "raise ValueError('broken')")
    reply = get(wire, "/actuator/health")
    assert (reply.status, reply.json["status"]) == (503, "DOWN")
    assert reply.json["components"]["compositeAllBiz"]["details"]["till:1"] == {"status": "DOWN", "details": {}}
    assert reply.json["components"]["baseStartUp"]["details"]["till:1"] == {"status": "DOWN"}


def test_strangers_learn_of_the_status_and_of_nothing_else(running: Running) -> None:
    wire = running.start(token="secret")
    assert get(wire, "/actuator/health", host="10.244.0.17").json == {"status": "UP"}
    assert "components" in get(wire, "/actuator/health", Authorization="Bearer secret").json
    for path in ("/actuator/info", "/arkletHealth", "/", "/queryAllBiz", "/nothing"):
        reply = get(wire, path)
        assert (reply.status, reply.headers["www-authenticate"]) == (401, "Bearer")
        assert b"shop" not in reply.body
    wire = running.start()
    assert get(wire, "/actuator/info", host="evil.example").status == 403


def test_the_info_lists_the_base_and_the_modules(running: Running) -> None:
    found = get(running.start(), "/actuator/info").json
    assert found["arkPluginInfo"] == []
    assert sorted(list(each.values()) for each in found["arkBizInfo"]) == [
        ["base", "1.0.0", "ACTIVATED", "/"],
        ["shop", "1", "ACTIVATED", "/shop"],
    ]


@pytest.mark.parametrize(
    ("path", "code", "kind", "members"),
    [
        ("/arkletHealth", 200, "HEALTHY", {"masterBizInfo", "cpu", "jvm", "bizListInfo", "pluginListInfo"}),
        ("/arkletHealth/system", 200, "HEALTHY", {"cpu", "jvm"}),
        ("/arkletHealth/biz", 200, "HEALTHY", {"bizListInfo"}),
        ("/arkletHealth/biz/shop/1", 200, "HEALTHY", {"bizInfo"}),
        ("/arkletHealth/plugin", 200, "HEALTHY", {"pluginListInfo"}),
        ("/arkletHealth/biz/shop/2", 500, "ENDPOINT_PROCESS_INTERNAL_ERROR", {"error"}),
        ("/arkletHealth/other", 404, "ENDPOINT_NOT_FOUND", set()),
        ("/arkletHealth/biz/shop", 404, "ENDPOINT_NOT_FOUND", set()),
    ],
)
def test_the_endpoint_of_the_arklet_has_a_code_in_its_body(
    running: Running, path: str, code: int, kind: str, members: set[str]
) -> None:
    reply = get(running.start(), path)
    found = reply.json
    assert (reply.status, found["code"], found["codeType"], found["healthy"]) == (200, code, kind, code == 200)
    assert found["data"].keys() - {"masterBizHealth"} >= members
    if code == 200:
        assert found["data"]["masterBizHealth"] == {"readinessState": "ACCEPTING_TRAFFIC"}


def test_a_base_that_is_not_ready_is_unhealthy_there(running: Running) -> None:
    running.readiness.base = Status.DOWN
    found = get(running.start(), "/arkletHealth/biz").json
    assert (found["healthy"], found["code"], found["codeType"]) == (False, 400, "UNHEALTHY")
    assert found["data"]["masterBizHealth"] == {"readinessState": "REFUSING_TRAFFIC"}


def test_a_person_gets_something_to_use_at_every_path(running: Running) -> None:
    wire = running.start()
    overview = get(wire, "/")
    assert overview.status == 200
    assert b"/healthz" in overview.body
    assert b"installBiz" in overview.body
    assert get(wire, "/nothing").status == 404
    assert get(wire, "/installBiz").status == 405
    assert b"curl -X POST" in get(wire, "/installBiz").body
    assert get(wire, "/queryAllBiz").json["data"][0]["bizName"] == "shop"
    assert {each["id"] for each in get(wire, "/help").json["data"]} >= {"help", "installBiz"}


def test_commands_by_post_are_as_ever(running: Running) -> None:
    wire = running.start()
    assert wire.command("queryAllBiz")["data"][0]["bizName"] == "shop"
    assert wire.post("livez").json["code"] == "CMD_NOT_FOUND"
    put_by = wire.exchange(b"PUT /help HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
    assert (put_by.status, put_by.body) == (500, b"POST http request only supported by arklet")


HANGING = """
import time
from koupleless import health_check

@health_check(timeout=1.0)
def hanging():
    time.sleep(1000)

async def app(scope, receive, send):
    raise RuntimeError
"""


def test_many_who_ask_while_a_check_hangs_take_no_thread_of_anybody_else(running: Running, tmp_path: Path) -> None:
    put(running.host, tmp_path, "till", HANGING)
    app = probe_apps(running.readiness)["/healthz"]
    statuses: list[int] = []

    async def send(message: Any) -> None:
        if "status" in message:
            statuses.append(message["status"])

    async def flood() -> float:
        asking = [asyncio.ensure_future(app({"method": "GET"}, None, send)) for _ in range(40)]
        await asyncio.sleep(0.05)
        begun = time.monotonic()
        await asyncio.to_thread(int)  # as for a name that is looked up
        spent = time.monotonic() - begun
        await asyncio.gather(*asking)
        return spent

    assert running.host.stage.call(flood, timeout_s=60) < 0.8
    assert statuses == [503] * 40
