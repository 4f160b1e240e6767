"""Modules that run to completion, fail for good, or have a deadline; and Pods of several modules."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.controller.documents import container
from tests.controller.world import BASE, World, play

from koupleless.controller.tunnels.answers import Answer, Outcome
from koupleless.controller.vpods.module import ModuleKey

if TYPE_CHECKING:
    from collections.abc import Sequence

ORDERS, PRICES = ModuleKey("orders", "1"), ModuleKey("prices", "1")
REFUSED = Answer(Outcome.REFUSED, "StartFailed", "no such table: orders")


def statuses(world: World, name: str = "a") -> dict[str, dict[str, Any]]:
    return {one["name"]: one for one in world.cluster.pods[name]["status"]["containerStatuses"]}


def phase(world: World, name: str = "a") -> str:
    return world.cluster.pods[name]["status"]["phase"]  # type: ignore[no-any-return]


def installs(world: World) -> Sequence[str]:
    return [key for verb, key in world.base.calls if verb == "install"]


async def pass_time(world: World, seconds: float) -> None:
    """Let time pass for a base that sends heartbeats, and news of Pods come back from the API server."""
    world.steward.hear(BASE)
    await world.pass_time(seconds)
    await world.settle()


async def replace_controller(world: World) -> None:
    await world.steward.rest()
    world.steward = world.employ(BASE)
    world.steward.begin()
    await world.settle()


def test_each_failed_start_after_the_first_is_a_restart_as_a_job_counts_them() -> None:
    async def act(world: World) -> None:
        world.base.failing["install orders:1"] = REFUSED
        world.cluster.create_pod("a", container("orders", "1"), spec={"restartPolicy": "OnFailure"})
        await world.settle()
        counts = [statuses(world)["orders"]["restartCount"]]
        for pause_s in (1, 2, 4):
            await pass_time(world, pause_s)
            counts.append(statuses(world)["orders"]["restartCount"])
        assert counts == [0, 1, 2, 3]
        assert phase(world) == "Pending"
        end = statuses(world)["orders"]["lastState"]["terminated"]
        assert (end["exitCode"], end["reason"], end["message"]) == (1, "StartFailed", "no such table: orders")
        await replace_controller(world)
        await pass_time(world, 8)
        assert statuses(world)["orders"]["restartCount"] >= 4  # the count goes on under a new controller
        world.base.failing.clear()
        await pass_time(world, 20)
        assert phase(world) == "Succeeded"
        assert world.base.there == {}

    play(act)


def test_a_failure_told_again_is_no_restart() -> None:
    async def act(world: World) -> None:
        world.base.failing["install orders:1"] = REFUSED
        world.cluster.create_pod("a", container("orders", "1"))
        await world.settle()
        for _ in range(5):
            await world.settle()
            await world.steward._questions.ask_list()
        assert statuses(world)["orders"]["restartCount"] == 0

    play(act)


def test_a_module_that_failed_for_good_is_not_tried_again() -> None:
    async def act(world: World) -> None:
        world.base.failing["install orders:1"] = REFUSED
        world.base.holds.set()
        never = {"restartPolicy": "Never"}
        world.cluster.create_pod("a", container("orders", "1"), container("prices", ""), spec=never)
        await world.settle()  # the second container has no version, and waits
        for _ in range(3):
            await pass_time(world, 10)
        assert installs(world) == ["orders:1"]
        end = statuses(world)["orders"]["state"]["terminated"]
        assert (end["exitCode"], end["message"]) == (1, "no such table: orders")
        await replace_controller(world)
        await pass_time(world, 10)
        assert installs(world) == ["orders:1"]
        assert statuses(world)["orders"]["state"]["terminated"] == end

    play(act)


def test_a_pod_has_failed_once_all_modules_have_ended_and_one_has_failed() -> None:
    async def act(world: World) -> None:
        world.base.failing["install orders:1"] = REFUSED
        never = {"restartPolicy": "Never"}
        world.cluster.create_pod("a", container("orders", "1"), container("prices", "1"), spec=never)
        await world.settle()
        await world.settle()
        assert phase(world) == "Failed"
        codes = {name: one["state"]["terminated"]["exitCode"] for name, one in statuses(world).items()}
        assert codes == {"orders": 1, "prices": 0}
        assert world.base.there == {}

    play(act)


def test_a_completed_module_does_not_start_again_while_another_one_fails() -> None:
    async def act(world: World) -> None:
        world.base.failing["install orders:1"] = REFUSED
        spec = {"restartPolicy": "OnFailure"}
        world.cluster.create_pod("a", container("orders", "1"), container("prices", "1"), spec=spec)
        await world.settle()
        completed = statuses(world)["prices"]
        assert completed["state"]["terminated"]["exitCode"] == 0
        world.base.there.clear()  # as after a restart of the base
        await world.steward._questions.ask_list()
        await pass_time(world, 1)
        assert installs(world).count("prices:1") == 1
        world.base.failing.clear()
        await pass_time(world, 10)
        assert phase(world) == "Succeeded"
        assert statuses(world)["prices"] == completed

    play(act)


def test_a_pod_that_is_active_for_too_long_has_failed_and_its_modules_leave() -> None:
    async def act(world: World) -> None:
        world.cluster.create_pod("a", container("orders", "1"), spec={"activeDeadlineSeconds": 60})
        await world.settle()
        assert world.cluster.ready() == {"a"}
        assert 0 < (await world.steward.reconcile() or 0) <= 60
        await pass_time(world, 20)
        await pass_time(world, 20)
        assert world.cluster.ready() == {"a"}
        await replace_controller(world)
        await pass_time(world, 20)
        assert (phase(world), world.cluster.pods["a"]["status"]["reason"]) == ("Failed", "DeadlineExceeded")
        assert statuses(world)["orders"]["state"]["terminated"]["reason"] == "DeadlineExceeded"
        assert world.cluster.ready() == set()
        assert world.base.there == {}
        assert await world.steward.reconcile() is None

    play(act)


def test_another_image_in_place_replaces_one_module_of_several() -> None:
    async def act(world: World) -> None:
        world.cluster.create_pod("a", container("orders", "1"), container("prices", "1"))
        await world.settle()
        pod = world.cluster.pods["a"]
        changed = [container("orders", "1", image="https://repo.example/mended.zip"), container("prices", "1")]
        world.cluster.pods["a"] = {**pod, "spec": {**pod["spec"], "containers": changed}}
        world.base.calls.clear()
        await world.settle()
        assert world.base.calls == [("uninstall", "orders:1"), ("install", "orders:1")]
        assert world.cluster.ready() == {"a"}
        assert statuses(world)["orders"]["image"] == "https://repo.example/mended.zip"
        assert {name: one["restartCount"] for name, one in statuses(world).items()} == {"orders": 1, "prices": 0}

    play(act)


def test_another_image_for_all_modules_in_place_ends_with_all_of_them() -> None:
    async def act(world: World) -> None:
        world.cluster.create_pod("a", container("orders", "1"), container("prices", "1"))
        await world.settle()
        pod = world.cluster.pods["a"]
        changed = [container(name, "1", image=f"https://repo.example/{name}.zip") for name in ("orders", "prices")]
        world.cluster.pods["a"] = {**pod, "spec": {**pod["spec"], "containers": changed}}
        await world.settle()
        assert set(world.base.there) == {ORDERS, PRICES}
        assert (phase(world), world.cluster.ready()) == ("Running", {"a"})

    play(act)
