"""The defects of the original controller, each with the section of the description of its behaviour: none is ours."""

from __future__ import annotations

import asyncio
import functools
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tests.controller.documents import NODE, container
from tests.controller.floor import WatchedBase, floor_in_memory
from tests.controller.floor import play as play_floor
from tests.controller.world import BASE, World, play
from tests.kube.memory.faults import Fault

from koupleless.controller.tunnels.answers import Answer, Outcome
from koupleless.controller.tunnels.tunnel import NoAnswer
from koupleless.controller.vpods.module import ModuleKey

if TYPE_CHECKING:
    from collections.abc import Mapping

    from koupleless.controller.controller import Controller
    from koupleless.controller.tunnels.tunnel import Health
    from koupleless.controller.vnodes.base import AnnouncedBase
    from koupleless.controller.vpods.module import Module
    from koupleless.controller.vpods.pod import VPod

ORDERS, PRICES = ModuleKey("orders", "1"), ModuleKey("prices", "1")


async def hear_list(world: World) -> None:
    """Let the next list of the base come, as after the usual pause."""
    await world.steward._questions.ask_list()
    await world.settle()


# --- 4: Nodes --------------------------------------------------------------------------------------------------------


def test_4_2_later_news_of_a_base_reach_the_node() -> None:
    async def act(world: World) -> None:
        await world.settle()
        world.steward.hear(replace(BASE, ip="10.0.0.8"))
        await world.settle()
        assert {"type": "InternalIP", "address": "10.0.0.8"} in world.node["status"]["addresses"]

    play(act)


def test_4_3_a_node_that_the_cache_shows_late_is_no_trouble() -> None:
    async def act(world: World) -> None:
        find, late = world.cluster.node, [3]

        def hidden(name: str) -> Any:
            late[0] -= 1
            return None if late[0] >= 0 else find(name)

        world.cluster.node = hidden  # type: ignore[method-assign]
        await world.settle()
        for _ in range(3):
            await world.steward.reconcile()
        assert any((one["type"], one["status"]) == ("Ready", "True") for one in world.node["status"]["conditions"])

    play(act)


def test_4_9_a_base_known_from_its_node_has_the_time_for_a_heartbeat() -> None:
    async def act(world: World) -> None:
        await world.settle()
        await world.steward.rest()
        world.now += 10_000
        world.steward = world.employ(replace(BASE, start=""))
        world.steward.begin()
        world.base.is_reachable = False
        await world.pass_time(20)
        assert NODE in world.cluster.nodes

    play(act)


# --- 5: Pods ---------------------------------------------------------------------------------------------------------


def test_5_3_pods_bound_before_their_node_exists_are_installed() -> None:
    with floor_in_memory(bases=1) as (floor, _):

        async def act() -> None:
            (identity,) = floor.bases
            await floor.create_pod("early", identity, container("orders", "1"))
            async with floor.controlled():
                await floor.soon(lambda: floor.is_pod_ready("early"))

        play_floor(act)


def test_5_5_a_module_that_a_base_has_lost_is_installed_again() -> None:
    async def act(world: World) -> None:
        world.cluster.create_pod("a", container("orders", "1"))
        await world.settle()
        world.base.there.clear()
        await hear_list(world)
        assert world.base.there == {ORDERS: "ACTIVATED"}

    play(act)


def test_5_6_another_image_in_place_replaces_the_module() -> None:
    async def act(world: World) -> None:
        world.cluster.create_pod("a", container("orders", "1"))
        await world.settle()
        pod = world.cluster.pods["a"]
        changed = container("orders", "1", image="https://repo.example/rebuilt.zip")
        world.cluster.pods["a"] = {**pod, "spec": {**pod["spec"], "containers": [changed]}}
        await world.settle()
        assert world.base.calls == [("install", "orders:1"), ("uninstall", "orders:1"), ("install", "orders:1")]
        assert world.cluster.ready() == {"a"}

    play(act)


def test_5_7_a_change_at_the_same_second_of_another_minute_is_told() -> None:
    async def act(world: World) -> None:
        world.cluster.create_pod("a", container("orders", "1"))
        await world.settle()
        await hear_list(world)
        listed = dict((await world.base.modules(BASE))[0])
        listed["bizStateRecords"] = [{"changeTime": 160_000, "state": "ACTIVATED"}]

        async def later(base: AnnouncedBase) -> tuple[Mapping[str, Any], ...]:
            return (listed,)

        world.base.modules = later  # type: ignore[method-assign]
        await hear_list(world)
        (told,) = world.cluster.pods["a"]["status"]["containerStatuses"]
        assert told["state"]["running"]["startedAt"] == "1970-01-01T00:02:40Z"

    play(act)


def test_5_7_the_answer_of_an_install_is_told_at_once_and_never_taken_back() -> None:
    async def act(world: World) -> None:
        told: list[bool] = []
        patch = world.cluster.patch_pod_status

        async def noted(pod: VPod, status: Mapping[str, Any]) -> None:
            await patch(pod, status)
            told.append("a" in world.cluster.ready())

        world.cluster.patch_pod_status = noted  # type: ignore[method-assign]
        world.cluster.create_pod("a", container("orders", "1"))
        await world.settle()  # no further list is asked for
        assert told[-1]
        assert told == sorted(told)

    play(act)


def test_5_11_an_install_without_an_answer_is_told_as_such_until_the_base_says_more() -> None:
    async def act(world: World) -> None:
        lost = world.base.install

        async def install(base: AnnouncedBase, module: Module, *, replaces: bool = False) -> Answer:
            await lost(base, module)
            raise NoAnswer("base base-1 gives no answer to installBiz: timed out")

        world.base.install = install  # type: ignore[method-assign]
        world.base.failing["install orders:1"] = Answer(Outcome.REFUSED, "", "")
        world.cluster.create_pod("a", container("orders", "1"))
        await world.settle()
        (told,) = world.cluster.pods["a"]["status"]["containerStatuses"]
        assert told["state"]["waiting"]["reason"] == "BaseUnreachable"
        assert told["state"]["waiting"]["message"].endswith("timed out")

    play(act)


def test_5_8_a_stray_whose_uninstall_fails_is_tried_once_a_minute() -> None:
    async def act(world: World) -> None:
        world.base.there[ORDERS] = "ACTIVATED"
        world.base.failing["uninstall orders:1"] = Answer(Outcome.REFUSED, "UninstallFailed", "no")
        await world.settle()
        await hear_list(world)
        for _ in range(12):
            await world.pass_time(5)
            world.steward.hear(BASE)
            await hear_list(world)
        assert 1 <= len(world.base.calls) <= 2
        del world.base.failing["uninstall orders:1"]
        for _ in range(24):
            await world.pass_time(5)
            world.steward.hear(BASE)
            await hear_list(world)
        assert world.base.there == {}

    play(act)


# --- 11: the whole ---------------------------------------------------------------------------------------------------


class HangingBase(WatchedBase):
    """A base that accepts every call, and never answers."""

    async def modules(self, base: AnnouncedBase) -> tuple[Mapping[str, Any], ...]:
        await asyncio.Event().wait()
        raise AssertionError

    async def health(self, base: AnnouncedBase) -> Health:
        await asyncio.Event().wait()
        raise AssertionError


def test_11_1_1_a_base_that_hangs_holds_up_no_other() -> None:
    with floor_in_memory(bases=3) as (floor, _):

        async def act() -> None:
            hanging, *others = floor.bases
            floor.bases[hanging] = HangingBase()
            async with floor.controlled():
                for identity in floor.bases:
                    await floor.create_pod(f"pod-{identity}", identity, container("orders", "1"))
                for identity in others:
                    await floor.soon(functools.partial(floor.is_pod_ready, f"pod-{identity}"))

        play_floor(act)


def test_11_1_2_names_that_are_no_labels_become_nodes_all_the_same() -> None:
    with floor_in_memory(bases=1) as (floor, _):

        async def act() -> None:
            (identity,) = floor.bases
            strange = replace(floor.announced[identity], version="1.0+build", cluster="my cluster", name="-shop-")
            floor.announced[identity] = strange
            async with floor.controlled():
                found = await floor.get(f"/api/v1/nodes/{floor.node(identity)}")
                assert found is not None
                assert found["metadata"]["labels"]["base.koupleless.io/version"] == "1.0_build"
                assert found["metadata"]["annotations"]["base.koupleless.io/cluster-name"] == "my cluster"

        play_floor(act)


def test_11_1_3_a_node_deleted_by_hand_comes_back_and_keeps_its_modules() -> None:
    with floor_in_memory(bases=1) as (floor, _):

        async def act() -> None:
            (identity,) = floor.bases
            async with floor.controlled():
                await floor.create_pod("a", identity, container("orders", "1"))
                await floor.soon(lambda: floor.is_pod_ready("a"))
                before = await floor.get(f"/api/v1/nodes/{floor.node(identity)}")
                await floor.ask("DELETE", f"/api/v1/nodes/{floor.node(identity)}")
                await floor.soon(floor.are_nodes_ready)
                after = await floor.get(f"/api/v1/nodes/{floor.node(identity)}")
                assert before is not None
                assert after is not None
                assert before["metadata"]["uid"] != after["metadata"]["uid"]
                assert floor.bases[identity].calls == [("install", "orders:1")]

        play_floor(act)


def test_11_1_5_a_container_that_fails_does_not_block_the_others() -> None:
    async def act(world: World) -> None:
        world.base.failing["install orders:1"] = Answer(Outcome.REFUSED, "StartFailed", "no such table: orders")
        world.cluster.create_pod("a", container("orders", "1"), container("prices", "1"))
        await world.settle()
        assert world.base.there == {PRICES: "ACTIVATED"}
        assert world.cluster.ready() == set()

    play(act)


def kill(controller: Controller) -> None:
    """Let a controller end as a killed one does: no Lease is given up."""

    async def nothing(node: str) -> None:
        pass

    controller.leases.release = nothing  # type: ignore[method-assign]


def test_a_killed_controller_that_starts_again_installs_nothing_twice_and_leaves_pods_ready() -> None:
    with floor_in_memory(bases=2) as (floor, _):

        async def act() -> None:
            async with floor.controlled() as controller:
                for identity in floor.bases:
                    await floor.create_pod(f"pod-{identity}", identity, container("orders", "1"))
                for identity in floor.bases:
                    await floor.soon(functools.partial(floor.is_pod_ready, f"pod-{identity}"))
                kill(controller)
            before = {pod["metadata"]["name"]: pod["metadata"]["resourceVersion"] for pod in await floor.pods()}
            async with floor.controlled():
                await floor.create_pod("later", next(iter(floor.bases)), container("prices", "1"))
                await floor.soon(lambda: floor.is_pod_ready("later"))
                after = {pod["metadata"]["name"]: pod["metadata"]["resourceVersion"] for pod in await floor.pods()}
            assert after | before == after  # no status was written in between
            for base in floor.bases.values():
                assert base.calls.count(("install", "orders:1")) == 1

        play_floor(act)


def test_an_api_server_in_trouble_for_a_while_ends_nothing() -> None:
    with floor_in_memory(bases=1) as (floor, server):

        async def act() -> None:
            (identity,) = floor.bases
            async with floor.controlled():
                trouble = [server.faults.add(Fault(verb, "*", times=6, status=503)) for verb in ("patch", "create")]
                trouble.append(server.faults.add(Fault("watch", "*", times=3, events=0)))
                await floor.soon(functools.partial(_created, floor, identity))
                await floor.soon(lambda: floor.is_pod_ready("a"))
                assert trouble[0].times == 0

        play_floor(act)


async def _created(floor: Any, identity: str) -> bool:
    document = {
        "metadata": {"name": "a", "labels": {"virtual-kubelet.koupleless.io/component": "module"}},
        "spec": {"nodeName": floor.node(identity), "containers": [container("orders", "1")]},
    }
    answer = await floor.ask("POST", f"/api/v1/namespaces/{floor.namespace}/pods", json=document)
    return bool(answer.is_success)


def test_a_base_with_another_address_after_a_restart_has_its_pods_there() -> None:
    with floor_in_memory(bases=1) as (floor, _):

        async def act() -> None:
            (identity,) = floor.bases
            async with floor.controlled() as controller:
                await floor.create_pod("a", identity, container("orders", "1"))
                await floor.soon(lambda: floor.is_pod_ready("a"))
                floor.bases[identity].there.clear()
                controller.hear(replace(floor.announced[identity], ip="10.0.0.99", start="start-2"))
                await floor.soon(lambda: _has_ips(floor, "10.0.0.99"))
                await floor.soon(lambda: floor.is_pod_ready("a"))
                (pod,) = await floor.pods()
                assert [one for one in pod["status"]["conditions"] if one["status"] == "True" and "reason" in one] == []

        play_floor(act)


async def _has_ips(floor: Any, ip: str) -> bool:
    (pod,) = await floor.pods()
    status = pod["status"]
    return bool(status["podIPs"] == status["hostIPs"] == [{"ip": ip}] and status["podIP"] == status["hostIP"] == ip)
