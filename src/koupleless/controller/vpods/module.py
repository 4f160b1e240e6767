"""The wanted modules of a Pod: each container as the install of one module, or as a refusal with the reason."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from koupleless.controller.vpods.variables import Missing, expanded, variables_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from koupleless.controller.vpods.pod import VPod
    from koupleless.controller.vpods.variables import Sources, Surroundings

NAME_VARIABLE: Final = "BIZ_NAME"
"""The variable of a container with the name of a module, for a name forbidden to containers."""
VERSION_VARIABLE: Final = "BIZ_VERSION"

_MARK_DIGITS: Final = 16


class ModuleKey(NamedTuple):
    """The identity of a module on a base."""

    name: str
    version: str

    def __str__(self) -> str:
        return f"{self.name}:{self.version}"


@dataclass(frozen=True, slots=True)
class Module:
    """The install of one module."""

    container: str
    key: ModuleKey
    url: str
    args: tuple[str, ...] = ()
    envs: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Values may be secrets."""
    mark: str = ""
    """A digest of the container as written in the Pod; a module with another mark is installed anew.

    Values of ConfigMaps and Secrets are no part: as with a kubelet, changes there concern the next install.
    """


@dataclass(frozen=True, slots=True)
class Refused:
    """A container without a module."""

    container: str
    reason: str
    """One word, as in Kubernetes for waiting containers."""
    message: str
    """The mistake, and the remedy."""


def modules_of(pod: VPod, sources: Sources, around: Surroundings) -> tuple[Module | Refused, ...]:
    """Read the containers of a Pod, in order."""
    marks = _marks(pod.packed_containers)
    return tuple(
        _module(container, mark, pod, sources, around) for container, mark in zip(pod.containers, marks, strict=True)
    )


def _module(
    container: Mapping[str, Any], mark: str, pod: VPod, sources: Sources, around: Surroundings
) -> Module | Refused:
    name = container["name"]
    if pod.has_init_containers:
        message = "modules have no init containers; let the module prepare what it needs when it starts"
        return Refused(name, "InitContainersRefused", message)
    try:
        envs = variables_of(container, pod, sources, around)
    except Missing as missing:
        return Refused(name, missing.reason, str(missing))
    version = envs.pop(VERSION_VARIABLE, "")
    if not version:
        message = f"the container has no variable {VERSION_VARIABLE}; set it to the version of the module"
        return Refused(name, "VersionMissing", message)
    key = ModuleKey(envs.pop(NAME_VARIABLE, "") or name, version)
    args = tuple(expanded(argument, envs) for argument in container.get("args") or ())
    return Module(name, key, container.get("image") or "", args, envs, mark)


@lru_cache(maxsize=1_024)
def _marks(packed_containers: str) -> tuple[str, ...]:
    """Return the mark of each container: the same work for all Pods of a Deployment, done once."""
    return tuple(_mark(container) for container in json.loads(packed_containers))


def _mark(container: Mapping[str, Any]) -> str:
    parts = [container.get(member) for member in ("name", "image", "args", "env", "envFrom")]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:_MARK_DIGITS]
