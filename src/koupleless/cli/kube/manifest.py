"""Workloads for modules: the Deployment or DaemonSet of an artefact, with the members for updates without a gap."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from koupleless.controller import names
from koupleless.controller.batches.wishes import BATCHES, BETA, CONFIRM, GATE
from koupleless.controller.services.wishes import PORT
from koupleless.controller.vpods.module import NAME_VARIABLE, VERSION_VARIABLE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from koupleless.biz import BizId

_MODULE: Final = "module"
"""The label by which a workload knows its Pods."""
_LABEL: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Choices:
    """The choices of an operator about the workload of a module."""

    image: str
    """The location from which bases fetch the artefact."""
    base: str
    env: str = "dev"
    base_version: str | None = None
    selected: Mapping[str, str] | None = None
    """Further labels of the Nodes to choose from."""
    name: str | None = None
    """The name of the workload; ``None`` means that of the module."""
    replicas: int = 1
    is_everywhere: bool = False
    """Whether every chosen base gets the module, as a DaemonSet."""
    batches: int | None = None
    """The number of batches of a rollout; ``None`` means that of `has_beta`, else one."""
    has_beta: bool = False
    """Whether the first batch is one base, and waits for a confirmation."""
    confirms: bool = False
    """Whether every batch but the last waits for a confirmation."""
    service_port: int | None = None
    """The port of a Service of the module; ``None`` means no Service."""

    def annotations(self) -> dict[str, str]:
        """Return the annotations of the Deployment, for the controller of the `env`."""
        wishes = {
            BATCHES: "" if self.batches is None else str(self.batches),
            BETA: "true" if self.has_beta else "",
            CONFIRM: "true" if self.confirms else "",
            PORT: "" if self.service_port is None else str(self.service_port),
        }
        return {name: text for name, text in wishes.items() if text}


def workload_of(module: BizId, choices: Choices) -> dict[str, Any]:
    """Make the workload of one module."""
    container_name = label_of(module.name)
    name = choices.name or container_name
    variables = [{"name": VERSION_VARIABLE, "value": module.version}]
    if container_name != module.name:
        variables.insert(0, {"name": NAME_VARIABLE, "value": module.name})
    selector = {names.ENV: choices.env, names.BASE_NAME: names.label_value(choices.base)}
    if choices.base_version is not None:
        selector[names.BASE_VERSION] = names.label_value(choices.base_version)
    spec: dict[str, Any] = {
        "nodeSelector": {**selector, **(choices.selected or {})},
        "tolerations": [
            {"key": names.TAINT_VIRTUAL, "operator": "Equal", "value": "True", "effect": "NoExecute"},
            {"key": names.TAINT_ENV, "operator": "Equal", "value": choices.env, "effect": "NoExecute"},
        ],
        "containers": [{"name": container_name, "image": choices.image, "env": variables}],
    }
    gapless = {"maxSurge": 1, "maxUnavailable": 0}
    labels = {_MODULE: name}
    document: dict[str, Any] = {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet" if choices.is_everywhere else "Deployment",
        "metadata": {"name": name, "labels": dict(labels)},
        "spec": {"selector": {"matchLabels": dict(labels)}},
    }
    if choices.is_everywhere:
        document["spec"]["updateStrategy"] = {"rollingUpdate": gapless}
    else:
        document["spec"] |= {"replicas": choices.replicas, "strategy": {"rollingUpdate": gapless}}
        spec["affinity"] = {"podAntiAffinity": _one_on_each_base(labels)}
        if annotations := choices.annotations():
            document["metadata"]["labels"][names.ENV] = choices.env
            document["metadata"]["annotations"] = annotations
        if {BATCHES, BETA, CONFIRM} & annotations.keys():
            spec["schedulingGates"] = [{"name": GATE}]
    document["spec"]["template"] = {"metadata": {"labels": {**labels, names.COMPONENT: names.MODULE}}, "spec": spec}
    return document


def _one_on_each_base(labels: Mapping[str, str]) -> dict[str, Sequence[Any]]:
    """Keep Pods of one revision on different bases; those of two revisions may share a base during an update.

    A Pod rather comes to a base without any revision: else a lost Pod might come back to the base of another.
    """
    term = {
        "labelSelector": {"matchLabels": dict(labels)},
        "topologyKey": names.BASE_IDENTITY,
        "matchLabelKeys": ["pod-template-hash"],
    }
    any_revision = {"labelSelector": {"matchLabels": dict(labels)}, "topologyKey": names.BASE_IDENTITY}
    return {
        "requiredDuringSchedulingIgnoredDuringExecution": [term],
        "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 100, "podAffinityTerm": any_revision}],
    }


def label_of(text: str) -> str:
    """Return a text as the name of a container, as near as can be."""
    if _LABEL.fullmatch(text):
        return text
    mapped = re.sub(r"[^a-z0-9-]+", "-", text.lower()).strip("-")[:63].rstrip("-")
    return mapped or _MODULE
