"""Rollouts of equal modules (``kubectl rollout restart``): each base starts the module again once, without a gap."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.controller.documents import container
from tests.controller.world import BASE, World, play

from koupleless.controller.tunnels.answers import Answer, Outcome
from koupleless.controller.vpods.module import ModuleKey

if TYPE_CHECKING:
    from collections.abc import Sequence

ORDERS = ModuleKey("orders", "1")


def create(world: World, name: str, revision: str, *, owner: str = "shop", version: str = "1") -> None:
    metadata = {
        "labels": {"pod-template-hash": revision},
        "ownerReferences": [
            {"kind": "ReplicaSet", "name": f"{owner}-{revision}", "uid": f"uid-{owner}-{revision}", "controller": True}
        ],
    }
    world.cluster.create_pod(name, container("orders", version), metadata=metadata)


def told(world: World, name: str) -> dict[str, Any]:
    (status,) = world.cluster.pods[name]["status"]["containerStatuses"]
    return status  # type: ignore[no-any-return]


def restarts(world: World) -> Sequence[str]:
    return [key for verb, key in world.base.calls if verb == "restart"]


async def settle(world: World) -> None:
    """Work, with the news of Pods coming back from the API server."""
    for _ in range(4):
        await world.settle()


async def replace_controller(world: World) -> None:
    await world.steward.rest()
    world.steward = world.employ(BASE)
    world.steward.begin()
    await settle(world)


def test_a_pod_of_a_new_revision_starts_an_equal_module_again_once_and_without_a_gap() -> None:
    async def act(world: World) -> None:
        create(world, "old", "r1")
        await settle(world)
        world.base.holds_restarts.clear()
        create(world, "new", "r2")
        await settle(world)
        assert world.cluster.ready() == {"old"}
        assert told(world, "new")["state"]["waiting"]["reason"] == "RolloutRestart"
        world.base.holds_restarts.set()
        await settle(world)
        assert world.cluster.ready() == {"old", "new"}
        world.cluster.delete_pod("old")
        await settle(world)
        assert world.cluster.ready() == {"new"}
        assert world.base.calls == [("install", "orders:1"), ("restart", "orders:1")]
        assert told(world, "new")["restartCount"] == 0
        assert ("new", "ModuleRestarted", "orders:1: ok") in world.cluster.events

    play(act)


def test_further_pods_of_the_revision_and_other_workloads_start_nothing_again() -> None:
    async def act(world: World) -> None:
        create(world, "old", "r1")
        await settle(world)
        for name in ("new-1", "new-2"):
            create(world, name, "r2")
        await settle(world)
        create(world, "new-3", "r2")
        create(world, "other", "r9", owner="elsewhere")
        world.cluster.create_pod("bare", container("orders", "1"))
        await settle(world)
        assert restarts(world) == ["orders:1"]
        assert world.cluster.ready() == {"old", "new-1", "new-2", "new-3", "other", "bare"}
        create(world, "newest", "r3")
        world.cluster.delete_pod("old")
        await settle(world)
        assert restarts(world) == ["orders:1"] * 2

    play(act)


def test_a_new_version_starts_nothing_again() -> None:
    async def act(world: World) -> None:
        create(world, "old", "r1")
        await settle(world)
        create(world, "new", "r2", version="2")
        await settle(world)
        assert restarts(world) == []
        assert world.cluster.ready() == {"new"}

    play(act)


def test_a_controller_that_ends_at_any_moment_leaves_one_restart() -> None:
    async def act(world: World) -> None:
        create(world, "old", "r1")
        await settle(world)
        create(world, "new", "r2")
        patch = world.cluster.patch_pod_status
        told: list[str] = []

        async def watch(pod: Any, status: Any) -> None:
            waiting = status["containerStatuses"][0]["state"].get("waiting", {})
            if pod.key.name == "new" and not waiting:
                told.append("running")
                if len(told) == 1:
                    return  # lost: the base has started the module again, and nobody knows
            await patch(pod, status)

        world.cluster.patch_pod_status = watch  # type: ignore[method-assign]
        for _ in range(6):
            await world.steward.reconcile()
            if told:
                break
            await world.settle()
        await replace_controller(world)
        assert restarts(world) == ["orders:1"]
        assert world.cluster.ready() == {"old", "new"}

    play(act)


def test_a_restart_that_fails_leaves_the_present_life_and_is_told() -> None:
    async def act(world: World) -> None:
        create(world, "old", "r1")
        await settle(world)
        world.base.failing["restart orders:1"] = Answer(Outcome.REFUSED, "StartFailed", "no such table: orders")
        create(world, "new", "r2")
        await settle(world)
        assert world.cluster.ready() == {"old"}
        waiting = told(world, "new")["state"]["waiting"]
        assert waiting["reason"] == "RolloutRestart"
        assert waiting["message"].endswith("for a new revision: StartFailed: no such table: orders")
        assert restarts(world) == ["orders:1"]
        world.base.failing.clear()
        await world.pass_time(1)
        await settle(world)
        assert restarts(world) == ["orders:1"] * 2
        assert world.cluster.ready() == {"old", "new"}

    play(act)


def test_a_base_that_starts_no_module_again_leaves_the_module() -> None:
    async def act(world: World) -> None:
        create(world, "old", "r1")
        await settle(world)
        there = Answer(Outcome.UNCERTAIN, "AlreadyInstalled", "Biz: orders:1 has been installed or registered.")
        world.base.failing["restart orders:1"] = there
        create(world, "new", "r2")
        await settle(world)
        assert world.cluster.ready() == {"old", "new"}
        for _ in range(3):
            world.steward.hear(BASE)
            await world.pass_time(20)
        assert restarts(world) == ["orders:1"]
        assert "ModuleRestartFailed" in {reason for _, reason, _ in world.cluster.events}

    play(act)


def test_a_scaled_workload_starts_nothing_again() -> None:
    async def act(world: World) -> None:
        create(world, "one", "r1")
        await settle(world)
        create(world, "two", "r1")
        await settle(world)
        assert restarts(world) == []
        assert world.cluster.ready() == {"one", "two"}

    play(act)
