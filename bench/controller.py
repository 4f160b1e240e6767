"""Time from the creation of a Pod to the condition Ready, on a real API server with bases that answer at once.

``python bench/controller.py [PODS] [BASES]``: that many Pods (200) one after the other on one base, then a hundred at
once on so many bases (10). The control plane is that of the tests (`scripts/kube build`); the figures of the original
controller, on a machine of the same kind, are in the table.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import Row, report, spread

sys.path.insert(0, str(Path(__file__).parents[1]))

from lightkube.config.kubeconfig import KubeConfig
from tests.controller.world import MemoryTunnel
from tests.kube.fixtures import programs
from tests.kube.plane import hold

from koupleless.controller.bases.steward import Habits
from koupleless.controller.cluster.api import Api, Kind
from koupleless.controller.cluster.cache import Cache
from koupleless.controller.controller import Choices, Controller
from koupleless.controller.names import node_name
from koupleless.controller.vnodes.base import AnnouncedBase, BaseState

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from koupleless.controller.cluster.api import Key

NAMESPACE = "/api/v1/namespaces/default/pods"


class Bases:
    """A tunnel to any number of bases, each with modules of its own."""

    def __init__(self) -> None:
        self._bases: dict[str, MemoryTunnel] = {}

    def __getattr__(self, name: str) -> Any:
        async def call(base: AnnouncedBase, *arguments: Any) -> Any:
            return await getattr(self._bases.setdefault(base.identity, MemoryTunnel()), name)(base, *arguments)

        return call


class Scene:
    """Pods, with the time at which each was seen to be ready."""

    def __init__(self, api: Api) -> None:
        self.api = api
        self.ready: dict[str, float] = {}
        self._seen = asyncio.Event()
        self.cache: Cache[bool] = Cache(api, Kind("/api/v1/pods", _is_ready), self._changed)

    def _changed(self, key: Key) -> None:
        if self.cache.get(key) and key.name not in self.ready:
            self.ready[key.name] = time.perf_counter()
            self._seen.set()

    async def create(self, name: str, node: str) -> float:
        """Create a Pod, and return the time before the request."""
        env = [{"name": "BIZ_VERSION", "value": "1"}]
        pod = {
            "metadata": {"name": name, "labels": {"virtual-kubelet.koupleless.io/component": "module"}},
            "spec": {
                "nodeName": node,
                "containers": [{"name": name, "image": f"https://repo.example/{name}.zip", "env": env}],
                "tolerations": [{"operator": "Exists"}],
            },
        }
        begin = time.perf_counter()
        await self.api.create(NAMESPACE, pod)
        return begin

    async def until_ready(self, *names: str) -> None:
        async with asyncio.timeout(120):
            while not self.ready.keys() >= set(names):
                self._seen.clear()
                await self._seen.wait()


def _is_ready(document: dict[str, Any]) -> bool:
    conditions = (document.get("status") or {}).get("conditions") or ()
    return any((one["type"], one["status"]) == ("Ready", "True") for one in conditions)


@contextlib.asynccontextmanager
async def controlled(config: Any, bases: int) -> AsyncIterator[list[str]]:
    """Yield the names of the Nodes of so many bases."""
    announced = [
        AnnouncedBase(f"b{number}", "bench", "1", "default", "127.0.0.1", f"b{number}", 1238, BaseState.ACTIVATED, "1")
        for number in range(bases)
    ]
    async with Controller(config, Bases(), Choices("bench", Habits(env="bench"))) as controller, Api(config) as api:
        await controller.ready()
        nodes = [node_name(base.identity, "bench") for base in announced]

        async def beat() -> None:
            while True:
                for base in announced:
                    controller.hear(base)
                await asyncio.sleep(10)

        beating = asyncio.create_task(beat())
        for node in nodes:
            while (found := await api.get(f"/api/v1/nodes/{node}")) is None or not _is_ready(found):  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        try:
            yield nodes
        finally:
            beating.cancel()


async def measure(config: Any, pods: int, bases: int) -> tuple[list[float], list[float]]:
    """Return the milliseconds until Ready: of each of the Pods one by one, and of a hundred at once."""
    async with Api(config) as api, controlled(config, bases) as nodes:
        scene = Scene(api)
        following = asyncio.create_task(scene.cache.run())
        await scene.cache.synced()
        one_by_one = []
        for number in range(pods):
            name = f"one-{number}"
            begin = await scene.create(name, nodes[0])
            await scene.until_ready(name)
            one_by_one.append((scene.ready[name] - begin) * 1e3)
        names = [f"many-{number}" for number in range(100)]
        begins = await asyncio.gather(*(scene.create(name, nodes[number % bases]) for number, name in enumerate(names)))
        await scene.until_ready(*names)
        at_once = [(scene.ready[name] - begin) * 1e3 for name, begin in zip(names, begins, strict=True)]
        following.cancel()
    return one_by_one, at_once


def main(pods: int, bases: int) -> None:
    """Measure on a control plane of this run."""
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as name:
        held = hold(Path(name), programs())
        try:
            config = KubeConfig.from_dict(held.access.kubeconfig_of("admin")).get()
            one_by_one, at_once = asyncio.run(measure(config, pods, bases))
        finally:
            held.release()
    one, many = spread(one_by_one), spread(at_once)
    last = max(at_once)
    rows = [
        Row(f"Pod created to Ready, {pods} one by one, P50", f"{one['p50']:.0f} ms", "9,000 ms", "", "", None),
        Row("the same, P90", f"{one['p90']:.0f} ms", "14,000 ms", "", "<= 100 ms", one["p90"] <= 100),
        Row(
            f"100 Pods at once on {bases} bases, the last",
            f"{last / 1e3:.1f} s",
            "13 to 139 s",
            "",
            "<= 5 s",
            last <= 5e3,
        ),
    ]
    report("controller", rows, {"one_by_one_ms": one, "at_once_ms": many, "last_ms": last})


if __name__ == "__main__":
    numbers = [int(argument) for argument in sys.argv[1:]]
    main(*numbers, *(200, 10)[len(numbers) :])
