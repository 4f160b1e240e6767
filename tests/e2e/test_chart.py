"""The Helm chart of the controller: what the chart renders, and a release on the real control plane.

No machine of a cluster is there to run Pods of the release. Bubblewrap runs them, in the image of the recipe, with what
the API server has of them: the command, the variables, the files of Secrets and of the service account, the user.
"""

from __future__ import annotations

import base64
import json
import os
import re
import signal
import ssl
import subprocess
import time
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import httpx
import pytest
import yaml  # type: ignore[import-untyped]
from tests.certificates import Authority
from tests.conftest import free_port, lacks, program, until
from tests.e2e.image import ROOT, Image, Running, stages

from koupleless.settings.control import ControlSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.kube.plane import Access

pytestmark = pytest.mark.deployment

CHART: Final = ROOT / "charts" / "koupleless-controller"
EXAMPLE: Final = ROOT / "examples" / "kubernetes" / "controller.yaml"
RECIPE: Final = ROOT / "examples" / "container" / "Containerfile.controller"
OF_HELM: Final = {"app.kubernetes.io/version", "app.kubernetes.io/managed-by", "helm.sh/chart"}
EVERYTHING: Final[dict[str, Any]] = {
    "image": {"repository": "registry.example/other", "digest": f"sha256:{'0' * 64}", "pullPolicy": "Always"},
    "imagePullSecrets": [{"name": "registry"}],
    "env": "prod-1",
    "replicas": 3,
    "settings": {"sync-replicas": True, "workers": 32, "install-timeout": 1000000, "accounts": ["a/*", "b/c"]},
    "extraEnv": [{"name": "TZ", "value": "UTC"}],
    "token": {"secret": "bases", "key": "bases-token"},
    "arkletToken": {"secret": "arklets"},
    "arkletCa": {"secret": "issuers"},
    "tls": {"secret": "served"},
    "mqtt": {
        "broker": "mqtt.example",
        "port": 8884,
        "username": "controller",
        "password": {"secret": "mqtt-login"},
        "ca": {"secret": "mqtt-issuers"},
        "client": {"secret": "mqtt-certificate"},
    },
    "kubelet": {"enabled": True, "secret": "kubelets"},
    "reportHooks": {"secret": "hooks"},
    "service": {"type": "LoadBalancer", "port": 443, "annotations": {"a.example/b": "true"}},
    "readinessProbe": {"periodSeconds": 2},
    "serviceAccount": {"name": "account", "annotations": {"a.example/role": "reader"}},
    "podDisruptionBudget": {"maxUnavailable": "50%"},
    "networkPolicy": {
        "enabled": True,
        "bases": [{"podSelector": {}}],
        "kubelet": [{"ipBlock": {"cidr": "192.0.2.0/24"}}],
        "probes": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}],
    },
    "priorityClassName": "system-cluster-critical",
    "podAnnotations": {"a.example/c": "1"},
    "podLabels": {"team": "modules"},
    "nodeSelector": {"kubernetes.io/os": "linux"},
    "tolerations": [{"operator": "Exists", "key": "a"}],
    "affinity": {"nodeAffinity": {}},
    "topologySpreadConstraints": [
        {"maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway"}
    ],
    "extraVolumes": [{"name": "more", "emptyDir": {}}],
    "extraVolumeMounts": [{"name": "more", "mountPath": "/more"}],
    "fullnameOverride": "conductor",
}
"""Every value of the chart with another value than the default, but for `global` and the security contexts."""


def documents(text: str) -> dict[tuple[str, str, str], Any]:
    """Objects by kind, namespace and name, without the labels that tell who manages an object."""
    found: dict[tuple[str, str, str], Any] = {}
    for document in filter(None, yaml.safe_load_all(text)):
        metadata = document["metadata"]
        labels = {name: value for name, value in metadata.pop("labels", {}).items() if name not in OF_HELM}
        if labels and document["kind"] != "Deployment":
            assert labels.keys() == {"app.kubernetes.io/name", "app.kubernetes.io/instance"}
        found[document["kind"], metadata.get("namespace", ""), metadata["name"]] = document
    return found


def test_the_rights_of_the_chart_are_those_of_the_example() -> None:
    chart = yaml.safe_load((CHART / "files" / "rights.yaml").read_text(encoding="utf-8"))
    example = {
        document["kind"]: document["rules"]
        for document in yaml.safe_load_all(EXAMPLE.read_text(encoding="utf-8"))
        if "rules" in document
    }
    assert {"ClusterRole": chart["cluster"], "Role": chart["leases"]} == example


def test_the_chart_has_the_version_of_the_package() -> None:
    project = re.search(r'^version = "(.*)"$', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))
    assert project is not None
    assert {chart["version"], chart["appVersion"]} == {project[1]}


def test_every_value_is_described_by_the_schema() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))["properties"]
    values = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    assert values.keys() == schema.keys() - {"global"}
    for name, value in values.items():
        if "properties" in schema[name] and name != "settings" and not name.endswith("Probe"):
            assert value.keys() == schema[name]["properties"].keys(), name
    own = schema["settings"]["properties"].keys()
    assert own <= {field.name.removesuffix("_s").replace("_", "-") for field in fields(ControlSettings)}
    contexts = {"rbac", "resources", "livenessProbe", "terminationGracePeriodSeconds"}
    assert {name for name in values if not name.endswith("ecurityContext")} - contexts == EVERYTHING.keys()


@pytest.mark.kube
def test_the_chart_without_values_makes_the_objects_of_the_example(helm: Callable[..., str]) -> None:
    helm("lint", "--strict", str(CHART))
    rendered = documents(helm("template", "controller", str(CHART), "--namespace", "koupleless"))
    example = documents(EXAMPLE.read_text(encoding="utf-8"))
    del example["Namespace", "", "koupleless"]  # made by --create-namespace
    assert rendered == example


@pytest.mark.kube
def test_every_value_of_the_chart_reaches_the_objects(helm: Callable[..., str], tmp_path: Path) -> None:
    values = tmp_path / "values.yaml"
    values.write_text(json.dumps(EVERYTHING), encoding="utf-8")
    helm("lint", "--strict", str(CHART), "--values", str(values))
    found = documents(helm("template", "r", str(CHART), "--namespace", "n", "--values", str(values)))

    assert {key[2] for key in found} == {"account", "n-conductor", "conductor"}
    deployment = found["Deployment", "n", "conductor"]["spec"]
    pod = deployment["template"]["spec"]
    (container,) = pod["containers"]
    assert container["image"] == f"registry.example/other@sha256:{'0' * 64}"
    assert {each["name"]: each.get("value") for each in container["env"]} == {
        "KOUPLELESS_CONTROLLER_HOST": "0.0.0.0",
        "KOUPLELESS_CONTROLLER_ENV": "prod-1",
        "KOUPLELESS_CONTROLLER_TOKEN_FILE": "/run/secrets/koupleless/token/bases-token",
        "KOUPLELESS_CONTROLLER_ARKLET_TOKEN_FILE": "/run/secrets/koupleless/arklet-token/token",
        "KOUPLELESS_CONTROLLER_ARKLET_CA": "/run/secrets/koupleless/arklet-ca/ca.crt",
        "KOUPLELESS_CONTROLLER_SSL_CERTFILE": "/run/secrets/koupleless/tls/tls.crt",
        "KOUPLELESS_CONTROLLER_SSL_KEYFILE": "/run/secrets/koupleless/tls/tls.key",
        "KOUPLELESS_CONTROLLER_MQTT_BROKER": "mqtt.example",
        "KOUPLELESS_CONTROLLER_MQTT_PORT": "8884",
        "KOUPLELESS_CONTROLLER_MQTT_USERNAME": "controller",
        "KOUPLELESS_CONTROLLER_MQTT_PASSWORD_FILE": "/run/secrets/koupleless/mqtt-password/password",
        "KOUPLELESS_CONTROLLER_MQTT_CA_PATH": "/run/secrets/koupleless/mqtt-ca/ca.crt",
        "KOUPLELESS_CONTROLLER_MQTT_CLIENT_CRT_PATH": "/run/secrets/koupleless/mqtt-client/tls.crt",
        "KOUPLELESS_CONTROLLER_MQTT_CLIENT_KEY_PATH": "/run/secrets/koupleless/mqtt-client/tls.key",
        "KOUPLELESS_CONTROLLER_KUBELET": "true",
        "KOUPLELESS_CONTROLLER_KUBELET_ADDRESS": None,
        "KOUPLELESS_CONTROLLER_KUBELET_CERTFILE": "/run/secrets/koupleless/kubelet/tls.crt",
        "KOUPLELESS_CONTROLLER_KUBELET_KEYFILE": "/run/secrets/koupleless/kubelet/tls.key",
        "KOUPLELESS_CONTROLLER_REPORT_HOOKS_FILE": "/run/secrets/koupleless/report-hooks/hooks",
        "KOUPLELESS_CONTROLLER_SYNC_REPLICAS": "true",
        "KOUPLELESS_CONTROLLER_WORKERS": "32",
        "KOUPLELESS_CONTROLLER_INSTALL_TIMEOUT": "1000000",
        "KOUPLELESS_CONTROLLER_ACCOUNTS": "a/*,b/c",
        "TZ": "UTC",
    }
    known = {f"KOUPLELESS_CONTROLLER_{field.name.removesuffix('_s').upper()}" for field in fields(ControlSettings)}
    assert {each["name"] for each in container["env"]} - known == {"TZ"}
    secrets = {each["secret"]["secretName"] for each in pod["volumes"] if "secret" in each}
    of_mqtt = {"mqtt-login", "mqtt-issuers", "mqtt-certificate"}
    assert secrets == {"bases", "arklets", "issuers", "served", "kubelets", "hooks"} | of_mqtt
    assert {each["name"] for each in container["volumeMounts"]} == {each["name"] for each in pod["volumes"]}
    assert container["readinessProbe"]["periodSeconds"] == 2
    for name in ("imagePullSecrets", "nodeSelector", "tolerations", "affinity", "topologySpreadConstraints"):
        assert pod[name] == EVERYTHING[name]
    assert pod["priorityClassName"] == EVERYTHING["priorityClassName"]
    template = deployment["template"]["metadata"]
    assert template["annotations"] == EVERYTHING["podAnnotations"]
    assert EVERYTHING["podLabels"].items() <= template["labels"].items()
    assert deployment["replicas"] == 3
    assert found["ServiceAccount", "n", "account"]["metadata"]["annotations"] == {"a.example/role": "reader"}
    for kind, namespace in (("ClusterRoleBinding", ""), ("RoleBinding", "kube-node-lease")):
        (subject,) = found[kind, namespace, "n-conductor"]["subjects"]
        assert (subject["name"], subject["namespace"]) == ("account", "n")
    service = found["Service", "n", "conductor"]
    assert (service["spec"]["type"], service["spec"]["ports"][0]["port"]) == ("LoadBalancer", 443)
    assert found["PodDisruptionBudget", "n", "conductor"]["spec"]["maxUnavailable"] == "50%"
    policy = found["NetworkPolicy", "n", "conductor"]["spec"]
    assert [rule["from"] for rule in policy["ingress"]] == [
        EVERYTHING["networkPolicy"]["bases"],
        EVERYTHING["networkPolicy"]["kubelet"],
        EVERYTHING["networkPolicy"]["probes"],
    ]
    assert policy["podSelector"] == deployment["selector"]


@pytest.mark.kube
@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("replica=3", "replica"),
        ("replicas=many", "/replicas"),
        ("env=prod.1", "/env"),
        ("settings.token=secret", "/settings/token"),
        ("settings.port=80", "/settings/port"),
        ("token.file=x", "/token"),
        ("image.digest=abc", "/image/digest"),
        ("service.type=ExternalName", "/service/type"),
    ],
)
def test_values_that_cannot_be_meant_are_refused_by_name(helm: Callable[..., str], value: str, told: str) -> None:
    assert told in helm("template", "controller", str(CHART), "--set", value, fails=True)


@pytest.mark.kube
@pytest.mark.parametrize(("name", "namespace"), [("7.x", "123"), ("null", "true"), ("a" * 53, "1e3")])
def test_odd_names_of_releases_and_namespaces_are_names_of_objects(
    helm: Callable[..., str], kube: httpx.Client, name: str, namespace: str
) -> None:
    found = documents(helm("template", name, str(CHART), "--namespace", namespace, "--set-string", "token.secret=42"))
    assert {key[1] for key in found} == {"", "kube-node-lease", namespace}
    deployment = next(document for (kind, *_), document in found.items() if kind == "Deployment")
    assert deployment["spec"]["template"]["spec"]["volumes"][0]["secret"]["secretName"] == "42"
    for (kind, within, _), document in found.items():
        if kind in {"Service", "Deployment", "ServiceAccount"}:
            assert within == namespace
            document["metadata"]["namespace"] = "default"
            group = "/api/v1" if document["apiVersion"] == "v1" else f"/apis/{document['apiVersion']}"
            url = f"{group}/namespaces/default/{kind.lower()}s"
            kube.post(url, json=document, params={"dryRun": "All"}).raise_for_status()


# --- a release -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    bwrap = program(tmp_path_factory, "bwrap")
    tried = subprocess.run([bwrap, "--ro-bind", "/", "/", "true"], capture_output=True, text=True, check=False)
    if tried.returncode != 0:
        lacks(f"bubblewrap does not run here: {tried.stderr}")
    directory = tmp_path_factory.mktemp("image")
    directory.chmod(0o755)
    return Image(bwrap, directory, RECIPE)


class Release:
    """A release in a namespace of the control plane, and its Pods in bubblewrap."""

    def __init__(self, kube: httpx.Client, access: Access, namespace: str, image: Image) -> None:
        self.kube, self.access, self.namespace, self.image = kube, access, namespace, image
        self.running: list[Running] = []
        self._directory = image.directory / namespace
        self._directory.mkdir()

    def pods(self, env: str) -> list[Any]:
        """The Pods of the Deployment for an env."""
        found = self.kube.get(f"/api/v1/namespaces/{self.namespace}/pods").raise_for_status().json()["items"]
        variable = {"name": "KOUPLELESS_CONTROLLER_ENV", "value": env}
        return [pod for pod in found if variable in pod["spec"]["containers"][0]["env"]]

    def run(self, pod: Any) -> PodProcess:
        """Run a Pod, on free ports of loopback, and wait until the Pod is ready."""
        spec = pod["spec"]
        (container,) = spec["containers"]
        assert container["command"] == json.loads(self.image.recipe.words["CMD"])
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        context = spec["securityContext"]
        assert (context["runAsUser"], context["runAsGroup"]) == (self.image.user, self.image.group)
        ports = {each["name"]: free_port() for each in container["ports"]}
        server = httpx.URL(self.access.url)
        fields_of_pod = {"status.podIP": "127.0.0.1"}
        environment = {
            each["name"]: each.get("value") or fields_of_pod[each["valueFrom"]["fieldRef"]["fieldPath"]]
            for each in container["env"]
        } | {
            "KOUPLELESS_CONTROLLER_HOST": "127.0.0.1",  # beyond it, the tests do not listen
            "KOUPLELESS_CONTROLLER_PORT": str(ports["bases"]),
            "KOUPLELESS_CONTROLLER_PROBES_PORT": str(ports["probes"]),
            "KOUPLELESS_CONTROLLER_KUBELET_PORT": str(ports.get("kubelet", 10250)),
            "KUBERNETES_SERVICE_HOST": server.host,
            "KUBERNETES_SERVICE_PORT": str(server.port),
        }
        name = f"{pod['metadata']['name']}-{len(self.running)}"
        log = self._directory / f"{name}.log"
        has_scratch = "/tmp" in {mount["mountPath"] for mount in container["volumeMounts"]}
        running = self.image.start(
            None, environment=environment, readable=self._files(name, pod), has_scratch=has_scratch, log=log
        )
        self.running.append(running)
        process = PodProcess(running, ports, container)
        until(lambda: process.probe("readinessProbe") or running.popen.poll() is not None, 60)
        assert running.popen.poll() is None, log.read_text()
        assert process.probe("livenessProbe")
        assert self.image.is_healthy(None, environment)
        return process

    def _files(self, name: str, pod: Any) -> dict[str, Path]:
        """The volumes of a Pod by their places: Secrets, and the files of the service account."""
        spec = pod["spec"]
        volumes = {volume["name"]: volume for volume in spec["volumes"]}
        found: dict[str, Path] = {}
        for mount in spec["containers"][0]["volumeMounts"]:
            volume = volumes[mount["name"]]
            if "emptyDir" in volume:
                assert mount["mountPath"] == "/tmp"
                continue
            assert mount["readOnly"] is True
            path = self._directory / name / mount["name"]
            path.mkdir(parents=True, mode=0o755)
            if "secret" in volume:
                secret = volume["secret"]
                url = f"/api/v1/namespaces/{self.namespace}/secrets/{secret['secretName']}"
                data = self.kube.get(url).raise_for_status().json()["data"]
                files = {key: base64.b64decode(value) for key, value in data.items()}
                mode, group = secret["defaultMode"], spec["securityContext"]["fsGroup"]
            else:
                files, mode, group = self._account(spec["serviceAccountName"]), 0o644, -1
            for key, content in files.items():
                (path / key).write_bytes(content)
                (path / key).chmod(mode)
                if os.getuid() == 0:
                    os.chown(path / key, -1, group)
            found[mount["mountPath"]] = path
        return found

    def _account(self, name: str) -> dict[str, bytes]:
        wanted = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
        url = f"/api/v1/namespaces/{self.namespace}/serviceaccounts/{name}/token"
        token = self.kube.post(url, json=wanted).raise_for_status().json()["status"]["token"]
        authority = Path(self.access.authority).read_bytes()
        return {"token": token.encode(), "ca.crt": authority, "namespace": self.namespace.encode()}

    def secret(self, name: str) -> dict[str, str]:
        data = self.kube.get(f"/api/v1/namespaces/{self.namespace}/secrets/{name}").raise_for_status().json()["data"]
        return {key: base64.b64decode(value).decode() for key, value in data.items()}

    def node(self, env: str) -> Any:
        found = self.kube.get(f"/api/v1/nodes/vnode.base-7.{env}")
        return found.json() if found.is_success else None

    def lease(self, env: str) -> str | None:
        """The holder of the Lease of the Node of the base."""
        found = self.kube.get(f"/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/vnode.base-7.{env}")
        holder: str | None = found.json()["spec"].get("holderIdentity") if found.is_success else None
        return holder


class PodProcess:
    """A Pod that runs."""

    def __init__(self, running: Running, ports: dict[str, int], container: Any) -> None:
        self.running, self.ports, self._container = running, ports, container

    def probe(self, kind: str) -> bool:
        get = self._container[kind]["httpGet"]
        try:
            return httpx.get(f"http://127.0.0.1:{self.ports[get['port']]}{get['path']}").status_code == 200
        except httpx.HTTPError:
            return False

    def hear(self, state: str, *, token: str, authority: Path | None = None) -> int:
        """Send the heartbeat of a base, over TLS with an authority; returns the status of the answer."""
        port = self.ports["bases"]
        metadata = {"identity": "base-7", "name": "shop", "version": "1.0.0", "clusterName": "default"}
        body = {"baseMetadata": metadata, "localIP": "127.0.0.1", "localHostName": "b", "port": 1, "state": state}
        headers = {"Authorization": f"Bearer {token}"}
        url = f"{'https' if authority else 'http'}://127.0.0.1:{port}/heartbeat"
        trusted = ssl.create_default_context(cafile=authority) if authority else False
        return httpx.post(url, json=body, headers=headers, verify=trusted, timeout=20).status_code

    def asks_callers(self, authority: Path) -> bool:
        """Whether the API of a kubelet is served, and strangers are refused."""
        trusted = ssl.create_default_context(cafile=authority)
        try:
            return httpx.get(f"https://127.0.0.1:{self.ports['kubelet']}/pods", verify=trusted).status_code == 401
        except httpx.ConnectError:
            return False


@pytest.fixture
def release(
    kube: httpx.Client, control_plane: Access, namespace: str, image: Image, helm: Callable[..., str]
) -> Iterator[Release]:
    made = Release(kube, control_plane, namespace, image)
    yield made
    for running in made.running:
        running.kill()
    helm("uninstall", "controller", "--namespace", namespace, "--ignore-not-found", "--wait=false")


def objects(kube: httpx.Client, manifest: str) -> list[str]:
    """The kinds and names of the objects of a manifest that are there."""
    found: list[str] = []
    for (kind, namespace, name), document in documents(manifest).items():
        group = "/api/v1" if document["apiVersion"] == "v1" else f"/apis/{document['apiVersion']}"
        within = f"/namespaces/{namespace}" if namespace else ""
        plural = f"{kind.lower()[:-1]}ies" if kind.endswith("y") else f"{kind.lower()}s"
        if kube.get(f"{group}{within}/{plural}/{name}").is_success:
            found.append(f"{kind} {name}")
    return found


@pytest.mark.kube
def test_a_release_runs_in_its_image_is_upgraded_and_leaves_nothing(
    release: Release, kube: httpx.Client, helm: Callable[..., str], tmp_path: Path
) -> None:
    namespace = release.namespace
    first, second = (f"c{time.monotonic_ns()}-{number}" for number in (1, 2))
    strict = {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}}
    merge = {"Content-Type": "application/merge-patch+json"}
    kube.patch(f"/api/v1/namespaces/{namespace}", content=json.dumps(strict), headers=merge).raise_for_status()
    notes = helm("install", "controller", str(CHART), "--namespace", namespace, "--set", f"env={first}")
    manifest = helm("get", "manifest", "controller", "--namespace", namespace)
    assert len(objects(kube, manifest)) == 8

    (command,) = re.findall(r"^ +(kubectl .* create secret .*)$", notes, re.MULTILINE)
    kubeconfig = {**os.environ, "KUBECONFIG": release.access.kubeconfig}
    subprocess.run(["bash", "-c", command], check=True, capture_output=True, env=kubeconfig, timeout=60)
    token = release.secret("controller")["token"]
    assert len(token) == 64
    until(lambda: len(release.pods(first)) == 2, otherwise="there are not two Pods")

    # As the image says, and with the rights of the chart: a base becomes a Node, and the end gives up the Lease.
    process = release.run(release.pods(first)[0])
    assert process.running.status()["NSpid"].split()[-1] == "1"
    assert process.running.status()["Uid"].split()[0] == str(release.image.user) or os.getuid() != 0
    assert process.running.writable() == set()
    assert process.hear("ACTIVATED", token="guessed") == 401
    assert process.hear("ACTIVATED", token=token) == 200
    until(partial(release.node, first), otherwise="the base is no Node")
    until(partial(release.lease, first), otherwise="nobody leads the Node")
    os.kill(process.running.pid, signal.SIGTERM)
    assert process.running.popen.wait(30) == 0, process.running.log.read_text()
    assert not release.lease(first)
    assert "Traceback" not in process.running.log.read_text()

    # Another env, bases over TLS, further settings; the Secret is there, and the notes do not ask for it again.
    served = Authority(tmp_path).issue("controller", addresses="IP:127.0.0.1")
    certificate = [f"--cert={served.certificate}", f"--key={served.key}"]
    command_line = ["kubectl", "--namespace", namespace, "create", "secret", "tls", "served", *certificate]
    subprocess.run(command_line, check=True, capture_output=True, env=kubeconfig, timeout=60)
    values = ["--set", f"env={second}", "--set", "replicas=1", "--set", "tls.secret=served"]
    values += ["--set", "settings.keep-dead-nodes=true", "--set", "networkPolicy.enabled=true"]
    values += ["--set", "kubelet.enabled=true", "--set", "kubelet.secret=served"]
    notes = helm("upgrade", "controller", str(CHART), "--namespace", namespace, *values)
    assert "create secret" not in notes
    assert f"https://controller.{namespace}:7777" in notes
    (pod,) = until(partial(release.pods, second), otherwise="no Pod with the new values")
    process = release.run(pod)
    assert process.hear("ACTIVATED", token=token, authority=tmp_path / "ca.crt") == 200
    until(partial(release.node, second), otherwise="the base is no Node of the new env")
    until(partial(process.asks_callers, tmp_path / "ca.crt"), otherwise="no API of a kubelet")
    process.running.kill()

    manifest += "---\n" + helm("get", "manifest", "controller", "--namespace", namespace)
    assert len(objects(kube, manifest)) == 9
    helm("uninstall", "controller", "--namespace", namespace)
    until(lambda: objects(kube, manifest) == [], otherwise="objects of the release stay")
    for env in (first, second):
        kube.delete(f"/api/v1/nodes/vnode.base-7.{env}")


def test_the_recipe_installs_the_extra_of_the_controller() -> None:
    build, recipe = stages(RECIPE)
    assert "'/build[controller]'" in build.steps[-1]
    assert recipe.words["STOPSIGNAL"] == "SIGTERM"
    known = {f"KOUPLELESS_CONTROLLER_{field.name.removesuffix('_s').upper()}" for field in fields(ControlSettings)}
    assert {name for name in recipe.environment if name.startswith("KOUPLELESS_")} <= known
