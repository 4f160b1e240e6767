"""The replicas of Deployments that follow bases: as many as there are ready bases of the cluster."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

from koupleless.controller import names
from koupleless.controller.cluster.api import ApiError

if TYPE_CHECKING:
    from koupleless.controller.cluster.api import Api, Document, Key
    from koupleless.controller.cluster.cache import Cache
    from koupleless.controller.cluster.queue import Queue
    from koupleless.controller.peers.deployment import Deployment

_log: Final = logging.getLogger("koupleless.controller")

DEPLOYMENTS: Final = "/apis/apps/v1/deployments"
_SETTLING_S: Final = 1.0
"""Seconds after a change of a Node before replicas are counted: bases of a fleet come and go together."""
_LOST: Final = frozenset({404, 409})


class Replicas:
    """The followers among the Deployments. All on one event loop; a key is that of a Deployment."""

    def __init__(
        self, api: Api, deployments: Cache[Deployment], nodes: Cache[Document], queue: Queue[Key], *, is_on: bool
    ) -> None:
        """Without ``is_on`` nothing follows, as with the original."""
        self._api = api
        self._deployments = deployments
        self._nodes = nodes
        self._queue = queue
        self._is_on = is_on
        self._clusters: dict[str, str] = {}
        """The cluster of each Node, for Nodes that are gone or have changed clusters."""

    def node_changed(self, key: Key) -> None:
        """Take a change of a Node: the Deployments of the cluster are counted anew, after a while."""
        document = self._nodes.get(key)
        before = self._clusters.pop(key.name, "")
        now = "" if document is None else _cluster(document)
        if now:
            self._clusters[key.name] = now
        for cluster in {before, now} - {""}:
            for deployment in self._deployments.of(cluster):
                self._queue.add_after(deployment.key, _SETTLING_S)

    async def reconcile(self, key: Key) -> None:
        """Give a Deployment the replicas of the moment. Raises `ApiError` and `Unreachable`."""
        deployment = self._deployments.get(key)
        if deployment is None or not (self._is_on and deployment.follows and deployment.cluster):
            return
        wanted = sum(1 for name in tuple(self._nodes.keys()) if self._counts(name, deployment.cluster))
        if wanted == deployment.replicas:
            return
        change: dict[str, Any] = {"metadata": {"resourceVersion": deployment.version}, "spec": {"replicas": wanted}}
        path = f"/apis/apps/v1/namespaces/{key.namespace}/deployments/{key.name}"
        try:
            await self._api.patch(path, change)
        except ApiError as error:
            if error.code not in _LOST:
                raise
            return  # changed or deleted meanwhile: the cache tells, and this comes again
        _log.info("%s has %d replicas, for as many bases of cluster %s", key, wanted, deployment.cluster)

    def _counts(self, key: Key, cluster: str) -> bool:
        document = self._nodes.get(key)
        if document is None or _cluster(document) != cluster:
            return False
        conditions = document["status"].get("conditions") or ()
        return any((one["type"], one["status"]) == ("Ready", "True") for one in conditions)


def _cluster(document: Document) -> str:
    return str((document["metadata"].get("labels") or {}).get(names.BASE_CLUSTER) or "")
