"""The control plane of a run: whole, with its own rules about who may do what, and gone after its last user."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.conftest import until
from tests.kube import fixtures, plane

if TYPE_CHECKING:
    import httpx

pytestmark = pytest.mark.kube


def deployment(name: str) -> dict[str, object]:
    template = {
        "metadata": {"labels": {"app": name}},
        "spec": {
            "containers": [{"name": "a", "image": "i"}],
            "nodeSelector": {"of": name},
            "tolerations": [{"operator": "Exists"}],
        },
    }
    spec = {"replicas": 1, "selector": {"matchLabels": {"app": name}}, "template": template}
    return {"metadata": {"name": name}, "spec": spec}


def test_a_deployment_becomes_a_pod_on_the_node_that_it_selects(kube: httpx.Client, namespace: str):
    node = {
        "metadata": {"name": f"vnode.{namespace}.dev", "labels": {"of": namespace}},
        "status": {"capacity": {"pods": "5"}, "conditions": [{"type": "Ready", "status": "True"}]},
    }
    kube.post("/api/v1/nodes", json=node).raise_for_status()
    try:
        path = f"/apis/apps/v1/namespaces/{namespace}/deployments"
        kube.post(path, json=deployment(namespace)).raise_for_status()

        def bound() -> str:
            pods = kube.get(f"/api/v1/namespaces/{namespace}/pods").json()["items"]
            return pods[0]["spec"].get("nodeName", "") if pods else ""

        assert until(bound) == f"vnode.{namespace}.dev"
    finally:
        kube.delete(f"/api/v1/nodes/vnode.{namespace}.dev").raise_for_status()


def test_rights_come_from_roles(control_plane: plane.Access, kube: httpx.Client, namespace: str, account_token):
    pods = f"/api/v1/namespaces/{namespace}/pods"
    with fixtures.client_of(control_plane, token=account_token("reader")) as reader:
        assert reader.get(pods).status_code == 403
        rules = [{"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]}]
        rbac = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}"
        kube.post(f"{rbac}/roles", json={"metadata": {"name": "reader"}, "rules": rules}).raise_for_status()
        binding = {
            "metadata": {"name": "reader"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "reader"},
            "subjects": [{"kind": "ServiceAccount", "name": "reader", "namespace": namespace}],
        }
        kube.post(f"{rbac}/rolebindings", json=binding).raise_for_status()
        until(lambda: reader.get(pods).is_success, otherwise="the role gives no right")
        assert reader.post(pods, json={}).status_code == 403


def test_strangers_are_refused(control_plane: plane.Access):
    with fixtures.client_of(control_plane, "stranger") as stranger:
        assert stranger.get("/api/v1/nodes").status_code == 403
    with fixtures.client_of(control_plane, token="unknown") as unknown:
        assert unknown.get("/api/v1/nodes").status_code == 401


HOLDER = """
import sys, time
from pathlib import Path
from tests.kube.plane import hold
held = hold(Path(sys.argv[1]), Path(sys.argv[2]))
print(held.access.url, flush=True)
time.sleep(60)
"""


def below(directory: Path) -> dict[int, list[bytes]]:
    """The processes that name the directory in their command lines, with these."""
    found = {}
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdecimal() and str(directory).encode() in (line := entry.joinpath("cmdline").read_bytes()):
                found[int(entry.name)] = line.split(b"\0")
        except OSError:  # has ended
            continue
    return found


def holder(directory: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", HOLDER, str(directory), str(fixtures.programs())]
    root = str(Path(__file__).parents[2])
    return subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True)


def told(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


@pytest.mark.timeout(240)
def test_two_processes_share_one_and_nothing_is_left_when_both_were_killed(tmp_path: Path, control_plane: plane.Access):
    directory = tmp_path / "shared"
    directory.mkdir()
    with holder(directory) as one, holder(directory) as other:
        try:
            url = told(one)
            assert url.startswith("https://127.0.0.1:")
            assert told(other) == url
            assert url != control_plane.url

            one.kill()
            one.wait()
            third = plane.hold(directory, fixtures.programs())
            with fixtures.client_of(third.access) as client:
                assert client.get("/readyz").text == "ok"
            third.release()
        finally:
            other.kill()

    until(lambda: not below(directory), otherwise="programs were left")
    assert not directory.joinpath("files").exists()


def stubs(directory: Path, script: str) -> Path:
    """Programs that do the same, and serve nothing."""
    directory.mkdir()
    for name in ("etcd", "kube-apiserver"):
        directory.joinpath(name).write_text(f"#!/bin/sh\n{script}\n")
        directory.joinpath(name).chmod(0o755)
    return directory


def test_programs_end_with_the_process_that_has_started_them(tmp_path: Path):
    plane._spawn(tmp_path, stubs(tmp_path / "programs", "while :; do sleep 1; done"))

    def server_beside_both() -> int:
        """The one process beside the two programs, when all have started."""
        others = [pid for pid, line in below(tmp_path).items() if b"serve" in line]
        return others[0] if len(others) == 1 and len(below(tmp_path)) == 3 else 0

    server = until(server_beside_both)

    os.kill(server, signal.SIGKILL)

    until(lambda: not below(tmp_path), otherwise="programs were left")


def test_a_control_plane_that_does_not_start_says_why(tmp_path: Path):
    programs = stubs(tmp_path / "programs", "echo no room >&2; exit 1")

    with pytest.raises(plane.NotStarted, match="no room"):
        plane.hold(tmp_path, programs)


def test_a_kubeconfig_is_one(control_plane: plane.Access):
    given = json.loads(Path(control_plane.kubeconfig).read_text())

    assert given == control_plane.kubeconfig_of("admin")
