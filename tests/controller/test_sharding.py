"""Several controllers behind one address: each hears only some of the heartbeats, and the leader knows all the same."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tests.controller.documents import container
from tests.controller.floor import Bases, Floor, floor_in_memory, restarted
from tests.controller.world import BASE

from koupleless.controller.bases.relay import Relay
from koupleless.controller.bases.steward import Habits
from koupleless.controller.controller import Choices, Controller
from koupleless.controller.names import BASE_NEWS
from koupleless.controller.vnodes.base import AnnouncedBase, BaseState, Way
from koupleless.controller.vpods.module import ModuleKey

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

ORDERS = ModuleKey("orders", "1")


class MovingBases(Bases):
    """Bases that answer at their present address alone."""

    def __init__(self, floor: Floor) -> None:
        super().__init__(floor.bases)
        self.floor = floor

    async def modules(self, base: AnnouncedBase) -> tuple[Mapping[str, Any], ...]:
        if base.ip != self.floor.announced[base.identity].ip:
            raise AssertionError(f"asked at the former address {base.ip}")
        return await super().modules(base)


@contextlib.asynccontextmanager
async def three(floor: Floor, **habits: Any) -> AsyncIterator[list[Controller]]:
    """Three controllers; each base was heard by one of them in turn."""
    async with contextlib.AsyncExitStack() as stack:
        made = []
        for holder in ("one", "two", "three"):
            choices = Choices(holder, Habits(env=floor.env, **habits))
            made.append(await stack.enter_async_context(Controller(floor.config, MovingBases(floor), choices)))
        for controller in made:
            await controller.ready()
        for controller, base in zip(itertools.cycle(made), floor.announced.values(), strict=False):
            controller.hear(base)
        await floor.soon(floor.are_nodes_ready)
        yield made


def play(act: Callable[[Floor], Awaitable[None]], bases: int = 1) -> None:
    with floor_in_memory(bases=bases) as (floor, _):

        async def run() -> None:
            async with asyncio.timeout(60):
                await act(floor)

        asyncio.run(run())


def only(floor: Floor) -> AnnouncedBase:
    (base,) = floor.announced.values()
    return base


def test_a_base_heard_by_another_controller_has_moved_and_the_leader_asks_there() -> None:
    async def act(floor: Floor) -> None:
        async with three(floor, list_every_s=0.1) as (_, other, _):
            base = only(floor)
            moved = replace(base, ip="10.9.9.9", start="start-2")
            floor.announced[base.identity] = moved
            other.hear(moved)

            async def is_told() -> bool:
                node = await floor.get(f"/api/v1/nodes/{floor.node(base.identity)}")
                assert node is not None
                return {"type": "InternalIP", "address": "10.9.9.9"} in node["status"]["addresses"]

            await floor.soon(is_told)

    play(act)


def test_a_base_restarted_empty_is_refilled_though_another_controller_hears_the_restart() -> None:
    async def act(floor: Floor) -> None:
        async with three(floor) as (_, _, other):  # lists come each 15 s, by themselves
            base = only(floor)
            await floor.create_pod("a", base.identity, container("orders", "1"))
            await floor.soon(lambda: floor.is_pod_ready("a"))
            there = floor.bases[base.identity].there
            there.clear()
            other.hear(restarted(base))
            async with asyncio.timeout(8):
                await floor.soon(lambda: _is_in(there))

    play(act)


def test_the_end_of_a_base_heard_by_another_controller_ends_the_node_once() -> None:
    async def act(floor: Floor) -> None:
        async with three(floor) as (leader, other, third):
            base = only(floor)
            third.hear(base)  # just before the end
            other.hear(replace(base, state=BaseState.DEACTIVATED))
            path = f"/api/v1/nodes/{floor.node(base.identity)}"

            async def is_gone() -> bool:
                return await floor.get(path) is None

            async with asyncio.timeout(8):
                await floor.soon(is_gone)
            await floor.soon(lambda: _are_empty(leader, other, third))
            assert await is_gone()

    play(act)


def test_a_base_heard_over_two_tunnels_in_turn_is_written_once() -> None:
    over_http = replace(BASE, way=Way.HTTP, service_port=8080)
    over_mqtt = replace(BASE, way=Way.MQTT, port=0)
    relay, other = Relay(None), Relay(None)
    there: dict[str, Any] = {"metadata": {"annotations": {}}}
    text = relay.text(over_http, there)
    there["metadata"]["annotations"][BASE_NEWS] = text
    for _ in range(3):
        assert relay.text(over_mqtt, there) == relay.text(over_http, there) == text
        assert other.hear(over_mqtt, there, 0.0) is None
        assert other.hear(over_http, there, 0.0) is None
    for moved in ({"ip": "10.9.9.9"}, {"port": 1239}, {"start": "start-2"}, {"service_port": 8081}):
        assert other.hear(replace(over_http, **moved), there, 5.0) == 6.0
        assert other.hear(over_http, there, 5.0) is None
    gone = replace(over_mqtt, state=BaseState.DEACTIVATED)
    assert other.hear(gone, there, 5.0) == 5.0
    there["metadata"]["annotations"][BASE_NEWS] = "{"  # written by somebody else
    assert other.due(there) is None
    assert other.take(there) is None


async def _is_in(there: Mapping[ModuleKey, str]) -> bool:
    return ORDERS in there


async def _are_empty(*controllers: Controller) -> bool:
    return all(len(controller.fleet) == 0 for controller in controllers)
