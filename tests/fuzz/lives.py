"""A base in a process of its own, and the states that its bizs have to have: the two that `test_model` compares."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import threading
from dataclasses import dataclass, field
from multiprocessing.connection import Listener
from typing import TYPE_CHECKING, Any, Final

import httpx
from tests.container.conftest import World

from koupleless.biz import BizId, BizState
from koupleless.container.surroundings import Deadlines
from koupleless.container.terms import Rules, Strategy
from koupleless.errors import KouplelessError

if TYPE_CHECKING:
    from concurrent.futures import Future
    from multiprocessing.connection import Connection
    from pathlib import Path

SOURCE: Final = """
import asyncio
from koupleless.service import offer, use

hall = use("hall")

class Service:
    def version(self):
        return {version!r}

    async def slow(self, ticket):
        hall.arrive(ticket)
        while not hall.may_leave(ticket):
            await asyncio.sleep(0.002)
        return {version!r}

service = Service()
offer(service, name="service")
{more}

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        raise RuntimeError("none")
    ticket = scope["query_string"].decode()
    text = await service.slow(ticket) if ticket else service.version()
    await send({{"type": "http.response.start", "status": 200, "headers": []}})
    await send({{"type": "http.response.body", "body": text.encode()}})
"""
PATHS: Final = {"shop": "/shop", "rival": "/shop", "news": "/news"}
VERSIONS: Final = ("1", "2", "3")
GONE: Final = "gone"
NOBODY: Final = "nobody"


# --- the base ---------------------------------------------------------------------------------------------------------


class Hall:
    """Where code of bizs waits, known to it as a service."""

    def __init__(self) -> None:
        self._arrived: dict[str, threading.Event] = {}
        self._leaving: set[str] = set()

    def expect(self, ticket: str) -> threading.Event:
        return self._arrived.setdefault(ticket, threading.Event())

    def arrive(self, ticket: str) -> None:
        self.expect(ticket).set()

    def may_leave(self, ticket: str) -> bool:
        return ticket in self._leaving

    def let_go(self, ticket: str) -> None:
        self._leaving.add(ticket)


class Base:
    """One life of a base: what a test process asks it to do, by name."""

    def __init__(self, store: Path, rules: Rules) -> None:
        self._world = World(
            store, lambda _: store, rules=rules, deadlines=Deadlines(start_s=20.0, drain_s=0.05, stop_s=5.0)
        )
        self._hall = Hall()
        self._world.services.offer(self._hall, name="hall")
        self._pending: dict[str, Future[str]] = {}

    def install(self, url: str, strategy: str) -> list[str]:
        """What is left of those that it replaced."""
        container = self._world.container
        installed = container.install(container.prepare(url), strategy=Strategy(strategy))
        return [held.name for report in installed.replaced for held in report.held]

    def uninstall(self, biz: str) -> list[str]:
        return [held.name for held in self._world.container.uninstall(BizId.parse(biz)).held]

    def switch(self, biz: str) -> list[str]:
        self._world.container.switch(BizId.parse(biz))
        return []

    def begin(self, ticket: str, name: str, kind: str) -> bool:
        """Whether somebody is inside a biz with that ticket now: with a request, or a call of its service."""
        ask = self._request(PATHS[name], ticket) if kind == "request" else self._call(name, ticket)
        future = asyncio.run_coroutine_threadsafe(ask, self._world.stage.loop)
        arrived = self._hall.expect(ticket)
        future.add_done_callback(lambda _: arrived.set())
        assert arrived.wait(20)
        if future.done():
            return False
        self._pending[ticket] = future
        return True

    def end(self, ticket: str) -> str:
        self._hall.let_go(ticket)
        return self._pending.pop(ticket).result(20)

    def _answer(self, path: str) -> str:
        return self._world.stage.call(lambda: self._request(path), timeout_s=20)

    async def _request(self, path: str, ticket: str = "") -> str:
        transport = httpx.ASGITransport(self._world.front)
        async with httpx.AsyncClient(transport=transport, base_url="http://base") as client:
            reply = await client.get(f"{path}/?{ticket}")
        return {200: reply.text, 404: NOBODY, 503: GONE}.get(reply.status_code, f"{reply.status_code}")

    async def _call(self, name: str, ticket: str) -> str:
        service = self._world.services.use("service", biz=name)
        try:
            return str(await service.slow(ticket))
        except KouplelessError:
            return GONE

    def picture(self) -> dict[str, Any]:
        """States, answers on paths, answers of services, and what of bizs that left lives on."""
        container = self._world.container
        services = {}
        for name in PATHS:
            service = self._world.services.use("service", biz=name)
            services[name] = NOBODY
            with contextlib.suppress(KouplelessError):
                services[name] = service.version()
        return {
            "states": {str(info.id): info.state.value for info in container.bizs()},
            "paths": {path: self._answer(path) for path in PATHS.values()},
            "services": services,
            "zombies": [zombie.what for zombie in container.zombies()],
        }

    def close(self) -> None:
        self._world.container.close()
        self._world.store.close()


def breed(address: str) -> None:
    """Fork a base for each connection, and say which process it is: what it imports is imported once."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with Listener(address) as listener:
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        while True:
            wire = listener.accept()
            if os.fork() == 0:
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                listener.close()
                wire.send(os.getpid())
                serve(wire)
                os._exit(0)
            wire.close()


def serve(wire: Connection) -> None:
    """Do what comes over the wire, and say what came of it, until ``close`` was done or the process is killed."""
    base = Base(*wire.recv())
    name = ""
    while name != "close":
        name, *args = wire.recv()
        try:
            wire.send(getattr(base, name)(*args))
        except KouplelessError as error:
            wire.send(f"{type(error).__name__}: {error}")


# --- what has to be ---------------------------------------------------------------------------------------------------


@dataclass
class Expected:
    """The bizs of a base as its documentation has them."""

    rules: Rules
    states: dict[str, str] = field(default_factory=dict)
    tickets: dict[str, str] = field(default_factory=dict)
    """Ticket -> the biz that it is inside, or `GONE`."""
    _born: dict[str, int] = field(default_factory=dict)
    _births: int = 0

    def install(self, name: str, version: str, strategy: Strategy, *, fails: bool) -> str | None:
        """The error it has to end with."""
        biz = f"{name}:{version}"
        is_free = biz not in self.states
        if not is_free and strategy is Strategy.INSTALL_ONLY:
            return "BizRepeated"
        if any(self._is_in_the_way(other, name) for other in self.states):
            if is_free and self.rules.keep_broken:
                self._list(biz, BizState.BROKEN)
            return "PathTaken"
        if strategy is Strategy.UNINSTALL_THEN_INSTALL:
            self._leave(*self._versions(name))
        if fails:
            if self.rules.keep_broken and biz not in self.states:
                self._list(biz, BizState.BROKEN)
            return "StartFailed"
        active = self._active(name)
        others = [other for other in self._versions(name) if other != biz]
        if not active or strategy is Strategy.REPLACE or self.rules.activate_new or self.rules.activate_many:
            for other in active:
                self.states[other] = BizState.DEACTIVATED.value
            state = BizState.ACTIVATED
        else:
            state = BizState.DEACTIVATED
        if strategy is Strategy.REPLACE:
            self._leave(*others, *([] if is_free else [biz]))
        self._list(biz, state)
        return None

    def uninstall(self, biz: str) -> str | None:
        if biz not in self.states:
            return "BizNotFound"
        was_active = self.states[biz] == BizState.ACTIVATED.value
        self._leave(biz)
        name = biz.partition(":")[0]
        ready = [other for other in self._versions(name) if self.states[other] == BizState.DEACTIVATED.value]
        if was_active and ready and not self._active(name) and (self.rules.activate_next or self.rules.activate_many):
            self.states[max(ready, key=self._born.__getitem__)] = BizState.ACTIVATED.value
        return None

    def switch(self, biz: str) -> str | None:
        if biz not in self.states:
            return "BizNotFound"
        if self.states[biz] == BizState.BROKEN.value:
            return "IllegalMove"
        for other in self._active(biz.partition(":")[0]):
            self.states[other] = BizState.DEACTIVATED.value
        self.states[biz] = BizState.ACTIVATED.value
        return None

    def begin(self, ticket: str, name: str, kind: str) -> bool:
        inside = self._at(PATHS[name]) if kind == "request" else next(iter(self._active(name)), None)
        if inside is not None:
            self.tickets[ticket] = inside
        return inside is not None

    def end(self, ticket: str) -> str:
        inside = self.tickets.pop(ticket)
        return inside if inside == GONE else inside.partition(":")[2]

    def restart(self) -> None:
        self.states.clear()
        self.tickets.clear()

    def picture(self) -> dict[str, Any]:
        def version(biz: str | None) -> str:
            return NOBODY if biz is None else biz.partition(":")[2]

        return {
            "states": self.states,
            "paths": {path: version(self._at(path)) for path in PATHS.values()},
            "services": {name: version(next(iter(self._active(name)), None)) for name in PATHS},
            "zombies": [],
        }

    def _at(self, path: str) -> str | None:
        return next((biz for name, place in PATHS.items() if place == path for biz in self._active(name)), None)

    def _is_in_the_way(self, biz: str, name: str) -> bool:
        other = biz.partition(":")[0]
        return other != name and PATHS[other] == PATHS[name] and self.states[biz] != BizState.BROKEN.value

    def _versions(self, name: str) -> list[str]:
        return [biz for biz in self.states if biz.partition(":")[0] == name]

    def _active(self, name: str) -> list[str]:
        return [biz for biz in self._versions(name) if self.states[biz] == BizState.ACTIVATED.value]

    def _list(self, biz: str, state: BizState) -> None:
        self.states[biz] = state.value
        self._births += 1
        self._born[biz] = self._births

    def _leave(self, *bizs: str) -> None:
        for biz in bizs:
            del self.states[biz]
            self.tickets.update({ticket: GONE for ticket, inside in self.tickets.items() if inside == biz})


if __name__ == "__main__":
    breed(sys.argv[1])
