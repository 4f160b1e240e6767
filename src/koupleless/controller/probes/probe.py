"""Probes of a container as values.

Source: the Kubernetes API reference, type Probe; Kubernetes documentation, "Liveness, Readiness, and Startup Probes".
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from koupleless.controller.vpods.hooks import port_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_PORTS: Final = range(1, 2**16)


class Kind(enum.Enum):
    """The use of a probe."""

    STARTUP = "startup"
    """Until the first success, no other probe is sent; a failure starts the module again."""
    READINESS = "readiness"
    """The container is ready after a success, and not after a failure."""
    LIVENESS = "liveness"
    """A failure starts the module again."""


@dataclass(frozen=True, slots=True)
class HttpCheck:
    """A GET; a status from 200 to 399 is a success."""

    port: int
    path: str = "/"
    scheme: str = "http"
    host: str = ""
    """Empty for the address of the base."""
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    """Values may be secrets."""


@dataclass(frozen=True, slots=True)
class TcpCheck:
    """A connection, which is a success once it stands."""

    port: int
    host: str = ""


@dataclass(frozen=True, slots=True)
class GrpcCheck:
    """A question by the health protocol of gRPC; ``SERVING`` is a success."""

    port: int
    service: str = ""


Check = HttpCheck | TcpCheck | GrpcCheck


@dataclass(frozen=True, slots=True)
class Probe:
    """One probe of one container. Times are seconds."""

    kind: Kind
    check: Check
    delay_s: float = 0.0
    """From the start of the module to the first check."""
    period_s: float = 10.0
    timeout_s: float = 1.0
    successes: int = 1
    """Successes in a row for a success."""
    failures: int = 3
    """Failures in a row for a failure."""
    grace_s: float | None = None
    """The time for requests in flight after a failure; ``None`` means that of the Pod."""


@dataclass(frozen=True, slots=True)
class NoProbe:
    """A probe that modules cannot have; the text says why. The container counts as one without this probe."""

    message: str


def has_probes(container: Mapping[str, Any]) -> bool:
    """Whether a container asks for a probe."""
    return any(container.get(f"{kind.value}Probe") for kind in Kind)


def probes_of(container: Mapping[str, Any]) -> tuple[Probe | NoProbe, ...]:
    """Read the probes of a container."""
    return tuple(_probes(container))


def _probes(container: Mapping[str, Any]) -> Iterator[Probe | NoProbe]:
    for kind in Kind:
        wanted = container.get(f"{kind.value}Probe")
        if wanted:
            check = _check(container, wanted, kind)
            yield check if isinstance(check, NoProbe) else _probe(kind, check, wanted)


def _probe(kind: Kind, check: Check, wanted: Mapping[str, Any]) -> Probe:
    grace_s = wanted.get("terminationGracePeriodSeconds")
    return Probe(
        kind,
        check,
        delay_s=float(wanted.get("initialDelaySeconds") or 0),
        period_s=float(wanted.get("periodSeconds") or 10),
        timeout_s=float(wanted.get("timeoutSeconds") or 1),
        successes=int(wanted.get("successThreshold") or 1),
        failures=int(wanted.get("failureThreshold") or 3),
        grace_s=None if grace_s is None else float(grace_s),
    )


def _check(container: Mapping[str, Any], wanted: Mapping[str, Any], kind: Kind) -> Check | NoProbe:
    for member in ("httpGet", "tcpSocket", "grpc"):
        if action := wanted.get(member):
            port = port_of(container, action.get("port"))
            if port is None or port not in _PORTS:
                place = f"the container {container['name']!r} has no port {action.get('port')!r}"
                return NoProbe(f"{place} for its {kind.value} probe")
            return _action(member, port, action)
    kinds = " and ".join(name for name in wanted if isinstance(wanted[name], dict)) or "none"
    return NoProbe(f"a module has no {kind.value} probe of the kind {kinds}; use httpGet, tcpSocket or grpc")


def _action(member: str, port: int, action: Mapping[str, Any]) -> Check:
    host = action.get("host") or ""
    if member == "tcpSocket":
        return TcpCheck(port, host)
    if member == "grpc":
        return GrpcCheck(port, action.get("service") or "")
    headers = tuple((one["name"], one.get("value") or "") for one in action.get("httpHeaders") or ())
    return HttpCheck(port, action.get("path") or "/", (action.get("scheme") or "HTTP").lower(), host, headers)
