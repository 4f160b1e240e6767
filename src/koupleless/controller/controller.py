"""The controller, put together: caches and queues of the cluster, the tunnels to bases, and the fleet between them."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Self

from koupleless.controller import names
from koupleless.controller.bases.events import Events
from koupleless.controller.bases.objects import LEASES, NODES, PODS, Objects, read_node
from koupleless.controller.bases.steward import Habits
from koupleless.controller.batches.batches import REPLICA_SETS, Batches
from koupleless.controller.batches.step import ReplicaSet
from koupleless.controller.cluster.api import Api, Kind
from koupleless.controller.cluster.cache import Cache
from koupleless.controller.cluster.delays import Backoff
from koupleless.controller.cluster.queue import Queue, work
from koupleless.controller.fleet import Fleet
from koupleless.controller.leading.balance import ROUND_S, Balance
from koupleless.controller.leading.leases import Lease, Leases
from koupleless.controller.leading.members import Members
from koupleless.controller.peers.deployment import Deployment, baseline
from koupleless.controller.peers.replicas import DEPLOYMENTS, Replicas
from koupleless.controller.probes.checks import NetworkChecks
from koupleless.controller.revisions import Revisions
from koupleless.controller.services.services import SERVICES, SLICES, Services
from koupleless.controller.services.slices import Slice
from koupleless.controller.services.wishes import Service
from koupleless.controller.vnodes.base import Foreign
from koupleless.controller.vpods.pod import VPod
from koupleless.controller.watching.figures import Facts, Figures
from koupleless.controller.watching.measured import MeasuredTunnel
from koupleless.controller.whereabouts import Whereabouts

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType

    from lightkube.config.kubeconfig import SingleConfig

    from koupleless.controller.cluster.api import Document, Key
    from koupleless.controller.probes.prober import Checks
    from koupleless.controller.tunnels.tunnel import Tunnel
    from koupleless.controller.vnodes.base import AnnouncedBase
    from koupleless.controller.watching.webhooks import Report

_log: Final = logging.getLogger("koupleless.controller")

_RETRIES: Final = Backoff(longest_s=10)
"""The pauses after failures of the API server: after a long outage no base waits for long."""


_BATCH_WORKERS: Final = 4
"""The number of Deployments worked on at a time."""


@dataclass(frozen=True, slots=True)
class Choices:
    """The choices of an operator about a controller."""

    holder: str
    """The name of this controller among others, in Leases."""
    habits: Habits = field(default_factory=Habits)
    workers: int = 16
    """The number of bases worked on at a time."""
    syncs_replicas: bool = False
    """Whether Deployments of peers get as many replicas as there are bases."""
    balance_every_s: float = ROUND_S
    """The pause between two looks at the shares of all controllers."""


class Controller:
    """One controller of a cluster. Lifetime: as async context manager; all on one event loop.

    ::

        async with Controller(config, tunnel, Choices(holder="controller-0")) as controller:
            await controller.ready()
            server = Discovery(controller).application()
    """

    def __init__(
        self,
        config: SingleConfig,
        tunnel: Tunnel,
        choices: Choices,
        *,
        checks: Checks | None = None,
        report: Callable[[Report], object] = lambda _: None,
    ) -> None:
        """``checks`` are the way of the probes of containers; ``None`` means the network.

        ``report`` is told warnings, and must not wait.
        """
        env = choices.habits.env
        ours = f"{names.ENV}={env}"
        self._choices = choices
        self.figures = figures = Figures(self._facts)
        self._api = Api(config, observe=figures.request)
        self._lease_api = Api(config, observe=figures.request)
        """Connections for Leases alone: no burst of other writes holds them up."""
        self._queue: Queue[str] = Queue(backoff=_RETRIES, waited=functools.partial(figures.wait, "bases"))
        self._lease_queue: Queue[str] = Queue(waited=functools.partial(figures.wait, "leases"))
        self._events = Events(self._api, report=report)
        self._nodes: Cache[Document] = Cache(
            self._api, Kind(NODES, read_node), self._node_changed, labels=f"{names.COMPONENT}={names.VNODE},{ours}"
        )
        self._pods: Cache[VPod] = Cache(
            self._api,
            Kind(PODS, VPod.of),
            self._pod_changed,
            labels=f"{names.COMPONENT}={names.MODULE}",
            index=lambda pod: (pod.node, pod.owner),
        )
        self._lease_cache: Cache[Lease] = Cache(
            self._api,
            Kind(LEASES, Lease.of),
            lambda key: self._lease_queue.add(key.name),
            labels=f"{names.COMPONENT}={names.VNODE_LEASE},{ours}",
            index=lambda lease: (lease.holder,),
        )
        self._member_cache: Cache[Lease] = Cache(
            self._api,
            Kind(LEASES, Lease.of),
            self._member_changed,
            labels=f"{names.COMPONENT}={names.CONTROLLER_LEASE},{ours}",
        )
        holder = choices.holder
        self._members = Members(self._lease_api, self._member_cache, holder=holder, env=env)
        self._balance = Balance(self._members, self._lease_cache, holder=holder, round_s=choices.balance_every_s)
        self._peer_queue: Queue[Key] = Queue(backoff=_RETRIES, waited=functools.partial(figures.wait, "peers"))
        self._batch_queue: Queue[Key] = Queue(backoff=_RETRIES, waited=functools.partial(figures.wait, "batches"))
        self._deployments: Cache[Deployment] = Cache(
            self._api,
            Kind(DEPLOYMENTS, Deployment.of),
            self._deployment_changed,
            labels=ours,
            index=lambda deployment: (deployment.cluster,),
        )
        self._replica_sets: Cache[ReplicaSet] = Cache(
            self._api,
            Kind(REPLICA_SETS, ReplicaSet.of),
            self._replica_set_changed,
            labels=f"{names.COMPONENT}={names.MODULE}",
            index=lambda found: (found.uid, found.owner),
        )
        self.replicas = Replicas(
            self._api, self._deployments, self._nodes, self._peer_queue, is_on=choices.syncs_replicas
        )
        self.batches = Batches(
            self._api,
            self._deployments,
            self._replica_sets,
            self._pods,
            queue=self._batch_queue,
            tell=self._events.tell_of,
        )
        self._service_queue: Queue[Key] = Queue(backoff=_RETRIES, waited=functools.partial(figures.wait, "services"))
        self._services: Cache[Service] = Cache(
            self._api,
            Kind(SERVICES, Service.of),
            lambda key: self.services.service_changed(key),  # noqa: PLW0108 - made below, from this cache
            labels=f"{names.COMPONENT}={names.MODULE_SERVICE},{ours}",
            index=lambda service: (service.owner,),
        )
        self._slices: Cache[Slice] = Cache(
            self._api,
            Kind(SLICES, Slice.of),
            lambda key: self.services.slice_changed(key),  # noqa: PLW0108 - the same
            labels=f"{names.COMPONENT}={names.MODULE_SERVICE},{ours}",
            index=lambda found: (found.owner,),
        )
        self.services = Services(
            self._api,
            deployments=self._deployments,
            replica_sets=self._replica_sets,
            pods=self._pods,
            nodes=self._nodes,
            services=self._services,
            slices=self._slices,
            queue=self._service_queue,
            env=env,
            tell=self._events.tell_of,
        )
        self._revisions = Revisions(self._replica_sets, self._pods, changed=self._queue.add)
        objects = Objects(self._api, self._nodes, self._pods, self._events, revision_of=self._revisions.of)
        self._network = NetworkChecks()
        self.fleet = Fleet(
            objects,
            MeasuredTunnel(tunnel, figures),
            choices.habits,
            queue=self._queue,
            lease_queue=self._lease_queue,
            checks=checks or self._network,
        )
        self.leases = Leases(
            self._lease_api,
            self._lease_cache,
            holder=holder,
            env=env,
            changed=self._queue.add,
            defer_s=self._balance.defer_s,
        )
        self.whereabouts = Whereabouts(self._pods, objects, self.fleet, self.leases)
        self._tasks: list[asyncio.Task[None]] = []
        self._mistake = asyncio.Event()
        """Set when a part has ended, as no part does before the controller ends."""
        self._closing = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Self:
        await self._closing.enter_async_context(self._api)
        await self._closing.enter_async_context(self._lease_api)
        await self._closing.enter_async_context(self._network)
        for cache in self._caches().values():
            self._begin(cache.run())
        self._begin(self._events.run())
        self._begin(self._work())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._queue.close()
        self._lease_queue.close()
        self._peer_queue.close()
        await self._members.close()
        self._batch_queue.close()
        self._service_queue.close()
        await self.fleet.close(self.leases)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._closing.aclose()

    async def ready(self) -> None:
        """Return once the cluster is known, and bases are worked on."""
        await asyncio.gather(*(cache.synced() for cache in self._caches().values()))

    async def failed(self) -> None:
        """Return never; raise the mistake by which a part of the controller has ended, once one has."""
        await self._mistake.wait()
        raise next(error for task in self._tasks if (error := _error_of(task)) is not None)

    def trouble(self) -> str:
        """Say why the controller does not work at the moment; empty if all is well."""
        caches = self._caches()
        unsynced = [name for name, cache in caches.items() if not cache.is_synced]
        if unsynced:
            return f"{', '.join(unsynced)} are not known yet"
        return next((f"{name}: {cache.trouble}" for name, cache in caches.items() if cache.trouble), "")

    def _caches(self) -> dict[str, Cache[Any]]:
        return {
            "Nodes": self._nodes,
            "Pods": self._pods,
            "Leases": self._lease_cache,
            "Leases of controllers": self._member_cache,
            "Deployments": self._deployments,
            "ReplicaSets": self._replica_sets,
            "Services": self._services,
            "EndpointSlices": self._slices,
        }

    def missing_rights(self) -> list[str]:
        """Return the rights that the account of the controller lacks, as ``patch pods/status``."""
        return sorted({*self._api.denied(), *self._lease_api.denied()})

    def _facts(self) -> Facts:
        queues: dict[str, Queue[Any]] = {
            "bases": self._queue,
            "leases": self._lease_queue,
            "peers": self._peer_queue,
            "batches": self._batch_queue,
            "services": self._service_queue,
        }
        phases: Counter[str] = Counter()
        led = self.fleet.led(self.leases)
        for node in led:
            phases.update(pod.status.get("phase", "") for pod in self._pods.of(node))
        return Facts(
            bases=Counter(led.values()),
            pods=phases,
            waiting={name: len(queue) for name, queue in queues.items()},
            failing={name: len(queue.failing) for name, queue in queues.items()},
            members=len(self._members.living()),
            is_well=not self.trouble(),
        )

    def hear(self, base: AnnouncedBase, *, has_changed: bool = False) -> None:
        """See `Listener.hear` and `Audience.hear`."""
        try:
            self.fleet.hear(base, has_changed=has_changed)
        except Foreign:
            self.figures.heartbeat("refused")
            raise
        self.figures.heartbeat("heard")

    def baseline(self, cluster: str) -> Sequence[dict[str, Any]]:
        """See `Listener.baseline`."""
        return baseline(self._deployments.of(cluster), cluster)

    # --- work --------------------------------------------------------------------------------------------------------

    async def _work(self) -> None:
        """Work on keys once the cluster is known: before that, an absent object says nothing."""
        await self.ready()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(work(self._queue, self._reconcile, workers=self._choices.workers))
            tasks.create_task(work(self._lease_queue, self._step, workers=self._choices.workers))
            tasks.create_task(work(self._peer_queue, self.replicas.reconcile, workers=1))
            tasks.create_task(work(self._batch_queue, self.batches.reconcile, workers=_BATCH_WORKERS))
            tasks.create_task(work(self._service_queue, self.services.reconcile, workers=_BATCH_WORKERS))
            tasks.create_task(self.fleet.watch())
            tasks.create_task(self._members.run())
            tasks.create_task(self._balance.run(self.leases, self.fleet.is_free, self.fleet.give))

    async def _reconcile(self, name: str) -> float | None:
        return await self.fleet.reconcile(name, self.leases)

    async def _step(self, name: str) -> float | None:
        return await self.fleet.step(name, self.leases)

    def _node_changed(self, key: Key) -> None:
        self.fleet.node_changed(key, self._nodes)
        self.replicas.node_changed(key)
        self.services.node_changed(key)

    def _member_changed(self, key: Key) -> None:
        self._members.note(key)

    def _pod_changed(self, key: Key) -> None:
        self.fleet.pod_changed(key, self._pods)
        self.batches.pod_changed(key)
        self.services.pod_changed(key)

    def _replica_set_changed(self, key: Key) -> None:
        self.batches.replica_set_changed(key)
        self.services.replica_set_changed(key)
        self._revisions.replica_set_changed(key)

    def _deployment_changed(self, key: Key) -> None:
        self._peer_queue.add(key)
        self._batch_queue.add(key)
        self._service_queue.add(key)

    def _begin(self, running: Any) -> None:
        task = asyncio.create_task(running)
        task.add_done_callback(self._ended)
        self._tasks.append(task)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if (error := _error_of(task)) is not None:
            _log.error("a part of the controller has ended by a mistake", exc_info=error)
            self._mistake.set()


def _error_of(task: asyncio.Task[None]) -> BaseException | None:
    return task.exception() if task.done() and not task.cancelled() else None
