"""The controller with real bases and artefacts, on a real control plane."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING

import httpx
import pytest
import uvicorn
from tests.controller.documents import container
from tests.controller.floor import floor_on, play
from tests.state.conftest import make_module

from koupleless.controller.tunnels.discovery import Discovery
from koupleless.controller.tunnels.http import HttpTunnel

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path
    from typing import Any

    from tests.controller.floor import Floor
    from tests.e2e.conftest import BaseProcess
    from tests.kube.plane import Access

    from koupleless.controller.controller import Controller

pytestmark = pytest.mark.kube

_EVERY_S = 0.005


@contextlib.asynccontextmanager
async def hearing(controller: Controller, listening: socket.socket) -> AsyncIterator[None]:
    """Hear bases on a socket of loopback."""
    config = uvicorn.Config(Discovery(controller).application(), log_config=None, lifespan="off", access_log=False)
    server = uvicorn.Server(config)
    server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
    task = asyncio.create_task(server.serve(sockets=[listening]))
    try:
        yield
    finally:
        server.should_exit = True
        await task


@contextlib.contextmanager
def load(bases: list[BaseProcess], path: str) -> Iterator[list[Counter[str]]]:
    """Ask each base for ``path`` each few milliseconds, and count the answers by their text, failures by their kind."""
    counts: list[Counter[str]] = [Counter() for _ in bases]
    is_over = threading.Event()

    def ask(base: BaseProcess, count: Counter[str]) -> None:
        with httpx.Client(base_url=base.url, trust_env=False, timeout=30) as client:
            while not is_over.wait(_EVERY_S):
                try:
                    answer = client.get(path)
                except httpx.HTTPError as error:
                    count[type(error).__name__] += 1
                else:
                    count[answer.text if answer.is_success else str(answer.status_code)] += 1

    threads = [threading.Thread(target=ask, args=pair) for pair in zip(bases, counts, strict=True)]
    for thread in threads:
        thread.start()
    try:
        yield counts
    finally:
        is_over.set()
        for thread in threads:
            thread.join()


@pytest.fixture
def floor(control_plane: Access, namespace: str) -> Iterator[Floor]:
    with floor_on(control_plane, namespace, bases=0) as floor:
        yield floor


def artefact(directory: Path, version: str) -> dict[str, Any]:
    """Make a container with a real artefact that answers its identity."""
    return container("prices", version, image=make_module(directory, f"prices:{version}").as_uri())


def containers(*wanted: dict[str, Any]) -> dict[str, Any]:
    return {"spec": {"template": {"spec": {"containers": list(wanted)}}}}


def test_a_rollout_on_real_bases_loses_no_request_and_a_killed_base_is_filled_again(
    serve: Callable[..., BaseProcess], floor: Floor, tmp_path: Path
) -> None:
    async def act() -> None:
        with socket.socket() as listening:
            listening.bind(("127.0.0.1", 0))
            address = f"http://127.0.0.1:{listening.getsockname()[1]}"
            async with HttpTunnel() as tunnel, floor.controlled(tunnel) as controller, hearing(controller, listening):
                bases = [await asyncio.to_thread(start, identity, address) for identity in ("a", "b")]
                for identity in ("a", "b"):
                    floor.expect(f"{floor.env}-{identity}")
                await floor.soon(floor.are_nodes_ready)
                path = await floor.deploy(artefact(tmp_path, "1"), replicas=2)
                with load(bases, "/prices/") as counts:
                    for version in ("2", "1", "2", "1"):  # each second one as `kubectl rollout undo`
                        await floor.patch(path, containers(artefact(tmp_path, version)))
                        await floor.soon(lambda: floor.is_rolled_out(path))
                    mark = {"kubectl.kubernetes.io/restartedAt": "now"}
                    await floor.patch(path, {"spec": {"template": {"metadata": {"annotations": mark}}}})
                    await floor.soon(lambda: floor.is_rolled_out(path))
                    await floor.soon(lambda: _have_restarted(floor, 2))
                for count in counts:
                    assert set(count) == {"prices:1", "prices:2"}, counts

                killed = bases[0]
                killed.popen.send_signal(signal.SIGKILL)
                killed.popen.wait()
                again = await asyncio.to_thread(start, "a", address)
                ends = time.monotonic() + 30
                while await asyncio.to_thread(answer_of, again) != "prices:1":
                    assert time.monotonic() < ends, again.log.read_text()

    def start(identity: str, address: str) -> BaseProcess:
        settings = {
            "KOUPLELESS_ARKLET_IDENTITY": f"{floor.env}-{identity}",
            "MODULE_CONTROLLER_ADDRESS": address,
        }
        with pytest.MonkeyPatch.context() as patch:
            for name, value in settings.items():
                patch.setenv(name, value)
            return serve("--name", "shop", "--ephemeral")

    play(act)


async def _have_restarted(floor: Floor, count: int) -> bool:
    """Whether so many bases have started their module again, as `kubectl rollout restart` asks for."""
    found = await floor.get(f"/api/v1/namespaces/{floor.namespace}/events") or {}
    return sum(event.get("count") or 1 for event in found["items"] if event["reason"] == "ModuleRestarted") == count


def answer_of(base: BaseProcess) -> str:
    with contextlib.suppress(httpx.HTTPError):
        return base.get("/prices/").text
    return ""
