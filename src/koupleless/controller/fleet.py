"""All bases of one controller: who is known, who is led, and the work that follows from news.

A key is the name of a Node. News only add keys to the queue; `Fleet.reconcile` looks at everything anew.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from koupleless.controller import names
from koupleless.controller.bases.relay import base_of
from koupleless.controller.bases.steward import Habits, Steward
from koupleless.controller.cluster.api import ApiError, Unreachable
from koupleless.controller.leading.leases import RENEW_S
from koupleless.controller.vnodes.base import BaseState, Foreign
from koupleless.controller.vnodes.liveness import Life
from koupleless.controller.vnodes.node import is_ready

if TYPE_CHECKING:
    from collections.abc import Callable

    from koupleless.controller.bases.objects import Objects
    from koupleless.controller.cluster.api import Document, Key
    from koupleless.controller.cluster.cache import Cache
    from koupleless.controller.cluster.queue import Queue
    from koupleless.controller.leading.leases import Leases
    from koupleless.controller.probes.prober import Checks
    from koupleless.controller.tunnels.tunnel import Tunnel
    from koupleless.controller.vnodes.base import AnnouncedBase
    from koupleless.controller.vpods.pod import VPod

_log: Final = logging.getLogger("koupleless.controller")

_WATCH_S: Final = 1.0
_AT_ONCE: Final = 16
"""The number of Leases given up at a time."""
_TROUBLE_S: Final = 4.0
"""Seconds between attempts to keep a Lease while the API server is in trouble, at most."""


class Fleet:
    """The bases of one controller. All on one event loop; lifetime: until `close`."""

    def __init__(
        self,
        objects: Objects,
        tunnel: Tunnel,
        habits: Habits,
        *,
        queue: Queue[str],
        lease_queue: Queue[str],
        checks: Checks,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._objects = objects
        self._tunnel = tunnel
        self._habits = habits
        self._checks = checks
        self._queue = queue
        self._lease_queue = lease_queue
        self._clock = clock
        self._stewards: dict[str, Steward] = {}
        self._places: dict[Key, tuple[str, str]] = {}
        """The Node and the UID of each Pod, for Pods that are gone."""
        self._given: dict[str, str] = {}
        """Nodes to be handed over, with the next holder."""
        self._deleted: set[str] = set()
        """Nodes that this controller has deleted, until the cache says so: late news of them are no bases."""

    def __len__(self) -> int:
        return len(self._stewards)

    def base(self, node: str) -> AnnouncedBase | None:
        """Return the base of a Node, by the last news."""
        steward = self._stewards.get(node)
        return None if steward is None else steward.news.base

    # --- news --------------------------------------------------------------------------------------------------------

    def hear(self, base: AnnouncedBase, *, has_changed: bool = False) -> None:
        """Take a heartbeat, of a base known or new, and look at the modules if these ``has_changed``.

        Raises `Foreign` for a base that another speaks for.

        As long as a base lives, the Pod that speaks for the base is the only one to do so; afterwards Pods of the same
        service account may, as long as there is the Node.
        """
        name = names.node_name(base.identity, self._habits.env)
        steward = self._stewards.get(name)
        if steward is None:
            if base.state is not BaseState.ACTIVATED:
                return
            steward = self._meet(name, base)
        speaker = steward.news.base.speaker
        if base.speaker and speaker and base.speaker != speaker:
            account, own = speaker.rpartition("/")[0], base.speaker.rpartition("/")[0]
            if account != own or steward.life() is not Life.DEAD or is_ready(self._objects.node(name)):
                raise Foreign(f"{base.speaker} may not speak for base {base.identity}, which is that of {speaker}")
        if speaker and not base.speaker:
            base = replace(base, speaker=speaker)  # the shared token, or a broker, takes the base from nobody
        steward.hear(base)
        if has_changed:
            steward.look()

    def node_changed(self, key: Key, nodes: Cache[Document]) -> None:
        """Take a change of a Node; the base of an unknown Node is given the time for a heartbeat."""
        document, steward = nodes.get(key), self._stewards.get(key.name)
        if document is None:
            self._deleted.discard(key.name)
        if steward is not None:
            steward.see_node(document)
        elif document is not None and key.name not in self._deleted:
            base = base_of(document)
            if base is not None and names.node_name(base.identity, self._habits.env) == key.name:
                self._meet(key.name, base)
        self._queue.add(key.name)

    def pod_changed(self, key: Key, pods: Cache[VPod]) -> None:
        """Take a change of a Pod: work for the Node where the Pod is, or was."""
        pod = pods.get(key)
        before = self._places.pop(key, None)
        if before is not None and (pod is None or pod.uid != before[1]):
            self._objects.forget(before[1])
        if pod is not None and pod.node:
            self._places[key] = pod.node, pod.uid
            self._queue.add(pod.node)
        elif before is not None:
            self._queue.add(before[0])

    def _meet(self, name: str, base: AnnouncedBase) -> Steward:
        steward = Steward(
            base,
            self._objects,
            self._tunnel,
            habits=self._habits,
            checks=self._checks,
            wake=lambda: self._queue.add(name),
            clock=self._clock,
        )
        self._stewards[name] = steward
        self._lease_queue.add(name)
        return steward

    # --- work --------------------------------------------------------------------------------------------------------

    async def reconcile(self, name: str, leases: Leases) -> float | None:
        """Work on one base; returns the seconds until the next time, or ``None``."""
        steward = self._stewards.get(name)
        if steward is None:
            return None
        if not leases.leads(name):
            await steward.rest()
            if steward.life() is Life.DEAD and not steward.has_node:
                await self._part(name, leases)
                return None
            return await steward.pass_on()
        if to := self._given.pop(name, ""):
            await steward.rest()
            await leases.give(name, to)
            return None
        steward.begin()
        due_s = await steward.reconcile()
        if steward.has_left:
            self._deleted.add(name)
            await self._part(name, leases)
        return due_s

    async def step(self, name: str, leases: Leases) -> float | None:
        """Keep the Lease of one base; returns the seconds until the next time.

        Trouble of the API server is not waited out: the leadership would be over by then. A base that another leads,
        and that this controller does not hear, is looked after as long as there is a Node: the leader may die.
        """
        steward = self._stewards.get(name)
        if steward is None:
            return None
        is_led, life = leases.leads(name), steward.life()
        if is_led and life is Life.DEAD and not self._habits.keeps_dead_nodes:
            return RENEW_S  # the base may come back
        if not is_led and life is not Life.ALIVE and not steward.has_node:
            return RENEW_S  # the leader has just deleted the Node, or never made one
        try:
            return await leases.step(name)
        except (ApiError, Unreachable) as error:
            _log.warning("%s: the Lease cannot be kept at the moment: %s", name, error)
            asked_s = error.retry_after_s if isinstance(error, ApiError) else 0
            return max(asked_s, _TROUBLE_S * random.uniform(0.5, 1))  # noqa: S311 - no secret

    async def watch(self) -> None:
        """Look after signs of life until cancelled."""
        while True:
            await asyncio.sleep(_WATCH_S)
            for steward in self._stewards.values():
                steward.watch()

    def is_free(self, name: str) -> bool:
        """Whether a Node may be handed over now, without an operation cut off."""
        steward = self._stewards.get(name)
        return steward is not None and not steward.is_busy

    def give(self, name: str, to: str) -> None:
        """Hand a Node over to another controller soon."""
        self._given[name] = to
        self._queue.add(name)

    def led(self, leases: Leases) -> dict[str, str]:
        """Return the Nodes that this controller leads, with the life of each base."""
        return {name: steward.life().value for name, steward in self._stewards.items() if leases.leads(name)}

    async def close(self, leases: Leases) -> None:
        """Give up all bases; another controller may lead their Nodes at once."""
        limit = asyncio.Semaphore(_AT_ONCE)

        async def leave(name: str, steward: Steward) -> None:
            async with limit:
                await steward.rest()
                await leases.release(name)

        await asyncio.gather(*(leave(name, steward) for name, steward in self._stewards.items()))
        self._stewards.clear()

    async def _part(self, name: str, leases: Leases) -> None:
        _log.info("%s: the base is gone", name)
        steward = self._stewards.pop(name)
        leases.forget(name)
        await steward.rest()
