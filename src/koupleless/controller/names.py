"""Names common to Kubernetes, bases and both controllers: labels, taints, names of Nodes and Leases.

Kubernetes refuses many names of bases. Such a name is mapped to a valid one, never fatal, and kept in an annotation.
"""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

COMPONENT: Final = "virtual-kubelet.koupleless.io/component"
"""The label of all Nodes, Leases, Pods and Deployments of modules."""
COMPONENT_TOO: Final = "module-controller.koupleless.io/component"
"""Another spelling of `COMPONENT`, on Pods and Deployments."""
VNODE: Final = "vnode"
VNODE_LEASE: Final = "vnode-lease"
CONTROLLER_LEASE: Final = "controller-lease"
"""The component of the Lease that shows others that a controller lives."""
MODULE: Final = "module"
MODULE_DEPLOYMENT: Final = "module-deployment"

ENV: Final = "virtual-kubelet.koupleless.io/env"
STRATEGY: Final = "virtual-kubelet.koupleless.io/strategy"
NO_REPLICAS_CONTROL: Final = "virtual-kubelet.koupleless.io/replicas-control"
"""Keeps the replicas of a Deployment as set by the author, in spite of the name."""
ROLLOUT: Final = "rollout.koupleless.io/"
"""The prefix of the annotations of a Deployment about batches."""
SERVICE: Final = "service.koupleless.io/"
"""The prefix of the annotations of a Deployment about the Service of the module."""
MODULE_SERVICE: Final = "module-service"
REVISION: Final = "deployment.kubernetes.io/revision"
"""The number of a rollout, on a Deployment and the ReplicaSet of the rollout, as kept by Kubernetes."""
POD_HASH: Final = "pod-template-hash"
TRACE: Final = "trace.koupleless.io/id"

BASE_NAME: Final = "base.koupleless.io/name"
BASE_VERSION: Final = "base.koupleless.io/version"
BASE_CLUSTER: Final = "base.koupleless.io/cluster-name"
BASE_HOST: Final = "base.koupleless.io/host-name"
BASE_PORT: Final = "base.koupleless.io/tunnel-port"
BASE_IP: Final = "base.koupleless.io/ip"
"""An annotation: the address of the base, also where the Node has the address of the kubelet's API."""
BASE_SERVICE_PORT: Final = "base.koupleless.io/service-port"
"""The port of the application of the base."""
BASE_IDENTITY: Final = "base.koupleless.io/identity"
"""The identity of the base: an annotation in the words of the base, and a label for one Pod on each base.

Names of hosts do not tell apart the bases of one machine."""

BASE_TUNNEL: Final = "base.koupleless.io/tunnel"
"""The tunnel to the base, an annotation: ``http`` or ``mqtt``."""

BASE_NEWS: Final = "base.koupleless.io/news"
"""The last news of the base, an annotation: from a controller that has heard the base to the one that leads."""

TAINT_VIRTUAL: Final = "schedule.koupleless.io/virtual-node"
TAINT_ENV: Final = "schedule.koupleless.io/node-env"

LEASES: Final = "kube-node-lease"
"""The namespace of the Leases of Nodes."""

_LABEL_VALUE: Final = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?")
_SUBDOMAIN: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)*")
_LONGEST_LABEL: Final = 63
_LONGEST_NAME: Final = 253
_DIGITS: Final = 8


def label_value(text: str) -> str:
    """Return ``text`` as the value of a label: unchanged where Kubernetes allows, else a text as near as can be.

    ``+`` becomes ``_``, as with chart versions, any other character ``-``. A long value is cut, and ends with a digest
    of the whole.
    """
    if _LABEL_VALUE.fullmatch(text):
        return text
    mapped = re.sub(r"[^A-Za-z0-9._-]", "-", text.replace("+", "_")).strip("._-")
    if len(mapped) > _LONGEST_LABEL:
        mapped = f"{mapped[: _LONGEST_LABEL - _DIGITS - 1].rstrip('._-')}-{_digest(text)}"
    return mapped


def node_name(identity: str, env: str) -> str:
    """Return the name of the Node, and of the Lease, of a base: ``vnode.{identity}.{env}``.

    Different identities give different names: a mapped identity ends with a digest.
    """
    room = _LONGEST_NAME - len(f"vnode..{env}")
    if _SUBDOMAIN.fullmatch(identity) and len(identity) <= room:
        return f"vnode.{identity}.{env}"
    mapped = re.sub(r"[^a-z0-9-]+", "-", identity.lower()).strip("-")[: room - _DIGITS - 1]
    return f"vnode.{mapped}-{_digest(identity)}.{env}" if mapped else f"vnode.{_digest(identity)}.{env}"


def controller_lease(holder: str, env: str) -> str:
    """Return the name of the Lease of a controller; no Node has such a name."""
    return f"controller.{node_name(holder, env).removeprefix('vnode.')}"


def identity_of(name: str, annotations: Mapping[str, str]) -> str:
    """Return the identity of the base of a Node, made by this controller or the original; empty for other Nodes."""
    if identity := annotations.get(BASE_IDENTITY):
        return identity
    first, _, rest = name.partition(".")
    return rest.rpartition(".")[0] if first == "vnode" else ""


def is_env(text: str) -> bool:
    """Whether a text may be the env of a controller: part of a name of a Node, hence without dots."""
    return "." not in text and len(text) <= _LONGEST_LABEL and _SUBDOMAIN.fullmatch(text) is not None


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]
