"""The kubelet's API on the real control plane, with a real base: ``kubectl logs``, ``port-forward``, ``exec``."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import pty
import select
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from cryptography import x509
from tests.conftest import free_port, lacks, until
from tests.e2e.test_controller import account_with_rights
from tests.kube.fixtures import namespace_of, programs
from tests.state.conftest import make_module

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.e2e.conftest import BaseProcess, Process
    from tests.kube.plane import Access

pytestmark = pytest.mark.kube

CODE = """
import logging, os
log = logging.getLogger("orders")
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

    def command(self, *arguments: str) -> list[str]:
        return [*self._command, *arguments]

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


class Terminal:
    """A program on a terminal."""

    def __init__(self, command: list[str]) -> None:
        self._mine, theirs = pty.openpty()
        self.running = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True)
        os.close(theirs)
        self._shown = ""

    def until(self, text: str) -> None:
        """Wait until the program shows a text after all that was waited for before."""
        while text not in self._shown:
            assert select.select([self._mine], [], [], 20)[0], f"{text!r} does not come: {self._shown!r}"
            self._shown += os.read(self._mine, 4096).decode()
        self._shown = self._shown.partition(text)[2]

    def type(self, keys: bytes) -> None:
        os.write(self._mine, keys)

    def close(self) -> None:
        self.running.kill()
        self.running.wait()
        os.close(self._mine)


@contextlib.contextmanager
def terminal_of(command: list[str]) -> Iterator[Terminal]:
    terminal = Terminal(command)
    try:
        yield terminal
    finally:
        terminal.close()


CSRS = "/apis/certificates.k8s.io/v1/certificatesigningrequests"


def approve(kube: httpx.Client, name: str) -> bool:
    """Approve the request of a controller for a certificate, as ``kubectl certificate approve``."""
    for document in kube.get(CSRS).json()["items"]:
        request, conditions = document["spec"], document["status"].get("conditions")
        if request["signerName"] == "kubernetes.io/kubelet-serving" and not conditions:
            said = ssl_text(request["request"])
            if f"system:node:{name}" in said:
                condition = {"type": "Approved", "status": "True", "reason": "Test", "message": "by a test"}
                document["status"]["conditions"] = [condition]
                path = f"{CSRS}/{document['metadata']['name']}/approval"
                kube.put(path, json=document).raise_for_status()
                return True
    return False


def ssl_text(request: str) -> str:
    """The subject of a request for a certificate, in base64."""
    found = x509.load_pem_x509_csr(base64.b64decode(request))
    return found.subject.rfc4514_string()


class Scene:
    """A controller with the kubelet's API, a base, and Pods with a module each."""

    kubelet: str
    """The address of the kubelet's API."""
    kubectl: Kubectl

    def __init__(self, kube: httpx.Client, namespace: str, base: BaseProcess, env: str, directory: Path) -> None:
        self.kube = kube
        self.base = base
        self.env = env
        self._pods = f"/api/v1/namespaces/{namespace}/pods"
        self._directory = directory

    def node(self) -> dict[str, Any] | None:
        query = {"labelSelector": f"base.koupleless.io/name={self.env}"}
        found = self.kube.get("/api/v1/nodes", params=query).json()["items"]
        return found[0] if found else None

    def serves(self) -> bool:
        with (
            contextlib.suppress(OSError),
            socket.create_connection(("127.0.0.1", int(self.kubelet.rpartition(":")[2]))),
        ):
            return True
        return False

    def create(self, name: str, *, code: str = CODE, ports: tuple[int, ...] = ()) -> None:
        """Make a Pod with a module, both of one name."""
        url = make_module(self._directory, f"{name}:1", code).as_uri()
        container = {
            "name": name,
            "image": url,
            "env": [{"name": "BIZ_VERSION", "value": "1"}],
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


@pytest.fixture(scope="module")
def scene(
    kube: httpx.Client,
    control_plane: Access,
    run_alone: Callable[..., Process],
    serve: Callable[..., BaseProcess],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Scene]:
    directory = tmp_path_factory.mktemp("kubelet")
    env = f"e{time.monotonic_ns()}"
    config = directory / "kubeconfig"
    token = account_with_rights(kube)
    secret = directory / "token"
    secret.write_text("secret-of-the-arklet\n", encoding="utf-8")
    directory.joinpath("koupleless.toml").write_text("[base]\narklet.exec = true\n", encoding="utf-8")
    config.write_text(json.dumps(control_plane.kubeconfig_of("controller", token)), encoding="utf-8")
    kubelet = free_port()
    running = run_alone(
        lambda port: [
            *(sys.executable, "-P", "-m", "koupleless", "controller", "--kubeconfig", str(config)),
            *("--env", env, "--port", str(port), "--probes-port", str(free_port()), "--name", env),
            *("--kubelet", "--kubelet-address", "127.0.0.1", "--kubelet-port", str(kubelet)),
            *("--arklet-token-file", str(secret)),
        ],
        directory,
    )
    options = ("--arklet-token-file", str(secret), "--ephemeral")
    base = serve("--name", env, "--controller", running.url, *options, cwd=directory)
    with namespace_of(kube) as namespace:
        made = Scene(kube, namespace, base, env, directory)
        made.kubelet = f"https://127.0.0.1:{kubelet}"
        made.kubectl = Kubectl(control_plane, namespace)
        until(made.node, otherwise="the base is no Node")
        until(lambda: approve(kube, env), otherwise="no certificate is requested")
        until(made.serves, otherwise="the kubelet's API is not served")
        yield made


def test_kubectl_shows_and_follows_the_log_of_one_pod(scene: Scene) -> None:
    kubectl = scene.kubectl
    scene.create("one")
    assert "orders: starting" in kubectl("logs", "one")
    httpx.get(f"{scene.base.url}/one/first", trust_env=False).raise_for_status()
    whole = kubectl("logs", "one", "-c", "one")
    assert "asked for" in whole
    assert kubectl("logs", "one", "--tail", "1") == whole.splitlines(keepends=True)[-1]
    stamped = kubectl("logs", "one", "--timestamps", "--tail", "1")
    assert stamped.split("T")[0].count("-") == 2
    assert stamped.split(" ", 1)[0].endswith("Z")
    assert kubectl("logs", "one", "--limit-bytes", "7") == whole[:7]
    assert kubectl("logs", "one", "--since", "1h") == whole
    assert kubectl("logs", "one", "--since-time", "2999-01-01T00:00:00Z") == ""
    assert "previous terminated container 'one'" in kubectl("logs", "one", "--previous", expects=1)
    with kubectl.running("logs", "-f", "--tail", "0", "one") as following:
        with said_by(following) as lines, httpx.Client(trust_env=False) as client:
            until(lambda: client.get(f"{scene.base.url}/one/next").is_success and lines)
            assert "one:1" in lines[0]
            scene.delete("one")
            assert following.wait(20) == 0
        assert "uninstalled" in lines[-1]


def test_kubectl_forwards_a_declared_port(scene: Scene) -> None:
    kubectl = scene.kubectl
    port = httpx.URL(scene.base.url).port
    assert port is not None
    scene.create("ports", ports=(port,))
    mine = free_port()
    with (
        kubectl.running("port-forward", "pod/ports", f"{mine}:{port}") as forwarding,
        httpx.Client(trust_env=False) as client,
    ):
        assert forwarding.stdout is not None
        assert "Forwarding from" in forwarding.stdout.readline()
        for number in range(20):
            assert client.get(f"http://127.0.0.1:{mine}/ports/{number}").text == f"/{number}"


def test_figures_and_pods_are_there_for_a_token_of_the_cluster(scene: Scene, control_plane: Access) -> None:
    scene.create("figures")
    headers = {"Authorization": f"Bearer {control_plane.tokens['admin']}"}
    trusted = ssl.create_default_context(cafile=control_plane.authority)
    with httpx.Client(base_url=scene.kubelet, verify=trusted, trust_env=False) as client:
        text = client.get("/metrics/resource", headers=headers).text
        assert 'container_memory_working_set_bytes{container="figures",namespace=' in text
        assert "node_cpu_usage_seconds_total" in text
        assert "resource_scrape_error 0" in text
        told = client.get("/stats/summary", headers=headers).json()["pods"]
        assert "figures" in {one["podRef"]["name"] for one in told}
        listed = client.get("/pods", headers=headers).json()["items"]
        assert "figures" in {one["metadata"]["name"] for one in listed}
        stranger = {"Authorization": f"Bearer {control_plane.tokens['stranger']}"}
        assert client.get("/metrics/resource", headers=stranger).status_code == 403
        assert client.get("/metrics/resource").status_code == 401


def test_kubectl_runs_code_inside_the_module(scene: Scene) -> None:
    kubectl = scene.kubectl
    scene.create("shell", code=f"{CODE}\nvalue = 41\n")
    code = "import app; app.value += 1; print(app.value)"
    assert kubectl("exec", "shell", "--", "python", "-c", code) == "42\n"
    assert kubectl("exec", "-i", "shell", "--", "python", "-", given="import app\nprint(app.value)\n") == "42\n"
    assert "ZeroDivisionError" in kubectl("exec", "shell", "--", "python", "-c", "1 / 0", expects=1)
    kubectl("exec", "shell", "--", "python", "-c", "raise SystemExit(7)", expects=7)
    many = kubectl("exec", "shell", "--", "python3", "-c", "for n in range(100_000): print(n)")
    assert many.splitlines() == [str(number) for number in range(100_000)]
    assert "a module is no process" in kubectl("exec", "shell", "--", "sh", expects=1)
    told = scene.base.log.read_text(encoding="utf-8")
    assert "is opened by 'kube-apiserver-kubelet-client for Pod" in told
    assert f"runs: {code!r}" in told


def test_a_terminal_has_echo_prompts_and_interrupts(scene: Scene) -> None:
    scene.create("terminal", code=f"{CODE}\nvalue = 41\n")
    with terminal_of(scene.kubectl.command("exec", "-it", "terminal", "--", "python")) as terminal:
        terminal.until("Python inside terminal:1")
        terminal.until(">>> ")
        terminal.type(b"import app, time\r")
        terminal.until("import app, time\r\n")
        terminal.until(">>> ")
        terminal.type(b"app.valeu\x7f\x7fue + 1\r")
        terminal.until("\r\n42\r\n>>> ")
        terminal.type(b"while not time.sleep(0.01): print('busy')\r\r")
        terminal.until("busy\r\nbusy\r\n")
        terminal.type(b"\x03")
        terminal.until("KeyboardInterrupt\r\n")
        terminal.until(">>> ")
        terminal.type(b"1 / 0\r")
        terminal.until("ZeroDivisionError: division by zero\r\n>>> ")
        terminal.type(b"\x04")
        assert terminal.running.wait(20) == 0
