"""Rollouts in batches on a real control plane, with bases in memory: exactly the Pods of a batch are let through."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import pytest
from tests.controller.documents import container
from tests.controller.floor import Bases, Floor, floor_on, is_ready, play

from koupleless.controller.bases.steward import Habits
from koupleless.controller.batches.wishes import GATE
from koupleless.controller.controller import Choices, Controller
from koupleless.controller.names import BASE_IDENTITY, ENV, REVISION

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from tests.kube.plane import Access

pytestmark = pytest.mark.kube

ROLLOUT = "rollout.koupleless.io/"


@pytest.fixture
def floor(control_plane: Access, namespace: str) -> Iterator[Floor]:
    with floor_on(control_plane, namespace, bases=5) as floor:
        yield floor


def annotated(**texts: str | None) -> dict[str, Any]:
    return {"metadata": {"annotations": {ROLLOUT + name.replace("_", "-"): text for name, text in texts.items()}}}


def update(version: str, **texts: str | None) -> dict[str, Any]:
    return {**annotated(**texts), "spec": {"template": {"spec": {"containers": [container("orders", version)]}}}}


async def deploy(floor: Floor, replicas: int) -> str:
    """Deploy version 1 without batches, but with the gate."""
    template = floor.template()
    template["spec"]["schedulingGates"] = [{"name": GATE}]
    apart = {"labelSelector": {"matchLabels": {"app": "shop"}}, "topologyKey": BASE_IDENTITY}
    preferred = [{"weight": 100, "podAffinityTerm": apart}]  # rather to a base that lacks the module
    template["spec"]["affinity"]["podAntiAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"] = preferred
    path = f"/apis/apps/v1/namespaces/{floor.namespace}/deployments"
    spec = {
        "replicas": replicas,
        "selector": {"matchLabels": {"app": "shop"}},
        "strategy": {"rollingUpdate": {"maxSurge": 2, "maxUnavailable": 0}},
        "template": template,
    }
    await floor.create(path, {"metadata": {"name": "shop", "labels": {ENV: floor.env}}, "spec": spec})
    await floor.soon(lambda: floor.is_rolled_out(f"{path}/shop"))
    return f"{path}/shop"


async def progress(floor: Floor, path: str) -> str:
    found = await floor.get(path) or {}
    return str((found["metadata"].get("annotations") or {}).get(ROLLOUT + "progress", ""))


async def undo(floor: Floor, path: str) -> None:
    """Go back as `kubectl rollout undo` does, which replaces the annotations by those of the ReplicaSet."""
    found = await floor.get(path) or {}
    sets = (await floor.get(f"/apis/apps/v1/namespaces/{floor.namespace}/replicasets") or {})["items"]
    before = sorted(sets, key=lambda one: int(one["metadata"]["annotations"][REVISION]))[-2]
    own = {name: text for name, text in found["metadata"]["annotations"].items() if name == REVISION}
    kept = {name: text for name, text in before["metadata"]["annotations"].items() if "deployment.kube" not in name}
    template = before["spec"]["template"]
    del template["metadata"]["labels"]["pod-template-hash"]
    operations = [
        {"op": "replace", "path": "/spec/template", "value": template},
        {"op": "replace", "path": "/metadata/annotations", "value": {**kept, **own}},
    ]
    answer = await floor.ask("PATCH", path, json=operations, headers={"Content-Type": "application/json-patch+json"})
    assert answer.is_success, answer.text


async def is_waiting(floor: Floor, path: str, batch: int, count: int) -> bool:
    told = await progress(floor, path)
    return told == f"batch {batch} of {count} is ready, waiting for {ROLLOUT}confirmed={batch}"


def installs(floor: Floor, version: str) -> int:
    """Count the installs of a version ever made."""
    return sum(base.calls.count(("install", f"orders:{version}")) for base in floor.bases.values())


async def spread(floor: Floor, **counts: int) -> bool:
    """Whether so many bases answer with a version, as in ``v1=2``."""
    found = floor.versions()
    return all(found.count(version[1:]) == count for version, count in counts.items())


def test_a_batch_holds_until_it_is_confirmed_and_a_rollback_goes_at_once(floor: Floor) -> None:
    async def act() -> None:
        async with floor.controlled():
            path = await deploy(floor, 2)
            await floor.patch(path, update("2", batches="2", confirm="true"))
            await floor.soon(lambda: is_waiting(floor, path, 1, 2))
            assert (installs(floor, "2"), floor.versions().count("2")) == (1, 1)

            await floor.patch(path, {"spec": {"replicas": 3}})  # as an autoscaler, in the pause
            await floor.soon(lambda: spread(floor, v2=2))
            await floor.soon(lambda: is_waiting(floor, path, 1, 2))
            assert installs(floor, "2") == 2

            await floor.patch(path, annotated(confirmed="1"))
            await floor.soon(lambda: floor.is_rolled_out(path))
            await floor.soon(lambda: floor.holds(3, version="2"))
            assert await progress(floor, path) == "batch 2 of 2"

            await undo(floor, path)
            await floor.soon(lambda: floor.is_rolled_out(path))
            await floor.soon(lambda: floor.holds(3, version="1"))
            await undo(floor, path)  # to version 2, with the annotations of then
            await floor.soon(lambda: floor.is_rolled_out(path))
            await floor.soon(lambda: floor.holds(3, version="2"))

    play(act)


def test_a_rollback_in_the_middle_and_bases_that_fail_in_a_pause(floor: Floor) -> None:
    async def act() -> None:
        async with floor.controlled():
            path = await deploy(floor, 5)
            await floor.patch(path, update("2", beta="true"))
            await floor.soon(lambda: is_waiting(floor, path, 1, 2))
            assert (installs(floor, "2"), floor.versions().count("2")) == (1, 1)

            await lose_pod(floor, "2")  # as if the base were lost
            await floor.soon(lambda: spread(floor, v1=4, v2=1))
            assert installs(floor, "2") == 2
            await lose_pod(floor, "1")
            await floor.soon(lambda: are_bound(floor, "1", 4))

            await floor.patch(path, update("1"))
            await floor.soon(lambda: floor.is_rolled_out(path))
            assert floor.versions() == ["1"] * 5
            assert installs(floor, "2") == 2

    play(act)


async def lose_pod(floor: Floor, version: str) -> None:
    pod = next(pod for pod in await floor.pods() if is_of(pod, version) and is_ready(pod))
    answer = await floor.ask("DELETE", f"/api/v1/namespaces/{floor.namespace}/pods/{pod['metadata']['name']}")
    assert answer.is_success
    where = f"/api/v1/namespaces/{floor.namespace}/pods/{pod['metadata']['name']}"

    async def is_gone() -> bool:
        return await floor.get(where) is None

    await floor.soon(is_gone)


async def are_bound(floor: Floor, version: str, count: int) -> bool:
    """Whether so many Pods of a version are there, and each is bound to a Node."""
    return [bool(pod["spec"].get("nodeName")) for pod in await floor.pods() if is_of(pod, version)] == [True] * count


def is_of(pod: dict[str, Any], version: str) -> bool:
    return bool(pod["spec"]["containers"][0]["env"][0]["value"] == version)


@contextlib.asynccontextmanager
async def other(floor: Floor) -> AsyncIterator[Controller]:
    """Run one more controller of the same bases."""
    choices = Choices("two", Habits(env=floor.env))
    async with Controller(floor.config, Bases(floor.bases), choices) as controller:
        await controller.ready()
        for base in floor.announced.values():
            controller.hear(base)
        yield controller


async def told(floor: Floor) -> list[dict[str, Any]]:
    found = await floor.get(f"/api/v1/namespaces/{floor.namespace}/events") or {}
    return [one for one in found["items"] if one["involvedObject"]["kind"] == "Deployment"]


def test_two_controllers_and_a_restart_let_no_more_through_than_one(floor: Floor) -> None:
    async def act() -> None:
        async with floor.controlled():
            async with other(floor):
                path = await deploy(floor, 5)
                await floor.patch(path, {"spec": {"strategy": {"rollingUpdate": {"maxSurge": 5}}}})
                await floor.patch(path, update("2", batches="3", confirm="true"))
                await floor.soon(lambda: is_waiting(floor, path, 1, 3))
                assert installs(floor, "2") == 2
            await floor.patch(path, annotated(confirmed="1"))
            await floor.soon(lambda: is_waiting(floor, path, 2, 3))
            assert installs(floor, "2") == 4
        async with floor.controlled():
            assert await is_waiting(floor, path, 2, 3)
            await floor.patch(path, annotated(confirmed="2"))
            await floor.soon(lambda: floor.is_rolled_out(path))
            assert floor.versions() == ["2"] * 5
            assert floor.gaps() == []
            events = [one["reason"] for one in await told(floor)]
            assert events.count("BatchReady") == 2

    play(act)


def test_a_second_deployment_brings_a_version_to_chosen_bases_and_takes_it_back(floor: Floor) -> None:
    async def act() -> None:
        async with floor.controlled():
            await floor.deploy()
            chosen, *_ = floor.bases
            await floor.patch(f"/api/v1/nodes/{floor.node(chosen)}", {"metadata": {"labels": {"release": "gray"}}})
            template = floor.template(container("orders", "2"))
            template["metadata"]["labels"]["app"] = "gray"
            template["spec"] |= {"nodeSelector": {"release": "gray", ENV: floor.env}, "affinity": {}}
            spec = {"replicas": 1, "selector": {"matchLabels": {"app": "gray"}}, "template": template}
            path = f"/apis/apps/v1/namespaces/{floor.namespace}/deployments"
            await floor.create(path, {"metadata": {"name": "gray"}, "spec": spec})
            await floor.soon(lambda: floor.is_rolled_out(f"{path}/gray"))
            assert floor.versions() == ["2", "1", "1", "1", "1"]

            assert (await floor.ask("DELETE", f"{path}/gray")).is_success
            await floor.soon(lambda: spread(floor, v1=5))
            assert floor.gaps() == []

    play(act)
