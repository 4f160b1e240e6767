"""Workloads of Kubernetes on bases, on a real control plane: no base lacks its module during a rollout."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from tests.controller.documents import container
from tests.controller.floor import APPS, BATCH, Floor, floor_on, is_ready, play

from koupleless.controller.tunnels.answers import Answer, Outcome
from koupleless.controller.vpods.plan import Claims
from koupleless.controller.vpods.status import Facts, is_told, status_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.kube.plane import Access

    from koupleless.controller.controller import Controller

pytestmark = pytest.mark.kube


@pytest.fixture
def floor(control_plane: Access, namespace: str) -> Iterator[Floor]:
    with floor_on(control_plane, namespace, bases=3) as floor:
        yield floor


def containers(*wanted: dict[str, Any]) -> dict[str, Any]:
    return {"spec": {"template": {"spec": {"containers": list(wanted)}}}}


def test_no_base_lacks_its_module_while_a_deployment_changes(floor: Floor) -> None:
    async def act() -> None:
        async with floor.controlled():
            path = await floor.deploy()
            assert floor.versions() == ["1", "1", "1"]

            await floor.patch(path, containers(container("orders", "2")))  # as `kubectl set image` and `set env`
            await floor.soon(lambda: floor.is_rolled_out(path))
            assert floor.versions() == ["2", "2", "2"]

            await floor.patch(path, containers(container("orders", "1")))  # as `kubectl rollout undo`
            await floor.soon(lambda: floor.is_rolled_out(path))
            assert floor.versions() == ["1", "1", "1"]

            mark = {"kubectl.kubernetes.io/restartedAt": "now"}
            await floor.patch(path, {"spec": {"template": {"metadata": {"annotations": mark}}}})  # `rollout restart`
            await floor.soon(lambda: floor.is_rolled_out(path))
            assert floor.versions() == ["1", "1", "1"]
            for base in floor.bases.values():
                assert [key for verb, key in base.calls if verb == "restart"] == ["orders:1"]

            assert floor.gaps() == []
            await floor.soon(lambda: floor.holds(3, version="1"))

            await floor.patch(path, {"spec": {"replicas": 1}})
            await floor.soon(lambda: floor.holds(1))
            await floor.patch(path, {"spec": {"replicas": 3}})
            await floor.soon(lambda: floor.holds(3, version="1"))
            await floor.soon(lambda: floor.is_rolled_out(path))

    play(act)


def test_a_version_that_does_not_start_changes_nothing_and_is_told_to_the_deployment(floor: Floor) -> None:
    async def act() -> None:
        for base in floor.bases.values():
            base.failing["install orders:2"] = Answer(Outcome.REFUSED, "StartFailed", "no such table: orders")
        async with floor.controlled():
            path = await floor.deploy(minReadySeconds=1, progressDeadlineSeconds=3)
            await floor.patch(path, containers(container("orders", "2")))
            await floor.soon(lambda: _has_failed(floor, path))
            assert floor.versions() == ["1", "1", "1"]
            await floor.patch(path, containers(container("orders", "1")))
            await floor.soon(lambda: floor.is_rolled_out(path))
            assert floor.gaps() == []

    play(act)


def test_an_update_that_is_undone_half_way_goes_back_on_the_bases_that_have_the_new_version(floor: Floor) -> None:
    async def act() -> None:
        async with floor.controlled():
            path = await floor.deploy()
            await floor.patch(path, {"spec": {"minReadySeconds": 500}})  # the time to look at a version
            await floor.patch(path, containers(container("orders", "2")))
            await floor.soon(lambda: _has_ready_pods(floor, 1, "2"))
            undone = containers(container("orders", "1"))["spec"]
            await floor.patch(path, {"spec": {"minReadySeconds": 0, **undone}})
            await floor.soon(lambda: _has_ready_pods(floor, 3, "1"))
            await floor.soon(lambda: floor.holds(3, version="1"))
            assert floor.gaps() == []

    play(act)


async def _has_ready_pods(floor: Floor, count: int, version: str) -> bool:
    """Whether at least so many Pods of a version are ready, and no others are there if all bases have one."""
    pods = await floor.pods()
    ready = [pod for pod in pods if is_ready(pod) and pod["spec"]["containers"][0]["env"][0]["value"] == version]
    return len(ready) >= count and (count < len(floor.bases) or len(pods) == count)


async def _has_failed(floor: Floor, path: str) -> bool:
    found = await floor.get(path) or {}
    conditions = {one["type"]: one for one in found["status"].get("conditions", ())}
    return bool(conditions["Progressing"].get("reason") == "ProgressDeadlineExceeded")


def test_a_daemon_set_with_a_surge_leaves_no_gap(floor: Floor) -> None:
    async def act() -> None:
        async with floor.controlled():
            path = f"{APPS}/{floor.namespace}/daemonsets"
            await floor.create(
                path,
                {
                    "metadata": {"name": "shop"},
                    "spec": {
                        "selector": {"matchLabels": {"app": "shop"}},
                        "updateStrategy": {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
                        "template": floor.template(one_a_base=False),
                    },
                },
            )
            await floor.soon(lambda: floor.holds(3, version="1"))
            await floor.patch(f"{path}/shop", containers(container("orders", "2")))
            await floor.soon(lambda: floor.holds(3, version="2"))
            assert floor.gaps() == []

    play(act)


def test_a_stateful_set_replaces_its_pods_in_order(floor: Floor) -> None:
    async def act() -> None:
        async with floor.controlled():
            path = f"{APPS}/{floor.namespace}/statefulsets"
            apart = floor.template(container("orders", "1"), one_a_base=True)
            await floor.create(
                path,
                {
                    "metadata": {"name": "shop"},
                    "spec": {
                        "replicas": 2,
                        "serviceName": "shop",
                        "selector": {"matchLabels": {"app": "shop"}},
                        "template": apart,
                    },
                },
            )
            await floor.soon(lambda: floor.holds(2, version="1"))
            await floor.patch(f"{path}/shop", containers(container("orders", "2")))
            await floor.soon(lambda: floor.holds(2, version="2"))
            assert {pod["metadata"]["name"] for pod in await floor.pods()} == {"shop-0", "shop-1"}

    play(act)


def test_a_job_runs_a_module_to_completion_and_a_failing_one_fails(floor: Floor) -> None:
    async def act() -> None:
        for base in floor.bases.values():
            base.failing["install prices:1"] = Answer(Outcome.REFUSED, "StartFailed", "no such table: prices")
        async with floor.controlled():
            for name in ("orders", "prices"):
                template = floor.template(container(name, "1"), one_a_base=False, restartPolicy="Never")
                job = {"metadata": {"name": name}, "spec": {"backoffLimit": 0, "template": template}}
                await floor.create(f"{BATCH}/{floor.namespace}/jobs", job)
            await floor.soon(lambda: _job_is(floor, "orders", "Complete"))
            await floor.soon(lambda: floor.holds(0))
            await floor.soon(lambda: _job_is(floor, "prices", "Failed"))

    play(act)


async def _job_is(floor: Floor, name: str, kind: str) -> bool:
    found = await floor.get(f"{BATCH}/{floor.namespace}/jobs/{name}") or {}
    return any((one["type"], one["status"]) == (kind, "True") for one in found["status"].get("conditions", ()))


def test_containers_of_a_pod_have_one_fate_and_a_drained_base_hands_its_modules_on(floor: Floor) -> None:
    async def act() -> None:
        async with floor.controlled():
            path = await floor.deploy(container("orders", "1"), container("prices", "1"), replicas=2)
            first = next(pod for pod in await floor.pods())
            node = first["spec"]["nodeName"]
            await floor.patch(f"/api/v1/nodes/{node}", {"spec": {"unschedulable": True}})  # as `kubectl cordon`
            eviction = {"metadata": {"name": first["metadata"]["name"]}}
            where = f"/api/v1/namespaces/{floor.namespace}/pods/{first['metadata']['name']}/eviction"
            await floor.create(where, {"apiVersion": "policy/v1", "kind": "Eviction", **eviction})  # as `drain`
            await floor.soon(lambda: _is_empty(floor, node))  # before that, the counts are those from before
            await floor.soon(lambda: floor.is_rolled_out(path))
            await floor.soon(lambda: floor.holds(2))
            await floor.soon(lambda: floor.holds(2, name="prices"))
            assert all(pod["spec"]["nodeName"] != node for pod in await floor.pods())
            assert [sorted(base.answering()) for base in floor.bases.values() if base.there] == [
                ["orders", "prices"],
                ["orders", "prices"],
            ]

    play(act)


async def _is_empty(floor: Floor, node: str) -> bool:
    return all(pod["spec"].get("nodeName") != node for pod in await floor.pods())


def test_a_pod_moves_with_its_base_to_another_address(floor: Floor) -> None:
    async def act() -> None:
        async with floor.controlled() as controller:
            identity = next(iter(floor.bases))
            await floor.create_pod("a", identity, container("orders", "1"))
            await floor.soon(lambda: floor.is_pod_ready("a"))
            floor.bases[identity].there.clear()
            controller.hear(replace(floor.announced[identity], ip="10.0.0.99", start="start-2"))
            await floor.soon(lambda: _is_at(floor, "10.0.0.99"))
            await floor.soon(lambda: floor.is_pod_ready("a"))
            (pod,) = await floor.pods()
            assert not any("reason" in one for one in pod["status"]["conditions"] if one["status"] == "True")
            await floor.soon(lambda: _is_settled(floor, controller, identity))

    play(act)


async def _is_settled(floor: Floor, controller: Controller, identity: str) -> bool:
    """Whether the controller has no status to write any more, as the API server has written each."""
    steward = controller.fleet._stewards[floor.node(identity)]
    read = await steward._read_pods()
    facts = Facts(steward.news.base.ip, steward.news.actual, Claims.of(read), steward.news.attempts)
    return all(is_told(status_of(one, facts, now=0), one.pod) for one in read)


async def _is_at(floor: Floor, ip: str) -> bool:
    (pod,) = await floor.pods()
    status = pod["status"]
    return bool(status["podIPs"] == status["hostIPs"] == [{"ip": ip}] and status["podIP"] == status["hostIP"] == ip)
