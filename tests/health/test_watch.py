"""The watch over the event loop: who holds it is named, and nobody else."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from tests.conftest import until

from koupleless.artifact.build import Options, build_file
from koupleless.container.host import Host
from koupleless.health.watch import LoopWatch
from koupleless.view.logging.logbook import Logbook

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

BLOCKING = """
import time

def count_beans(seconds):
    time.sleep(seconds)

async def app(scope, receive, send):
    if scope["type"] == "http":
        if scope["path"].endswith("block"):
            count_beans(0.5)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"x"})
"""
LIMIT_S = 0.2


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    logbook = Logbook(directory=tmp_path / "logs")
    host = Host.make(tmp_path / "store", logbook=logbook, watch=LoopWatch(LIMIT_S, logbook))
    yield host
    host.container.close()


@pytest.fixture
def install(host: Host, tmp_path: Path) -> Callable[[str], None]:
    def run(name: str) -> None:
        path = tmp_path / f"{name}.py"
        path.write_text(BLOCKING)
        built = build_file(path, Options(out=tmp_path / "out", version="1")).path
        host.container.install(host.container.prepare(str(built)))

    return run


def ask(host: Host, path: str) -> int:
    async def get() -> int:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(host.front), base_url="http://base") as client:
            return (await client.get(path)).status_code

    return host.stage.call(get, timeout_s=30)


def test_a_module_that_holds_the_loop_is_named_with_its_stack(
    host: Host, install: Callable[[str], None], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("shop", "till"):
        install(name)
    assert ask(host, "/till/") == ask(host, "/shop/") == 200
    assert not host.container.watch.blocks
    assert ask(host, "/shop/block") == 200
    until(lambda: host.container.watch.blocks, 10)
    (block,) = host.container.watch.blocks
    assert str(block.biz) == "shop:1"
    assert 0.2 < block.seconds < 5
    assert "in count_beans\n" in block.stack
    assert block.stack.startswith('  File "')
    assert "gate.py" not in block.stack
    warnings = [record.getMessage() for record in caplog.records if "event loop" in record.getMessage()]
    assert warnings[0].startswith("biz shop:1 has held the event loop for 0.2 s, and holds it still:\n  File ")
    assert warnings[1].startswith("biz shop:1 has held the event loop for 0.")
    assert "count_beans" in (tmp_path / "logs" / "shop" / "shop.log").read_text()
    assert "event loop" not in (tmp_path / "logs" / "till" / "till.log").read_text()
    assert block.biz is not None
    assert host.container.uninstall(block.biz).clean


def test_the_base_is_named_where_no_module_is_on_the_stack(host: Host, install: Callable[[str], None]) -> None:
    install("shop")

    async def block() -> None:
        time.sleep(0.5)  # noqa: ASYNC251 - what is tested

    host.stage.call(block, timeout_s=10)
    until(lambda: host.container.watch.blocks, 10)
    assert host.container.watch.blocks[0].biz is None


def test_the_lag_is_seen_while_the_loop_is_held(host: Host, install: Callable[[str], None]) -> None:
    install("shop")
    go_on = threading.Event()

    async def block() -> None:
        go_on.wait(10)

    waiting = threading.Thread(target=host.stage.call, args=(block,), kwargs={"timeout_s": 20})
    waiting.start()
    until(lambda: host.container.watch.lag_s > LIMIT_S, 10)
    go_on.set()
    waiting.join(10)
    until(lambda: host.container.watch.lag_s < LIMIT_S, 10)


def test_the_thread_comes_with_the_first_module_and_ends_with_the_container(
    host: Host, install: Callable[[str], None]
) -> None:
    def threads() -> list[Any]:
        return [thread for thread in threading.enumerate() if thread.name == "koupleless-watch"]

    assert threads() == []
    install("shop")
    assert len(threads()) == 1
    host.container.close()
    assert threads() == []


def test_a_loop_that_ends_or_was_held_by_nobody_hurts_nothing(caplog: pytest.LogCaptureFixture) -> None:
    loop = asyncio.new_event_loop()
    watch = LoopWatch(0.05)
    watch.begin(loop)  # which never runs
    watch.begin(loop)
    watch.end()
    loop.close()
    late = LoopWatch(0.05)
    late.begin(loop)
    late.end()
    never = LoopWatch(0.0)
    never.begin(loop)
    never.end()
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []
