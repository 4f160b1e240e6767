"""Services of modules: the bases that answer, their layout in EndpointSlices, and both on a real control plane."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from tests.controller.documents import container
from tests.controller.floor import Floor, floor_on, play

from koupleless.controller.names import ENV
from koupleless.controller.peers.deployment import Deployment
from koupleless.controller.services.endpoints import Endpoint, endpoints_of
from koupleless.controller.services.slices import Place, Slice, document, layout
from koupleless.controller.services.wishes import Senseless, Wishes
from koupleless.controller.vpods.pod import VPod

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from tests.kube.plane import Access

OF = "service.koupleless.io/"
READY = {"conditions": [{"type": "Ready", "status": "True"}]}


def deployment(**texts: str) -> Deployment:
    annotations = {OF + name.replace("_", "-"): text for name, text in texts.items()}
    return Deployment.of({"metadata": {"name": "orders", "uid": "uid", "annotations": annotations}})


def test_a_service_is_wished_by_its_port() -> None:
    assert Wishes.of(deployment()) is None
    assert Wishes.of(deployment(port="80")) == Wishes("orders", 80)
    texts = {"port": "80", "target_port": "8080", "name": "shop", "type": "NodePort"}
    assert Wishes.of(deployment(**texts)) == Wishes("shop", 80, 8080, "NodePort")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("port", "0"),
        ("port", "65536"),
        ("port", "http"),
        ("port", "٣"),
        ("target-port", ""),
        ("name", "1st"),
        ("name", "a" * 64),
        ("name", "a/b"),
        ("type", "ExternalName"),
    ],
)
def test_a_senseless_wish_is_refused_by_its_name(name: str, text: str) -> None:
    with pytest.raises(Senseless, match=OF + name):
        Wishes.of(deployment(**{"port": "80", name.replace("-", "_"): text}))


# --- the bases that answer -------------------------------------------------------------------------------------------


def node(port: int = 8080, *, is_ready: bool = True) -> dict[str, Any]:
    labels = {"base.koupleless.io/service-port": str(port)} if port else {}
    return {"metadata": {"labels": labels}, "status": READY if is_ready else {}}


def pod(name: str, on: str, state: str = "ready", ip: str = "10.0.0.1", **members: Any) -> VPod:
    containers = [{"name": "orders", "ready": state == "ready", "state": {}}]
    if state != "ready":
        containers[0]["state"] = {"waiting": {"reason": state}}
    status = {**(READY if state == "ready" else {}), "podIP": ip, "containerStatuses": containers}
    document = {"metadata": {"name": name}, "spec": {"nodeName": on}, "status": status}
    return replace(VPod.of(document), **members)


def judged(*pods: VPod, nodes: dict[str, Any] | None = None, target_port: int = 0) -> list[tuple[Any, ...]]:
    """Return address, port, readiness and leave of each endpoint."""
    nodes = nodes or {"a": node(), "b": node(8081)}
    found, _ = endpoints_of(pods, nodes.get, target_port=target_port)
    return [(one.address, one.port, one.is_ready, one.is_leaving) for one in found]


def test_a_base_is_an_endpoint_at_its_own_port() -> None:
    pods = pod("x", "a"), pod("y", "b", "ContainerCreating", "10.0.0.2")
    assert judged(*pods) == [("10.0.0.1", 8080, True, False), ("10.0.0.2", 8081, False, False)]
    assert judged(*pods, target_port=80) == [("10.0.0.1", 80, True, False), ("10.0.0.2", 80, False, False)]


def test_a_base_stays_ready_while_one_version_makes_way_for_another() -> None:
    old, new = pod("x", "a"), pod("y", "a", "ContainerCreating")
    away = pod("x", "a", "Deactivated")
    for moment in ([old], [old, new], [away, new], [away, pod("y", "a")], [pod("y", "a")]):
        assert judged(*moment) == [("10.0.0.1", 8080, True, False)]


def test_a_module_that_answers_by_another_deployment_is_ready() -> None:
    assert judged(pod("x", "a", "Deactivated")) == [("10.0.0.1", 8080, True, False)]


def test_a_silent_base_is_not_ready_whatever_its_pods_said_last() -> None:
    silent = {"a": node(is_ready=False)}
    assert judged(pod("x", "a", "Deactivated"), nodes=silent) == [("10.0.0.1", 8080, False, False)]


def test_a_pod_of_several_modules_answers_with_all_of_them() -> None:
    made = pod("x", "a", "Deactivated")
    lacking = {"name": "prices", "ready": False, "state": {"waiting": {"reason": "StartFailed"}}}
    status = {**made.status, "containerStatuses": [*made.status["containerStatuses"], lacking]}
    assert judged(replace(made, packed_status=json.dumps(status))) == [("10.0.0.1", 8080, False, False)]


def test_leaving_pods_are_not_ready_and_ended_ones_are_no_endpoints() -> None:
    assert judged(pod("x", "a", leaves_at="now")) == [("10.0.0.1", 8080, False, True)]
    ended = pod("x", "a")
    assert judged(replace(ended, packed_status=json.dumps({**ended.status, "phase": "Succeeded"}))) == []
    assert judged(pod("x", "")) == judged(pod("x", "gone")) == judged(pod("x", "a", ip="")) == []


@pytest.mark.parametrize(
    ("ip", "port", "told"),
    [
        ("127.0.0.1", 80, "arklet.local-ip"),
        ("fe80::1%eth0", 80, "arklet.local-ip"),
        ("base-0", 80, "arklet.local-ip"),
        ("10.0.0.1", 0, "arklet.service-port"),
    ],
)
def test_a_base_that_cannot_be_reached_is_left_out_and_told(ip: str, port: int, told: str) -> None:
    found, omitted = endpoints_of([pod("x", "a", ip=ip)], {"a": node(port)}.get, target_port=0)
    assert found == []
    assert told in omitted[0].message


# --- slices ----------------------------------------------------------------------------------------------------------


def endpoint(number: int, port: int = 80, family: str = "IPv4") -> Endpoint:
    address = f"10.0.{number // 250}.{number % 250}" if family == "IPv4" else f"fd00::{number:x}"
    return Endpoint(family, address, port, is_ready=True, is_leaving=False, node=f"n{number}")


def told(laid: dict[str, tuple[Place, list[Endpoint]]]) -> list[Slice]:
    return [
        Slice.of(document(name, place, inside, service="orders", uid="uid", env="dev"))
        for name, (place, inside) in laid.items()
    ]


def test_each_port_and_family_has_slices_of_a_hundred() -> None:
    several = [*map(endpoint, range(150)), endpoint(1, 81), endpoint(1, 80, "IPv6")]
    laid = layout("orders", several, []).slices
    assert {name: len(inside) for name, (_, inside) in laid.items()} == {
        "orders-80-4-1": 100,
        "orders-80-4-2": 50,
        "orders-81-4-1": 1,
        "orders-80-6-1": 1,
    }


def test_an_endpoint_stays_in_its_slice_and_none_is_lost_or_twice() -> None:
    chance = random.Random(7)
    there: set[int] = set()
    slices: list[Slice] = []
    where: dict[str, str] = {}
    for _ in range(200):
        there = {number for number in there if chance.random() < 0.9} | {chance.randrange(400) for _ in range(40)}
        laid = dict(layout("orders", map(endpoint, there), slices).slices)
        places = {one.address: name for name, (_, inside) in laid.items() for one in inside}
        assert places.keys() == {endpoint(number).address for number in there}
        assert sum(len(inside) for _, inside in laid.values()) == len(there)
        assert all(0 < len(inside) <= 100 for _, inside in laid.values())
        assert all(places[address] == name for address, name in where.items() if address in places)
        where, slices = places, told(laid)  # type: ignore[arg-type]


def test_an_endpoint_told_twice_is_laid_out_once() -> None:
    twice = [replace(told({"a": (Place("IPv4", 80), [endpoint(1)])})[0], name=name) for name in ("a", "b")]
    assert [*layout("orders", [endpoint(1)], twice).slices] == ["a"]


# --- on a control plane ----------------------------------------------------------------------------------------------


@pytest.fixture
def floor(control_plane: Access, namespace: str) -> Iterator[Floor]:
    with floor_on(control_plane, namespace, bases=3) as floor:
        for number, (identity, base) in enumerate(floor.announced.items()):
            floor.announced[identity] = replace(base, service_port=8000 + number)
        yield floor


class Follower:
    """A client of a Service that follows the EndpointSlices."""

    def __init__(self, floor: Floor, service: str = "shop") -> None:
        self._floor = floor
        self._path = f"/apis/discovery.k8s.io/v1/namespaces/{floor.namespace}/endpointslices"
        self._query = {"labelSelector": f"kubernetes.io/service-name={service}"}
        self.least = 1_000
        """The smallest number of ready bases seen by `following`."""

    async def ready(self) -> set[tuple[str, int]]:
        answer = await self._floor.ask("GET", self._path, params=self._query)
        return {
            (one["addresses"][0], found["ports"][0]["port"])
            for found in answer.json()["items"]
            for one in found.get("endpoints") or ()
            if one["conditions"]["ready"]
        }

    async def knows(self, count: int) -> bool:
        return len(await self.ready()) == count

    @contextlib.asynccontextmanager
    async def following(self) -> AsyncIterator[None]:
        async def follow() -> None:
            while True:
                self.least = min(self.least, len(await self.ready()))

        task = asyncio.create_task(follow())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def annotate(floor: Floor, path: str, **texts: str | None) -> None:
    annotations = {OF + name.replace("_", "-"): text for name, text in texts.items()}
    await floor.patch(path, {"metadata": {"labels": {ENV: floor.env}, "annotations": annotations}})


async def service(floor: Floor, name: str = "shop") -> dict[str, Any]:
    return await floor.get(f"/api/v1/namespaces/{floor.namespace}/services/{name}") or {}


@pytest.mark.kube
def test_a_service_has_each_base_at_its_port_and_no_base_is_missing_during_a_rollout(floor: Floor) -> None:
    async def act() -> None:
        async with floor.controlled():
            path = await floor.deploy()
            await annotate(floor, path, port="80")
            follower = Follower(floor)
            await floor.soon(lambda: follower.knows(3))
            assert await follower.ready() == {("10.0.0.1", 8000), ("10.0.0.2", 8001), ("10.0.0.3", 8002)}
            async with follower.following():
                for version in ("2", "1"):
                    await floor.patch(
                        path, {"spec": {"template": {"spec": {"containers": [container("orders", version)]}}}}
                    )
                    await floor.soon(lambda: floor.is_rolled_out(path))
            assert follower.least == 3

            await floor.patch(path, {"spec": {"replicas": 1}})
            await floor.soon(lambda: follower.knows(1))

            await annotate(floor, path, port=None)
            await floor.soon(lambda: _lacks(floor, "shop"))
            await floor.soon(lambda: follower.knows(0))

    play(act)


async def _lacks(floor: Floor, name: str) -> bool:
    return not await service(floor, name)


@pytest.mark.kube
def test_a_service_deleted_or_changed_by_hand_comes_back_and_one_of_others_is_left_alone(floor: Floor) -> None:
    async def act() -> None:
        where = f"/api/v1/namespaces/{floor.namespace}/services"
        await floor.create(where, {"metadata": {"name": "theirs"}, "spec": {"ports": [{"port": 1}]}})
        async with floor.controlled():
            path = await floor.deploy()
            await annotate(floor, path, port="80", target_port="9000")
            follower = Follower(floor)
            await floor.soon(lambda: follower.knows(3))
            assert {port for _, port in await follower.ready()} == {9000}

            uid = (await service(floor))["metadata"]["uid"]
            await floor.ask("DELETE", f"{where}/shop")
            await floor.soon(lambda: _is_another(floor, uid))
            slices = f"/apis/discovery.k8s.io/v1/namespaces/{floor.namespace}/endpointslices"
            await floor.ask("DELETE", slices)
            await floor.soon(lambda: follower.knows(3))

            await annotate(floor, path, port="81", type="NodePort")
            await floor.soon(lambda: _has(floor, 81, "NodePort"))

            await annotate(floor, path, name="theirs")
            await floor.soon(lambda: _told(floor, "ServiceTaken"))
            assert (await service(floor, "theirs"))["spec"]["ports"][0]["port"] == 1
            assert await _lacks(floor, "shop")

            await annotate(floor, path, name="ours", port="no")
            await floor.soon(lambda: _told(floor, "ServiceRefused"))

            await annotate(floor, path, port="80")
            await floor.soon(lambda: _has(floor, 80, "NodePort", "ours"))
            await floor.ask("DELETE", path)
            await floor.soon(lambda: _lacks(floor, "ours"))  # with the Deployment

    play(act)


async def _is_another(floor: Floor, uid: str) -> bool:
    found = await service(floor)
    return bool(found) and found["metadata"]["uid"] != uid


async def _has(floor: Floor, port: int, kind: str, name: str = "shop") -> bool:
    spec = (await service(floor, name)).get("spec", {})
    return bool(spec) and (spec["ports"][0]["port"], spec["type"]) == (port, kind)


async def _told(floor: Floor, reason: str) -> bool:
    found = await floor.get(f"/api/v1/namespaces/{floor.namespace}/events") or {}
    return any(one["reason"] == reason for one in found["items"])
