"""Probes of containers, by the sentences of the documentation of Kubernetes on them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from tests.controller.documents import container
from tests.controller.world import BASE, World, play

from koupleless.controller.probes.probe import GrpcCheck, HttpCheck, Kind, NoProbe, Probe, TcpCheck, probes_of
from koupleless.controller.probes.tally import Tally
from koupleless.controller.tunnels.answers import Answer, Outcome
from koupleless.controller.vpods.module import ModuleKey

if TYPE_CHECKING:
    from collections.abc import Callable

ORDERS = ModuleKey("orders", "1")
STARTUP, READY, LIVE = 8081, 8082, 8083
PORTS = {"startupProbe": STARTUP, "readinessProbe": READY, "livenessProbe": LIVE}
FAILED = "HTTP probe failed with statuscode: 500"


def get(port: int | str, **members: Any) -> dict[str, Any]:
    return {"httpGet": {"port": port}, **members}


def probed(*kinds: str, **members: Any) -> dict[str, Any]:
    """Make a container with a probe of each kind, on the port of the kind."""
    probes: dict[str, Any] = {kind: get(PORTS[kind], **members) for kind in kinds}
    return container("orders", "1", **probes)


def told(world: World, name: str = "a") -> dict[str, Any]:
    (status,) = world.cluster.pods[name]["status"]["containerStatuses"]
    return status  # type: ignore[no-any-return]


def reasons(world: World) -> list[str]:
    return [reason for _, reason, _ in world.cluster.events]


async def start(world: World, module: dict[str, Any]) -> None:
    world.cluster.create_pod("a", module)
    await world.settle()
    assert world.base.there == {ORDERS: "ACTIVATED"}


async def pass_periods(world: World, count: int, period_s: float = 10) -> None:
    for _ in range(count):
        world.steward.hear(BASE)
        await world.pass_time(period_s)


# --- as values -------------------------------------------------------------------------------------------------------


def test_a_probe_is_read_with_the_defaults_of_kubernetes() -> None:
    (probe,) = probes_of(container("a", livenessProbe={"tcpSocket": {"port": 80}}))
    assert probe == Probe(Kind.LIVENESS, TcpCheck(80), 0, 10, 1, 1, 3, None)


def test_all_members_of_a_probe_are_read() -> None:
    ports = [{"name": "web", "containerPort": 8080}]
    action = {
        "path": "/live?deep=1",
        "port": "web",
        "host": "other",
        "scheme": "HTTPS",
        "httpHeaders": [{"name": "X-Probe", "value": "1"}],
    }
    times = {
        "initialDelaySeconds": 1,
        "periodSeconds": 2,
        "timeoutSeconds": 3,
        "successThreshold": 4,
        "failureThreshold": 5,
        "terminationGracePeriodSeconds": 6,
    }
    (probe,) = probes_of(container("a", ports=ports, startupProbe={"httpGet": action, **times}))
    check = HttpCheck(8080, "/live?deep=1", "https", "other", (("X-Probe", "1"),))
    assert probe == Probe(Kind.STARTUP, check, 1, 2, 3, 4, 5, 6)
    (probe,) = probes_of(container("a", readinessProbe={"grpc": {"port": 9, "service": "shop"}}))
    assert isinstance(probe, Probe)
    assert probe.check == GrpcCheck(9, "shop")


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ({"exec": {"command": ["true"]}}, "a module has no liveness probe of the kind exec; use httpGet"),
        (get("web"), "the container 'a' has no port 'web' for its liveness probe"),
        (get(0), "has no port 0"),
        (get(70_000), "has no port 70000"),
        ({"periodSeconds": 1}, "of the kind none"),
    ],
)
def test_a_probe_that_a_module_cannot_have_is_refused(wanted: dict[str, Any], words: str) -> None:
    (refused,) = probes_of(container("a", livenessProbe=wanted))
    assert isinstance(refused, NoProbe)
    assert words in refused.message


def test_results_count_in_a_row() -> None:
    tally = Tally(Probe(Kind.READINESS, TcpCheck(1), successes=2, failures=3), verdict=False)
    results = [True, False, True, True, False, False, True, False, False, False]
    verdicts = []
    for result in results:
        tally.note(is_success=result)
        verdicts.append(tally.verdict)
    assert verdicts == [False, False, False, True, True, True, True, True, True, False]


# --- readiness -------------------------------------------------------------------------------------------------------


def test_the_default_state_of_readiness_before_the_initial_delay_is_failure() -> None:
    async def act(world: World) -> None:
        await start(world, probed("readinessProbe", initialDelaySeconds=30))
        assert (told(world)["started"], told(world)["ready"], world.checks.sent) == (True, False, [])
        await pass_periods(world, 2)
        assert world.cluster.ready() == set()
        await pass_periods(world, 1)
        assert world.cluster.ready() == {"a"}

    play(act)


def test_a_failing_readiness_probe_takes_the_pod_out_and_a_success_brings_the_pod_back() -> None:
    async def act(world: World) -> None:
        await start(world, probed("readinessProbe"))
        assert world.cluster.ready() == {"a"}
        world.checks.failing[READY] = FAILED
        await pass_periods(world, 2)
        assert world.cluster.ready() == {"a"}  # the threshold is three
        await pass_periods(world, 1)
        assert world.cluster.ready() == set()
        assert "running" in told(world)["state"]
        assert ("a", "Unhealthy", f"Readiness probe failed: {FAILED}") in world.cluster.events
        await pass_periods(world, 10)
        assert (told(world)["restartCount"], world.base.calls) == (0, [("install", "orders:1")])
        world.checks.failing.clear()
        await pass_periods(world, 1)
        assert world.cluster.ready() == {"a"}

    play(act)


def test_a_long_failure_is_told_once_a_minute_after_the_threshold() -> None:
    async def act(world: World) -> None:
        await start(world, probed("readinessProbe", periodSeconds=1))
        world.checks.failing[READY] = FAILED
        await pass_periods(world, 123, 1)
        assert reasons(world).count("Unhealthy") == 3 + 2
        world.checks.failing.clear()
        await pass_periods(world, 1, 1)
        world.checks.failing[READY] = FAILED
        await pass_periods(world, 1, 1)
        assert reasons(world).count("Unhealthy") == 3 + 2 + 1

    play(act)


def test_a_check_without_an_answer_in_time_has_failed() -> None:
    async def act(world: World) -> None:
        world.checks.holds.clear()
        await start(world, probed("readinessProbe", timeoutSeconds=0.01, failureThreshold=1))
        (round_,) = next(iter(world.steward._prober._watches.values())).rounds.values()
        assert round_.task is not None
        await round_.task
        await world.settle()
        assert ("a", "Unhealthy", "Readiness probe failed: no answer within 0.01 s") in world.cluster.events
        world.checks.holds.set()
        await pass_periods(world, 1)
        assert world.cluster.ready() == {"a"}

    play(act)


async def _hear_list(world: World, health: str) -> None:
    world.base.health_of["orders"] = health
    await world.steward._questions.ask_list()
    await world.settle()


def test_without_a_probe_readiness_follows_the_health_in_the_words_of_the_base() -> None:
    async def act(world: World) -> None:
        await start(world, container("orders", "1"))
        for health, ready in (("DOWN", set()), ("UP", {"a"}), ("OUT_OF_SERVICE", set()), ("UNKNOWN", {"a"})):
            await _hear_list(world, health)
            assert world.cluster.ready() == ready
        assert told(world)["restartCount"] == 0

    play(act)


def test_a_readiness_probe_takes_the_place_of_the_health_in_the_words_of_the_base() -> None:
    async def act(world: World) -> None:
        await start(world, probed("readinessProbe"))
        await _hear_list(world, "DOWN")
        assert world.cluster.ready() == {"a"}

    play(act)


def test_a_refused_probe_is_told_and_counts_as_none() -> None:
    async def act(world: World) -> None:
        await start(world, container("orders", "1", readinessProbe={"exec": {"command": ["true"]}}))
        assert world.cluster.ready() == {"a"}
        assert reasons(world).count("ProbeRefused") == 1

    play(act)


def test_a_new_controller_leaves_a_pod_ready_and_goes_on_with_its_probes() -> None:
    async def act(world: World) -> None:
        await start(world, probed("startupProbe", "readinessProbe", "livenessProbe"))
        await pass_periods(world, 1)
        assert world.cluster.ready() == {"a"}
        await world.steward.rest()
        world.cluster.writes.clear()
        world.checks.sent.clear()
        world.steward = world.employ(BASE)
        world.steward.begin()
        await world.settle()
        assert world.cluster.ready() == {"a"}
        await pass_periods(world, 2)
        assert {READY, LIVE} == set(world.checks.sent)  # the startup is over
        assert [write for write in world.cluster.writes if write[0] == "pod status"] == []

    play(act)


# --- liveness --------------------------------------------------------------------------------------------------------


def test_a_failing_liveness_probe_starts_the_module_again() -> None:
    async def act(world: World) -> None:
        grace = {"terminationGracePeriodSeconds": 7}
        world.cluster.create_pod("a", probed("livenessProbe"), spec=grace)
        await world.settle()
        world.checks.failing[LIVE] = FAILED
        await pass_periods(world, 2)
        assert world.base.calls == [("install", "orders:1")]
        await pass_periods(world, 1)
        assert world.base.calls == [("install", "orders:1"), ("uninstall", "orders:1"), ("install", "orders:1")]
        assert world.base.drains == [7]
        assert reasons(world)[1:5] == ["Unhealthy", "Unhealthy", "Unhealthy", "Killing"]
        world.checks.failing.clear()
        await pass_periods(world, 1)
        assert world.cluster.ready() == {"a"}
        assert told(world)["restartCount"] == 1
        end = told(world)["lastState"]["terminated"]
        assert (end["exitCode"], end["reason"]) == (137, "Error")
        assert "failed its liveness probe" in end["message"]

    play(act)


def test_the_default_state_of_liveness_before_the_initial_delay_is_success() -> None:
    async def act(world: World) -> None:
        world.checks.failing[LIVE] = FAILED
        await start(world, probed("livenessProbe", initialDelaySeconds=25, failureThreshold=1))
        assert world.cluster.ready() == {"a"}
        await pass_periods(world, 2)
        assert told(world)["restartCount"] == 0
        await pass_periods(world, 1)
        assert told(world)["restartCount"] == 1

    play(act)


def test_restarts_back_off_as_those_of_a_kubelet_and_begin_anew_after_ten_minutes() -> None:
    async def act(world: World) -> None:
        await start(world, probed("livenessProbe", failureThreshold=1, periodSeconds=1, initialDelaySeconds=1))
        pauses = []
        for _ in range(8):
            world.checks.failing[LIVE] = FAILED
            installs = len(world.base.calls)
            await pass_periods(world, 1, 1)
            assert world.base.calls[installs] == ("uninstall", "orders:1")
            world.checks.failing.clear()
            waited = 0
            while len(world.base.calls) == installs + 1:
                assert told(world)["state"]["waiting"]["reason"] == "CrashLoopBackOff"
                await pass_periods(world, 1, 5)
                waited += 5
            pauses.append(waited)
        assert pauses == [0, 10, 20, 40, 80, 160, 300, 300]
        assert told(world)["restartCount"] == 8
        await pass_periods(world, 60, 10)
        world.checks.failing[LIVE] = FAILED
        await pass_periods(world, 1, 1)
        world.checks.failing.clear()
        await pass_periods(world, 1, 1)
        assert (told(world)["restartCount"], world.cluster.ready()) == (9, {"a"})

    play(act)


def test_the_count_of_restarts_goes_on_under_a_new_controller() -> None:
    async def act(world: World) -> None:
        await start(world, probed("livenessProbe", failureThreshold=1, initialDelaySeconds=10))
        for count in (1, 2, 3):
            world.checks.failing[LIVE] = FAILED
            await pass_periods(world, 1)
            world.checks.failing.clear()
            await pass_periods(world, 1)
            assert told(world)["restartCount"] == count
            await world.steward.rest()
            world.steward = world.employ(BASE)
            world.steward.begin()
            await world.settle()
            assert told(world)["restartCount"] == count
            assert world.cluster.ready() == {"a"}

    play(act)


def test_a_changed_module_has_no_pause_of_the_former_one() -> None:
    async def act(world: World) -> None:
        await start(world, probed("livenessProbe", failureThreshold=1))
        world.checks.failing[LIVE] = FAILED
        await pass_periods(world, 2)
        assert told(world)["state"]["waiting"]["reason"] == "CrashLoopBackOff"
        world.checks.failing.clear()
        pod = world.cluster.pods["a"]
        changed = {**probed("livenessProbe"), "image": "https://repo.example/mended.zip"}
        world.cluster.pods["a"] = {**pod, "spec": {**pod["spec"], "containers": [changed]}}
        await world.settle()
        assert world.cluster.ready() == {"a"}

    play(act)


def test_an_uninstall_that_fails_after_a_fall_is_tried_again() -> None:
    async def act(world: World) -> None:
        await start(world, probed("livenessProbe", failureThreshold=1))
        world.checks.failing[LIVE] = FAILED
        world.base.failing["uninstall orders:1"] = Answer(Outcome.REFUSED, "UninstallFailed", "no")
        await pass_periods(world, 1)
        assert world.base.calls[1:] == [("uninstall", "orders:1")]
        assert world.cluster.ready() == set()
        del world.base.failing["uninstall orders:1"]
        world.checks.failing.clear()
        await pass_periods(world, 2, 1)
        assert (told(world)["restartCount"], world.cluster.ready()) == (1, {"a"})

    play(act)


def test_pods_that_share_a_module_start_it_again_once() -> None:
    async def act(world: World) -> None:
        world.cluster.create_pod("a", probed("livenessProbe", failureThreshold=2))
        world.cluster.create_pod("b", probed("livenessProbe", failureThreshold=2))
        await world.settle()
        world.checks.failing[LIVE] = FAILED
        await pass_periods(world, 2)
        world.checks.failing.clear()
        await pass_periods(world, 3)
        assert world.base.calls == [("install", "orders:1"), ("uninstall", "orders:1"), ("install", "orders:1")]
        assert [told(world, name)["restartCount"] for name in ("a", "b")] == [1, 1]

    play(act)


# --- startup ---------------------------------------------------------------------------------------------------------


def test_all_other_probes_are_disabled_until_the_startup_probe_succeeds() -> None:
    async def act(world: World) -> None:
        world.checks.failing[STARTUP] = FAILED
        await start(world, probed("startupProbe", "readinessProbe", "livenessProbe", failureThreshold=9))
        await pass_periods(world, 4)
        assert set(world.checks.sent) == {STARTUP}
        assert (told(world)["started"], told(world)["ready"]) == (False, False)
        world.checks.failing.clear()
        await pass_periods(world, 1)
        assert (told(world)["started"], world.cluster.ready()) == (True, {"a"})
        world.checks.sent.clear()
        await pass_periods(world, 3)
        assert set(world.checks.sent) == {READY, LIVE}

    play(act)


def test_a_failing_startup_probe_starts_the_module_again() -> None:
    async def act(world: World) -> None:
        world.checks.failing[STARTUP] = FAILED
        await start(world, probed("startupProbe"))
        await pass_periods(world, 3)
        assert told(world)["restartCount"] == 1
        assert "failed its startup probe" in told(world)["lastState"]["terminated"]["message"]

    play(act)


# --- other lives -----------------------------------------------------------------------------------------------------


def _switch(world: World) -> None:
    world.cluster.create_pod("b", container("orders", "2"))


def _delete(world: World) -> None:
    world.cluster.delete_pod("a")


@pytest.mark.parametrize("change", [_switch, _delete])
def test_a_module_that_answers_no_more_is_not_probed(change: Callable[[World], None]) -> None:
    async def act(world: World) -> None:
        await start(world, probed("livenessProbe", failureThreshold=1))
        change(world)
        await world.settle()
        world.checks.sent.clear()
        world.checks.failing[LIVE] = FAILED
        await pass_periods(world, 3)
        assert world.checks.sent == []
        assert ("uninstall", "orders:1") not in world.base.calls[2:]

    play(act)


def test_the_time_of_a_start_is_that_of_the_base_whatever_the_clock_of_the_controller() -> None:
    async def act(world: World) -> None:
        await start(world, probed("livenessProbe"))
        await world.steward._questions.ask_list()
        await world.settle()
        assert told(world)["state"]["running"]["startedAt"] == "1970-01-01T00:01:40Z"
        assert told(world)["restartCount"] == 0

    play(act)
