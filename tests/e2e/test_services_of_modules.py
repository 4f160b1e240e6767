"""A Service of a module with real bases: a client that follows the EndpointSlices loses no request during rollouts."""

from __future__ import annotations

import asyncio
import itertools
import socket
import threading
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from tests.controller.floor import floor_on, play
from tests.e2e.test_rollouts import artefact, containers, hearing

from koupleless.controller.names import ENV
from koupleless.controller.tunnels.http import HttpTunnel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.controller.floor import Floor
    from tests.e2e.conftest import BaseProcess
    from tests.kube.plane import Access

    from koupleless.controller.vnodes.base import AnnouncedBase

pytestmark = pytest.mark.kube


class NearTunnel:
    """The way to bases on loopback that announce other addresses: a Service has no endpoints on loopback."""

    def __init__(self, tunnel: HttpTunnel) -> None:
        self._tunnel = tunnel

    def __getattr__(self, verb: str) -> Any:
        act = getattr(self._tunnel, verb)

        def near(base: AnnouncedBase, *arguments: Any, **members: Any) -> Any:
            return act(replace(base, ip="127.0.0.1"), *arguments, **members)

        return near


class Client(threading.Thread):
    """Asks the ready endpoints of a Service in turn, each time as the API server has them."""

    def __init__(self, floor: Floor) -> None:
        super().__init__()
        self.answers: Counter[str] = Counter()
        self.asked: set[tuple[str, int]] = set()
        self.is_over = threading.Event()
        self._floor = floor

    def run(self) -> None:
        path = f"/apis/discovery.k8s.io/v1/namespaces/{self._floor.namespace}/endpointslices"
        with httpx.Client(trust_env=False, timeout=30) as client:
            for turn in itertools.count():
                if self.is_over.is_set():
                    return
                items = self._floor.client.get(path).json()["items"]
                ready = [
                    (one["addresses"][0], found["ports"][0]["port"])
                    for found in items
                    for one in found.get("endpoints") or ()
                    if one["conditions"]["ready"]
                ]
                self.answers[self._ask(client, ready, turn)] += 1

    def _ask(self, client: httpx.Client, ready: list[tuple[str, int]], turn: int) -> str:
        if not ready:
            return "no endpoint"
        address, port = ready[turn % len(ready)]
        self.asked.add((address, port))
        try:
            answer = client.get(f"http://127.0.0.1:{port}/prices/")
        except httpx.HTTPError as error:
            return type(error).__name__
        return answer.text if answer.is_success else str(answer.status_code)


@pytest.fixture
def floor(control_plane: Access, namespace: str) -> Iterator[Floor]:
    with floor_on(control_plane, namespace, bases=0) as floor:
        yield floor


def test_a_client_of_the_endpoints_loses_no_request_while_versions_change(
    serve: Callable[..., BaseProcess], floor: Floor, tmp_path: Path
) -> None:
    addresses = {"a": "10.0.0.1", "b": "10.0.0.2"}

    async def act() -> None:
        with socket.socket() as listening:
            listening.bind(("127.0.0.1", 0))
            address = f"http://127.0.0.1:{listening.getsockname()[1]}"
            near = NearTunnel(tunnel := HttpTunnel())
            async with tunnel, floor.controlled(near) as controller, hearing(controller, listening):
                bases = [await asyncio.to_thread(start, identity, address) for identity in addresses]
                for identity in addresses:
                    floor.expect(f"{floor.env}-{identity}")
                await floor.soon(floor.are_nodes_ready)
                path = await floor.deploy(artefact(tmp_path, "1"), replicas=2)
                annotations = {"service.koupleless.io/port": "80"}
                await floor.patch(path, {"metadata": {"labels": {ENV: floor.env}, "annotations": annotations}})
                expected = {(ip, base.port) for ip, base in zip(addresses.values(), bases, strict=True)}
                await floor.soon(lambda: _are_ready(floor, expected))
                client = Client(floor)
                client.start()
                for version in ("2", "1"):
                    await floor.patch(path, containers(artefact(tmp_path, version)))
                    await floor.soon(lambda: floor.is_rolled_out(path))
                client.is_over.set()
                await asyncio.to_thread(client.join)
                assert set(client.answers) == {"prices:1", "prices:2"}, client.answers
                assert client.asked == expected

    def start(identity: str, address: str) -> BaseProcess:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("KOUPLELESS_ARKLET_IDENTITY", f"{floor.env}-{identity}")
            patch.setenv("KOUPLELESS_ARKLET_LOCAL_IP", addresses[identity])
            patch.setenv("MODULE_CONTROLLER_ADDRESS", address)
            return serve("--name", "shop", "--ephemeral")

    play(act)


async def _are_ready(floor: Floor, expected: set[tuple[str, int]]) -> bool:
    answer = await floor.get(f"/apis/discovery.k8s.io/v1/namespaces/{floor.namespace}/endpointslices") or {}
    return expected == {
        (one["addresses"][0], found["ports"][0]["port"])
        for found in answer["items"]
        for one in found.get("endpoints") or ()
        if one["conditions"]["ready"]
    }
