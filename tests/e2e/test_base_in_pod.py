"""``arkctl --pod`` on the real control plane: ``kubectl port-forward`` to a Pod with a real base."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import ssl
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.certificates import Authority, Pair
from tests.kube.fixtures import programs

from koupleless.controller.kubelet.forwarding import Forwarding
from koupleless.controller.kubelet.transport.server import Server
from koupleless.controller.vnodes.base import AnnouncedBase, BaseState
from koupleless.controller.vpods.pod import VPod

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import httpx
    from tests.e2e.conftest import BaseProcess
    from tests.kube.plane import Access

    from koupleless.controller.kubelet.transport.server import Exchange, Request

pytestmark = pytest.mark.kube

STRATEGIC = {"Content-Type": "application/strategic-merge-patch+json"}
NOT_OURS = AnnouncedBase("none", "", "", "", "127.0.0.1", "", 9, BaseState.ACTIVATED)
"""The base that a forwarded port leads to: the machine is no Node of a base, and only the address counts."""


@contextlib.contextmanager
def machine(access: Access, directory: Path, pod: dict[str, Any]) -> Iterator[int]:
    """A kubelet of an ordinary machine, which has one Pod with the ports of this machine; gives its port."""
    issuer = Authority(directory, Pair(Path(access.authority), Path(access.authority_key)))
    served = issuer.issue("kubelet")
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(served.certificate, served.key)

    async def handle(request: Request, exchange: Exchange) -> None:
        assert request.path[0] == "portForward", request.path
        await Forwarding(VPod.of(pod), NOT_OURS).run(exchange, "portforward.k8s.io")

    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    server = Server(handle)
    try:
        yield asyncio.run_coroutine_threadsafe(server.start("127.0.0.1", 0, tls), loop).result(20)
    finally:
        asyncio.run_coroutine_threadsafe(server.close(), loop).result(20)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


class Cluster:
    """A namespace of the control plane, with Nodes of its own."""

    def __init__(self, kube: httpx.Client, access: Access, namespace: str) -> None:
        self.access = access
        self.namespace = namespace
        self._kube = kube
        self._nodes: list[str] = []

    def create_node(self, name: str, labels: dict[str, str], port: int) -> None:
        """Create a Node with a kubelet at a port of this machine."""
        self._nodes.append(name)
        self._kube.post("/api/v1/nodes", json={"metadata": {"name": name, "labels": labels}}).raise_for_status()
        status = {
            "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": port}},
        }
        self._tell(f"/api/v1/nodes/{name}", status)

    def create_pod(self, document: dict[str, Any], address: str) -> None:
        """Create a Pod that runs at an address."""
        pods = f"/api/v1/namespaces/{self.namespace}/pods"
        self._kube.post(pods, json=document).raise_for_status()
        status = {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]}
        self._tell(f"{pods}/{document['metadata']['name']}", status)

    def _tell(self, path: str, status: dict[str, Any]) -> None:
        self._kube.patch(f"{path}/status", json={"status": status}, headers=STRATEGIC).raise_for_status()

    def close(self) -> None:
        for name in self._nodes:
            self._kube.delete(f"/api/v1/nodes/{name}")


@pytest.fixture
def cluster(kube: httpx.Client, control_plane: Access, namespace: str) -> Iterator[Cluster]:
    cluster = Cluster(kube, control_plane, namespace)
    yield cluster
    cluster.close()


def test_the_base_of_a_pod_is_reached_through_the_api_server(
    cluster: Cluster, serve: Callable[..., BaseProcess], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"n{secrets.token_hex(4)}"
    base = serve("--name", "shop", "--ephemeral")
    address = f"10.77.{secrets.randbelow(250) + 1}.{secrets.randbelow(250) + 1}"
    container = {"name": "base", "image": "shop", "ports": [{"containerPort": base.arklet_port}]}
    host = {"metadata": {"name": "shop-0"}, "spec": {"nodeName": name, "containers": [container]}}
    module = {
        "metadata": {"name": "orders", "labels": {"virtual-kubelet.koupleless.io/component": "module"}},
        "spec": {"nodeName": f"vnode.{name}.dev", "containers": [{"name": "orders", "image": "orders"}]},
    }
    with machine(cluster.access, tmp_path, host) as port:
        cluster.create_node(name, {}, port)
        of_base = {
            "virtual-kubelet.koupleless.io/component": "vnode",
            "base.koupleless.io/tunnel-port": str(base.arklet_port),
        }
        cluster.create_node(f"vnode.{name}.dev", of_base, 1)
        for document in (host, module):
            cluster.create_pod(document, address)
        monkeypatch.setenv("ARKCTL_KUBECONFIG", cluster.access.kubeconfig)
        monkeypatch.setenv("PATH", f"{os.environ['PATH']}{os.pathsep}{programs()}")
        inside = base.arkctl("status", "--pod", f"{cluster.namespace}/shop-0")
        assert "no modules; install one with: arkctl deploy PATH" in inside
        assert f"--pod {cluster.namespace}/shop-0" in inside
        assert "no modules" in base.arkctl("status", "--pod", f"{cluster.namespace}/orders")
