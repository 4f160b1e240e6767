"""Fixtures for tests of any room that need Kubernetes: one control plane for the whole run, and a namespace each.

Tests with the control plane are marked ``kube``. `scripts/kube build` builds the programs; without them, such a test is
skipped with the reason, and fails with ``CI=true``.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import shutil
import ssl
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.conftest import lacks, shared_directory, until
from tests.kube.plane import hold

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import httpx
    from tests.kube.plane import Access

_SCRIPTS = Path(__file__).parents[2] / "scripts"


def programs(sources: str = "controlplane") -> Path:
    """The directory in which `scripts/kube build` leaves the programs of a directory below scripts."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    kept = Path(os.environ.get("KOUPLELESS_KUBE") or cache / "koupleless" / "kube")
    return kept / hashlib.sha256(_SCRIPTS.joinpath(sources, "go.sum").read_bytes()).hexdigest()[:16]


@pytest.fixture(scope="session")
def control_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Access]:
    """The control plane of this run, which all processes of the run share; it ends with the last of them."""
    found = programs()
    if not found.is_dir():
        lacks("the control plane is not built: `scripts/kube build` builds it, with Go, in some minutes")
    for tool in ("openssl", "setpriv"):
        if shutil.which(tool) is None:
            lacks(f"{tool}, which starts of a control plane need, is not here")
    held = hold(shared_directory(tmp_path_factory, "kube"), found)
    yield held.access
    held.release()


@pytest.fixture(scope="session")
def helm(control_plane: Access) -> Callable[..., str]:
    """``helm("install", ...)`` runs Helm with all rights on the control plane, and returns what Helm prints.

    With ``fails=True``, Helm has to fail, and the text is of its errors.
    """
    program = programs("helm") / "helm"
    if not program.is_file():
        lacks("Helm is not built: `scripts/kube build` builds it, with Go, in less than a minute")

    def run(*arguments: str, fails: bool = False) -> str:
        command = [str(program), "--kubeconfig", control_plane.kubeconfig, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        assert (done.returncode != 0) is fails, f"{arguments}: {done.stdout}{done.stderr}"
        return done.stderr if fails else done.stdout

    return run


def client_of(access: Access, user: str = "admin", *, token: str | None = None) -> httpx.Client:
    """A client of the API server for one of its users, or for whomever ``token`` is. To be closed."""
    import httpx  # which takes a while, and most tests do without

    trusted = ssl.create_default_context(cafile=access.authority)
    headers = {"Authorization": f"Bearer {token or access.tokens[user]}"}
    return httpx.Client(base_url=access.url, headers=headers, verify=trusted, timeout=30, trust_env=False)


@pytest.fixture(scope="session")
def kube(control_plane: Access) -> Iterator[httpx.Client]:
    """A client of the API server with all rights."""
    with client_of(control_plane) as client:
        yield client


@pytest.fixture
def namespace(kube: httpx.Client) -> Iterator[str]:
    """A namespace of this test, in which pods can be made."""
    with namespace_of(kube) as name:
        yield name


@contextlib.contextmanager
def namespace_of(kube: httpx.Client) -> Iterator[str]:
    """A namespace in which pods can be made."""
    name = f"test-{secrets.token_hex(5)}"
    kube.post("/api/v1/namespaces", json={"metadata": {"name": name}}).raise_for_status()
    account = f"/api/v1/namespaces/{name}/serviceaccounts/default"
    until(lambda: kube.get(account).is_success, otherwise=f"the namespace {name} has no service account")
    yield name
    kube.delete(f"/api/v1/namespaces/{name}").raise_for_status()  # emptied by the controller manager, meanwhile


@pytest.fixture
def account_token(kube: httpx.Client, namespace: str) -> Callable[[str], str]:
    """``account_token("name")`` makes a service account in the namespace of the test, and returns a token for it."""

    def make(name: str) -> str:
        accounts = f"/api/v1/namespaces/{namespace}/serviceaccounts"
        kube.post(accounts, json={"metadata": {"name": name}}).raise_for_status()
        wanted = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
        given = kube.post(f"{accounts}/{name}/token", json=wanted).raise_for_status()
        token: str = given.json()["status"]["token"]
        return token

    return make
