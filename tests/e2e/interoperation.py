"""The checklist of a base under any module controller, the original's or ours, on a control plane of Kubernetes.

Run by a test with our controller, and by ``scripts/interoperate`` with the original one, where Go can build it:

    python -m tests.e2e.interoperation --programs DIRECTORY --controller PROGRAM [--broker HOST:PORT]
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tests.conftest import free_port, until
from tests.e2e.conftest import BaseProcess
from tests.kube.fixtures import client_of
from tests.kube.plane import hold
from tests.state.conftest import make_module

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import httpx
    from tests.kube.plane import Access

MERGE: Final = {"Content-Type": "application/merge-patch+json"}
NAME: Final = "hello"


@dataclass(frozen=True)
class Way:
    """The way between base and controller: the port of the controller, or a broker."""

    port: int
    broker: str = ""
    """Host and port; empty means HTTP."""

    def of_base(self) -> list[str]:
        """The options of ``arkctl serve``."""
        return [] if self.broker else ["--controller", f"127.0.0.1:{self.port}"]

    def variables_of_base(self) -> dict[str, str]:
        host, _, port = self.broker.rpartition(":")
        named = {"BROKER": host, "PORT": port, "USERNAME": "base", "PASSWORD": "base", "CLIENT_PREFIX": "koupleless"}
        return {f"KOUPLELESS_ARKLET_MQTT_{name}": value for name, value in named.items()} if self.broker else {}

    def of_controller(self, env: str) -> dict[str, str]:
        """The variables of a controller, by the names of the original."""
        host, _, port = self.broker.rpartition(":")
        broker = {
            "ENABLE_HTTP_TUNNEL": "false",
            "ENABLE_MQTT_TUNNEL": "true",
            "MQTT_BROKER": host,
            "MQTT_PORT": port,
            "MQTT_USERNAME": "controller",
            "MQTT_PASSWORD": "controller",
        }
        door = {"ENABLE_HTTP_TUNNEL": "true", "HTTP_TUNNEL_LISTEN_PORT": str(self.port)}
        return {"ENV": env, "CLIENT_ID": f"controller-{env}", **(broker if self.broker else door)}


@dataclass(frozen=True)
class Place:
    """A namespace of a control plane."""

    kube: httpx.Client
    namespace: str

    @property
    def deployments(self) -> str:
        return f"/apis/apps/v1/namespaces/{self.namespace}/deployments"

    def document(self, url: str, version: str, base: str) -> dict[str, Any]:
        """A Deployment of one module, of which a base may have the Pods of two revisions."""
        apart = {
            "labelSelector": {"matchLabels": {"module": NAME}},
            "topologyKey": "kubernetes.io/hostname",
            "matchLabelKeys": ["pod-template-hash"],
        }
        spec = {
            "containers": [{"name": NAME, "image": url, "env": [{"name": "BIZ_VERSION", "value": version}]}],
            "nodeSelector": {"base.koupleless.io/name": base},
            "tolerations": [{"operator": "Exists"}],
            "terminationGracePeriodSeconds": 5,
            "affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [apart]}},
        }
        labels = {"module": NAME, "virtual-kubelet.koupleless.io/component": "module"}
        return {
            "metadata": {"name": NAME},
            "spec": {
                "selector": {"matchLabels": {"module": NAME}},
                "strategy": {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
                "template": {"metadata": {"labels": labels}, "spec": spec},
            },
        }

    def create(self, document: Mapping[str, Any]) -> None:
        self.kube.post(self.deployments, json=document).raise_for_status()

    def change(self, document: Mapping[str, Any]) -> None:
        content = json.dumps({"spec": {"template": document["spec"]["template"]}})
        self.kube.patch(f"{self.deployments}/{NAME}", content=content, headers=MERGE).raise_for_status()

    def is_rolled_out(self) -> bool:
        found = self.kube.get(f"{self.deployments}/{NAME}").json()
        counts = [found["status"].get(name) for name in ("replicas", "updatedReplicas", "availableReplicas")]
        return counts == [1, 1, 1] and found["status"]["observedGeneration"] == found["metadata"]["generation"]

    def delete(self) -> None:
        self.kube.delete(f"{self.deployments}/{NAME}").raise_for_status()

    def pods(self) -> list[Any]:
        items: list[Any] = self.kube.get(f"/api/v1/namespaces/{self.namespace}/pods").json()["items"]
        return items

    def node(self, base: str) -> Any:
        selector = f"base.koupleless.io/name={base}"
        items = self.kube.get("/api/v1/nodes", params={"labelSelector": selector}).json()["items"]
        return items[0] if items else None


@dataclass(frozen=True)
class Step:
    """A line of the checklist that holds, and the seconds until it did."""

    name: str
    seconds: float


def check(place: Place, base: BaseProcess, env: str, directory: Path, *, within_s: float = 30) -> Iterator[Step]:
    """Go through the checklist, step by step. Raises ``AssertionError`` at the first line that does not hold."""

    def states() -> dict[str, str]:
        return {biz["bizVersion"]: biz["bizState"] for biz in base.ask("queryAllBiz") if biz["bizName"] == NAME}

    def step(name: str, holds: Callable[[], object]) -> Step:
        begun = time.monotonic()
        until(holds, within_s, otherwise=f"{name}: it did not come to pass; {states()}")
        return Step(name, round(time.monotonic() - begun, 2))

    def is_ready() -> bool:
        conditions = (place.node(env) or {}).get("status", {}).get("conditions", ())
        return any((one["type"], one["status"]) == ("Ready", "True") for one in conditions)

    yield step("a base that sends heartbeats is a ready Node", is_ready)
    node = place.node(env)
    assert node["metadata"]["name"].endswith(f".{env}"), node["metadata"]["name"]
    assert {taint["key"] for taint in node["spec"]["taints"]} >= {
        "schedule.koupleless.io/virtual-node",
        "schedule.koupleless.io/node-env",
    }
    urls: dict[str, str] = {}
    for version in ("1", "2"):  # the original counts only containers with ".jar" in the image
        made = make_module(directory, f"{NAME}:{version}")
        urls[version] = Path(shutil.copy(made, made.with_name(f"{NAME}-{version}.jar"))).as_uri()
    place.create(place.document(urls["1"], "1", env))
    yield step("a Deployment installs a module", place.is_rolled_out)
    assert states() == {"1": "ACTIVATED"}, states()
    assert base.get(f"/{NAME}/").text == f"{NAME}:1"
    (pod,) = place.pods()
    assert pod["status"]["podIP"] == node["status"]["addresses"][0]["address"]

    place.change(place.document(urls["2"], "2", env))
    yield step("another version of the Deployment replaces the module", place.is_rolled_out)
    yield step("the former version leaves the base", lambda: states() == {"2": "ACTIVATED"})
    assert base.get(f"/{NAME}/").text == f"{NAME}:2"

    base.ask("installBiz", bizUrl=make_module(directory, "stray:1").as_uri())

    def is_alone() -> bool:
        return {biz["bizName"] for biz in base.ask("queryAllBiz")} == {NAME}

    yield step("a module without a Pod is uninstalled", is_alone)
    place.delete()
    yield step("a deleted Deployment takes the module along", lambda: states() == {})
    yield step("its Pods are gone", lambda: not place.pods())
    base.ask_to_end()
    yield step("a base that ends is no Node any more", lambda: place.node(env) is None)


def serve_base(way: Way, env: str, directory: Path) -> BaseProcess:
    """Start our base, as the checklist needs one."""
    before = dict(os.environ)
    os.environ.update({**way.variables_of_base(), "KOUPLELESS_ARKLET_ENVIRONMENT": env})
    try:
        options = ["--name", env, "--ephemeral", *way.of_base()]
        return BaseProcess(options, cwd=directory, log=directory / "base.log")
    finally:
        os.environ.clear()
        os.environ.update(before)


# --- by hand ---------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _running(command: Sequence[str], variables: Mapping[str, str], log: Path) -> Iterator[None]:
    with log.open("wb") as file:
        popen = subprocess.Popen(command, stdout=file, stderr=file, env={**os.environ, **variables}, cwd=log.parent)
    try:
        yield
    finally:
        popen.terminate()
        try:
            popen.wait(30)
        except subprocess.TimeoutExpired:
            popen.kill()
            popen.wait()


def _kubeconfig(access: Access, directory: Path) -> str:
    path = directory / "kubeconfig"
    path.write_text(json.dumps(access.kubeconfig_of("admin")), encoding="utf-8")
    return str(path)


def _main() -> int:
    parser = argparse.ArgumentParser(description="A base of ours under a module controller, by the checklist.")
    parser.add_argument("--programs", type=Path, required=True, help="those of `scripts/kube build`")
    parser.add_argument("--controller", required=True, help="the command of the controller; `ours` for arkctl")
    parser.add_argument("--broker", default="", help="HOST:PORT, for MQTT in the place of HTTP")
    parser.add_argument("--within", type=float, default=120, help="the seconds for each line")
    given = parser.parse_args()
    env = f"e{time.time_ns() // 1_000_000}"
    with tempfile.TemporaryDirectory(prefix="interoperation-") as name, contextlib.ExitStack() as closing:
        directory = Path(name)
        (directory / "kube").mkdir()
        held = hold(directory / "kube", given.programs)
        closing.callback(held.release)
        kube = closing.enter_context(client_of(held.access))
        kube.post("/api/v1/namespaces", json={"metadata": {"name": env}}).raise_for_status()
        account = f"/api/v1/namespaces/{env}/serviceaccounts/default"
        until(lambda: kube.get(account).is_success)
        way = Way(free_port(), given.broker)
        ours = [sys.executable, "-P", "-m", "koupleless", "controller"]
        command = ours if given.controller == "ours" else [given.controller]
        variables = {**way.of_controller(env), "KUBECONFIG": _kubeconfig(held.access, directory)}
        variables["KOUPLELESS_CONTROLLER_PROBES_PORT"] = str(free_port())  # fixed in the original
        log = directory / "controller.log"
        closing.enter_context(_running(command, variables, log))
        base = serve_base(way, env, directory)
        closing.callback(base.end)
        try:
            for step in check(Place(kube, env), base, env, directory, within_s=given.within):
                print(json.dumps(dataclasses.asdict(step)), flush=True)
        except AssertionError as error:
            print(f"{error}\n{log.read_text(errors='replace')[-4000:]}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(_main())
