"""The API server in memory answers as the real one, in all that clients of ours depend on: each case meets both."""

from __future__ import annotations

import contextlib
import json
import threading
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from tests.kube.memory.serving import served

if TYPE_CHECKING:
    from collections.abc import Iterator

MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
JSON_PATCH = "application/json-patch+json"
APPLY = "application/apply-patch+yaml"


class Api:
    """A server, real or in memory, and a namespace there."""

    def __init__(self, client: httpx.Client, namespace: str) -> None:
        self.client = client
        self.namespace = namespace

    def path(self, plural: str, name: str = "", sub: str = "", *, group: str = "") -> str:
        where = f"/apis/{group}/v1" if group else "/api/v1"
        return "/".join(part for part in (where, "namespaces", self.namespace, plural, name, sub) if part)

    def create(self, plural: str, body: dict[str, Any], *, group: str = "") -> dict[str, Any]:
        answer = self.client.post(self.path(plural, group=group), json=body)
        assert answer.status_code == 201, answer.text
        made: dict[str, Any] = answer.json()
        return made

    def patch(self, path: str, sort: str, body: Any, **query: str) -> httpx.Response:
        return self.client.patch(path, content=json.dumps(body), headers={"Content-Type": sort}, params=query)

    def listed(self, plural: str, **query: str) -> dict[str, Any]:
        answer = self.client.get(self.path(plural), params=query)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def names(self, plural: str, **query: str) -> list[str]:
        return [
            one["metadata"]["name"]
            for one in self.listed(plural, **query)["items"]
            if "kube-root" not in one["metadata"]["name"]
        ]

    @contextlib.contextmanager
    def watch(self, plural: str, **query: str) -> Iterator[Iterator[tuple[str, dict[str, Any]]]]:
        with self.client.stream("GET", self.path(plural), params={"watch": "true", **query}) as answer:
            assert answer.status_code == 200
            yield ((event["type"], event["object"]) for event in map(json.loads, answer.iter_lines()))


@pytest.fixture(params=["memory", pytest.param("real", marks=pytest.mark.kube)])
def api(request: pytest.FixtureRequest) -> Iterator[Api]:
    if request.param == "real":
        yield Api(request.getfixturevalue("kube"), request.getfixturevalue("namespace"))
        return
    with served() as (url, _), httpx.Client(base_url=url, trust_env=False) as client:
        client.post("/api/v1/namespaces", json={"metadata": {"name": "here"}}).raise_for_status()
        yield Api(client, "here")


def config(name: str, **labels: str) -> dict[str, Any]:
    return {"metadata": {"name": name, "labels": labels}, "data": {"a": "1"}}


def pod(name: str, *, node: str | None = "nowhere", **spec: Any) -> dict[str, Any]:
    containers = [{"name": "one", "image": "https://h.example/one.zip", "env": [{"name": "A", "value": "1"}]}]
    return {
        "metadata": {"name": name},
        "spec": {"containers": containers, **({"nodeName": node} if node else {}), **spec},
    }


def condition(kind: str, status: str) -> dict[str, str]:
    return {"type": kind, "status": status}


def states(found: dict[str, Any]) -> dict[str, str]:
    return {one["type"]: one["status"] for one in found["status"].get("conditions", [])}


# --- making, reading, changing


def test_an_object_gets_an_identity_and_a_version_and_its_name_is_taken(api):
    made = api.create("configmaps", config("a"))

    assert made["metadata"].keys() >= {"uid", "resourceVersion", "creationTimestamp", "namespace"}
    assert api.client.get(api.path("configmaps", "a")).json()["metadata"]["uid"] == made["metadata"]["uid"]
    again = api.client.post(api.path("configmaps"), json=config("a"))
    assert (again.status_code, again.json()["reason"]) == (409, "AlreadyExists")


def test_an_absent_object_and_an_absent_namespace_are_not_found(api):
    for answer in (
        api.client.get(api.path("configmaps", "absent")),
        api.client.delete(api.path("configmaps", "absent")),
        api.patch(api.path("configmaps", "absent"), MERGE, {"data": {}}),
        api.client.post("/api/v1/namespaces/absent/configmaps", json=config("a")),
    ):
        status = answer.json()
        assert (answer.status_code, status["kind"], status["reason"]) == (404, "Status", "NotFound")


def test_a_generated_name_begins_as_asked(api):
    made = api.create("configmaps", {"metadata": {"generateName": "part-"}})

    assert made["metadata"]["name"].startswith("part-")
    assert len(made["metadata"]["name"]) > len("part-")


@pytest.mark.parametrize("metadata", [{"name": "a", "labels": {"version": "1.0+build"}}, {"name": "a b"}])
def test_names_and_labels_of_other_characters_are_invalid(api, metadata):
    answer = api.client.post(api.path("configmaps"), json={"metadata": metadata})

    assert (answer.status_code, answer.json()["reason"]) == (422, "Invalid")


def test_an_update_over_a_version_that_has_passed_is_a_conflict(api):
    old = api.create("configmaps", config("a"))
    new = {**old, "data": {"a": "2"}}
    assert api.client.put(api.path("configmaps", "a"), json=new).status_code == 200

    answer = api.client.put(api.path("configmaps", "a"), json=new)
    assert (answer.status_code, answer.json()["reason"]) == (409, "Conflict")
    patched = api.patch(
        api.path("configmaps", "a"), MERGE, {"metadata": {"resourceVersion": old["metadata"]["resourceVersion"]}}
    )
    assert patched.status_code == 409
    del new["metadata"]["resourceVersion"]
    assert api.client.put(api.path("configmaps", "a"), json={**new, "data": {"a": "3"}}).json()["data"] == {"a": "3"}


def test_a_change_that_changes_nothing_leaves_the_version(api):
    made = api.create("configmaps", config("a"))

    same = api.patch(api.path("configmaps", "a"), MERGE, {"data": {"a": "1"}}).json()
    other = api.patch(api.path("configmaps", "a"), MERGE, {"data": {"a": None, "b": "2"}}).json()

    assert same["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]
    assert other["metadata"]["resourceVersion"] != made["metadata"]["resourceVersion"]
    assert other["data"] == {"b": "2"}


def test_an_update_of_another_object_is_a_conflict_and_a_patch_of_another_one_invalid(api):
    made = api.create("configmaps", config("a"))
    path = api.path("configmaps", "a")
    other = {"metadata": {**made["metadata"], "uid": "other"}}

    put = api.client.put(path, json={**made, **other})
    patched = api.patch(path, MERGE, {"metadata": {"uid": "other"}, "data": {"a": "2"}})

    assert (put.status_code, put.json()["reason"]) == (409, "Conflict")
    assert (patched.status_code, patched.json()["reason"]) == (422, "Invalid")
    assert {cause["field"] for cause in patched.json()["details"]["causes"]} == {"metadata.uid"}
    assert api.client.get(path).json()["data"] == {"a": "1"}


def test_a_json_patch_tests_before_it_changes(api):
    api.create("configmaps", config("a", a="1"))
    path = api.path("configmaps", "a")

    refused = api.patch(path, JSON_PATCH, [{"op": "test", "path": "/data/a", "value": "2"}])
    done = api.patch(
        path,
        JSON_PATCH,
        [{"op": "test", "path": "/data/a", "value": "1"}, {"op": "add", "path": "/metadata/labels/b~1c", "value": "3"}],
    )

    assert refused.status_code == 422
    assert done.json()["metadata"]["labels"] == {"a": "1", "b/c": "3"}


def test_server_side_apply_makes_and_changes(api):
    path = api.path("configmaps", "a")
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"a": "1"}}

    made = api.patch(path, APPLY, body, fieldManager="tests")
    changed = api.patch(path, APPLY, {**body, "data": {"a": "2"}}, fieldManager="tests")

    assert (made.status_code, changed.status_code) == (201, 200)
    assert changed.json()["data"] == {"a": "2"}


def test_a_patch_of_an_unknown_kind_is_refused(api):
    api.create("configmaps", config("a"))

    assert api.patch(api.path("configmaps", "a"), "text/plain", {}).status_code == 415


# --- pods, nodes, leases, deployments


def test_a_new_pod_is_pending_and_its_status_is_changed_apart(api):
    made = api.create("pods", {**pod("a"), "status": {"phase": "Running"}})
    assert made["status"]["phase"] == "Pending"
    assert made["spec"]["terminationGracePeriodSeconds"] == 30

    api.patch(api.path("pods", "a"), MERGE, {"status": {"phase": "Running"}, "metadata": {"labels": {"x": "y"}}})
    found = api.client.get(api.path("pods", "a")).json()
    assert (found["status"]["phase"], found["metadata"]["labels"]) == ("Pending", {"x": "y"})

    api.patch(api.path("pods", "a", "status"), MERGE, {"status": {"phase": "Running"}, "spec": {"nodeName": "other"}})
    found = api.client.get(api.path("pods", "a")).json()
    assert (found["status"]["phase"], found["spec"]["nodeName"]) == ("Running", "nowhere")


def test_a_strategic_merge_joins_conditions_and_a_merge_replaces_them(api):
    api.create("pods", pod("a"))
    path = api.path("pods", "a", "status")

    api.patch(path, STRATEGIC, {"status": {"conditions": [condition("Ready", "False")]}})
    joined = api.patch(path, STRATEGIC, {"status": {"conditions": [condition("ContainersReady", "True")]}}).json()
    assert {"Ready", "ContainersReady"} <= states(joined).keys()

    changed = api.patch(path, STRATEGIC, {"status": {"conditions": [condition("Ready", "True")]}}).json()
    assert states(changed) == {**states(joined), "Ready": "True"}

    replaced = api.patch(path, MERGE, {"status": {"conditions": [condition("Ready", "False")]}}).json()
    assert states(replaced) == {"Ready": "False"}


def test_of_the_spec_of_a_pod_only_images_change(api):
    api.create("pods", pod("a"))
    path = api.path("pods", "a")

    image = api.patch(path, STRATEGIC, {"spec": {"containers": [{"name": "one", "image": "other"}]}})
    env = api.patch(path, STRATEGIC, {"spec": {"containers": [{"name": "one", "env": [{"name": "B", "value": "2"}]}]}})

    assert image.json()["spec"]["containers"][0]["image"] == "other"
    assert image.json()["spec"]["containers"][0]["env"] == [{"name": "A", "value": "1"}]
    assert (env.status_code, env.json()["reason"]) == (422, "Invalid")


def test_a_gate_of_a_pod_is_opened_and_none_is_added(api):
    gates = [{"name": "example.com/a"}, {"name": "example.com/b"}]
    api.create("pods", pod("a", node=None, schedulingGates=gates))
    path = api.path("pods", "a")

    for _ in range(2):
        opened = api.patch(
            path, STRATEGIC, {"spec": {"schedulingGates": [{"name": "example.com/a", "$patch": "delete"}]}}
        )
        assert opened.json()["spec"]["schedulingGates"] == gates[1:]
    added = api.patch(path, STRATEGIC, {"spec": {"schedulingGates": gates}})

    assert (added.status_code, added.json()["reason"]) == (422, "Invalid")


def test_a_pod_is_bound_once(api):
    api.create("pods", pod("a", node=None, schedulerName="nobody"))
    binding = {"metadata": {"name": "a"}, "target": {"kind": "Node", "name": "nowhere"}}

    first = api.client.post(api.path("pods", "a", "binding"), json=binding)
    second = api.client.post(api.path("pods", "a", "binding"), json=binding)

    found = api.client.get(api.path("pods", "a")).json()
    assert (first.status_code, second.status_code) == (201, 409)
    assert (found["spec"]["nodeName"], states(found)["PodScheduled"]) == ("nowhere", "True")


def test_a_node_keeps_the_status_it_comes_with(api):
    name = f"vnode.{api.namespace}.dev"
    node = {
        "metadata": {"name": name, "labels": {"of": api.namespace}},
        "spec": {"taints": [{"key": "a", "value": "b", "effect": "NoExecute"}]},
        "status": {"capacity": {"pods": "7"}, "conditions": [condition("Ready", "True")]},
    }
    made = api.client.post("/api/v1/nodes", json=node)
    try:
        assert made.status_code == 201
        assert made.json()["status"]["capacity"] == {"pods": "7"}
        beat = {"status": {"conditions": [condition("MemoryPressure", "False")]}}
        patched = api.patch(f"/api/v1/nodes/{name}/status", STRATEGIC, beat).json()
        assert states(patched) == {"Ready": "True", "MemoryPressure": "False"}
        listed = api.client.get("/api/v1/nodes", params={"labelSelector": f"of={api.namespace}"}).json()
        assert [one["metadata"]["name"] for one in listed["items"]] == [name]
    finally:
        assert api.client.delete(f"/api/v1/nodes/{name}").status_code == 200
    assert api.client.get(f"/api/v1/nodes/{name}").status_code == 404


def test_a_lease_changes_hands_once(api):
    spec = {"holderIdentity": "a", "leaseDurationSeconds": 40, "renewTime": "2026-01-01T00:00:00.000000Z"}
    made = api.create("leases", {"metadata": {"name": "x"}, "spec": spec}, group="coordination.k8s.io")
    path = api.path("leases", "x", group="coordination.k8s.io")

    won = api.client.put(path, json={**made, "spec": {**spec, "holderIdentity": "b"}})
    lost = api.client.put(path, json={**made, "spec": {**spec, "holderIdentity": "c"}})

    assert (won.status_code, lost.status_code) == (200, 409)
    assert api.client.get(path).json()["spec"]["holderIdentity"] == "b"


def test_the_generation_counts_changes_of_the_spec(api):
    template = {"metadata": {"labels": {"m": "a"}}, "spec": {"containers": [{"name": "a", "image": "i"}]}}
    spec = {"replicas": 0, "paused": True, "selector": {"matchLabels": {"m": "a"}}, "template": template}
    made = api.create("deployments", {"metadata": {"name": "a"}, "spec": spec}, group="apps")
    path = api.path("deployments", "a", group="apps")

    labelled = api.patch(path, MERGE, {"metadata": {"labels": {"x": "y"}}}).json()
    scaled = api.patch(path, MERGE, {"spec": {"replicas": 1}}).json()

    assert [one["metadata"]["generation"] for one in (made, labelled, scaled)] == [1, 1, 2]


# --- deleting


def test_a_deleted_object_is_gone_if_it_is_still_the_one_that_is_meant(api):
    made = api.create("configmaps", config("a"))
    path = api.path("configmaps", "a")

    other = api.client.request("DELETE", path, json={"preconditions": {"uid": "other"}})
    assert (other.status_code, other.json()["reason"]) == (409, "Conflict")
    meant = api.client.request("DELETE", path, json={"preconditions": {"uid": made["metadata"]["uid"]}})
    assert meant.status_code == 200
    assert api.client.get(path).status_code == 404


def test_a_pod_on_a_node_has_its_time_and_is_gone_at_once_with_none(api):
    api.create("pods", pod("a"))
    path = api.path("pods", "a")

    assert api.client.delete(path).status_code == 200
    leaving = api.client.get(path).json()["metadata"]
    assert (leaving["deletionGracePeriodSeconds"], "deletionTimestamp" in leaving) == (30, True)

    assert api.client.request("DELETE", path, json={"gracePeriodSeconds": 0}).status_code == 200
    assert api.client.get(path).status_code == 404


def test_a_pod_without_a_node_is_gone_at_once(api):
    api.create("pods", pod("a", node=None, schedulerName="nobody"))

    assert api.client.delete(api.path("pods", "a")).status_code == 200
    assert api.client.get(api.path("pods", "a")).status_code == 404


def test_a_finalizer_is_waited_for(api):
    api.create("configmaps", {"metadata": {"name": "a", "finalizers": ["tests.example/held"]}})
    path = api.path("configmaps", "a")

    assert api.client.delete(path).status_code == 200
    assert "deletionTimestamp" in api.client.get(path).json()["metadata"]
    assert api.patch(path, MERGE, {"metadata": {"finalizers": None}}).status_code == 200
    assert api.client.get(path).status_code == 404


# --- lists


def test_selectors_choose(api):
    api.create("configmaps", config("a", app="shop", tier="front"))
    api.create("configmaps", config("b", app="shop"))
    api.create("configmaps", config("c", app="blog"))

    assert api.names("configmaps", labelSelector="app=shop,tier") == ["a"]
    assert api.names("configmaps", labelSelector="app in (shop, blog),!tier") == ["b", "c"]
    assert api.names("configmaps", labelSelector="app notin (shop)") == ["c"]
    assert api.names("configmaps", labelSelector="app!=blog") == ["a", "b"]
    assert api.names("configmaps", fieldSelector="metadata.name=b") == ["b"]
    unknown = api.client.get(api.path("configmaps"), params={"fieldSelector": "data.a=1"})
    assert (unknown.status_code, unknown.json()["reason"]) == (400, "BadRequest")


def test_pods_are_chosen_by_their_node(api):
    api.create("pods", pod("a", node="one"))
    api.create("pods", pod("b", node="two"))

    assert api.names("pods", fieldSelector="spec.nodeName=two") == ["b"]
    assert api.names("pods", fieldSelector="spec.nodeName!=two,status.phase=Pending") == ["a"]


def test_pages_follow_each_other_without_what_came_meanwhile(api):
    for name in ("a", "b", "c", "d"):
        api.create("configmaps", config(name, of="pages"))

    first = api.listed("configmaps", labelSelector="of=pages", limit="3")
    api.create("configmaps", config("dd", of="pages"))
    last = api.listed("configmaps", labelSelector="of=pages", limit="3", **{"continue": first["metadata"]["continue"]})

    assert [one["metadata"]["name"] for one in first["items"] + last["items"]] == ["a", "b", "c", "d"]
    assert last["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]
    assert not last["metadata"].get("continue")


# --- watches


def test_a_watch_tells_what_came_after_a_version(api):
    api.create("configmaps", config("a", of="watch"))
    version = api.listed("configmaps")["metadata"]["resourceVersion"]
    with api.watch("configmaps", resourceVersion=version, labelSelector="of=watch") as events:
        api.create("configmaps", config("other"))
        api.create("configmaps", config("b", of="watch"))
        api.patch(api.path("configmaps", "a"), MERGE, {"data": {"a": "2"}})
        api.client.delete(api.path("configmaps", "b"))
        seen = [(kind, found["metadata"]["name"]) for kind, found in (next(events) for _ in range(3))]

    assert seen == [("ADDED", "b"), ("MODIFIED", "a"), ("DELETED", "b")]


def test_for_a_watch_an_object_is_gone_that_its_selector_finds_no_more(api):
    version = api.listed("configmaps")["metadata"]["resourceVersion"]
    with api.watch("configmaps", resourceVersion=version, labelSelector="of=watch") as events:
        api.create("configmaps", config("a", of="other"))
        for of in ("watch", "other"):
            changed = api.patch(api.path("configmaps", "a"), MERGE, {"metadata": {"labels": {"of": of}}}).json()
        seen = [next(events), next(events)]

    assert [kind for kind, _ in seen] == ["ADDED", "DELETED"]
    assert seen[1][1]["metadata"]["resourceVersion"] == changed["metadata"]["resourceVersion"]


def test_the_last_version_of_a_deleted_object_is_that_of_its_end(api):
    made = api.create("configmaps", config("a"))
    with api.watch("configmaps", resourceVersion=made["metadata"]["resourceVersion"]) as events:
        api.client.delete(api.path("configmaps", "a"))
        kind, last = next(events)

    assert kind == "DELETED"
    assert int(last["metadata"]["resourceVersion"]) > int(made["metadata"]["resourceVersion"])


def test_a_watch_without_a_version_begins_with_what_is_there(api):
    api.create("configmaps", config("a", of="watch"))
    with api.watch("configmaps", labelSelector="of=watch") as events:
        api.create("configmaps", config("b", of="watch"))
        seen = [found["metadata"]["name"] for _, found in (next(events), next(events))]

    assert seen == ["a", "b"]


def test_a_watch_ends_in_order_at_its_time(api):
    version = api.listed("configmaps")["metadata"]["resourceVersion"]

    with api.watch("configmaps", resourceVersion=version, timeoutSeconds="1") as events:
        assert [*events] == []


def test_a_bookmark_ends_what_is_there(api):
    made = api.create("configmaps", config("a", of="watch"))
    query = {"sendInitialEvents": "true", "resourceVersionMatch": "NotOlderThan", "allowWatchBookmarks": "true"}
    with api.watch("configmaps", labelSelector="of=watch", **query) as events:
        seen = [next(events), next(events)]

    assert [kind for kind, _ in seen] == ["ADDED", "BOOKMARK"]
    bookmark = seen[1][1]["metadata"]
    assert bookmark["annotations"] == {"k8s.io/initial-events-end": "true"}
    assert int(bookmark["resourceVersion"]) >= int(made["metadata"]["resourceVersion"])


def test_of_many_that_change_one_object_at_once_all_are_seen(api):
    made = api.create("configmaps", config("a"))
    with api.watch("configmaps", resourceVersion=made["metadata"]["resourceVersion"]) as events:
        changes = [
            threading.Thread(target=api.patch, args=(api.path("configmaps", "a"), MERGE, {"data": {str(index): "x"}}))
            for index in range(5)
        ]
        for change in changes:
            change.start()
        last = [next(events) for _ in changes][-1][1]
        for change in changes:
            change.join()

    assert last["data"].keys() == {"a", *map(str, range(5))}
