"""The steward of a base: Nodes and Pods follow the base, through restarts, silence, failures and rolling updates."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from tests.controller.documents import NODE, container
from tests.controller.world import BASE, World, play

from koupleless.controller.tunnels.answers import Answer, Outcome
from koupleless.controller.tunnels.tunnel import NoAnswer
from koupleless.controller.vnodes.base import AnnouncedBase, BaseState
from koupleless.controller.vpods.module import ModuleKey
from koupleless.controller.vpods.plan import Policy

if TYPE_CHECKING:
    from koupleless.controller.bases.steward import Steward

ORDERS, ORDERS_2 = ModuleKey("orders", "1"), ModuleKey("orders", "2")


def ready(node: dict[str, Any]) -> str:
    return next(one["status"] for one in node["status"]["conditions"] if one["type"] == "Ready")  # type: ignore[no-any-return]


def test_a_base_becomes_a_ready_node() -> None:
    async def act(world: World) -> None:
        await world.settle()
        assert ready(world.node) == "True"
        assert world.node["metadata"]["labels"]["base.koupleless.io/name"] == "shop"
        writes = list(world.cluster.writes)
        await world.pass_time(10)
        assert world.cluster.writes == writes

    play(act)


def test_a_pod_becomes_a_module_and_ready() -> None:
    async def act(world: World) -> None:
        await world.settle()
        world.cluster.create_pod("a", container("orders", "1"))
        await world.settle()
        assert world.base.there == {ORDERS: "ACTIVATED"}
        assert world.cluster.ready() == {"a"}
        assert ("a", "ModuleInstalled", "orders:1: ok") in world.cluster.events
        world.cluster.delete_pod("a")
        await world.settle()
        assert world.base.there == {}
        assert world.cluster.pods == {}

    play(act)


def test_a_failure_is_told_in_status_and_event_and_tried_again() -> None:
    async def act(world: World) -> None:
        world.base.failing["install orders:1"] = Answer(Outcome.REFUSED, "StartFailed", "no such table: orders")
        world.cluster.create_pod("a", container("orders", "1"))
        await world.settle()
        (told,) = world.cluster.pods["a"]["status"]["containerStatuses"]
        assert told["state"]["waiting"] == {"reason": "StartFailed", "message": "no such table: orders"}
        assert ("a", "ModuleInstallFailed", "orders:1: no such table: orders") in world.cluster.events
        assert world.base.calls == [("install", "orders:1")]
        del world.base.failing["install orders:1"]
        await world.pass_time(1)
        assert world.cluster.ready() == {"a"}

    play(act)


def test_a_base_that_restarts_empty_under_its_identity_is_filled_again_at_once() -> None:
    async def act(world: World) -> None:
        world.cluster.create_pod("a", container("orders", "1"))
        await world.settle()
        world.base.there.clear()
        world.steward.hear(replace(BASE, start="start-2"))
        await world.settle()
        assert world.base.there == {ORDERS: "ACTIVATED"}
        assert world.cluster.ready() == {"a"}

    play(act)


def test_a_java_base_that_restarts_is_filled_again_with_the_next_list() -> None:
    async def act(world: World) -> None:
        world.cluster.create_pod("a", container("orders", "1"))
        await world.settle()
        world.base.there.clear()
        await world.steward._questions.ask_list()
        await world.settle()
        assert world.base.there == {ORDERS: "ACTIVATED"}

    play(act)


def test_a_base_with_heartbeats_and_a_hanging_arklet_keeps_no_pod_ready() -> None:
    async def act(world: World) -> None:
        world.cluster.create_pod("a", container("orders", "1"))
        await world.settle()
        world.base.is_reachable = False
        for _ in range(3):
            with pytest.raises(NoAnswer):
                await world.steward._questions.ask_health()
            assert world.cluster.ready() == {"a"}  # no base is judged by missed answers of a moment
            await world.pass_time(10)
            world.steward.hear(BASE)
        assert (ready(world.node), world.cluster.ready()) == ("Unknown", set())
        (told,) = [one for one in world.node["status"]["conditions"] if one["type"] == "Ready"]
        assert told["reason"] == "ArkletSilent"
        for _ in range(12):
            await world.pass_time(10)
            world.steward.hear(BASE)
        assert ready(world.node) == "Unknown"  # and not gone
        world.base.is_reachable = True
        await world.steward._questions.ask_list()
        await world.settle()
        assert (ready(world.node), world.cluster.ready()) == ("True", {"a"})
        assert world.base.calls == [("install", "orders:1")]

    play(act)


def test_a_controller_that_did_not_lead_has_missed_no_answer() -> None:
    async def act(world: World) -> None:
        world.base.is_reachable = False
        for _ in range(4):
            with pytest.raises(NoAnswer):
                await world.steward._questions.ask_health()
        await world.steward.rest()
        await world.pass_time(40)
        world.steward.hear(BASE)
        world.steward.begin()
        await world.settle()
        assert ready(world.node) == "True"

    play(act)


def test_a_silent_base_is_unknown_and_then_gone() -> None:
    async def act(world: World) -> None:
        world.cluster.create_pod("a", container("orders", "1"))
        await world.settle()
        world.base.is_reachable = False
        await world.pass_time(26)
        assert ready(world.node) == "Unknown"
        assert world.cluster.ready() == set()
        calls = list(world.base.calls)
        world.cluster.create_pod("b", container("prices", "1"))
        await world.settle()
        assert world.base.calls == calls
        await world.pass_time(34)
        assert world.cluster.nodes == {}
        world.base.is_reachable = True
        world.steward.hear(BASE)
        await world.pass_time(0)
        assert ready(world.node) == "True"
        assert world.cluster.ready() == {"a", "b"}

    play(act)


def test_the_node_of_a_dead_base_stays_if_the_operator_wants() -> None:
    async def act(world: World) -> None:
        await world.settle()
        await world.pass_time(61)
        assert ready(world.node) == "False"

    play(act, keeps_dead_nodes=True)


def test_a_base_that_says_goodbye_is_gone_at_once() -> None:
    async def act(world: World) -> None:
        await world.settle()
        world.steward.hear(replace(BASE, state=BaseState.DEACTIVATED))
        await world.settle()
        assert world.cluster.nodes == {}

    play(act)


def test_a_node_deleted_by_hand_comes_back() -> None:
    async def act(world: World) -> None:
        await world.settle()
        world.cluster.nodes.clear()
        await world.settle()
        assert ready(world.node) == "True"

    play(act)


def test_news_of_a_base_reach_the_node() -> None:
    async def act(world: World) -> None:
        await world.settle()
        world.steward.hear(replace(BASE, version="2.0+b"))
        await world.settle()
        assert world.node["metadata"]["labels"]["base.koupleless.io/version"] == "2.0_b"
        assert world.node["metadata"]["annotations"]["base.koupleless.io/version"] == "2.0+b"

    play(act)


def test_in_a_rolling_update_the_old_pod_is_unready_before_the_new_one_is_ready() -> None:
    async def act(world: World) -> None:
        world.cluster.create_pod("old", container("orders", "1"))
        await world.settle()
        world.cluster.create_pod("new", container("orders", "2"))
        del world.cluster.writes[:]
        seen: list[set[str]] = []
        patch = world.cluster.patch_pod_status

        async def watched(*arguments: Any) -> None:
            await patch(*arguments)
            seen.append(world.cluster.ready())

        world.cluster.patch_pod_status = watched  # type: ignore[method-assign, assignment]
        await world.settle()
        assert world.base.there == {ORDERS: "DEACTIVATED", ORDERS_2: "ACTIVATED"}
        assert world.cluster.ready() == {"new"}
        assert {"old", "new"} not in seen
        assert world.base.calls == [("install", "orders:1"), ("install", "orders:2"), ("switch", "orders:2")]
        world.cluster.delete_pod("old")
        await world.settle()
        assert world.base.there == {ORDERS_2: "ACTIVATED"}

    play(act)


def test_a_rolling_update_within_one_second_goes_forth_and_back() -> None:
    async def act(world: World) -> None:
        for name, version in (("c", "1"), ("b", "2"), ("a", "1")):
            world.cluster.create_pod(name, container("orders", version), created=7)
            await world.settle()
            assert world.cluster.ready() == {name}
            await world.steward.rest()
            world.steward = world.employ(BASE)  # a controller that starts anew decides alike
            world.steward.begin()
            await world.settle()
            assert world.cluster.ready() == {name}
            for former in set(world.cluster.pods) - {name}:
                world.cluster.delete_pod(former)
            await world.settle()

    play(act)


def test_undoing_a_rollout_brings_the_former_version_back() -> None:
    async def act(world: World) -> None:
        for name, version in (("one", "1"), ("two", "2")):
            world.cluster.create_pod(name, container("orders", version))
            await world.settle()
        world.cluster.delete_pod("one")
        await world.settle()
        world.cluster.create_pod("again", container("orders", "1"))
        await world.settle()
        assert world.base.there == {ORDERS: "ACTIVATED", ORDERS_2: "DEACTIVATED"}
        assert world.cluster.ready() == {"again"}

    play(act)


def test_a_module_in_the_way_is_no_failure() -> None:
    async def act(world: World) -> None:
        await world.settle()
        world.base.there[ORDERS] = "ACTIVATED"  # by hand, and not on a list yet
        world.base.failing["install orders:1"] = Answer(Outcome.UNCERTAIN, "AlreadyInstalled", "there")
        world.cluster.create_pod("a", container("orders", "1"))
        await world.settle()
        assert world.cluster.ready() == {"a"}

    play(act)


def test_strays_are_left_to_the_operator() -> None:
    async def act(world: World) -> None:
        world.base.there[ORDERS] = "ACTIVATED"
        await world.settle()
        for _ in range(3):
            await world.steward._questions.ask_list()
            await world.settle()
        assert world.base.calls == []

    play(act, policy=Policy(removes_strays=False))


def strays(node: dict[str, Any]) -> tuple[str, str]:
    return next(
        (one["status"], one["message"]) for one in node["status"]["conditions"] if one["type"] == "StrayModules"
    )


def test_strays_are_told_by_the_node_with_the_reason_why_they_stay_and_no_more_once_a_pod_has_them() -> None:
    async def act(world: World) -> None:
        await world.settle()
        assert strays(world.node)[0] == "False"
        world.base.there[ORDERS] = "ACTIVATED"
        world.base.failing["uninstall orders:1"] = Answer(Outcome.REFUSED, "UninstallFailed", "a request runs")
        for _ in range(3):
            await world.steward._questions.ask_list()
            await world.settle()
        assert strays(world.node) == ("True", "no Pod has orders:1 (UninstallFailed: a request runs)")
        world.cluster.create_pod("a", container("orders", "1"))
        await world.settle()
        await world.steward._questions.ask_list()
        await world.settle()
        assert strays(world.node) == ("False", "each module of the base has a Pod")

    play(act)


def test_an_install_that_lasts_holds_up_nothing_else() -> None:
    async def act(world: World) -> None:
        world.cluster.create_pod("prices", container("prices", "1"))
        await world.settle()
        world.base.holds.clear()
        world.cluster.create_pod("slow", container("orders", "1"))
        world.cluster.delete_pod("prices")
        await world.settle()
        assert "prices" not in world.cluster.pods
        assert not world.cluster.ready()
        world.base.holds.set()
        await world.settle()
        assert world.cluster.ready() == {"slow"}

    play(act)


def test_an_operation_of_a_former_life_changes_nothing() -> None:
    async def act(world: World) -> None:
        world.base.holds.clear()
        world.cluster.create_pod("a", container("orders", "1"))
        await world.settle()
        world.steward.hear(replace(BASE, start="start-2"))
        await asyncio.sleep(0)
        assert _running(world.steward) == {}
        world.base.failing["install orders:1"] = Answer(Outcome.REFUSED, "StartFailed", "old news")
        world.base.holds.set()
        await asyncio.sleep(0.01)
        assert world.steward.news.attempts.due(ORDERS) == 0

    play(act)


def test_a_controller_that_starts_anew_says_nothing_before_the_base_has_told() -> None:
    async def act(world: World) -> None:
        world.cluster.create_pod("a", container("orders", "1"))
        await world.settle()
        calls, writes = list(world.base.calls), list(world.cluster.writes)
        await world.steward.rest()
        world.base.is_reachable = False
        found = AnnouncedBase.of_node(world.node)
        assert found is not None
        world.steward = world.employ(found)
        world.steward.begin()
        await world.settle()
        assert world.cluster.ready() == {"a"}
        world.base.is_reachable = True
        world.steward.hear(BASE)
        await world.settle()
        assert world.cluster.ready() == {"a"}
        assert world.base.calls == calls
        assert [write for write in world.cluster.writes[len(writes) :] if write[0] == "pod status"] == []

    play(act)


def test_the_first_heartbeat_after_a_start_of_the_controller_is_no_restart_of_the_base() -> None:
    async def act(world: World) -> None:
        await world.settle()
        await world.steward.rest()
        world.steward = world.employ(replace(BASE, start=""))
        world.steward.begin()
        world.base.holds.clear()
        world.cluster.create_pod("a", container("orders", "1"))
        await world.settle()
        world.steward.hear(BASE)
        await world.settle()
        world.base.holds.set()
        await world.settle()
        assert world.base.calls == [("install", "orders:1")]
        assert world.cluster.ready() == {"a"}

    play(act)


def test_the_pods_of_a_restarted_base_are_not_ready_until_their_modules_are_back() -> None:
    async def act(world: World) -> None:
        world.cluster.create_pod("a", container("orders", "1"))
        await world.settle()
        world.base.there.clear()
        world.base.holds.clear()
        world.steward.hear(replace(BASE, start="start-2"))
        await world.settle()
        assert world.cluster.ready() == set()
        world.base.holds.set()
        await world.settle()
        assert world.cluster.ready() == {"a"}

    play(act)


def test_the_end_of_a_failed_pod_has_the_time_of_the_day() -> None:
    async def act(world: World) -> None:
        world.base.failing["install orders:1"] = Answer(Outcome.REFUSED, "StartFailed", "no such table: orders")
        world.cluster.create_pod("a", container("orders", "1"), spec={"restartPolicy": "Never"})
        await world.settle()
        status = world.cluster.pods["a"]["status"]
        (told,) = status["containerStatuses"]
        assert status["phase"] == "Failed"
        assert told["state"]["terminated"]["finishedAt"].startswith("2023-11-14")

    play(act)


HOOK = {"preStop": {"httpGet": {"path": "/orders/leave", "port": "web"}}}
WEB = [{"name": "web", "containerPort": 8080}]


def test_a_module_stays_until_the_hook_of_its_pod_has_ended() -> None:
    async def act(world: World) -> None:
        world.cluster.create_pod("a", container("orders", "1", lifecycle=HOOK, ports=WEB))
        await world.settle()
        world.base.holds_visits.clear()
        world.cluster.delete_pod("a")
        await world.settle()
        assert world.base.calls == [("install", "orders:1"), ("visit", "8080/orders/leave")]
        assert world.cluster.ready() == set()
        assert world.base.there == {ORDERS: "ACTIVATED"}
        world.base.holds_visits.set()
        await world.settle()
        assert world.base.there == {}
        assert world.cluster.pods == {}

    play(act)


def test_requests_in_flight_have_the_rest_of_the_grace() -> None:
    async def act(world: World) -> None:
        world.cluster.create_pod("a", container("orders", "1", lifecycle=HOOK, ports=WEB))
        world.cluster.create_pod("b", container("prices", "1"))
        await world.settle()
        world.base.there[ModuleKey("stray", "1")] = "ACTIVATED"
        for _ in range(2):
            await world.steward._questions.ask_list()
            await world.settle()
        world.base.holds_visits.clear()
        world.cluster.delete_pod("a", grace_s=30)
        await world.settle()
        await world.pass_time(20)
        world.base.holds_visits.set()
        await world.settle()
        world.cluster.delete_pod("b", grace_s=5)
        await world.settle()
        assert world.cluster.pods == {}
        stray, first, second = world.base.drains
        assert stray is None  # there is no Pod with a grace
        assert first == pytest.approx(10, abs=0.1)
        assert second == pytest.approx(5, abs=0.1)

    play(act)


def test_the_hooks_of_a_pod_end_with_its_grace() -> None:
    async def act(world: World) -> None:
        world.cluster.create_pod("a", container("orders", "1", lifecycle=HOOK, ports=WEB))
        await world.settle()
        world.base.holds_visits.clear()
        world.cluster.delete_pod("a", grace_s=0)
        await world.settle()
        assert world.base.there == {}
        assert world.cluster.pods == {}
        assert ("a", "FailedPreStopHook") in {event[:2] for event in world.cluster.events}

    play(act)


def test_a_hook_that_fails_or_is_unknown_is_told_and_holds_nobody() -> None:
    async def act(world: World) -> None:
        hooks = ({"exec": {"command": ["true"]}}, {"httpGet": {"port": "web"}}, {"sleep": {"seconds": 0}})
        names = ("orders", "prices", "stock")
        modules = [container(name, "1", lifecycle={"preStop": hook}) for name, hook in zip(names, hooks, strict=True)]
        world.cluster.create_pod("a", *modules)
        await world.settle()
        world.cluster.delete_pod("a")
        await world.settle()
        assert world.cluster.pods == {}
        told = [message for _, reason, message in world.cluster.events if reason == "FailedPreStopHook"]
        assert [message.partition(";")[0] for message in told] == [
            "a module has no hook preStop of the kind exec",
            "the container 'prices' has no port 'web' for the hook preStop",
        ]

    play(act)


def test_a_pod_whose_module_never_started_has_no_hooks() -> None:
    async def act(world: World) -> None:
        world.base.failing["install orders:1"] = Answer(Outcome.REFUSED, "StartFailed", "no such table: orders")
        world.cluster.create_pod("a", container("orders", "1", lifecycle=HOOK, ports=WEB))
        await world.settle()
        world.cluster.delete_pod("a")
        await world.settle()
        assert world.cluster.pods == {}
        assert [call for call in world.base.calls if call[0] == "visit"] == []

    play(act)


def test_another_controller_runs_the_hooks_again() -> None:
    async def act(world: World) -> None:
        world.cluster.create_pod("a", container("orders", "1", lifecycle=HOOK, ports=WEB))
        await world.settle()
        world.base.holds_visits.clear()
        world.cluster.delete_pod("a")
        await world.settle()
        await world.steward.rest()
        world.base.holds_visits.set()
        world.steward = world.employ(BASE)
        world.steward.begin()
        await world.settle()
        assert world.base.calls[1:] == [("visit", "8080/orders/leave")] * 2 + [("uninstall", "orders:1")]
        assert world.cluster.pods == {}

    play(act)


def _running(steward: Steward) -> dict[str, Any]:
    return dict(steward.news.attempts.running())


def test_the_name_of_a_node_is_the_original_s() -> None:
    async def act(world: World) -> None:
        assert world.steward.name == NODE

    play(act)


def test_an_unchanged_list_of_modules_is_no_work() -> None:
    async def act(world: World) -> None:
        world.cluster.create_pod("a", container("orders", "1"))
        await world.settle()
        before = world.calls
        for _ in range(3):
            await world.steward._questions.ask_list()
        assert world.calls == before
        world.base.there[ModuleKey("stray", "1")] = "ACTIVATED"
        await world.steward._questions.ask_list()
        assert world.calls > before
        await world.steward._questions.ask_list()  # the second sighting, by an equal list
        await world.settle()
        assert world.base.there == {ORDERS: "ACTIVATED"}

    play(act)


def test_a_pod_without_its_configmap_is_looked_at_again() -> None:
    async def act(world: World) -> None:
        reference = {"name": "REGION", "valueFrom": {"configMapKeyRef": {"name": "regions", "key": "one"}}}
        world.cluster.create_pod("a", container("orders", "1", env=[reference]))
        await world.settle()
        assert world.base.there == {}
        due_s = await world.steward.reconcile()
        assert due_s is not None
        assert 0 < due_s <= 15

    play(act)
