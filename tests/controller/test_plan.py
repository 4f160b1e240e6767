"""Plans for one base: what should run is installed, what nobody wants goes, whatever the order of events."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.controller.documents import NODE, container, leaving, pod

from koupleless.controller.vpods.actual import Actual, State, table_of
from koupleless.controller.vpods.attempts import Attempts, Verb
from koupleless.controller.vpods.module import ModuleKey, modules_of
from koupleless.controller.vpods.plan import Claims, Operation, Plan, Policy, Read, has_left, plan
from koupleless.controller.vpods.pod import Revision, VPod, in_places
from koupleless.controller.vpods.status import Facts, is_ready, is_told, status_of
from koupleless.controller.vpods.variables import Surroundings

if TYPE_CHECKING:
    from collections.abc import Mapping

ORDERS, ORDERS_2, PRICES = ModuleKey("orders", "1"), ModuleKey("orders", "2"), ModuleKey("prices", "1")


class Nothing:
    """No ConfigMaps, and no Secrets."""

    def find(self, source: object) -> None:
        """Find nothing."""


def read(document: dict[str, Any]) -> Read:
    vpod = VPod.of(document)
    return Read(vpod, modules_of(vpod, Nothing(), Surroundings(NODE, "10.0.0.7")))


def there(*keys: ModuleKey, state: State = State.ACTIVATED) -> dict[ModuleKey, Actual]:
    return {key: Actual(key, state, 100.0) for key in keys}


def said(made: Plan) -> list[tuple[Verb, ModuleKey]]:
    return [(operation.verb, operation.key) for operation in made.operations]


def test_nothing_is_done_before_the_base_has_told_its_modules() -> None:
    assert plan([read(pod("a", container("orders", "1")))], None, Attempts(), now=0) == Plan(())


def test_what_is_missing_is_installed() -> None:
    made = plan([read(pod("a", container("orders", "1"), container("prices", "1")))], {}, Attempts(), now=0)
    assert said(made) == [(Verb.INSTALL, ORDERS), (Verb.INSTALL, PRICES)]
    assert [operation.module and operation.module.container for operation in made.operations] == ["orders", "prices"]


def test_what_is_there_is_left_alone() -> None:
    for state in (State.ACTIVATED, State.INSTALLING, State.UNKNOWN):
        made = plan([read(pod("a", container("orders", "1")))], there(ORDERS, state=state), Attempts(), now=0)
        assert said(made) == []


def test_a_base_that_came_back_empty_is_filled_again() -> None:
    attempts, pods = Attempts(), [read(pod("a", container("orders", "1")))]
    attempts.begin(Verb.INSTALL, ORDERS, "some mark")
    attempts.succeed(ORDERS)
    assert said(plan(pods, {}, attempts, now=0)) == [(Verb.INSTALL, ORDERS)]


def test_one_version_of_a_name_at_a_time() -> None:
    pods = [read(pod("a", container("orders", "1"))), read(pod("b", container("orders", "2"), created=1))]
    attempts = Attempts()
    assert said(plan(pods, {}, attempts, now=0)) == [(Verb.INSTALL, ORDERS)]
    attempts.begin(Verb.INSTALL, ORDERS, next(pods[0].wanted()).mark)
    assert said(plan(pods, {}, attempts, now=0)) == []
    attempts.succeed(ORDERS)
    assert said(plan(pods, there(ORDERS), attempts, now=0)) == [(Verb.INSTALL, ORDERS_2)]


def test_a_new_version_comes_before_the_old_one_leaves() -> None:
    old, new = pod("a", container("orders", "1")), pod("b", container("orders", "2"), created=1)
    assert said(plan([read(old), read(new)], there(ORDERS), Attempts(), now=0)) == [(Verb.INSTALL, ORDERS_2)]
    both = there(ORDERS, ORDERS_2)
    assert said(plan([read(leaving(old)), read(new)], both, Attempts(), now=0)) == [(Verb.UNINSTALL, ORDERS)]


def test_a_version_that_answers_does_not_leave_while_the_base_installs_the_next_one() -> None:
    old, new = read(leaving(pod("a", container("orders", "1")))), read(pod("b", container("orders", "2"), created=1))
    coming = there(ORDERS) | there(ORDERS_2, state=State.INSTALLING)
    assert said(plan([old, new], coming, Attempts(), now=0)) == []
    installed = there(ORDERS) | there(ORDERS_2, state=State.DEACTIVATED)
    assert said(plan([old, new], installed, Attempts(), now=0)) == [(Verb.SWITCH, ORDERS_2)]
    failed = there(ORDERS) | there(ORDERS_2, state=State.BROKEN)
    attempts = Attempts()
    attempts.begin(Verb.INSTALL, ORDERS_2, next(new.wanted()).mark)
    attempts.fail(ORDERS_2, "StartFailed", "broken", now=0, at=0)
    assert said(plan([old, new], failed, attempts, now=0)) == [(Verb.UNINSTALL, ORDERS)]
    unwanted = there(ORDERS) | there(ORDERS_2, state=State.INSTALLING)
    assert said(plan([old], unwanted, Attempts(), now=0)) == [(Verb.UNINSTALL, ORDERS)]


def test_the_version_of_the_newest_pod_answers() -> None:
    old, new = pod("a", container("orders", "1")), pod("b", container("orders", "2"), created=1)
    modules = there(ORDERS) | there(ORDERS_2, state=State.DEACTIVATED)
    assert said(plan([read(old), read(new)], modules, Attempts(), now=0)) == [(Verb.SWITCH, ORDERS_2)]
    both = there(ORDERS, ORDERS_2)  # a base that lets several versions answer
    assert said(plan([read(old), read(new)], both, Attempts(), now=0)) == []
    undone = pod("c", container("orders", "1"), created=2)
    modules = there(ORDERS_2) | there(ORDERS, state=State.DEACTIVATED)
    assert said(plan([read(undone), read(new)], modules, Attempts(), now=0)) == [(Verb.SWITCH, ORDERS)]


def test_the_operations_on_a_base_at_a_time_are_limited() -> None:
    pods = [read(pod(f"pod-{number}", container(f"m{number}"), created=number)) for number in range(5)]
    made = plan(pods, {}, Attempts(), now=0, policy=Policy(at_once=2))
    assert [operation.key.name for operation in made.operations] == ["m0", "m1"]


def test_a_failed_install_is_tried_again_after_a_pause_that_grows() -> None:
    attempts, pods = Attempts(), [read(pod("a", container("orders", "1")))]
    mark = next(pods[0].wanted()).mark
    dues = []
    now = 0.0
    for _ in range(12):
        attempts.begin(Verb.INSTALL, ORDERS, mark)
        attempts.fail(ORDERS, "StartFailed", "no such table", now=now, at=now)
        made = plan(pods, {}, attempts, now=now)
        assert said(made) == []
        assert made.due is not None
        dues.append(made.due - now)
        now = made.due
        assert said(plan(pods, {}, attempts, now=now)) == [(Verb.INSTALL, ORDERS)]
    assert dues[:3] == [1, 2, 4]
    assert dues[-1] == 300


def test_a_changed_module_is_not_kept_waiting() -> None:
    attempts = Attempts()
    attempts.begin(Verb.INSTALL, ORDERS, "the mark of another image")
    attempts.fail(ORDERS, "FetchFailed", "404", now=0, at=0)
    assert said(plan([read(pod("a", container("orders", "1")))], {}, attempts, now=0)) == [(Verb.INSTALL, ORDERS)]


def test_a_broken_module_is_removed_and_installed_again_without_losing_count() -> None:
    attempts, pods = Attempts(), [read(pod("a", container("orders", "1")))]
    mark = next(pods[0].wanted()).mark
    for now, pause in ((0, 1), (10, 2)):
        attempts.begin(Verb.INSTALL, ORDERS, mark)
        attempts.fail(ORDERS, "StartFailed", "broken", now=now, at=now)
        broken = there(ORDERS, state=State.BROKEN)
        assert plan(pods, broken, attempts, now=now).due == now + pause
        assert said(plan(pods, broken, attempts, now=now + pause)) == [(Verb.UNINSTALL, ORDERS)]
        attempts.begin(Verb.UNINSTALL, ORDERS)
        attempts.succeed(ORDERS)
        assert said(plan(pods, {}, attempts, now=now + pause)) == [(Verb.INSTALL, ORDERS)]


def test_another_image_under_the_same_identity_is_installed_anew() -> None:
    old = read(pod("a", container("orders", "1")))
    new = read(pod("a", container("orders", "1", image="https://repo.example/mended.zip")))
    attempts = Attempts()
    attempts.begin(Verb.INSTALL, ORDERS, next(old.wanted()).mark)
    attempts.succeed(ORDERS)
    assert said(plan([old], there(ORDERS), attempts, now=0)) == []
    assert said(plan([new], there(ORDERS), attempts, now=0)) == [(Verb.UNINSTALL, ORDERS)]


def test_a_new_controller_knows_another_image_by_the_status_of_the_pod() -> None:
    document = pod("a", container("orders", "1"))
    facts = Facts("10.0.0.7", there(ORDERS), Claims.of([read(document)]), Attempts())
    told = {**document, "status": status_of(read(document), facts, now=200)}
    assert said(plan([read(told)], there(ORDERS), Attempts(), now=0)) == []
    told["spec"] = {**told["spec"], "containers": [container("orders", "1", image="https://repo.example/mended.zip")]}
    assert said(plan([read(told)], there(ORDERS), Attempts(), now=0)) == [(Verb.UNINSTALL, ORDERS)]


def test_pods_of_one_module_share_it_and_the_newest_of_different_ones_decides() -> None:
    one, other = pod("a", container("orders", "1")), pod("b", container("orders", "1"), created=1)
    pods = [read(one), read(other)]
    assert said(plan(pods, {}, Attempts(), now=0)) == [(Verb.INSTALL, ORDERS)]
    assert said(plan([read(leaving(one)), read(other)], there(ORDERS), Attempts(), now=0)) == []
    assert has_left(read(leaving(one)), Claims.of([read(other)]), there(ORDERS))
    mended = read(pod("c", container("orders", "1", image="https://repo.example/mended.zip"), created=2))
    (operation,) = plan([*pods, mended], {}, Attempts(), now=0).operations
    assert operation.pod == mended.pod.key


def test_a_pod_has_left_once_its_modules_have() -> None:
    gone = read(leaving(pod("a", container("orders", "1"), container("prices", "1"))))
    claims = Claims()
    assert not has_left(gone, claims, None)
    assert not has_left(gone, claims, there(PRICES))
    assert has_left(gone, claims, {})
    assert has_left(gone, claims, there(PRICES, state=State.STOPPED))


def test_strays_go_after_two_lists_and_not_if_the_operator_keeps_them() -> None:
    attempts = Attempts()
    attempts.see([ORDERS])
    assert said(plan([], there(ORDERS), attempts, now=0)) == []
    attempts.see([ORDERS])
    assert said(plan([], there(ORDERS), attempts, now=0)) == [(Verb.UNINSTALL, ORDERS)]
    assert said(plan([], there(ORDERS), attempts, now=0, policy=Policy(removes_strays=False))) == []
    attempts.see([])
    attempts.see([ORDERS])
    assert said(plan([], there(ORDERS), attempts, now=0)) == []


def test_a_stray_that_does_not_go_is_tried_once_a_minute() -> None:
    attempts = Attempts()
    for _ in range(2):
        attempts.see([ORDERS])
    (operation,) = plan([], there(ORDERS), attempts, now=0).operations
    attempts.begin(operation.verb, operation.key)
    assert operation.pause_s is not None
    attempts.fail(ORDERS, "UninstallFailed", "no", now=0, at=0, pause_s=operation.pause_s)
    for minute in range(60, 600, 60):
        assert plan([], there(ORDERS), attempts, now=minute - 1) == Plan((), minute)
        assert said(plan([], there(ORDERS), attempts, now=minute)) == [(Verb.UNINSTALL, ORDERS)]
        attempts.begin(operation.verb, operation.key)
        attempts.fail(ORDERS, "UninstallFailed", "no", now=minute, at=0, pause_s=operation.pause_s)


def test_a_module_of_a_pod_that_vanished_goes_at_once() -> None:
    attempts = Attempts()
    attempts.begin(Verb.INSTALL, ORDERS, "mark")
    attempts.succeed(ORDERS)
    keeping = Policy(removes_strays=False)
    assert said(plan([], there(ORDERS), attempts, now=0, policy=keeping)) == [(Verb.UNINSTALL, ORDERS)]


@pytest.mark.parametrize(
    "document",
    [
        {"bizName": "orders", "bizVersion": "1", "bizState": "activated",
         "bizStateRecords": [{"changeTime": 1_000, "state": "resolved"},
                             {"changeTime": 100_000, "state": "activated", "reason": "Started", "message": ""}]},
        {"name": "orders", "version": "1", "state": "ACTIVATED",
         "latestStateRecord": {"changeTime": 100_000, "state": "ACTIVATED", "reason": "Started", "message": None}},
    ],
)  # fmt: skip
def test_both_lists_of_bases_are_read(document: dict[str, Any]) -> None:
    assert table_of([document]) == {ORDERS: Actual(ORDERS, State.ACTIVATED, 100.0, "Started")}


def test_lists_of_other_bases_do_no_harm() -> None:
    java = {"bizName": "base", "bizVersion": "1", "bizState": "ACTIVATED", "mainClass": "embed main"}
    odd = {"bizName": "orders", "bizVersion": "1", "bizState": "4", "bizStateRecords": None, "latestStateRecord": None}
    assert table_of([java, odd]) == {ORDERS: Actual(ORDERS, State.UNKNOWN)}


@pytest.mark.parametrize(
    "odd",
    [
        {"bizState": 3},
        {"bizState": ["ACTIVATED"]},
        {"bizStateRecords": 7},
        {"bizStateRecords": [None, 7, {"changeTime": 10**30, "reason": 1}]},
        {"latestStateRecord": "now"},
    ],
)
def test_odd_members_of_a_list_are_absent_and_end_nobody(odd: dict[str, object]) -> None:
    found = table_of([{"bizName": "orders", "bizVersion": "1", **odd}, {"bizName": 7, "bizVersion": "1"}])
    assert found == {ORDERS: Actual(ORDERS, State.UNKNOWN)}


# --- a base that does as it is told, now and then --------------------------------------------------------------


class Simulated:
    """A cluster of one base, whose operations end at once and sometimes fail."""

    def __init__(self) -> None:
        self.pods: dict[str, dict[str, Any]] = {}
        self.modules: dict[ModuleKey, Actual] = {}
        self.attempts = Attempts()
        self.now = 0.0
        self.created = 0

    def create(self, name: str, *containers: dict[str, Any], **spec: Any) -> None:
        self.created += 1
        self.pods.setdefault(name, pod(name, *containers, created=self.created, spec=spec))

    def delete(self, name: str) -> None:
        if name in self.pods:
            self.pods[name] = leaving(self.pods[name])

    def work(self, failing: frozenset[ModuleKey] = frozenset()) -> float | None:
        """Do what the controller does for one base once."""
        reads = [read(document) for document in self.pods.values()]
        claims = Claims.of(reads)
        wanted = {module.key for one in reads for module in one.wanted()}
        self.attempts.see(self.modules.keys() - wanted)
        made = plan(reads, self.modules, self.attempts, now=self.now)
        for operation in made.operations:
            self._perform(operation, fails=operation.key in failing)
        self.attempts.forget(besides={*wanted, *self.modules})
        facts = Facts("10.0.0.7", self.modules, claims, self.attempts)
        for one in reads:
            name = one.pod.key.name
            if one.pod.is_leaving and has_left(one, claims, self.modules):
                del self.pods[name]
                continue
            status = status_of(one, facts, now=self.now)
            self.pods[name] = {**self.pods[name], "status": {**one.pod.status, **status}}
            assert is_told(status_of(read(self.pods[name]), facts, now=self.now + 5), read(self.pods[name]).pod)
        return made.due

    def _perform(self, operation: Operation, *, fails: bool) -> None:
        mark = "" if operation.module is None else operation.module.mark
        self.attempts.begin(operation.verb, operation.key, mark)
        if fails:
            self.attempts.fail(operation.key, "Failed", "no", now=self.now, at=self.now)
            return
        self.attempts.succeed(operation.key)
        others = [key for key in self.modules if key.name == operation.key.name and key != operation.key]
        match operation.verb:
            case Verb.INSTALL:
                assert operation.key not in self.modules
                state = State.DEACTIVATED if others else State.ACTIVATED
                self.modules[operation.key] = Actual(operation.key, state, self.now)
            case Verb.SWITCH:
                assert self.modules[operation.key].state is State.DEACTIVATED
                self.modules |= {key: Actual(key, State.DEACTIVATED, self.now) for key in others}
                self.modules[operation.key] = Actual(operation.key, State.ACTIVATED, self.now)
            case Verb.UNINSTALL:
                del self.modules[operation.key]

    def settle(self) -> None:
        quiet = 0
        for _ in range(50):
            before = dict(self.modules), {name: dict(document) for name, document in self.pods.items()}
            due = self.work()
            self.now = max(self.now + 1, due or 0)
            quiet = quiet + 1 if due is None and before == (self.modules, self.pods) else 0
            if quiet == 3:  # a stray is left alone at first
                return
        raise AssertionError("the base does not come to rest")


KEYS = st.builds(ModuleKey, st.sampled_from(["orders", "prices"]), st.sampled_from(["1", "2"]))
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("create"), st.sampled_from("abc"), st.lists(KEYS, min_size=1, max_size=2, unique=True)),
        st.tuples(st.just("delete"), st.sampled_from("abc"), st.none()),
        st.tuples(st.just("vanish"), st.sampled_from("abc"), st.none()),
        st.tuples(st.just("restart"), st.none(), st.none()),
        st.tuples(st.just("forget"), st.none(), st.none()),
        st.tuples(st.just("stray"), st.none(), KEYS),
        st.tuples(st.just("work"), st.none(), st.frozensets(KEYS)),
    ),
    max_size=20,
)


@given(STEPS)
@settings(max_examples=200, deadline=None)
def test_what_should_run_runs_and_nothing_else(steps: list[tuple[str, Any, Any]]) -> None:
    world = Simulated()
    for kind, name, value in steps:
        world.now += 1
        match kind:
            case "create":
                world.create(
                    name, *(container(key.name, key.version) for key in {key.name: key for key in value}.values())
                )
            case "delete":
                world.delete(name)
            case "vanish":
                world.pods.pop(name, None)
            case "restart":  # of the base
                world.modules.clear()
            case "forget":  # by a new controller
                world.attempts = Attempts()
            case "stray":
                has_others = any(key.name == value.name for key in world.modules)  # of a name, one version answers
                state = State.DEACTIVATED if has_others else State.ACTIVATED
                world.modules.setdefault(value, Actual(value, state, world.now))
            case "work":
                world.work(value)
    world.settle()
    reads = [read(document) for document in world.pods.values()]
    assert world.modules.keys() == {module.key for one in reads for module in one.wanted()}
    assert all(one.pod.is_wanted for one in reads)
    newest = {
        module.key.name: module.key
        for one in sorted(reads, key=lambda one: one.pod.age_order())
        for module in one.wanted()
    }
    answering = {key for key, actual in world.modules.items() if actual.state is State.ACTIVATED}
    assert answering == set(newest.values())
    for one in reads:
        assert is_ready(one.pod.status) is all(module.key in answering for module in one.wanted())


@pytest.mark.parametrize(("restart", "fails", "phase"), [("Never", False, "Succeeded"), ("Never", True, "Failed"),
                                                         ("OnFailure", False, "Succeeded")])  # fmt: skip
def test_a_job_runs_to_completion_and_leaves(restart: str, fails: bool, phase: str) -> None:
    world = Simulated()
    world.create("job", container("orders", "1"), restartPolicy=restart)
    world.work(frozenset({ORDERS}) if fails else frozenset())
    world.settle()
    status = world.pods["job"]["status"]
    assert status["phase"] == phase
    assert status["containerStatuses"][0]["state"]["terminated"]["exitCode"] == (1 if fails else 0)
    assert world.modules == {}


def test_a_job_that_may_fail_is_run_again() -> None:
    world = Simulated()
    world.create("job", container("orders", "1"), restartPolicy="OnFailure")
    world.work(frozenset({ORDERS}))
    waiting = world.pods["job"]["status"]["containerStatuses"][0]["state"]["waiting"]
    assert waiting == {"reason": "Failed", "message": "no"}
    world.settle()
    assert world.pods["job"]["status"]["phase"] == "Succeeded"


# --- revisions -------------------------------------------------------------------------------------------------------

REVISIONS = {"old": Revision("shop", 1), "new": Revision("shop", 2), "other": Revision("else", 9)}


def placed(*pods: tuple[str, int, str], revisions: Mapping[str, Revision] = REVISIONS) -> list[str]:
    """The names of Pods (name, second of creation, owner) in their places, the oldest first."""
    made = [replace(VPod.of(pod(name, created=created)), owner=owner) for name, created, owner in pods]
    found = in_places(made, revisions.get)
    assert {one.key for one in found} == {one.key for one in made}
    return [one.key.name for one in sorted(found, key=lambda one: one.age_order())]


def test_pods_of_one_workload_are_in_the_order_of_their_revisions() -> None:
    assert placed(("a", 1, "old"), ("b", 2, "new")) == ["a", "b"]
    undone = {**REVISIONS, "old": Revision("shop", 3)}
    assert placed(("a", 1, "old"), ("b", 2, "new"), revisions=undone) == ["b", "a"]
    # Of equal revisions the age decides, as with Pods of other workloads and bare ones.
    assert placed(("b", 2, "new"), ("a", 1, "new")) == ["a", "b"]
    assert placed(("a", 1, "old"), ("x", 2, "other"), ("y", 3, ""), ("b", 4, "new"), revisions=undone) == [
        "b", "x", "y", "a"
    ]  # fmt: skip
    assert placed(("a", 1, "unknown"), ("b", 2, "new"), revisions=undone) == ["a", "b"]
