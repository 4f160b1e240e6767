"""The Node of a base: labels, taints, addresses, capacity and conditions; and the comparison with the present Node."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from koupleless.controller import names
from koupleless.controller.times import time_text
from koupleless.controller.vnodes.liveness import Life

if TYPE_CHECKING:
    from collections.abc import Mapping

    from koupleless.controller.vnodes.base import AnnouncedBase

_PODS: Final = 65_535
_LOCALHOST: Final = "127.0.0.1"
_KIB: Final = 1_024
_PARTS: Final = 32
"""A part of the memory of a base, of so many, is worth a write to the API server."""
_CALM: Final = {
    "MemoryPressure": ("HasSufficientMemory", "the base has memory left"),
    "DiskPressure": ("HasNoDiskPressure", "a base has no disk of its own"),
    "PIDPressure": ("HasSufficientPIDs", "modules are no processes"),
    "NetworkUnavailable": ("RouteCreated", "modules are reached by the address of the base"),
}
"""The conditions that are false for a healthy base, with reason and message."""

STRAYS: Final = "StrayModules"
"""The condition of a Node with modules that no Pod has."""

_READY: Final = {
    Life.ALIVE: ("True", "BaseReady", "the base answers"),
    Life.MUTE: ("Unknown", "ArkletSilent", "the base sends heartbeats, but its arklet answers no question"),
    Life.SILENT: ("Unknown", "BaseSilent", "the base has sent no sign of life for a while"),
    Life.DEAD: ("False", "BaseGone", "the base has ended, or has sent no sign of life for long"),
}

Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Capacity:
    """The room of a base for modules; ``None`` where the base says nothing."""

    modules: int | None = None
    memory_bytes: int | None = None
    memory_left_bytes: int | None = None
    """Where a base tells what is left; else the scheduler subtracts the requests of the Pods."""
    processors: int | None = None

    def is_near(self, other: Capacity) -> bool:
        """Whether another capacity differs by a little memory left at most."""
        mine, others = self.memory_left_bytes, other.memory_left_bytes
        if mine is None or others is None or replace(self, memory_left_bytes=others) != other:
            return self == other
        return abs(mine - others) * _PARTS <= (self.memory_bytes or 0)


def node_of(base: AnnouncedBase, env: str) -> Document:
    """Make the Node of a base: the members set at creation, and set again after news of the base."""
    name = names.node_name(base.identity, env)
    labels = {
        "type": "virtual-kubelet",
        "kubernetes.io/role": "agent",
        "kubernetes.io/hostname": names.label_value(base.host),
        names.COMPONENT: names.VNODE,
        names.ENV: env,
        names.BASE_NAME: names.label_value(base.name),
        names.BASE_VERSION: names.label_value(base.version),
        names.BASE_CLUSTER: names.label_value(base.cluster),
        names.BASE_HOST: names.label_value(base.host),
        names.BASE_IDENTITY: names.label_value(base.identity),
    }
    if base.port:
        labels[names.BASE_PORT] = str(base.port)
    if base.service_port:
        labels[names.BASE_SERVICE_PORT] = str(base.service_port)
    told = {names.BASE_NAME: base.name, names.BASE_VERSION: base.version, names.BASE_CLUSTER: base.cluster}
    mapped = {label: text for label, text in told.items() if labels[label] != text}
    if base.ip:
        mapped[names.BASE_IP] = base.ip
    annotations = {names.BASE_IDENTITY: base.identity, names.BASE_TUNNEL: base.way.value, **mapped}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": labels, "annotations": annotations},
        "spec": {
            "taints": [
                {"key": names.TAINT_VIRTUAL, "value": "True", "effect": "NoExecute"},
                {"key": names.TAINT_ENV, "value": env, "effect": "NoExecute"},
            ]
        },
    }


def node_status(
    base: AnnouncedBase,
    life: Life,
    capacity: Capacity,
    before: Mapping[str, Any],
    *,
    now: float,
    strays: str = "",
    address: str | None = None,
    kubelet_port: int | None = None,
) -> Document:
    """Make the status of the Node of a base, for a strategic merge patch. ``before`` is the last told status.

    ``strays`` names the modules without a Pod, for people.
    ``address`` and ``kubelet_port`` are those of the kubelet API, if the controller serves one; else the base's.

    Equal facts give an equal status, but for the time of the heartbeat.
    """
    addresses = [{"type": "InternalIP", "address": address or base.ip or _LOCALHOST}]
    if base.host:
        addresses.append({"type": "Hostname", "address": base.host})
    total, left = {"pods": str(_PODS)}, {"pods": str(_PODS)}
    if capacity.modules is not None:
        total["pods"] = left["pods"] = str(capacity.modules)
    if capacity.memory_bytes is not None:
        left_bytes = capacity.memory_bytes if capacity.memory_left_bytes is None else capacity.memory_left_bytes
        total["memory"], left["memory"] = _kib(capacity.memory_bytes), _kib(left_bytes)
    if capacity.processors is not None:
        total["cpu"] = left["cpu"] = str(capacity.processors)
    status: Document = {
        "phase": "Running",
        "addresses": addresses,
        "capacity": total,
        "allocatable": left,
        "conditions": _conditions(life, strays, before, now),
        "nodeInfo": _node_info(base),
    }
    told = ((before.get("daemonEndpoints") or {}).get("kubeletEndpoint") or {}).get("Port")
    if kubelet_port is not None or told:
        status["daemonEndpoints"] = {"kubeletEndpoint": {"Port": kubelet_port or 0}}
    return status


def is_ready(node: Mapping[str, Any] | None) -> bool:
    """Whether a Node is ready; an absent one is not."""
    conditions = ((node or {}).get("status") or {}).get("conditions") or ()
    return any((one["type"], one["status"]) == ("Ready", "True") for one in conditions)


def is_told(status: Mapping[str, Any], before: Mapping[str, Any]) -> bool:
    """Whether the API server has the status already; times of heartbeats do not count."""
    return all(
        _bare(before.get(member)) == _bare(value) if member == "conditions" else _covers(before.get(member), value)
        for member, value in status.items()
    )


def differences(wanted: Mapping[str, Any], there: Mapping[str, Any]) -> Document:
    """Return the merge patch for a Node to get the labels, annotations and taints of a base; empty for no difference.

    Labels, annotations and taints of others stay.
    """
    patch: Document = {}
    metadata = there.get("metadata") or {}
    for table in ("labels", "annotations"):
        present = metadata.get(table) or {}
        other = {key: value for key, value in wanted["metadata"][table].items() if present.get(key) != value}
        if other:
            patch.setdefault("metadata", {})[table] = other
    taints = (there.get("spec") or {}).get("taints") or []
    lacking = [taint for taint in wanted["spec"]["taints"] if not any(_is_like(taint, one) for one in taints)]
    if lacking:
        patch["spec"] = {"taints": [*taints, *lacking]}
    return patch


def words_of(life: Life) -> tuple[str, str, str]:
    """Return the condition ``Ready`` for the life of a base: the status, the reason, and the message."""
    return _READY[life]


def _conditions(life: Life, strays: str, before: Mapping[str, Any], now: float) -> list[Document]:
    ready = words_of(life)
    wanted = {"Ready": ready, **{kind: ("False", *words) for kind, words in _CALM.items()}}
    wanted[STRAYS] = (
        ("True", "ModulesWithoutPod", strays)
        if strays
        else ("False", "EachModuleHasPod", "each module of the base has a Pod")
    )
    past = {condition["type"]: condition for condition in before.get("conditions") or ()}
    told = []
    for kind, (holds, reason, message) in wanted.items():
        known = past.get(kind, {})
        since = known.get("lastTransitionTime") if known.get("status") == holds else None
        told.append(
            {
                "type": kind,
                "status": holds,
                "reason": reason,
                "message": message,
                "lastHeartbeatTime": time_text(now),
                "lastTransitionTime": since or time_text(now),
            }
        )
    return told


def _node_info(base: AnnouncedBase) -> Document:
    """Fill the members required by Kubernetes; only the version says something about a base."""
    empty = ("machineID", "systemUUID", "bootID", "kernelVersion", "osImage", "kubeProxyVersion")
    said = {
        "operatingSystem": "linux",
        "architecture": "",
        "containerRuntimeVersion": f"koupleless://{base.version}",
        "kubeletVersion": base.version,
    }
    return {**dict.fromkeys(empty, ""), **said}


def _bare(conditions: Any) -> dict[str, Document]:
    return {
        one["type"]: {name: value for name, value in one.items() if name != "lastHeartbeatTime"}
        for one in conditions or ()
    }


def _covers(there: Any, wanted: Any) -> bool:
    if isinstance(wanted, dict):
        return isinstance(there, dict) and all(_covers(there.get(name), value) for name, value in wanted.items())
    return bool(there == wanted)


def _is_like(taint: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return all(taint.get(member) == other.get(member) for member in ("key", "value", "effect"))


def _kib(size_bytes: int) -> str:
    return f"{max(size_bytes, 0) // _KIB}Ki"
