"""A container without a server: requests go straight into the front, on the stage's own loop."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx
import pytest

from koupleless.container.host import Host
from koupleless.container.surroundings import Deadlines
from koupleless.container.terms import Rules

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


class World:
    """A container with everything around it, and a way to ask its modules."""

    def __init__(self, store: Path, artefact: Callable[[str], Path], *, rules: Rules, deadlines: Deadlines) -> None:
        host = Host.make(store, rules=rules, deadlines=deadlines, data_dir=store.with_name("data"))
        self.container, self.front, self.stage = host.container, host.front, host.stage
        self.services, self.store = host.services, host.store
        self.artefact = artefact

    def install(self, directory: str, **options: Any) -> Any:
        return self.container.install(self.container.prepare(str(self.artefact(directory))), **options)

    def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        async def ask() -> httpx.Response:
            transport = httpx.ASGITransport(self.front)
            async with httpx.AsyncClient(transport=transport, base_url="http://base") as client:
                return await client.request(method, path, **options)

        return self.stage.call(ask, timeout_s=30)

    def get(self, path: str, **options: Any) -> httpx.Response:
        return self.request("GET", path, **options)

    def states(self) -> dict[str, str]:
        return {str(info.id): info.state.value for info in self.container.bizs()}


@pytest.fixture
def make_world(tmp_path: Path, artefact: Callable[[str], Path]) -> Iterator[Callable[..., World]]:
    worlds: list[World] = []

    def make(*, rules: Rules | None = None, **deadlines: float) -> World:
        seconds = {"start_s": 20.0, "drain_s": 5.0, "stop_s": 2.0, **deadlines}
        store = tmp_path / f"store-{len(worlds)}"
        worlds.append(World(store, artefact, rules=rules or Rules(), deadlines=Deadlines(**seconds)))
        return worlds[-1]

    yield make
    for world in worlds:
        world.container.close()


@pytest.fixture
def world(make_world: Callable[..., World]) -> World:
    return make_world()
