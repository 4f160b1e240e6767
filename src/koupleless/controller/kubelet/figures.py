"""The figures of modules in the forms of a kubelet: ``/metrics/resource`` as text, ``/stats/summary`` as JSON.

Processor time is that of a module. Memory is the growth of the base while the module started, the one figure of memory
that a base has for a module. Bases without such metrics, as those in Java, have no figures.
"""

from __future__ import annotations

import asyncio
import re
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from koupleless.controller.times import seconds_of, time_text
from koupleless.controller.tunnels.tunnel import NoAnswer
from koupleless.controller.vpods.module import Module, ModuleKey

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from koupleless.controller.kubelet.places import Bases, Places
    from koupleless.controller.vnodes.base import AnnouncedBase
    from koupleless.controller.vpods.pod import VPod

_KEPT_S: Final = 5.0
"""How long the metrics of a base count: several callers ask for all Nodes one after the other."""
_AT_ONCE: Final = 16
_SAMPLE: Final = re.compile(
    r"(?P<name>koupleless_biz_cpu_seconds_total|koupleless_biz_start_memory_bytes"
    r"|process_cpu_seconds_total|process_resident_memory_bytes|process_start_time_seconds)"
    r"(?:\{(?P<labels>[^}]*)\})? (?P<value>[-+.eE0-9]+)(?: |$)",
    re.MULTILINE,
)
_LABEL: Final = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


class Use(NamedTuple):
    """The use of a module, or of a base."""

    cpu_s: float
    memory_bytes: float


@dataclass(slots=True)
class Scrape:
    """The figures of one base."""

    at: float
    """The time, in seconds since the epoch."""
    base: Use | None = None
    modules: dict[ModuleKey, Use] = field(default_factory=dict)

    @classmethod
    def of(cls, text: str, *, at: float) -> Scrape:
        """Read the text of Prometheus; samples of other metrics are passed over."""
        found: dict[str, dict[ModuleKey | None, float]] = {}
        for sample in _SAMPLE.finditer(text):
            labels = dict(_LABEL.findall(sample["labels"] or ""))
            key = ModuleKey(labels["biz"], labels.get("version", "")) if "biz" in labels else None
            try:
                found.setdefault(sample["name"], {})[key] = float(sample["value"])
            except ValueError:
                continue
        memory = found.get("koupleless_biz_start_memory_bytes", {})
        modules = {
            key: Use(seconds, max(memory.get(key, 0.0), 0.0))
            for key, seconds in found.get("koupleless_biz_cpu_seconds_total", {}).items()
            if key is not None
        }
        whole = found.get("process_cpu_seconds_total", {}).get(None)
        resident = found.get("process_resident_memory_bytes", {}).get(None)
        base = None if whole is None or resident is None else Use(whole, resident)
        return cls(at, base, modules)


class _Row(NamedTuple):
    """The figures of one Pod."""

    pod: VPod
    at: float
    containers: tuple[tuple[str, Use], ...]

    @property
    def whole(self) -> Use:
        return Use(sum(use.cpu_s for _, use in self.containers), sum(use.memory_bytes for _, use in self.containers))


class Figures:
    """The figures of all Nodes led by the controller. Lifetime: as the server; all on one event loop."""

    def __init__(self, places: Places, bases: Bases, *, wall: Callable[[], float] = time.time) -> None:
        self._places = places
        self._bases = bases
        self._wall = wall
        self._turn = asyncio.Semaphore(_AT_ONCE)
        self._kept: dict[str, tuple[float, asyncio.Task[Scrape | None]]] = {}

    async def resource(self) -> str:
        """Return the text of ``/metrics/resource``."""
        nodes, rows, failed = await self._read()
        return "".join(_resource_text(nodes, rows, failed=failed))

    async def summary(self) -> dict[str, Any]:
        """Return the document of ``/stats/summary``; of several Nodes, only the Pods are told."""
        nodes, rows, _ = await self._read()
        node: dict[str, Any] = {"nodeName": ""}
        if len(nodes) == 1:
            name, scrape = nodes[0]
            node = {"nodeName": name}
            if scrape.base is not None:
                node |= _stats(scrape.base, scrape.at)
        return {"node": node, "pods": [_pod_stats(row) for row in rows]}

    async def _read(self) -> tuple[list[tuple[str, Scrape]], list[_Row], int]:
        """Return the figures of Nodes and of Pods, and the number of bases that gave none."""
        led = list(self._places.led())
        scrapes = await asyncio.gather(*(self._scrape(base) for _, base in led))
        self._kept = {base.identity: self._kept[base.identity] for _, base in led if base.identity in self._kept}
        nodes = [(name, scrape) for (name, _), scrape in zip(led, scrapes, strict=True) if scrape is not None]
        rows = [
            row for name, scrape in nodes for pod in self._places.pods_on(name) if (row := await self._row(pod, scrape))
        ]
        return nodes, rows, scrapes.count(None)

    async def _row(self, pod: VPod, scrape: Scrape) -> _Row | None:
        modules = [one for one in await self._places.modules(pod) if isinstance(one, Module)]
        containers = tuple((one.container, scrape.modules[one.key]) for one in modules if one.key in scrape.modules)
        return _Row(pod, scrape.at, containers) if containers else None

    async def _scrape(self, base: AnnouncedBase) -> Scrape | None:
        now = asyncio.get_running_loop().time()
        asked, task = self._kept.get(base.identity, (0.0, None))
        if task is None or (task.done() and asked + _KEPT_S <= now):
            task = asyncio.create_task(self._ask(base))
            self._kept[base.identity] = now, task
        return await asyncio.shield(task)

    async def _ask(self, base: AnnouncedBase) -> Scrape | None:
        async with self._turn:
            try:
                text = await self._bases.scrape(base)
            except NoAnswer:
                return None
        return Scrape.of(text, at=self._wall())


# --- /metrics/resource -----------------------------------------------------------------------------------------------


def _resource_text(nodes: Sequence[tuple[str, Scrape]], rows: Sequence[_Row], *, failed: int) -> Iterator[str]:
    containers = [(row, name, use) for row in rows for name, use in row.containers]
    cpu, memory = "cpu_usage_seconds_total", "memory_working_set_bytes"
    of_containers = [(_labels(row.pod, name), use, row.at) for row, name, use in containers]
    of_pods = [(_labels(row.pod), row.whole, row.at) for row in rows]
    of_node = [("", scrape.base, scrape.at) for _, scrape in nodes if scrape.base is not None and len(nodes) == 1]
    for thing, samples in (("container", of_containers), ("node", of_node), ("pod", of_pods)):
        yield from _family(
            f"{thing}_{cpu}",
            "counter",
            f"Cumulative cpu time consumed by the {thing} in core-seconds",
            ((labels, use.cpu_s, at) for labels, use, at in samples),
        )
        yield from _family(
            f"{thing}_{memory}",
            "gauge",
            f"Current working set of the {thing} in bytes",
            ((labels, use.memory_bytes, at) for labels, use, at in samples),
        )
    starts = [(_labels(row.pod, name), row, name) for row, name, _ in containers]
    yield from _family(
        "container_start_time_seconds",
        "gauge",
        "Start time of the container since unix epoch in seconds",
        ((labels, start, row.at) for labels, row, name in starts if (start := _start(row.pod, name))),
    )
    text = "1 if there was an error while getting container metrics, 0 otherwise"
    yield from _family("resource_scrape_error", "gauge", text, (("", float(failed > 0), None),))


def _family(name: str, kind: str, text: str, samples: Iterable[tuple[str, float, float | None]]) -> Iterator[str]:
    lines = [
        f"{name}{labels} {value:.17g}{'' if at is None else f' {int(at * 1000)}'}\n" for labels, value, at in samples
    ]
    if lines:
        yield f"# HELP {name} [STABLE] {text}\n# TYPE {name} {kind}\n"
        yield from lines


def _labels(pod: VPod, container: str = "") -> str:
    """Write labels; names of Kubernetes need no quoting."""
    first = f'container="{container}",' if container else ""
    return f'{{{first}namespace="{pod.key.namespace}",pod="{pod.key.name}"}}'


# --- /stats/summary --------------------------------------------------------------------------------------------------


def _pod_stats(row: _Row) -> dict[str, Any]:
    pod = row.pod
    return {
        "podRef": {"name": pod.key.name, "namespace": pod.key.namespace, "uid": pod.uid},
        "startTime": pod.status.get("startTime"),
        "containers": [
            {"name": name, "startTime": _started(pod, name), **_stats(use, row.at)} for name, use in row.containers
        ],
        **_stats(row.whole, row.at),
    }


def _stats(use: Use, at: float) -> dict[str, Any]:
    now = time_text(at)
    return {
        "cpu": {"time": now, "usageCoreNanoSeconds": int(use.cpu_s * 1e9)},
        "memory": {"time": now, "workingSetBytes": int(use.memory_bytes)},
    }


def _started(pod: VPod, container: str) -> str | None:
    running = (pod.container_status(container).get("state") or {}).get("running") or {}
    return running.get("startedAt")


def _start(pod: VPod, container: str) -> float | None:
    text = _started(pod, container)
    return None if text is None else seconds_of(text)
