"""Batches: their sizes, the next step of a rollout, and conflicts of two controllers on an API server in memory."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from tests.controller.conftest import unsecured
from tests.kube.memory.serving import served

from koupleless.controller.batches.batches import Batches
from koupleless.controller.batches.record import PROGRESS, STATE, Record
from koupleless.controller.batches.step import Facts, ReplicaSet, Step, next_step
from koupleless.controller.batches.wishes import CONFIRMED, GATE, Senseless, Wishes
from koupleless.controller.cluster.api import Api, Key
from koupleless.controller.cluster.queue import Queue
from koupleless.controller.peers.deployment import Deployment
from koupleless.controller.vpods.pod import VPod

if TYPE_CHECKING:
    from collections.abc import Iterator

OF = "rollout.koupleless.io/"


@pytest.mark.parametrize(
    ("wishes", "replicas", "limits"),
    [
        (Wishes(), 10, (10,)),
        (Wishes(count=3), 10, (4, 8, 10)),
        (Wishes(count=3), 9, (3, 6, 9)),
        (Wishes(count=3), 4, (2, 4)),  # the rest of the third batch is empty
        (Wishes(count=3), 2, (1, 2)),
        (Wishes(count=3), 1, (1,)),
        (Wishes(count=3), 0, (0,)),
        (Wishes(count=2, has_beta=True), 10, (1, 10)),
        (Wishes(count=3, has_beta=True), 10, (1, 5, 10)),
        (Wishes(count=3, has_beta=True), 1, (1,)),
        (Wishes(count=999_999_999), 3, (1, 2, 3)),
    ],
)  # fmt: skip
def test_a_batch_is_an_equal_part_rounded_up_and_the_last_the_rest(
    wishes: Wishes, replicas: int, limits: tuple[int, ...]
) -> None:
    assert wishes.limits(replicas) == limits


@pytest.mark.parametrize("count", range(1, 12))
@pytest.mark.parametrize("has_beta", [False, True])
def test_batches_grow_and_the_last_has_all_replicas(count: int, has_beta: bool) -> None:
    for replicas in range(1, 40):
        limits = Wishes(count=count, has_beta=has_beta).limits(replicas)
        assert limits[-1] == replicas
        assert len(limits) <= count
        assert [*limits] == sorted(set(limits))


def test_wishes_are_annotations() -> None:
    texts = {"batches": "3", "beta": "true", "confirm": "true", "pause-seconds": "60", "confirmed": "1"}
    wishes = Wishes.of({OF + name: text for name, text in texts.items()})
    assert wishes == Wishes(count=3, has_beta=True, confirms=True, pause_s=60, confirmed=1)
    assert Wishes.of({}) == Wishes()
    assert Wishes.of({OF + "beta": "true"}).count == 2


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("batches", "three"),
        ("batches", "-1"),
        ("batches", "²"),
        ("batches", "1" * 30),
        ("beta", "yes"),
        ("confirm", ""),
    ],
)
def test_a_senseless_wish_is_refused_by_its_name(name: str, text: str) -> None:
    with pytest.raises(Senseless, match=OF + name):
        Wishes.of({OF + name: text})


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pods": 3}', '{"batch": "x"}', "\ud800", "[" * 5_000])
def test_a_record_changed_by_hand_is_no_record(text: str) -> None:
    assert Record.of(text) == Record()


@pytest.mark.parametrize(
    ("strategy", "spare"),
    [
        ({}, 2),
        ({"type": "Recreate"}, 10),
        ({"rollingUpdate": {"maxUnavailable": 0}}, 0),
        ({"rollingUpdate": {"maxUnavailable": "15%"}}, 1),
        ({"rollingUpdate": {"maxUnavailable": 3}}, 3),
    ],
)
def test_the_pods_that_kubernetes_may_delete_first(strategy: dict[str, Any], spare: int) -> None:
    document = {"metadata": {"name": "shop"}, "spec": {"replicas": 10, "strategy": strategy}}
    assert Deployment.of(document).spare == spare


# --- the next step ---------------------------------------------------------------------------------------------------

NOW = 1_000.0


class Story:
    """A Deployment whose new Pods are made at once, and become available when told."""

    def __init__(self, replicas: int, wishes: Wishes, record: Record | None = None, **members: Any) -> None:
        self.replicas = replicas
        self.wishes = wishes
        self.record = record or Record()
        self.members = members
        self.newest = ReplicaSet("uid-2", "shop-2", "uid", "shop", "hash-2", "2", 0)
        self.pods = {name: _pod(name) for name in "abcdefghij"[:replicas]}
        self.older: list[tuple[ReplicaSet, VPod]] = []
        self.gone: frozenset[str] = frozenset()
        self.events: list[str] = []

    def step(self, now: float = NOW) -> Step:
        deployment = Deployment.of({"metadata": {"name": "shop", "uid": "uid"}, "spec": {"replicas": self.replicas}})
        deployment = replace(deployment, **{"spare": 0, **self.members})
        facts = Facts(deployment, self.newest, [*self.pods.values()], self.older, self.gone)
        step = next_step(facts, self.wishes, self.record, now=now)
        self.record = Record.of(step.record.text())
        self.events += [event.reason for event in step.events]
        return step

    def obey(self, now: float = NOW) -> str:
        """Take a step, and return the Pods let through; they are available afterwards."""
        step = self.step(now)
        for pod in step.opened:
            name = pod.key.name.removeprefix("shop-2-")
            self.pods[name] = replace(pod, gates=frozenset())
        through = [pod for pod in self.pods.values() if not pod.gates]
        self.newest = replace(self.newest, available=len(through))
        return "".join(sorted(pod.key.name[-1] for pod in step.opened))


def _pod(name: str, gates: frozenset[str] = frozenset({GATE}), owner: str = "shop-2") -> VPod:
    document = {"metadata": {"namespace": "here", "name": f"{owner}-{name}", "uid": name}, "spec": {}}
    return replace(VPod.of(document), gates=gates, owner=f"uid-{owner[-1]}", created="2026-01-01T00:00:00Z")


def test_without_wishes_all_pods_go_through_at_once() -> None:
    story = Story(3, Wishes())
    assert story.obey() == "abc"
    assert story.record == Record(revision="2", is_over=True, proven=("hash-2",))
    assert (story.step().progress, story.events) == ("", [])


def test_each_batch_waits_for_the_one_before() -> None:
    story = Story(5, Wishes(count=2))
    step = story.step()
    assert [pod.key.name for pod in step.opened] == ["shop-2-a", "shop-2-b", "shop-2-c"]
    assert story.step() == replace(step, events=(), forgets_confirmation=False)  # nothing is available yet
    assert story.obey() == "abc"
    assert story.obey() == "de"
    assert (story.step().progress, story.step().due_s) == ("batch 2 of 2", None)
    assert story.events == ["BatchBegun", "LastBatchBegun"]


def test_a_batch_waits_for_its_confirmation_and_a_beta_batch_always() -> None:
    story = Story(5, Wishes(count=3, has_beta=True))
    assert story.obey() == "a"
    assert story.obey() == ""
    assert story.step().progress == f"batch 1 of 3 is ready, waiting for {CONFIRMED}=1"
    assert story.step().unconfirmed == 1
    assert story.events == ["BatchBegun", "BatchReady"]
    story.wishes = replace(story.wishes, confirmed=1)
    assert story.obey() == "bc"
    assert story.obey() == "de"
    assert story.step().unconfirmed == 0


def test_a_confirmation_of_the_rollout_before_does_not_count() -> None:
    story = Story(5, Wishes(count=3, confirms=True, confirmed=3), Record(revision="1", is_over=True))
    step = story.step()
    assert step.forgets_confirmation
    assert [pod.key.name[-1] for pod in step.opened] == ["a", "b"]
    story.newest = replace(story.newest, available=2)
    story.record = Record()
    assert story.step().record.batch == 1


def test_the_pause_counts_from_the_readiness_of_a_batch() -> None:
    story = Story(2, Wishes(count=2, pause_s=60))
    assert story.obey(NOW) == "a"
    step = story.step(NOW + 100)
    assert (step.opened, step.due_s) == ((), 5)
    assert step.progress == "batch 1 of 2 is ready, the next begins at 1970-01-01T00:19:20Z"
    assert story.step(NOW + 159).due_s == 1
    assert story.obey(NOW + 160) == "b"


def test_a_paused_deployment_begins_nothing() -> None:
    story = Story(4, Wishes(count=2), is_paused=True)
    assert story.obey() == ""
    assert story.step().progress == "batch 1 of 2, the Deployment is paused"
    story.members["is_paused"] = False
    assert story.obey() == "ab"
    story.members["is_paused"] = True
    assert story.obey() == ""


def test_a_lost_pod_is_replaced_within_its_batch() -> None:
    story = Story(4, Wishes(count=2, confirms=True))
    assert story.obey() == "ab"
    del story.pods["a"]
    assert story.step().opened == ()  # the cache may be late
    story.gone = frozenset({"a"})
    assert story.obey() == "c"


def test_pods_let_through_by_hand_count() -> None:
    story = Story(4, Wishes(count=2, confirms=True))
    story.pods["d"] = replace(story.pods["d"], gates=frozenset())
    assert story.obey() == "a"


def test_a_recorded_pod_is_let_through_after_a_crash() -> None:
    story = Story(4, Wishes(count=2, confirms=True), Record(revision="2", pods=("b", "c")))
    assert story.obey() == "bc"


def test_a_rollback_goes_at_once_unless_asked() -> None:
    before = Record(revision="1", is_over=True, proven=("hash-2", "hash-1"))
    story = Story(4, Wishes(count=2, confirms=True), before)
    assert story.obey() == "abcd"
    assert story.record.proven == ("hash-1", "hash-2")
    story = Story(4, Wishes(count=2, confirms=True, undoes_in_batches=True), before)
    assert story.obey() == "ab"


def test_pods_of_a_proven_revision_are_never_held_and_those_of_an_unproven_one_are() -> None:
    story = Story(4, Wishes(count=2, confirms=True), Record(revision="1", is_over=True, proven=("hash-1",)))
    old = [ReplicaSet(f"uid-{n}", f"shop-{n}", "uid", "shop", f"hash-{n}", n, 0) for n in ("1", "0")]
    story.older = [(one, _pod(f"z{one.revision}", owner=one.name)) for one in old]
    assert [pod.key.name for pod in story.step().opened] == ["shop-2-a", "shop-2-b", "shop-1-z1"]


def test_without_replicas_nothing_is_proven() -> None:
    story = Story(0, Wishes(count=2))
    assert not story.step().record.is_over
    story.replicas, story.pods = 2, {name: _pod(name) for name in "ab"}
    assert story.obey() == "a"


def test_a_strategy_that_deletes_first_is_told() -> None:
    story = Story(4, Wishes(count=2), spare=1)
    story.step()
    assert story.events == ["BasesLackModule", "BatchBegun"]
    story = Story(4, Wishes(), spare=1)
    story.step()
    assert story.events == []


def test_a_record_has_a_bounded_number_of_revisions() -> None:
    record = Record()
    for number in range(50):
        record = record.proved(f"hash-{number}")
    assert record.proven == tuple(f"hash-{number}" for number in range(40, 50))


# --- on an API server ------------------------------------------------------------------------------------------------


class Kept(dict[Key, Any]):
    """A cache that says what a test wants."""

    def of(self, value: str) -> Iterator[Any]:
        return (one for one in self.values() if value in {getattr(one, name, "") for name in ("uid", "owner")})


DEPLOYMENT = Key("here", "shop")
PATHS = {
    "deployment": "/apis/apps/v1/namespaces/here/deployments",
    "set": "/apis/apps/v1/namespaces/here/replicasets",
    "pod": "/api/v1/namespaces/here/pods",
}


class Meeting:
    """A Deployment with gated Pods on an API server in memory, and controllers with caches of their own."""

    def __init__(self, api: Api) -> None:
        self.api = api
        self.told: list[str] = []

    async def set_up(self, **annotations: str) -> None:
        gates = [{"name": name} for name in (*annotations.pop("gates", "").split(), GATE)]
        template = {"spec": {"schedulingGates": gates, "containers": [{"name": "orders", "image": "x"}]}}
        texts = {OF + name: text for name, text in annotations.items()}
        metadata: dict[str, Any] = {"name": "shop", "annotations": {"deployment.kubernetes.io/revision": "1", **texts}}
        made = {"metadata": metadata, "spec": {"replicas": 4, "selector": {}, "template": template}}
        deployment = await self.api.create(PATHS["deployment"], made)
        owner = [{"uid": deployment["metadata"]["uid"], "name": "shop", "controller": True}]
        labels = {"pod-template-hash": "hash-1"}
        metadata = {
            "name": "shop-1",
            "labels": labels,
            "annotations": {"deployment.kubernetes.io/revision": "1"},
            "ownerReferences": owner,
        }
        found = await self.api.create(PATHS["set"], {"metadata": metadata, "spec": {}})
        owner = [{"uid": found["metadata"]["uid"], "name": "shop-1", "controller": True}]
        for name in "abcd":
            pod = {"metadata": {"name": f"shop-1-{name}", "ownerReferences": owner}, "spec": template["spec"]}
            await self.api.create(PATHS["pod"], pod)

    async def controller(self) -> Batches:
        """Make a controller that knows the state of the moment, and learns nothing afterwards."""
        deployments, sets, pods = Kept(), Kept(), Kept()
        document = await self.api.get(f"{PATHS['deployment']}/shop")
        assert document is not None
        document["status"] = {"observedGeneration": document["metadata"]["generation"]}
        deployments[DEPLOYMENT] = Deployment.of(document)
        found = await self.api.get(f"{PATHS['set']}/shop-1")
        assert found is not None
        sets[Key("here", "shop-1")] = ReplicaSet.of(found)
        page = await self.api.page(PATHS["pod"], {}, limit=100)
        for one in page.items:
            pod = VPod.of(one)
            pods[Key(*pod.key)] = pod
        queue: Queue[Key] = Queue()
        return Batches(self.api, deployments, sets, pods, queue=queue, tell=self._tell)  # type: ignore[arg-type]

    def _tell(self, about: object, kind: str, reason: str, message: str) -> None:
        self.told.append(reason)

    async def through(self) -> list[str]:
        page = await self.api.page(PATHS["pod"], {}, limit=100)
        return sorted(one["metadata"]["name"] for one in page.items if not one["spec"].get("schedulingGates"))

    async def annotation(self, name: str) -> str | None:
        document = await self.api.get(f"{PATHS['deployment']}/shop") or {}
        text: str | None = document["metadata"]["annotations"].get(name)
        return text


def meet(act: Any) -> None:
    async def run() -> None:
        with served() as (url, _):
            async with Api(unsecured(url)) as api:
                await api.create("/api/v1/namespaces", {"metadata": {"name": "here"}})
                await act(Meeting(api))

    asyncio.run(run())


def test_of_two_controllers_with_equal_news_one_lets_a_batch_through() -> None:
    async def act(meeting: Meeting) -> None:
        await meeting.set_up(batches="2")
        one, two = await meeting.controller(), await meeting.controller()
        await asyncio.gather(one.reconcile(DEPLOYMENT), two.reconcile(DEPLOYMENT))
        assert len(await meeting.through()) == 2
        assert meeting.told == ["BasesLackModule", "BatchBegun"]

    meet(act)


def test_a_controller_with_old_news_of_pods_lets_none_through_beyond_the_record() -> None:
    async def act(meeting: Meeting) -> None:
        await meeting.set_up(batches="2")
        first, late = await meeting.controller(), await meeting.controller()
        await first.reconcile(DEPLOYMENT)
        fresh = await meeting.controller()
        late._deployments = fresh._deployments  # the Deployment is of now, all Pods are gated still
        await late.reconcile(DEPLOYMENT)
        del late._pods[Key("here", "shop-1-a")]  # type: ignore[attr-defined]  # not known at all
        await late.reconcile(DEPLOYMENT)
        assert await meeting.through() == ["shop-1-a", "shop-1-b"]

    meet(act)


def test_the_successor_of_a_crashed_controller_lets_the_recorded_pods_through() -> None:
    async def act(meeting: Meeting) -> None:
        await meeting.set_up(batches="2")
        crashing = await meeting.controller()

        async def crash(_: object) -> None:
            raise asyncio.CancelledError

        crashing._open = crash  # type: ignore[method-assign, assignment]
        with pytest.raises(asyncio.CancelledError):
            await crashing.reconcile(DEPLOYMENT)
        assert await meeting.through() == []
        record = msgspec.json.decode(await meeting.annotation(STATE) or "")
        assert record["pods"] == ["a", "b"]
        await (await meeting.controller()).reconcile(DEPLOYMENT)
        assert await meeting.through() == ["shop-1-a", "shop-1-b"]

    meet(act)


def test_a_deleted_pod_makes_room_for_another() -> None:
    async def act(meeting: Meeting) -> None:
        await meeting.set_up(batches="2")
        await (await meeting.controller()).reconcile(DEPLOYMENT)
        await meeting.api.delete(f"{PATHS['pod']}/shop-1-a", grace_s=0)
        await (await meeting.controller()).reconcile(DEPLOYMENT)
        assert await meeting.through() == ["shop-1-b", "shop-1-c"]

    meet(act)


def test_a_senseless_wish_holds_all_pods_and_is_told() -> None:
    async def act(meeting: Meeting) -> None:
        await meeting.set_up(batches="many")
        await (await meeting.controller()).reconcile(DEPLOYMENT)
        assert await meeting.through() == []
        assert await meeting.annotation(PROGRESS) == (
            "nothing is let through: rollout.koupleless.io/batches is 'many', and no number"
        )

    meet(act)


def test_wishes_without_a_gate_are_told_to_have_no_effect() -> None:
    async def act(meeting: Meeting) -> None:
        await meeting.set_up(batches="2")
        template = {"spec": {"template": {"spec": {"schedulingGates": None}}}}
        await meeting.api.patch(f"{PATHS['deployment']}/shop", template)
        await (await meeting.controller()).reconcile(DEPLOYMENT)
        assert (
            await meeting.annotation(PROGRESS) == f"no batches: the template of the Pods has no scheduling gate {GATE}"
        )
        await meeting.api.patch(f"{PATHS['deployment']}/shop", {"metadata": {"annotations": {OF + "batches": None}}})
        await (await meeting.controller()).reconcile(DEPLOYMENT)
        assert await meeting.annotation(PROGRESS) is None

    meet(act)


def test_other_gates_of_a_pod_stay() -> None:
    async def act(meeting: Meeting) -> None:
        await meeting.set_up(gates="example.com/quota")
        await (await meeting.controller()).reconcile(DEPLOYMENT)
        pod = await meeting.api.get(f"{PATHS['pod']}/shop-1-a") or {}
        assert pod["spec"]["schedulingGates"] == [{"name": "example.com/quota"}]

    meet(act)


# --- by chance -------------------------------------------------------------------------------------------------------


class Truth:
    """A rollout on an API server, seen by several controllers each with old news of its own."""

    def __init__(self, chance: random.Random, wishes: Wishes, replicas: int) -> None:
        self.chance = chance
        self.wishes = wishes
        self.replicas = replicas
        self.version, self.record = 0, Record(revision="1", is_over=True)
        self.pods: dict[str, VPod] = {}
        self.fill()
        self.most = 0
        """The greatest number of Pods let through at a time, before the last batch."""

    def fill(self) -> None:
        while len(self.pods) < self.replicas:
            name = f"{self.chance.randrange(10**9):09}"  # in no order, as those of Kubernetes
            self.pods[name] = _pod(name)

    def through(self) -> list[VPod]:
        return [pod for pod in self.pods.values() if not pod.gates]

    def look(self) -> tuple[int, Record, dict[str, VPod]]:
        return self.version, self.record, dict(self.pods)

    def work(self, news: tuple[int, Record, dict[str, VPod]], pods: dict[str, VPod], now: float) -> None:
        """Work as a controller with a Deployment and Pods of different ages, which may crash after the record."""
        version, record, _ = news
        available = sum(not pod.gates for pod in pods.values())
        newest = ReplicaSet("uid-2", "shop-2", "uid", "shop", "hash-2", "2", available)
        gone = frozenset(name for name in record.pods if name not in pods and name not in self.pods)
        found = Deployment.of({"metadata": {"name": "shop"}, "spec": {"replicas": self.replicas}})
        step = next_step(Facts(found, newest, [*pods.values()], [], gone), self.wishes, record, now=now)
        if step.record != record:
            if version != self.version:
                return  # a conflict
            self.version, self.record = self.version + 1, step.record
        for pod in step.opened:
            name = pod.key.name.removeprefix("shop-2-")
            if self.chance.random() < 0.1:
                return  # a crash
            if name in self.pods:
                self.pods[name] = replace(self.pods[name], gates=frozenset())
        if not self.record.is_over:
            self.most = max(self.most, len(self.through()))


@pytest.mark.parametrize("seed", range(40))
def test_whatever_comes_no_more_than_a_batch_is_let_through_and_the_rollout_ends(seed: int) -> None:
    chance = random.Random(seed)
    replicas = chance.randrange(2, 12)
    wishes = Wishes(count=chance.randrange(2, 5), confirms=True)
    truth = Truth(chance, wishes, replicas)
    limits = wishes.limits(replicas)
    news = [[truth.look(), truth.look()[2]] for _ in range(3)]
    for batch, limit in enumerate(limits[:-1], 1):
        for _ in range(150):
            one = chance.choice(news)
            match chance.randrange(5):
                case 0:
                    one[0] = truth.look()
                case 1:
                    one[1] = truth.look()[2]
                case 2 if truth.pods:
                    del truth.pods[chance.choice([*truth.pods])]
                    truth.fill()
                case _:
                    truth.work(one[0], one[1], NOW)  # type: ignore[arg-type]
        assert truth.most <= limit
        for _ in range(30):  # and with news of the moment, the batch is there
            truth.work(truth.look(), truth.look()[2], NOW)
        assert (len(truth.through()), truth.record.batch) == (limit, batch)
        truth.wishes = replace(wishes, confirmed=batch)
    for _ in range(30):
        truth.work(truth.look(), truth.look()[2], NOW)
    assert len(truth.through()) == replicas
    assert truth.record.is_over
