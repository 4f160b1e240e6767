"""``arkctl controller`` on the real control plane, with a real base: a Deployment, its update under load, its end."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import httpx
import pytest
import yaml  # type: ignore[import-untyped]
from tests.conftest import free_port, until
from tests.state.conftest import make_module

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.e2e.conftest import BaseProcess, Process
    from tests.kube.plane import Access
    from tests.mqtt.broker import Broker

EXAMPLES = Path(__file__).parents[2] / "examples" / "kubernetes"
MERGE = {"Content-Type": "application/merge-patch+json"}


class Cluster:
    """A namespace of the control plane, with a Deployment of one module."""

    def __init__(self, kube: httpx.Client, namespace: str) -> None:
        self.kube = kube
        self.deployments = f"/apis/apps/v1/namespaces/{namespace}/deployments"
        self.pods = f"/api/v1/namespaces/{namespace}/pods"

    def deploy(self, url: str, version: str, base: str) -> None:
        container = {"name": "hello", "image": url, "env": [{"name": "BIZ_VERSION", "value": version}]}
        labels = {"module": "hello", "virtual-kubelet.koupleless.io/component": "module"}
        spec = {
            "containers": [container],
            "nodeSelector": {"base.koupleless.io/name": base},
            "tolerations": [{"operator": "Exists"}],
            "schedulingGates": [{"name": "rollout.koupleless.io/batch"}],
        }
        labelled = {"virtual-kubelet.koupleless.io/env": base}
        body = {
            "metadata": {"name": "hello", "labels": labelled, "annotations": {"service.koupleless.io/port": "80"}},
            "spec": {
                "selector": {"matchLabels": {"module": "hello"}},
                "template": {"metadata": {"labels": labels}, "spec": spec},
            },
        }
        self.kube.post(self.deployments, json=body).raise_for_status()

    def update(self, url: str, version: str) -> None:
        container = {"name": "hello", "image": url, "env": [{"name": "BIZ_VERSION", "value": version}]}
        change = {"spec": {"template": {"spec": {"containers": [container]}}}}
        content = json.dumps(change)
        self.kube.patch(f"{self.deployments}/hello", content=content, headers=MERGE).raise_for_status()

    def is_rolled_out(self) -> bool:
        deployment = self.kube.get(f"{self.deployments}/hello").json()
        status = deployment["status"]
        return bool(
            status.get("observedGeneration") == deployment["metadata"]["generation"]
            and status.get("updatedReplicas") == status.get("availableReplicas") == status.get("replicas") == 1
        )

    def end(self) -> None:
        self.kube.delete(f"{self.deployments}/hello").raise_for_status()
        until(lambda: not self.kube.get(self.pods).json()["items"], otherwise="Pods of the Deployment stay")


RIGHTS = {
    "Namespace": "/api/v1/namespaces",
    "ServiceAccount": "/api/v1/namespaces/{namespace}/serviceaccounts",
    "ClusterRole": "/apis/rbac.authorization.k8s.io/v1/clusterroles",
    "ClusterRoleBinding": "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
    "Role": "/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}/roles",
    "RoleBinding": "/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}/rolebindings",
}


def account_with_rights(kube: httpx.Client) -> str:
    """Make the service account of the example, with its rights and no others, and return a token for it."""
    for document in yaml.safe_load_all((EXAMPLES / "controller.yaml").read_text(encoding="utf-8")):
        if document["kind"] in RIGHTS:
            path = RIGHTS[document["kind"]].format(namespace=document["metadata"].get("namespace"))
            made = kube.post(path, json=document)
            assert made.status_code in {201, 409}, made.text
    wanted = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
    token = kube.post("/api/v1/namespaces/koupleless/serviceaccounts/controller/token", json=wanted)
    return str(token.raise_for_status().json()["status"]["token"])


@pytest.fixture
def controller(
    kube: httpx.Client, control_plane: Access, run_alone: Callable[..., Process], tmp_path: Path
) -> Callable[..., Process]:
    """``controller("env")`` starts ``arkctl controller`` with the rights of the example.

    The port is for heartbeats; with options for a broker instead, for probes.
    """
    token = account_with_rights(kube)
    config = tmp_path / "kubeconfig"
    config.write_text(json.dumps(control_plane.kubeconfig_of("controller", token)), encoding="utf-8")

    def start(env: str, *options: str) -> Process:
        return run_alone(
            lambda port: [
                *(sys.executable, "-P", "-m", "koupleless", "controller", "--kubeconfig", str(config)),
                *("--env", env, "--name", "controller-0", *options),
                *(() if options else ("--port", str(port))),
                *("--probes-port", str(port if options else free_port())),
            ],
            tmp_path,
        )

    return start


class Load:
    """Requests to one address, one after the other, until the end of the context."""

    def __init__(self, url: str) -> None:
        self.answers: Counter[str] = Counter()
        self._url = url
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        with httpx.Client(verify=False, trust_env=False, timeout=10) as client:
            while not self._ends.is_set():
                answer = client.get(self._url)
                self.answers[answer.text if answer.is_success else f"HTTP {answer.status_code}"] += 1

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.set()
        self._thread.join()


def behind(broker: Broker, env: str, directory: Path) -> list[str]:
    """Let the base of a directory speak through a broker, and return the options of a controller there."""
    settings = f"environment = {env!r}\nmqtt.broker = {broker.host!r}\nmqtt.port = {broker.port}\n"
    (directory / "koupleless.toml").write_text(f"[base.arklet]\n{settings}")
    return ["--no-http-tunnel", "--mqtt-broker", broker.host, "--mqtt-port", str(broker.port)]


def versions(base: BaseProcess) -> list[str]:
    return [biz["bizVersion"] for biz in base.ask("queryAllBiz") if biz["bizName"] == "hello"]


@pytest.mark.kube
@pytest.mark.parametrize("tunnel", ["http", "mqtt"])
def test_a_deployment_runs_in_a_base_and_is_updated_without_a_lost_request(
    kube: httpx.Client,
    namespace: str,
    controller: Callable[..., Process],
    serve: Callable[..., BaseProcess],
    tmp_path: Path,
    *,
    broker: Broker,
    tunnel: str,
) -> None:
    env = f"e{time.monotonic_ns()}"
    urls = {version: make_module(tmp_path, f"hello:{version}").as_uri() for version in ("1", "2")}
    if tunnel == "http":
        running = controller(env)
        base = serve("--name", env, "--controller", running.url, "--ephemeral", cwd=tmp_path)
    else:
        running = controller(env, *behind(broker, env, tmp_path))
        base = serve("--name", env, "--ephemeral", cwd=tmp_path)
    cluster = Cluster(kube, namespace)

    def node() -> dict[str, Any] | None:
        found = kube.get("/api/v1/nodes", params={"labelSelector": f"base.koupleless.io/name={env}"}).json()["items"]
        return found[0] if found else None

    until(node, otherwise="the base is no Node")
    found = node()
    assert found is not None
    assert found["metadata"]["annotations"]["base.koupleless.io/tunnel"] == tunnel
    cluster.deploy(urls["1"], "1", env)
    until(cluster.is_rolled_out, otherwise="the Deployment is not there")
    with Load(f"{base.url}/hello/") as load:
        until(lambda: load.answers["hello:1"] > 10)
        cluster.update(urls["2"], "2")
        until(cluster.is_rolled_out, otherwise="the Deployment is not updated")
        until(lambda: load.answers["hello:2"] > 10)
    assert load.answers.keys() == {"hello:1", "hello:2"}
    until(lambda: versions(base) == ["2"], otherwise="the former version does not leave")
    cluster.end()
    assert versions(base) == []
    base.end()
    until(lambda: node() is None, otherwise="the Node of a base that has ended stays")
    assert running.end() == 0


@pytest.mark.kube
def test_over_mqtt_an_update_survives_a_broker_that_is_away_and_a_killed_controller(
    kube: httpx.Client,
    namespace: str,
    controller: Callable[..., Process],
    serve: Callable[..., BaseProcess],
    tmp_path: Path,
    *,
    broker: Broker,
) -> None:
    env = f"e{time.monotonic_ns()}"
    urls = {version: make_module(tmp_path, f"hello:{version}").as_uri() for version in ("1", "2")}
    options = behind(broker, env, tmp_path)
    killed = controller(env, *options)
    base = serve("--name", env, "--ephemeral", cwd=tmp_path)
    cluster = Cluster(kube, namespace)
    cluster.deploy(urls["1"], "1", env)
    until(cluster.is_rolled_out, otherwise="the Deployment is not there")
    with Load(f"{base.url}/hello/") as load:
        broker.stop()
        cluster.update(urls["2"], "2")
        killed.popen.kill()
        running = controller(env, *options)
        assert versions(base) == ["1"]
        broker.start()
        until(cluster.is_rolled_out, otherwise="the Deployment is not updated")
        until(lambda: load.answers["hello:2"] > 10)
    assert load.answers.keys() == {"hello:1", "hello:2"}
    until(lambda: versions(base) == ["2"], otherwise="the former version does not leave")
    cluster.end()
    assert running.end() == 0
