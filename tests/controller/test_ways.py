"""Both tunnels at once: one is in use, the other is a sign of life, and takes over where the first fails."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from unittest import mock

import httpx
import pytest
from tests.controller.behind import Ear, JavaBehindBroker, tunnel_on
from tests.controller.documents import NODE
from tests.controller.java import JavaBase
from tests.controller.world import BASE, MemoryTunnel, World, play

from koupleless.controller import names
from koupleless.controller.tunnels.answers import Outcome
from koupleless.controller.tunnels.http import HttpTunnel
from koupleless.controller.tunnels.router import Router
from koupleless.controller.tunnels.tunnel import Deaf, NoAnswer
from koupleless.controller.vnodes.base import AnnouncedBase, BaseState, Way
from koupleless.controller.vnodes.liveness import Life
from koupleless.controller.vnodes.ways import STALE_S, Ways
from koupleless.controller.vpods.hooks import Visit
from koupleless.controller.vpods.module import Module, ModuleKey

if TYPE_CHECKING:
    from tests.mqtt.broker import Broker

OVER_MQTT = replace(BASE, way=Way.MQTT, port=0)
ENDED = replace(OVER_MQTT, state=BaseState.DEACTIVATED)


def test_the_tunnel_in_use_stays_in_use_while_heard() -> None:
    ways = Ways()
    assert ways.choose(BASE, BASE, 0, is_doubtful=False) == BASE
    assert ways.choose(BASE, OVER_MQTT, 5, is_doubtful=False) == BASE
    assert ways.choose(BASE, OVER_MQTT, STALE_S, is_doubtful=False) == BASE
    assert ways.choose(BASE, OVER_MQTT, STALE_S + 1, is_doubtful=False) == OVER_MQTT
    assert ways.choose(OVER_MQTT, BASE, STALE_S + 2, is_doubtful=False) == OVER_MQTT


def test_a_tunnel_without_answers_gives_way_at_once() -> None:
    ways = Ways()
    ways.choose(BASE, BASE, 0, is_doubtful=False)
    assert ways.choose(BASE, OVER_MQTT, 1, is_doubtful=True) == OVER_MQTT


@pytest.mark.parametrize("news", [ENDED, replace(OVER_MQTT, start="start-2")], ids=["end", "start"])
def test_a_start_or_an_end_is_news_by_any_tunnel(news: AnnouncedBase) -> None:
    ways = Ways()
    ways.choose(BASE, BASE, 0, is_doubtful=False)
    assert ways.choose(BASE, news, 1, is_doubtful=False) == news


def test_two_tunnels_at_once_write_the_node_once_and_keep_the_base_alive() -> None:
    async def act(world: World) -> None:
        world.steward.hear(BASE)
        await world.settle()
        writes = list(world.cluster.writes)
        for _ in range(10):
            for base in (OVER_MQTT, BASE):
                world.steward.hear(base)
                await world.pass_time(5)
        assert world.cluster.writes == writes
        for _ in range(10):  # the other tunnel takes over
            world.steward.hear(OVER_MQTT)
            await world.pass_time(10)
        assert world.cluster.writes.count(("patch node", NODE)) == 1
        assert world.node["metadata"]["annotations"][names.BASE_TUNNEL] == "mqtt"
        assert AnnouncedBase.of_node(world.node).way is Way.MQTT  # type: ignore[union-attr]

    play(act)


def test_a_controller_that_hears_nothing_calls_no_base_dead() -> None:
    async def act(world: World) -> None:
        world.steward.hear(OVER_MQTT)
        await world.settle()
        away = Deaf("the broker is away")
        world.base.health = mock.AsyncMock(side_effect=away)  # type: ignore[method-assign]
        for _ in range(30):
            with pytest.raises(Deaf):
                await world.steward._questions.ask_health()
            await world.pass_time(10)
        assert world.steward.life() is Life.SILENT
        assert world.cluster.nodes
        world.steward.hear(BASE)  # over HTTP
        assert world.steward.news.base.way is Way.HTTP
        world.base.health = mock.AsyncMock(side_effect=NoAnswer("no answer"))  # type: ignore[method-assign]
        with pytest.raises(NoAnswer):
            await world.steward._questions.ask_health()
        await world.pass_time(61)
        assert not world.cluster.nodes

    play(act)


def test_two_controllers_that_hear_a_base_by_other_tunnels_do_not_write_the_node_in_turn() -> None:
    async def act(world: World) -> None:
        await world.settle()
        other = world.employ(BASE)  # does not lead
        for _ in range(20):
            world.steward.hear(OVER_MQTT)
            other.hear(BASE)
            other.hear(OVER_MQTT)
            other.see_node(world.node)
            world.steward.see_node(world.node)
            world.now += 10
            await other.pass_on()
            await world.settle()
            world.steward.see_node(world.node)
            other.see_node(world.node)
        writes = world.cluster.writes.count(("patch node", NODE))
        assert writes <= 4

    play(act)


@pytest.mark.parametrize(
    ("labels", "annotations", "way", "port"),
    [
        ({}, {}, Way.MQTT, 0),  # as the original leaves a base over MQTT
        ({names.BASE_PORT: "1238"}, {}, Way.HTTP, 1238),
        ({names.BASE_PORT: "1238"}, {names.BASE_TUNNEL: "mqtt"}, Way.MQTT, 1238),
        ({names.BASE_PORT: "odd"}, {}, Way.HTTP, 0),
        ({}, {names.BASE_TUNNEL: "http"}, Way.HTTP, 0),
    ],
)
def test_the_node_tells_the_tunnel(labels: Any, annotations: Any, way: Way, port: int) -> None:
    node = {"metadata": {"name": "vnode.base-1.dev", "labels": labels, "annotations": annotations}}
    found = AnnouncedBase.of_node(node)
    assert found is not None
    assert (found.way, found.port) == (way, port)


# --- the router -------------------------------------------------------------------------------------------------------


def test_commands_go_by_the_tunnel_of_the_base_and_visits_to_the_module() -> None:
    async def run() -> None:
        http, mqtt = MemoryTunnel(), MemoryTunnel()
        router = Router(http, {Way.HTTP: http, Way.MQTT: mqtt})
        module = Module("orders", ModuleKey("orders", "1"), "https://x/")
        await router.install(OVER_MQTT, module)
        assert (http.there, len(mqtt.there)) == ({}, 1)
        assert len(await router.modules(OVER_MQTT)) == 1
        await router.switch(OVER_MQTT, module.key)
        await router.uninstall(OVER_MQTT, module.key)
        assert (await router.health(OVER_MQTT)).is_active
        await router.visit(OVER_MQTT, Visit("/", 8080))
        assert http.calls == [("visit", "8080/")]
        await router.install(BASE, module)
        assert len(http.there) == 1
        with pytest.raises(NoAnswer, match="base base-1 was heard over HTTP, and this controller has no such tunnel"):
            await Router(http, {Way.MQTT: mqtt}).health(BASE)

    asyncio.run(run())


def test_a_base_of_the_original_behind_a_broker_switches_over_http() -> None:
    asked: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(str(request.url))
        return httpx.Response(200, json={"code": "SUCCESS"})

    async def run() -> None:
        mqtt = MemoryTunnel()
        java = replace(OVER_MQTT, start="", ip="10.0.0.9")
        async with HttpTunnel(transport=httpx.MockTransport(answer)) as http:
            router = Router(http, {Way.HTTP: http, Way.MQTT: mqtt})
            assert (await router.switch(java, ModuleKey("orders", "1"))).outcome is Outcome.DONE
            assert asked == ["http://10.0.0.9:1238/switchBiz"]
            await router.switch(OVER_MQTT, ModuleKey("orders", "1"))
        async with HttpTunnel(transport=httpx.MockTransport(lambda _: httpx.Response(502))) as http:
            await Router(http, {Way.HTTP: http, Way.MQTT: mqtt}).switch(java, ModuleKey("orders", "1"))
        assert [verb for verb, _ in mqtt.calls] == ["switch", "switch"]

    asyncio.run(run())


# --- both tunnels say the same ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", list(Way), ids=["http", "mqtt"])
def test_both_tunnels_judge_a_java_base_alike(broker: Broker, way: Way) -> None:
    async def act() -> None:
        orders, broken = ModuleKey("orders", "1"), ModuleKey("broken", "1")
        java = JavaBehindBroker(broken={"broken"}) if way is Way.MQTT else JavaBase(broken={"broken"})
        through = java.connected(broker) if isinstance(java, JavaBehindBroker) else java.served()
        async with HttpTunnel() as http, tunnel_on(broker, Ear()) as mqtt, through:
            base = replace(BASE, identity="10.0.0.7", ip="127.0.0.1", port=java.port, start="", way=way)
            router = Router(http, {Way.HTTP: http, Way.MQTT: mqtt})
            assert (await router.health(base)).is_active
            module = Module("orders", orders, "https://repo.example/orders.jar")
            outcomes = [
                await router.install(base, module),
                await router.install(base, module),
                await router.install(base, replace(module, key=broken)),
                await router.uninstall(base, orders, drain_s=1),
                await router.uninstall(base, orders),
            ]
            assert [answer.outcome for answer in outcomes] == [
                *(Outcome.DONE, Outcome.UNCERTAIN, Outcome.REFUSED, Outcome.DONE, Outcome.DONE)
            ]
            assert [answer.reason for answer in outcomes] == [
                *("Installed", "AlreadyInstalled", "InstallFailed", "Uninstalled", "Uninstalled")
            ]
            assert await router.modules(base) == ()

    asyncio.run(act())
