"""One biz's entrance: entering, the figures, draining, aborting, and holding nothing when it is closed."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import threading
import weakref
from typing import TYPE_CHECKING, Any

import pytest
from tests.router.conftest import requests_in

from koupleless.biz import BizId
from koupleless.context import Scope, current, current_biz
from koupleless.router.gate import Gate

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.anyio


class Wire:
    """A client's side of one connection: records what was sent."""

    def __init__(self, kind: str = "http", **scope: Any) -> None:
        self.scope = {"type": kind, **scope}
        self.sent: list[Any] = []

    async def receive(self) -> Any:
        await asyncio.Event().wait()

    async def send(self, message: Any) -> None:
        self.sent.append(message)

    def enter(self, gate: Gate) -> asyncio.Task[bool]:
        return asyncio.create_task(gate.serve(self.scope, self.receive, self.send))


class Held:
    """An application whose requests stay inside until they are let go."""

    def __init__(self) -> None:
        self.arrived = asyncio.Event()
        self.go = asyncio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.arrived.set()
        await self.go.wait()


async def answer(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": scope.get("status", 200), "headers": []})
    await send({"type": "http.response.body", "body": b"x"})


async def test_the_application_runs_as_its_biz_and_the_caller_does_not(gate_of: Callable[..., Gate]) -> None:
    seen = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(str(current_biz()))

    assert await gate_of(app, "shop:2.1").serve(Wire().scope, Wire().receive, Wire().send)
    assert seen == ["shop:2.1"]
    assert current() is None


async def test_every_request_gets_its_own_copy_of_the_lifespans_state(gate_of: Callable[..., Gate]) -> None:
    seen = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["state"])
        scope["state"]["mine"] = True

    state = {"pool": object()}
    gate = gate_of(app, state=state)
    for _ in range(2):
        await gate.serve({"type": "http", "state": {"of": "the base"}}, Wire().receive, Wire().send)

    assert seen == [{**state, "mine": True}] * 2
    assert "mine" not in state


async def test_a_module_that_calls_sys_exit_fails_its_request_and_not_the_server(gate_of: Callable[..., Gate]) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise SystemExit(3)

    gate = gate_of(app)
    with pytest.raises(RuntimeError, match=r"hello:1\.0 called sys\.exit\(3\)"):
        await gate.serve(Wire().scope, Wire().receive, Wire().send)
    assert requests_in(gate) == 0


async def test_a_shut_gate_lets_nobody_in_and_touches_nothing(gate_of: Callable[..., Gate]) -> None:
    gate = gate_of(answer)
    gate.shut()
    wire = Wire()

    assert await gate.serve(wire.scope, wire.receive, wire.send) is False
    assert wire.sent == []
    assert requests_in(gate) == 0


async def test_drain_waits_for_the_last_one_inside(gate_of: Callable[..., Gate]) -> None:
    app = Held()
    gate = gate_of(app)
    inside = [Wire().enter(gate) for _ in range(3)]
    await app.arrived.wait()

    draining = asyncio.create_task(gate.drain(10))
    await asyncio.sleep(0)
    assert gate.is_shut
    assert requests_in(gate) == 3
    assert not draining.done()
    app.go.set()

    assert await draining == 0
    assert await asyncio.gather(*inside) == [True] * 3


async def test_drain_returns_at_its_deadline_how_many_are_left(gate_of: Callable[..., Gate]) -> None:
    app = Held()
    gate = gate_of(app)
    inside = [Wire().enter(gate) for _ in range(2)]
    await app.arrived.wait()

    assert await gate.drain(0.01) == 2
    app.go.set()
    await asyncio.gather(*inside)
    assert await gate.drain(0) == 0


async def test_drain_may_wait_on_another_loop_than_the_requests(gate_of: Callable[..., Gate]) -> None:
    app = Held()
    gate = gate_of(app)
    inside = Wire().enter(gate)
    await app.arrived.wait()
    waiting = threading.Event()
    left: list[int] = []

    async def drain() -> None:
        draining = asyncio.create_task(gate.drain(10))
        await asyncio.sleep(0)
        waiting.set()
        left.append(await draining)

    thread = threading.Thread(target=lambda: asyncio.run(drain()))
    thread.start()
    await asyncio.to_thread(waiting.wait, 10)
    app.go.set()
    await asyncio.to_thread(thread.join, 10)

    assert left == [0]
    assert await inside


async def test_abort_answers_503_where_nothing_was_said_yet(gate_of: Callable[..., Gate]) -> None:
    app = Held()
    gate = gate_of(app)
    wire = Wire()
    inside = wire.enter(gate)
    await app.arrived.wait()

    assert await gate.abort(5) == 0
    assert await inside
    assert not inside.cancelled()
    assert inside.cancelling() == 0
    assert wire.sent[0]["status"] == 503
    assert b"hello:1.0 is being uninstalled" in wire.sent[1]["body"]
    assert requests_in(gate) == 0


async def test_abort_cuts_off_an_answer_that_is_half_out(gate_of: Callable[..., Gate]) -> None:
    began = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        began.set()
        await receive()

    gate = gate_of(app)
    inside = Wire().enter(gate)
    await began.wait()

    assert await gate.abort(5) == 0
    with pytest.raises(ConnectionAbortedError, match="before the answer was complete"):
        await inside


async def test_abort_closes_a_websocket_as_going_away(gate_of: Callable[..., Gate]) -> None:
    began = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.accept"})
        began.set()
        await receive()

    gate = gate_of(app)
    wire = Wire("websocket")
    inside = wire.enter(gate)
    await began.wait()

    assert await gate.abort(5) == 0
    assert await inside
    assert (wire.sent[-1]["type"], wire.sent[-1]["code"]) == ("websocket.close", 1001)


async def test_abort_of_a_request_whose_client_has_left_raises_nothing(gate_of: Callable[..., Gate]) -> None:
    app = Held()
    gate = gate_of(app)

    async def send(message: Any) -> None:
        raise RuntimeError("the connection is closed")

    inside = asyncio.create_task(gate.serve({"type": "websocket"}, Wire().receive, send))
    await app.arrived.wait()

    assert await gate.abort(5) == 0
    assert await inside


async def test_abort_does_not_touch_what_a_task_does_after_its_request(gate_of: Callable[..., Gate]) -> None:
    """As a client in this process does: its task is the one that is inside, and goes on afterwards."""
    app = Held()
    gate = gate_of(app)

    async def ask() -> str:
        await gate.serve(Wire().scope, Wire().receive, Wire().send)
        await asyncio.sleep(0)
        return "goes on"

    asking = asyncio.create_task(ask())
    await app.arrived.wait()
    aborting = asyncio.create_task(gate.abort(5))  # finds it inside; it has left when its loop comes to cancelling it
    app.go.set()

    assert await asking == "goes on"
    assert await aborting == 0


async def test_abort_gives_up_on_what_ignores_it_and_says_so(gate_of: Callable[..., Gate]) -> None:
    arrived, go = asyncio.Event(), asyncio.Event()

    async def stubborn(scope: Any, receive: Any, send: Any) -> None:
        arrived.set()
        while not go.is_set():
            try:
                await go.wait()
            except asyncio.CancelledError:
                continue

    gate = gate_of(stubborn)
    inside = Wire().enter(gate)
    await arrived.wait()

    assert await gate.abort(0.01) == 1
    go.set()
    assert await inside
    assert inside.cancelling() == 0


async def test_abort_forgets_requests_of_a_loop_that_has_ended(gate_of: Callable[..., Gate]) -> None:
    arrived = threading.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        arrived.set()
        await asyncio.Event().wait()

    gate = gate_of(app)
    wire = Wire()
    context = contextvars.copy_context()
    serving = gate.serve(wire.scope, wire.receive, wire.send)

    def abandon() -> Any:
        loop = asyncio.new_event_loop()
        task = loop.create_task(serving, context=context)
        task._log_destroy_pending = False  # type: ignore[attr-defined] # the point is that nobody ends it
        loop.call_soon(loop.stop)
        loop.run_forever()
        loop.close()
        return task

    abandoned = await asyncio.to_thread(abandon)
    assert arrived.is_set()
    assert requests_in(gate) == 1

    assert await gate.abort(5) == 0
    assert not abandoned.done()
    context.run(serving.close)


async def test_a_cancellation_that_is_not_the_gates_passes_through(gate_of: Callable[..., Gate]) -> None:
    app = Held()
    gate = gate_of(app)
    inside = Wire().enter(gate)
    await app.arrived.wait()
    inside.cancel()

    with pytest.raises(asyncio.CancelledError):
        await inside
    assert requests_in(gate) == 0


async def test_one_task_may_be_inside_twice(gate_of: Callable[..., Gate]) -> None:
    depths = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        depths.append(requests_in(gate))
        if len(depths) == 1:
            await gate.serve(scope, receive, send)
            depths.append(requests_in(gate))

    gate = gate_of(app)
    await gate.serve(Wire().scope, Wire().receive, Wire().send)

    assert depths == [1, 2, 1]
    assert requests_in(gate) == 0


async def test_a_closed_gate_refers_to_nothing_of_its_biz() -> None:
    class App:
        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": []})

    class Pool:
        """Something in the state."""

    app, scope, pool = App(), Scope(BizId.parse("hello:1.0")), Pool()
    gate = Gate(scope, app, state={"pool": pool})
    await gate.serve(Wire().scope, Wire().receive, Wire().send)
    watched = [weakref.ref(held) for held in (app, scope, pool)]
    assert await gate.drain(1) == 0

    assert gate.close() == ()
    assert gate.close() == ()
    del app, scope, pool
    gc.collect()

    assert [ref() for ref in watched] == [None] * 3
    assert repr(gate) == "<Gate hello:1.0 closed, 0 in flight>"
    assert await gate.serve(Wire().scope, Wire().receive, Wire().send) is False


async def test_a_gate_says_how_it_is(gate_of: Callable[..., Gate]) -> None:
    gate = gate_of(answer)
    assert repr(gate) == "<Gate hello:1.0 open, 0 in flight>"
    gate.shut()
    assert repr(gate) == "<Gate hello:1.0 shut, 0 in flight>"


def test_the_server_s_own_code_runs_as_the_base_while_a_biz_answers() -> None:
    from koupleless.biz import BizId
    from koupleless.context import Scope, current
    from koupleless.router.gate import Gate

    seen: list[object] = []

    async def app(scope: object, receive: object, send: object) -> None:
        seen.append(current())
        await receive()  # type: ignore[operator]
        seen.append(current())
        await send({"type": "http.response.start", "status": 200, "headers": []})  # type: ignore[operator]
        seen.append(current())

    async def receive() -> dict[str, object]:
        seen.append(current())
        return {"type": "http.request"}

    async def send(message: object) -> None:
        seen.append(current())

    biz = Scope(BizId.parse("a:1"))
    asyncio.run(Gate(biz, app).serve({"type": "http"}, receive, send))

    assert seen == [biz, None, biz, None, biz]
