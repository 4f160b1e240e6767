"""The Leases of Nodes: which controller leads a Node, and the sign of life of the Node for Kubernetes.

Clocks of machines differ. A Lease of another controller has lapsed once nothing has changed in it for its duration, by
the clock of the observer; the times in the Lease are compared with nothing.
"""

from __future__ import annotations

import datetime as dt
import logging
import random
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from koupleless.controller import names
from koupleless.controller.bases.objects import LEASES
from koupleless.controller.cluster.api import ApiError, Key, Unreachable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from koupleless.controller.cluster.api import Api, Document
    from koupleless.controller.cluster.cache import Cache

_log: Final = logging.getLogger("koupleless.controller")

DURATION_S: Final = 40.0
RENEW_S: Final = 10.0
_EARLIEST: Final = 0.7
"""The part of `RENEW_S` after which a Lease is renewed at the earliest: those taken at once are not renewed at once."""
_CONFLICT: Final = 409
_NOT_FOUND: Final = 404


@dataclass(frozen=True, slots=True)
class Lease:
    """The members of a Lease that a controller reads."""

    holder: str
    version: str
    duration_s: float
    node: str = ""
    """The name of the Lease, which is that of the Node."""

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Lease:
        """Read the JSON document of a Lease."""
        spec = document.get("spec") or {}
        metadata = document["metadata"]
        version, duration_s = metadata.get("resourceVersion", ""), spec.get("leaseDurationSeconds") or DURATION_S
        return cls(spec.get("holderIdentity") or "", version, duration_s, metadata.get("name", ""))


@dataclass(slots=True)
class Seen:
    """The last version of a Lease, and the time since when it is the last."""

    version: str
    since: float


class Leases:
    """The Leases of the Nodes that one controller would lead. All on one event loop."""

    def __init__(
        self,
        api: Api,
        cache: Cache[Lease],
        *,
        holder: str,
        env: str,
        changed: Callable[[str], object],
        defer_s: Callable[[str, str | None], float] = lambda _node, _holder: 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``holder`` is the name of this controller; ``changed`` is told a Node that it has begun or ceased to lead.

        ``defer_s`` returns the seconds to leave a free Node to others, given its last holder, if there was a Lease.
        """
        self._api = api
        self._cache = cache
        self._holder = holder
        self._env = env
        self._changed = changed
        self._defer_s = defer_s
        self._clock = clock
        self._until: dict[str, float] = {}
        """The end of the leadership of each Node, unless renewed."""
        self._renewed: dict[str, float] = {}
        """The time of the next renewal of each Node that is led."""
        self._seen: dict[str, Seen] = {}

    def leads(self, node: str) -> bool:
        """Whether this controller leads a Node now."""
        return self._until.get(node, float("-inf")) > self._clock()

    async def step(self, node: str) -> float:
        """Take or renew the Lease of a Node, if possible; returns the seconds until the next step.

        Raises `ApiError` and `Unreachable`; the leadership ends by itself if that lasts.
        """
        now, led = self._clock(), self.leads(node)
        lease = self._cache.get(Key(names.LEASES, node))
        after_s = RENEW_S
        if led and (left_s := self._renewed.get(node, now) - now) > 0:
            return left_s  # the news were of the last renewal
        if lease is not None and lease.holder == self._holder:
            await self._write(node, lease, now)
        elif (left_s := self._left(node, lease, now)) > 0:
            self._until.pop(node, None)
            after_s = min(left_s, RENEW_S)
        elif lease is None:
            await self._create(node, now)
        else:
            if lease.holder:
                _log.info("%s: %s has left the Lease to lapse; this controller takes over", node, lease.holder)
            await self._write(node, lease, now)
        if self.leads(node) is not led:
            self._changed(node)
        left_s = self._renewed.get(node, now) - now
        return left_s if left_s > 0 and self.leads(node) else after_s

    def _left(self, node: str, lease: Lease | None, now: float) -> float:
        """Return the seconds until this controller may take a Node, as far as this controller has seen."""
        version = "" if lease is None else lease.version
        seen = self._seen.get(node)
        if seen is None or seen.version != version:
            seen = self._seen[node] = Seen(version, now)
        left_s = seen.since - now
        if lease is not None and lease.holder:
            left_s += lease.duration_s
        return left_s if left_s > 0 else left_s + self._defer_s(node, None if lease is None else lease.holder)

    async def _create(self, node: str, now: float) -> None:
        document = {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {
                "name": node,
                "namespace": names.LEASES,
                "labels": {names.COMPONENT: names.VNODE_LEASE, names.ENV: self._env},
            },
            "spec": spec_of(self._holder),
        }
        try:
            await self._api.create(LEASES, document)
        except ApiError as error:
            if error.code != _CONFLICT:
                raise
            return  # another controller was faster; the cache will say so
        self._begin(node, now)

    async def _write(self, node: str, lease: Lease, now: float) -> None:
        change: Document = {"metadata": {"resourceVersion": lease.version}, "spec": spec_of(self._holder)}
        try:
            await self._api.patch(f"{LEASES}/{node}", change)
        except ApiError as error:
            if error.code not in {_CONFLICT, _NOT_FOUND}:
                raise
            return  # written by another meanwhile, or gone
        self._begin(node, now)

    def _begin(self, node: str, now: float) -> None:
        self._until[node] = now + DURATION_S
        self._renewed[node] = now + RENEW_S * random.uniform(_EARLIEST, 1)  # noqa: S311 - no secret
        self._seen.pop(node, None)

    async def give(self, node: str, to: str) -> None:
        """Hand a Node over to another controller, which leads at once, or lets the Lease lapse.

        The leadership of this one is over before, whatever the answer. Raises `ApiError` and `Unreachable`.
        """
        lease = self._cache.get(Key(names.LEASES, node))
        self._until.pop(node, None)
        if lease is not None and lease.holder == self._holder:
            await self._api.patch(
                f"{LEASES}/{node}", {"metadata": {"resourceVersion": lease.version}, "spec": spec_of(to)}
            )

    async def release(self, node: str) -> None:
        """Give up a Node at a clean end, for another controller to lead at once."""
        if not self.leads(node):
            return
        del self._until[node]
        lease = self._cache.get(Key(names.LEASES, node))
        if lease is not None and lease.holder == self._holder:
            change = {"metadata": {"resourceVersion": lease.version}, "spec": {"holderIdentity": ""}}
            try:
                await self._api.patch(f"{LEASES}/{node}", change)
            except (ApiError, Unreachable) as error:
                _log.info("the Lease of %s was not given up: %s", node, error)

    def forget(self, node: str) -> None:
        """Let go of a Node that is gone."""
        self._until.pop(node, None)
        self._renewed.pop(node, None)
        self._seen.pop(node, None)


def spec_of(holder: str) -> Document:
    """Make the content of a Lease that a controller holds from now on."""
    now = dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    return {"holderIdentity": holder, "leaseDurationSeconds": int(DURATION_S), "renewTime": now}
