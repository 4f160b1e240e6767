"""``--pod``: the way to the base of a Pod by ``kubectl``, and artefacts copied into Pods."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.parse
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.cli.conftest import biz, failed, installed, succeeded
from tests.conftest import free_port, unmeasured, until
from tests.state.conftest import make_module

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.cli.conftest import FakeArklet, Outcome

MODULE = {"virtual-kubelet.koupleless.io/component": "module"}
VNODE = {
    "virtual-kubelet.koupleless.io/component": "vnode",
    "base.koupleless.io/tunnel-port": "1239",
    "base.koupleless.io/host-name": "shop-0",
}


@dataclass
class Kubectl:
    """The table of the ``kubectl`` on the PATH, and the calls."""

    directory: Path
    state: dict[str, Any] = field(default_factory=lambda: {"objects": {}})

    def says(self, **members: Any) -> None:
        self.state |= members
        (self.directory / "table").write_text(json.dumps(self.state))

    def has(self, path: str, document: Any) -> None:
        self.state["objects"][path] = document
        self.says()

    def has_pod(self, name: str = "shop-0", *, namespace: str = "shop", **members: Any) -> None:
        metadata = {"name": name, "namespace": namespace, "labels": members.pop("labels", {})}
        self.has(f"/api/v1/namespaces/{namespace}/pods/{name}", {"metadata": metadata, "spec": {}, **members})

    def has_module(self, *, ip: str = "10.0.0.7") -> None:
        """A Pod of a module on the Node of a base."""
        self.has_pod("orders", labels=MODULE, spec={"nodeName": "vnode.a.dev"}, status={"podIP": ip})
        self.has("/api/v1/nodes/vnode.a.dev", {"metadata": {"name": "vnode.a.dev", "labels": VNODE}})

    def has_pods_at(self, *pods: tuple[str, dict[str, str]]) -> None:
        items = [{"metadata": {"name": name, "namespace": "bases", "labels": labels}} for name, labels in pods]
        self.has("/api/v1/pods", {"metadata": {}, "items": items})

    def calls(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.directory / "calls").read_text().splitlines()]

    def forwarded(self) -> list[list[str]]:
        """The arguments of each port-forward."""
        return [call["arguments"] for call in self.calls() if "port-forward" in call["arguments"]]

    def running(self) -> list[int]:
        return [call["pid"] for call in self.calls() if Path(f"/proc/{call['pid']}").exists()]


@pytest.fixture
def kubectl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arklet: FakeArklet) -> Kubectl:
    directory = tmp_path / "bin"
    directory.mkdir()
    program = directory / "kubectl"
    fake = Path(__file__).with_name("kubectl.py")
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -I -S {fake} {directory}/table "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{directory}{os.pathsep}{os.environ['PATH']}")
    kubectl = Kubectl(directory)
    kubectl.says(port=arklet.port)
    arklet.says("queryAllBiz", succeeded([biz("orders", "1")]))
    arklet.server_header = "koupleless/0"
    return kubectl


def test_the_base_in_a_pod_is_asked_through_a_forwarded_port(
    kubectl: Kubectl, arkctl: Callable[..., Outcome], arklet: FakeArklet
) -> None:
    kubectl.has_pod()
    done = arkctl("status", "--pod", "shop/shop-0", "--context", "here", "--kubeconfig", "kc")
    assert done.status == 0, done.err
    assert "orders" in done.out
    assert arklet.commands == ["queryAllBiz"]
    (arguments,) = kubectl.forwarded()
    assert arguments[:4] == ["--kubeconfig", str(Path.cwd() / "kc"), "--context", "here"]
    assert arguments[4:] == ["-n", "shop", "port-forward", "--address", "127.0.0.1", "pod/shop-0", ":1238"]
    assert kubectl.running() == []


def test_a_pod_without_a_namespace_is_in_that_of_the_context(kubectl: Kubectl, arkctl: Callable[..., Outcome]) -> None:
    kubectl.has_pod(namespace="mine")
    kubectl.says(namespace="mine")
    assert arkctl("status", "--pod", "shop-0").status == 0
    kubectl.has_pod(namespace="default")
    kubectl.says(namespace="")
    assert arkctl("status", "--pod", "shop-0", "--port", "7000").status == 0
    assert [one[:2] + one[-2:] for one in kubectl.forwarded()] == [
        ["-n", "mine", "pod/shop-0", ":1238"],
        ["-n", "default", "pod/shop-0", ":7000"],
    ]


@pytest.mark.parametrize(
    "there",
    [
        [("shop-x", {})],
        [("orders", MODULE), ("shop-x", {})],
        [("agent", {}), ("shop-0", {}), ("other", {})],  # in the network of one machine
    ],
)
def test_the_pod_of_a_module_leads_to_the_pod_of_its_base(
    kubectl: Kubectl, arkctl: Callable[..., Outcome], there: list[tuple[str, dict[str, str]]]
) -> None:
    kubectl.has_module()
    kubectl.has_pods_at(*there)
    assert arkctl("status", "--pod", "shop/orders").status == 0
    expected = "shop-0" if len(there) == 3 else "shop-x"
    assert kubectl.forwarded()[0][1::4] == ["bases", f"pod/{expected}"]
    assert kubectl.forwarded()[0][-1] == ":1239"


@pytest.mark.parametrize(
    "found", [{"metadata": {}, "items": []}, "Error from server (Forbidden): pods is forbidden", None]
)
def test_the_pod_of_a_module_leads_to_a_base_outside_the_cluster(
    kubectl: Kubectl, arkctl: Callable[..., Outcome], arklet: FakeArklet, found: Any
) -> None:
    kubectl.has_module(ip="127.0.0.1")
    node = {"metadata": {"labels": {**VNODE, "base.koupleless.io/tunnel-port": str(arklet.port)}}}
    kubectl.has("/api/v1/nodes/vnode.a.dev", node)
    if found is None:
        kubectl.has_pods_at(("agent", {}), ("other", {}))  # neither is the base
    else:
        kubectl.has("/api/v1/pods", found)
    done = arkctl("status", "--pod", "shop/orders")
    assert done.status == 0, done.err
    assert kubectl.forwarded() == []


@pytest.mark.parametrize(
    ("pod", "said"),
    [
        ({"spec": {}, "status": {"conditions": [{"type": "PodScheduled", "message": "0/3 nodes"}]}}, "0/3 nodes"),
        ({"spec": {}}, "no Node yet"),
        ({"spec": {"nodeName": "worker"}}, "Node worker is no base"),
        ({"spec": {"nodeName": "broker"}}, "through a broker alone"),
        ({"spec": {"nodeName": "silent"}}, "no address"),
    ],
)
def test_a_pod_that_leads_to_no_base_says_why(
    kubectl: Kubectl, arkctl: Callable[..., Outcome], pod: dict[str, Any], said: str
) -> None:
    kubectl.has_pod("orders", labels=MODULE, **pod)
    kubectl.has("/api/v1/nodes/worker", {"metadata": {"labels": {}}})
    broker = {label: value for label, value in VNODE.items() if "port" not in label}
    kubectl.has("/api/v1/nodes/broker", {"metadata": {"labels": broker}})
    kubectl.has("/api/v1/nodes/silent", {"metadata": {"labels": VNODE}})
    done = arkctl("status", "--pod", "shop/orders")
    assert done.status == 2
    assert done.err.startswith("error: Pod shop/orders leads to no base: ")
    assert said in done.err
    assert "suggestion: name the Pod of a base" in done.err


@pytest.mark.parametrize("name", ["a/b/c", "/shop-0", "shop/"])
def test_a_text_that_is_no_name_of_a_pod_is_refused(
    kubectl: Kubectl, arkctl: Callable[..., Outcome], name: str
) -> None:
    kubectl.has_pod()
    assert arkctl("status", "--pod", name).status == 2


def test_an_absent_pod_and_a_refused_port_are_told_in_the_words_of_kubectl(
    kubectl: Kubectl, arkctl: Callable[..., Outcome]
) -> None:
    done = arkctl("status", "--pod", "shop/nothing")
    assert (done.status, "looking for Pod shop/nothing: Error from server (NotFound)" in done.err) == (4, True)
    kubectl.has_pod()
    kubectl.says(refusal="unable to forward port because pod is not running")
    done = arkctl("status", "--pod", "shop/shop-0")
    assert done.status == 4
    assert "reaching port 1238 of Pod shop/shop-0: unable to forward port because pod is not running" in done.err


def test_without_rights_the_rights_are_named(kubectl: Kubectl, arkctl: Callable[..., Outcome]) -> None:
    refusal = 'Error from server (Forbidden): pods "shop-0" is forbidden: User "me" cannot get resource'
    kubectl.has("/api/v1/namespaces/shop/pods/shop-0", refusal)
    done = arkctl("status", "--pod", "shop/shop-0")
    assert (done.status, "pods/portforward" in done.err) == (4, True)


def test_an_arklet_that_does_not_answer_behind_the_port_is_told_with_the_complaint_of_kubectl(
    kubectl: Kubectl, arkctl: Callable[..., Outcome]
) -> None:
    kubectl.has_pod()
    kubectl.says(port=free_port(), complaint="E1201 connect to localhost:1238 inside namespace: connection refused")
    done = arkctl("status", "--pod", "shop/shop-0")
    assert done.status == 4
    assert "no base answers at port 1238 of Pod shop/shop-0: E1201 connect to localhost:1238" in done.err
    assert "suggestion: name the port of the arklet in the Pod (--port)" in done.err


def test_without_kubectl_the_error_says_where_kubectl_is(
    arkctl: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    done = arkctl("status", "--pod", "shop/shop-0")
    assert (done.status, "kubectl is not on the PATH" in done.err) == (4, True)


def test_a_host_on_the_command_line_is_stronger_than_the_pod_of_a_variable(
    arkctl: Callable[..., Outcome], arklet: FakeArklet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ARKCTL_POD", "shop/shop-0")
    arklet.says("queryAllBiz", succeeded([]))
    done = arkctl("status", "--host", "127.0.0.1", "--port", str(arklet.port))
    assert done.status == 0, done.err
    assert f"--port {arklet.port}" in done.out
    assert "--pod" not in done.out
    assert arkctl("status", "--host", "127.0.0.1", "--pod", "shop/shop-0").status == 2


def test_further_commands_are_named_with_the_pod(
    kubectl: Kubectl, arkctl: Callable[..., Outcome], arklet: FakeArklet
) -> None:
    kubectl.has_pod()
    arklet.says("queryAllBiz", succeeded([]))
    assert "arkctl deploy PATH --pod shop/shop-0" in arkctl("status", "--pod", "shop/shop-0").out


# --- artefacts -------------------------------------------------------------------------------------------------------


def test_an_artefact_is_copied_into_the_pod_for_the_time_of_the_install(
    kubectl: Kubectl, arkctl: Callable[..., Outcome], arklet: FakeArklet, tmp_path: Path
) -> None:
    artefact = make_module(tmp_path, "orders:1")
    seen: list[bytes] = []

    def install(body: dict[str, Any]) -> dict[str, object]:
        seen.append(place_of(body).read_bytes())
        return installed("orders", "1")

    kubectl.has_pod()
    arklet.says("installBiz", install)
    done = arkctl("deploy", str(artefact), "--pod", "shop/shop-0", "--container", "base")
    assert done.status == 0, done.err
    assert seen == [artefact.read_bytes()]
    (body,) = [body for command, body in arklet.calls if command == "installBiz"]
    assert place_of(body).name == artefact.name
    assert not place_of(body).parent.exists()
    copying = next(call["arguments"] for call in kubectl.calls() if "exec" in call["arguments"])
    assert copying[:7] == ["-n", "shop", "exec", "-i", "shop-0", "-c", "base"]


def test_the_copy_leaves_after_a_refused_install_too(
    kubectl: Kubectl, arkctl: Callable[..., Outcome], arklet: FakeArklet, tmp_path: Path
) -> None:
    kubectl.has_pod()
    arklet.says("installBiz", failed("INSTALL_BIZ", "no"))
    assert arkctl("deploy", str(make_module(tmp_path, "orders:1")), "--pod", "shop/shop-0").status == 1
    (body,) = [body for command, body in arklet.calls if command == "installBiz"]
    assert not place_of(body).parent.exists()


@pytest.mark.parametrize("cut", ["17", ""])
def test_a_copy_that_was_cut_off_is_not_installed(
    kubectl: Kubectl, arkctl: Callable[..., Outcome], arklet: FakeArklet, tmp_path: Path, cut: str
) -> None:
    kubectl.has_pod()
    kubectl.says(cut=cut)
    done = arkctl("deploy", str(make_module(tmp_path, "orders:1")), "--pod", "shop/shop-0")
    assert done.status == 5
    assert "bytes arrived" in done.err
    assert "suggestion: name the container of the base (--container)" in done.err
    assert "installBiz" not in arklet.commands


def test_a_url_is_not_copied(kubectl: Kubectl, arkctl: Callable[..., Outcome], arklet: FakeArklet) -> None:
    kubectl.has_pod()
    arklet.says("installBiz", installed("orders", "1"))
    assert arkctl("deploy", "http://repo.example/orders.zip", "--pod", "shop/shop-0").status == 0
    assert not any("exec" in call["arguments"] for call in kubectl.calls())


def place_of(body: dict[str, Any]) -> Path:
    return Path(urllib.parse.unquote(urllib.parse.urlsplit(body["bizUrl"]).path))


# --- the end ---------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel of Linux ends children with their parent")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_kubectl_ends_with_arkctl_however_arkctl_ends(
    kubectl: Kubectl, arklet: FakeArklet, number: signal.Signals
) -> None:
    kubectl.has_pod()
    arklet.says("queryLogs", succeeded({"entries": [], "places": {}}))
    following = subprocess.Popen(
        [sys.executable, "-P", "-m", "koupleless", "logs", "-f", "--pod", "shop/shop-0"],
        env=unmeasured() | {"PATH": os.environ["PATH"]},
        stderr=subprocess.DEVNULL,
    )
    try:
        until(lambda: "queryLogs" in arklet.commands, otherwise="the base is not asked")
        assert len(kubectl.running()) == 1
        following.send_signal(number)
        following.wait(20)
        until(lambda: kubectl.running() == [], otherwise="kubectl runs on")
    finally:
        if following.poll() is None:
            following.kill()
        following.wait()
