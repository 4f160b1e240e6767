"""The environment of a container: values, ConfigMaps, Secrets, and fields of the Pod, folded as a kubelet folds them.

Source: the Kubernetes API reference, types EnvVar and EnvFromSource; "Define Dependent Environment Variables".
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from koupleless.controller.vpods.pod import VPod

_REFERENCE: Final = re.compile(r"\$\$|\$\(([A-Za-z_.-][A-Za-z0-9_.-]*)\)")
_NAME: Final = re.compile(r"[A-Za-z_.-][A-Za-z0-9_.-]*")
_ENTRY: Final = re.compile(r"metadata\.(labels|annotations)\['([^']+)'\]")


class Missing(Exception):
    """A value is missing. ``reason`` is that of a kubelet; the text names the value and the place."""

    reason: Final = "CreateContainerConfigError"


class Source(NamedTuple):
    """The name of a ConfigMap or a Secret in the namespace of a Pod."""

    kind: str
    """``ConfigMap`` or ``Secret``."""
    name: str


class Sources(Protocol):
    """The ConfigMaps and Secrets of one namespace, as far as known."""

    def find(self, source: Source) -> Mapping[str, str] | None:
        """Return the values of a source, in clear; ``None`` if there is no such source."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Facts about the base, for fields of the Pod."""

    node: str
    ip: str


def sources_of(container: Mapping[str, Any]) -> Iterator[Source]:
    """Name the ConfigMaps and Secrets of a container, to be fetched before `variables_of` is called."""
    for source in container.get("envFrom") or ():
        if reference := source.get("configMapRef"):
            yield Source("ConfigMap", reference["name"])
        if reference := source.get("secretRef"):
            yield Source("Secret", reference["name"])
    for variable in container.get("env") or ():
        value_from = variable.get("valueFrom") or {}
        if reference := value_from.get("configMapKeyRef"):
            yield Source("ConfigMap", reference["name"])
        if reference := value_from.get("secretKeyRef"):
            yield Source("Secret", reference["name"])


def variables_of(container: Mapping[str, Any], pod: VPod, sources: Sources, around: Surroundings) -> dict[str, str]:
    """Fold the environment of a container. Raises `Missing` for a missing value, unless optional."""
    return _Folding(container, pod, sources, around).folded()


def expanded(text: str, known: Mapping[str, str]) -> str:
    """Replace each ``$(NAME)`` of a known variable; ``$$`` is a ``$``, and an unknown name stays."""

    def replace(match: re.Match[str]) -> str:
        name = match[1]
        return "$" if name is None else known.get(name, match[0])

    return _REFERENCE.sub(replace, text)


def values_of(document: Mapping[str, Any]) -> dict[str, str]:
    """Return the values in the JSON document of a ConfigMap or a Secret; bytes other than text are left out."""
    if document.get("kind") != "Secret":
        return dict(document.get("data") or {})
    found = {}
    for name, value in (document.get("data") or {}).items():
        try:
            found[name] = base64.b64decode(value).decode()
        except ValueError:
            continue
    return found


@dataclass(frozen=True, slots=True)
class _Folding:
    """The environment of one container in the making."""

    container: Mapping[str, Any]
    pod: VPod
    sources: Sources
    around: Surroundings

    def folded(self) -> dict[str, str]:
        known: dict[str, str] = {}
        for source in self.container.get("envFrom") or ():
            prefix = source.get("prefix") or ""
            for kind, member in (("ConfigMap", "configMapRef"), ("Secret", "secretRef")):
                if reference := source.get(member):
                    found = self._found(kind, reference)
                    known |= {prefix + name: value for name, value in found.items() if _NAME.fullmatch(prefix + name)}
        for variable in self.container.get("env") or ():
            value = self._value(variable, known)
            if value is not None:
                known[variable["name"]] = value
        return known

    def _found(self, kind: str, reference: Mapping[str, Any]) -> Mapping[str, str]:
        found = self.sources.find(Source(kind, reference["name"]))
        if found is None and not reference.get("optional"):
            raise Missing(f"there is no {kind} {reference['name']!r}")
        return found or {}

    def _value(self, variable: Mapping[str, Any], known: Mapping[str, str]) -> str | None:
        """Return the value of one variable; ``None`` for a missing optional value."""
        origin = variable.get("valueFrom")
        if not origin:
            return expanded(variable.get("value") or "", known)
        for kind, member in (("ConfigMap", "configMapKeyRef"), ("Secret", "secretKeyRef")):
            if reference := origin.get(member):
                found = self._found(kind, reference).get(reference["key"])
                if found is None and not reference.get("optional"):
                    raise Missing(f"{kind} {reference['name']!r} has no key {reference['key']!r}")
                return found
        if reference := origin.get("fieldRef"):
            return self._field(reference["fieldPath"])
        if reference := origin.get("resourceFieldRef"):
            return self._resource(reference)
        raise Missing(f"the variable {variable['name']!r} has a source that modules do not know: {', '.join(origin)}")

    def _field(self, path: str) -> str:
        pod, around = self.pod, self.around
        if entry := _ENTRY.fullmatch(path):
            table = pod.labels if entry[1] == "labels" else pod.annotations
            return table.get(entry[2], "")
        plain = {
            "metadata.name": pod.key.name,
            "metadata.namespace": pod.key.namespace,
            "metadata.uid": pod.uid,
            "spec.nodeName": around.node,
            "spec.serviceAccountName": pod.service_account,
            "status.hostIP": around.ip,
            "status.hostIPs": around.ip,
            "status.podIP": around.ip,
            "status.podIPs": around.ip,
        }
        if path not in plain:
            raise Missing(f"a module has no field {path}")
        return plain[path]

    def _resource(self, reference: Mapping[str, Any]) -> str:
        kind, _, resource = reference["resource"].partition(".")
        name = reference.get("containerName") or self.container["name"]
        named = next((one for one in self.pod.containers if one["name"] == name), self.container)
        found = ((named.get("resources") or {}).get(kind) or {}).get(resource)
        if found is None:
            raise Missing(f"the container {name!r} has no {reference['resource']}")
        divisor = quantity(reference.get("divisor") or "1") or 1
        return str(-int(-quantity(str(found)) // divisor))  # rounded up, as a kubelet does


_UNITS: Final = {
    "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15,
    "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "Pi": 2**50,
}  # fmt: skip
_QUANTITY: Final = re.compile(r"([+-]?[0-9.]+)(?:([eE][+-]?[0-9]+)|([mkMGTP]|[KMGTP]i))?")


def quantity(text: str) -> float:
    """Return the number of a Kubernetes quantity such as ``128Mi``. Raises ``ValueError``."""
    match = _QUANTITY.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is no quantity")
    return float(match[1] + (match[2] or "")) * _UNITS.get(match[3] or "", 1)
