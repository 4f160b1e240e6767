"""The metrics of a controller, by ``prometheus-client``. No label has a value told by a base, a Pod or a user."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import choose_encoder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

_FAST: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_SLOW: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
_PHASES: Final = frozenset({"Pending", "Running", "Succeeded", "Failed"})
_OTHER: Final = "other"


@dataclass(frozen=True, slots=True)
class Facts:
    """The state of a controller at one moment."""

    bases: Mapping[str, int] = field(default_factory=dict)
    """The bases led, by their life."""
    pods: Mapping[str, int] = field(default_factory=dict)
    """The Pods on Nodes that are led, by phase."""
    waiting: Mapping[str, int] = field(default_factory=dict)
    """The keys that can be worked on now, by queue."""
    failing: Mapping[str, int] = field(default_factory=dict)
    """The keys whose last work failed, by queue."""
    members: int = 1
    """The living controllers."""
    is_well: bool = True
    """Whether the controller follows the API server."""


class Figures:
    """The counts of one controller. All on one event loop, but for `text`, which any thread may call."""

    def __init__(self, facts: Callable[[], Facts]) -> None:
        """``facts`` is asked at each scrape."""
        self._facts = facts
        self._registry = CollectorRegistry()
        registry = self._registry
        self._requests = Histogram(
            "koupleless_controller_api_request_duration_seconds",
            "Requests to the API server until the answer, by verb and status; without watches.",
            ("verb", "code"), buckets=_FAST, registry=registry,
        )  # fmt: skip
        self._waits = Histogram(
            "koupleless_controller_queue_wait_seconds",
            "Time for which a key waited for a worker, by queue.",
            ("queue",), buckets=_FAST, registry=registry,
        )  # fmt: skip
        self._operations = Histogram(
            "koupleless_controller_operation_duration_seconds",
            "Commands and questions to bases until the answer, by operation and outcome.",
            ("operation", "outcome"), buckets=_SLOW, registry=registry,
        )  # fmt: skip
        self._heartbeats = Counter(
            "koupleless_controller_heartbeats", "Heartbeats of bases, by outcome.", ("outcome",), registry=registry
        )
        self._reports = Counter(
            "koupleless_controller_reports", "Reports to webhooks, by outcome.", ("outcome",), registry=registry
        )
        self._registry.register(self)

    def request(self, verb: str, code: str, seconds: float) -> None:
        """Count a request to the API server."""
        self._requests.labels(verb, code).observe(seconds)

    def wait(self, queue: str, seconds: float) -> None:
        """Count a key that a worker has taken from a queue."""
        self._waits.labels(queue).observe(seconds)

    def operation(self, operation: str, outcome: str, seconds: float) -> None:
        """Count a command or a question to a base."""
        self._operations.labels(operation, outcome).observe(seconds)

    def heartbeat(self, outcome: str) -> None:
        """Count a heartbeat."""
        self._heartbeats.labels(outcome).inc()

    def report(self, outcome: str) -> None:
        """Count a report to one webhook."""
        self._reports.labels(outcome).inc()

    def text(self, accept: str) -> tuple[bytes, str]:
        """Write all figures in the format that ``accept``, a header of HTTP, prefers; with the content type."""
        try:
            encode, content_type = choose_encoder(accept)
        except (TypeError, ValueError):  # a version that is none
            encode, content_type = choose_encoder("")
        return encode(self._registry), content_type

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Yield the gauges, of this moment."""
        facts = self._facts()
        pods: dict[str, int] = {}
        for phase, count in facts.pods.items():
            known = phase if phase in _PHASES else _OTHER
            pods[known] = pods.get(known, 0) + count
        tables = (
            ("koupleless_controller_bases", "Bases led by this controller, by life.", "life", facts.bases),
            ("koupleless_controller_pods", "Pods of modules on these bases, by phase.", "phase", pods),
            ("koupleless_controller_queue_depth", "Keys that wait for a worker, by queue.", "queue", facts.waiting),
            ("koupleless_controller_queue_failing", "Keys with failed work, by queue.", "queue", facts.failing),
        )
        for name, words, label, values in tables:
            family = GaugeMetricFamily(name, words, labels=(label,))
            for value, count in values.items():
                family.add_metric((value,), count)
            yield family
        yield GaugeMetricFamily(
            "koupleless_controller_members", "Living controllers of the env, as seen here.", value=facts.members
        )
        yield GaugeMetricFamily(
            "koupleless_controller_up", "1 while the controller follows the API server, else 0.", value=facts.is_well
        )
