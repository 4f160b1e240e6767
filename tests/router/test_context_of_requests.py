"""In which context a request runs, and in which the server's own code: neither finds anything of the other's."""

from __future__ import annotations

import asyncio
import weakref
from contextvars import ContextVar, copy_context
from typing import TYPE_CHECKING, Any

import pytest

from koupleless.biz import BizId
from koupleless.context import Scope, current
from koupleless.router.gate import Gate

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.anyio

LANGUAGE: ContextVar[str] = ContextVar("language", default="none")
IDENTIFIER: ContextVar[str] = ContextVar("identifier", default="none")


class Thing:
    pass


KEPT: ContextVar[Thing] = ContextVar("kept")


def make(app: Callable[..., Any]) -> Gate:
    scope = Scope(BizId.of("hello", "1.0"))
    scope.variables.context.run(LANGUAGE.set, "set at import")
    scope.variables.context.run(KEPT.set, Thing())
    scope.variables.settle()
    return Gate(scope, app)


class Server:
    """What is done in its ``receive`` and ``send``, and what is seen there."""

    def __init__(self) -> None:
        self.seen: list[tuple[Any, str, str, Any]] = []
        self.timers: list[asyncio.TimerHandle] = []

    def look(self) -> None:
        self.seen.append((current(), LANGUAGE.get(), IDENTIFIER.get(), KEPT.get(None)))
        self.timers.append(asyncio.get_running_loop().call_later(60, print))

    async def receive(self) -> dict[str, Any]:
        self.look()
        await asyncio.sleep(0)
        self.look()
        return {"type": "http.request"}

    async def send(self, _message: Any) -> None:
        self.look()

    def send_at_once(self, _message: Any) -> Any:
        self.look()

        class Done:
            def __await__(self) -> Any:
                yield from ()

        return Done()


@pytest.mark.parametrize("at_once", [False, True])
async def test_the_servers_code_finds_the_context_that_the_request_came_in(at_once: bool) -> None:
    found = []

    async def app(_scope: Any, receive: Any, send: Any) -> None:
        found.append((current() is not None, LANGUAGE.get(), IDENTIFIER.get()))
        LANGUAGE.set("set in the request")
        IDENTIFIER.set("changed")
        await receive()
        await send({"type": "http.response.start", "status": 200})
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(send({"type": "http.response.body"}))
        found.append((current() is not None, LANGUAGE.get(), IDENTIFIER.get()))

    IDENTIFIER.set("request 1")
    gate, server = make(app), Server()
    before = dict(copy_context())
    for _ in range(2):
        found.clear()
        assert await gate.serve({"type": "http"}, server.receive, server.send_at_once if at_once else server.send)
        assert found == [(True, "set at import", "request 1"), (True, "set in the request", "changed")]
    assert server.seen == [(None, "none", "request 1", None)] * 8
    assert dict(copy_context()) == before


async def test_nothing_that_a_server_keeps_holds_a_biz_that_has_left() -> None:
    """As the timer that ends a connection which stays open: it keeps the context that it was set in."""
    things = []

    async def app(_scope: Any, receive: Any, send: Any) -> None:
        thing = Thing()
        things.extend([weakref.ref(thing), weakref.ref(KEPT.get())])
        KEPT.set(thing)
        del thing
        await receive()
        await send({"type": "http.response.start", "status": 200})

    gate, server = make(app), Server()
    scope = gate._scope
    assert scope is not None
    await gate.serve({"type": "http"}, server.receive, server.send)
    gate.close()
    scope.close()
    del scope
    assert len(server.timers) == 3
    assert [thing() for thing in things] == [None, None]
    for timer in server.timers:
        timer.cancel()
