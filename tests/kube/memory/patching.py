"""The kinds of patch that the API server takes, as functions from a document and a patch to a new document."""

from __future__ import annotations

import copy
from typing import Any, Final

KEYS: Final = {
    "addresses": "type",
    "conditions": "type",
    "containers": "name",
    "env": "name",
    "hostIPs": "ip",
    "imagePullSecrets": "name",
    "initContainers": "name",
    "ownerReferences": "uid",
    "podIPs": "ip",
    "schedulingGates": "name",
    "volumes": "name",
}
"""Lists that a strategic merge joins entry by entry, and the member that names an entry; other lists are replaced."""
_MERGED_VALUES: Final = ("finalizers",)


class BadPatch(Exception):
    """The patch cannot be applied to this document."""


def merge(document: Any, patch: Any) -> Any:
    """A JSON merge patch (RFC 7386)."""
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    result = dict(document) if isinstance(document, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merge(result.get(name), value)
    return result


def strategic_merge(document: Any, patch: Any) -> Any:
    """A strategic merge patch: as a merge patch, but lists of named entries are joined."""
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    if patch.get("$patch") == "replace":
        return copy.deepcopy({name: value for name, value in patch.items() if name != "$patch"})
    result = dict(document) if isinstance(document, dict) else {}
    for name, value in patch.items():
        if name.startswith("$deleteFromPrimitiveList/"):
            field = name.partition("/")[2]
            result[field] = [one for one in result.get(field, []) if one not in value]
        elif name.startswith(("$setElementOrder/", "$retainKeys")):
            continue  # an order, or members of a union, which no test depends on
        elif value is None:
            result.pop(name, None)
        elif name in KEYS and isinstance(value, list):
            result[name] = _joined(result.get(name) or [], value, KEYS[name])
        elif name in _MERGED_VALUES and isinstance(value, list):
            result[name] = [*result.get(name, []), *(one for one in value if one not in result.get(name, []))]
        else:
            result[name] = strategic_merge(result.get(name), value)
    return result


def _joined(entries: list[Any], patches: list[Any], key: str) -> list[Any]:
    if any(patch.get("$patch") == "replace" for patch in patches):
        return [copy.deepcopy(patch) for patch in patches if "$patch" not in patch]
    result = list(entries)
    for patch in patches:
        if key not in patch:
            raise BadPatch(f"the entry {patch} does not contain the merge key {key}")
        at = next((index for index, entry in enumerate(result) if entry.get(key) == patch[key]), None)
        if patch.get("$patch") == "delete":
            result = [entry for entry in result if entry.get(key) != patch[key]]
        elif at is None:
            result.append(copy.deepcopy(patch))
        else:
            result[at] = strategic_merge(result[at], patch)
    return result


def json_patch(document: Any, operations: Any) -> Any:
    """A JSON patch (RFC 6902): add, remove, replace, test, copy and move."""
    result = copy.deepcopy(document)
    if not isinstance(operations, list):
        raise BadPatch("a JSON patch is a list of operations")
    for operation in operations:
        kind, path = operation.get("op"), _steps(operation.get("path", ""))
        if kind in ("copy", "move"):
            value = copy.deepcopy(_found(result, _steps(operation.get("from", ""))))
            if kind == "move":
                _remove(result, _steps(operation["from"]))
            _add(result, path, value)
        elif kind == "add":
            _add(result, path, copy.deepcopy(operation.get("value")))
        elif kind == "remove":
            _remove(result, path)
        elif kind == "replace":
            _remove(result, path)
            _add(result, path, copy.deepcopy(operation.get("value")))
        elif kind == "test":
            if _found(result, path) != operation.get("value"):
                raise BadPatch(f"testing value {operation.get('path')} failed")
        else:
            raise BadPatch(f"unknown operation {kind}")
    return result


def _steps(pointer: str) -> list[str]:
    return [step.replace("~1", "/").replace("~0", "~") for step in pointer.split("/")[1:]]


def _child(parent: Any, step: str) -> Any:
    try:
        return parent[int(step)] if isinstance(parent, list) else parent[step]
    except (KeyError, IndexError, ValueError, TypeError):
        raise BadPatch(f"the path member {step} is missing") from None


def _found(document: Any, path: list[str]) -> Any:
    for step in path:
        document = _child(document, step)
    return document


def _add(document: Any, path: list[str], value: Any) -> None:
    parent = _found(document, path[:-1])
    if isinstance(parent, list):
        parent.insert(len(parent) if path[-1] == "-" else int(path[-1]), value)
    elif isinstance(parent, dict):
        parent[path[-1]] = value
    else:
        raise BadPatch(f"nothing can be added below {path[:-1]}")


def _remove(document: Any, path: list[str]) -> None:
    parent = _found(document, path[:-1])
    _child(parent, path[-1])
    del parent[int(path[-1]) if isinstance(parent, list) else path[-1]]
