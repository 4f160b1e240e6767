"""Controller and base as processes, over TLS both ways, with tokens that the real API server judges on both sides."""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest
from tests.certificates import Authority
from tests.conftest import free_port, until
from tests.e2e.test_controller import account_with_rights
from tests.state.conftest import make_module

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import httpx
    from tests.e2e.conftest import BaseProcess, Process
    from tests.kube.plane import Access

pytestmark = pytest.mark.kube


class Site:
    """Certificates, tokens and processes of one test."""

    def __init__(
        self,
        directory: Path,
        kube: httpx.Client,
        plane: Access,
        run_alone: Callable[..., Process],
        serve: Callable[..., BaseProcess],
    ) -> None:
        self.directory = directory
        self.kube = kube
        self.env = f"e{time.monotonic_ns()}"
        self.port = free_port()
        self._run_alone = run_alone
        self._serve = serve
        self.plane = plane
        (directory / "ours").mkdir()
        (directory / "other").mkdir()
        self.ours, self.other = Authority(directory / "ours"), Authority(directory / "other")
        for name, addresses in (("controller", "IP:127.0.0.1"), ("arklet", "IP:127.0.0.1")):
            self.ours.issue(name, addresses=addresses)
        api_token = account_with_rights(kube)
        kubeconfig = json.dumps(plane.kubeconfig_of("controller", api_token))
        self.write("kubeconfig", kubeconfig)
        self.write("api-token", api_token)
        self.write("of-controller", self.token("koupleless", "controller"))

    def write(self, name: str, text: str) -> Path:
        (self.directory / name).write_text(text, encoding="utf-8")
        return self.directory / name

    def token(self, namespace: str, account: str) -> str:
        """A projected token for the doors, and for nothing else."""
        accounts = f"/api/v1/namespaces/{namespace}/serviceaccounts"
        self.kube.post(accounts, json={"metadata": {"name": account}})
        body = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"audiences": ["koupleless"]},
        }
        made = self.kube.post(f"{accounts}/{account}/token", json=body).raise_for_status()
        return str(made.json()["status"]["token"])

    def controller(self, namespace: str, *, arklets: Authority) -> Process:
        certificate = self.directory / "ours" / "controller.crt"
        return self._run_alone(
            lambda port: [
                *(sys.executable, "-P", "-m", "koupleless", "controller", "--env", self.env, "--name", "one"),
                *("--kubeconfig", str(self.directory / "kubeconfig")),
                *("--port", str(self.port), "--probes-port", str(port)),
                *("--ssl-certfile", str(certificate), "--ssl-keyfile", str(certificate.with_suffix(".key"))),
                *("--accounts", f"{namespace}/base"),
                *("--arklet-token-file", str(self.directory / "of-controller")),
                *("--arklet-ca", str(arklets.certificate)),
            ],
            self.directory,
        )

    def base(self, name: str, monkeypatch: pytest.MonkeyPatch, *, token: str, trusted: Authority) -> BaseProcess:
        certificate = self.directory / "ours" / "arklet.crt"
        settings = {
            "ENVIRONMENT": self.env,
            "IDENTITY": name,
            "SSL_CERTFILE": certificate,
            "SSL_KEYFILE": certificate.with_suffix(".key"),
            "CONTROLLER_TOKEN_FILE": self.write(f"{name}-token", token),
            "CONTROLLER_CA": trusted.certificate,
            "REVIEW_ACCOUNTS": "koupleless/controller",
            "REVIEW_SERVER": self.plane.url,
            "REVIEW_CA": self.plane.authority,
            "REVIEW_TOKEN_FILE": self.directory / "api-token",
        }
        for key, value in settings.items():
            monkeypatch.setenv(f"KOUPLELESS_ARKLET_{key}", str(value))
        controller = f"https://127.0.0.1:{self.port}"
        return self._serve("--name", name, "--controller", controller, "--ephemeral", cwd=self.directory)

    def ready(self, name: str) -> str:
        """The condition Ready of the Node of a base; empty for no Node."""
        found = self.kube.get(f"/api/v1/nodes/vnode.{name}.{self.env}")
        conditions: list[dict[str, Any]] = found.json()["status"].get("conditions", []) if found.is_success else []
        return next((one["status"] for one in conditions if one["type"] == "Ready"), "")


@pytest.fixture
def site(
    tmp_path: Path,
    kube: httpx.Client,
    control_plane: Access,
    run_alone: Callable[..., Process],
    serve: Callable[..., BaseProcess],
) -> Site:
    return Site(tmp_path, kube, control_plane, run_alone, serve)


def test_controller_and_base_trust_each_other_by_certificate_and_account_alone(
    site: Site, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    controller = site.controller(namespace, arklets=site.ours)
    base = site.base("good", monkeypatch, token=site.token(namespace, "base"), trusted=site.ours)
    until(
        lambda: site.ready("good") == "True", otherwise=f"no Node\n{base.log.read_text()}{controller.log.read_text()}"
    )

    module = {
        "metadata": {"name": "hello", "labels": {"virtual-kubelet.koupleless.io/component": "module"}},
        "spec": {
            "nodeName": f"vnode.good.{site.env}",
            "tolerations": [{"operator": "Exists"}],
            "containers": [
                {
                    "name": "hello",
                    "image": make_module(site.directory, "hello:1").as_uri(),
                    "env": [{"name": "BIZ_VERSION", "value": "1"}],
                }
            ],
        },
    }
    pods = f"/api/v1/namespaces/{namespace}/pods"
    site.kube.post(pods, json=module).raise_for_status()
    until(lambda: base.get("/hello/").text == "hello:1", otherwise=controller.log.read_text())

    # a base that does not know the issuer of the certificate tells the controller nothing
    wary = site.base("wary", monkeypatch, token=site.token(namespace, "base"), trusted=site.other)
    until(lambda: "its certificate is not trusted" in wary.log.read_text(), otherwise="the base trusts everybody")
    # a base with the token of another account is not heard, and is told why
    stranger = site.base("stranger", monkeypatch, token=site.token(namespace, "stranger"), trusted=site.ours)
    until(lambda: "may not speak for a base" in stranger.log.read_text(), otherwise=stranger.log.read_text())
    assert (site.ready("wary"), site.ready("stranger"), site.ready("good")) == ("", "", "True")
    site.kube.delete(f"{pods}/hello", params={"gracePeriodSeconds": "0"})


def test_a_controller_does_not_install_in_an_arklet_that_it_does_not_trust(
    site: Site, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    controller = site.controller(namespace, arklets=site.other)
    site.base("odd", monkeypatch, token=site.token(namespace, "base"), trusted=site.ours)
    until(lambda: site.ready("odd") == "True", otherwise=controller.log.read_text())  # by heartbeats, for a while
    until(lambda: "CERTIFICATE_VERIFY_FAILED" in controller.log.read_text(), otherwise="the arklet is trusted")
