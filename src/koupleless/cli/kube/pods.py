"""The way from a Pod to the arklet of a base: the base inside the Pod, or the base of a module's Pod.

A base in the cluster is reached through ``kubectl port-forward``, which also reaches an arklet on the loopback address
of the Pod. A base outside the cluster is reached by the address of the base.
"""

from __future__ import annotations

import contextlib
import posixpath
import secrets
import urllib.parse
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from koupleless.cli.kube.kubectl import Kubectl
from koupleless.cli.showing.suggestions import KubectlFailed, NoBase, NotCopied, PodSilent
from koupleless.controller import names
from koupleless.errors import ArtifactError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from koupleless.cli.kube.kubectl import Forwarding
    from koupleless.errors import BaseUnreachable
    from koupleless.settings.client import ClientSettings

_DIRECTORY: Final = "/tmp"  # noqa: S108 - the one place that nearly every image lets its user write to


@dataclass(frozen=True, slots=True)
class Place:
    """The place of an arklet: a port of a Pod, or of an address."""

    port: int
    namespace: str = ""
    pod: str = ""
    """The Pod with the base; empty for a base outside the cluster."""
    host: str = ""
    """The address of a base outside the cluster."""


@dataclass(frozen=True, slots=True)
class Carrier:
    """Files on the way into the Pod of a base."""

    kubectl: Kubectl
    place: Place
    container: str | None = None

    @contextlib.contextmanager
    def carried(self, file: Path) -> Iterator[str]:
        """Hold a copy of a file in the Pod while the context lasts; gives the URL of the copy in the Pod.

        Raises ``ArtifactError`` for a directory, `NotCopied`.
        """
        if not file.is_file():
            raise ArtifactError(f"{file} is a directory, which is not copied into a Pod: build an artefact")
        place, token = self.place, secrets.token_hex(8)
        target = posixpath.join(_DIRECTORY, f"koupleless-{token}", file.name)
        try:
            try:
                self.kubectl.copy_into(file, place.namespace, place.pod, target, container=self.container)
            except KubectlFailed as error:
                raise NotCopied(str(error)) from None
            yield f"file://{urllib.parse.quote(target)}"
        finally:
            with contextlib.suppress(KubectlFailed):  # the Pod may be gone, and the copy with the Pod
                directory = posixpath.dirname(target)
                self.kubectl.remove_from(place.namespace, place.pod, directory, container=self.container)


@dataclass(frozen=True, slots=True)
class Way:
    """An open way to an arklet."""

    text: str
    """The Pod as named by the user, with the namespace."""
    host: str
    port: int
    carrier: Carrier | None = None
    """``None`` for a base outside the cluster."""
    forwarding: Forwarding | None = None

    def explain(self, error: BaseUnreachable) -> BaseUnreachable:
        """Return the error for a base that did not answer on this way."""
        if self.forwarding is None or self.carrier is None:
            return error
        pod = f"port {self.carrier.place.port} of Pod {self.carrier.place.namespace}/{self.carrier.place.pod}"
        return PodSilent(pod, self.forwarding.said() or error.reason)


@contextlib.contextmanager
def way_to(pod: str, settings: ClientSettings) -> Iterator[Way]:
    """Open the way to the base of a Pod, ``NAMESPACE/NAME`` or ``NAME``, while the context lasts.

    Raises `KubectlFailed` and `NoBase`.
    """
    kubectl = Kubectl(settings.kubeconfig, settings.context)
    namespace, slash, name = pod.rpartition("/")
    if not name or (slash and not namespace) or "/" in namespace:
        raise NoBase(pod, "NAMESPACE/NAME, or NAME in the namespace of the context, is expected")
    namespace = namespace or kubectl.namespace()
    place = place_of(kubectl, namespace, name, settings.port)
    text = f"{namespace}/{name}"
    if not place.pod:
        yield Way(text, place.host, place.port)
        return
    with kubectl.forwarded(place.namespace, place.pod, place.port) as forwarding:
        carrier = Carrier(kubectl, place, settings.container)
        yield Way(text, "127.0.0.1", forwarding.port, carrier, forwarding)


def place_of(kubectl: Kubectl, namespace: str, name: str, port: int) -> Place:
    """Find the arklet of a Pod; ``port`` is the port of the arklet in the Pod of a base.

    Raises `KubectlFailed` and `NoBase`.
    """
    text = f"{namespace}/{name}"
    path = f"/api/v1/namespaces/{urllib.parse.quote(namespace, safe='')}/pods/{urllib.parse.quote(name, safe='')}"
    document = kubectl.read(path, f"looking for Pod {text}")
    labels = document["metadata"].get("labels") or {}
    if names.MODULE not in {labels.get(names.COMPONENT), labels.get(names.COMPONENT_TOO)}:
        return Place(port, namespace, name)
    node = document["spec"].get("nodeName")
    if not node:
        raise NoBase(text, _unscheduled(document) or "the Pod has no Node yet")
    found = kubectl.read(f"/api/v1/nodes/{node}", f"looking for the base of Pod {text}")
    of_node = found["metadata"].get("labels") or {}
    if of_node.get(names.COMPONENT) != names.VNODE:
        raise NoBase(text, f"Node {node} is no base; modules need the tolerations and the node selector of a base")
    told = of_node.get(names.BASE_PORT, "")
    if not told.isdecimal():
        raise NoBase(text, f"the base of Node {node} has told no port: the base speaks through a broker alone")
    status = document.get("status") or {}
    address = status.get("podIP") or status.get("hostIP") or _address(found)
    if not address:
        raise NoBase(text, f"the base of Node {node} has told no address")
    base = _pod_at(kubectl, address, of_node.get(names.BASE_HOST, ""))
    return Place(int(told), *base) if base else Place(int(told), host=address)


def _pod_at(kubectl: Kubectl, address: str, host: str) -> tuple[str, str] | None:
    """Return namespace and name of the Pod with a base; ``None`` without one, or without the right to look."""
    query = urllib.parse.urlencode({"fieldSelector": f"status.podIP={address},status.phase=Running"})
    try:
        items = (
            kubectl.read(f"/api/v1/pods?{query}", f"looking for the Pod of the base at {address}").get("items") or ()
        )
    except KubectlFailed as error:
        if error.is_forbidden:
            return None
        raise
    found = [item["metadata"] for item in items if not _is_module(item)]
    if len(found) > 1:  # Pods in the network of their machine share an address
        found = [one for one in found if one["name"] == host]
    return (found[0]["namespace"], found[0]["name"]) if found else None


def _is_module(document: Mapping[str, Any]) -> bool:
    return (document["metadata"].get("labels") or {}).get(names.COMPONENT) == names.MODULE


def _address(node: Mapping[str, Any]) -> str:
    if told := (node["metadata"].get("annotations") or {}).get(names.BASE_IP):
        return str(told)  # the Node may have the address of the kubelet's API
    addresses = (node.get("status") or {}).get("addresses") or ()
    return next((str(one["address"]) for one in addresses if one["type"] == "InternalIP"), "")


def _unscheduled(document: Mapping[str, Any]) -> str:
    conditions = (document.get("status") or {}).get("conditions") or ()
    return next((str(one.get("message") or "") for one in conditions if one["type"] == "PodScheduled"), "")
