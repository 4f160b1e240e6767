"""What is stuck in fetching, leaving or going down holds nothing up for longer than its deadlines."""

from __future__ import annotations

import gc
import os
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from tests.conftest import until

from koupleless.artifact.build import Options, build_file
from koupleless.artifact.store import Store
from koupleless.errors import ContainerClosed, FetchFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """What hangs, hangs until the test has ended."""
    opened = threading.Event()
    monkeypatch.setattr("builtins.gate_of_deadlines", opened, raising=False)
    yield opened
    opened.set()


@pytest.fixture
def hangs(monkeypatch: pytest.MonkeyPatch, gate: threading.Event) -> threading.Event:
    """A file system that does not answer while something is unpacked; set once somebody waits."""
    waits = threading.Event()
    unpack = Store.unpack

    def hang(self: Store, source: Any) -> Any:
        waits.set()
        gate.wait(60)
        return unpack(self, source)

    monkeypatch.setattr(Store, "unpack", hang)
    return waits


@pytest.mark.usefixtures("hangs")
def test_a_file_system_that_hangs_costs_an_install_its_deadline(
    make_world: Callable[..., Any], gate: threading.Event
) -> None:
    world = make_world(prepare_s=0.3)
    told = r"was not fetched, checked and unpacked in time: .* still runs at .* in hang"
    with pytest.raises(FetchFailed, match=told):
        world.container.prepare(str(world.artefact("hello-1.0")))
    gate.set()  # what comes late is given back
    until(lambda: not any(thread.name == "prepare an artefact" for thread in threading.enumerate()))
    assert len(world.store.remove_unused().digests) == 1


def test_a_base_that_goes_down_does_not_wait_for_a_file_system(
    make_world: Callable[..., Any], hangs: threading.Event
) -> None:
    world = make_world()
    failures: list[BaseException] = []

    def install() -> None:
        try:
            world.install("hello-1.0")
        except ContainerClosed as error:
            failures.append(error)

    thread = threading.Thread(target=install)
    thread.start()
    assert hangs.wait(10)
    began = time.monotonic()
    world.container.close()
    thread.join(10)
    assert time.monotonic() - began < 10
    assert failures


STUCK = {
    "a finaliser": """
class Ends:
    def __del__(self):
        gate_of_deadlines.wait(60)
ends = Ends()
ends.cycle = ends
""",
    "a lock of a log handler": """
import logging, threading
handler = logging.StreamHandler()
logging.getLogger().addHandler(handler)
def hold():
    with handler.lock:
        held.set()
        while not gate_of_deadlines.is_set():
            try:
                gate_of_deadlines.wait(60)
            except BaseException:
                pass
held = threading.Event()
threading.Thread(target=hold, daemon=True).start()
held.wait()
""",
}


@pytest.mark.usefixtures("gate")
@pytest.mark.parametrize("source", STUCK.values(), ids=list(STUCK))
def test_a_leaving_that_is_stuck_is_told_and_left_behind(
    make_world: Callable[..., Any], tmp_path: Path, source: str
) -> None:
    world = make_world(stop_s=0.5)
    world.container.install(world.container.prepare(str(project(tmp_path, source))))
    began = time.monotonic()
    report = world.container.uninstall(next(info.id for info in world.container.bizs()))
    assert time.monotonic() - began < 15
    assert not report.clean
    assert any("not finished within" in failure and "still runs at" in failure for failure in report.failures), report
    world.install("hello-1.0")
    assert world.get("/hello/").status_code == 200


CATCHES_ALL = """
import asyncio

async def catches_all():
    while True:
        try:
            await asyncio.sleep(0.05)
        except BaseException:
            pass

async def waits():
    while True:
        try:
            await asyncio.get_running_loop().create_future()
        except BaseException:
            pass

async def main():
    global tasks
    tasks = [asyncio.create_task(catches_all()), asyncio.create_task(waits())]
"""


def test_a_coroutine_that_catches_everything_leaves_with_its_module(
    make_world: Callable[..., Any], tmp_path: Path
) -> None:
    """Finalised away from its loop, it would be told again and again that there is none, and catch that, too."""
    world = make_world(stop_s=0.8)
    world.container.install(world.container.prepare(str(project(tmp_path, CATCHES_ALL))))
    report = world.container.uninstall(next(info.id for info in world.container.bizs()))
    assert report.clean, report.summary()
    assert any("was finalised, since " in ended and "stuck" in ended for ended in report.ended), report.ended
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("purge")]
    gc.collect()
    before = time.process_time()
    time.sleep(0.5)
    assert time.process_time() - before < 0.4
    world.install("hello-1.0")
    assert world.get("/hello/").status_code == 200


@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_what_is_no_file_is_refused(world: Any, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "endless.zip"
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero")
    with pytest.raises(FetchFailed, match="neither a file nor a directory but a pipe, a socket or a device"):
        world.container.prepare(str(path))


def project(directory: Path, source: str) -> Path:
    """The artefact of a module that is called ``stuck``."""
    (directory / "stuck.py").write_text(source)
    return build_file(directory / "stuck.py", Options(out=directory / "dist")).path
