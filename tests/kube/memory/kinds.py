"""The resources that the API server in memory serves, and where it differs between them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Kind:
    """A resource as its paths name it."""

    group: str
    version: str
    plural: str
    name: str
    is_namespaced: bool = True
    has_status: bool = False
    keeps_status: bool = False
    """A status that comes with a new object stays; other resources begin without one."""

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version


KINDS: Final = {
    (kind.group, kind.plural): kind
    for kind in (
        Kind("", "v1", "namespaces", "Namespace", is_namespaced=False, has_status=True),
        Kind("", "v1", "nodes", "Node", is_namespaced=False, has_status=True, keeps_status=True),
        Kind("", "v1", "pods", "Pod", has_status=True),
        Kind("", "v1", "configmaps", "ConfigMap"),
        Kind("", "v1", "secrets", "Secret"),
        Kind("", "v1", "services", "Service", has_status=True),
        Kind("", "v1", "events", "Event"),
        Kind("events.k8s.io", "v1", "events", "Event"),
        Kind("apps", "v1", "deployments", "Deployment", has_status=True),
        Kind("apps", "v1", "daemonsets", "DaemonSet", has_status=True),
        Kind("apps", "v1", "statefulsets", "StatefulSet", has_status=True),
        Kind("apps", "v1", "replicasets", "ReplicaSet", has_status=True),
        Kind("batch", "v1", "jobs", "Job", has_status=True),
        Kind("coordination.k8s.io", "v1", "leases", "Lease"),
        Kind("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice"),
    )
}
