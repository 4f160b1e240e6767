"""A biz leaves while others are inside its services: they get the value, or ``BizGone`` at the deadline."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import threading

import pytest
from tests.conftest import until

from koupleless.artifact.build import Options, build_file
from koupleless.biz import BizId
from koupleless.container.terms import Strategy
from koupleless.errors import BizGone, ServiceError

PROVIDER = """
import asyncio, contextlib, time
from koupleless.service import offer, use

VERSION = {version}
hall = use("hall")

class Provider:
    def version(self):
        return VERSION

    def here(self):
        hall.started()
        while not hall.may_go():
            time.sleep(0.005)
        return VERSION

    async def slow(self):
        hall.started()
        while not hall.may_go():
            await asyncio.sleep(0.005)
        return VERSION

    async def tidy(self):
        try:
            return await self.slow()
        finally:
            await asyncio.sleep(0.01)
            hall.tidied()

    async def stubborn(self):
        hall.started()
        while not hall.may_go():
            with contextlib.suppress(BaseException):
                await hall.waits()
        return VERSION

    async def task(self):
        return await asyncio.create_task(self.slow())

    def made_task(self):
        return asyncio.create_task(self.slow())

    async def thread(self):
        return await asyncio.to_thread(self.here)

    def steps(self):
        try:
            yield VERSION
            yield self.here()
        finally:
            hall.tidied()

    async def async_steps(self):
        try:
            yield VERSION
            yield await self.slow()
        finally:
            await asyncio.sleep(0)
            hall.tidied()

    @contextlib.contextmanager
    def session(self):
        try:
            yield VERSION
        finally:
            hall.tidied()

    @contextlib.asynccontextmanager
    async def async_session(self):
        try:
            yield VERSION
        finally:
            hall.tidied()

    async def __aiter__(self):
        yield VERSION
        yield await self.slow()

offer(Provider(), name="provider")
"""


class Hall:
    """Where provider, caller and test meet: a service of the base."""

    def __init__(self):
        self.is_started, self.go, self.is_tidied = threading.Event(), threading.Event(), threading.Event()

    def started(self):
        self.is_started.set()

    def may_go(self):
        return self.go.is_set()

    def tidied(self):
        self.is_tidied.set()

    async def waits(self):
        """Outside of the provider, in the middle of what the caller does with it."""
        self.started()
        await asyncio.to_thread(self.go.wait, 20)


@pytest.fixture
def hall():
    hall = Hall()
    yield hall
    hall.go.set()


@pytest.fixture
def stage(make_world, tmp_path, hall):
    """``stage(drain_s)``: a world with a provider, and ``deploy(version)`` in it."""

    def make(drain_s):
        world = make_world(drain_s=drain_s, stop_s=0.3)
        world.services.offer(hall, name="hall")

        def deploy(version):
            path = tmp_path / str(version) / "provider.py"
            path.parent.mkdir()
            path.write_text(PROVIDER.format(version=version))
            artefact = build_file(path, Options(out=path.parent / "out", version=f"{version}.0")).path
            world.container.install(world.container.prepare(str(artefact)), strategy=Strategy.REPLACE)

        world.deploy = deploy
        deploy(1)
        return world

    return make


async def asked(method):
    return await method()


async def collected(method):
    return [item async for item in method()]


async def iterated(provider):
    return [item async for item in provider]


async def in_thread(method):
    return await asyncio.to_thread(method)


async def listed_in_thread(method):
    return await asyncio.to_thread(lambda: list(method()))


async def held(hall, items):
    found = []
    for item in items:
        found.append(item)
        await hall.waits()
    return found


async def async_held(hall, items):
    found = []
    async for item in items:
        found.append(item)
        await hall.waits()
    return found


async def in_session(hall, provider):
    with provider.session() as version:
        await hall.waits()
    return version


async def in_async_session(hall, provider):
    async with provider.async_session() as version:
        await hall.waits()
    return version


CALLS = {
    "a coroutine": lambda hall, provider: asked(provider.slow),
    "one that tidies up": lambda hall, provider: asked(provider.tidy),
    "one that awaits a task of its own": lambda hall, provider: asked(provider.task),
    "a task that it returns": lambda hall, provider: asked(provider.made_task),
    "one that awaits a thread": lambda hall, provider: asked(provider.thread),
    "one that ignores its cancellation": lambda hall, provider: asked(provider.stubborn),
    "a call in a thread": lambda hall, provider: in_thread(provider.here),
    "a generator in a thread": lambda hall, provider: listed_in_thread(provider.steps),
    "an asynchronous generator": lambda hall, provider: collected(provider.async_steps),
    "a service that is iterated": lambda hall, provider: iterated(provider),
    "a generator between two steps": lambda hall, provider: held(hall, provider.steps()),
    "an asynchronous generator between two steps": lambda hall, provider: async_held(hall, provider.async_steps()),
    "a context manager": in_session,
    "an asynchronous context manager": in_async_session,
}
LISTS = {name for name in CALLS if "generator" in name or "iterated" in name}
BLOCKING = {"a call in a thread", "a generator in a thread"}


@contextlib.contextmanager
def call(world, hall, kind):
    """The outcome, as a future, of a call that the base makes and that has begun."""
    begin = CALLS[kind]
    future = asyncio.run_coroutine_threadsafe(
        begin(hall, world.services.use("provider", biz="provider")), world.stage.loop
    )
    try:
        assert hall.is_started.wait(20), future
        yield future
    finally:
        hall.go.set()


@pytest.mark.parametrize("kind", CALLS)
def test_a_version_that_is_replaced_finishes_the_calls_that_are_inside(stage, hall, kind):
    world = stage(drain_s=30)
    provider = world.services.use("provider", biz="provider")
    with call(world, hall, kind) as future:
        replacing = threading.Thread(target=world.deploy, args=(2,))
        replacing.start()
        until(lambda: provider.version() == 2)
        assert not future.done()
        hall.go.set()
        assert future.result(20) == ([1, 1] if kind in LISTS else 1)
    replacing.join(20)
    assert world.states() == {"provider:2.0": "ACTIVATED"}


@pytest.mark.parametrize("kind", CALLS)
def test_who_is_inside_at_the_deadline_is_told_that_the_biz_is_gone(stage, hall, kind):
    world = stage(drain_s=0.1)
    with call(world, hall, kind) as future:
        report = world.container.uninstall(BizId.of("provider", "1.0"))
        if kind in BLOCKING or "between" in kind or "manager" in kind:
            hall.go.set()  # the caller comes back to it
        with pytest.raises(BizGone, match=r"provider:1\.0 was uninstalled"):
            future.result(20)
    what = "tasks that others wait for" if kind == "a task that it returns" else "calls of its services"
    said = [failure for failure in report.failures if what in failure]
    assert said[0] == f"1 {what} had not ended after 0.1 s and were aborted"
    assert len(said) == 1 + (kind in BLOCKING)
    if kind in {"one that tidies up"} | {name for name in CALLS if "steps" in name or "manager" in name}:
        assert hall.is_tidied.is_set()
    assert world.states() == {}
    until(lambda: not [task for task in asyncio.all_tasks(world.stage.loop) if "of a service" in task.get_name()])


@pytest.mark.parametrize(("base_s", "asked_s"), [(30, 0.1), (0.1, 30)])
def test_an_uninstall_may_shorten_the_drain_and_not_lengthen_the_drain(stage, hall, base_s, asked_s):
    world = stage(drain_s=base_s)
    with call(world, hall, next(iter(CALLS))) as future:
        report = world.container.uninstall(BizId.of("provider", "1.0"), drain_s=asked_s)
        hall.go.set()
        with pytest.raises(BizGone):
            future.result(20)
    assert any("had not ended after 0.1 s" in failure for failure in report.failures)


def test_the_task_of_the_caller_is_not_cancelled_for_it(stage, hall):
    world = stage(drain_s=0.1)

    async def ask():
        try:
            await world.services.use("provider", biz="provider").slow()
        except BizGone:
            await asyncio.sleep(0)
            return [task.cancelling() for task in [asyncio.current_task()] if task is not None]
        return None

    future = asyncio.run_coroutine_threadsafe(ask(), world.stage.loop)
    assert hall.is_started.wait(20)
    world.container.uninstall(BizId.of("provider", "1.0"))
    assert future.result(20) == [0]


def test_a_caller_that_somebody_else_cancels_at_the_same_time_is_cancelled(stage, hall):
    world = stage(drain_s=0.1)

    async def ask():
        await world.services.use("provider", biz="provider").tidy()

    future = asyncio.run_coroutine_threadsafe(ask(), world.stage.loop)
    assert hall.is_started.wait(20)
    calls = world.container.scope_of(BizId.of("provider", "1.0")).calls
    (visit,) = calls

    async def both():
        visit.abort(calls)
        asyncio.get_running_loop().call_soon(visit.task.cancel)

    world.stage.call(both, timeout_s=20)
    with pytest.raises(concurrent.futures.CancelledError):
        future.result(20)


def test_a_version_that_leaves_lets_no_call_in(stage, hall):
    world = stage(drain_s=30)
    pinned = world.services.use("provider", biz="provider", version="1.0")
    with call(world, hall, "a coroutine") as future:
        leaving = threading.Thread(target=world.container.uninstall, args=(BizId.of("provider", "1.0"),))
        leaving.start()
        until(lambda: world.container.scope_of(BizId.of("provider", "1.0")) is None or is_shut(world))
        with pytest.raises((BizGone, ServiceError), match=r"provider:1\.0"):
            pinned.version()
        assert not future.done()
        hall.go.set()
        assert future.result(20) == 1
    leaving.join(20)


def is_shut(world):
    return world.container.scope_of(BizId.of("provider", "1.0")).calls.is_shut


def test_a_call_waits_for_no_lock_of_the_container_and_follows_each_change(stage, hall):
    world = stage(drain_s=30)
    provider = world.services.use("provider")
    with world.container._lock:
        future = concurrent.futures.ThreadPoolExecutor(1).submit(provider.version)
        assert future.result(20) == 1
    world.deploy(2)
    assert provider.version() == 2
    world.container.uninstall(BizId.of("provider", "2.0"))
    with pytest.raises(ServiceError, match="was not found"):
        provider.version()


GROUPED = """
import anyio.to_thread

async def work(*, task_status):
    await anyio.to_thread.run_sync(abs, -3)
    task_status.started()

async def app(scope, receive, send):
    global group
    if scope["type"] == "lifespan":
        await receive()
        async with anyio.create_task_group() as group:
            await send({"type": "lifespan.startup.complete"})
            await receive()
        await send({"type": "lifespan.shutdown.complete"})
    else:
        await group.start(work)
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})
"""


def test_nobody_waits_for_a_task_with_which_threads_of_anyio_end(make_world, tmp_path):
    """As the lifespan of a server of MCP: anyio ends its threads with the topmost task that it knows."""
    world = make_world(drain_s=5)
    (tmp_path / "grouped.py").write_text(GROUPED)
    artefact = build_file(tmp_path / "grouped.py", Options(out=tmp_path / "out")).path
    world.container.install(world.container.prepare(str(artefact)))
    assert world.get("/grouped/").status_code == 204
    report = world.container.uninstall(BizId.of("grouped", "1.0.0"))
    assert report.clean, report.summary()
