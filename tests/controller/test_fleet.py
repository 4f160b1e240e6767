"""The bases of a controller: who is led, who leaves, and what no end or trouble of the API server breaks."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import pytest
from tests.controller.documents import NODE
from tests.controller.world import BASE, MemoryChecks, MemoryCluster, MemoryTunnel

from koupleless.controller.bases.steward import Habits
from koupleless.controller.cluster.api import ApiError, Key, Unreachable
from koupleless.controller.cluster.queue import Queue
from koupleless.controller.fleet import Fleet
from koupleless.controller.vnodes.base import BaseState
from koupleless.controller.vnodes.node import node_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from koupleless.controller.bases.objects import Objects
    from koupleless.controller.cluster.cache import Cache
    from koupleless.controller.leading.leases import Leases


class SomeLeases:
    """The Leases of a controller that leads if nothing is said."""

    def __init__(self) -> None:
        self.is_leading = True
        self.steps = 0
        self.trouble: Exception | None = None
        self.released: list[str] = []

    def leads(self, node: str) -> bool:
        return self.is_leading

    async def step(self, node: str) -> float:
        self.steps += 1
        if self.trouble is not None:
            raise self.trouble
        return 10.0

    async def release(self, node: str) -> None:
        self.released.append(node)

    def forget(self, node: str) -> None:
        pass


class Scene:
    """A fleet on a cluster in memory."""

    def __init__(self, **habits: Any) -> None:
        self.cluster = MemoryCluster()
        self.leases = SomeLeases()
        self.queue: Queue[str] = Queue()
        self.lease_queue: Queue[str] = Queue()
        self.now = 1_000.0
        self.tunnel = MemoryTunnel()
        self.fleet = Fleet(
            cast("Objects", self.cluster),
            self.tunnel,
            Habits(**habits),
            queue=self.queue,
            lease_queue=self.lease_queue,
            checks=MemoryChecks(),
            clock=lambda: self.now,
        )

    async def reconcile(self) -> float | None:
        return await self.fleet.reconcile(NODE, cast("Leases", self.leases))

    async def step(self) -> float | None:
        return await self.fleet.step(NODE, cast("Leases", self.leases))

    async def close(self) -> None:
        await self.fleet.close(cast("Leases", self.leases))

    def statuses(self) -> list[str]:
        """Return the condition Ready of the Node, if told."""
        conditions = self.cluster.nodes[NODE]["status"].get("conditions", ()) if NODE in self.cluster.nodes else ()
        return [one["status"] for one in conditions if one["type"] == "Ready"]

    def tell_node(self, document: Mapping[str, Any] | None) -> None:
        nodes = {} if document is None else {Key("", NODE): document}
        self.fleet.node_changed(Key("", NODE), cast("Cache[dict[str, Any]]", nodes))


def play(act: Callable[[Scene], Awaitable[None]], **habits: Any) -> None:
    async def run() -> None:
        scene = Scene(**habits)
        try:
            await act(scene)
        finally:
            await scene.close()

    asyncio.run(run())


GOODBYE = replace(BASE, state=BaseState.DEACTIVATED)


def test_a_goodbye_in_the_middle_of_work_leaves_no_node_behind() -> None:
    async def act(scene: Scene) -> None:
        scene.fleet.hear(BASE)
        create = scene.cluster.create_node

        async def interrupted(document: Mapping[str, Any]) -> None:
            await create(document)
            scene.fleet.hear(GOODBYE)

        scene.cluster.create_node = interrupted  # type: ignore[method-assign]
        await scene.reconcile()
        await scene.reconcile()
        assert scene.cluster.nodes == {}
        assert len(scene.fleet) == 0

    play(act)


def test_a_lease_that_could_not_be_deleted_with_the_node_is_deleted_later() -> None:
    async def act(scene: Scene) -> None:
        scene.fleet.hear(BASE)
        await scene.reconcile()
        scene.fleet.hear(GOODBYE)
        delete, leases = scene.cluster.delete_node, [NODE]

        async def half(name: str) -> None:
            there = name in scene.cluster.nodes
            await delete(name)
            if there:
                raise Unreachable("in the middle")
            leases.remove(name)

        scene.cluster.delete_node = half  # type: ignore[method-assign]
        with pytest.raises(Unreachable):
            await scene.reconcile()
        await scene.reconcile()
        assert leases == []
        assert len(scene.fleet) == 0

    play(act)


def test_late_news_of_a_deleted_node_are_no_base() -> None:
    async def act(scene: Scene) -> None:
        scene.fleet.hear(BASE)
        await scene.reconcile()
        late = scene.cluster.nodes[NODE]
        scene.fleet.hear(GOODBYE)
        await scene.reconcile()
        scene.tell_node(late)
        assert len(scene.fleet) == 0
        scene.tell_node(None)
        scene.tell_node(late)  # made again meanwhile, by another controller
        assert len(scene.fleet) == 1

    play(act)


def test_a_base_that_comes_back_to_its_kept_node_is_led_on() -> None:
    async def act(scene: Scene) -> None:
        scene.fleet.hear(BASE)
        scene.fleet.hear(GOODBYE)
        assert await scene.step() is not None
        scene.fleet.hear(BASE)
        assert await scene.step() is not None
        assert scene.leases.steps == 2

    play(act, keeps_dead_nodes=True)


def test_nobody_takes_the_lease_of_a_dead_base() -> None:
    async def act(scene: Scene) -> None:
        scene.leases.is_leading = False
        scene.fleet.hear(BASE)
        scene.fleet.hear(GOODBYE)
        assert await scene.step() is not None  # the base may come back
        assert scene.leases.steps == 0

    play(act)


def test_after_trouble_of_the_api_server_a_lease_is_soon_tried_again() -> None:
    async def act(scene: Scene) -> None:
        scene.fleet.hear(BASE)
        for trouble in (Unreachable("no route"), ApiError(500, "InternalError", "etcd")):
            scene.leases.trouble = trouble
            for _ in range(20):
                after_s = await scene.step()
                assert after_s is not None
                assert 0 < after_s < 5
        scene.leases.trouble = ApiError(429, "TooManyRequests", "later", retry_after_s=7)
        assert await scene.step() == 7

    play(act)


def test_a_controller_that_hears_nothing_of_a_base_takes_over_when_the_leader_dies() -> None:
    async def act(scene: Scene) -> None:
        scene.leases.is_leading = False
        scene.cluster.nodes[NODE] = node = {**node_of(BASE, "dev"), "status": {}}
        scene.tell_node(node)
        scene.now += 600
        await scene.reconcile()
        await scene.step()
        assert (len(scene.fleet), scene.leases.steps) == (1, 1)
        scene.leases.is_leading = True  # the Lease has lapsed
        await scene.reconcile()
        await asyncio.sleep(0.01)  # the base was asked
        await scene.reconcile()
        assert scene.statuses() == ["True"]
        del scene.cluster.nodes[NODE]
        scene.tell_node(None)
        await scene.reconcile()
        assert NODE in scene.cluster.nodes  # deleted by hand

    play(act)


def test_a_new_leader_does_not_call_a_base_unknown_before_the_base_was_asked() -> None:
    async def act(scene: Scene) -> None:
        scene.leases.is_leading = False
        scene.cluster.nodes[NODE] = node = {**node_of(BASE, "dev"), "status": {}}
        scene.tell_node(node)
        scene.tunnel.is_reachable = False
        scene.now += 600
        scene.leases.is_leading = True
        after_s = await scene.reconcile()
        assert after_s is not None
        assert scene.statuses() == []
        assert after_s < 1  # the answer may come at any moment
        scene.now += 5
        await scene.reconcile()
        assert scene.statuses() == []
        scene.now += 1.1
        await scene.reconcile()
        assert scene.statuses() == ["Unknown"]
        scene.now += 40
        await scene.reconcile()
        assert scene.cluster.nodes == {}

    play(act)


def test_a_node_deleted_by_the_leader_is_not_made_again_by_others_who_heard_the_base_before() -> None:
    async def act(scene: Scene) -> None:
        scene.leases.is_leading = False
        scene.cluster.nodes[NODE] = node = {**node_of(BASE, "dev"), "status": {}}
        scene.tell_node(node)
        scene.fleet.hear(BASE)
        del scene.cluster.nodes[NODE]
        scene.tell_node(None)
        assert await scene.step() is not None
        assert scene.leases.steps == 0
        await scene.reconcile()
        assert len(scene.fleet) == 0

    play(act)
