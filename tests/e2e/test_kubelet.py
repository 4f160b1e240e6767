"""The kubelet's API on the real control plane, with a real base: ``kubectl logs``, ``port-forward``, figures."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import ssl
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from tests.certificates import Authority, Pair
from tests.conftest import free_port, lacks, until
from tests.e2e.test_controller import account_with_rights
from tests.kube.fixtures import programs
from tests.state.conftest import make_module

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.e2e.conftest import BaseProcess, Process
    from tests.kube.plane import Access

pytestmark = pytest.mark.kube

CODE = """
import logging, os
log = logging.getLogger("hello.orders")
log.setLevel("INFO")
log.info("starting")

def app(environ, start_response):
    log.info("asked for %s", environ["PATH_INFO"])
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [environ["PATH_INFO"].encode()]
"""


def kubectl_program() -> str:
    found = shutil.which("kubectl", path=f"{os.environ['PATH']}:{programs()}")
    if found is None:
        lacks("kubectl is not here; `scripts/kube build` builds it")
    return found


class Kubectl:
    """kubectl in one namespace."""

    def __init__(self, access: Access, namespace: str) -> None:
        self._command = [kubectl_program(), "--kubeconfig", access.kubeconfig, "-n", namespace]

    def __call__(self, *arguments: str, expects: int = 0, given: str | None = None) -> str:
        done = subprocess.run(
            [*self._command, *arguments], input=given, capture_output=True, text=True, check=False, timeout=60
        )
        assert done.returncode == expects, f"{arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout if not expects else done.stderr

    @contextlib.contextmanager
    def running(self, *arguments: str) -> Iterator[subprocess.Popen[str]]:
        command = [*self._command, *arguments]
        running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        try:
            yield running
        finally:
            running.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                running.wait(10)
            running.kill()
            running.wait()
            assert running.stdout is not None
            running.stdout.close()


@contextlib.contextmanager
def said_by(running: subprocess.Popen[str]) -> Iterator[list[str]]:
    """The lines of a program, as they come; all of them after the context, for a program that has ended."""
    lines: list[str] = []

    def read() -> None:
        assert running.stdout is not None
        for line in running.stdout:
            lines.append(line)  # noqa: PERF402 - seen one by one

    reading = threading.Thread(target=read)
    reading.start()
    yield lines
    reading.join(20)


def serving(access: Access, directory: Path) -> Pair:
    """A certificate of the authority of the control plane."""
    made = Authority.of(Path(access.authority), Path(access.authority_key), directory)
    return made.issue("kubelet-api", organization="system:nodes")


class Scene:
    """A controller with the kubelet's API, a base, and a Pod with the module ``hello``."""

    def __init__(  # noqa: PLR0917 - the parts of the scene
        self, kube: httpx.Client, namespace: str, base: BaseProcess, env: str, directory: Path, kubelet: str
    ) -> None:
        self.kube = kube
        self.kubelet = kubelet
        self.base = base
        self.env = env
        self._pods = f"/api/v1/namespaces/{namespace}/pods"
        self._directory = directory

    def node(self) -> dict[str, Any] | None:
        query = {"labelSelector": f"base.koupleless.io/name={self.env}"}
        found = self.kube.get("/api/v1/nodes", params=query).json()["items"]
        return found[0] if found else None

    def create(self, name: str, version: str = "1", *, code: str = CODE, ports: tuple[int, ...] = ()) -> None:
        url = make_module(self._directory, f"hello:{version}", code).as_uri()
        container = {
            "name": "hello",
            "image": url,
            "env": [{"name": "BIZ_VERSION", "value": version}],
            "ports": [{"containerPort": port} for port in ports],
        }
        labels = {"virtual-kubelet.koupleless.io/component": "module"}
        spec = {
            "containers": [container],
            "nodeSelector": {"base.koupleless.io/name": self.env},
            "tolerations": [{"operator": "Exists"}],
        }
        self.kube.post(self._pods, json={"metadata": {"name": name, "labels": labels}, "spec": spec}).raise_for_status()
        until(lambda: self.is_ready(name), otherwise=f"the Pod {name} is not ready")

    def is_ready(self, name: str) -> bool:
        status = self.kube.get(f"{self._pods}/{name}").json().get("status", {})
        return any(one["type"] == "Ready" and one["status"] == "True" for one in status.get("conditions", ()))

    def delete(self, name: str) -> None:
        self.kube.delete(f"{self._pods}/{name}").raise_for_status()


@pytest.fixture
def scene(  # noqa: PLR0917 - fixtures
    kube: httpx.Client,
    control_plane: Access,
    namespace: str,
    run_alone: Callable[..., Process],
    serve: Callable[..., BaseProcess],
    tmp_path: Path,
) -> Scene:
    env = f"e{time.monotonic_ns()}"
    config = tmp_path / "kubeconfig"
    token = account_with_rights(kube)
    config.write_text(json.dumps(control_plane.kubeconfig_of("controller", token)), encoding="utf-8")
    kubelet = free_port()
    pair = serving(control_plane, tmp_path)
    running = run_alone(
        lambda port: [
            *(sys.executable, "-P", "-m", "koupleless", "controller", "--kubeconfig", str(config)),
            *("--env", env, "--port", str(port), "--probes-port", str(free_port()), "--name", "controller-0"),
            *("--kubelet", "--kubelet-address", "127.0.0.1", "--kubelet-port", str(kubelet)),
            *("--kubelet-certfile", str(pair.certificate), "--kubelet-keyfile", str(pair.key)),
        ],
        tmp_path,
    )
    base = serve("--name", env, "--controller", running.url, "--ephemeral", cwd=tmp_path)
    made = Scene(kube, namespace, base, env, tmp_path, f"https://127.0.0.1:{kubelet}")
    until(made.node, otherwise="the base is no Node")
    return made


def test_kubectl_shows_and_follows_the_log_of_one_pod(scene: Scene, control_plane: Access, namespace: str) -> None:
    kubectl = Kubectl(control_plane, namespace)
    scene.create("one")
    assert "hello.orders: starting" in kubectl("logs", "one")
    httpx.get(f"{scene.base.url}/hello/first", trust_env=False).raise_for_status()
    whole = kubectl("logs", "one", "-c", "hello")
    assert "asked for" in whole
    assert kubectl("logs", "one", "--tail", "1") == whole.splitlines(keepends=True)[-1]
    stamped = kubectl("logs", "one", "--timestamps", "--tail", "1")
    assert stamped.split("T")[0].count("-") == 2
    assert stamped.split(" ", 1)[0].endswith("Z")
    assert kubectl("logs", "one", "--limit-bytes", "7") == whole[:7]
    assert kubectl("logs", "one", "--since", "1h") == whole
    assert kubectl("logs", "one", "--since-time", "2999-01-01T00:00:00Z") == ""
    assert "previous terminated container 'hello'" in kubectl("logs", "one", "--previous", expects=1)
    with kubectl.running("logs", "-f", "--tail", "0", "one") as following:
        with said_by(following) as lines, httpx.Client(trust_env=False) as client:
            until(lambda: client.get(f"{scene.base.url}/hello/next").is_success and lines)
            assert "hello:1" in lines[0]
            scene.delete("one")
            assert following.wait(20) == 0
        assert "uninstalled" in lines[-1]


def test_kubectl_forwards_a_declared_port(scene: Scene, control_plane: Access, namespace: str) -> None:
    kubectl = Kubectl(control_plane, namespace)
    port = httpx.URL(scene.base.url).port
    assert port is not None
    scene.create("one", ports=(port,))
    mine = free_port()
    with (
        kubectl.running("port-forward", "pod/one", f"{mine}:{port}") as forwarding,
        httpx.Client(trust_env=False) as client,
    ):
        assert forwarding.stdout is not None
        assert "Forwarding from" in forwarding.stdout.readline()
        for number in range(20):
            assert client.get(f"http://127.0.0.1:{mine}/hello/{number}").text == f"/{number}"


def test_figures_and_pods_are_there_for_a_token_of_the_cluster(scene: Scene, control_plane: Access) -> None:
    scene.create("one")
    headers = {"Authorization": f"Bearer {control_plane.tokens['admin']}"}
    trusted = ssl.create_default_context(cafile=control_plane.authority)
    with httpx.Client(base_url=scene.kubelet, verify=trusted, trust_env=False) as client:
        text = client.get("/metrics/resource", headers=headers).text
        assert 'container_memory_working_set_bytes{container="hello",namespace=' in text
        assert "node_cpu_usage_seconds_total" in text
        assert "resource_scrape_error 0" in text
        assert client.get("/stats/summary", headers=headers).json()["pods"][0]["podRef"]["name"] == "one"
        assert client.get("/pods", headers=headers).json()["items"][0]["metadata"]["name"] == "one"
        stranger = {"Authorization": f"Bearer {control_plane.tokens['stranger']}"}
        assert client.get("/metrics/resource", headers=stranger).status_code == 403
        assert client.get("/metrics/resource").status_code == 401
