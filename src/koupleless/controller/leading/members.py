"""The controllers that live, by a Lease of each, renewed as those of Nodes are.

As with Nodes, a Lease has lapsed once nothing has changed in it for its duration, by the clock of the observer.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from typing import TYPE_CHECKING, Final

from koupleless.controller import names
from koupleless.controller.bases.objects import LEASES
from koupleless.controller.cluster.api import ApiError, Key, Unreachable
from koupleless.controller.leading.leases import DURATION_S, RENEW_S, Seen, spec_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from koupleless.controller.cluster.api import Api
    from koupleless.controller.cluster.cache import Cache
    from koupleless.controller.leading.leases import Lease

_log: Final = logging.getLogger("koupleless.controller")

_FRESH_S: Final = 1.5 * RENEW_S
_NOT_FOUND: Final = 404
_CONFLICT: Final = 409


class Members:
    """The living controllers of one env, this one among them. All on one event loop."""

    def __init__(
        self,
        api: Api,
        cache: Cache[Lease],
        *,
        holder: str,
        env: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``cache`` has the Leases of controllers; ``holder`` is the name of this one."""
        self._api = api
        self._cache = cache
        self._holder = holder
        self._env = env
        self._clock = clock
        self._seen: dict[Key, Seen] = {}
        self._living = frozenset({holder})
        self._changed = clock()
        self._is_closed = False

    def living(self) -> frozenset[str]:
        """Return the names of the living controllers."""
        self._look()
        return self._living

    def steady_s(self) -> float:
        """Return the seconds since the last controller came or went."""
        self._look()
        return self._clock() - self._changed

    def are_fresh(self) -> bool:
        """Whether all living controllers have renewed their Leases a short time ago: none of them seems to be dead."""
        self._look()
        leases = ((key, self._cache.get(key)) for key in self._cache.keys())  # noqa: SIM118 - a cache is no mapping
        since = [self._seen[key].since for key, lease in leases if lease is not None and lease.holder in self._living]
        return all(self._clock() - moment <= _FRESH_S for moment in since)

    def note(self, key: Key) -> None:
        """Take a change of a Lease: the time of the change counts."""
        lease = self._cache.get(key)
        if lease is None:
            self._seen.pop(key, None)
        elif key not in self._seen or self._seen[key].version != lease.version:
            self._seen[key] = Seen(lease.version, self._clock())

    async def run(self) -> None:
        """Renew the Lease of this controller, and remove lapsed ones, until cancelled."""
        while not self._is_closed:
            try:
                await self.renew()
                await self.tidy()
            except (ApiError, Unreachable) as error:
                _log.warning("the Lease of this controller among others cannot be kept at the moment: %s", error)
            await asyncio.sleep(RENEW_S * random.uniform(0.8, 1))  # noqa: S311 - no secret

    async def renew(self) -> None:
        """Write the Lease of this controller. Raises `ApiError` and `Unreachable`."""
        name = names.controller_lease(self._holder, self._env)
        try:
            await self._api.patch(f"{LEASES}/{name}", {"spec": spec_of(self._holder)})
        except ApiError as error:
            if error.code != _NOT_FOUND:
                raise
            labels = {names.COMPONENT: names.CONTROLLER_LEASE, names.ENV: self._env}
            await self._api.create(
                LEASES,
                {
                    "apiVersion": "coordination.k8s.io/v1",
                    "kind": "Lease",
                    "metadata": {"name": name, "namespace": names.LEASES, "labels": labels},
                    "spec": spec_of(self._holder),
                },
            )

    async def tidy(self) -> None:
        """Delete the Leases of controllers that were killed. Raises `ApiError` and `Unreachable`."""
        for key in [*self._cache.keys()]:
            lease = self._cache.get(key)
            if lease is not None and not self._is_living(key, lease):
                _log.info("the controller %s lives no more", lease.holder)
                await self._api.delete(f"{LEASES}/{key.name}", version=lease.version)

    async def close(self) -> None:
        """Live no more, for others to take the Nodes of this controller at once."""
        self._is_closed = True
        try:
            await self._api.delete(f"{LEASES}/{names.controller_lease(self._holder, self._env)}")
        except (ApiError, Unreachable) as error:
            _log.info("the Lease of this controller among others was not deleted: %s", error)

    def _look(self) -> None:
        found = {self._holder}
        for key in self._cache.keys():  # noqa: SIM118 - a cache is no mapping
            lease = self._cache.get(key)
            if lease is not None and lease.holder and self._is_living(key, lease):
                found.add(lease.holder)
        if found != self._living:
            self._living, self._changed = frozenset(found), self._clock()

    def _is_living(self, key: Key, lease: Lease) -> bool:
        self.note(key)
        return self._clock() < self._seen[key].since + (lease.duration_s or DURATION_S)
