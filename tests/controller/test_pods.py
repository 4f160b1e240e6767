"""Pods in the memory of a controller: tens of thousands have to fit."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

from tests.controller.documents import container, pod

from koupleless.controller.vpods.pod import VPod

MANY = 500
MOST_BYTES = 2_500
"""For one Pod with the status of a running module; as objects of the JSON document more than 5,000."""


def document(number: int) -> dict[str, Any]:
    image = "https://repo.example/orders-1.zip"
    since = "2026-01-01T00:00:00Z"
    status = {
        "phase": "Running",
        "podIP": f"10.0.0.{number}",
        "conditions": [
            {"type": kind, "status": "True", "lastTransitionTime": since}
            for kind in ("PodScheduled", "Initialized", "ContainersReady", "Ready")
        ],
        "containerStatuses": [
            {"name": "orders", "image": image, "imageID": image, "ready": True, "started": True, "restartCount": 0,
             "state": {"running": {"startedAt": since}}, "lastState": {}}
        ],
    }  # fmt: skip
    labels = {"app": "shop", "pod-template-hash": "7d4b9c6f8d"}
    return pod(f"orders-{number}", container("orders", "1"), metadata={"labels": labels}, status=status)


def test_a_pod_reads_as_written() -> None:
    written = document(1)
    read = VPod.of(written)
    assert read.status == written["status"]
    assert read.labels == written["metadata"]["labels"]
    assert read.annotations == {}
    assert read.containers == written["spec"]["containers"]
    assert read == VPod.of(document(1))


def test_many_pods_of_a_deployment_take_little_memory() -> None:
    texts = [json.dumps(document(number)) for number in range(MANY)]
    tracemalloc.start()
    try:
        kept = [VPod.of(json.loads(text)) for text in texts]
        each = tracemalloc.get_traced_memory()[0] / MANY
    finally:
        tracemalloc.stop()
    assert len(kept) == MANY
    assert each <= MOST_BYTES
