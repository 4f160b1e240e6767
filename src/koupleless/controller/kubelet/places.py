"""The rest of the controller as the kubelet's API needs it: Pods with their bases, and the way to a base."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from koupleless.controller.vnodes.base import AnnouncedBase
    from koupleless.controller.vpods.module import Module, Refused
    from koupleless.controller.vpods.pod import VPod


class Places(Protocol):
    """The Pods and bases of a controller, from caches."""

    def pod(self, namespace: str, name: str) -> VPod | None:
        """Return a Pod of modules."""

    def base(self, node: str) -> AnnouncedBase | None:
        """Return the base of a Node, by the last news."""

    def led(self) -> Iterable[tuple[str, AnnouncedBase]]:
        """Return the Nodes led by this controller, with their bases."""

    def pods_on(self, node: str) -> Sequence[VPod]:
        """Return the Pods on a Node."""

    async def modules(self, pod: VPod) -> Sequence[Module | Refused]:
        """Return the modules of the containers of a Pod. Raises `ApiError` and `Unreachable`."""


class Bases(Protocol):
    """The way to the arklets of bases. All calls raise `NoAnswer`."""

    async def ask(self, base: AnnouncedBase, command: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
        """Send a command, and return the data of the answer; a refusal of the base counts as `NoAnswer`."""

    async def scrape(self, base: AnnouncedBase) -> str:
        """Return the metrics of a base, in the text format of Prometheus."""


@dataclass(frozen=True, slots=True)
class Located:
    """A container, found."""

    pod: VPod
    container: str
    base: AnnouncedBase
    module: Module


class NotFound(Exception):
    """There is no such Pod or container, or nothing runs there; the text says which. ``status`` is that of HTTP."""

    def __init__(self, text: str, status: int = 404) -> None:
        self.status = status
        super().__init__(text)
