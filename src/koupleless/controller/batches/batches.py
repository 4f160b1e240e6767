"""The batches of all Deployments of a cluster: takes the next step of a rollout whenever something has changed."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Any, Final

from koupleless.controller.batches.record import PROGRESS, STATE, UNCONFIRMED, Record
from koupleless.controller.batches.step import Event, Facts, next_step
from koupleless.controller.batches.wishes import BATCHES, BETA, CONFIRMED, GATE, Senseless, Wishes
from koupleless.controller.cluster.api import ApiError, Key, Patch
from koupleless.controller.names import REVISION
from koupleless.controller.vpods.pod import VPod

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    from koupleless.controller.batches.step import ReplicaSet
    from koupleless.controller.cluster.api import Api
    from koupleless.controller.cluster.cache import Cache
    from koupleless.controller.cluster.queue import Queue
    from koupleless.controller.peers.deployment import Deployment

_log: Final = logging.getLogger("koupleless.controller")

REPLICA_SETS: Final = "/apis/apps/v1/replicasets"
_LOST: Final = frozenset({404, 409})
_AT_ONCE: Final = 16
"""Pods let through at a time."""


class Batches:
    """The rollouts in batches. All on one event loop; a key is that of a Deployment."""

    def __init__(
        self,
        api: Api,
        deployments: Cache[Deployment],
        replica_sets: Cache[ReplicaSet],
        pods: Cache[VPod],
        *,
        queue: Queue[Key],
        tell: Callable[[Mapping[str, str], str, str, str], object],
        wall: Callable[[], float] = time.time,
    ) -> None:
        """``tell`` records an Event about an object; ``wall`` tells seconds since the epoch.

        The index of ReplicaSets has the UIDs of ReplicaSet and Deployment, the index of Pods the UID of the ReplicaSet.
        """
        self._api = api
        self._deployments = deployments
        self._replica_sets = replica_sets
        self._pods = pods
        self._queue = queue
        self._tell = tell
        self._wall = wall
        self._leaving: dict[Key, str] = {}
        """The ReplicaSet of each Pod that is being deleted, for Pods that are gone."""

    def replica_set_changed(self, key: Key) -> None:
        """Take a change of a ReplicaSet."""
        found = self._replica_sets.get(key)
        if found is not None and found.owner:
            self._queue.add(Key(key.namespace, found.deployment))

    def pod_changed(self, key: Key) -> None:
        """Take a change of a Pod that waits at the gate, or makes room for another."""
        pod = self._pods.get(key)
        if pod is None:
            owner = self._leaving.pop(key, "")
        elif GATE in pod.gates or pod.is_leaving or pod.has_ended:
            owner = pod.owner
            if pod.is_leaving:
                self._leaving[key] = owner
        else:
            return
        for found in self._replica_sets.of(owner) if owner else ():
            self._queue.add(Key(key.namespace, found.deployment))

    async def reconcile(self, key: Key) -> float | None:
        """Take the next step of a rollout; returns the seconds until the next look, or ``None``.

        Raises `ApiError` and `Unreachable`.
        """
        deployment = self._deployments.get(key)
        if deployment is None or not deployment.is_seen:
            return None
        if GATE not in deployment.gates:
            await self._refuse(deployment)
            return None
        sets = [one for one in self._replica_sets.of(deployment.uid) if one.owner == deployment.uid]
        newest = next((one for one in sets if one.revision == deployment.annotations.get(REVISION, "")), None)
        if newest is None or not newest.revision:
            return None
        try:
            wishes = Wishes.of(deployment.annotations)
        except Senseless as error:
            await self._write(deployment, {PROGRESS: f"nothing is let through: {error}"})
            return None
        record = Record.of(deployment.annotations.get(STATE, ""))
        older = [(one, pod) for one in sets if one is not newest for pod in self._pods.of(one.uid) if GATE in pod.gates]
        pods = [pod for pod in self._pods.of(newest.uid) if not pod.has_ended]
        gone = frozenset([name async for name in self._gone(deployment, newest, record)])
        step = next_step(Facts(deployment, newest, pods, older, gone), wishes, record, now=self._wall())
        changes: dict[str, str | None] = {
            STATE: step.record.text(),
            PROGRESS: step.progress or None,
            UNCONFIRMED: str(step.unconfirmed) if step.unconfirmed else None,
        }
        if step.forgets_confirmation:
            changes[CONFIRMED] = None
        if not await self._write(deployment, changes, step.events):
            return None
        for begin in range(0, len(step.opened), _AT_ONCE):
            await asyncio.gather(*(self._open(pod) for pod in step.opened[begin : begin + _AT_ONCE]))
        return step.due_s

    async def _refuse(self, deployment: Deployment) -> None:
        """Say that wishes for batches have no effect without a gate, and no more than that."""
        words = None
        if {BATCHES, BETA} & deployment.annotations.keys():
            words = f"no batches: the template of the Pods has no scheduling gate {GATE}"
        await self._write(deployment, {PROGRESS: words, UNCONFIRMED: None})

    async def _gone(self, deployment: Deployment, newest: ReplicaSet, record: Record) -> AsyncIterator[str]:
        """Yield the recorded Pods that are gone or at an end. A Pod unknown to the cache may be a new one."""
        if record.revision != newest.revision:
            return
        for ending in record.pods:
            key = Key(deployment.key.namespace, f"{newest.name}-{ending}")
            pod = self._pods.get(key)
            if pod is None:
                document = await self._api.get(f"/api/v1/namespaces/{key.namespace}/pods/{key.name}")
                pod = None if document is None else VPod.of(document)
            if pod is None or pod.owner != newest.uid or pod.has_ended:
                yield ending

    async def _write(
        self, deployment: Deployment, changes: Mapping[str, str | None], events: tuple[Event, ...] = ()
    ) -> bool:
        """Change annotations, unless the Deployment has changed meanwhile; returns whether they are as wanted."""
        if all(deployment.annotations.get(name) == text for name, text in changes.items()):
            return True
        key = deployment.key
        metadata: dict[str, Any] = {"resourceVersion": deployment.version, "annotations": changes}
        path = f"/apis/apps/v1/namespaces/{key.namespace}/deployments/{key.name}"
        try:
            await self._api.patch(path, {"metadata": metadata})
        except ApiError as error:
            if error.code not in _LOST:
                raise
            return False  # changed or deleted meanwhile: the cache tells, and this comes again
        about = {"apiVersion": "apps/v1", "kind": "Deployment", "namespace": key.namespace, "name": key.name}
        for event in events:
            _log.info("%s: %s", key, event.message)
            self._tell({**about, "uid": deployment.uid}, *event)
        return True

    async def _open(self, pod: VPod) -> None:
        """Let a Pod through the gate; other gates stay."""
        gates = [{"name": GATE, "$patch": "delete"}]
        change = {"metadata": {"uid": pod.uid}, "spec": {"schedulingGates": gates}}
        path = f"/api/v1/namespaces/{pod.key.namespace}/pods/{pod.key.name}"
        try:
            await self._api.patch(path, change, Patch.STRATEGIC)
        except ApiError as error:
            if error.code not in _LOST:
                raise
