"""The revisions of Deployments: which of several Pods on a base is of the present one, also after an update was undone.

The ReplicaSet of an undone update gets the highest number again, while the Pods there are older than those of the
update. Without the numbers such a Deployment would wait for ever for Pods whose module has made way.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from koupleless.controller.vpods.pod import Revision

if TYPE_CHECKING:
    from collections.abc import Callable

    from koupleless.controller.batches.step import ReplicaSet
    from koupleless.controller.cluster.api import Key
    from koupleless.controller.cluster.cache import Cache
    from koupleless.controller.vpods.pod import VPod


class Revisions:
    """The revisions of the cached ReplicaSets. All on one event loop."""

    def __init__(self, replica_sets: Cache[ReplicaSet], pods: Cache[VPod], *, changed: Callable[[str], object]) -> None:
        """``changed`` is told each Node with Pods of a ReplicaSet that has got another number.

        The index of ReplicaSets has the UIDs of ReplicaSet and Deployment, the index of Pods the UID of the ReplicaSet.
        """
        self._replica_sets = replica_sets
        self._pods = pods
        self._changed = changed
        self._numbers: dict[Key, str] = {}
        """The number of each ReplicaSet as it was told last."""

    def of(self, owner: str) -> Revision | None:
        """Return the revision of the Pods of an owner; ``None`` unless the owner is the ReplicaSet of a Deployment."""
        for found in self._replica_sets.of(owner):
            if found.uid == owner and found.owner and found.revision.isdecimal():
                return Revision(found.owner, int(found.revision))
        return None

    def replica_set_changed(self, key: Key) -> None:
        """Take a change of a ReplicaSet."""
        found = self._replica_sets.get(key)
        if found is None:
            self._numbers.pop(key, None)
            return
        before, self._numbers[key] = self._numbers.get(key), found.revision
        if before not in {None, found.revision}:
            for pod in self._pods.of(found.uid):
                if pod.node:
                    self._changed(pod.node)
