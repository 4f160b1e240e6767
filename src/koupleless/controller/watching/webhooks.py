"""Reports of warnings to webhooks: lost rather than waited for, and without secrets.

A receiver gets one JSON document for each report: an event of CloudEvents 1.0, or the message of a DingTalk robot, as
with the original. A receiver that is slow or dead holds up nobody, not even another receiver.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import secrets
import time
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Self
from urllib.parse import urlsplit

import httpx

from koupleless.controller.times import time_text
from koupleless.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_log: Final = logging.getLogger("koupleless.controller")

_WAITING: Final = 200
"""The greatest number of reports that wait for one receiver; of more, the oldest are lost."""
_TIMEOUT_S: Final = 5.0
_PAUSES_S: Final = (1.0, 5.0)
"""The pauses before further attempts."""
_END_S: Final = 2.0
"""Seconds for the last reports at the end of the controller."""
_AGAIN_S: Final = 300.0
"""Seconds for which an equal report is not sent again."""
_REMEMBERED: Final = 10_000
_LONGEST: Final = 1_000
_LATER: Final = frozenset({408, 429})
_DINGTALK: Final = "oapi.dingtalk.com"
_PREFIX: Final = "dingtalk+"
_ADDRESS: Final = re.compile(
    r"""(?P<scheme>[a-z][a-z0-9+.-]*://)(?:[^\s/@]*@)?(?P<rest>[^\s?#'")]*)(?:[?#][^\s'")]*)?""", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class Report:
    """One warning."""

    reason: str
    """One word, as in Events: ``ModuleInstallFailed``, ``BaseGone``."""
    message: str
    subject: str
    """The Pod as ``namespace/name``, or the Node."""
    kind: str
    """The kind of the subject: ``Pod`` or ``Node``."""
    node: str
    at: float = field(default_factory=time.time)
    """Seconds since the epoch."""


@dataclass(frozen=True, slots=True)
class Receiver:
    """A webhook. The address may have a secret, and is not told."""

    url: str = field(repr=False)
    is_dingtalk: bool

    @classmethod
    def of(cls, text: str) -> Self:
        """Read an address, with ``dingtalk+`` in front for robots elsewhere. Raises ``SettingsError``."""
        url = text.strip()
        is_dingtalk = url.startswith(_PREFIX)
        url = url.removeprefix(_PREFIX)
        try:
            parts = urlsplit(url)
            host, _ = parts.hostname, parts.port
        except ValueError:
            host = None
        if not host or parts.scheme not in {"http", "https"}:
            raise SettingsError("report-hooks has an address that is no http or https address")
        return cls(url, is_dingtalk or host == _DINGTALK)

    def __str__(self) -> str:
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.hostname}" + (f":{parts.port}" if parts.port else "")


class Webhooks:
    """The receivers of one controller. Lifetime: as async context manager. All on one event loop."""

    def __init__(
        self,
        receivers: Iterable[Receiver],
        *,
        source: str,
        pauses_s: tuple[float, ...] = _PAUSES_S,
        timeout_s: float = _TIMEOUT_S,
        end_s: float = _END_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``source`` names the controller."""
        self._source = source
        self._count: Callable[[str], object] = lambda _outcome: None
        self._pauses_s = pauses_s
        self._end_s = end_s
        self._clock = clock
        self._client = httpx.AsyncClient(timeout=timeout_s, follow_redirects=False)
        self._queues = [_Waiting(receiver) for receiver in receivers]
        self._tasks: list[asyncio.Task[None]] = []
        self._told: OrderedDict[tuple[str, str, str], float] = OrderedDict()

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.create_task(self._run(queue)) for queue in self._queues]
        return self

    async def __aexit__(self, *_: object) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._end_s):
                await asyncio.gather(*(queue.empty.wait() for queue in self._queues))
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._client.aclose()

    def count_by(self, count: Callable[[str], object]) -> None:
        """Tell ``count`` of each report from now on: ``sent``, ``failed`` or ``lost``."""
        self._count = count

    def report(self, report: Report) -> None:
        """Send a report soon, unless an equal one was sent a short time ago. Never waits."""
        key, now = (report.subject, report.reason, report.message), self._clock()
        if now < self._told.get(key, float("-inf")) + _AGAIN_S:
            return
        self._told.pop(key, None)
        self._told[key] = now
        while len(self._told) > _REMEMBERED:
            self._told.popitem(last=False)
        for queue in self._queues:
            if queue.put(report):
                self._count("lost")

    async def _run(self, queue: _Waiting) -> None:
        is_well = True
        while True:
            report = await queue.next()
            trouble = await self._send(queue.receiver, report)
            self._count("failed" if trouble else "sent")
            if trouble and is_well:
                _log.warning("a report did not reach the webhook at %s: %s", queue.receiver, trouble)
            is_well = not trouble
            queue.done()

    async def _send(self, receiver: Receiver, report: Report) -> str:
        """Send one report; returns the trouble, empty for none."""
        body, sort = (_dingtalk(report), "application/json") if receiver.is_dingtalk else self._cloud_event(report)
        trouble = ""
        for pause_s in (*self._pauses_s, None):
            try:
                async with self._client.stream(
                    "POST", receiver.url, json=body, headers={"Content-Type": sort}
                ) as answer:  # the body of the answer says nothing
                    status = answer.status_code
            except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
                trouble = type(error).__name__  # texts of errors may have the address
            else:
                if answer.is_success:
                    return ""
                trouble = f"HTTP {status}"
                if not answer.is_server_error and status not in _LATER:
                    return trouble
            if pause_s is not None:
                await asyncio.sleep(pause_s)
        return trouble

    def _cloud_event(self, report: Report) -> tuple[dict[str, Any], str]:
        data = {
            "reason": report.reason,
            "message": bare(report.message),
            "kind": report.kind,
            "subject": report.subject,
            "node": report.node,
        }
        event = {
            "specversion": "1.0",
            "id": secrets.token_hex(16),
            "source": self._source,
            "type": f"io.koupleless.{report.reason}",
            "subject": report.subject,
            "time": time_text(report.at),
            "datacontenttype": "application/json",
            "data": data,
        }
        return event, "application/cloudevents+json"


class _Waiting:
    """The reports that wait for one receiver."""

    def __init__(self, receiver: Receiver) -> None:
        self.receiver = receiver
        self.empty = asyncio.Event()
        self.empty.set()
        self._reports: deque[Report] = deque(maxlen=_WAITING)
        self._has_some = asyncio.Event()

    def put(self, report: Report) -> bool:
        """Add a report; returns whether another one is lost for that."""
        is_full = len(self._reports) == _WAITING
        self._reports.append(report)
        self._has_some.set()
        self.empty.clear()
        return is_full

    async def next(self) -> Report:
        """Take the oldest report, as soon as there is one."""
        await self._has_some.wait()
        report = self._reports.popleft()
        if not self._reports:
            self._has_some.clear()
        return report

    def done(self) -> None:
        """Note that the last report taken is sent, or given up."""
        if not self._reports:
            self.empty.set()


def _dingtalk(report: Report) -> dict[str, Any]:
    lines = [
        f"### {report.reason}",
        f"- {report.kind}: {report.subject}",
        f"- node: {report.node}",
        f"- time: {time_text(report.at)}",
        f"- message: {bare(report.message)}",
    ]
    return {"msgtype": "markdown", "markdown": {"title": report.reason, "text": "\n".join(lines)}}


def bare(message: str) -> str:
    """Return a message without logins and queries of addresses, where tokens are, and of bounded length."""
    return _ADDRESS.sub(lambda match: match["scheme"] + match["rest"], message)[:_LONGEST]
