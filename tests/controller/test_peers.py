"""Deployments that follow bases: whom they mean, the baseline of a new base, and replicas on an API server."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import pytest
from tests.controller.test_on_cluster import Scene, play, scene

from koupleless.controller.peers.deployment import Deployment, baseline
from koupleless.controller.vnodes.base import BaseState

__all__ = ["scene"]

CLUSTER = "base.koupleless.io/cluster-name"
STRATEGY = "virtual-kubelet.koupleless.io/strategy"
ENV = "virtual-kubelet.koupleless.io/env"


def document(
    name: str = "orders", *, labels: dict[str, str] | None = None, created: int = 0, **template: Any
) -> dict[str, Any]:
    env = [{"name": "BIZ_VERSION", "value": "1"}]
    containers = [{"name": name, "image": f"https://repo.example/{name}.zip", "env": env}]
    return {
        "metadata": {
            "namespace": "shop",
            "name": name,
            "creationTimestamp": f"2026-01-01T00:00:{created:02}Z",
            "labels": {STRATEGY: "peer"} if labels is None else labels,
        },
        "spec": {"template": {"spec": {"containers": containers, **template}}},
    }


def affinity(*expressions: dict[str, Any]) -> dict[str, Any]:
    terms = {"nodeSelectorTerms": [{"matchExpressions": list(expressions)}]}
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}}


def in_cluster(*values: str) -> dict[str, Any]:
    return {"key": CLUSTER, "operator": "In", "values": list(values)}


@pytest.mark.parametrize(
    ("made", "cluster"),
    [
        (document(labels={CLUSTER: "a", STRATEGY: "peer"}, nodeSelector={CLUSTER: "b"}), "a"),
        (document(nodeSelector={CLUSTER: "b"}), "b"),
        (document(affinity=affinity({"key": "other", "operator": "Exists"}, in_cluster("c"))), "c"),
        (document(affinity=affinity(in_cluster())), ""),
        (document(affinity=affinity({**in_cluster("c"), "operator": "NotIn"})), ""),
        (document(), ""),
    ],
)  # fmt: skip
def test_the_cluster_of_a_deployment(made: dict[str, Any], cluster: str) -> None:
    assert Deployment.of(made).cluster == cluster


def test_a_deployment_follows_unless_its_author_says_otherwise() -> None:
    assert Deployment.of(document()).follows
    kept = {STRATEGY: "peer", "virtual-kubelet.koupleless.io/replicas-control": "true"}
    assert not Deployment.of(document(labels=kept)).follows
    assert not Deployment.of(document(labels={})).follows


def test_the_baseline_has_the_modules_of_peers_of_the_cluster_the_oldest_first() -> None:
    named = document("late", created=2, nodeSelector={CLUSTER: "a"})
    named["spec"]["template"]["spec"]["containers"][0]["env"].append({"name": "BIZ_NAME", "value": "my_late"})
    unversioned = document("odd", nodeSelector={CLUSTER: "a"})
    unversioned["spec"]["template"]["spec"]["containers"][0]["env"] = []
    made = [
        named,
        document("early", created=1, nodeSelector={CLUSTER: "a"}),
        document("other", nodeSelector={CLUSTER: "b"}),
        document("some", labels={}, nodeSelector={CLUSTER: "a"}),
        unversioned,
        document("none"),
    ]
    assert baseline(map(Deployment.of, made), "a") == [
        {"bizName": "early", "bizVersion": "1", "bizUrl": "https://repo.example/early.zip"},
        {"bizName": "my_late", "bizVersion": "1", "bizUrl": "https://repo.example/late.zip"},
    ]
    assert baseline(map(Deployment.of, made), "") == []


def test_replicas_follow_the_bases_of_a_cluster(scene: Scene) -> None:
    cluster = f"c{time.monotonic_ns()}"
    path = f"/apis/apps/v1/namespaces/{scene.namespace}/deployments"
    bases = [replace(scene.base, identity=f"{scene.base.identity}-{number}", cluster=cluster) for number in (1, 2)]

    async def act() -> None:
        made = document(nodeSelector={CLUSTER: cluster}, tolerations=[{"operator": "Exists"}])
        labels = {"module": "orders", "virtual-kubelet.koupleless.io/component": "module"}
        made["metadata"] = {"name": "orders", "labels": {STRATEGY: "peer", ENV: scene.env}}
        made["spec"] |= {"replicas": 1, "selector": {"matchLabels": {"module": "orders"}}}
        made["spec"]["template"]["metadata"] = {"labels": labels}
        answer = await scene.ask("POST", path, json=made)
        assert answer.is_success, answer.text

        async def has(count: int) -> bool:
            return bool((await scene.ask("GET", f"{path}/orders")).json()["spec"]["replicas"] == count)

        async with scene.controlled(syncs_replicas=True) as controller:
            await scene.soon(lambda: has(0))
            for count, base in enumerate(bases, 1):
                controller.hear(base)
                await scene.soon(lambda count=count: has(count))  # type: ignore[misc]
            assert [one["bizName"] for one in controller.baseline(cluster)] == ["orders"]
            for count, base in enumerate(bases):
                controller.hear(replace(base, state=BaseState.DEACTIVATED))
                await scene.soon(lambda count=count: has(1 - count))  # type: ignore[misc]

    play(act)
