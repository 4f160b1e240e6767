"""The hooks of a Pod before its modules leave (``lifecycle.preStop``), as a kubelet reads them.

Source: the Kubernetes API reference, type LifecycleHandler; Kubernetes documentation, "Container Lifecycle Hooks".
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from koupleless.controller.vpods.pod import VPod


@dataclass(frozen=True, slots=True)
class Visit:
    """A GET that a kubelet would send to a container."""

    path: str
    port: int
    scheme: str = "http"
    host: str = ""
    """Empty for the address of the base."""
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    """Values may be secrets."""


@dataclass(frozen=True, slots=True)
class Sleep:
    """A pause, for those who send requests to notice the end."""

    seconds: float


@dataclass(frozen=True, slots=True)
class NoHook:
    """A hook that modules cannot have; the text says why."""

    message: str


Hook = Visit | Sleep | NoHook


def hooks_of(pod: VPod) -> tuple[Hook, ...]:
    """Read the hooks of all containers, in order."""
    found = ((container, (container.get("lifecycle") or {}).get("preStop")) for container in pod.containers)
    return tuple(_hook(container, hook) for container, hook in found if hook)


def _hook(container: Mapping[str, Any], hook: Mapping[str, Any]) -> Hook:
    if pause := hook.get("sleep"):
        return Sleep(float(pause.get("seconds") or 0))
    if get := hook.get("httpGet"):
        port = port_of(container, get.get("port"))
        if port is None:
            return NoHook(f"the container {container['name']!r} has no port {get.get('port')!r} for the hook preStop")
        path = get.get("path") or "/"
        headers = tuple((one["name"], one.get("value") or "") for one in get.get("httpHeaders") or ())
        return Visit(path, port, (get.get("scheme") or "HTTP").lower(), get.get("host") or "", headers)
    kinds = " and ".join(hook)
    return NoHook(f"a module has no hook preStop of the kind {kinds}; use httpGet or sleep")


def port_of(container: Mapping[str, Any], port: object) -> int | None:
    """Return the number of a port given by number, or by the name of a port of the container."""
    if isinstance(port, int):
        return port
    named = {one.get("name"): one.get("containerPort") for one in container.get("ports") or ()}
    found = named.get(port)
    return found if isinstance(found, int) else int(port) if isinstance(port, str) and port.isdecimal() else None
