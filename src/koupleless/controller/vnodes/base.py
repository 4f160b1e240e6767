"""A base in the words of a heartbeat. Bases differ in the case of letters and in the members of a heartbeat."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Self

from koupleless.controller import names

if TYPE_CHECKING:
    from collections.abc import Mapping

DEFAULT_PORT: Final = 1238
_UNKNOWN: Final = "unknown"


class Senseless(ValueError):
    """A heartbeat without sense; the text says why."""


class Foreign(Exception):
    """A heartbeat for a base that belongs to another; the text says to whom."""


class BaseState(enum.Enum):
    """The state of a base in the words of the base; any word other than that of an active base means an end."""

    ACTIVATED = "ACTIVATED"
    DEACTIVATED = "DEACTIVATED"


class Way(enum.Enum):
    """The tunnel by which a base is heard, and called."""

    HTTP = "http"
    MQTT = "mqtt"


@dataclass(frozen=True, slots=True)
class AnnouncedBase:
    """The last news of a base."""

    identity: str
    name: str
    version: str
    cluster: str
    ip: str
    host: str
    port: int
    """The port of the arklet; 0 where the base says none, as bases of the original over MQTT."""
    state: BaseState
    start: str = ""
    """A text for one start of the base; empty where the base says none."""
    speaker: str = ""
    """The service account and the Pod that speak for the base, ``namespace/name/pod``; empty for the shared token."""
    service_port: int = 0
    """The port of the application; 0 where the base says none."""
    way: Way = Way.HTTP

    @classmethod
    def of(cls, document: object) -> Self:
        """Read a heartbeat. Raises `Senseless`."""
        body = _mapping(document, "the heartbeat")
        metadata = _mapping(_member(body, "baseMetadata"), "baseMetadata")
        identity = _text(metadata, "identity")
        if not identity:
            raise Senseless("baseMetadata.identity is missing")
        state = _text(body, "state").upper()
        ip = _text(body, "localIP")
        return cls(
            identity=identity,
            name=_text(metadata, "name"),
            version=_text(metadata, "version"),
            cluster=_text(metadata, "clusterName"),
            ip="" if ip.lower() == _UNKNOWN else ip,
            host=_text(body, "localHostName"),
            port=_port(body, "port"),
            state=BaseState.ACTIVATED if state == BaseState.ACTIVATED.value else BaseState.DEACTIVATED,
            start=_text(body, "startId"),
            service_port=_port(body, "servicePort"),
        )

    @classmethod
    def of_node(cls, document: Mapping[str, Any]) -> Self | None:
        """Read a base from the Node of the base; ``None`` for other Nodes."""
        metadata = document["metadata"]
        labels, annotations = metadata.get("labels") or {}, metadata.get("annotations") or {}
        identity = names.identity_of(metadata["name"], annotations)
        if not identity:
            return None
        addresses = {one["type"]: one["address"] for one in (document.get("status") or {}).get("addresses") or ()}
        port, service_port = labels.get(names.BASE_PORT, ""), labels.get(names.BASE_SERVICE_PORT, "")
        way = annotations.get(names.BASE_TUNNEL)
        if way is None and not port:
            way = Way.MQTT.value  # the original gives the Node of a base over MQTT no port
        return cls(
            identity=identity,
            name=annotations.get(names.BASE_NAME) or labels.get(names.BASE_NAME, ""),
            version=annotations.get(names.BASE_VERSION) or labels.get(names.BASE_VERSION, ""),
            cluster=annotations.get(names.BASE_CLUSTER) or labels.get(names.BASE_CLUSTER, ""),
            ip=annotations.get(names.BASE_IP) or addresses.get("InternalIP", ""),
            host=addresses.get("Hostname") or labels.get(names.BASE_HOST, ""),
            port=int(port) if port.isdecimal() else 0,
            state=BaseState.ACTIVATED,
            service_port=int(service_port) if service_port.isdecimal() else 0,
            way=Way.MQTT if way == Way.MQTT.value else Way.HTTP,
        )


def _mapping(value: object, what: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise Senseless(f"{what} is no object")
    return {str(name).lower(): member for name, member in value.items()}


def _member(body: Mapping[str, Any], name: str) -> object:
    return body.get(name.lower())


def _port(body: Mapping[str, Any], name: str) -> int:
    value = _member(body, name) or 0
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**16:
        raise Senseless(f"{name} is no port: {str(value)[:40]!r}")
    return value


def _text(body: Mapping[str, Any], name: str) -> str:
    value = _member(body, name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise Senseless(f"{name} is no text")
    return value
