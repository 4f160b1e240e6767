"""The controller with real bases and artefacts, on a real control plane."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING

import httpx
import pytest
import uvicorn
from tests.controller.documents import container
from tests.controller.floor import APPS, floor_on, is_ready, play
from tests.state.conftest import make_module

from koupleless.controller.tunnels.discovery import Discovery
from koupleless.controller.tunnels.http import HttpTunnel

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
    from pathlib import Path
    from typing import Any

    from tests.controller.floor import Floor
    from tests.e2e.conftest import BaseProcess
    from tests.kube.plane import Access

    from koupleless.controller.controller import Controller

pytestmark = pytest.mark.kube

_EVERY_S = 0.005


@contextlib.asynccontextmanager
async def hearing(controller: Controller, listening: socket.socket) -> AsyncIterator[None]:
    """Hear bases on a socket of loopback."""
    config = uvicorn.Config(Discovery(controller).application(), log_config=None, lifespan="off", access_log=False)
    server = uvicorn.Server(config)
    server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
    task = asyncio.create_task(server.serve(sockets=[listening]))
    try:
        yield
    finally:
        server.should_exit = True
        await task


@contextlib.contextmanager
def load(bases: list[BaseProcess], path: str) -> Iterator[list[Counter[str]]]:
    """Ask each base for ``path`` each few milliseconds, and count the answers by their text, failures by their kind."""
    counts: list[Counter[str]] = [Counter() for _ in bases]
    is_over = threading.Event()

    def ask(base: BaseProcess, count: Counter[str]) -> None:
        with httpx.Client(base_url=base.url, trust_env=False, timeout=30) as client:
            while not is_over.wait(_EVERY_S):
                try:
                    answer = client.get(path)
                except httpx.HTTPError as error:
                    count[type(error).__name__] += 1
                else:
                    count[answer.text if answer.is_success else str(answer.status_code)] += 1

    threads = [threading.Thread(target=ask, args=pair) for pair in zip(bases, counts, strict=True)]
    for thread in threads:
        thread.start()
    try:
        yield counts
    finally:
        is_over.set()
        for thread in threads:
            thread.join()


@pytest.fixture
def floor(control_plane: Access, namespace: str) -> Iterator[Floor]:
    with floor_on(control_plane, namespace, bases=0) as floor:
        yield floor


def artefact(directory: Path, version: str) -> dict[str, Any]:
    """Make a container with a real artefact that answers its identity."""
    return container("prices", version, image=make_module(directory, f"prices:{version}").as_uri())


def containers(*wanted: dict[str, Any]) -> dict[str, Any]:
    return {"spec": {"template": {"spec": {"containers": list(wanted)}}}}


def test_a_rollout_on_real_bases_loses_no_request_and_a_killed_base_is_filled_again(
    serve: Callable[..., BaseProcess], floor: Floor, tmp_path: Path
) -> None:
    async def act() -> None:
        with socket.socket() as listening:
            listening.bind(("127.0.0.1", 0))
            address = f"http://127.0.0.1:{listening.getsockname()[1]}"
            async with HttpTunnel() as tunnel, floor.controlled(tunnel) as controller, hearing(controller, listening):
                bases = [await asyncio.to_thread(start, identity, address) for identity in ("a", "b")]
                for identity in ("a", "b"):
                    floor.expect(f"{floor.env}-{identity}")
                await floor.soon(floor.are_nodes_ready)
                path = await floor.deploy(artefact(tmp_path, "1"), replicas=2)
                with load(bases, "/prices/") as counts:
                    for version in ("2", "1", "2", "1"):  # each second one as `kubectl rollout undo`
                        await floor.patch(path, containers(artefact(tmp_path, version)))
                        await floor.soon(lambda: floor.is_rolled_out(path))
                    mark = {"kubectl.kubernetes.io/restartedAt": "now"}
                    await floor.patch(path, {"spec": {"template": {"metadata": {"annotations": mark}}}})
                    await floor.soon(lambda: floor.is_rolled_out(path))
                    await floor.soon(lambda: _have_restarted(floor, 2))
                for count in counts:
                    assert set(count) == {"prices:1", "prices:2"}, counts

                killed = bases[0]
                killed.popen.send_signal(signal.SIGKILL)
                killed.popen.wait()
                again = await asyncio.to_thread(start, "a", address)
                ends = time.monotonic() + 30
                while await asyncio.to_thread(answer_of, again) != "prices:1":
                    assert time.monotonic() < ends, again.log.read_text()

    def start(identity: str, address: str) -> BaseProcess:
        settings = {
            "KOUPLELESS_ARKLET_IDENTITY": f"{floor.env}-{identity}",
            "MODULE_CONTROLLER_ADDRESS": address,
        }
        with pytest.MonkeyPatch.context() as patch:
            for name, value in settings.items():
                patch.setenv(name, value)
            return serve("--name", "shop", "--ephemeral")

    play(act)


async def _have_restarted(floor: Floor, count: int) -> bool:
    """Whether so many bases have started their module again, as `kubectl rollout restart` asks for."""
    found = await floor.get(f"/api/v1/namespaces/{floor.namespace}/events") or {}
    return sum(event.get("count") or 1 for event in found["items"] if event["reason"] == "ModuleRestarted") == count


class Shop:
    """Two real bases of one floor, each asked for the module all the time."""

    def __init__(self, floor: Floor, bases: list[BaseProcess], directory: Path) -> None:
        self.floor = floor
        self.bases = bases
        self._directory = directory

    def artefact(self, version: str) -> dict[str, Any]:
        return artefact(self._directory, version)

    async def create(self, kind: str, *, one_a_base: bool = False, **spec: Any) -> str:
        """Create a workload of version 1, and wait for both bases to answer."""
        path = f"{APPS}/{self.floor.namespace}/{kind}"
        template = self.floor.template(self.artefact("1"), one_a_base=one_a_base)
        selector = {"matchLabels": {"app": "shop"}}
        await self.floor.create(
            path, {"metadata": {"name": "shop"}, "spec": {"selector": selector, "template": template, **spec}}
        )
        await self.answers("1")
        return f"{path}/shop"

    async def answers(self, version: str) -> None:
        """Wait until both bases answer with a version."""
        ends = time.monotonic() + 30
        wanted = f"prices:{version}"
        while {await asyncio.to_thread(answer_of, base) for base in self.bases} != {wanted}:
            assert time.monotonic() < ends, [base.log.read_text() for base in self.bases]
            await asyncio.sleep(0.02)

    async def create_gray(self, version: str) -> None:
        """Create a second Deployment, for the base with the label ``ring``."""
        template = self.floor.template(self.artefact(version), one_a_base=False)
        template["metadata"]["labels"]["app"] = "gray"
        template["spec"]["nodeSelector"]["ring"] = "gray"
        spec = {"selector": {"matchLabels": {"app": "gray"}}, "template": template}
        path = f"{APPS}/{self.floor.namespace}/deployments"
        await self.floor.create(path, {"metadata": {"name": "gray"}, "spec": spec})

    async def does_answer(self, base: BaseProcess, version: str) -> bool:
        """Whether a base answers with a version; without one, whether the module is not there."""
        return await asyncio.to_thread(answer_of, base) == (f"prices:{version}" if version else "")

    async def evict(self, base: BaseProcess) -> None:
        """Do as ``kubectl drain``."""
        await self.floor.patch(f"/api/v1/nodes/{self.node_of(base)}", {"spec": {"unschedulable": True}})
        for pod in await self.pods_on(base):
            name = pod["metadata"]["name"]
            eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}}
            await self.floor.create(f"/api/v1/namespaces/{self.floor.namespace}/pods/{name}/eviction", eviction)

    async def are_filled(self) -> bool:
        """Whether each base has one Pod, which is ready. Counts of a Deployment may be older."""
        return all([[is_ready(pod) for pod in await self.pods_on(base)] == [True] for base in self.bases])

    async def count_is(self, count: int) -> bool:
        return len(await self.floor.pods()) == count

    async def is_another_on(self, base: BaseProcess, before: dict[str, Any]) -> bool:
        """Whether a base has one Pod, which is not the one from before."""
        pods = await self.pods_on(base)
        return [pod["metadata"]["uid"] == before["metadata"]["uid"] for pod in pods] == [False]

    def node_of(self, base: BaseProcess) -> str:
        return self.floor.node(f"{self.floor.env}-{'ab'[self.bases.index(base)]}")

    async def pods_on(self, base: BaseProcess) -> list[dict[str, Any]]:
        node = self.node_of(base)
        return [pod for pod in await self.floor.pods() if pod["spec"].get("nodeName") == node]


@pytest.fixture
def shop(
    serve: Callable[..., BaseProcess], floor: Floor, tmp_path: Path
) -> Callable[[Callable[[Shop], Awaitable[None]]], None]:
    """``shop(act)`` runs ``act`` with two real bases under a controller."""

    def start(identity: str, address: str) -> BaseProcess:
        settings = {
            "KOUPLELESS_ARKLET_IDENTITY": f"{floor.env}-{identity}",
            "MODULE_CONTROLLER_ADDRESS": address,
        }
        with pytest.MonkeyPatch.context() as patch:
            for name, value in settings.items():
                patch.setenv(name, value)
            return serve("--name", "shop", "--ephemeral")

    def run(act: Callable[[Shop], Awaitable[None]]) -> None:
        async def with_bases() -> None:
            with socket.socket() as listening:
                listening.bind(("127.0.0.1", 0))
                address = f"http://127.0.0.1:{listening.getsockname()[1]}"
                async with (
                    HttpTunnel() as tunnel,
                    floor.controlled(tunnel) as controller,
                    hearing(controller, listening),
                ):
                    bases = [await asyncio.to_thread(start, identity, address) for identity in ("a", "b")]
                    for identity in ("a", "b"):
                        floor.expect(f"{floor.env}-{identity}")
                    await floor.soon(floor.are_nodes_ready)
                    await act(Shop(floor, bases, tmp_path))

        play(with_bases)

    return run


MEANWHILE = {"404"}
"""Answers of a base without the module: anything else would be a request that was cut off."""


def test_a_deployment_that_is_scaled_cordoned_drained_or_loses_a_pod_cuts_no_request_off(
    shop: Callable[[Callable[[Shop], Awaitable[None]]], None],
) -> None:
    async def act(shop: Shop) -> None:
        floor = shop.floor
        gapless = {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
        path = await shop.create("deployments", one_a_base=True, replicas=2, strategy=gapless)
        first, second = shop.bases
        node = f"/api/v1/nodes/{shop.node_of(first)}"
        with load(shop.bases, "/prices/") as counts:
            # A rollout waits for a cordoned base, which answers with the version before.
            await floor.patch(node, {"spec": {"unschedulable": True}})
            await floor.patch(path, containers(shop.artefact("2")))
            await floor.soon(lambda: shop.does_answer(second, "2"))
            assert await shop.does_answer(first, "1")
            await floor.patch(node, {"spec": {"unschedulable": None}})
            await floor.soon(lambda: floor.is_rolled_out(path))
            await shop.answers("2")
        assert all(set(count) <= {"prices:1", "prices:2"} for count in counts), counts

        with load(shop.bases, "/prices/") as counts:
            await shop.evict(first)  # as `kubectl drain`, the base cordoned
            await floor.soon(lambda: shop.does_answer(first, ""))
            await floor.patch(node, {"spec": {"unschedulable": None}})
            await floor.soon(shop.are_filled)
            await floor.patch(path, {"spec": {"replicas": 1}})
            await floor.soon(lambda: shop.count_is(1))
            await floor.patch(path, {"spec": {"replicas": 2}})
            await floor.soon(shop.are_filled)
            (pod,) = await shop.pods_on(first)
            await floor.ask("DELETE", f"/api/v1/namespaces/{floor.namespace}/pods/{pod['metadata']['name']}")
            await floor.soon(lambda: shop.is_another_on(first, pod))
            await shop.answers("2")
        assert all(set(count) - MEANWHILE <= {"prices:2"} for count in counts), counts

    shop(act)


def test_a_daemon_set_with_a_surge_loses_no_request_and_other_workloads_cut_none_off(
    shop: Callable[[Callable[[Shop], Awaitable[None]]], None],
) -> None:
    async def act(shop: Shop) -> None:
        surge = {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
        path = await shop.create("daemonsets", updateStrategy=surge)
        with load(shop.bases, "/prices/") as counts:
            for version in ("2", "1"):
                await shop.floor.patch(path, containers(shop.artefact(version)))
                await shop.answers(version)
        assert all(set(count) <= {"prices:1", "prices:2"} for count in counts), counts

        deleting = {"rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}}  # the default
        await shop.floor.patch(path, {"spec": {"updateStrategy": deleting}})
        with load(shop.bases, "/prices/") as counts:
            await shop.floor.patch(path, containers(shop.artefact("2")))
            await shop.answers("2")
        assert all(set(count) - MEANWHILE <= {"prices:1", "prices:2"} for count in counts), counts
        await shop.floor.ask("DELETE", path)
        await shop.floor.soon(lambda: shop.count_is(0))

        path = await shop.create("statefulsets", one_a_base=True, replicas=2, serviceName="shop")
        with load(shop.bases, "/prices/") as counts:
            await shop.floor.patch(path, containers(shop.artefact("2")))
            await shop.answers("2")
        assert all(set(count) - MEANWHILE <= {"prices:1", "prices:2"} for count in counts), counts

    shop(act)


def test_a_version_is_tried_on_one_base_and_taken_back_without_a_lost_request(
    shop: Callable[[Callable[[Shop], Awaitable[None]]], None],
) -> None:
    async def act(shop: Shop) -> None:
        floor = shop.floor
        await shop.create("deployments", one_a_base=True, replicas=2)
        _, second = shop.bases
        await floor.patch(f"/api/v1/nodes/{shop.node_of(second)}", {"metadata": {"labels": {"ring": "gray"}}})
        with load(shop.bases, "/prices/") as counts:
            for _ in range(3):
                await shop.create_gray("2")
                await floor.soon(lambda: shop.does_answer(second, "2"))
                assert {biz["bizVersion"] for biz in await asyncio.to_thread(second.ask, "queryAllBiz")} == {"1", "2"}
                await floor.ask("DELETE", f"{APPS}/{floor.namespace}/deployments/gray")
                await floor.soon(lambda: shop.does_answer(second, "1"))
                await floor.soon(lambda: shop.count_is(2))
        assert set(counts[0]) <= {"prices:1"}, counts
        assert set(counts[1]) <= {"prices:1", "prices:2"}, counts

    shop(act)


def answer_of(base: BaseProcess) -> str:
    """The text of the module on a base; empty while the module is not there."""
    with contextlib.suppress(httpx.HTTPError):
        answer = base.get("/prices/")
        return answer.text if answer.is_success else ""
    return ""
