"""``arkctl kube status``: bases, Pods that are not ready, strays and controllers, from documents of the API server."""

from __future__ import annotations

import ast
import datetime as dt
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml  # type: ignore[import-untyped]
from tests.cli.test_pods import kubectl  # noqa: F401 - a fixture
from tests.state.conftest import make_module
from tests.test_docs import DOCS, kinds_of_errors, table_of

import koupleless
from koupleless.cli.kube.advice import ADVICE, advice_for
from koupleless.cli.kube.overview import Overview
from koupleless.cli.kube.tables import overview_text
from koupleless.controller.vnodes.base import AnnouncedBase, BaseState
from koupleless.controller.vnodes.liveness import Life
from koupleless.controller.vnodes.node import Capacity, node_of, node_status

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.cli.conftest import Outcome
    from tests.cli.test_pods import Kubectl

NOW = 1_800_000_000.0
PATHS = {
    "nodes": "/api/v1/nodes",
    "pods": "/api/v1/pods",
    "leases": "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases",
}


def before(seconds: float) -> str:
    return dt.datetime.fromtimestamp(NOW - seconds, dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def node(identity: str = "a", *, life: Life = Life.ALIVE, strays: str = "", env: str = "dev", **spec: Any) -> Any:
    """A Node as the controller writes one."""
    base = AnnouncedBase(identity, "shop", "1.0+b", "default", "10.0.0.7", "shop-0", 1238, BaseState.ACTIVATED)
    status = node_status(base, life, Capacity(), {}, now=NOW - 90, strays=strays)
    document = node_of(base, env)
    return {**document, "spec": {**document["spec"], **spec}, "status": status}


def lease(identity: str = "a", *, holder: str = "one", age_s: float = 3) -> Any:
    spec = {"holderIdentity": holder, "leaseDurationSeconds": 40, "renewTime": before(age_s)}
    return {"metadata": {"name": f"vnode.{identity}.dev"}, "spec": spec}


def pod(name: str = "orders-1", *, identity: str | None = "a", ready: bool = True, **members: Any) -> Any:
    """A Pod of the module orders:1; ``state`` is that of the container, ``metadata`` and ``status`` are added."""
    container = {"name": "orders", "env": [{"name": "BIZ_VERSION", "value": "1"}]}
    told = {"name": "orders", "ready": ready, "state": members.get("state", {})}
    conditions = [{"type": "Ready", "status": str(ready), "lastTransitionTime": before(30)}]
    spec = {"containers": [container], **({"nodeName": f"vnode.{identity}.dev"} if identity else {})}
    status = {"phase": "Running", "conditions": conditions, "containerStatuses": [told], **members.get("status", {})}
    metadata = {"name": name, "namespace": "shop", **members.get("metadata", {})}
    return {"metadata": metadata, "spec": {**spec, **members.get("spec", {})}, "status": status}


def seen(nodes: list[Any], pods: list[Any], leases: list[Any] | None = None, **chosen: Any) -> Overview:
    return Overview.of(nodes, pods, [lease()] if leases is None else leases, now=NOW, **chosen)


def test_a_ready_base_with_a_ready_module_is_well() -> None:
    found = seen([node()], [pod()])
    (base,) = found.bases
    assert (base.life, base.ready, base.wanted, base.controller, base.is_led) == ("ready", 1, 1, "one", True)
    assert (base.version, base.address, base.since_s) == ("1.0+b", "10.0.0.7:1238", 90)
    assert [(one.name, one.bases, one.renewed_s, one.is_alive) for one in found.controllers] == [("one", 1, 3, True)]
    assert found.is_well
    assert found.troubles == ()


@pytest.mark.parametrize(
    ("life", "word"), [(Life.SILENT, "silent"), (Life.DEAD, "gone"), (Life.ALIVE, "ready")]
)  # fmt: skip
def test_the_life_of_a_base_is_that_of_its_node(life: Life, word: str) -> None:
    found = seen([node(life=life)], [])
    assert found.bases[0].life == word
    assert found.is_well is (word == "ready")


@pytest.mark.parametrize("leases", [[], [lease(holder="")], [lease(age_s=41)]])
def test_a_base_that_nobody_leads_is_not_well(leases: list[Any]) -> None:
    found = seen([node()], [], leases)
    assert not found.bases[0].is_led
    assert not found.is_well
    assert [one.is_alive for one in found.controllers] in ([], [False])
    assert "none" in overview_text(found) or "one (lapsed)" in overview_text(found)


def test_a_controller_without_a_base_is_known_by_its_own_lease() -> None:
    labels = {"virtual-kubelet.koupleless.io/component": "controller-lease"}
    own = {**lease(holder="two", age_s=5), "metadata": {"name": "controller.two.dev", "labels": labels}}
    gone = {**lease(holder="three", age_s=90), "metadata": {"name": "controller.three.dev", "labels": labels}}
    found = seen([node()], [], [lease(), own, gone])
    assert [(one.name, one.bases, one.is_alive) for one in found.controllers] == [
        ("one", 1, True), ("three", 0, False), ("two", 0, True)
    ]  # fmt: skip
    assert found.is_well


def test_a_clock_behind_that_of_the_cluster_takes_no_lease_for_lapsed() -> None:
    found = seen([node()], [], [lease(age_s=-500)])
    assert found.bases[0].is_led
    assert "0s" in overview_text(found)


def test_strays_are_named_and_are_not_well() -> None:
    found = seen([node(strays="no Pod has orders:1 (UninstallFailed: busy)")], [])
    assert not found.is_well
    assert "vnode.a.dev: no Pod has orders:1 (UninstallFailed: busy)" in overview_text(found)


def test_a_cordoned_base_is_told_and_well() -> None:
    found = seen([node(unschedulable=True)], [])
    assert found.is_well
    assert "ready, cordoned" in overview_text(found)


def test_a_failed_module_is_told_with_the_words_of_the_module_and_advice() -> None:
    message = "Internal Error: biz orders:1 did not start: No module named 'pandas'\n" + "\n".join(map(str, range(9)))
    state = {"waiting": {"reason": "StartFailed", "message": message}}
    found = seen([node()], [pod(ready=False, state=state)])
    (trouble,) = found.troubles
    assert (trouble.pod, trouble.module, trouble.reason) == ("shop/orders-1", "orders:1", "StartFailed")
    assert trouble.since_s == 30
    assert "pandas is neither in the artefact nor in the base" in trouble.advice
    text = overview_text(found)
    assert (
        "shop/orders-1 on vnode.a.dev: orders:1: StartFailed, for 30s\n    biz orders:1 did not start: No mod" in text
    )
    assert "(4 more lines: kubectl describe pod)" in text
    assert (found.bases[0].ready, found.bases[0].wanted) == (0, 1)


def test_a_pod_without_a_node_is_told_with_the_words_of_the_scheduler() -> None:
    condition = {"type": "PodScheduled", "reason": "Unschedulable", "message": "0/1 nodes are available"}
    waiting = pod(identity=None, ready=False, status={"conditions": [condition]})
    fresh = pod("orders-2", identity=None, ready=False, status={"conditions": []})
    found = seen([node()], [waiting, fresh])
    assert [(one.reason, one.message) for one in found.troubles] == [
        ("Unschedulable", "0/1 nodes are available"), ("Pending", "")
    ]  # fmt: skip
    assert "nodeSelector" in found.troubles[0].advice


def test_a_pod_on_a_node_that_is_gone_is_told_although_its_status_says_ready() -> None:
    found = seen([node()], [pod(identity="b")])
    assert [one.reason for one in found.troubles] == ["NoBase"]


def test_a_pod_of_a_silent_base_and_one_without_a_status_are_told() -> None:
    silent = pod(ready=False, state={"running": {}})
    untold = pod("orders-2", ready=False, status={"containerStatuses": []})
    found = seen([node(life=Life.SILENT)], [silent, untold])
    assert [one.reason for one in found.troubles] == ["BaseSilent", "NotBegun"]


def test_only_a_pod_that_is_late_is_told_to_be_leaving() -> None:
    late = pod(metadata={"deletionTimestamp": before(61)}, ready=False)
    leaving = pod("orders-2", metadata={"deletionTimestamp": before(-20)}, ready=False)
    found = seen([node()], [late, leaving])
    assert [(one.pod, one.reason, one.since_s) for one in found.troubles] == [("shop/orders-1", "Leaving", 61)]
    assert found.bases[0].wanted == 0


def test_a_finished_job_is_no_trouble_and_a_failed_one_is() -> None:
    done = pod(ready=False, status={"phase": "Succeeded"})
    state = {"terminated": {"exitCode": 1, "reason": "StartFailed", "message": "no"}}
    broken = pod("orders-2", ready=False, state=state, status={"phase": "Failed"})
    found = seen([node()], [done, broken])
    assert [one.pod for one in found.troubles] == ["shop/orders-2"]
    assert found.bases[0].wanted == 0


def test_namespace_and_env_choose_pods() -> None:
    other = pod("other", ready=False, metadata={"namespace": "elsewhere"})
    selected = pod("selected", identity=None, spec={"nodeSelector": {"virtual-kubelet.koupleless.io/env": "dev"}})
    unbound = pod("unbound", identity=None)
    pods = [other, selected, unbound, pod("of-b", identity="b")]
    assert [one.pod for one in seen([node()], pods, namespace="elsewhere").troubles] == ["elsewhere/other"]
    assert [one.pod for one in seen([node()], pods, env="dev").troubles] == ["elsewhere/other", "shop/selected"]


def test_odd_documents_are_read() -> None:
    bare = {"metadata": {"name": "vnode.a.dev"}}
    odd = lease()
    odd["spec"] = {"renewTime": "yesterday", "holderIdentity": "one"}
    found = seen([bare], [], [odd])
    assert found.bases[0].life == "silent"
    assert "the controller has told nothing yet" in overview_text(found, is_wide=True)
    assert overview_text(seen([], [], [])).startswith("no bases; ")


def test_every_reason_of_a_failed_start_may_be_recognised_by_its_message() -> None:
    assert "web-context-path" in advice_for("InstallFailed", "path /orders is taken")
    assert advice_for("StartFailed", "boom") == ADVICE["StartFailed"]
    assert advice_for("VersionMissing", "No module named 'x'") == ADVICE["VersionMissing"]
    assert "BizMissingNow in the list of error codes" in advice_for("BizMissingNow", "")


# --- the command -----------------------------------------------------------------------------------------------------


@pytest.fixture
def cluster(kubectl: Kubectl) -> Callable[..., None]:  # noqa: F811 - the fixture
    """``cluster(nodes=[...], pods=[...], leases=[...])`` is the answer of the API server."""

    def has(**lists: list[Any]) -> None:
        for kind, path in PATHS.items():
            kubectl.has(path, {"metadata": {}, "items": lists.get(kind, [])})

    return has


def test_the_command_ends_with_1_unless_all_is_well(
    cluster: Callable[..., None], arkctl: Callable[..., Outcome]
) -> None:
    fresh = dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    held = lease()
    held["spec"]["renewTime"] = fresh
    cluster(nodes=[node()], pods=[pod()], leases=[held])
    done = arkctl("kube", "status")
    assert (done.status, done.err) == (0, "")
    assert done.out.splitlines()[0].split() == [
        "NODE",
        "BASE",
        "VERSION",
        "CLUSTER",
        "LIFE",
        "SINCE",
        "MODULES",
        "CONTROLLER",
    ]
    cluster(nodes=[node()], pods=[pod(ready=False)], leases=[held])
    assert arkctl("kube", "status").status == 1
    document = json.loads(arkctl("kube", "status", "-o", "json").out)
    assert document["isWell"] is False
    assert document["bases"][0]["wanted"] == 1
    assert document["troubles"][0].keys() >= {"pod", "reason", "message", "advice", "sinceSeconds"}


def test_the_command_asks_page_by_page_and_for_one_env(
    kubectl: Kubectl, cluster: Callable[..., None], arkctl: Callable[..., Outcome]  # noqa: F811
) -> None:  # fmt: skip
    cluster()
    component = "labelSelector=virtual-kubelet.koupleless.io%2Fcomponent+in+%28vnode%29"
    first = f"/api/v1/nodes?{component}%2Cvirtual-kubelet.koupleless.io%2Fenv%3Dprod&limit=500"
    kubectl.has(first, {"metadata": {"continue": "x y"}, "items": [node("a", env="prod")]})
    kubectl.has(f"{first}&continue=x+y", {"metadata": {}, "items": [node("b", env="prod")]})
    done = arkctl("kube", "status", "--env", "prod")
    assert [line.split()[0] for line in done.out.splitlines()[1:3]] == ["vnode.a.prod", "vnode.b.prod"]


def test_a_cluster_that_is_not_reached_is_told(
    kubectl: Kubectl, cluster: Callable[..., None], arkctl: Callable[..., Outcome]  # noqa: F811
) -> None:  # fmt: skip
    cluster()
    kubectl.has("/api/v1/pods", "The connection to the server localhost:8080 was refused")
    done = arkctl("kube", "status")
    assert done.status == 4
    assert "error: looking at the cluster: The connection to the server localhost:8080 was refused" in done.err


# --- the pages -------------------------------------------------------------------------------------------------------

SOURCE = Path(koupleless.__file__).parent / "controller"
NO_REASONS = {
    # Kinds and members of Kubernetes, and of bases, and conditions.
    *("ConfigMap", "InternalIP", "ContainersReady", "StrayModules", "DeleteOptions", "NoExecute", "OnFailure"),
    *("KeyT", "ValueT", "ReplicaSets", "EndpointSlices", "ClusterIP", "NodePort", "LoadBalancer"),
    # Conditions that are as they should be.
    *("BaseReady", "HasSufficientMemory", "HasNoDiskPressure", "HasSufficientPIDs", "RouteCreated", "EachModuleHasPod"),
    *("DiskPressure", "MemoryPressure", "NetworkUnavailable", "PIDPressure"),
    # The reason of a Job that has done its work, and that of a Pod, beside those of its containers.
    *("PodCompleted", "ContainersNotReady"),
    # Members of the end of a command by kubectl exec, which kubectl reads.
    *("ExitCode", "InternalError", "NonZeroExitCode"),
}
"""Words of two parts in the source of the controller that tell no trouble."""


TWO_PARTS = re.compile(r"[A-Z][a-z]+(?:[A-Z]+[a-z]*)+")


def kinds_in(tree: ast.AST) -> Iterator[object]:
    """The kinds of documents written in a source."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Dict):
            for key, value in zip(node.keys, node.values, strict=True):
                if isinstance(key, ast.Constant) and key.value == "kind" and isinstance(value, ast.Constant):
                    yield value.value


def test_every_reason_is_documented_with_its_advice() -> None:
    page = (DOCS / "kubernetes-operations.md").read_text("utf-8")
    table = table_of(page, "| reason | happened | do |")
    assert {reason: do.rstrip(".").lower() for reason, (_, do) in table.items()} == {
        reason: advice.lower() for reason, advice in ADVICE.items()
    }
    types = {kind.__name__ for kind in kinds_of_errors() if kind.source in {"Artifact", "Module"}}
    assert types <= table.keys()


def test_every_reason_and_event_in_the_source_of_the_controller_is_documented() -> None:
    reasons = table_of((DOCS / "kubernetes-operations.md").read_text("utf-8"), "| reason | happened | do |")
    rows = table_of((DOCS / "module-controller.md").read_text("utf-8"), "| Event or condition | happened | do |")
    events = {event for row in rows for event in re.findall(r"\w+", row)}
    words: set[str] = set()
    everything: set[object] = set()
    for file in SOURCE.rglob("*.py"):
        tree = ast.parse(file.read_text("utf-8"))
        texts = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)} - set(kinds_in(tree))
        everything |= texts
        words |= {text for text in texts if isinstance(text, str) and TWO_PARTS.fullmatch(text)}
    assert {"ModuleInstallFailed", "VersionMissing"} <= words
    missing = words - NO_REASONS - reasons.keys() - events
    assert not missing, "reasons belong to a table of a page (and to `ADVICE`), other words to NO_REASONS"
    assert events <= everything


# --- workloads -------------------------------------------------------------------------------------------------------


def manifest(arkctl: Callable[..., Outcome], directory: Path, identity: str = "orders:1.0", *options: str) -> Any:
    done = arkctl("kube", "manifest", make_module(directory, identity), "--base", "shop", *options)
    assert done.status == 0, done.err
    assert "&" not in done.out  # people edit the file
    return yaml.safe_load(done.out)


def test_the_manifest_of_an_artefact_is_a_deployment_that_updates_without_a_gap(
    arkctl: Callable[..., Outcome], tmp_path: Path
) -> None:
    document = manifest(arkctl, tmp_path, "orders:1.0", "--replicas", "3", "--select", "ring=1", "--env", "prod")
    spec = document["spec"]
    pod = spec["template"]["spec"]
    assert (document["kind"], document["metadata"]["name"], spec["replicas"]) == ("Deployment", "orders", 3)
    assert spec["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
    assert pod["nodeSelector"] == {
        "virtual-kubelet.koupleless.io/env": "prod",
        "base.koupleless.io/name": "shop",
        "ring": "1",
    }
    (one,) = pod["containers"]
    assert one["image"] == (tmp_path / "orders-1.0-ark-biz.zip").as_uri()
    assert one["env"] == [{"name": "BIZ_VERSION", "value": "1.0"}]
    labels = spec["template"]["metadata"]["labels"]
    assert spec["selector"]["matchLabels"].items() <= labels.items()
    apart = pod["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"][0]
    assert apart["labelSelector"]["matchLabels"].items() <= labels.items()


@pytest.mark.parametrize(("name", "label"), [("Order_Items", "order-items"), ("a.b", "a-b"), ("x" * 80, "x" * 63)])
def test_a_name_that_no_container_may_have_goes_into_a_variable(
    arkctl: Callable[..., Outcome], tmp_path: Path, name: str, label: str
) -> None:
    document = manifest(arkctl, tmp_path, f"{name}:1")
    (one,) = document["spec"]["template"]["spec"]["containers"]
    assert (one["name"], document["metadata"]["name"]) == (label, label)
    assert one["env"] == [{"name": "BIZ_NAME", "value": name}, {"name": "BIZ_VERSION", "value": "1"}]


def test_a_manifest_for_every_base_is_a_daemon_set(arkctl: Callable[..., Outcome], tmp_path: Path) -> None:
    document = manifest(
        arkctl, tmp_path, "orders:1", "--everywhere", "--base-version", "1.0+b", "--image", "https://x/o.zip"
    )
    assert document["kind"] == "DaemonSet"
    assert "replicas" not in document["spec"]
    pod = document["spec"]["template"]["spec"]
    assert pod["nodeSelector"]["base.koupleless.io/version"] == "1.0_b"  # as the Node has it
    assert pod["containers"][0]["image"] == "https://x/o.zip"
    assert document["spec"]["updateStrategy"] == {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}


def test_a_manifest_with_batches_has_their_gate_and_the_label_of_the_controller(
    arkctl: Callable[..., Outcome], tmp_path: Path
) -> None:
    options = ["--batches", "3", "--confirm", "--beta", "--service-port", "80", "--env", "prod"]
    document = manifest(arkctl, tmp_path, "orders:1", *options)
    assert document["metadata"]["labels"] == {"module": "orders", "virtual-kubelet.koupleless.io/env": "prod"}
    assert document["metadata"]["annotations"] == {
        "rollout.koupleless.io/batches": "3",
        "rollout.koupleless.io/beta": "true",
        "rollout.koupleless.io/confirm": "true",
        "service.koupleless.io/port": "80",
    }
    assert document["spec"]["template"]["spec"]["schedulingGates"] == [{"name": "rollout.koupleless.io/batch"}]
    alone = manifest(arkctl, tmp_path, "orders:1", "--service-port", "80")
    assert "schedulingGates" not in alone["spec"]["template"]["spec"]


@pytest.mark.parametrize("options", [["--batches", "2"], ["--beta"], ["--confirm"], ["--service-port", "80"]])
def test_a_daemon_set_has_neither_batches_nor_a_service(
    arkctl: Callable[..., Outcome], tmp_path: Path, options: list[str]
) -> None:
    artefact = make_module(tmp_path, "orders:1")
    done = arkctl("kube", "manifest", artefact, "--base", "shop", "--everywhere", *options)
    assert (done.status, "--everywhere" in done.err) == (2, True)


def test_the_example_is_as_the_command_writes_it(arkctl: Callable[..., Outcome], tmp_path: Path) -> None:
    example = yaml.safe_load((DOCS.parent / "examples" / "kubernetes" / "module.yaml").read_text("utf-8"))
    image = "https://repo.example/orders-1.0.0-ark-biz.zip"
    assert manifest(arkctl, tmp_path, "orders:1.0.0", "--image", image) == example


@pytest.mark.parametrize("labels", [["ring"], ["a=1", "a=2"]])
def test_labels_that_cannot_be_chosen_are_refused(
    arkctl: Callable[..., Outcome], tmp_path: Path, labels: list[str]
) -> None:
    options = [option for label in labels for option in ("--select", label)]
    artefact = make_module(tmp_path, "orders:1")
    assert arkctl("kube", "manifest", artefact, "--base", "shop", *options).status == 2
