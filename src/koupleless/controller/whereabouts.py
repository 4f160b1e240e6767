"""The Pods and the bases of a controller for the kubelet's API, read from caches and stewards."""

from __future__ import annotations

from typing import TYPE_CHECKING

from koupleless.controller.cluster.api import Key
from koupleless.controller.vpods.module import modules_of
from koupleless.controller.vpods.variables import Surroundings

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from koupleless.controller.bases.objects import Objects
    from koupleless.controller.cluster.cache import Cache
    from koupleless.controller.fleet import Fleet
    from koupleless.controller.leading.leases import Leases
    from koupleless.controller.vnodes.base import AnnouncedBase
    from koupleless.controller.vpods.module import Module, Refused
    from koupleless.controller.vpods.pod import VPod


class Whereabouts:
    """See `Places`. Lifetime and event loop: as the controller's."""

    def __init__(self, pods: Cache[VPod], objects: Objects, fleet: Fleet, leases: Leases) -> None:
        self._pods = pods
        self._objects = objects
        self._fleet = fleet
        self._leases = leases

    def pod(self, namespace: str, name: str) -> VPod | None:
        """See `Places.pod`."""
        return self._pods.get(Key(namespace, name))

    def base(self, node: str) -> AnnouncedBase | None:
        """See `Places.base`."""
        return self._fleet.base(node)

    def led(self) -> Iterator[tuple[str, AnnouncedBase]]:
        """See `Places.led`."""
        for node in self._fleet.led(self._leases):
            base = self._fleet.base(node)
            if base is not None:
                yield node, base

    def pods_on(self, node: str) -> Sequence[VPod]:
        """See `Places.pods_on`."""
        return self._objects.pods_on(node)

    async def modules(self, pod: VPod) -> tuple[Module | Refused, ...]:
        """See `Places.modules`."""
        base = self._fleet.base(pod.node)
        around = Surroundings(pod.node, "" if base is None else base.ip)
        return modules_of(pod, await self._objects.sources(pod), around)
