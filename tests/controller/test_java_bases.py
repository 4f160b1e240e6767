"""Our controller over Java bases: recorded replies of one, in both cases of letters that versions of Java bases use."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from tests.controller.documents import container
from tests.controller.floor import floor_in_memory, play
from tests.controller.java import JavaBase

from koupleless.controller.tunnels.discovery import Discovery
from koupleless.controller.tunnels.http import HttpTunnel

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.controller.floor import Floor

    from koupleless.controller.controller import Controller

LETTERS = pytest.mark.parametrize("word", [str.lower, str.upper], ids=["lower", "upper"])


class Java:
    """A Java base under a controller."""

    def __init__(self, floor: Floor, controller: Controller, base: JavaBase) -> None:
        self.floor, self.base = floor, base
        self.identity = f"{floor.env}-java"
        transport = httpx.ASGITransport(Discovery(controller).application())
        self._client = httpx.AsyncClient(transport=transport, base_url="http://controller")

    async def beat(self) -> None:
        """Send the heartbeat of a Java base: the state in the letters of the base, no start, members of fastjson."""
        metadata = {
            "identity": self.identity,
            "name": "TO_BE_IMPLEMENTED",
            "version": "1.0.0",
            "clusterName": "default",
        }
        body = {
            "baseMetadata": metadata,
            "localHostName": "host",
            "localIP": "127.0.0.1",
            "port": self.base.port,
            "state": self.base.word("activated"),
        }
        answer = await self._client.post("/heartbeat", json=body)
        assert (answer.status_code, answer.text) == (200, "SUCCESS")

    async def create(self, name: str, *containers: dict[str, Any]) -> None:
        await self.floor.create_pod(name, self.identity, *containers)

    async def delete(self, name: str) -> None:
        await self.floor.ask("DELETE", f"/api/v1/namespaces/{self.floor.namespace}/pods/{name}")

    async def status(self, name: str) -> dict[str, Any]:
        found = await self.floor.get(f"/api/v1/namespaces/{self.floor.namespace}/pods/{name}")
        return (found or {}).get("status") or {}

    async def is_gone(self, name: str) -> bool:
        return await self.floor.get(f"/api/v1/namespaces/{self.floor.namespace}/pods/{name}") is None

    async def ready(self, name: str) -> None:
        await self.floor.soon(lambda: self.floor.is_pod_ready(name))

    async def until(self, holds: Callable[[], object]) -> None:
        async def soon() -> object:
            return holds()

        await self.floor.soon(soon)


def with_java(act: Callable[[Java], Awaitable[None]], word: Callable[[str], str] = str.lower, **members: Any) -> None:
    """Run a test with one Java base, which a heartbeat has made a Node."""
    with floor_in_memory(bases=0) as (floor, _):

        async def run() -> None:
            base = JavaBase(word, **members)
            async with (
                base.served(),
                HttpTunnel() as tunnel,
                floor.controlled(tunnel, list_every_s=0.2) as controller,
            ):
                java = Java(floor, controller, base)
                floor.expect(java.identity)
                await java.beat()
                await floor.soon(floor.are_nodes_ready)
                await act(java)
            assert not [call for call in base.calls if "amid another" in call]

        play(run)


@LETTERS
def test_modules_of_a_java_base_come_are_replaced_without_a_gap_and_go(word: Callable[[str], str]) -> None:
    async def act(java: Java) -> None:
        await java.create("one", container("orders", "1", image="https://repo.example/orders-1-ark-biz.jar"))
        await java.ready("one")
        await java.create("two", container("orders", "2", image="https://repo.example/orders-2-ark-biz.jar"))
        await java.ready("two")
        assert java.base.states() == {"orders:1": "deactivated", "orders:2": "activated"}
        assert not await java.floor.is_pod_ready("one")
        await java.delete("one")
        await java.floor.soon(lambda: java.is_gone("one"))
        assert java.base.states() == {"orders:2": "activated"}
        assert await java.floor.is_pod_ready("two")
        await java.delete("two")
        await java.floor.soon(lambda: java.is_gone("two"))
        assert java.base.states() == {}
        assert java.base.calls == [
            "installBiz orders:1",
            "installBiz orders:2",
            "switchBiz orders:2",
            "uninstallBiz orders:1",
            "uninstallBiz orders:2",
        ]

    with_java(act, word)


@LETTERS
@pytest.mark.parametrize("shows_broken", [False, True], ids=["forgotten", "listed"])
def test_a_module_that_does_not_start_is_told_in_the_words_of_java(
    word: Callable[[str], str], *, shows_broken: bool
) -> None:
    async def act(java: Java) -> None:
        await java.create("broken", container("orders", "1"))

        async def waiting() -> dict[str, Any]:
            (found,) = (await java.status("broken")).get("containerStatuses") or [{}]
            told: dict[str, Any] = found.get("state", {}).get("waiting", {})
            return told if "InvocationTargetException" in told.get("message", "") else {}

        await java.floor.soon(waiting)
        assert (await waiting())["message"] == "Internal Error: java.lang.reflect.InvocationTargetException"
        java.base.broken.clear()
        await java.ready("broken")
        assert java.base.states() == {"orders:1": "activated"}

    with_java(act, word, broken={"orders"}, shows_broken=shows_broken)


@LETTERS
def test_an_install_without_an_answer_is_believed_by_the_list(word: Callable[[str], str]) -> None:
    async def act(java: Java) -> None:
        java.base.loses.add("installBiz")
        await java.create("lost", container("orders", "1"))
        await java.ready("lost")
        assert java.base.states() == {"orders:1": "activated"}
        assert java.base.calls.count("installBiz orders:1") <= 2  # a second one is answered REPEAT_BIZ

    with_java(act, word)


def test_an_uninstall_without_an_answer_is_asked_again_and_not_found_is_the_end() -> None:
    async def act(java: Java) -> None:
        await java.create("a", container("orders", "1"))
        await java.ready("a")
        java.base.loses.add("uninstallBiz")
        await java.delete("a")
        await java.floor.soon(lambda: java.is_gone("a"))
        assert java.base.states() == {}

    with_java(act)


def test_a_long_install_is_waited_for_and_nothing_else_is_asked_of_the_module() -> None:
    async def act(java: Java) -> None:
        java.base.hold.clear()
        await java.create("slow", container("orders", "1"))
        await java.until(lambda: java.base.calls == ["installBiz orders:1"])
        await java.create("quick", container("prices", "1"))
        await java.delete("slow")
        await java.until(lambda: "installBiz prices:1" in java.base.calls)
        for _ in range(3):  # news of the base do not lead to another command
            await java.beat()
            await asyncio.sleep(0.1)
        java.base.hold.set()
        await java.ready("quick")
        await java.floor.soon(lambda: java.is_gone("slow"))
        assert java.base.states() == {"prices:1": "activated"}

    with_java(act)


def test_a_module_that_was_there_before_is_taken_over_and_a_restarted_base_is_filled_again() -> None:
    async def act(java: Java) -> None:
        await java.create("a", container("orders", "1"))
        await java.ready("a")
        java.base.bizs.clear()  # a Java base tells no start
        await java.until(lambda: java.base.states() == {"orders:1": "activated"})
        await java.ready("a")
        assert java.base.calls == ["installBiz orders:1"] * 2

    with_java(act)


def test_a_stray_of_a_java_base_goes_and_the_base_itself_is_none() -> None:
    async def act(java: Java) -> None:
        await java.until(lambda: "uninstallBiz left:1" in java.base.calls)
        await java.until(lambda: java.base.states() == {})
        assert not [call for call in java.base.calls if "base:1.0.0" in call]

    base = JavaBase()
    base._change(("left", "1"), "activated")
    with_java(act, bizs=base.bizs)
