"""Probes, health and the time for requests in flight with a real base on the real control plane."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from tests.controller.documents import container
from tests.controller.floor import Floor, floor_on, play
from tests.e2e.test_rollouts import hearing
from tests.state.conftest import make_module

from koupleless.controller.tunnels.http import HttpTunnel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.e2e.conftest import BaseProcess
    from tests.kube.plane import Access

pytestmark = pytest.mark.kube

MODULE = """
import time
from koupleless import health_check

STATE = {"is_alive": True, "is_up": True, "is_inside": False}

@health_check
def database():
    return STATE["is_up"]

def app(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/break":
        STATE["is_alive"] = False
    if path in ("/down", "/up"):
        STATE["is_up"] = path == "/up"
    if path == "/slow":
        STATE["is_inside"] = True
        for _ in range(6_000):
            time.sleep(0.01)
    is_well = {"/live": STATE["is_alive"], "/inside": STATE["is_inside"]}.get(path, True)
    start_response("200 OK" if is_well else "500 Internal Server Error", [("Content-Type", "text/plain")])
    return [b"well" if is_well else b"not well"]
"""


@pytest.fixture
def floor(control_plane: Access, namespace: str) -> Iterator[Floor]:
    with floor_on(control_plane, namespace, bases=0) as floor:
        yield floor


async def status(floor: Floor) -> dict[str, Any]:
    found = await floor.get(f"/api/v1/namespaces/{floor.namespace}/pods/a") or {}
    return (found["status"].get("containerStatuses") or [{}])[0]  # type: ignore[no-any-return]


def test_a_real_module_is_probed_starts_again_and_drains_within_the_grace_of_its_pod(
    serve: Callable[..., BaseProcess], floor: Floor, tmp_path: Path
) -> None:
    image = make_module(tmp_path, "prices:1", MODULE).as_uri()

    async def act() -> None:
        with socket.socket() as listening:
            listening.bind(("127.0.0.1", 0))
            address = f"http://127.0.0.1:{listening.getsockname()[1]}"
            async with (
                HttpTunnel() as tunnel,
                floor.controlled(tunnel, list_every_s=0.5) as controller,
                hearing(controller, listening),
            ):
                base = await asyncio.to_thread(start, address)
                floor.expect(f"{floor.env}-a")
                await floor.soon(floor.are_nodes_ready)
                port = httpx.URL(base.url).port
                live = {"httpGet": {"path": "/prices/live", "port": port}, "periodSeconds": 1, "failureThreshold": 1}
                module = container("prices", "1", image=image, livenessProbe=live)
                await floor.create_pod("a", f"{floor.env}-a", module, terminationGracePeriodSeconds=1)
                await floor.soon(lambda: floor.is_pod_ready("a"))

                await asyncio.to_thread(base.get, "/prices/down")  # a check of the module's own
                await floor.soon(lambda: _is_ready(floor, is_ready=False))
                await asyncio.to_thread(base.get, "/prices/up")
                await floor.soon(lambda: _is_ready(floor, is_ready=True))
                assert (await status(floor))["restartCount"] == 0

                await asyncio.to_thread(base.get, "/prices/break")
                await floor.soon(lambda: _has_restarted(floor))
                assert (await asyncio.to_thread(base.get, "/prices/live")).text == "well"
                assert (await status(floor))["lastState"]["terminated"]["exitCode"] == 137

                slow = threading.Thread(target=_ask_slowly, args=(base,))
                slow.start()
                await floor.soon(lambda: _answers_well(base, "/prices/inside"))
                began = time.monotonic()
                await floor.ask("DELETE", f"/api/v1/namespaces/{floor.namespace}/pods/a")
                await floor.soon(lambda: _is_gone(floor))
                assert time.monotonic() - began < 25  # the base alone would wait for half a minute
                await asyncio.to_thread(slow.join)

    def start(address: str) -> BaseProcess:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("KOUPLELESS_ARKLET_IDENTITY", f"{floor.env}-a")
            patch.setenv("MODULE_CONTROLLER_ADDRESS", address)
            patch.setenv("KOUPLELESS_BASE_STOP_TIMEOUT", "1")
            return serve("--name", "shop", "--ephemeral")

    play(act)


def _ask_slowly(base: BaseProcess) -> None:
    try:
        base.get("/prices/slow")
    except httpx.HTTPError:
        return


async def _answers_well(base: BaseProcess, path: str) -> bool:
    return (await asyncio.to_thread(base.get, path)).is_success


async def _is_ready(floor: Floor, *, is_ready: bool) -> bool:
    return await floor.is_pod_ready("a") is is_ready


async def _has_restarted(floor: Floor) -> bool:
    found = await status(floor)
    return bool(found.get("restartCount") == 1 and found["ready"])


async def _is_gone(floor: Floor) -> bool:
    return await floor.get(f"/api/v1/namespaces/{floor.namespace}/pods/a") is None
