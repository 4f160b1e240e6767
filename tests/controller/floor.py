"""A shop floor: several bases in memory under one controller, on a real control plane, with workloads of all kinds."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

import httpx
from tests.controller.conftest import secured, unsecured
from tests.controller.documents import container
from tests.controller.world import MemoryTunnel
from tests.kube.fixtures import client_of
from tests.kube.memory.serving import served

from koupleless.controller import names
from koupleless.controller.bases.steward import Habits
from koupleless.controller.controller import Choices, Controller
from koupleless.controller.names import node_name
from koupleless.controller.vnodes.base import AnnouncedBase, BaseState

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping

    from lightkube.config.kubeconfig import SingleConfig
    from tests.kube.memory.app import MemoryServer
    from tests.kube.plane import Access

    from koupleless.controller.tunnels.answers import Answer
    from koupleless.controller.tunnels.tunnel import Health
    from koupleless.controller.vpods.hooks import Visit
    from koupleless.controller.vpods.module import Module, ModuleKey

WITHIN_S: Final = 30
"""The time for anything on a machine that is busy with other tests."""
APPS: Final = "/apis/apps/v1/namespaces"
BATCH: Final = "/apis/batch/v1/namespaces"
_STRATEGIC: Final = {"Content-Type": "application/strategic-merge-patch+json"}


class WatchedBase(MemoryTunnel):
    """A base in memory that notes each moment without an answering version of a module that had one."""

    def __init__(self) -> None:
        super().__init__()
        self.gaps: list[str] = []

    def answering(self) -> dict[str, str]:
        """Return the version that answers for each name."""
        return {key.name: key.version for key, state in self.there.items() if state == "ACTIVATED"}

    async def _do(self, verb: str, key: ModuleKey, act: Callable[[ModuleKey], object]) -> Answer:
        before = set(self.answering())
        answer = await super()._do(verb, key, act)
        if key.name in before and key.name not in self.answering():
            siblings = [other for other in self.there if other.name == key.name]
            if siblings and verb == "uninstall":  # as bases do, the newest version left answers
                self.there[siblings[-1]] = "ACTIVATED"
            else:
                self.gaps.append(key.name)
        return answer


class Bases:
    """A tunnel to bases in memory, by their identity."""

    def __init__(self, bases: Mapping[str, WatchedBase]) -> None:
        self._bases = bases

    async def install(self, base: AnnouncedBase, module: Module, *, replaces: bool = False) -> Answer:
        return await self._bases[base.identity].install(base, module, replaces=replaces)

    async def uninstall(self, base: AnnouncedBase, key: ModuleKey, *, drain_s: float | None = None) -> Answer:
        return await self._bases[base.identity].uninstall(base, key, drain_s=drain_s)

    async def switch(self, base: AnnouncedBase, key: ModuleKey) -> Answer:
        return await self._bases[base.identity].switch(base, key)

    async def modules(self, base: AnnouncedBase) -> tuple[Mapping[str, Any], ...]:
        return await self._bases[base.identity].modules(base)

    async def visit(self, base: AnnouncedBase, visit: Visit) -> None:
        await self._bases[base.identity].visit(base, visit)

    async def health(self, base: AnnouncedBase) -> Health:
        return await self._bases[base.identity].health(base)


@dataclass
class Floor:
    """Bases, a controller, and a namespace of a control plane."""

    config: SingleConfig
    client: httpx.Client
    namespace: str
    env: str = field(default_factory=lambda: f"env-{secrets.token_hex(4)}")
    bases: dict[str, WatchedBase] = field(default_factory=dict)
    announced: dict[str, AnnouncedBase] = field(default_factory=dict)
    expected: list[str] = field(default_factory=list)

    def add_bases(self, count: int) -> None:
        for _ in range(count):
            identity = f"{self.env}-{len(self.bases)}"
            ip = f"10.0.0.{len(self.bases) + 1}"
            self.bases[identity] = WatchedBase()
            self.expect(identity)
            self.announced[identity] = AnnouncedBase(
                identity, "shop", "1.0", "default", ip, identity, 1238, BaseState.ACTIVATED, "start-1"
            )

    def expect(self, identity: str) -> None:
        """Expect the Node of a base that is a process of its own."""
        self.expected.append(identity)

    async def are_nodes_ready(self) -> bool:
        """Whether all expected bases have become Nodes."""
        return all([await self.is_ready(f"/api/v1/nodes/{self.node(identity)}") for identity in self.expected])

    def node(self, identity: str) -> str:
        return node_name(identity, self.env)

    @contextlib.asynccontextmanager
    async def controlled(
        self, tunnel: Any = None, *, checks: Any = None, syncs_replicas: bool = False, **habits: Any
    ) -> AsyncIterator[Controller]:
        choices = Choices("one", Habits(env=self.env, **habits), syncs_replicas=syncs_replicas)
        async with Controller(self.config, tunnel or Bases(self.bases), choices, checks=checks) as controller:
            await controller.ready()
            for base in self.announced.values():
                controller.hear(base)
            await self.soon(self.are_nodes_ready)
            yield controller

    # --- the API server ----------------------------------------------------------------------------------------------

    async def ask(self, method: str, path: str, **members: Any) -> httpx.Response:
        return await asyncio.to_thread(self.client.request, method, path, **members)

    async def get(self, path: str) -> dict[str, Any] | None:
        answer = await self.ask("GET", path)
        return answer.json() if answer.is_success else None

    async def create(self, path: str, document: Mapping[str, Any]) -> None:
        answer = await self.ask("POST", path, json=document)
        assert answer.is_success, answer.text

    async def create_pod(self, name: str, identity: str, *containers: Mapping[str, Any], **spec: Any) -> None:
        """Create a Pod on the Node of a base."""
        bound = {"nodeName": self.node(identity), "tolerations": [{"operator": "Exists"}]}
        spec = {**bound, "containers": list(containers), **spec}
        document = {"metadata": {"name": name, "labels": {names.COMPONENT: names.MODULE}}, "spec": spec}
        await self.create(f"/api/v1/namespaces/{self.namespace}/pods", document)

    async def is_pod_ready(self, name: str) -> bool:
        return await self.is_ready(f"/api/v1/namespaces/{self.namespace}/pods/{name}")

    async def patch(self, path: str, change: Mapping[str, Any]) -> None:
        answer = await self.ask("PATCH", path, json=change, headers=_STRATEGIC)
        assert answer.is_success, answer.text

    async def pods(self) -> list[dict[str, Any]]:
        answer = await self.ask("GET", f"/api/v1/namespaces/{self.namespace}/pods")
        found: list[dict[str, Any]] = answer.json()["items"]
        return found

    async def is_ready(self, path: str) -> bool:
        return is_ready(await self.get(path))

    async def soon(self, condition: Callable[[], Awaitable[object]]) -> None:
        try:
            async with asyncio.timeout(WITHIN_S):
                while not await condition():  # noqa: ASYNC110 - the server tells it nowhere else
                    await asyncio.sleep(0.05)
        except TimeoutError:
            pods = [(pod["metadata"]["name"], pod["spec"].get("nodeName"), pod["status"]) for pod in await self.pods()]
            there = {identity: base.there for identity, base in self.bases.items()}
            raise AssertionError(f"it did not come to pass; pods {pods}, bases {there}") from None

    # --- workloads ---------------------------------------------------------------------------------------------------

    def template(self, *containers: Mapping[str, Any], one_a_base: bool = True, **spec: Any) -> dict[str, Any]:
        """Make the template of a workload on the bases of this floor; of one revision, each base gets one Pod."""
        apart = {
            "labelSelector": {"matchLabels": {"app": "shop"}},
            "topologyKey": names.BASE_IDENTITY,
            "matchLabelKeys": ["pod-template-hash"],
        }
        affinity = {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [apart]}}
        return {
            "metadata": {"labels": {"app": "shop", names.COMPONENT: names.MODULE}},
            "spec": {
                "containers": list(containers) or [container("orders", "1")],
                "nodeSelector": {names.ENV: self.env, names.BASE_NAME: "shop"},
                "tolerations": [
                    {"key": names.TAINT_VIRTUAL, "operator": "Exists"},
                    {"key": names.TAINT_ENV, "value": self.env},
                ],
                "terminationGracePeriodSeconds": 5,
                **({"affinity": affinity} if one_a_base else {}),
                **spec,
            },
        }

    async def deploy(self, *containers: Mapping[str, Any], replicas: int | None = None, **spec: Any) -> str:
        """Create a Deployment, and return the path."""
        path = f"{APPS}/{self.namespace}/deployments"
        document = {
            "metadata": {"name": "shop"},
            "spec": {
                "replicas": len(self.bases) if replicas is None else replicas,
                "selector": {"matchLabels": {"app": "shop"}},
                "strategy": {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
                "template": self.template(*containers),
                **spec,
            },
        }
        await self.create(path, document)
        await self.soon(lambda: self.is_rolled_out(f"{path}/shop"))
        return f"{path}/shop"

    async def is_rolled_out(self, path: str) -> bool:
        """Whether all replicas of a Deployment are of the last revision, and available, as `kubectl rollout status`."""
        found = await self.get(path)
        assert found is not None
        status, wanted = found.get("status") or {}, found["spec"]["replicas"]
        counts = [status.get(name, 0) for name in ("replicas", "updatedReplicas", "availableReplicas")]
        return status.get("observedGeneration", 0) >= found["metadata"]["generation"] and counts == [wanted] * 3

    def versions(self, name: str = "orders") -> list[str | None]:
        """Return the version of a module that answers, of each base."""
        return [base.answering().get(name) for base in self.bases.values()]

    def gaps(self) -> list[str]:
        return [f"{identity}: {name}" for identity, base in self.bases.items() for name in base.gaps]

    async def holds(self, count: int, *, version: str | None = None, name: str = "orders") -> bool:
        """Whether ``count`` bases answer for a module, with one ``version`` if given, and have no other version."""
        found = [key for base in self.bases.values() for key in base.there if key.name == name]
        return len(found) == count and all(version in {None, key.version} for key in found)


def is_ready(document: Mapping[str, Any] | None) -> bool:
    conditions = ((document or {}).get("status") or {}).get("conditions") or ()
    return any((one["type"], one["status"]) == ("Ready", "True") for one in conditions)


@contextlib.contextmanager
def floor_on(access: Access, namespace: str, *, bases: int) -> Iterator[Floor]:
    """A floor with bases in memory; their Nodes are deleted afterwards."""
    with client_of(access) as client:
        floor = Floor(secured(access, "admin"), client, namespace)
        floor.add_bases(bases)
        yield floor
        for identity in floor.expected:
            client.delete(f"/api/v1/nodes/{floor.node(identity)}")
            client.delete(f"/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/{floor.node(identity)}")


@contextlib.contextmanager
def floor_in_memory(*, bases: int) -> Iterator[tuple[Floor, MemoryServer]]:
    """A floor on an API server in memory, where nobody schedules: Pods name their Node."""
    with served() as (url, server), httpx.Client(base_url=url, trust_env=False) as client:
        for name in ("here", "kube-node-lease"):
            client.post("/api/v1/namespaces", json={"metadata": {"name": name}})
        floor = Floor(unsecured(url), client, "here")
        floor.add_bases(bases)
        yield floor, server


def play(act: Callable[[], Awaitable[None]]) -> None:
    async def run() -> None:
        async with asyncio.timeout(3 * WITHIN_S):
            await act()

    asyncio.run(run())


def restarted(base: AnnouncedBase) -> AnnouncedBase:
    """Return the base after one more start."""
    return replace(base, start=secrets.token_hex(4))
