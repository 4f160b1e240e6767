"""JSON documents as the API server sends them, with the members that a test is about."""

from __future__ import annotations

from typing import Any

NODE = "vnode.base-1.dev"


def container(name: str, version: str = "1.0.0", *, image: str = "", **members: Any) -> dict[str, Any]:
    """Make a container that is a module."""
    env = [{"name": "BIZ_VERSION", "value": version}, *members.pop("env", ())]
    return {"name": name, "image": image or f"https://repo.example/{name}-{version}.zip", "env": env, **members}


def pod(name: str, *containers: dict[str, Any], created: int = 0, **members: Any) -> dict[str, Any]:
    """Make a Pod on `NODE`, created some seconds after the others."""
    metadata = {
        "namespace": "shop",
        "name": name,
        "uid": f"uid-{name}",
        "creationTimestamp": f"2026-01-01T00:{created // 60:02}:{created % 60:02}Z",
        **members.pop("metadata", {}),
    }
    spec = {"nodeName": NODE, "containers": list(containers), **members.pop("spec", {})}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec, **members}


def leaving(document: dict[str, Any], *, grace_s: int = 30) -> dict[str, Any]:
    """Return a Pod that is being deleted."""
    times = {"deletionTimestamp": "2026-01-01T01:00:30Z", "deletionGracePeriodSeconds": grace_s}
    return {**document, "metadata": {**document["metadata"], **times}}
