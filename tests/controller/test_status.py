"""The status of a Pod: states of modules as containers, phases, conditions, restarts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from tests.controller.documents import NODE, container, leaving, pod

from koupleless.controller.vpods.actual import Actual, State
from koupleless.controller.vpods.attempts import Attempts, Verb
from koupleless.controller.vpods.module import ModuleKey, modules_of
from koupleless.controller.vpods.plan import Claims, Read
from koupleless.controller.vpods.pod import VPod
from koupleless.controller.vpods.status import Facts, is_ready, is_told, status_of
from koupleless.controller.vpods.variables import Surroundings

if TYPE_CHECKING:
    from collections.abc import Mapping

ORDERS, PRICES = ModuleKey("orders", "1"), ModuleKey("prices", "1")


class Nothing:
    """No ConfigMaps, and no Secrets."""

    def find(self, source: object) -> None:
        """Find nothing."""


def read(document: dict[str, Any]) -> Read:
    vpod = VPod.of(document)
    return Read(vpod, modules_of(vpod, Nothing(), Surroundings(NODE, "10.0.0.7")))


def tell(
    document: dict[str, Any],
    actual: Mapping[ModuleKey, State] | None,
    *,
    attempts: Attempts | None = None,
    beside: tuple[dict[str, Any], ...] = (),
    changed: float = 100.0,
    now: float = 200.0,
) -> dict[str, Any]:
    """Return the Pod with the status that the controller tells."""
    found = None if actual is None else {key: Actual(key, state, changed, "", "said") for key, state in actual.items()}
    claims = Claims.of([read(document), *map(read, beside)])
    one = read(document)
    status = status_of(one, Facts("10.0.0.7", found, claims, attempts or Attempts()), now=now)
    told = {**document, "status": {**document.get("status", {}), **status}}
    assert is_told(status, VPod.of(told))
    return told


def first(document: dict[str, Any]) -> dict[str, Any]:
    return document["status"]["containerStatuses"][0]  # type: ignore[no-any-return]


def conditions(document: dict[str, Any]) -> dict[str, str]:
    return {one["type"]: one["status"] for one in document["status"]["conditions"]}


ONE = pod("a", container("orders", "1"))
TWO = pod("a", container("orders", "1"), container("prices", "1"))


def test_a_new_pod_is_pending() -> None:
    nothing: dict[ModuleKey, State] = {}
    for actual in (None, nothing):
        told = tell(ONE, actual)
        assert told["status"]["phase"] == "Pending"
        assert first(told)["state"] == {"waiting": {"reason": "ContainerCreating"}}
        assert conditions(told) == {"Initialized": "True", "ContainersReady": "False", "Ready": "False"}


def test_a_pod_runs_with_its_module() -> None:
    told = tell(ONE, {ORDERS: State.ACTIVATED})
    assert told["status"]["phase"] == "Running"
    assert first(told)["ready"]
    assert first(told)["started"]
    assert first(told)["state"] == {"running": {"startedAt": "1970-01-01T00:01:40Z"}}
    assert set(conditions(told).values()) == {"True"}
    assert told["status"]["podIP"] == "10.0.0.7"
    assert is_ready(told["status"])


def test_a_pod_is_ready_once_all_modules_are() -> None:
    told = tell(TWO, {ORDERS: State.ACTIVATED})
    assert told["status"]["phase"] == "Pending"
    assert not is_ready(told["status"])
    unready = next(one for one in told["status"]["conditions"] if one["type"] == "Ready")
    assert unready["message"] == "containers with unready status: [prices]"
    assert is_ready(tell(told, {ORDERS: State.ACTIVATED, PRICES: State.ACTIVATED})["status"])


@pytest.mark.parametrize(
    ("state", "waiting"),
    [
        (State.INSTALLING, {"reason": "ContainerCreating"}),
        (State.UNKNOWN, {"reason": "ContainerCreating"}),
        (State.DEACTIVATED, {"reason": "Deactivated", "message": "said"}),
        (State.BROKEN, {"reason": "Broken", "message": "said"}),
    ],
)
def test_other_states_wait(state: State, waiting: dict[str, str]) -> None:
    told = tell(ONE, {ORDERS: state})
    assert first(told)["state"] == {"waiting": waiting}
    assert not is_ready(told["status"])


def test_a_failure_is_told_in_the_words_of_the_base() -> None:
    attempts, mark = Attempts(), next(read(ONE).wanted()).mark
    attempts.begin(Verb.INSTALL, ORDERS, mark)
    attempts.fail(ORDERS, "StartFailed", "no such table: orders", now=0, at=0)
    told = tell(ONE, {}, attempts=attempts)
    assert first(told)["state"] == {"waiting": {"reason": "StartFailed", "message": "no such table: orders"}}
    assert told["status"]["phase"] == "Pending"


def test_a_refused_container_is_told() -> None:
    document = pod("a", container("orders", "1"), spec={"initContainers": [{"name": "first"}]})
    assert first(tell(document, {}))["state"]["waiting"]["reason"] == "InitContainersRefused"


def test_a_module_that_runs_again_is_a_restart() -> None:
    told = tell(ONE, {ORDERS: State.ACTIVATED})
    lost = tell(told, {}, now=300)
    assert lost["status"]["phase"] == "Running"
    assert first(lost)["lastState"]["terminated"]["startedAt"] == "1970-01-01T00:01:40Z"
    again = tell(lost, {ORDERS: State.ACTIVATED}, changed=400, now=400)
    assert first(again)["restartCount"] == 1
    assert first(tell(again, {ORDERS: State.ACTIVATED}, changed=400, now=500))["restartCount"] == 1
    unseen = tell(again, {ORDERS: State.ACTIVATED}, changed=600, now=600)
    assert first(unseen)["restartCount"] == 2


def test_a_switch_of_versions_is_no_restart() -> None:
    told = tell(ONE, {ORDERS: State.ACTIVATED})
    away = tell(told, {ORDERS: State.DEACTIVATED}, now=300)
    back = tell(away, {ORDERS: State.ACTIVATED}, changed=400, now=400)
    assert first(back)["restartCount"] == 0
    assert first(back)["ready"]


def test_conditions_keep_the_time_of_their_last_change() -> None:
    told = tell(ONE, {ORDERS: State.ACTIVATED}, now=200)
    later = tell(told, {ORDERS: State.ACTIVATED}, now=900)
    assert later == told
    gone = tell(told, {}, now=900)
    ready = [next(one for one in each["status"]["conditions"] if one["type"] == "Ready") for each in (told, gone)]
    assert ready[0]["lastTransitionTime"] != ready[1]["lastTransitionTime"]


def ready_condition(document: dict[str, Any]) -> dict[str, Any]:
    return next(one for one in document["status"]["conditions"] if one["type"] == "Ready")


def test_a_ready_pod_has_lost_the_reason_for_which_it_was_not() -> None:
    waiting = tell(ONE, {})
    after = ready_condition(tell(waiting, {ORDERS: State.ACTIVATED}))
    assert ready_condition(waiting)["reason"] == "ContainersNotReady"
    assert (after["reason"], after["message"]) == (None, None)  # a merge takes away what is null


def test_members_that_the_api_server_adds_are_no_difference() -> None:
    told = tell(ONE, {ORDERS: State.ACTIVATED})
    status = told["status"]
    known = [{**one, "lastProbeTime": None, "observedGeneration": 1} for one in status["conditions"]]
    for one in known:
        del one["reason"], one["message"]
    assert is_told(status, VPod.of({**told, "status": {**status, "conditions": known}}))


def test_nothing_is_claimed_of_a_base_that_is_not_known() -> None:
    told = tell(tell(ONE, {ORDERS: State.ACTIVATED}), None, now=300)
    assert "running" in first(told)["state"]
    assert not is_ready(told["status"])


def test_a_pod_that_leaves_does_not_answer() -> None:
    told = tell(leaving(tell(ONE, {ORDERS: State.ACTIVATED})), {ORDERS: State.ACTIVATED}, now=300)
    assert not is_ready(told["status"])
    assert told["status"]["phase"] == "Running"
    gone = tell(told, {}, now=300)
    assert first(gone)["state"]["terminated"]["exitCode"] == 0


def test_an_older_pod_with_another_module_of_the_identity_is_not_ready() -> None:
    newer = pod("b", container("orders", "1", image="https://repo.example/mended.zip"), created=1)
    told = tell(ONE, {ORDERS: State.ACTIVATED}, beside=(newer,))
    assert first(told)["state"]["waiting"]["reason"] == "Superseded"


def test_a_job_has_an_end() -> None:
    job = pod("a", container("orders", "1"), spec={"restartPolicy": "Never"})
    told = tell(job, {ORDERS: State.ACTIVATED})
    assert told["status"]["phase"] == "Succeeded"
    assert first(told)["state"]["terminated"]["exitCode"] == 0
    ready = next(one for one in told["status"]["conditions"] if one["type"] == "Ready")
    assert (ready["status"], ready["reason"]) == ("False", "PodCompleted")
    assert tell(told, {}, now=900) == told


def test_the_conditions_of_others_stay() -> None:
    scheduled = {"type": "PodScheduled", "status": "True"}
    document = {**ONE, "status": {"phase": "Pending", "conditions": [scheduled], "qosClass": "BestEffort"}}
    status = status_of(read(document), Facts("", {}, Claims.of([read(document)]), Attempts()), now=0)
    merged = {**document["status"], **status, "conditions": [scheduled, *status["conditions"]]}
    assert is_told(status, VPod.of({**document, "status": merged}))
    assert "podIP" not in status


def test_empty_members_of_an_api_server_are_no_news() -> None:
    told = tell(ONE, {ORDERS: State.ACTIVATED})
    status = told["status"]
    joined = {**status, "conditions": [{**one, "lastProbeTime": None} for one in status["conditions"]]}
    assert is_told(status, VPod.of({**ONE, "status": joined}))
    stale = {**status, "conditions": [{**one, "reason": "ContainersNotReady"} for one in status["conditions"]]}
    assert not is_told(status, VPod.of({**ONE, "status": stale}))
