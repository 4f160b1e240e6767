"""Bases of tests behind a broker, and a tunnel to them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import aiomqtt
from tests.controller.java import JavaBase

from koupleless.controller.tunnels.mqtt.broker import Broker, tls_of
from koupleless.controller.tunnels.mqtt.tunnel import MqttTunnel

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from tests.mqtt.broker import Broker as RealBroker

    from koupleless.controller.vnodes.base import AnnouncedBase

WITHIN_S: Final = 20
ENV: Final = "dev"
_RECORD: Final = ("changeTime", "message", "reason", "state")


def letter(data: object, *, behind_s: float = 0) -> str:
    """A message of a base with a clock that is behind."""
    return json.dumps({"publishTimestamp": int((time.time() - behind_s) * 1000), "data": data})


def heartbeat(identity: str, **members: Any) -> dict[str, Any]:
    """The words of a Java base: state in small letters, no port."""
    metadata = {"identity": identity, "name": "shop", "version": "1.0.0", "clusterName": "default"}
    return {"baseMetadata": metadata, "localIP": "127.0.0.1", "localHostName": "b", "port": 0, "state": "activated",
            **members}  # fmt: skip


@dataclass
class JavaBehindBroker(JavaBase):
    """A Java base without HTTP; commands are done at once, in any order, as by the pool of threads there."""

    identity: str = "10.0.0.7"
    behind_s: float = 0
    client: aiomqtt.Client | None = None
    whole_lists: bool = False
    """Whether lists are in the words of older bases."""
    deaf: set[str] = field(default_factory=set)
    """Commands of which the next one is lost on the way to the base."""
    received: list[tuple[str, bytes, bool]] = field(default_factory=list)
    _doing: set[asyncio.Task[None]] = field(default_factory=set)

    @contextlib.asynccontextmanager
    async def connected(self, broker: RealBroker, **options: Any) -> AsyncIterator[None]:
        """Be subscribed to commands, and heard once."""
        async with aiomqtt.Client(broker.host, broker.port, identifier=f"k@@@{self.identity}", **options) as client:
            self.client = client
            root = f"koupleless_{ENV}/{self.identity}"
            await client.subscribe([(f"{root}/+", 1), (f"{root}/base/baseline", 1)])
            hearing = asyncio.create_task(self._hear(client))
            await self.beat()
            try:
                yield
            finally:
                for task in (hearing, *self._doing):
                    task.cancel()
                await asyncio.gather(hearing, *self._doing, return_exceptions=True)

    async def beat(self, **members: Any) -> None:
        await self.say("heart", heartbeat(self.identity, **members))

    async def say(self, kind: str, data: object, **options: Any) -> None:
        await self.publish(kind, letter(data, behind_s=self.behind_s), **options)

    async def publish(self, kind: str, content: bytes | str, **options: Any) -> None:
        assert self.client is not None
        await self.client.publish(f"koupleless_{ENV}/{self.identity}/base/{kind}", content, qos=1, **options)

    async def _hear(self, client: aiomqtt.Client) -> None:
        async for message in client.messages:
            command = message.topic.value.rpartition("/")[2]
            assert isinstance(message.payload, bytes)
            self.received.append((command, message.payload, message.retain))
            if command in self.deaf:
                self.deaf.discard(command)
                continue
            task = asyncio.create_task(self._obey(command, message.payload))
            self._doing.add(task)
            task.add_done_callback(self._doing.discard)

    async def _obey(self, command: str, content: bytes) -> None:
        if command not in {"health", "queryAllBiz", "installBiz", "uninstallBiz"} or not content:
            return  # unsupported, as switchBiz
        body = json.loads(content)
        reply = json.loads(await self._reply(command, body))
        reply.pop("baseIdentity", None)
        if command in self.loses:
            self.loses.discard(command)
        elif command == "health":
            await self.say("health", reply)
        elif command == "queryAllBiz":
            await self.say(*(("biz", reply) if self.whole_lists else ("simpleBiz", _short(reply["data"]))))
        else:
            named = {"bizName": body["bizName"], "bizVersion": body["bizVersion"]}
            await self.say("bizOperation", {"command": command, **named, "response": reply})


def _short(bizs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    def record(biz: dict[str, Any]) -> dict[str, Any] | None:
        last = (biz["bizStateRecords"] or [None])[-1]
        return last and {name: last[name].upper() if name == "state" else last[name] for name in _RECORD}

    return [
        {"latestStateRecord": record(biz), "name": biz["bizName"], "state": biz["bizState"],
         "version": biz["bizVersion"]}
        for biz in bizs if biz["mainClass"] != "embed main"
    ]  # fmt: skip


class Ear:
    """An audience that remembers."""

    def __init__(self) -> None:
        self.heard: list[AnnouncedBase] = []
        self.changes: list[str] = []
        """Bases that have changed by themselves."""
        self.modules: list[dict[str, Any]] = [{"bizName": "orders", "bizVersion": "1", "bizUrl": "https://x/"}]

    def hear(self, base: AnnouncedBase, *, has_changed: bool = False) -> None:
        if has_changed:
            self.changes.append(base.identity)
        else:
            self.heard.append(base)

    def baseline(self, cluster: str) -> list[dict[str, Any]]:
        return self.modules if cluster == "default" else []

    def states(self, identity: str) -> list[str]:
        return [base.state.value for base in self.heard if base.identity == identity]


@contextlib.asynccontextmanager
async def tunnel_on(
    broker: RealBroker, ear: Ear, *, is_up: bool = True, tls: dict[str, Any] | None = None, **options: Any
) -> AsyncIterator[MqttTunnel]:
    """A tunnel that hears bases, until the end of the context."""
    read_tls = None if tls is None else tls_of(tls.get("ca"), tls.get("certificate"), tls.get("key"), is_secure=True)
    made = Broker(host=broker.host, port=broker.port, client_id="koupleless@@@one", read_tls=read_tls)
    tunnel = MqttTunnel(made, ENV, **{"listen_s": 0.05, **options})
    running = asyncio.create_task(tunnel.run(ear))
    try:
        if is_up:
            await soon(lambda: not tunnel.trouble)
        yield tunnel
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running


async def soon(condition: Callable[[], object]) -> None:
    """Wait until a condition holds."""
    try:
        async with asyncio.timeout(WITHIN_S):
            while not condition():  # noqa: ASYNC110 - the other side tells it nowhere else
                await asyncio.sleep(0.005)
    except TimeoutError:
        raise AssertionError("it did not come to pass") from None


def play(act: Callable[[], Awaitable[None]]) -> None:
    async def run() -> None:
        async with asyncio.timeout(3 * WITHIN_S):
            await act()

    asyncio.run(run())
