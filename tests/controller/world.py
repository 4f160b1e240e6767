"""A cluster and bases in memory, for tests of stewards: the API server applies patches, bases do as they are told."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from tests.controller.documents import NODE, leaving, pod

from koupleless.controller.bases.steward import Habits, Steward
from koupleless.controller.tunnels.answers import Answer, Outcome
from koupleless.controller.tunnels.tunnel import Health, NoAnswer
from koupleless.controller.vnodes.base import AnnouncedBase, BaseState
from koupleless.controller.vpods.pod import VPod

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from koupleless.controller.probes.probe import Check
    from koupleless.controller.vpods.hooks import Visit
    from koupleless.controller.vpods.module import Module, ModuleKey
    from koupleless.controller.vpods.variables import Source

BASE = AnnouncedBase("base-1", "shop", "1.0.0", "default", "10.0.0.7", "base-0", 1238, BaseState.ACTIVATED, "start-1")


EPOCH = 1_700_000_000.0
"""The seconds between the clock of a `World` and the time of the day."""
_START_MS = 100_000


class NoSources:
    """No ConfigMaps, and no Secrets."""

    def find(self, source: Source) -> None:
        """Find nothing."""


class MemoryCluster:
    """One cluster; remembers the order of writes."""

    def __init__(self) -> None:
        self.nodes: dict[str, dict[str, Any]] = {}
        self.pods: dict[str, dict[str, Any]] = {}
        self.writes: list[tuple[str, str]] = []
        self.events: list[tuple[str, str, str]] = []
        self.created = 0

    def create_pod(self, name: str, *containers: dict[str, Any], **members: Any) -> None:
        self.created += 1
        self.pods[name] = pod(name, *containers, **{"created": self.created, **members})

    def delete_pod(self, name: str, *, grace_s: int = 30) -> None:
        self.pods[name] = leaving(self.pods[name], grace_s=grace_s)

    def ready(self) -> set[str]:
        """Return the names of the Pods with the condition Ready."""
        return {
            name
            for name, document in self.pods.items()
            for one in document.get("status", {}).get("conditions", ())
            if (one["type"], one["status"]) == ("Ready", "True")
        }

    # --- as a steward needs it ---

    def node(self, name: str) -> Mapping[str, Any] | None:
        return self.nodes.get(name)

    def pods_on(self, node: str) -> Sequence[VPod]:
        return [VPod.of(document) for document in self.pods.values() if document["spec"]["nodeName"] == node]

    async def sources(self, pod: VPod) -> NoSources:
        return NoSources()

    async def create_node(self, document: Mapping[str, Any]) -> None:
        self.writes.append(("create node", document["metadata"]["name"]))
        self.nodes[document["metadata"]["name"]] = {**document, "status": {}}

    async def patch_node(self, name: str, patch: Mapping[str, Any]) -> None:
        self.writes.append(("patch node", name))
        for member, values in patch.get("metadata", {}).items():
            self.nodes[name]["metadata"][member] |= values

    async def patch_node_status(self, name: str, status: Mapping[str, Any]) -> None:
        self.writes.append(("node status", name))
        self.nodes[name]["status"] = {**self.nodes[name]["status"], **status}

    async def delete_node(self, name: str) -> None:
        self.writes.append(("delete node", name))
        self.nodes.pop(name, None)

    async def patch_pod_status(self, pod: VPod, status: Mapping[str, Any]) -> None:
        await asyncio.sleep(0)
        self.writes.append(("pod status", pod.key.name))
        document = self.pods[pod.key.name]
        self.pods[pod.key.name] = {**document, "status": {**document.get("status", {}), **status}}

    async def remove_pod(self, pod: VPod) -> None:
        self.writes.append(("remove pod", pod.key.name))
        del self.pods[pod.key.name]

    def tell_node(self, node: str, kind: str, reason: str, message: str) -> None:
        self.events.append((node, reason, message))

    def tell(self, pod: VPod, kind: str, reason: str, message: str) -> None:
        self.events.append((pod.key.name, reason, message))


class MemoryTunnel:
    """A base, and the tunnel to the base."""

    def __init__(self) -> None:
        self.there: dict[ModuleKey, str] = {}
        self.calls: list[tuple[str, str]] = []
        self.failing: dict[str, Answer] = {}
        """Answers in the place of a success, by verb and module, as ``install orders:1``."""
        self.starts: dict[ModuleKey, int] = {}
        """The times of starts after the first."""
        self.drains: list[float | None] = []
        self.health_of: dict[str, str] = {}
        """The health of modules that are not up, by name."""
        self.is_reachable = True
        self.holds = asyncio.Event()
        self.holds.set()
        """Cleared, installs wait."""
        self.holds_restarts = asyncio.Event()
        self.holds_restarts.set()
        """Cleared, restarts wait."""
        self.holds_visits = asyncio.Event()
        self.holds_visits.set()
        """Cleared, visits for hooks wait."""

    async def install(self, base: AnnouncedBase, module: Module, *, replaces: bool = False) -> Answer:
        if replaces:
            return await self._do("restart", module.key, self._restart)
        return await self._do("install", module.key, self._install)

    async def switch(self, base: AnnouncedBase, key: ModuleKey) -> Answer:
        return await self._do("switch", key, self._switch)

    async def uninstall(self, base: AnnouncedBase, key: ModuleKey, *, drain_s: float | None = None) -> Answer:
        self.drains.append(drain_s)
        return await self._do("uninstall", key, lambda key: self.there.pop(key, None))

    async def modules(self, base: AnnouncedBase) -> tuple[Mapping[str, Any], ...]:
        self._check()
        return tuple(
            {
                "bizName": key.name,
                "bizVersion": key.version,
                "bizState": state,
                "bizStateRecords": [{"changeTime": self.starts.get(key, _START_MS), "state": "ACTIVATED"}],
                "health": self.health_of.get(key.name, "UP"),
            }
            for key, state in self.there.items()
        )

    async def health(self, base: AnnouncedBase) -> Health:
        self._check()
        return Health(is_active=True)

    async def visit(self, base: AnnouncedBase, visit: Visit) -> None:
        self.calls.append(("visit", f"{visit.port}{visit.path}"))
        self._check()
        await self.holds_visits.wait()

    async def _do(self, verb: str, key: ModuleKey, act: Callable[[ModuleKey], object]) -> Answer:
        self.calls.append((verb, str(key)))
        self._check()
        if verb == "install":
            await self.holds.wait()
        if verb == "restart":
            await self.holds_restarts.wait()
        answer = self.failing.get(f"{verb} {key}")
        if answer is None:
            act(key)
            return Answer(Outcome.DONE, "Done", "ok")
        return answer

    def _install(self, key: ModuleKey) -> None:
        assert key not in self.there
        others = [other for other in self.there if other.name == key.name]
        self.there[key] = "DEACTIVATED" if others else "ACTIVATED"

    def _restart(self, key: ModuleKey) -> None:
        assert key in self.there
        self.starts[key] = self.starts.get(key, _START_MS) + 1
        self.there = {other: state for other, state in self.there.items() if other.name != key.name}
        self.there[key] = "ACTIVATED"  # an install that replaces removes other versions

    def _switch(self, key: ModuleKey) -> None:
        for other in self.there:
            if other.name == key.name:
                self.there[other] = "ACTIVATED" if other == key else "DEACTIVATED"

    def _check(self) -> None:
        if not self.is_reachable:
            raise NoAnswer("base base-1 gives no answer")


class MemoryChecks:
    """Checks of modules in memory."""

    def __init__(self) -> None:
        self.failing: dict[int, str] = {}
        """Failures in words by port; without one, a check is a success."""
        self.sent: list[int] = []
        """The port of each check."""
        self.holds = asyncio.Event()
        self.holds.set()
        """Cleared, checks wait."""

    async def check(self, address: str, check: Check) -> str:
        self.sent.append(check.port)
        await self.holds.wait()
        return self.failing.get(check.port, "")


class World:
    """One base, one cluster, and the steward between them; time goes on only by `pass_time`."""

    def __init__(self, **habits: Any) -> None:
        self.cluster = MemoryCluster()
        self.base = MemoryTunnel()
        self.checks = MemoryChecks()
        self.now = 1_000.0
        self.calls = 0
        self.habits = Habits(**habits)
        self.steward = self.employ(BASE)

    def employ(self, base: AnnouncedBase) -> Steward:
        """Make a steward who knows nothing but ``base``."""
        return Steward(
            base,
            self.cluster,
            self.base,
            habits=self.habits,
            checks=self.checks,
            wake=self._count,
            clock=self._clock,
            wall=lambda: self.now + EPOCH,
        )

    def _clock(self) -> float:
        self.now += 1e-6  # no two moments are one
        return self.now

    def _count(self) -> None:
        self.calls += 1

    @property
    def node(self) -> dict[str, Any]:
        return self.cluster.nodes[NODE]

    async def settle(self) -> None:
        """Work as long as somebody asks for work."""
        for _ in range(100):
            before = self.calls
            await self.steward.reconcile()
            for _ in range(20):
                await asyncio.sleep(0)
            if self.calls == before:
                return
        raise AssertionError("the steward does not come to rest")

    async def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.steward.watch()
        self.steward._prober.look()
        await self.settle()


def play(act: Callable[[World], Awaitable[None]], **habits: Any) -> None:
    """Run a test with a steward that leads."""

    async def run() -> None:
        world = World(**habits)
        world.steward.begin()
        try:
            await act(world)
        finally:
            await world.steward.rest()

    asyncio.run(run())
