"""OpenTelemetry in modules and base, each with its own provider and exporter, to collectors that speak OTLP by HTTP."""

from __future__ import annotations

import gzip
import http.server
import textwrap
import threading
from typing import TYPE_CHECKING, Any, Final

import pytest
from tests.metrics.conftest import APP

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.metrics.conftest import Small

pytest.importorskip("opentelemetry.exporter.otlp.proto.http")

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

_KINDS: Final[dict[str, Any]] = {
    "/v1/traces": ExportTraceServiceRequest,
    "/v1/metrics": ExportMetricsServiceRequest,
    "/v1/logs": ExportLogsServiceRequest,
}


class Collector:
    """An OTLP receiver on loopback."""

    def __init__(self) -> None:
        self.requests: list[Any] = []
        requests = self.requests

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                message = _KINDS[self.path]()
                message.ParseFromString(body)
                requests.append(message)
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None: ...  # noqa: A002

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    @property
    def spans(self) -> dict[tuple[str, str], Any]:
        """The spans by the name of the service and their own."""
        return {
            (_resource(part)["service.name"], span.name): span
            for request in list(self.requests)
            for part in getattr(request, "resource_spans", ())
            for scope in part.scope_spans
            for span in scope.spans
        }

    def resources(self, signal: str) -> list[dict[str, str]]:
        return [
            _resource(part) for request in list(self.requests) for part in getattr(request, f"resource_{signal}", ())
        ]

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def _resource(part: Any) -> dict[str, str]:
    return {attribute.key: attribute.value.string_value for attribute in part.resource.attributes}


@pytest.fixture
def collect() -> Iterator[Callable[[], Collector]]:
    made: list[Collector] = []

    def start() -> Collector:
        made.append(Collector())
        return made[-1]

    yield start
    for collector in made:
        collector.stop()


@pytest.fixture
def of_base(collect: Callable[[], Collector], monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    """The collector of a base with a provider of its own."""
    collector = collect()
    monkeypatch.setenv("OTEL_SERVICE_NAME", "the-base")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment=test")
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter(f"{collector.url}/v1/traces")))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    monkeypatch.setattr(trace._TRACER_PROVIDER_SET_ONCE, "_done", True)
    yield collector
    provider.shutdown()


TRACED = """
import koupleless
from koupleless import service
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
provider = TracerProvider()
provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
trace.set_tracer_provider(provider)
tracer = trace.get_tracer(__name__)
"""
PRICES = (
    TRACED
    + """
class Prices:
    def of(self, item):
        with tracer.start_as_current_span("look up"):
            return 7
    async def later(self, item):
        with tracer.start_as_current_span("look up later"):
            return 8
    def fails(self, item):
        raise KeyError(item)
def start():
    service.offer(Prices(), name="prices")
"""
)
ORDERS = (
    TRACED
    + """
from fastapi import FastAPI
prices = service.use("prices")
app = FastAPI()
@app.get("/total")
def total():
    with tracer.start_as_current_span("total"):
        return prices.of("tea")
@app.get("/later")
async def later():
    with tracer.start_as_current_span("later"):
        return await prices.later("tea")
@app.get("/fails")
def fails():
    with tracer.start_as_current_span("fails"):
        try:
            return prices.fails("tea")
        except KeyError:
            return 0
"""
)


def install(small: Small, source: str, name: str, collector: Collector, **envs: str) -> Any:
    entry = "app:start" if "def start" in source else "app:app"
    given = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, **envs}
    return small.install(textwrap.dedent(source), name=name, version="2", entry=entry, envs=given)


def test_each_module_is_a_service_and_a_call_of_another_is_part_of_its_trace(
    small: Small, collect: Callable[[], Collector], of_base: Collector
) -> None:
    one, two = collect(), collect()
    prices = install(small, PRICES, "prices", one)
    orders = install(small, ORDERS, "orders", two)
    with trace.get_tracer("base").start_as_current_span("of the base"):
        pass
    assert small.ask("/orders/total").json() == 7
    assert small.ask("/orders/later").json() == 8
    for biz in (orders, prices):  # which flushes
        small.leave(biz)

    there, here = one.spans, two.spans
    assert {name for name, _ in there} == {"prices"}
    assert {name for name, _ in here} == {"orders"}
    assert set(of_base.spans) == {("the-base", "of the base")}
    for outer, call, inner in (("total", "prices.of", "look up"), ("later", "prices.later", "look up later")):
        chain = [here["orders", outer], here["orders", call], there["prices", call], there["prices", inner]]
        assert {span.trace_id for span in chain} == {chain[0].trace_id}
        assert [span.parent_span_id for span in chain[1:]] == [span.span_id for span in chain[:-1]]
        assert [chain[1].kind, chain[2].kind] == [Span.SPAN_KIND_CLIENT, Span.SPAN_KIND_SERVER]
    assert {"service.version": "2", "deployment.environment": "test"}.items() <= one.resources("spans")[0].items()


@pytest.mark.parametrize(
    ("envs", "name", "version"),
    [
        ({}, "orders", "2"),
        ({"OTEL_SERVICE_NAME": "shop"}, "shop", "2"),
        ({"OTEL_SERVICE_NAME": "shop", "OTEL_RESOURCE_ATTRIBUTES": "service.version=9"}, "shop", "9"),
    ],
)
def test_what_a_module_is_given_says_its_name_before_ours(  # noqa: PLR0917 - fixtures and parameters
    small: Small, collect: Callable[[], Collector], of_base: Collector, envs: dict[str, str], name: str, version: str
) -> None:
    collector = collect()
    source = TRACED + "def start():\n    with tracer.start_as_current_span('begin'):\n        pass\n"
    small.leave(install(small, source, "orders", collector, **envs))

    (resource,) = collector.resources("spans")
    assert (resource["service.name"], resource["service.version"]) == (name, version)


def test_a_call_that_fails_is_an_error_on_both_sides(
    small: Small, collect: Callable[[], Collector], of_base: Collector
) -> None:
    one, two = collect(), collect()
    bizs = [install(small, PRICES, "prices", one), install(small, ORDERS, "orders", two)]
    assert small.ask("/orders/fails").json() == 0
    for biz in bizs[::-1]:
        small.leave(biz)

    for side, collector in (("prices", one), ("orders", two)):
        span = collector.spans[side, "prices.fails"]
        assert span.status.code == Status.STATUS_CODE_ERROR
        assert [event.name for event in span.events] == ["exception"]


def test_a_call_outside_of_a_trace_and_one_by_a_side_without_a_provider(
    small: Small, collect: Callable[[], Collector], monkeypatch: pytest.MonkeyPatch
) -> None:
    collector = collect()
    prices = install(small, PRICES, "prices", collector)
    small.host.services.use("prices").of("tea")  # by the base, which has no provider
    plain = "from koupleless import service\nprices = service.use('prices')\n"
    small.install(plain + APP.replace("    status = int", "    prices.of('tea')\n    status = int"), name="plain")
    assert small.ask("/plain/200").status_code == 200
    small.leave(prices)

    assert [name for _, name in collector.spans] == ["look up"]


SIGNALS = """
import logging
from opentelemetry import metrics
from opentelemetry._logs import set_logger_provider
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.sdk._logs import LoggerProvider, LoggingHandler
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
metrics.set_meter_provider(MeterProvider([PeriodicExportingMetricReader(OTLPMetricExporter())]))
logs = LoggerProvider()
logs.add_log_record_processor(BatchLogRecordProcessor(OTLPLogExporter()))
set_logger_provider(logs)
log = logging.getLogger("of.the.module")
log.addHandler(LoggingHandler(logger_provider=logs))
counter = metrics.get_meter("m").create_counter("sold")
def start():
    counter.add(3)
    with tracer.start_as_current_span("begin"):
        log.warning("sold three")
"""


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the handler, which the SDK is about to give away
def test_metrics_and_logs_of_two_modules_go_to_the_collector_of_each(
    small: Small, collect: Callable[[], Collector], of_base: Collector
) -> None:
    collectors = {name: collect() for name in ("orders", "prices")}
    for biz in [install(small, TRACED + SIGNALS, name, collector) for name, collector in collectors.items()]:
        small.leave(biz)

    for name, collector in collectors.items():
        for signal in ("spans", "metrics", "logs"):
            assert {resource["service.name"] for resource in collector.resources(signal)} == {name}
        (record,) = [
            record
            for request in collector.requests
            for part in getattr(request, "resource_logs", ())
            for scope in part.scope_logs
            for record in scope.log_records
        ]
        assert record.body.string_value == "sold three"
        assert record.trace_id == collector.spans[name, "begin"].trace_id  # by the same context
    assert not of_base.requests
