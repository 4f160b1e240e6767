"""Lives of modules on a real control plane: probes and Services, failures of Jobs, evictions and disruption budgets."""

from __future__ import annotations

import asyncio
import functools
from typing import TYPE_CHECKING, Any

import pytest
from tests.controller.documents import container
from tests.controller.floor import BATCH, Floor, floor_on, play
from tests.controller.world import MemoryChecks

from koupleless.controller.tunnels.answers import Answer, Outcome

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.kube.plane import Access

pytestmark = pytest.mark.kube

READY, LIVE = 8082, 8083
_TOO_MANY = 429


@pytest.fixture
def floor(control_plane: Access, namespace: str) -> Iterator[Floor]:
    with floor_on(control_plane, namespace, bases=3) as floor:
        yield floor


def probe(port: int, **members: Any) -> dict[str, Any]:
    return {"httpGet": {"port": port}, "periodSeconds": 1, "failureThreshold": 1, **members}


async def endpoints(floor: Floor) -> list[bool]:
    """Return whether each endpoint of the Service is ready."""
    slices = await floor.get(f"/apis/discovery.k8s.io/v1/namespaces/{floor.namespace}/endpointslices") or {}
    return [one["conditions"]["ready"] for part in slices["items"] for one in part["endpoints"] or ()]


async def restarts(floor: Floor) -> int:
    (pod,) = await floor.pods()
    return sum(one["restartCount"] for one in pod["status"].get("containerStatuses", ()))


async def reasons(floor: Floor) -> set[str]:
    found = await floor.get(f"/api/v1/namespaces/{floor.namespace}/events") or {}
    return {event["reason"] for event in found["items"]}


def test_a_failing_readiness_leaves_the_service_and_a_failing_liveness_starts_the_module_again(floor: Floor) -> None:
    async def act() -> None:
        checks = MemoryChecks()
        module = container("orders", "1", readinessProbe=probe(READY), livenessProbe=probe(LIVE, initialDelaySeconds=1))
        async with floor.controlled(checks=checks):
            service = {"metadata": {"name": "shop"}, "spec": {"selector": {"app": "shop"}, "ports": [{"port": 80}]}}
            await floor.create(f"/api/v1/namespaces/{floor.namespace}/services", service)
            await floor.deploy(module, replicas=1)
            await floor.soon(lambda: _is(endpoints(floor), [True]))
            checks.failing[READY] = "HTTP probe failed with statuscode: 503"
            await floor.soon(lambda: _is(endpoints(floor), [False]))
            del checks.failing[READY]
            await floor.soon(lambda: _is(endpoints(floor), [True]))
            assert await restarts(floor) == 0

            checks.failing[LIVE] = "HTTP probe failed with statuscode: 500"
            await floor.soon(lambda: _is(restarts(floor), 1))
            checks.failing.clear()
            await floor.soon(lambda: _is(endpoints(floor), [True]))
            (pod,) = await floor.pods()
            (told,) = pod["status"]["containerStatuses"]
            assert told["lastState"]["terminated"]["exitCode"] == 137
            await floor.soon(lambda: _has(reasons(floor), {"Unhealthy", "Killing"}))

    play(act)


def test_a_job_that_tries_again_ends_at_its_backoff_limit(floor: Floor) -> None:
    async def act() -> None:
        for base in floor.bases.values():
            base.failing["install prices:1"] = Answer(Outcome.REFUSED, "StartFailed", "no such table: prices")
        async with floor.controlled():
            modules = [container("orders", "1"), container("prices", "1")]
            template = floor.template(*modules, one_a_base=False, restartPolicy="OnFailure")
            job = {"metadata": {"name": "shop"}, "spec": {"backoffLimit": 2, "template": template}}
            await floor.create(f"{BATCH}/{floor.namespace}/jobs", job)
            await floor.soon(lambda: _has_failed(floor))
            await floor.soon(lambda: floor.holds(0))

    play(act)


async def _has_failed(floor: Floor) -> bool:
    found = await floor.get(f"{BATCH}/{floor.namespace}/jobs/shop") or {}
    reasons = {one["type"]: one["reason"] for one in found["status"].get("conditions", ()) if one["status"] == "True"}
    return bool(reasons.get("Failed") == "BackoffLimitExceeded")


def test_a_drain_keeps_a_disruption_budget(floor: Floor) -> None:
    async def act() -> None:
        async with floor.controlled():
            await floor.deploy(replicas=2)
            budget = {"metadata": {"name": "shop"}}
            spec = {"minAvailable": 1, "selector": {"matchLabels": {"app": "shop"}}}
            await floor.create(
                f"/apis/policy/v1/namespaces/{floor.namespace}/poddisruptionbudgets", {**budget, "spec": spec}
            )
            counts: list[int] = []
            watching = asyncio.create_task(_count_answering(floor, counts))
            drained = [pod["spec"]["nodeName"] for pod in await floor.pods()]
            for node in drained:
                await _drain(floor, node)
            await floor.soon(lambda: _is(_nodes_of_ready_pods(floor, drained), (1, 0)))
            watching.cancel()
            assert min(counts) >= 1

    play(act)


async def _drain(floor: Floor, node: str) -> None:
    """Do as `kubectl drain`: cordon, then evict each Pod, again and again while the budget forbids that."""
    await floor.patch(f"/api/v1/nodes/{node}", {"spec": {"unschedulable": True}})
    for pod in await floor.pods():
        if pod["spec"].get("nodeName") == node:
            await floor.soon(functools.partial(_evict, floor, pod["metadata"]["name"]))
    await floor.soon(lambda: _is_empty(floor, node))


async def _evict(floor: Floor, name: str) -> bool:
    path = f"/api/v1/namespaces/{floor.namespace}/pods/{name}/eviction"
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}}
    answer = await floor.ask("POST", path, json=eviction)
    assert answer.is_success or answer.status_code == _TOO_MANY, answer.text
    return answer.is_success


async def _is_empty(floor: Floor, node: str) -> bool:
    return all(pod["spec"].get("nodeName") != node for pod in await floor.pods())


async def _nodes_of_ready_pods(floor: Floor, drained: list[str]) -> tuple[int, int]:
    """Return the number of ready Pods elsewhere, and of Pods on drained Nodes."""
    pods = await floor.pods()
    ready = [
        pod
        for pod in pods
        if any((one["type"], one["status"]) == ("Ready", "True") for one in pod["status"].get("conditions", ()))
    ]
    return len(ready), len([pod for pod in pods if pod["spec"].get("nodeName") in drained])


async def _count_answering(floor: Floor, counts: list[int]) -> None:
    """Note the number of bases that answer for the module, again and again."""
    while True:
        counts.append(len([version for version in floor.versions() if version]))
        await asyncio.sleep(0.005)


async def _is(found: Any, expected: object) -> bool:
    return bool(await found == expected)


async def _has(found: Any, expected: set[str]) -> bool:
    return bool(expected <= await found)
