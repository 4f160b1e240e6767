"""Events, as ``kubectl describe`` shows them: written by one task, and lost rather than waited for."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections import OrderedDict, deque
from typing import TYPE_CHECKING, Any, Final

from koupleless.controller.cluster.api import ApiError, Unreachable
from koupleless.controller.times import time_text
from koupleless.controller.watching.webhooks import Report

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from koupleless.controller.cluster.api import Api
    from koupleless.controller.vpods.pod import VPod

_log: Final = logging.getLogger("koupleless.controller")

_WAITING: Final = 1_000
"""The greatest number of Events that wait to be written."""
_REMEMBERED: Final = 10_000
_LONGEST: Final = 1_000
"""Characters of a message that are written; the API server allows 1,024."""
_WARNING: Final = "Warning"
_NAMESPACE: Final = "default"
"""The namespace of Events about Nodes, which have none."""
_COMPONENT: Final = "koupleless-controller"


class Events:
    """The Events of one controller. An Event told again is counted, not written anew. All on one event loop."""

    def __init__(self, api: Api, *, report: Callable[[Report], object] = lambda _: None) -> None:
        """``report`` is told each warning, too."""
        self._api = api
        self._report = report
        self._waiting: deque[dict[str, Any]] = deque(maxlen=_WAITING)
        self._counts: OrderedDict[str, int] = OrderedDict()
        self._has_some = asyncio.Event()

    def tell(self, pod: VPod, kind: str, reason: str, message: str) -> None:
        """Record an Event about a Pod soon; of too many at once, the oldest are lost."""
        about = {"apiVersion": "v1", "kind": "Pod", "namespace": pod.key.namespace, "name": pod.key.name}
        self.tell_of({**about, "uid": pod.uid}, kind, reason, message, node=pod.node)

    def tell_of(self, about: Mapping[str, str], kind: str, reason: str, message: str, *, node: str = "") -> None:
        """Record an Event about any object, by the reference of the object."""
        if kind == _WARNING:
            subject = f"{about['namespace']}/{about['name']}" if "namespace" in about else about["name"]
            self._report(Report(reason, message, subject, about["kind"], node))
        message = message[:_LONGEST]
        digest = hashlib.sha256(f"{about['uid']}\n{kind}\n{reason}\n{message}".encode()).hexdigest()[:16]
        name, now = f"{about['name']}.{digest}", time_text(time.time())
        count = self._counts.pop(name, 0) + 1
        self._counts[name] = count
        while len(self._counts) > _REMEMBERED:
            self._counts.popitem(last=False)
        self._waiting.append(
            {
                "apiVersion": "v1",
                "kind": "Event",
                "metadata": {"name": name, "namespace": about.get("namespace", _NAMESPACE)},
                "involvedObject": dict(about),
                "type": kind,
                "reason": reason,
                "message": message,
                "source": {"component": _COMPONENT, "host": node},
                "reportingComponent": _COMPONENT,
                "reportingInstance": node or _COMPONENT,
                "firstTimestamp": now,
                "lastTimestamp": now,
                "count": count,
            }
        )
        self._has_some.set()

    def tell_node(self, node: str, kind: str, reason: str, message: str) -> None:
        """Record an Event about a Node; Kubernetes takes the name for the UID."""
        about = {"apiVersion": "v1", "kind": "Node", "name": node, "uid": node}
        self.tell_of(about, kind, reason, message, node=node)

    async def run(self) -> None:
        """Write Events until cancelled."""
        while True:
            await self._has_some.wait()
            if not self._waiting:
                self._has_some.clear()
                continue
            event = self._waiting.popleft()
            try:
                await self._write(event)
            except (ApiError, Unreachable) as error:
                _log.debug("an Event is lost: %s", error)

    async def _write(self, event: dict[str, Any]) -> None:
        path = f"/api/v1/namespaces/{event['metadata']['namespace']}/events"
        if event["count"] > 1:
            again = {"count": event["count"], "lastTimestamp": event["lastTimestamp"]}
            try:
                await self._api.patch(f"{path}/{event['metadata']['name']}", again)
            except ApiError:  # the API server forgets Events after a while
                await self._api.create(path, event)
        else:
            await self._api.create(path, event)
