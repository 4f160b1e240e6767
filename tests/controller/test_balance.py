"""The shares of several controllers: even, without a Node that goes to and fro, whoever comes, goes or is late."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.controller.floor import Bases, Floor, floor_in_memory
from tests.kube.memory.faults import Fault

from koupleless.controller.bases.steward import Habits
from koupleless.controller.cluster.api import ApiError, Key
from koupleless.controller.controller import Choices, Controller
from koupleless.controller.leading.balance import Balance, first_for, level_s, plan
from koupleless.controller.leading.leases import DURATION_S, RENEW_S, Lease, Leases
from koupleless.controller.leading.members import Members
from koupleless.controller.names import controller_lease
from koupleless.controller.vpods.module import ModuleKey

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, KeysView, Mapping

    from tests.kube.memory.app import MemoryServer

    from koupleless.controller.cluster.api import Api
    from koupleless.controller.cluster.cache import Cache

COUNTS = st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 60), min_size=1)


@given(COUNTS)
def test_a_plan_ends_with_an_even_share_and_moves_no_more_than_needed(counts: dict[str, int]) -> None:
    after = Counter(counts)
    for source, target in plan(counts):
        after[source] -= 1
        after[target] += 1
    values = [after[name] for name in counts]
    assert max(values) - min(values) <= 1
    assert sum(values) == sum(counts.values())
    assert not plan({name: after[name] for name in counts})
    assert not {move.source for move in plan(counts)} & {move.target for move in plan(counts)}


@dataclass
class Table:
    """The Leases of Nodes, as one controller sees them: late, but for the own ones."""

    holders: dict[str, str]
    shown: dict[str, str] = field(default_factory=dict)

    def look(self) -> None:
        self.shown = dict(self.holders)

    def of(self, holder: str) -> Iterator[Lease]:
        return (Lease(holder, "1", DURATION_S, node) for node, name in self.shown.items() if name == holder)

    def count(self, holder: str) -> int:
        return sum(name == holder for name in self.shown.values())

    def leads(self, node: str) -> bool:
        raise AssertionError("of one controller")


class Own:
    """The Leases that one controller holds, known to that controller at once."""

    def __init__(self, holders: Mapping[str, str], holder: str) -> None:
        self._holders = holders
        self._holder = holder

    def leads(self, node: str) -> bool:
        return self._holders.get(node) == self._holder


class Living:
    def __init__(self, names: set[str]) -> None:
        self.names = names

    def living(self) -> frozenset[str]:
        return frozenset(self.names)

    def are_fresh(self) -> bool:
        return True


@settings(deadline=None)
@given(
    st.dictionaries(st.integers(0, 200).map("node-{}".format), st.sampled_from("abcd")),
    st.sets(st.sampled_from("abcd"), min_size=1),
    st.data(),
)
def test_controllers_that_see_each_other_late_come_to_an_even_share_and_to_rest(
    holders: dict[str, str], living: set[str], data: st.DataObject
) -> None:
    for node in [node for node, holder in holders.items() if holder not in living]:  # taken after the lapse
        holders[node] = first_for(node, living)
    tables = {name: Table(holders) for name in living}
    balances = {
        name: Balance(cast("Members", Living(living)), cast("Cache[Lease]", table), holder=name)
        for name, table in tables.items()
    }
    moved = 0
    early, last = 10, 39
    for turn in range(last + 1):
        for table in tables.values():
            if turn >= early or data.draw(st.booleans()):
                table.look()
        made = {
            name: balance.moves(cast("Leases", Own(holders, name)), lambda _: True)
            for name, balance in balances.items()
        }
        for moves in made.values():
            for node, target in moves:
                assert target in living
                holders[node] = target
                moved += 1
        if turn == last:
            assert not any(made.values())
    counts = Counter(dict.fromkeys(living, 0))
    counts.update(holders.values())
    assert max(counts.values()) - min(counts.values()) <= 1
    assert moved <= 10 * max(len(holders), 1)


def test_free_nodes_fall_to_all_alike_and_stay_where_they_fell_when_another_goes() -> None:
    nodes = [f"vnode.base-{number}.dev" for number in range(3_000)]
    first = Counter(first_for(node, {"a", "b", "c"}) for node in nodes)
    assert all(900 < count < 1_100 for count in first.values())
    kept = [node for node in nodes if first_for(node, {"a", "b", "c"}) != "c"]
    assert [first_for(node, {"a", "b"}) for node in kept] == [first_for(node, {"a", "b", "c"}) for node in kept]
    assert first_for("n", set()) == ""


def test_the_busier_a_controller_the_longer_a_new_base_is_left_to_others() -> None:
    assert [level_s(own, 0) for own in (0, 1, 500)] == [0, 1, 1]
    assert level_s(10, 10) == 0
    assert 0 < level_s(12, 10) < level_s(20, 10) < 1


class ThreeLeases:
    """Leases of controllers on an API server, with a cache that is never late."""

    def __init__(self) -> None:
        self.found: dict[str, Lease] = {}
        self.writes = 0

    def get(self, key: Key) -> Lease | None:
        return self.found.get(key.name)

    def keys(self) -> KeysView[Key]:
        return {Key("kube-node-lease", name): None for name in self.found}.keys()

    async def patch(self, path: str, change: Mapping[str, Any]) -> None:
        self.writes += 1
        name = path.rpartition("/")[2]
        self.found[name] = Lease(change["spec"]["holderIdentity"], str(self.writes), DURATION_S, name)

    async def delete(self, path: str, *, version: str = "") -> None:
        lease = self.found.get(path.rpartition("/")[2])
        if lease is not None and version in {"", lease.version}:
            del self.found[path.rpartition("/")[2]]


def test_a_member_lives_as_long_as_its_lease_changes_by_the_clock_of_the_observer() -> None:
    async def run() -> None:
        now = 0.0
        there = ThreeLeases()

        def member(holder: str) -> Members:
            return Members(cast("Api", there), cast("Cache[Lease]", there), holder=holder, env="dev", clock=lambda: now)

        one, two = member("one"), member("two")
        assert one.living() == {"one"}
        await one.renew()
        await two.renew()
        assert one.living() == two.living() == {"one", "two"}
        for _ in range(9):
            now += 10
            await two.renew()
            assert one.living() == {"one", "two"}
        assert one.steady_s() == 90
        now += DURATION_S + 1  # two was killed
        await one.renew()
        assert one.living() == {"one"}
        assert one.steady_s() == 0
        await one.tidy()
        assert list(there.found) == [controller_lease("one", "dev")]
        await two.renew()  # was not, and is back
        assert one.living() == {"one", "two"}
        await two.close()
        assert one.living() == {"one"}

    asyncio.run(run())


class AllLeases(ThreeLeases):
    """Leases of Nodes, too; of two writes to one version, the second is refused."""

    def __init__(self) -> None:
        super().__init__()
        self.refused = 0

    async def create(self, path: str, document: Mapping[str, Any]) -> None:
        await self.patch(f"{path}/{document['metadata']['name']}", document)

    async def patch(self, path: str, change: Mapping[str, Any]) -> None:
        lease = self.found.get(path.rpartition("/")[2])
        version = change.get("metadata", {}).get("resourceVersion")
        if lease is not None and version not in {None, lease.version}:
            self.refused += 1
            raise ApiError(409, "Conflict", "changed")
        await super().patch(path, change)


async def live_on(second: int, rank: int, nodes: list[str], controller: tuple[Members, Leases, Balance]) -> None:
    """Do the work of one controller in one second; each third of the Nodes is taken by another one at the beginning."""
    members, leases, balance = controller
    is_begun = second > 2 * RENEW_S
    if second % 10 == 0:
        await members.renew()
    for number, node in enumerate(nodes):  # which lapse at different times, as they are renewed
        if is_begun or (second >= number % 10 and number % 3 == rank):
            await leases.step(node)
    if is_begun and second % 5 == 0:
        for node, to in balance.moves(leases, lambda _: True):
            await leases.give(node, to)


@pytest.mark.parametrize("renewed_s", [0, 4, 9])
def test_the_nodes_of_a_killed_controller_are_taken_within_the_lease_time_and_alike(renewed_s: int) -> None:
    async def run() -> None:
        now = 0.0
        there = AllLeases()
        nodes = [f"vnode.base-{number}.dev" for number in range(300)]

        def led(holder: str) -> tuple[Members, Leases, Balance]:
            members = Members(
                cast("Api", there), cast("Cache[Lease]", Shown(there, "controller.")), holder=holder, env="dev",
                clock=lambda: now,
            )  # fmt: skip
            cache = cast("Cache[Lease]", Shown(there, "vnode."))
            balance = Balance(members, cache, holder=holder)
            leases = Leases(
                cast("Api", there), cache, holder=holder, env="dev", changed=lambda _: None, clock=lambda: now,
                defer_s=balance.defer_s,
            )  # fmt: skip
            return members, leases, balance

        controllers = {holder: led(holder) for holder in ("one", "two", "three")}
        killed = 60 + renewed_s
        for second in range(killed + int(DURATION_S) + 4):
            now = float(second)
            for number, (holder, controller) in enumerate(controllers.items()):
                if holder != "one" or second <= killed:
                    await live_on(second, number, nodes, controller)
        counts = Counter(lease.holder for name, lease in there.found.items() if name.startswith("vnode."))
        assert counts["one"] == 0
        assert abs(counts["two"] - counts["three"]) < 40
        assert there.refused == 0  # nobody raced for a Node

    asyncio.run(run())


class Shown:
    """The part of all Leases that one cache shows."""

    def __init__(self, there: AllLeases, prefix: str) -> None:
        self._there = there
        self._prefix = prefix

    def get(self, key: Key) -> Lease | None:
        return self._there.get(key)

    def keys(self) -> list[Key]:
        return [key for key in [*self._there.keys()] if key.name.startswith(self._prefix)]

    def count(self, holder: str) -> int:
        return len([*self.of(holder)])

    def of(self, holder: str) -> Iterator[Lease]:
        return (
            lease
            for name, lease in self._there.found.items()
            if name.startswith(self._prefix) and lease.holder == holder
        )


@contextlib.asynccontextmanager
async def controlled(floor: Floor, holder: str) -> AsyncIterator[Controller]:
    choices = Choices(holder, Habits(env=floor.env), balance_every_s=0.05)
    async with Controller(floor.config, Bases(floor.bases), choices) as controller:
        await controller.ready()
        yield controller


def shares(floor: Floor) -> Callable[[], Awaitable[Counter[str]]]:
    path = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"

    async def counts() -> Counter[str]:
        found = await floor.get(path)
        assert found is not None
        leases = (lease for lease in found["items"] if lease["metadata"]["name"].startswith("vnode."))
        return Counter(lease["spec"].get("holderIdentity", "") for lease in leases)

    return counts


def play(act: Callable[[Floor, MemoryServer], Awaitable[None]], bases: int) -> None:
    with floor_in_memory(bases=bases) as (floor, server):

        async def run() -> None:
            async with asyncio.timeout(60):
                await act(floor, server)

        asyncio.run(run())


@pytest.mark.parametrize("bases", [12])
def test_controllers_that_come_and_go_share_the_nodes_and_nothing_is_installed_twice(bases: int) -> None:
    async def act(floor: Floor, _: MemoryServer) -> None:
        counts = shares(floor)

        async def are(**wanted: int) -> None:
            async def hold() -> bool:
                return await counts() == wanted

            await floor.soon(hold)

        async with controlled(floor, "one") as one:
            for base in floor.announced.values():
                one.hear(base)
            await floor.soon(floor.are_nodes_ready)
            await are(one=bases)
            for number, identity in enumerate(floor.bases):
                await floor.create_pod(f"pod-{number}", identity, {"name": "orders", "image": "x", "env": VERSION})
            await floor.soon(lambda: floor.holds(bases))
            async with controlled(floor, "two"):
                await are(one=6, two=6)
                async with controlled(floor, "three"):
                    await are(one=4, two=4, three=4)
                await are(one=6, two=6)
            await are(one=bases)
            await floor.soon(floor.are_nodes_ready)
            calls = [call for base in floor.bases.values() for call in base.calls]
            assert calls == [("install", "orders:1")] * bases

    play(act, bases)


VERSION = [{"name": "BIZ_VERSION", "value": "1"}]


def test_leases_are_taken_though_a_hundred_statuses_wait_for_the_api_server() -> None:
    async def act(floor: Floor, server: MemoryServer) -> None:
        (first, second) = floor.bases
        waiting = server.faults.add(Fault("patch", "pods", times=10_000, delay_s=30))
        for number in range(120):
            floor.bases[first].there[ModuleKey(f"m{number}", "1")] = "ACTIVATED"
            await floor.create_pod(f"p{number}", first, {"name": f"m{number}", "image": "x", "env": VERSION})
        async with controlled(floor, "one") as one:
            one.hear(floor.announced[first])
            async with asyncio.timeout(20):
                while waiting.times > 10_000 - 80:  # noqa: ASYNC110 - the server tells it nowhere else
                    await asyncio.sleep(0.02)
            one.hear(floor.announced[second])
            async with asyncio.timeout(5):
                while not one.leases.leads(floor.node(second)):  # noqa: ASYNC110 - nor the controller
                    await asyncio.sleep(0.02)

    play(act, 2)
