"""The wishes of the author of a Deployment about the Service of the module, in annotations; and the Service."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Self

from koupleless.controller import names

if TYPE_CHECKING:
    from collections.abc import Mapping

    from koupleless.controller.peers.deployment import Deployment

PORT: Final = names.SERVICE + "port"
TARGET_PORT: Final = names.SERVICE + "target-port"
NAME: Final = names.SERVICE + "name"
TYPE: Final = names.SERVICE + "type"

PORT_NAME: Final = "http"
"""The name of the one port, of the Service and the EndpointSlices."""
_TYPES: Final = ("ClusterIP", "NodePort", "LoadBalancer")
_NAME: Final = re.compile(r"[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?")
_MOST: Final = 2**16 - 1


class Senseless(ValueError):
    """An annotation without sense; the text names the annotation."""


@dataclass(frozen=True, slots=True)
class Wishes:
    """The wanted Service of one Deployment."""

    name: str
    port: int
    target_port: int = 0
    """The port of the application of every base; 0 for the port announced by each base."""
    kind: str = _TYPES[0]

    @classmethod
    def of(cls, deployment: Deployment) -> Self | None:
        """Read the annotations; ``None`` for a Deployment without a Service. Raises `Senseless`."""
        texts = deployment.annotations
        if PORT not in texts:
            return None
        name = texts.get(NAME, deployment.key.name)
        if not _NAME.fullmatch(name):
            raise Senseless(f"{name[:80]!r} is no name of a Service: choose one with {NAME}")
        kind = texts.get(TYPE, _TYPES[0])
        if kind not in _TYPES:
            raise Senseless(f"{TYPE} is {kind[:40]!r}, and not one of {', '.join(_TYPES)}")
        target_port = _port(texts, TARGET_PORT) if TARGET_PORT in texts else 0
        return cls(name, _port(texts, PORT), target_port, kind)

    def document(self, deployment: Deployment, env: str) -> dict[str, Any]:
        """Make the Service, without a selector: a selector would have Kubernetes make EndpointSlices besides ours."""
        owner = {"apiVersion": "apps/v1", "kind": "Deployment", "name": deployment.key.name, "uid": deployment.uid}
        return {
            "metadata": {
                "name": self.name,
                "labels": labels_of(env),
                "ownerReferences": [{**owner, "controller": True}],
            },
            "spec": {"type": self.kind, "ports": [self.port_document()]},
        }

    def port_document(self) -> dict[str, Any]:
        """Make the port of the Service."""
        return {"name": PORT_NAME, "port": self.port, "protocol": "TCP"}


@dataclass(frozen=True, slots=True)
class Service:
    """A Service of a module, as told by the API server."""

    name: str
    uid: str
    version: str
    owner: str
    """The UID of the Deployment."""
    deployment: str
    kind: str
    port: int

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Self:
        """Read the JSON document of a Service."""
        metadata, spec = document["metadata"], document.get("spec") or {}
        owner: Mapping[str, Any] = next(
            (one for one in metadata.get("ownerReferences") or () if one.get("controller")), {}
        )
        ports = spec.get("ports") or [{}]
        return cls(
            name=metadata["name"],
            uid=metadata.get("uid", ""),
            version=metadata.get("resourceVersion", ""),
            owner=owner.get("uid", ""),
            deployment=owner.get("name", ""),
            kind=spec.get("type") or _TYPES[0],
            port=ports[0].get("port", 0) if len(ports) == 1 else 0,
        )


def labels_of(env: str) -> dict[str, str]:
    """Return the labels of all objects made for Services of modules."""
    return {names.COMPONENT: names.MODULE_SERVICE, names.ENV: env}


def _port(texts: Mapping[str, str], name: str) -> int:
    text = texts[name]
    if not (text.isascii() and text.isdecimal() and len(text) < 6 and 0 < int(text) <= _MOST):  # noqa: PLR2004 - digits
        raise Senseless(f"{name} is {text[:40]!r}, and no port")
    return int(text)
