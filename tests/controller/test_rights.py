"""The rights of a controller on the real control plane: started with none, given each as it is named missing.

So the rights of the examples suffice, each is needed, and an operator learns the name of each from the log and /readyz.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest
import yaml  # type: ignore[import-untyped]
from tests.controller.conftest import secured
from tests.controller.documents import container
from tests.controller.floor import APPS, Bases, Floor, floor_on, restarted
from tests.controller.test_watching import ask

from koupleless.controller import names
from koupleless.controller.bases.steward import Habits
from koupleless.controller.cluster.api import Api
from koupleless.controller.cluster.reviews import TokenReviews
from koupleless.controller.controller import Choices, Controller
from koupleless.controller.doors.credentials import SecretCredentials
from koupleless.controller.doors.porter import Caller, Porter, Refused
from koupleless.controller.doors.tokens import ReadToken
from koupleless.controller.tunnels.answers import Answer, Outcome
from koupleless.controller.vnodes.base import BaseState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import httpx
    from tests.kube.plane import Access

    from koupleless.controller.vnodes.base import AnnouncedBase

EXAMPLE: Final = Path(__file__).parents[2] / "examples" / "kubernetes" / "controller.yaml"
RBAC: Final = "/apis/rbac.authorization.k8s.io/v1"
LEASES: Final = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
ELSEWHERE: Final = frozenset(
    {
        "create subjectaccessreviews.authorization.k8s.io",
        "create certificatesigningrequests.certificates.k8s.io",
        "get certificatesigningrequests.certificates.k8s.io",
    }
)
"""Rights of the example for the kubelet's API, which other tests start."""


def rights_of_the_example() -> set[str]:
    """Return the rights in the words of the controller, as ``patch deployments.apps``."""
    found = set()
    for document in yaml.safe_load_all(EXAMPLE.read_text(encoding="utf-8")):
        for rule in document.get("rules", ()):
            for group in rule["apiGroups"]:
                suffix = f".{group}" if group else ""
                found |= {f"{verb} {resource}{suffix}" for resource in rule["resources"] for verb in rule["verbs"]}
    return found


class Operator:
    """Gives an account each right that is named missing."""

    def __init__(self, client: httpx.Client, name: str) -> None:
        self.client = client
        self.name = name
        self.given: set[str] = set()

    def begin(self, namespace: str) -> str:
        """Make the account with no right; returns a token."""
        account = f"/api/v1/namespaces/{namespace}/serviceaccounts"
        self.client.post(account, json={"metadata": {"name": "controller"}}).raise_for_status()
        self.client.post(f"{RBAC}/clusterroles", json=self._role()).raise_for_status()
        binding = {
            "metadata": {"name": self.name},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": self.name},
            "subjects": [{"kind": "ServiceAccount", "name": "controller", "namespace": namespace}],
        }
        self.client.post(f"{RBAC}/clusterrolebindings", json=binding).raise_for_status()
        return self.token(account, "controller")

    def token(self, account: str, name: str, **spec: Any) -> str:
        wanted = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
        made = self.client.post(f"{account}/{name}/token", json=wanted).raise_for_status()
        return str(made.json()["status"]["token"])

    def give(self, missing: list[str]) -> None:
        if not set(missing) <= self.given:
            self.given |= set(missing)
            self.client.put(f"{RBAC}/clusterroles/{self.name}", json=self._role()).raise_for_status()

    def end(self) -> None:
        for kind in ("clusterroles", "clusterrolebindings"):
            self.client.delete(f"{RBAC}/{kind}/{self.name}")

    def _role(self) -> dict[str, Any]:
        rules = []
        for right in sorted(self.given):
            verb, _, whole = right.partition(" ")
            resource, _, group = whole.partition(".")
            rules.append({"apiGroups": [group], "resources": [resource], "verbs": [verb]})
        return {"metadata": {"name": self.name}, "rules": rules}


@pytest.fixture
def floor(control_plane: Access, namespace: str) -> Iterator[Floor]:
    with floor_on(control_plane, namespace, bases=1) as made:
        yield made


async def eventually(act: Callable[[], Any]) -> Any:
    """Repeat a call to the API server until the right for it is given."""
    while True:
        try:
            return await act()
        except Exception:  # noqa: BLE001 - refusals of several kinds
            await asyncio.sleep(0.05)


@pytest.mark.kube
def test_a_controller_without_rights_names_each_right_that_it_needs_and_no_other(
    floor: Floor, control_plane: Access, namespace: str
) -> None:
    operator = Operator(floor.client, f"rights-{floor.env}")
    token = operator.begin(namespace)

    async def run() -> None:
        config = secured(control_plane, "controller", token)
        choices = Choices("one", Habits(env=floor.env), syncs_replicas=True)
        tunnel = Bases(floor.bases)
        async with asyncio.timeout(90), Controller(config, tunnel, choices) as controller, Api(config) as doors:
            async with asyncio.timeout(20):
                while not controller.missing_rights():  # noqa: ASYNC110 - told nowhere else
                    await asyncio.sleep(0.02)
            answer = await ask(controller, "/readyz")
            assert answer.status_code == 503
            assert "lacks rights" in answer.text
            assert operator.given == set()

            async def keep_giving() -> None:
                while True:
                    missing = [*controller.missing_rights(), *doors.denied()]
                    await asyncio.to_thread(operator.give, missing)
                    await asyncio.sleep(0.05)

            giving = asyncio.create_task(keep_giving())
            await live_through_everything(floor, controller, doors, operator, namespace)
            async with asyncio.timeout(20):  # the first renewal of a Lease comes after ten seconds
                while "patch leases.coordination.k8s.io" not in operator.given:  # noqa: ASYNC110 - as above
                    await asyncio.sleep(0.05)
            giving.cancel()
            assert (await ask(controller, "/readyz")).status_code == 200
        assert operator.given == rights_of_the_example() - ELSEWHERE

    try:
        asyncio.run(run())
    finally:
        operator.end()


@pytest.mark.kube
def test_the_server_takes_the_policies_of_the_example_and_their_ports_are_there(kube: httpx.Client) -> None:
    ports = {
        port["name"]
        for document in yaml.safe_load_all(EXAMPLE.read_text(encoding="utf-8"))
        if document["kind"] == "Deployment"
        for port in document["spec"]["template"]["spec"]["containers"][0]["ports"]
    } | {"http", "arklet", 10250}  # the last one with --kubelet alone
    policies = [*yaml.safe_load_all(EXAMPLE.with_name("network.yaml").read_text(encoding="utf-8"))]
    assert len(policies) == 2
    for policy in policies:
        for rule in policy["spec"]["ingress"]:
            assert {port["port"] for port in rule["ports"]} <= ports
        namespace = policy["metadata"]["namespace"]
        made = kube.post("/api/v1/namespaces", json={"metadata": {"name": namespace}})
        assert made.status_code in {201, 409}
        path = f"/apis/networking.k8s.io/v1/namespaces/{namespace}/networkpolicies"
        made = kube.post(path, params={"fieldValidation": "Strict"}, json=policy)
        assert made.status_code == 201, made.text
        kube.delete(f"{path}/{policy['metadata']['name']}").raise_for_status()


async def live_through_everything(
    floor: Floor, controller: Controller, doors: Api, operator: Operator, namespace: str
) -> None:
    (identity,) = floor.bases
    base, there = floor.announced[identity], floor.bases[identity]
    node = f"/api/v1/nodes/{floor.node(identity)}"
    await controller.ready()
    controller.hear(base)
    await floor.soon(lambda: floor.is_ready(node))

    # labels of the Node
    controller.hear(replace(restarted(base), version="2.0"))

    async def is_told() -> bool:
        found = await floor.get(node)
        return found is not None and found["metadata"]["labels"][names.BASE_VERSION] == "2.0"

    await floor.soon(is_told)

    # a Pod with variables from elsewhere, that fails twice, starts, and is deleted
    pods, objects = f"/api/v1/namespaces/{namespace}/pods", f"/api/v1/namespaces/{namespace}"
    await floor.create(f"{objects}/configmaps", {"metadata": {"name": "c"}, "data": {"A": "1"}})
    await floor.create(f"{objects}/secrets", {"metadata": {"name": "s"}, "stringData": {"B": "2", "token": "t0ken"}})
    there.failing["install orders:1"] = Answer(Outcome.REFUSED, "StartFailed", "no such table: orders")
    sources = [{"configMapRef": {"name": "c"}}, {"secretRef": {"name": "s"}}]
    await floor.create_pod("a", identity, container("orders", "1", envFrom=sources))

    async def is_counted() -> bool:
        found = await floor.get(f"{objects}/events")
        return any(one["reason"] == "ModuleInstallFailed" and one.get("count", 1) > 1 for one in found["items"])  # type: ignore[index]

    await floor.soon(is_counted)
    there.failing.clear()
    await floor.soon(lambda: floor.is_pod_ready("a"))
    await floor.ask("DELETE", f"{pods}/a")

    async def is_gone() -> bool:
        return await floor.get(f"{pods}/a") is None

    await floor.soon(is_gone)

    # a Deployment that follows the bases, with gates
    template = floor.template(schedulingGates=[{"name": "rollout.koupleless.io/batch"}])
    await floor.create(
        f"{APPS}/{namespace}/deployments",
        {
            "metadata": {
                "name": "shop",
                "labels": {names.ENV: floor.env, names.STRATEGY: "peer", names.BASE_CLUSTER: "default"},
                "annotations": {"service.koupleless.io/port": "80", "service.koupleless.io/target-port": "8080"},
            },
            "spec": {"replicas": 0, "selector": {"matchLabels": {"app": "shop"}}, "template": template},
        },
    )
    await floor.soon(lambda: floor.holds(1, version="1"))
    await have_a_service(floor, controller, f"{APPS}/{namespace}/deployments/shop", base)

    # a base with the token of its service account, and an arklet with a token of its own
    await speak(floor, doors, operator, namespace)
    credentials = SecretCredentials(doors, f"{namespace}/s", ReadToken(lambda: None))

    async def is_read() -> None:
        assert await credentials.tokens(base) == ["t0ken"]

    await eventually(is_read)

    # the end
    await floor.ask("DELETE", f"{APPS}/{namespace}/deployments/shop")
    controller.hear(replace(base, state=BaseState.DEACTIVATED))

    async def is_over() -> bool:
        return await floor.get(node) is None and await floor.get(f"{LEASES}/{floor.node(identity)}") is None

    await floor.soon(is_over)


async def have_a_service(floor: Floor, controller: Controller, deployment: str, base: AnnouncedBase) -> None:
    """Give the module of a Deployment a Service: first with a name that is taken, at last none."""
    services = f"/api/v1/namespaces/{floor.namespace}/services"
    slices = f"/apis/discovery.k8s.io/v1/namespaces/{floor.namespace}/endpointslices"
    await floor.create(services, {"metadata": {"name": "theirs"}, "spec": {"ports": [{"port": 1}]}})

    async def annotate(**texts: str | None) -> None:
        annotations = {names.SERVICE + name.replace("_", "-"): text for name, text in texts.items()}
        await floor.patch(deployment, {"metadata": {"annotations": annotations}})

    async def is_taken() -> bool:
        found = await floor.get(f"/api/v1/namespaces/{floor.namespace}/events") or {}
        return any(one["reason"] == "ServiceTaken" for one in found["items"])

    async def ready() -> list[tuple[str, int]]:
        found = await floor.get(slices) or {}
        return [
            (end["addresses"][0], one["ports"][0]["port"])
            for one in found["items"]
            for end in one["endpoints"]
            if end["conditions"]["ready"]
        ]

    async def is_ready_at(ip: str, port: int) -> bool:
        return await ready() == [(ip, port)]

    async def is_gone() -> bool:
        return await floor.get(f"{services}/shop") is None

    async def is_for_nodes() -> bool:
        return bool(((await floor.get(f"{services}/shop")) or {})["spec"]["type"] == "NodePort")

    await annotate(port="80", target_port="8080", name="theirs")
    await floor.soon(is_taken)
    await annotate(name=None)
    await floor.soon(lambda: is_ready_at("10.0.0.1", 8080))
    controller.hear(replace(restarted(base), ip="10.0.0.2"))
    await floor.soon(lambda: is_ready_at("10.0.0.2", 8080))
    await annotate(target_port="8081", type="NodePort")
    await floor.soon(lambda: is_ready_at("10.0.0.2", 8081))
    await floor.soon(is_for_nodes)
    await annotate(port=None)
    await floor.soon(is_gone)


async def speak(floor: Floor, doors: Api, operator: Operator, namespace: str) -> None:
    """Speak for a base with a token that is bound to a Pod, as long as the Pod is there."""
    objects = f"/api/v1/namespaces/{namespace}"
    await floor.create(f"{objects}/serviceaccounts", {"metadata": {"name": "base"}})
    spec = {"serviceAccountName": "base", "containers": [{"name": "base", "image": "x"}], "nodeName": "elsewhere"}
    await floor.create(f"{objects}/pods", {"metadata": {"name": "base-0"}, "spec": spec})
    found = await floor.get(f"{objects}/pods/base-0")
    assert found is not None
    await floor.patch(
        f"{objects}/pods/base-0/status", {"status": {"podIP": "10.1.1.1", "podIPs": [{"ip": "10.1.1.1"}]}}
    )
    bound = {"kind": "Pod", "apiVersion": "v1", "name": "base-0", "uid": found["metadata"]["uid"]}
    token = operator.token(f"{objects}/serviceaccounts", "base", audiences=["koupleless"], boundObjectRef=bound)

    def porter() -> Porter:
        return Porter(reviews=TokenReviews(doors, ["koupleless"]), pods=doors, accounts=[f"{namespace}/base"])

    async def admitted() -> Caller:
        return await porter().admit(f"Bearer {token}")

    caller = await eventually(admitted)
    assert caller == Caller(f"{namespace}/base", "base-0", frozenset({"10.1.1.1"}))
    await floor.ask("DELETE", f"{objects}/pods/base-0?gracePeriodSeconds=0")
    with pytest.raises(Refused):
        await admitted()
