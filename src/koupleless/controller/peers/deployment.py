"""A Deployment of modules as a value, and the cluster of bases meant by the Deployment."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Self

from koupleless.controller import names
from koupleless.controller.cluster.api import Key
from koupleless.controller.vpods.module import NAME_VARIABLE, VERSION_VARIABLE

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

_PEER: Final = "peer"
_KEPT: Final = (names.ROLLOUT, names.SERVICE, names.REVISION)
"""The beginnings of the annotations kept in memory: manifests and words of other tools may be long."""
_DEFAULT_UNAVAILABLE: Final = "25%"


@dataclass(frozen=True, slots=True)
class Deployment:
    """A Deployment of modules, one replica for each base if the strategy is that of peers."""

    key: Key
    uid: str
    version: str
    """The resource version."""
    created: str
    cluster: str
    """The name of the cluster of bases; empty for a Deployment without one."""
    is_peer: bool
    """Whether every base of the cluster is to have the modules."""
    follows: bool
    """Whether the number of replicas follows the number of bases."""
    replicas: int
    containers: Sequence[Mapping[str, Any]] = field(repr=False)
    annotations: Mapping[str, str] = field(default_factory=dict, repr=False)
    """The annotations about rollouts and the Service."""
    is_seen: bool = True
    """Whether the ReplicaSets are those of the present template: Kubernetes has seen the last change."""
    is_paused: bool = False
    gates: frozenset[str] = frozenset()
    """The scheduling gates of new Pods."""
    spare: int = 0
    """The number of Pods that may be deleted before their successors are ready."""

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Self:
        """Read the JSON document of a Deployment."""
        metadata, spec = document["metadata"], document.get("spec") or {}
        labels = metadata.get("labels") or {}
        template = (spec.get("template") or {}).get("spec") or {}
        annotations = metadata.get("annotations") or {}
        seen = (document.get("status") or {}).get("observedGeneration") or 0
        is_peer = labels.get(names.STRATEGY) == _PEER
        replicas = spec.get("replicas")
        return cls(
            key=Key(metadata.get("namespace", "default"), metadata["name"]),
            uid=metadata.get("uid", ""),
            version=metadata.get("resourceVersion", ""),
            created=metadata.get("creationTimestamp") or "",
            cluster=labels.get(names.BASE_CLUSTER) or _cluster_of(template),
            is_peer=is_peer,
            follows=is_peer and labels.get(names.NO_REPLICAS_CONTROL) != "true",
            replicas=1 if replicas is None else replicas,
            containers=tuple(template.get("containers") or ()),
            annotations={name: text for name, text in annotations.items() if name.startswith(_KEPT)},
            is_seen=seen >= (metadata.get("generation") or 0),
            is_paused=bool(spec.get("paused")),
            gates=frozenset(one["name"] for one in template.get("schedulingGates") or ()),
            spare=_spare(spec.get("strategy") or {}, 1 if replicas is None else replicas),
        )

    def models(self) -> list[dict[str, Any]]:
        """Return the modules as a base installs them; containers without a version in the Deployment are left out."""
        found = []
        for container in self.containers:
            plain = {one["name"]: one["value"] for one in container.get("env") or () if one.get("value")}
            if version := plain.get(VERSION_VARIABLE):
                name = plain.get(NAME_VARIABLE) or container["name"]
                found.append({"bizName": name, "bizVersion": version, "bizUrl": container.get("image") or ""})
        return found


def baseline(deployments: Iterable[Deployment], cluster: str) -> list[dict[str, Any]]:
    """Return the modules for every base of a cluster, of the oldest Deployment first.

    Deployments with another strategy are left out: the scheduler chooses some bases for the Pods of those.
    """
    meant = sorted(
        (one for one in deployments if one.is_peer and cluster and one.cluster == cluster),
        key=lambda one: (one.created, one.key),
    )
    return [model for one in meant for model in one.models()]


def _spare(strategy: Mapping[str, Any], replicas: int) -> int:
    """Return the number of Pods that a rollout may delete first, of so many replicas."""
    if strategy.get("type") == "Recreate":
        return replicas
    found = str((strategy.get("rollingUpdate") or {}).get("maxUnavailable", _DEFAULT_UNAVAILABLE))
    number = found.removesuffix("%")
    if not number.isdecimal():
        return 0
    return replicas * int(number) // 100 if found.endswith("%") else int(number)


def _cluster_of(template: Mapping[str, Any]) -> str:
    """Return the cluster in the node selector of a Pod, else in a required node affinity; empty without one."""
    if cluster := (template.get("nodeSelector") or {}).get(names.BASE_CLUSTER):
        return str(cluster)
    affinity = (template.get("affinity") or {}).get("nodeAffinity") or {}
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution") or {}
    for term in required.get("nodeSelectorTerms") or ():
        for expression in term.get("matchExpressions") or ():
            values = expression.get("values") or ()
            if expression.get("key") == names.BASE_CLUSTER and expression.get("operator") == "In" and values:
                return str(values[0])
    return ""
