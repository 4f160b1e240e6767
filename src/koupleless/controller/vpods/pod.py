"""A Pod as a value: a container is a module of one base, and the Node of the Pod is the Node of the base."""

from __future__ import annotations

import enum
import sys
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self

import msgspec

from koupleless.controller.times import seconds_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

_ENDED: Final = frozenset({"Succeeded", "Failed"})
_DEFAULT_GRACE_S: Final = 30
DEACTIVATED: Final = "Deactivated"
"""The reason of a container with a started module, while another version answers."""


class PodKey(NamedTuple):
    """The identity of a Pod for a work queue; a later Pod may have the same."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


class Restart(enum.Enum):
    """The policy of a Pod for ended modules."""

    ALWAYS = "Always"
    """The module runs as long as the Pod is there."""
    ON_FAILURE = "OnFailure"
    """The module runs to completion; after a failure again."""
    NEVER = "Never"
    """The module runs to completion once."""


def _has_made_way(container: Mapping[str, Any]) -> bool:
    waiting = (container.get("state") or {}).get("waiting") or {}
    return waiting.get("reason") == DEACTIVATED


def _revision(metadata: Mapping[str, Any]) -> str:
    labels = metadata.get("labels") or {}
    return labels.get("pod-template-hash") or labels.get("controller-revision-hash") or ""


def _workload(metadata: Mapping[str, Any]) -> str:
    """Return the workload of a Pod; a ReplicaSet is called after its Deployment and the revision."""
    owner = next((one for one in metadata.get("ownerReferences") or () if one.get("controller")), None)
    revision = _revision(metadata)
    return (
        "" if owner is None or not revision else f"{owner.get('kind')} {owner.get('name', '').removesuffix(revision)}"
    )


@lru_cache(maxsize=1_024)
def _unpacked(text: str) -> Any:
    """Read packed members; those of the Pods in work are kept for a while, and are never changed."""
    return msgspec.json.decode(text)


def _packed(members: object) -> str:
    """Pack members as JSON: a fifth of the memory of objects."""
    return msgspec.json.encode(members).decode()


def _owner(metadata: Mapping[str, Any]) -> str:
    return next((one["uid"] for one in metadata.get("ownerReferences") or () if one.get("controller")), "")


@dataclass(frozen=True, slots=True)
class VPod:
    """A Pod on the Node of a base. Members are parts of the JSON document, and never changed.

    A controller keeps tens of thousands: large members are kept as JSON, and texts of many Pods once.
    """

    key: PodKey
    uid: str
    node: str
    """The name of the Node; empty before the Pod is bound."""
    created: str
    """The time of creation as written by the API server: texts of one form, and so in the order of time."""
    packed_containers: str = field(repr=False)
    """The containers as JSON, one text for equal containers."""
    has_init_containers: bool
    restart: Restart
    packed_tables: str = field(repr=False)
    """Labels and annotations as JSON."""
    service_account: str
    packed_status: str = field(repr=False)
    """The status as JSON."""
    leaves_at: str | None = None
    """The end of the time for the deletion; ``None`` unless the Pod is being deleted."""
    grace_s: int = _DEFAULT_GRACE_S
    most_s: int | None = None
    """The seconds after which the Pod has failed (``activeDeadlineSeconds``); ``None`` for no end."""
    owner: str = ""
    """The UID of the ReplicaSet, or of another controlling object; empty for a bare Pod."""
    workload: str = ""
    """The kind and the name of the Deployment, DaemonSet or StatefulSet of the Pod; empty for other Pods."""
    revision: str = ""
    """The revision of the template of the workload."""
    place: tuple[str, int, PodKey] | None = None
    """The place among other Pods, where another one than that by age; see `in_places`."""
    gates: frozenset[str] = frozenset()
    """The scheduling gates that are closed still: the Pod is bound to no Node before the last is gone."""

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Self:
        """Read the JSON document of a Pod."""
        metadata, spec = document["metadata"], document.get("spec") or {}
        grace_s = metadata.get("deletionGracePeriodSeconds")
        if grace_s is None:
            grace_s = spec.get("terminationGracePeriodSeconds")
        return cls(
            key=PodKey(sys.intern(metadata.get("namespace", "default")), metadata["name"]),
            uid=metadata.get("uid", ""),
            node=sys.intern(spec.get("nodeName") or ""),
            created=sys.intern(metadata.get("creationTimestamp") or ""),
            packed_containers=sys.intern(_packed(spec.get("containers") or [])),
            has_init_containers=bool(spec.get("initContainers")),
            restart=Restart(spec.get("restartPolicy") or "Always"),
            packed_tables=sys.intern(_packed([metadata.get("labels") or {}, metadata.get("annotations") or {}])),
            service_account=sys.intern(spec.get("serviceAccountName") or "default"),
            packed_status=_packed(document.get("status") or {}),
            leaves_at=metadata.get("deletionTimestamp"),
            grace_s=_DEFAULT_GRACE_S if grace_s is None else grace_s,
            most_s=spec.get("activeDeadlineSeconds"),
            owner=sys.intern(_owner(metadata)),
            workload=sys.intern(_workload(metadata)),
            revision=sys.intern(_revision(metadata)),
            gates=frozenset(one["name"] for one in spec.get("schedulingGates") or ()),
        )

    @property
    def containers(self) -> Sequence[Mapping[str, Any]]:
        """The containers, in order."""
        found: list[Mapping[str, Any]] = _unpacked(self.packed_containers)
        return found

    @property
    def labels(self) -> Mapping[str, str]:
        """The labels."""
        found: Mapping[str, str] = _unpacked(self.packed_tables)[0]
        return found

    @property
    def annotations(self) -> Mapping[str, str]:
        """The annotations."""
        found: Mapping[str, str] = _unpacked(self.packed_tables)[1]
        return found

    @property
    def status(self) -> Mapping[str, Any]:
        """The last told status."""
        found: Mapping[str, Any] = _unpacked(self.packed_status)
        return found

    @property
    def is_leaving(self) -> bool:
        """Whether the Pod is being deleted."""
        return self.leaves_at is not None

    @property
    def has_ended(self) -> bool:
        """Whether all modules have run to completion, or one has failed for good, by the status of the Pod."""
        return self.status.get("phase") in _ENDED

    @property
    def is_wanted(self) -> bool:
        """Whether the modules of the Pod are to run."""
        return bool(self.node) and not self.is_leaving and not self.has_ended

    @property
    def deadline(self) -> float | None:
        """The time at which the Pod has failed, in seconds since the epoch; ``None`` for never, or before the start."""
        begin = self.status.get("startTime")
        return None if self.most_s is None or not begin or self.has_ended else seconds_of(begin) + self.most_s

    def is_over(self, container: str) -> bool:
        """Whether a module has run to completion, or has failed for good: such a module never starts again."""
        end = (self.container_status(container).get("state") or {}).get("terminated")
        if end is None or self.restart is Restart.ALWAYS:
            return False
        return self.restart is Restart.NEVER or not end.get("exitCode")

    def age_order(self) -> tuple[str, int, PodKey]:
        """Return the place of the Pod among others: the oldest first.

        A rolling update may take less than a second, and times of creation are whole seconds. Of the Pods of one
        second, those with a module that has made way are older, and those told of no running module yet are newer.
        """
        if self.place is not None:
            return self.place
        told = self.status.get("containerStatuses") or ()
        stage = 1 if any(one.get("imageID") for one in told) else 2
        if stage == 1 and any(_has_made_way(one) for one in told):
            stage = 0
        return self.created, stage, self.key

    def container_status(self, name: str) -> Mapping[str, Any]:
        """Return the last told status of a container; empty before the first."""
        for status in self.status.get("containerStatuses") or ():
            if status.get("name") == name:
                return status  # type: ignore[no-any-return]
        return {}


class Revision(NamedTuple):
    """The place of a Pod among the Pods of one workload."""

    workload: str
    """The UID of the Deployment."""
    number: int
    """The highest is that of the present revision."""


def in_places(pods: Iterable[VPod], revision_of: Callable[[str], Revision | None]) -> list[VPod]:
    """Return Pods of one base, those of one workload with places by revision: places by age, handed out anew.

    ``revision_of`` is asked for the owner of a Pod. The Pods of an undone update are the newest again, though made
    before.
    """
    placed: list[VPod] = []
    workloads: dict[str, list[tuple[int, VPod]]] = {}
    for pod in pods:
        revision = revision_of(pod.owner) if pod.owner else None
        if revision is None:
            placed.append(pod)
        else:
            workloads.setdefault(revision.workload, []).append((revision.number, pod))
    for found in workloads.values():
        if len({number for number, _ in found}) == 1:
            placed += [pod for _, pod in found]
            continue
        places = sorted(pod.age_order() for _, pod in found)
        found.sort(key=lambda one: (one[0], one[1].age_order()))
        placed += [replace(pod, place=place) for (_, pod), place in zip(found, places, strict=True)]
    return placed
