"""Objects of an API server in memory, with the rules about their versions: conflicts, status, deletion, and the log.

Not a whole API server: of defaults, validation and admission it has what clients of ours meet. Objects handed out are
not to be changed. Threads: any, under one lock.
"""

from __future__ import annotations

import copy
import datetime as dt
import re
import secrets
import threading
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from tests.kube.memory.kinds import KINDS, Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

Object = dict[str, Any]

_GRACE_S: Final = 30
_LABEL: Final = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_SYSTEM: Final = ("default", "kube-node-lease", "kube-system")
_CREATED: Final = (
    "name",
    "namespace",
    "uid",
    "creationTimestamp",
    "generation",
    "deletionTimestamp",
    "resourceVersion",
)
"""Metadata that the server sets, whatever an update says."""


class Refused(Exception):
    """A request that is answered with a Status."""

    def __init__(self, code: int, reason: str, message: str, *, details: Mapping[str, Any] | None = None) -> None:
        self.code = code
        self.reason = reason
        self.details = details
        super().__init__(message)


@dataclass(frozen=True)
class Change:
    """One entry of the log: an object before and after; one of them is absent at its creation and its end."""

    version: int
    before: Object | None
    after: Object | None


def now() -> str:
    return dt.datetime.now(tz=dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Store:
    """The objects of all resources, and the log of their changes. Lifetime: as the server."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.version = 1
        self.forgotten = 0
        """Changes up to this version are in the log no more: a watch from there is answered with 410."""
        self._objects: dict[Kind, dict[tuple[str, str], Object]] = {kind: {} for kind in KINDS.values()}
        self._log: dict[Kind, list[Change]] = {kind: [] for kind in KINDS.values()}
        self._watching: list[Callable[[], object]] = []
        for name in _SYSTEM:
            self.create(KINDS["", "namespaces"], "", {"metadata": {"name": name}})

    # --- reading

    def get(self, kind: Kind, namespace: str, name: str) -> Object:
        try:
            return self._objects[kind][namespace, name]
        except KeyError:
            raise _not_found(kind, name) from None

    def all_of(self, kind: Kind, namespace: str) -> list[Object]:
        """In the order of their names; of all namespaces if ``namespace`` is empty."""
        with self.lock:
            found = self._objects[kind]
            return [found[key] for key in sorted(found) if not namespace or key[0] == namespace]

    def changes(self, kind: Kind, after: int) -> list[Change]:
        """Changes since the version ``after``. Raises `Refused` with 410 if some of them are forgotten."""
        with self.lock:
            if after < self.forgotten:
                raise Refused(410, "Expired", f"too old resource version: {after} ({self.forgotten + 1})")
            log = self._log[kind]
            first = len(log)
            while first and log[first - 1].version > after:
                first -= 1
            return log[first:]

    def compact(self) -> None:
        """Forget all changes so far, as etcd does after some minutes."""
        with self.lock:
            self.forgotten = self.version
            for log in self._log.values():
                log.clear()

    def watch(self, wake: Callable[[], object]) -> Callable[[], None]:
        """Call ``wake`` at each change, in the thread of the change; returns the end of that."""
        with self.lock:
            self._watching.append(wake)
        return lambda: self._watching.remove(wake)

    # --- writing

    def put(self, kind: Kind, namespace: str, made: Object) -> None:
        """Keep a whole object as it is, for a cluster of many: without a copy, a check, or a default."""
        with self.lock:
            self._store(kind, (namespace, made["metadata"]["name"]), None, made)

    def create(self, kind: Kind, namespace: str, given: Object) -> Object:
        with self.lock:
            made = copy.deepcopy(given)
            metadata: Object = made.setdefault("metadata", {})
            if not metadata.get("name") and metadata.get("generateName"):
                metadata["name"] = metadata["generateName"] + secrets.token_hex(3)[:5]
            if kind.is_namespaced:
                if metadata.setdefault("namespace", namespace) != namespace:
                    raise Refused(400, "BadRequest", "the namespace of the object is not that of the request")
                self.get(KINDS["", "namespaces"], "", namespace)
            _check(kind, made)
            key = (namespace, metadata["name"])
            if key in self._objects[kind]:
                raise Refused(409, "AlreadyExists", f'{kind.plural} "{key[1]}" already exists')
            metadata |= {"uid": str(uuid.uuid4()), "creationTimestamp": now(), "generation": 1}
            made |= {"apiVersion": kind.api_version, "kind": kind.name}
            if kind.has_status and not kind.keeps_status:
                made["status"] = {}
            _fill(kind, made)
            return self._store(kind, key, None, made)

    def update(
        self, kind: Kind, namespace: str, name: str, given: Object, *, sub: str = "", is_patch: bool = False
    ) -> Object:
        """Replace an object, or its status alone if ``sub`` is that. A stale ``resourceVersion`` is a conflict."""
        with self.lock:
            before = self.get(kind, namespace, name)
            seen = given.get("metadata", {}).get("resourceVersion")
            if seen and seen != before["metadata"]["resourceVersion"]:
                message = f'Operation cannot be fulfilled on {kind.plural} "{name}": the object has been modified'
                raise Refused(
                    409, "Conflict", f"{message}; please apply your changes to the latest version and try again"
                )
            if given.get("metadata", {}).get("uid", before["metadata"]["uid"]) != before["metadata"]["uid"]:
                raise _other(kind, name, is_patch=is_patch)
            after = copy.deepcopy(given)
            after |= {"apiVersion": kind.api_version, "kind": kind.name}
            metadata = after.setdefault("metadata", {})
            for field in _CREATED:
                metadata.pop(field, None)
                if field in before["metadata"]:
                    metadata[field] = before["metadata"][field]
            if sub == "status":
                labels = {name: value for name, value in metadata.items() if name in ("labels", "annotations")}
                after = {**before, "metadata": {**before["metadata"], **labels}, "status": after.get("status", {})}
            elif kind.has_status:
                after["status"] = before.get("status", {})
            _check(kind, after)
            if after.get("spec") != before.get("spec"):
                _check_spec(kind, before, after)
                after["metadata"] = {**after["metadata"], "generation": before["metadata"]["generation"] + 1}
            if _is_finished(after):
                return self._remove(kind, (namespace, name), before, after)
            return self._store(kind, (namespace, name), before, after)

    def bind(self, namespace: str, name: str, node: str) -> None:
        """Give a pod to a node, once."""
        with self.lock:
            kind = KINDS["", "pods"]
            before = self.get(kind, namespace, name)
            if before["spec"].get("nodeName"):
                already = f"pod {name} is already assigned to node {before['spec']['nodeName']!r}"
                raise Refused(409, "Conflict", f'Operation cannot be fulfilled on pods/binding "{name}": {already}')
            after = copy.deepcopy(before)
            after["spec"]["nodeName"] = node
            scheduled = {"type": "PodScheduled", "status": "True", "lastTransitionTime": now()}
            others = [one for one in after["status"].get("conditions", []) if one["type"] != "PodScheduled"]
            after["status"]["conditions"] = [*others, scheduled]
            self._store(kind, (namespace, name), before, after)

    def delete(self, kind: Kind, namespace: str, name: str, options: Mapping[str, Any]) -> Object:
        """Remove an object, or mark it as to be removed: a pod on a node has time, and finalizers are waited for."""
        with self.lock:
            before = self.get(kind, namespace, name)
            metadata = before["metadata"]
            for field, wanted in (options.get("preconditions") or {}).items():
                if wanted is not None and wanted != metadata.get(field):
                    message = f"the {field} in the precondition ({wanted}) does not match that in the record"
                    raise Refused(
                        409, "Conflict", f'Operation cannot be fulfilled on {kind.plural} "{name}": {message}'
                    )
            grace = self._grace(kind, before, options.get("gracePeriodSeconds"))
            if "deletionTimestamp" in metadata:
                grace = min(grace, metadata["deletionGracePeriodSeconds"])
            due = dt.datetime.now(tz=dt.UTC) + dt.timedelta(seconds=grace)
            marks = {"deletionGracePeriodSeconds": grace, "deletionTimestamp": due.strftime("%Y-%m-%dT%H:%M:%SZ")}
            after = {**before, "metadata": {**metadata, **marks}}
            if _is_finished(after):
                for below in [*self._objects] if kind.plural == "namespaces" else ():
                    for key in [key for key in self._objects[below] if key[0] == name]:
                        self._remove(below, key, self._objects[below][key], self._objects[below][key])
                return self._remove(kind, (namespace, name), before, after)
            if metadata.get("deletionGracePeriodSeconds") == grace:
                return before
            return self._store(kind, (namespace, name), before, after)

    def _grace(self, kind: Kind, found: Object, asked: int | None) -> int:
        if kind.plural != "pods":
            return 0
        if not found["spec"].get("nodeName") or found["status"].get("phase") in ("Succeeded", "Failed"):
            return 0
        return int(asked if asked is not None else found["spec"].get("terminationGracePeriodSeconds", _GRACE_S))

    def _store(self, kind: Kind, key: tuple[str, str], before: Object | None, after: Object) -> Object:
        if before is not None and after == before:
            return before
        self.version += 1
        after["metadata"] = {**after["metadata"], "resourceVersion": str(self.version)}
        self._objects[kind][key] = after
        self._tell(kind, Change(self.version, before, after))
        return after

    def _remove(self, kind: Kind, key: tuple[str, str], before: Object, after: Object) -> Object:
        self.version += 1
        last = {**after, "metadata": {**after["metadata"], "resourceVersion": str(self.version)}}
        del self._objects[kind][key]
        self._tell(kind, Change(self.version, last, None))
        return last

    def _tell(self, kind: Kind, change: Change) -> None:
        self._log[kind].append(change)
        for wake in self._watching:
            wake()


def _not_found(kind: Kind, name: str) -> Refused:
    where = f"{kind.plural}.{kind.group}" if kind.group else kind.plural
    return Refused(404, "NotFound", f'{where} "{name}" not found', details={"name": name, "kind": kind.plural})


def _other(kind: Kind, name: str, *, is_patch: bool) -> Refused:
    """The refusal for an object with another UID, for which the real server has two."""
    if is_patch:
        message = "metadata.uid: Invalid value: field is immutable"
        causes = [{"reason": "FieldValueInvalid", "field": "metadata.uid", "message": "field is immutable"}]
        details = {"name": name, "kind": kind.name, "causes": causes}
        return Refused(422, "Invalid", f'{kind.name} "{name}" is invalid: {message}', details=details)
    message = f'Operation cannot be fulfilled on {kind.plural} "{name}": Precondition failed: UID in precondition'
    return Refused(409, "Conflict", message)


def _is_finished(found: Object) -> bool:
    """Nothing holds an object any more that is to be removed."""
    metadata = found["metadata"]
    is_due = "deletionTimestamp" in metadata and metadata.get("deletionGracePeriodSeconds", 0) == 0
    return is_due and not metadata.get("finalizers")


def _check(kind: Kind, found: Object) -> None:
    metadata = found["metadata"]
    wrong = [
        f"{value!r} is no label value" for value in (metadata.get("labels") or {}).values() if not _fits(_LABEL, value)
    ]
    if not _fits(_NAME, metadata.get("name", "")):
        wrong.append(f"{metadata.get('name')!r} is no name")
    if kind.plural == "pods" and not found.get("spec", {}).get("containers"):
        wrong.append("spec.containers: Required value")
    if wrong:
        raise Refused(422, "Invalid", f'{kind.name} "{metadata.get("name")}" is invalid: {"; ".join(wrong)}')


def _fits(pattern: re.Pattern[str], value: Any) -> bool:
    return isinstance(value, str) and pattern.fullmatch(value) is not None


def _check_spec(kind: Kind, before: Object, after: Object) -> None:
    """Of a pod's spec little may be changed: images, deadline and further tolerations; gates may be opened."""
    if kind.plural != "pods":
        return

    def gates(found: Object) -> set[str]:
        return {one["name"] for one in found["spec"].get("schedulingGates") or ()}

    def fixed(found: Object) -> Object:
        free = ("activeDeadlineSeconds", "tolerations", "schedulingGates")
        spec = {name: value for name, value in found["spec"].items() if name not in free}
        return {**spec, "containers": [{**one, "image": ""} for one in spec["containers"]]}

    if not gates(after) <= gates(before) or fixed(before) != fixed(after):
        message = "spec: Forbidden: pod updates may not change fields other than images, deadline and tolerations"
        raise Refused(422, "Invalid", f'Pod "{after["metadata"]["name"]}" is invalid: {message}')


def _fill(kind: Kind, made: Object) -> None:
    """Defaults that clients read."""
    if kind.plural == "pods":
        made["spec"] = {"restartPolicy": "Always", "terminationGracePeriodSeconds": _GRACE_S} | made["spec"]
        made["status"] = {"phase": "Pending", "qosClass": "BestEffort"}
    elif kind.plural == "deployments":
        made["spec"] = {"replicas": 1} | made.get("spec", {})
    elif kind.plural == "namespaces":
        made["status"] = {"phase": "Active"}
