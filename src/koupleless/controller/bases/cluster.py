"""The API server as a steward needs it: facts from caches, and single writes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from koupleless.controller.vpods.pod import VPod
    from koupleless.controller.vpods.variables import Sources


class Cluster(Protocol):
    """The cluster of one controller. Used on one event loop.

    Reads come from caches and do not wait. Writes raise `ApiError` and `Unreachable` of the API server. A write to an
    absent object succeeds, as does the creation of a present one: the caches tell the rest.
    """

    def node(self, name: str) -> Mapping[str, Any] | None:
        """Return the JSON document of a Node; ``None`` if there is no such Node."""

    def pods_on(self, node: str) -> Sequence[VPod]:
        """Return the Pods of modules that are bound to a Node."""

    async def sources(self, pod: VPod) -> Sources:
        """Return the ConfigMaps and Secrets named by the containers of a Pod."""

    async def create_node(self, document: Mapping[str, Any]) -> None:
        """Create a Node."""

    async def patch_node(self, name: str, patch: Mapping[str, Any]) -> None:
        """Change labels, annotations and taints of a Node by a merge patch."""

    async def patch_node_status(self, name: str, status: Mapping[str, Any]) -> None:
        """Change the status of a Node by a strategic merge patch."""

    async def delete_node(self, name: str) -> None:
        """Delete a Node and the Lease of the Node."""

    async def patch_pod_status(self, pod: VPod, status: Mapping[str, Any]) -> None:
        """Change the status of a Pod by a strategic merge patch, if the Pod is still the same."""

    async def remove_pod(self, pod: VPod) -> None:
        """Delete a Pod for good, without further grace, if the Pod is still the same."""

    def tell_node(self, node: str, kind: str, reason: str, message: str) -> None:
        """Record an Event about a Node, without a wait."""

    def tell(self, pod: VPod, kind: str, reason: str, message: str) -> None:
        """Record an Event about a Pod (``Normal`` or ``Warning``), without a wait."""
