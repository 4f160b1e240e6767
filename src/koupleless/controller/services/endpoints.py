"""The bases that answer for a module: their addresses and ports, from Pods and Nodes."""

from __future__ import annotations

import ipaddress
from collections import defaultdict
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from koupleless.controller import names
from koupleless.controller.vpods.pod import DEACTIVATED
from koupleless.controller.vpods.status import is_ready

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from koupleless.controller.vpods.pod import VPod

_TRUE: Final = "True"


class Endpoint(NamedTuple):
    """One base of a module."""

    family: str
    """``IPv4`` or ``IPv6``."""
    address: str
    port: int
    is_ready: bool
    is_leaving: bool
    node: str

    def document(self) -> dict[str, Any]:
        """Make the member of an EndpointSlice."""
        conditions = {"ready": self.is_ready, "serving": self.is_ready, "terminating": self.is_leaving}
        return {"addresses": [self.address], "conditions": conditions, "nodeName": self.node}


class Omission(NamedTuple):
    """A base that cannot be an endpoint; the text says why, and the remedy."""

    node: str
    message: str


def endpoints_of(
    pods: Iterable[VPod], node_of: Callable[[str], Mapping[str, Any] | None], *, target_port: int
) -> tuple[list[Endpoint], list[Omission]]:
    """Judge the bases of the Pods of a module; ``target_port`` is 0 for the ports announced by the bases.

    A base answers if one of its Pods is ready, or has made way: another version of the module answers then. Hence an
    endpoint stays ready through a rolling update, although the Pods change their readiness one after the other.
    """
    by_node: defaultdict[str, list[VPod]] = defaultdict(list)
    for pod in pods:
        if pod.node and not pod.has_ended:
            by_node[pod.node].append(pod)
    found: dict[tuple[str, int], Endpoint] = {}
    omitted = []
    for name, those in sorted(by_node.items()):
        node = node_of(name)
        address = next((pod.status["podIP"] for pod in those if pod.status.get("podIP")), "")
        if node is None or not address:
            continue  # the base is gone, or has not heard of the Pod yet
        port = target_port or _announced(node)
        if problem := _problem(address, port):
            omitted.append(Omission(name, problem))
            continue
        answers = any(is_ready(pod.status) and not pod.is_leaving for pod in those) or (
            is_ready(node.get("status") or {}) and any(_has_made_way(pod) for pod in those)
        )
        family = f"IPv{ipaddress.ip_address(address).version}"
        is_leaving = all(pod.is_leaving for pod in those)
        known = found.get((address, port))
        if known is None or answers:
            found[address, port] = Endpoint(family, address, port, answers, is_leaving, name)
    return [*found.values()], omitted


def _announced(node: Mapping[str, Any]) -> int:
    text = str((node["metadata"].get("labels") or {}).get(names.BASE_SERVICE_PORT, ""))
    return int(text) if text.isdecimal() else 0


def _problem(address: str, port: int) -> str:
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return f"the address {address!r} of the base is no IP address: set arklet.local-ip"
    if found.is_loopback or found.is_unspecified or found.is_link_local or found.is_multicast:
        return f"nobody else reaches the base at {address}: set arklet.local-ip to the address of the machine"
    if not port:
        return "the base announces no port: set arklet.service-port there, or service.koupleless.io/target-port here"
    return ""


def _has_made_way(pod: VPod) -> bool:
    """Whether all modules of a Pod answer, some of them in other versions."""
    told = pod.status.get("containerStatuses") or ()
    states = [((one.get("state") or {}).get("waiting") or {}).get("reason") for one in told]
    return DEACTIVATED in states and all(
        reason == DEACTIVATED or one.get("ready") for reason, one in zip(states, told, strict=True)
    )
