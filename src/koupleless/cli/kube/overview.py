"""Bases, Pods and controllers of a cluster at one moment, from Nodes, Pods and Leases. Pure functions; nothing asks."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from koupleless.cli.kube.advice import advice_for
from koupleless.cli.showing.suggestions import PREFACE
from koupleless.controller import names
from koupleless.controller.vpods.module import NAME_VARIABLE, VERSION_VARIABLE

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    Document = Mapping[str, Any]

READY: Final = "ready"
SILENT: Final = "silent"
GONE: Final = "gone"
_LIVES: Final = {"True": READY, "Unknown": SILENT, "False": GONE}
_STRAYS: Final = "StrayModules"
_ENDED: Final = frozenset({"Succeeded", "Failed"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    """A base, as the Node of the base tells."""

    node: str
    name: str
    version: str
    cluster: str
    env: str
    address: str
    life: str
    """``ready``, ``silent`` or ``gone``."""
    is_cordoned: bool
    """Whether the scheduler puts no further Pods on the base."""
    since_s: float | None
    """Seconds since the last change of the life."""
    ready: int
    """The number of modules that answer."""
    wanted: int
    """The number of modules in the Pods of the base."""
    controller: str
    """The holder of the Lease; empty without one."""
    renewed_s: float | None
    """Seconds since the Lease was renewed, by the clock of this machine."""
    is_led: bool
    """Whether the Lease has not lapsed."""
    strays: str
    """The modules without a Pod, in words; empty without such modules."""
    news: str
    """The last news about the life, in words."""

    @property
    def is_well(self) -> bool:
        """Whether the base lives, is led, and has no strays."""
        return self.life == READY and self.is_led and not self.strays


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """A container, or a whole Pod, that is not ready."""

    pod: str
    """``namespace/name``."""
    node: str
    module: str
    since_s: float | None
    reason: str
    message: str
    advice: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """A controller, as its own Lease and the Leases of Nodes tell; one of the original has no Lease of its own."""

    name: str
    bases: int
    renewed_s: float | None
    """Seconds since the last renewal of any of these Leases, by the clock of this machine."""
    is_alive: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    """A cluster at one moment."""

    bases: tuple[Base, ...]
    troubles: tuple[Trouble, ...]
    controllers: tuple[Holder, ...]

    @property
    def is_well(self) -> bool:
        """Whether all bases live and are led, all Pods are ready, and no module lacks a Pod."""
        return not self.troubles and all(base.is_well for base in self.bases)

    @classmethod
    def of(
        cls,
        nodes: Iterable[Document],
        pods: Sequence[Document],
        leases: Iterable[Document],
        *,
        now: float,
        namespace: str | None = None,
        env: str | None = None,
    ) -> Overview:
        """Read the documents of a cluster. Modules are counted over all ``pods``, troubles are those of a namespace.

        With an ``env``, Pods on other Nodes are left out, and Pods without a Node unless the selector names the env.
        """
        held: dict[bool, list[Document]] = {True: [], False: []}
        for lease in leases:
            held[(lease["metadata"].get("labels") or {}).get(names.COMPONENT) == names.CONTROLLER_LEASE].append(lease)
        by_node = {lease["metadata"]["name"]: lease for lease in held[False]}
        counts = _count(pods)
        there = sorted(nodes, key=lambda node: str(node["metadata"]["name"]))
        bases = tuple(_base(node, by_node.get(node["metadata"]["name"]), counts, now) for node in there)
        of_env = {base.node for base in bases}
        chosen = [pod for pod in pods if namespace in {None, pod["metadata"].get("namespace")}]
        if env is not None:
            chosen = [pod for pod in chosen if pod["spec"].get("nodeName") in of_env or _env(pod) == env]
        troubles = tuple(trouble for pod in sorted(chosen, key=_name) for trouble in _troubles(pod, of_env, now))
        return cls(bases=bases, troubles=troubles, controllers=_controllers(bases, held[True], now))


# --- bases -----------------------------------------------------------------------------------------------------------


def _base(node: Document, lease: Document | None, counts: Counter[tuple[str, bool]], now: float) -> Base:
    metadata, status = node["metadata"], node.get("status") or {}
    labels, annotations = metadata.get("labels") or {}, metadata.get("annotations") or {}
    conditions = {one["type"]: one for one in status.get("conditions") or ()}
    ready, strays = conditions.get("Ready", {}), conditions.get(_STRAYS, {})
    addresses = {one["type"]: one["address"] for one in status.get("addresses") or ()}
    spec = {} if lease is None else lease.get("spec") or {}
    renewed_s, is_led = _renewed(spec, now)
    name, port = metadata["name"], labels.get(names.BASE_PORT)
    answering, waiting = counts[name, True], counts[name, False]

    def text(label: str) -> str:
        return str(annotations.get(label) or labels.get(label, ""))

    return Base(
        node=name,
        name=text(names.BASE_NAME),
        version=text(names.BASE_VERSION),
        cluster=text(names.BASE_CLUSTER),
        env=labels.get(names.ENV, ""),
        address=(annotations.get(names.BASE_IP) or addresses.get("InternalIP", "")) + (f":{port}" if port else ""),
        life=_LIVES.get(ready.get("status", "Unknown"), SILENT),
        is_cordoned=bool((node.get("spec") or {}).get("unschedulable")),
        since_s=_age(ready.get("lastTransitionTime"), now),
        ready=answering,
        wanted=answering + waiting,
        controller=spec.get("holderIdentity") or "",
        renewed_s=renewed_s,
        is_led=is_led,
        strays=str(strays.get("message") or "") if strays.get("status") == "True" else "",
        news=str(ready.get("message") or "the controller has told nothing yet"),
    )


def _count(pods: Iterable[Document]) -> Counter[tuple[str, bool]]:
    """Count the modules of each Node, ready and not, without those of ended and leaving Pods."""
    found: Counter[tuple[str, bool]] = Counter()
    for pod in pods:
        status, node = pod.get("status") or {}, pod["spec"].get("nodeName")
        if node and status.get("phase") not in _ENDED and not pod["metadata"].get("deletionTimestamp"):
            ready = {one["name"] for one in status.get("containerStatuses") or () if one.get("ready")}
            found.update((node, container["name"] in ready) for container in pod["spec"]["containers"])
    return found


def _controllers(bases: Iterable[Base], leases: Iterable[Document], now: float) -> tuple[Holder, ...]:
    led = Counter(base.controller for base in bases if base.controller)
    ages: dict[str, list[tuple[float | None, bool]]] = {name: [] for name in led}
    for base in bases:
        if base.controller:
            ages[base.controller].append((base.renewed_s, base.is_led))
    for lease in leases:
        spec = lease.get("spec") or {}
        if name := spec.get("holderIdentity"):
            ages.setdefault(name, []).append(_renewed(spec, now))
    return tuple(
        Holder(
            name=name,
            bases=led[name],
            renewed_s=min((age for age, _ in told if age is not None), default=None),
            is_alive=any(is_held for _, is_held in told),
        )
        for name, told in sorted(ages.items())
    )


def _renewed(spec: Mapping[str, Any], now: float) -> tuple[float | None, bool]:
    """Return the seconds since a Lease was renewed, and whether the Lease has not lapsed."""
    age_s = _age(spec.get("renewTime"), now)
    return age_s, bool(spec.get("holderIdentity")) and (age_s or 0) <= (spec.get("leaseDurationSeconds") or 0)


# --- Pods ------------------------------------------------------------------------------------------------------------


def _troubles(pod: Document, nodes: set[str], now: float) -> Iterable[Trouble]:
    metadata, status, node = pod["metadata"], pod.get("status") or {}, pod["spec"].get("nodeName") or ""
    conditions = {one["type"]: one for one in status.get("conditions") or ()}
    ready = conditions.get("Ready", {})
    if status.get("phase") == "Succeeded" or (ready.get("status") == "True" and node in nodes):
        return
    since_s = _age(ready.get("lastTransitionTime") or metadata.get("creationTimestamp"), now)

    def trouble(module: str, reason: str, message: str, *, after_s: float | None = since_s) -> Trouble:
        advice = advice_for(reason, message)
        return Trouble(
            pod=_name(pod), node=node, module=module, since_s=after_s, reason=reason, message=message, advice=advice
        )

    if leaves := metadata.get("deletionTimestamp"):
        late_s = _age(leaves, now)
        if late_s is not None and late_s > 0:  # before, the Pod is within the grace
            yield trouble(_modules(pod), "Leaving", "the Pod should have left by now", after_s=late_s)
        return
    if not node:
        scheduled = conditions.get("PodScheduled", {})
        yield trouble(_modules(pod), scheduled.get("reason") or "Pending", scheduled.get("message") or "")
        return
    if node not in nodes:
        yield trouble(_modules(pod), "NoBase", f"Node {node} is no base, or gone")
        return
    told = {one["name"]: one for one in status.get("containerStatuses") or ()}
    for container in pod["spec"]["containers"]:
        one = told.get(container["name"], {})
        if not one.get("ready"):
            state = one.get("state") or {}
            said = state.get("waiting") or state.get("terminated") or {}
            reason = said.get("reason") or ("BaseSilent" if one else "NotBegun")
            message = (said.get("message") or "").removeprefix(PREFACE)
            yield trouble(_module(container), reason, message)


def _name(pod: Document) -> str:
    return f"{pod['metadata'].get('namespace', 'default')}/{pod['metadata']['name']}"


def _modules(pod: Document) -> str:
    return ", ".join(_module(container) for container in pod["spec"]["containers"])


def _module(container: Mapping[str, Any]) -> str:
    """Return the identity of a module as far as the container says; a version from elsewhere is left out."""
    plain = {one["name"]: one.get("value") for one in container.get("env") or ()}
    name, version = plain.get(NAME_VARIABLE) or container["name"], plain.get(VERSION_VARIABLE)
    return f"{name}:{version}" if version else str(name)


def _env(pod: Document) -> str | None:
    return (pod["spec"].get("nodeSelector") or {}).get(names.ENV)


def _age(text: str | None, now: float) -> float | None:
    """Return the seconds from a time as written by Kubernetes; ``None`` without a time."""
    if not text:
        return None
    try:
        return now - dt.datetime.fromisoformat(text).timestamp()
    except ValueError:
        return None
