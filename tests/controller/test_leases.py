"""Leases: who leads a Node, by the clock of the observer alone."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, cast

import pytest

from koupleless.controller.cluster.api import ApiError, Key, Unreachable
from koupleless.controller.leading.leases import DURATION_S, RENEW_S, Lease, Leases

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from koupleless.controller.cluster.api import Api
    from koupleless.controller.cluster.cache import Cache

NODE = "vnode.base-1.dev"


class OneLease:
    """The Lease of one Node on an API server, with a cache that is never late."""

    def __init__(self) -> None:
        self.spec: dict[str, Any] | None = None
        self.version = 0
        self.trouble: Exception | None = None

    def get(self, key: Key) -> Lease | None:
        if self.spec is None:
            return None
        return Lease.of({"metadata": {"resourceVersion": str(self.version)}, "spec": self.spec})

    async def create(self, path: str, document: Mapping[str, Any]) -> None:
        self._check()
        if self.spec is not None:
            raise ApiError(409, "AlreadyExists", "there")
        self._write(document["spec"])

    async def patch(self, path: str, change: Mapping[str, Any]) -> None:
        self._check()
        if self.spec is None or change["metadata"]["resourceVersion"] != str(self.version):
            raise ApiError(409, "Conflict", "changed")
        self._write({**self.spec, **change["spec"]})

    def _write(self, spec: dict[str, Any]) -> None:
        self.spec, self.version = spec, self.version + 1

    def _check(self) -> None:
        if self.trouble is not None:
            raise self.trouble


class Scene:
    """Controllers that would lead one Node; time goes on only by hand."""

    def __init__(self) -> None:
        self.lease = OneLease()
        self.now = 0.0
        self.changed: list[str] = []

    def controller(self, holder: str) -> Leases:
        api, cache = cast("Api", self.lease), cast("Cache[Lease]", self.lease)
        return Leases(api, cache, holder=holder, env="dev", changed=self.changed.append, clock=lambda: self.now)


def play(act: Callable[[Scene], Awaitable[None]]) -> None:
    asyncio.run(cast("Any", act(Scene())))


def test_the_first_leads_and_the_second_waits_as_long_as_the_first_renews() -> None:
    async def act(scene: Scene) -> None:
        one, two = scene.controller("one"), scene.controller("two")
        await one.step(NODE)
        assert one.leads(NODE)
        for _ in range(10):
            assert await two.step(NODE) <= RENEW_S
            assert not two.leads(NODE)
            scene.now += RENEW_S
            await one.step(NODE)
            assert one.leads(NODE)
        assert scene.changed == [NODE]

    play(act)


def test_4_8_the_lapsed_lease_of_a_dead_controller_is_taken_over() -> None:
    async def act(scene: Scene) -> None:
        one, two = scene.controller("one"), scene.controller("two")
        await one.step(NODE)
        await two.step(NODE)
        scene.now += DURATION_S - 1
        await two.step(NODE)
        assert not two.leads(NODE)
        scene.now += 2
        await two.step(NODE)
        assert two.leads(NODE)
        assert not one.leads(NODE)
        await one.step(NODE)
        assert not one.leads(NODE)

    play(act)


def test_4_8_a_controller_that_was_away_for_long_renews_its_own_lease() -> None:
    async def act(scene: Scene) -> None:
        one = scene.controller("one")
        await one.step(NODE)
        scene.lease.trouble = Unreachable("no route")
        scene.now += 10 * DURATION_S
        with pytest.raises(Unreachable):
            await one.step(NODE)
        assert not one.leads(NODE)
        scene.lease.trouble = None
        await one.step(NODE)
        assert one.leads(NODE)

    play(act)


def test_4_8_a_lease_given_up_is_free_at_once() -> None:
    async def act(scene: Scene) -> None:
        one, two = scene.controller("one"), scene.controller("two")
        await one.step(NODE)
        await one.release(NODE)
        assert not one.leads(NODE)
        await two.step(NODE)
        assert two.leads(NODE)

    play(act)


@pytest.mark.parametrize("trouble", [Unreachable("no route"), ApiError(500, "InternalError", "etcd")])
def test_a_clean_end_without_the_api_server_ends_all_the_same(trouble: Exception) -> None:
    async def act(scene: Scene) -> None:
        one = scene.controller("one")
        await one.step(NODE)
        scene.lease.trouble = trouble
        await one.release(NODE)
        assert not one.leads(NODE)

    play(act)


def test_of_two_who_write_at_once_one_leads() -> None:
    async def act(scene: Scene) -> None:
        one, two = scene.controller("one"), scene.controller("two")
        found = scene.lease.get
        await one.step(NODE)
        await one.release(NODE)
        seen = found(Key("", NODE))
        scene.lease.get = lambda key: seen  # type: ignore[method-assign] # both have read the same
        await one.step(NODE)
        await two.step(NODE)
        assert (one.leads(NODE), two.leads(NODE)) == (True, False)

    play(act)


def test_leases_taken_at_once_are_not_renewed_at_once() -> None:
    async def act(scene: Scene) -> None:
        one = scene.controller("one")
        pauses = set()
        for _ in range(20):
            scene.now += RENEW_S
            pauses.add(await one.step(NODE))
        assert len(pauses) > 10
        assert min(pauses) >= 0.7 * RENEW_S
        assert max(pauses) <= RENEW_S

    play(act)
