"""Containers as modules: names, versions, arguments, and the environment as a kubelet folds it."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

import pytest
from tests.controller.documents import NODE, container, leaving, pod

from koupleless.controller.times import seconds_of, time_text
from koupleless.controller.vpods.module import Module, ModuleKey, Refused, modules_of
from koupleless.controller.vpods.pod import Restart, VPod
from koupleless.controller.vpods.variables import Source, Surroundings, expanded, quantity, sources_of, values_of

if TYPE_CHECKING:
    from collections.abc import Mapping

AROUND = Surroundings(NODE, "10.0.0.7")


class Kept:
    """ConfigMaps and Secrets by name."""

    def __init__(self, **values: Mapping[str, str]) -> None:
        self._values = values

    def find(self, source: Source) -> Mapping[str, str] | None:
        return self._values.get(source.name)


def read(document: dict[str, Any], **values: Mapping[str, str]) -> Module | Refused:
    (module,) = modules_of(VPod.of(document), Kept(**values), AROUND)
    return module


def read_envs(*env: dict[str, Any], **values: Mapping[str, str]) -> Mapping[str, str]:
    module = read(pod("orders", container("orders", env=list(env)), metadata={"labels": {"tier": "web"}}), **values)
    assert isinstance(module, Module)
    return module.envs


def test_a_container_is_a_module() -> None:
    module = read(pod("orders-1", container("orders", "1.2.0", args=["--fast"])))
    assert isinstance(module, Module)
    assert module.key == ModuleKey("orders", "1.2.0")
    assert module.url == "https://repo.example/orders-1.2.0.zip"
    assert module.args == ("--fast",)
    assert module.envs == {}


def test_a_variable_names_a_module_that_no_container_may_be_called_after() -> None:
    module = read(pod("orders-1", container("orders", env=[{"name": "BIZ_NAME", "value": "my_orders"}])))
    assert isinstance(module, Module)
    assert module.key.name == "my_orders"
    assert module.envs == {}


def test_a_version_may_be_a_label() -> None:
    one = container("orders")
    one["env"] = [{"name": "BIZ_VERSION", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['version']"}}}]
    module = read(pod("orders-1", one, metadata={"labels": {"version": "7"}}))
    assert isinstance(module, Module)
    assert module.key.version == "7"


def test_a_container_without_a_version_is_refused() -> None:
    one = container("orders")
    one["env"] = []
    refused = read(pod("orders-1", one))
    assert isinstance(refused, Refused)
    assert refused.reason == "VersionMissing"
    assert "BIZ_VERSION" in refused.message


def test_init_containers_are_refused() -> None:
    refused = read(pod("orders-1", container("orders"), spec={"initContainers": [{"name": "wait"}]}))
    assert isinstance(refused, Refused)
    assert refused.reason == "InitContainersRefused"


def test_values_come_from_config_maps_and_secrets() -> None:
    envs = read_envs(
        {"name": "LEVEL", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "level"}}},
        {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "tokens", "key": "api"}}},
        {"name": "MORE", "valueFrom": {"secretKeyRef": {"name": "tokens", "key": "no", "optional": True}}},
        {"name": "NONE", "valueFrom": {"configMapKeyRef": {"name": "absent", "key": "no", "optional": True}}},
        settings={"level": "debug"},
        tokens={"api": "t0ken"},
    )
    assert envs == {"LEVEL": "debug", "TOKEN": "t0ken"}


@pytest.mark.parametrize(
    ("origin", "words"),
    [
        ({"configMapKeyRef": {"name": "absent", "key": "level"}}, "there is no ConfigMap 'absent'"),
        ({"secretKeyRef": {"name": "tokens", "key": "no"}}, "Secret 'tokens' has no key 'no'"),
        ({"fieldRef": {"fieldPath": "spec.hostname"}}, "a module has no field spec.hostname"),
        ({"resourceFieldRef": {"resource": "limits.memory"}}, "the container 'orders' has no limits.memory"),
        ({"fileKeyRef": {"path": "x"}}, "fileKeyRef"),
    ],
)
def test_a_missing_value_is_named(origin: dict[str, Any], words: str) -> None:
    refused = read(pod("orders", container("orders", env=[{"name": "X", "valueFrom": origin}])), tokens={"api": "1"})
    assert isinstance(refused, Refused)
    assert refused.reason == "CreateContainerConfigError"
    assert words in refused.message


def test_whole_sources_come_first_and_the_last_wins() -> None:
    sources = [
        {"configMapRef": {"name": "one"}},
        {"prefix": "P_", "secretRef": {"name": "two"}},
        {"configMapRef": {"name": "absent", "optional": True}},
    ]
    module = read(
        pod("orders", container("orders", env=[{"name": "A", "value": "own"}], envFrom=sources)),
        one={"A": "1", "B": "2", "not a name": "3"},
        two={"C": "4"},
    )
    assert isinstance(module, Module)
    assert module.envs == {"A": "own", "B": "2", "P_C": "4"}


def test_the_pod_tells_of_itself() -> None:
    envs = read_envs(
        *(
            {"name": path.rpartition(".")[2].upper(), "valueFrom": {"fieldRef": {"fieldPath": path}}}
            for path in ("metadata.name", "metadata.namespace", "spec.nodeName", "status.podIP")
        ),
        {"name": "TIER", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['tier']"}}},
    )
    assert envs == {"NAME": "orders", "NAMESPACE": "shop", "NODENAME": NODE, "PODIP": "10.0.0.7", "TIER": "web"}


def test_resources_are_rounded_up() -> None:
    env = [
        {"name": "CPU", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}},
        {"name": "MIB", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory", "divisor": "1Mi"}}},
    ]
    module = read(pod("orders", container("orders", env=env, resources={"limits": {"cpu": "250m", "memory": "64Mi"}})))
    assert isinstance(module, Module)
    assert module.envs == {"CPU": "1", "MIB": "64"}


def test_variables_refer_to_earlier_ones() -> None:
    envs = read_envs(
        {"name": "HOST", "value": "db"},
        {"name": "URL", "value": "pg://$(HOST)/$(LATER) $$(HOST)"},
        {"name": "LATER", "value": "x"},
    )
    assert envs["URL"] == "pg://db/$(LATER) $(HOST)"
    module = read(pod("orders", container("orders", args=["--at=$(A)"], env=[{"name": "A", "value": "1"}])))
    assert isinstance(module, Module)
    assert module.args == ("--at=1",)


@pytest.mark.parametrize(
    ("text", "number"), [("1", 1), ("100m", 0.1), ("2k", 2000), ("1Ki", 1024), ("1.5Gi", 1.5 * 2**30), ("1e3", 1000)]
)
def test_quantities(text: str, number: float) -> None:
    assert quantity(text) == pytest.approx(number)


def test_other_texts_are_no_quantities() -> None:
    with pytest.raises(ValueError, match="no quantity"):
        quantity("1 GB")


def test_sources_are_named_before_they_are_fetched() -> None:
    one = container(
        "orders",
        env=[{"name": "X", "valueFrom": {"secretKeyRef": {"name": "tokens", "key": "x"}}}],
        envFrom=[{"configMapRef": {"name": "settings"}}],
    )
    assert list(sources_of(one)) == [Source("ConfigMap", "settings"), Source("Secret", "tokens")]


def test_bytes_of_a_secret_that_are_no_text_are_left_out() -> None:
    data = {"text": base64.b64encode(b"t0ken").decode(), "bytes": base64.b64encode(b"\xff\xfe").decode()}
    assert values_of({"kind": "Secret", "data": data}) == {"text": "t0ken"}
    assert values_of({"kind": "ConfigMap", "data": {"a": "b"}}) == {"a": "b"}


def test_unknown_references_stay_as_written() -> None:
    assert expanded("$(A) $$ $(B", {}) == "$(A) $ $(B"


def test_a_mark_tells_containers_apart_and_not_the_values_of_secrets() -> None:
    env = [{"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "tokens", "key": "api"}}}]
    document = pod("orders", container("orders", env=env))
    one, other = (read(document, tokens={"api": value}) for value in ("1", "2"))
    changed = read(
        pod("orders", container("orders", image="https://repo.example/other.zip", env=env)), tokens={"api": "1"}
    )
    assert isinstance(one, Module)
    assert isinstance(other, Module)
    assert isinstance(changed, Module)
    assert one.mark == other.mark != changed.mark
    assert "t0ken" not in repr(read(document, tokens={"api": "t0ken"}))


def test_a_pod_is_read() -> None:
    document = pod("orders-1", container("orders"), spec={"restartPolicy": "Never", "terminationGracePeriodSeconds": 5})
    read_pod = VPod.of(document)
    assert read_pod.node == NODE
    assert read_pod.restart is Restart.NEVER
    assert read_pod.grace_s == 5
    assert read_pod.is_wanted
    assert not VPod.of(leaving(document)).is_wanted
    assert not VPod.of({**document, "status": {"phase": "Succeeded"}}).is_wanted


def test_times_of_the_api_server() -> None:
    assert time_text(seconds_of("2026-01-01T00:00:01Z") + 0.9) == "2026-01-01T00:00:01Z"
