"""EndpointSlices of a Service: one port each, and at most a hundred bases, which stay where they are."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self

from koupleless.controller.services.wishes import PORT_NAME, labels_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from koupleless.controller.services.endpoints import Endpoint

SERVICE_NAME: Final = "kubernetes.io/service-name"
MANAGED_BY: Final = "endpointslice.kubernetes.io/managed-by"
MANAGER: Final = "controller.koupleless.io"
_MOST: Final = 100
"""Endpoints in a slice: a change of one base is a write of so many at most."""


class Place(NamedTuple):
    """The common part of the endpoints of a slice."""

    family: str
    port: int


@dataclass(frozen=True, slots=True)
class Slice:
    """An EndpointSlice, as told by the API server."""

    name: str
    version: str
    service: str
    owner: str
    """The UID of the Service."""
    place: Place
    endpoints: Sequence[Mapping[str, Any]]

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Self:
        """Read the JSON document of an EndpointSlice."""
        metadata = document["metadata"]
        ports = document.get("ports") or [{}]
        owner = (metadata.get("ownerReferences") or [{}])[0]
        return cls(
            name=metadata["name"],
            version=metadata.get("resourceVersion", ""),
            service=(metadata.get("labels") or {}).get(SERVICE_NAME, ""),
            owner=owner.get("uid", ""),
            place=Place(document.get("addressType", ""), ports[0].get("port") or 0),
            endpoints=tuple(document.get("endpoints") or ()),
        )

    def addresses(self) -> list[str]:
        """Return the addresses of the endpoints."""
        return [one["addresses"][0] for one in self.endpoints]


@dataclass(frozen=True, slots=True)
class Layout:
    """The wanted slices by name, each with its place and endpoints."""

    slices: Mapping[str, tuple[Place, Sequence[Endpoint]]]


def layout(service: str, endpoints: Iterable[Endpoint], there: Iterable[Slice]) -> Layout:
    """Lay endpoints out in slices. An endpoint stays in its slice, and a new one goes to the first slice with room.

    Slices left without an endpoint are not in the layout.
    """
    wanted: defaultdict[Place, dict[str, Endpoint]] = defaultdict(dict)
    for endpoint in endpoints:
        wanted[Place(endpoint.family, endpoint.port)][endpoint.address] = endpoint
    laid: dict[str, tuple[Place, list[Endpoint]]] = {}
    for one in sorted(there, key=lambda one: one.name):
        missing = wanted.get(one.place, {})
        kept = [missing.pop(address) for address in one.addresses() if address in missing]
        if kept:
            laid[one.name] = one.place, kept
    for place, missing in sorted(wanted.items()):
        number = 0
        while missing:
            number += 1
            name = f"{service}-{place.port}-{place.family[-1]}-{number}"
            _, inside = laid.setdefault(name, (place, []))
            while missing and len(inside) < _MOST:
                inside.append(missing.pop(next(iter(missing))))
    return Layout({name: (place, inside) for name, (place, inside) in laid.items() if inside})


def document(
    name: str, place: Place, endpoints: Sequence[Endpoint], *, service: str, uid: str, env: str
) -> dict[str, Any]:
    """Make an EndpointSlice; ``uid`` is that of the Service, with which the slice goes."""
    owner = {"apiVersion": "v1", "kind": "Service", "name": service, "uid": uid}
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": name,
            "labels": {**labels_of(env), SERVICE_NAME: service, MANAGED_BY: MANAGER},
            "ownerReferences": [owner],
        },
        "addressType": place.family,
        "endpoints": [one.document() for one in endpoints],
        "ports": [{"name": PORT_NAME, "port": place.port, "protocol": "TCP"}],
    }
