"""The Services of modules: Service and EndpointSlices of each Deployment that wishes one."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

from koupleless.controller.cluster.api import ApiError, Key
from koupleless.controller.services.endpoints import endpoints_of
from koupleless.controller.services.slices import document, layout
from koupleless.controller.services.wishes import Senseless, Service, Wishes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from koupleless.controller.batches.step import ReplicaSet
    from koupleless.controller.cluster.api import Api, Document
    from koupleless.controller.cluster.cache import Cache
    from koupleless.controller.cluster.queue import Queue
    from koupleless.controller.peers.deployment import Deployment
    from koupleless.controller.services.slices import Slice
    from koupleless.controller.vpods.pod import VPod

_log: Final = logging.getLogger("koupleless.controller")

SERVICES: Final = "/api/v1/services"
SLICES: Final = "/apis/discovery.k8s.io/v1/endpointslices"
_SETTLING_S: Final = 0.05
"""Seconds after a change of a Pod or a Node before the endpoints are written: changes come together."""
_CONFLICT: Final = 409
_LOST: Final = frozenset({404, _CONFLICT})


class Services:
    """The Services of one cluster. All on one event loop; a key is that of a Deployment."""

    def __init__(
        self,
        api: Api,
        *,
        deployments: Cache[Deployment],
        replica_sets: Cache[ReplicaSet],
        pods: Cache[VPod],
        nodes: Cache[Document],
        services: Cache[Service],
        slices: Cache[Slice],
        queue: Queue[Key],
        env: str,
        tell: Callable[[Mapping[str, str], str, str, str], object],
    ) -> None:
        """``tell`` records an Event about an object.

        The index of ReplicaSets has the UIDs of ReplicaSet and Deployment, that of Pods the Node and the UID of the
        ReplicaSet, that of Services the UID of the Deployment, that of slices the UID of the Service.
        """
        self._api = api
        self._deployments = deployments
        self._replica_sets = replica_sets
        self._pods = pods
        self._nodes = nodes
        self._services = services
        self._slices = slices
        self._queue = queue
        self._env = env
        self._tell = tell
        self._owners: dict[tuple[str, Key], Key] = {}
        """The Deployment of each Pod, Service and slice, for those that are gone; of Deployments with a Service."""
        self._told: dict[tuple[Key, str], str] = {}
        """The last trouble told of each Deployment, by subject."""

    # --- news --------------------------------------------------------------------------------------------------------

    def pod_changed(self, key: Key) -> None:
        """Take a change of a Pod."""
        pod = self._pods.get(key)
        owner = None if pod is None else self._deployment_of(key.namespace, pod.owner)
        self._changed(("pod", key), owner)

    def replica_set_changed(self, key: Key) -> None:
        """Take a change of a ReplicaSet: Pods may have been told before the ReplicaSet was."""
        found = self._replica_sets.get(key)
        if found is not None and self._is_concerned(owner := Key(key.namespace, found.deployment)):
            self._queue.add_after(owner, _SETTLING_S)

    def node_changed(self, key: Key) -> None:
        """Take a change of a Node: of the port, or of the readiness."""
        for pod in tuple(self._pods.of(key.name)):
            self.pod_changed(Key(*pod.key))

    def service_changed(self, key: Key) -> None:
        """Take a change of a Service."""
        service = self._services.get(key)
        self._changed(("service", key), None if service is None else Key(key.namespace, service.deployment))

    def slice_changed(self, key: Key) -> None:
        """Take a change of a slice."""
        found = self._slices.get(key)
        service = None if found is None else self._services.get(Key(key.namespace, found.service))
        self._changed(("slice", key), None if service is None else Key(key.namespace, service.deployment))

    def _changed(self, subject: tuple[str, Key], owner: Key | None) -> None:
        before = self._owners.pop(subject, None)
        if owner is not None and self._is_concerned(owner):
            self._owners[subject] = owner
        for deployment in {before, owner} - {None}:
            if deployment is not None and self._is_concerned(deployment):
                self._queue.add_after(deployment, _SETTLING_S)

    def _deployment_of(self, namespace: str, uid: str) -> Key | None:
        found = next((one for one in self._replica_sets.of(uid) if one.uid == uid), None) if uid else None
        return None if found is None else Key(namespace, found.deployment)

    def _is_concerned(self, key: Key) -> bool:
        deployment = self._deployments.get(key)
        if deployment is None:
            return False
        try:
            return Wishes.of(deployment) is not None or any(self._services.of(deployment.uid))
        except Senseless:
            return True

    # --- work --------------------------------------------------------------------------------------------------------

    async def reconcile(self, key: Key) -> None:
        """Keep the Service of a Deployment. Raises `ApiError` and `Unreachable`.

        The Service of a deleted Deployment is deleted by Kubernetes, and the slices with the Service.
        """
        deployment = self._deployments.get(key)
        if deployment is None:
            return
        try:
            wishes = Wishes.of(deployment)
        except Senseless as error:
            self._warn(deployment, "ServiceRefused", "wishes", str(error))
            return
        self._warn(deployment, "", "wishes", "")
        service = await self._keep_service(deployment, wishes)
        if wishes is not None and service is not None:
            await self._keep_slices(deployment, wishes, service)

    async def _keep_service(self, deployment: Deployment, wishes: Wishes | None) -> Service | None:
        """Return the Service if it is there; others of the Deployment are deleted."""
        namespace = deployment.key.namespace
        found = None
        for service in tuple(self._services.of(deployment.uid)):
            if wishes is not None and service.name == wishes.name:
                found = service
            else:
                await self._api.delete(_service_path(namespace, service.name), uid=service.uid)
        if wishes is None:
            return None
        if found is None:
            return await self._create(deployment, wishes)
        if (found.port, found.kind) != (wishes.port, wishes.kind):
            change = {
                "metadata": {"resourceVersion": found.version},
                "spec": {"type": wishes.kind, "ports": [wishes.port_document()]},
            }
            await _unless_lost(self._api.patch(_service_path(namespace, found.name), change))
        return found

    async def _create(self, deployment: Deployment, wishes: Wishes) -> Service | None:
        namespace = deployment.key.namespace
        try:
            made = await self._api.create(_service_path(namespace), wishes.document(deployment, self._env))
        except ApiError as error:
            if error.code != _CONFLICT:
                raise
            there = await self._api.get(_service_path(namespace, wishes.name))
            if there is not None and Service.of(there).owner != deployment.uid:
                said = f"there is another Service {wishes.name}: delete it, or choose a name"
                self._warn(deployment, "ServiceTaken", "service", said)
            return None  # else another controller was faster, and the cache tells
        self._warn(deployment, "", "service", "")
        return Service.of(made)

    async def _keep_slices(self, deployment: Deployment, wishes: Wishes, service: Service) -> None:
        found, omitted = endpoints_of(
            self._pods_of(deployment), lambda name: self._nodes.get(Key("", name)), target_port=wishes.target_port
        )
        messages = "; ".join(f"{one.node}: {one.message}" for one in omitted[:3])
        self._warn(deployment, "BaseWithoutEndpoint", "bases", messages)
        there = {one.name: one for one in self._slices.of(service.uid)}
        wanted = layout(service.name, found, there.values()).slices
        path = f"/apis/discovery.k8s.io/v1/namespaces/{deployment.key.namespace}/endpointslices"
        for name, (place, inside) in wanted.items():
            made = document(name, place, inside, service=service.name, uid=service.uid, env=self._env)
            present = there.get(name)
            if present is None:
                await _unless_lost(self._api.create(path, made))
            elif present.place != place or [*map(dict, present.endpoints)] != made["endpoints"]:
                made["metadata"]["resourceVersion"] = present.version
                await _unless_lost(self._api.replace(f"{path}/{name}", made))
        for name in there.keys() - wanted.keys():
            await self._api.delete(f"{path}/{name}")

    def _pods_of(self, deployment: Deployment) -> Iterator[VPod]:
        for found in self._replica_sets.of(deployment.uid):
            if found.owner == deployment.uid:
                yield from self._pods.of(found.uid)

    def _warn(self, deployment: Deployment, reason: str, subject: str, message: str) -> None:
        """Tell a trouble once; an empty one is the end of trouble."""
        place = deployment.key, subject
        if self._told.get(place, "") == message:
            return
        self._told.pop(place, None)
        if message:
            self._told[place] = message
            key = deployment.key
            _log.warning("%s: %s", key, message)
            about = {"apiVersion": "apps/v1", "kind": "Deployment", "namespace": key.namespace, "name": key.name}
            self._tell({**about, "uid": deployment.uid}, "Warning", reason, message)


def _service_path(namespace: str, name: str = "") -> str:
    return f"/api/v1/namespaces/{namespace}/services{name and '/' + name}"


async def _unless_lost(write: Any) -> None:
    """Wait for a write; changed or deleted meanwhile, the cache tells, and the work comes again."""
    try:
        await write
    except ApiError as error:
        if error.code not in _LOST:
            raise
