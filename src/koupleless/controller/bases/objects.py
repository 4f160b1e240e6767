"""The Nodes and Pods of one cluster for stewards: read from caches, written to the API server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from koupleless.controller import names
from koupleless.controller.cluster.api import ApiError, Key, Patch
from koupleless.controller.vpods.pod import in_places
from koupleless.controller.vpods.variables import sources_of, values_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from koupleless.controller.bases.events import Events
    from koupleless.controller.cluster.api import Api, Document
    from koupleless.controller.cluster.cache import Cache
    from koupleless.controller.vpods.pod import Revision, VPod
    from koupleless.controller.vpods.variables import Source

NODES: Final = "/api/v1/nodes"
PODS: Final = "/api/v1/pods"
LEASES: Final = f"/apis/coordination.k8s.io/v1/namespaces/{names.LEASES}/leases"

_CONFLICT: Final = 409
_NOT_FOUND: Final = 404
_PATHS: Final = {"ConfigMap": "configmaps", "Secret": "secrets"}


def read_node(document: Document) -> Document:
    """Return the members of a Node that stewards use."""
    metadata = document["metadata"]
    kept = {name: metadata[name] for name in ("name", "labels", "annotations") if name in metadata}
    spec = {"taints": (document.get("spec") or {}).get("taints") or []}
    return {"metadata": kept, "spec": spec, "status": document.get("status") or {}}


class Objects:
    """See `Cluster`. Lifetime and event loop: as the caches'."""

    def __init__(
        self,
        api: Api,
        nodes: Cache[Document],
        pods: Cache[VPod],
        events: Events,
        *,
        revision_of: Callable[[str], Revision | None] = lambda _: None,
    ) -> None:
        """``revision_of`` tells the revision of the Pods of an owner, if the owner has revisions."""
        self._api = api
        self._nodes = nodes
        self._pods = pods
        self._events = events
        self._revision_of = revision_of
        self._sources: dict[str, _Fetched] = {}
        """ConfigMaps and Secrets by the UID of a Pod, as they were when the Pod was first seen."""

    def node(self, name: str) -> Mapping[str, Any] | None:
        """See `Cluster.node`."""
        return self._nodes.get(Key("", name))

    def pods_on(self, node: str) -> Sequence[VPod]:
        """See `Cluster.pods_on`."""
        return in_places(self._pods.of(node), self._revision_of)

    def forget(self, uid: str) -> None:
        """Let go of the ConfigMaps and Secrets of a Pod."""
        self._sources.pop(uid, None)

    async def sources(self, pod: VPod) -> _Fetched:
        """See `Cluster.sources`. A source that was absent is looked for again with each call."""
        wanted = frozenset(source for container in pod.containers for source in sources_of(container))
        if not wanted:
            return _NONE
        fetched = self._sources.get(pod.uid)
        if fetched is not None and fetched.has(wanted):
            return fetched
        found = {source: await self._fetch(pod.key.namespace, source) for source in wanted}
        fetched = _Fetched({source: values for source, values in found.items() if values is not None})
        self._sources[pod.uid] = fetched
        return fetched

    async def _fetch(self, namespace: str, source: Source) -> Mapping[str, str] | None:
        path = f"/api/v1/namespaces/{namespace}/{_PATHS[source.kind]}/{source.name}"
        document = await self._api.get(path)
        return None if document is None else values_of({"kind": source.kind, **document})

    # --- writes ------------------------------------------------------------------------------------------------------

    async def create_node(self, document: Mapping[str, Any]) -> None:
        """See `Cluster.create_node`."""
        try:
            await self._api.create(NODES, document)
        except ApiError as error:
            if error.code != _CONFLICT:
                raise

    async def patch_node(self, name: str, patch: Mapping[str, Any]) -> None:
        """See `Cluster.patch_node`."""
        await self._patch(f"{NODES}/{name}", patch, Patch.MERGE)

    async def patch_node_status(self, name: str, status: Mapping[str, Any]) -> None:
        """See `Cluster.patch_node_status`."""
        await self._patch(f"{NODES}/{name}/status", {"status": status}, Patch.STRATEGIC)

    async def delete_node(self, name: str) -> None:
        """See `Cluster.delete_node`."""
        await self._api.delete(f"{NODES}/{name}")
        await self._api.delete(f"{LEASES}/{name}")

    async def patch_pod_status(self, pod: VPod, status: Mapping[str, Any]) -> None:
        """See `Cluster.patch_pod_status`."""
        change = {"metadata": {"uid": pod.uid}, "status": _as_patch(status)}
        await self._patch(f"{_path(pod)}/status", change, Patch.STRATEGIC)

    async def remove_pod(self, pod: VPod) -> None:
        """See `Cluster.remove_pod`."""
        await self._api.delete(_path(pod), uid=pod.uid, grace_s=0)
        self.forget(pod.uid)

    def tell_node(self, node: str, kind: str, reason: str, message: str) -> None:
        """See `Cluster.tell_node`."""
        self._events.tell_node(node, kind, reason, message)

    def tell(self, pod: VPod, kind: str, reason: str, message: str) -> None:
        """See `Cluster.tell`."""
        self._events.tell(pod, kind, reason, message)

    async def _patch(self, path: str, change: Mapping[str, Any], kind: Patch) -> None:
        try:
            await self._api.patch(path, change, kind)
        except ApiError as error:
            if error.code not in {_NOT_FOUND, _CONFLICT}:  # gone, or another one of the name by now
                raise


class _Fetched:
    """The ConfigMaps and Secrets of one Pod."""

    def __init__(self, values: Mapping[Source, Mapping[str, str]]) -> None:
        self._values = values

    def has(self, wanted: frozenset[Source]) -> bool:
        return wanted <= self._values.keys()

    def find(self, source: Source) -> Mapping[str, str] | None:
        """See `Sources.find`."""
        return self._values.get(source)


_NONE: Final = _Fetched({})
"""For the many Pods that name no source."""


def _as_patch(status: Mapping[str, Any]) -> Document:
    """Make the strategic merge patch of a status.

    Such a patch joins addresses with those there: the Pod of a base that has moved would keep the former address.
    """
    change = dict(status)
    for member in ("podIPs", "hostIPs"):
        if member in change:
            change[member] = [*change[member], {"$patch": "replace"}]
    return change


def _path(pod: VPod) -> str:
    return f"/api/v1/namespaces/{pod.key.namespace}/pods/{pod.key.name}"
