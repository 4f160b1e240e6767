"""The ASGI lifespan of one biz: its state, its one task, its failures, and an end to whatever hangs."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import re
import weakref
from typing import TYPE_CHECKING, Any

import pytest
from starlette.applications import Starlette

from koupleless.biz import BizId
from koupleless.context import Scope, current, current_biz
from koupleless.errors import StartFailed, StartTimeout, StopFailed
from koupleless.router.lifespan import Lifespan

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.anyio


def lifespan_of(app: Any) -> Lifespan:
    return Lifespan(app, scope=Scope(BizId.parse("hello:1.0")))


def lifespan_tasks() -> list[str]:
    return [task.get_name() for task in asyncio.all_tasks() if task.get_name().startswith("lifespan of")]


async def test_the_state_of_the_application_is_returned_and_its_end_runs_in_the_same_task_as_the_biz() -> None:
    seen: list[Any] = []
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")

    @contextlib.asynccontextmanager
    async def life(app: Any) -> AsyncIterator[dict[str, str]]:
        token = variable.set("set on the way in")
        seen.append((asyncio.current_task(), str(current_biz())))
        async with asyncio.TaskGroup() as group:
            task = group.create_task(asyncio.Event().wait())
            yield {"pool": "open"}
            task.cancel()
        variable.reset(token)
        seen.append((asyncio.current_task(), str(current_biz())))

    lifespan = lifespan_of(Starlette(lifespan=life))
    assert await lifespan.startup(5) == {"pool": "open"}
    assert lifespan.is_supported
    assert current() is None
    await lifespan.shutdown(5)
    await lifespan.shutdown(5)

    assert seen[0] == seen[1]
    assert seen[0][1] == "hello:1.0"
    assert lifespan.state == {}
    assert lifespan_tasks() == []


async def returns(scope: Any, receive: Any, send: Any) -> None:
    """Ignores what it does not know."""


async def raises(scope: Any, receive: Any, send: Any) -> None:
    raise ValueError("only http here")


async def asserts_after_receiving(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    assert scope["type"] == "http"


@pytest.mark.parametrize("app", [returns, raises, asserts_after_receiving])
async def test_an_application_without_lifespan_starts_and_stops_all_the_same(app: Any) -> None:
    lifespan = lifespan_of(app)

    assert await lifespan.startup(5) == {}
    assert lifespan.is_supported is False
    await lifespan.shutdown(5)


async def test_a_failed_startup_carries_what_the_application_said() -> None:
    @contextlib.asynccontextmanager
    async def life(app: Any) -> AsyncIterator[None]:
        if app is not None:
            raise LookupError("no database at db.example")
        yield

    lifespan = lifespan_of(Starlette(lifespan=life))
    with pytest.raises(StartFailed) as caught:
        await lifespan.startup(5)

    assert str(caught.value) == "biz hello:1.0 did not start: LookupError: no database at db.example"
    assert "in life\n" in caught.value.traceback
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    await lifespan.shutdown(5)


@pytest.mark.parametrize(
    ("message", "says"),
    [
        ({"message": "no licence"}, "did not start: no licence"),
        ({}, "did not start: the lifespan reported a failure without a message"),
    ],
)
async def test_a_failed_startup_needs_no_exception(message: dict[str, str], says: str) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", **message})

    with pytest.raises(StartFailed, match=says):
        await lifespan_of(app).startup(5)


async def test_a_failed_startup_without_message_tells_what_was_raised_next() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed"})
        raise LookupError("no database")

    with pytest.raises(StartFailed, match="did not start: LookupError: no database"):
        await lifespan_of(app).startup(5)


async def test_a_startup_that_hangs_is_cancelled_at_its_deadline() -> None:
    ended = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    with pytest.raises(StartTimeout, match=r"did not start within 0\.01 s"):
        await lifespan_of(app).startup(0.01)
    assert ended.is_set()
    assert lifespan_tasks() == []


async def test_a_startup_whose_caller_gives_up_is_cancelled_too() -> None:
    arrived, ended = asyncio.Event(), asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        arrived.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    starting = asyncio.create_task(lifespan_of(app).startup(None))
    await arrived.wait()
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert ended.is_set()


async def answers_startup(receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()


async def test_a_shutdown_that_hangs_is_cancelled_at_its_deadline() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await answers_startup(receive, send)
        await asyncio.Event().wait()

    lifespan = lifespan_of(app)
    await lifespan.startup(5)
    with pytest.raises(StopFailed, match=r"did not stop within 0\.01 s"):
        await lifespan.shutdown(0.01)
    assert lifespan_tasks() == []


async def test_a_task_that_ignores_its_cancellation_is_reported_and_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("koupleless.router.lifespan._GRACE_S", 0.01)
    go = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await answers_startup(receive, send)
        await send({"type": "lifespan.shutdown.complete"})
        while not go.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await go.wait()

    lifespan = lifespan_of(app)
    await lifespan.startup(5)
    with pytest.raises(StopFailed, match="ignores its cancellation"):
        await lifespan.shutdown(5)
    go.set()


@pytest.mark.parametrize("message", [{"message": "disk full"}, {}])
async def test_a_failed_shutdown_carries_what_the_application_said(message: dict[str, str]) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await answers_startup(receive, send)
        await send({"type": "lifespan.shutdown.failed", **message})

    lifespan = lifespan_of(app)
    await lifespan.startup(5)
    with pytest.raises(StopFailed, match=message.get("message", "without a message")):
        await lifespan.shutdown(5)


async def test_an_application_that_dies_in_between_is_reported_when_it_is_stopped() -> None:
    died = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        died.set()
        raise LookupError("lost its connection")

    lifespan = lifespan_of(app)
    await lifespan.startup(5)
    await died.wait()
    with pytest.raises(StopFailed, match="LookupError: lost its connection"):
        await lifespan.shutdown(5)


@pytest.mark.parametrize("raised", [SystemExit(1), KeyboardInterrupt()])
async def test_an_application_that_ends_its_program_before_it_has_started_fails_to(raised: BaseException) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise raised

    lifespan = lifespan_of(app)
    with pytest.raises(StartFailed, match=rf"in its lifespan, at {re.escape(__file__)}:\d+"):
        await lifespan.startup(5)


async def test_sys_exit_in_a_lifespan_is_an_error_and_not_the_end_of_the_loop() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await answers_startup(receive, send)
        raise SystemExit(1)

    lifespan = lifespan_of(app)
    await lifespan.startup(5)
    with pytest.raises(StopFailed, match=r"called sys\.exit\(1\) in its lifespan"):
        await lifespan.shutdown(5)


@pytest.mark.parametrize("fails", [True, False])
async def test_an_ended_lifespan_refers_to_nothing_of_its_biz(fails: bool) -> None:
    class App:
        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            await receive()
            if fails:
                raise_in_startup = {"type": "lifespan.startup.failed", "message": "no"}
                await send(raise_in_startup)
                raise LookupError("no")
            scope["state"]["app"] = self
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})

    app: Any = App()
    scope = Scope(BizId.parse("hello:1.0"))
    lifespan = Lifespan(app, scope=scope)
    error = None
    try:
        await lifespan.startup(5)
        await lifespan.shutdown(5)
    except StartFailed as caught:
        error = caught
    watched = [weakref.ref(app), weakref.ref(scope)]
    del app, scope
    gc.collect()

    assert (error is not None) is fails
    assert [ref() for ref in watched] == [None, None]
