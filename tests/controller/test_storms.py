"""Random lives of Pods with probes, revisions and failures: in the end all that should run runs, and nothing else."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from tests.controller.documents import container
from tests.controller.world import BASE, World, play

from koupleless.controller.tunnels.answers import Answer, Outcome

if TYPE_CHECKING:
    from collections.abc import Callable

READY, LIVE = 8082, 8083
FAILED = "HTTP probe failed with statuscode: 500"
REFUSED = Answer(Outcome.REFUSED, "StartFailed", "no such table")


class Storm:
    """One random run. Counts of restarts never go back, and a base has at most one answering version of a name."""

    def __init__(self, world: World, seed: int) -> None:
        self.world = world
        self.random = random.Random(seed)
        self.starts = 0
        self.pods = 0
        self.counts: dict[tuple[str, str], int] = {}

    def create(self) -> None:
        self.pods += 1
        revision = self.random.choice(["r1", "r2", "r3"])
        owner = {"kind": "ReplicaSet", "name": f"shop-{revision}", "uid": f"uid-{revision}", "controller": True}
        metadata = {"labels": {"pod-template-hash": revision}, "ownerReferences": [owner]}
        names = self.random.sample(["orders", "prices"], self.random.randint(1, 2))
        probes: dict[str, Any] = {
            kind: {"httpGet": {"port": port}, "periodSeconds": 1, "failureThreshold": self.random.randint(1, 2)}
            for kind, port in (("readinessProbe", READY), ("livenessProbe", LIVE))
            if self.random.random() < 0.5
        }
        version = self.random.choice(["1", "1", "2"])
        restart = self.random.choice(["Always", "Always", "Always", "OnFailure"])
        modules = [container(name, version, **probes) for name in names]
        spec = {"restartPolicy": restart}
        self.world.cluster.create_pod(f"pod-{self.pods}", *modules, metadata=metadata, spec=spec)

    def delete(self) -> None:
        there = [name for name, pod in self.world.cluster.pods.items() if "deletionTimestamp" not in pod["metadata"]]
        if there:
            self.world.cluster.delete_pod(self.random.choice(there))

    def fail_probe(self) -> None:
        self.world.checks.failing[self.random.choice([READY, LIVE])] = FAILED

    def fail_operation(self) -> None:
        verb, name = self.random.choice(["install", "uninstall", "restart"]), self.random.choice(["orders", "prices"])
        self.world.base.failing[f"{verb} {name}:1"] = REFUSED

    def mend(self) -> None:
        self.world.checks.failing.clear()
        self.world.base.failing.clear()

    def restart_base(self) -> None:
        self.starts += 1
        self.world.base.there.clear()
        self.world.steward.hear(replace(BASE, start=f"start-{self.starts}"))

    def toggle_reach(self) -> None:
        self.world.base.is_reachable = not self.world.base.is_reachable

    async def replace_controller(self) -> None:
        await self.world.steward.rest()
        self.world.steward = self.world.employ(self.world.steward.news.base)
        self.world.steward.begin()

    async def pass_time(self, seconds: float) -> None:
        world = self.world
        world.steward.hear(world.steward.news.base)
        await world.pass_time(seconds)
        world.steward._questions.ask_for_list()
        await world.settle()
        self.check()

    def check(self) -> None:
        active = [key.name for key, state in self.world.base.there.items() if state == "ACTIVATED"]
        assert len(active) == len(set(active))
        for name, pod in self.world.cluster.pods.items():
            for one in pod.get("status", {}).get("containerStatuses", ()):
                place = name, one["name"]
                assert one["restartCount"] >= self.counts.get(place, 0)
                self.counts[place] = one["restartCount"]

    async def run(self) -> None:
        acts: list[Callable[[], None]] = [
            self.create, self.create, self.delete, self.fail_probe, self.fail_operation, self.mend, self.restart_base,
            self.toggle_reach,
        ]  # fmt: skip
        for _ in range(25):
            self.random.choice(acts)()
            if self.random.random() < 0.1:
                await self.replace_controller()
            await self.pass_time(self.random.choice([0.1, 1, 5]))
        self.mend()
        self.world.base.is_reachable = True
        for _ in range(140):
            await self.pass_time(10)
        self.judge()

    def judge(self) -> None:
        """Compare the end with the Pods: the newest Pod decides on the version that answers."""
        pods = self.world.cluster.pods
        assert not [name for name, pod in pods.items() if "deletionTimestamp" in pod["metadata"]]
        running = {name: pod for name, pod in pods.items() if pod["spec"].get("restartPolicy") == "Always"}
        ended = pods.keys() - running.keys()
        assert {pods[name]["status"]["phase"] for name in ended} <= {"Succeeded"}
        wanted = {
            f"{one['name']}:{one['env'][0]['value']}" for pod in running.values() for one in pod["spec"]["containers"]
        }
        assert {str(key) for key in self.world.base.there} == wanted
        answering = {str(key) for key, state in self.world.base.there.items() if state == "ACTIVATED"}
        assert {key.partition(":")[0] for key in answering} == {key.partition(":")[0] for key in wanted}
        ready = {
            name
            for name, pod in running.items()
            if all(f"{one['name']}:{one['env'][0]['value']}" in answering for one in pod["spec"]["containers"])
        }
        assert self.world.cluster.ready() == ready


@pytest.mark.parametrize("seed", range(8))
def test_in_the_end_all_that_should_run_runs_and_nothing_else(seed: int) -> None:
    async def act(world: World) -> None:
        await Storm(world, seed).run()

    play(act)
