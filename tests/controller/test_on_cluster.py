"""The controller on an API server, in memory and the real one: bases become Nodes, Pods become modules."""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from tests.controller.conftest import secured, unsecured
from tests.controller.documents import container
from tests.controller.world import MemoryTunnel
from tests.kube.fixtures import client_of
from tests.kube.memory.serving import served

from koupleless.controller.bases.steward import Habits
from koupleless.controller.controller import Choices, Controller
from koupleless.controller.names import node_name
from koupleless.controller.tunnels.answers import Answer, Outcome
from koupleless.controller.vnodes.base import AnnouncedBase, BaseState
from koupleless.controller.vpods.module import ModuleKey

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

    from lightkube.config.kubeconfig import SingleConfig

TOLERATIONS = [{"operator": "Exists"}]
ORDERS = ModuleKey("orders", "1")


class Scene:
    """An API server with a namespace, and a controller with one base."""

    def __init__(self, client: httpx.Client, config: SingleConfig, namespace: str, env: str) -> None:
        self.client = client
        self.config = config
        self.namespace = namespace
        self.env = env
        self.tunnel = MemoryTunnel()
        identity = f"base-{time.monotonic_ns()}"
        self.base = AnnouncedBase(
            identity, "shop", "1.0", "default", "10.0.0.7", identity, 1238, BaseState.ACTIVATED, "1"
        )
        self.node_name = node_name(identity, env)

    @contextlib.asynccontextmanager
    async def controlled(
        self, holder: str = "one", *, syncs_replicas: bool = False, **habits: Any
    ) -> AsyncIterator[Controller]:
        choices = Choices(holder, Habits(env=self.env, **habits), syncs_replicas=syncs_replicas)
        async with Controller(self.config, self.tunnel, choices) as controller:
            await controller.ready()
            yield controller

    async def ask(self, method: str, path: str, **members: Any) -> httpx.Response:
        return await asyncio.to_thread(self.client.request, method, path, **members)

    async def node(self) -> dict[str, Any] | None:
        answer = await self.ask("GET", f"/api/v1/nodes/{self.node_name}")
        return answer.json() if answer.is_success else None

    async def create_pod(self, name: str, *containers: dict[str, Any], **spec: Any) -> None:
        document = {
            "metadata": {"name": name, "labels": {"virtual-kubelet.koupleless.io/component": "module"}},
            "spec": {"nodeName": self.node_name, "containers": list(containers), "tolerations": TOLERATIONS, **spec},
        }
        answer = await self.ask("POST", f"/api/v1/namespaces/{self.namespace}/pods", json=document)
        assert answer.is_success, answer.text

    async def pod(self, name: str) -> dict[str, Any] | None:
        answer = await self.ask("GET", f"/api/v1/namespaces/{self.namespace}/pods/{name}")
        return answer.json() if answer.is_success else None

    async def is_ready(self, name: str) -> bool:
        return _is_ready(await self.pod(name))

    async def soon(self, condition: Callable[[], Awaitable[object]]) -> None:
        async with asyncio.timeout(30):
            while not await condition():  # noqa: ASYNC110 - the server tells it nowhere else
                await asyncio.sleep(0.02)


def _is_ready(document: dict[str, Any] | None) -> bool:
    conditions = ((document or {}).get("status") or {}).get("conditions") or ()
    return any((one["type"], one["status"]) == ("Ready", "True") for one in conditions)


@pytest.fixture(params=["memory", pytest.param("real", marks=pytest.mark.kube)])
def scene(request: pytest.FixtureRequest) -> Iterator[Scene]:
    env = f"env-{time.monotonic_ns()}"
    if request.param == "real":
        access, namespace = request.getfixturevalue("control_plane"), request.getfixturevalue("namespace")
        with client_of(access) as client:
            made = Scene(client, secured(access, "admin"), namespace, env)
            yield made
            client.delete(f"/api/v1/nodes/{made.node_name}")
        return
    with served() as (url, _), httpx.Client(base_url=url, trust_env=False) as client:
        for name in ("here", "kube-node-lease"):
            client.post("/api/v1/namespaces", json={"metadata": {"name": name}})
        yield Scene(client, unsecured(url), "here", env)


def play(act: Callable[[], Awaitable[None]]) -> None:
    async def run() -> None:
        async with asyncio.timeout(60):
            await act()

    asyncio.run(run())


def test_a_base_becomes_a_node_with_a_lease_and_a_pod_a_module(scene: Scene) -> None:
    async def act() -> None:
        async with scene.controlled() as controller:
            controller.hear(scene.base)
            await scene.soon(lambda: _ready_node(scene))
            lease = await scene.ask(
                "GET", f"/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/{scene.node_name}"
            )
            assert lease.json()["spec"]["holderIdentity"] == "one"
            await scene.create_pod("a", container("orders", "1"))
            await scene.soon(lambda: scene.is_ready("a"))
            assert scene.tunnel.there == {ORDERS: "ACTIVATED"}
            await scene.ask("DELETE", f"/api/v1/namespaces/{scene.namespace}/pods/a")
            await scene.soon(lambda: _gone(scene, "a"))
            assert scene.tunnel.there == {}
            controller.hear(replace(scene.base, state=BaseState.DEACTIVATED))
            await scene.soon(lambda: _no_node(scene))

    play(act)


def test_a_failed_install_is_an_event_and_the_reason_of_the_pod(scene: Scene) -> None:
    async def act() -> None:
        scene.tunnel.failing["install orders:1"] = Answer(Outcome.REFUSED, "StartFailed", "no such table: orders")
        async with scene.controlled() as controller:
            controller.hear(scene.base)
            await scene.soon(lambda: _ready_node(scene))
            await scene.create_pod("a", container("orders", "1"))
            await scene.soon(lambda: _waits_for(scene, "a", "StartFailed"))
            await scene.soon(lambda: _event(scene, "ModuleInstallFailed"))
            del scene.tunnel.failing["install orders:1"]
            await scene.soon(lambda: scene.is_ready("a"))

    play(act)


def test_a_second_controller_takes_over_where_the_first_has_ended(scene: Scene) -> None:
    async def act() -> None:
        async with scene.controlled("one") as controller:
            controller.hear(scene.base)
            await scene.soon(lambda: _ready_node(scene))
            await scene.create_pod("a", container("orders", "1"))
            await scene.soon(lambda: scene.is_ready("a"))
            calls = list(scene.tunnel.calls)
        async with scene.controlled("two") as controller:
            controller.hear(scene.base)
            await scene.soon(lambda: _led_by(scene, "two"))
            await scene.create_pod("b", container("prices", "1"))
            await scene.soon(lambda: scene.is_ready("b"))
            assert scene.tunnel.calls == [*calls, ("install", "prices:1")]  # nothing is installed a second time
            assert await scene.is_ready("a")

    play(act)


async def _ready_node(scene: Scene) -> bool:
    return _is_ready(await scene.node())


async def _no_node(scene: Scene) -> bool:
    return await scene.node() is None


async def _gone(scene: Scene, name: str) -> bool:
    return await scene.pod(name) is None


async def _waits_for(scene: Scene, name: str, reason: str) -> bool:
    status = (await scene.pod(name) or {}).get("status") or {}
    return any(one["state"].get("waiting", {}).get("reason") == reason for one in status.get("containerStatuses") or ())


async def _event(scene: Scene, reason: str) -> bool:
    found = (await scene.ask("GET", f"/api/v1/namespaces/{scene.namespace}/events")).json()["items"]
    return any(one["reason"] == reason for one in found)


async def _led_by(scene: Scene, holder: str) -> bool:
    path = f"/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/{scene.node_name}"
    return bool((await scene.ask("GET", path)).json().get("spec", {}).get("holderIdentity") == holder)


def test_the_node_has_the_address_of_the_controller_that_leads_and_the_pod_that_of_the_base(scene: Scene) -> None:
    async def has(address: str, port: int) -> bool:
        status = (await scene.node() or {}).get("status", {})
        told = {one["type"]: one["address"] for one in status.get("addresses", ())}
        return told.get("InternalIP") == address and status["daemonEndpoints"]["kubeletEndpoint"]["Port"] == port

    async def act() -> None:
        async with scene.controlled("one", kubelet_address="10.9.0.1", kubelet_port=10250) as controller:
            controller.hear(scene.base)
            await scene.soon(lambda: has("10.9.0.1", 10250))
            await scene.create_pod("one", container("orders"))
            await scene.soon(lambda: scene.is_ready("one"))
            assert ((await scene.pod("one")) or {})["status"]["podIP"] == scene.base.ip
        async with scene.controlled("two", kubelet_address="10.9.0.2", kubelet_port=20250) as other:
            await scene.soon(lambda: has("10.9.0.2", 20250))  # without a heartbeat: known from the Node
            base = other.whereabouts.base(scene.node_name)
            assert base is not None
            assert base.ip == scene.base.ip
            assert ((await scene.pod("one")) or {})["status"]["podIP"] == scene.base.ip

    play(act)
