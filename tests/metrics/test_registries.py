"""The registries of modules in a scrape: labelled, and none of them can spoil the text of all."""

from __future__ import annotations

import threading
import time

import prometheus_client
import pytest
from tests.conftest import until
from tests.metrics.conftest import APP, OPENMETRICS, Scraped, Small

from koupleless.adapters import rounds
from koupleless.isolation.namespace import Namespace

COUNTER = """
import prometheus_client
jobs = prometheus_client.Counter("jobs", "Jobs of a module.", ["queue"])
jobs.labels("a").inc(K)
"""
COLLECTOR = """
import prometheus_client
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.samples import Sample
class Own:
    def describe(self):
        return []
    def collect(self):
        {body}
prometheus_client.REGISTRY.register(Own())
"""


@pytest.mark.parametrize("extra", ["", 'own = ["prometheus-client"]'], ids=["shared", "own copy"])
def test_metrics_of_two_modules_and_of_the_base_are_in_one_answer(small: Small, extra: str) -> None:
    mine = prometheus_client.Counter("jobs", "Jobs of the base.", ["queue"])
    mine.labels("a").inc(3)
    try:
        for name, number in (("one", "1"), ("two", "2")):
            small.install(COUNTER.replace("K", number) + APP, name=name, extra=extra)
        for accept in ("", OPENMETRICS):
            seen = Scraped(accept=accept)
            assert seen.value("jobs_total", queue="a") == 3
            assert seen.value("jobs_total", queue="a", biz="one", version="1") == 1
            assert seen.value("jobs_total", queue="a", biz="two", version="1") == 2
        for info in small.container.bizs():
            small.leave(info.id)
        assert Scraped().series(queue="a") == ["jobs_total", "jobs_created"]
    finally:
        prometheus_client.REGISTRY.unregister(mine)


def test_labels_of_ours_win_over_those_of_a_module(small: Small) -> None:
    source = (
        'import prometheus_client\nprometheus_client.Gauge("x", "", ["biz", "version"]).labels("two", "9").set(1)\n'
    )
    small.install(source + APP)

    assert Scraped().value("x", biz="one", version="1", exported_biz="two", exported_version="9") == 1


@pytest.mark.parametrize(
    "body",
    [
        "raise ValueError",
        "raise SystemExit",
        "return None",
        "return [object()]",
        """m = GaugeMetricFamily("bad", ""); m.samples = [Sample("bad", {}, "text")]; return [m]""",
        """m = GaugeMetricFamily("bad", ""); m.samples = [Sample("bad", {'x="",biz': "two"}, 1)]; return [m]""",
        """m = GaugeMetricFamily("bad", ""); m.samples = [Sample('bad{biz="two"} 1\\\\nmore', {}, 1)]; return [m]""",
        """m = GaugeMetricFamily("bad", ""); m.name = "a b\\\\n# TYPE"; return [m]""",
        """return [GaugeMetricFamily("koupleless_requests", "", value=7)]""",
        """m = GaugeMetricFamily("bad", ""); m.samples = [Sample("bad", {}, 1, exemplar=7)]; return [m]""",
        """m = GaugeMetricFamily("bad", ""); m.type = "no\\\\ntype"; return [m]""",
        """m = GaugeMetricFamily("bad", ""); m.documentation = 7; m.add_metric([], 1); return [m]""",
    ],
)
def test_a_bad_collector_costs_nobody_else_anything(small: Small, body: str) -> None:
    small.install(COLLECTOR.format(body=body.replace("\\\\n", "\\n")) + APP, name="bad")
    small.install(COUNTER.replace("K", "1") + APP)
    small.ask("/one/200")
    for accept in ("", OPENMETRICS):
        seen = Scraped(accept=accept)
        assert seen.value("jobs_total", queue="a", biz="one", version="1") == 1
        assert seen.value("koupleless_requests_total", biz="one", version="1", method="GET", status="2xx") == 1
        assert seen.series(biz="two") == []
    small.leave(small.container.bizs()[0].id)


def test_another_type_under_a_known_name_is_left_out_and_told_once(small: Small, caplog) -> None:
    small.install(COUNTER.replace("K", "1") + APP)
    small.install('import prometheus_client\nprometheus_client.Gauge("jobs", "")\n' + APP, name="two")
    for _ in range(2):
        assert Scraped().series(biz="two", state="x") == []
        assert "jobs" not in Scraped().series(biz="two")

    (told,) = [record.getMessage() for record in caplog.records if "jobs" in record.getMessage()]
    assert told == "metric jobs of biz two:1 is left out: it is a gauge, and a counter elsewhere in this process"


def test_a_collector_that_hangs_is_left_out_until_it_returns(small: Small, monkeypatch, caplog) -> None:
    monkeypatch.setattr(rounds, "PATIENCE_S", 0.1)
    body = "import time\n        go_on.wait(20)\n        return []"
    source = "import threading, builtins\ngo_on = threading.Event()\n" + COLLECTOR.format(body=body)
    biz = small.install(source + APP, name="hanging")
    small.install(COUNTER.replace("K", "1") + APP, name="two")
    for _ in range(2):
        assert Scraped().value("jobs_total", queue="a", biz="two", version="1") == 1
    assert [
        r.getMessage() for r in caplog.records if "hanging:1" in r.getMessage() and "collected" in r.getMessage()
    ] == ["metrics of biz hanging:1 could not be collected: TimeoutError: no answer within 0.1 s"]
    begin = time.monotonic()
    Scraped()
    assert time.monotonic() - begin < 2
    scope = small.container.scope_of(biz)
    assert scope is not None
    scope.facet(Namespace).table["app"].go_on.set()
    assert until(lambda: not rounds._hanging)
    del scope
    small.leave(biz)


def test_a_module_leaves_although_its_collector_hangs(small: Small, monkeypatch) -> None:
    monkeypatch.setattr(rounds, "PATIENCE_S", 0.1)
    source = "import threading\ngo_on = threading.Event()\n" + COLLECTOR.format(body="go_on.wait()\n        return []")
    biz = small.install(source + APP, name="hanging")
    Scraped()

    report = small.container.uninstall(biz)
    assert report.clean, report.summary()
    assert any("koupleless-round" in line for line in report.ended), report.ended
    assert Scraped().series(biz="hanging") == []


def test_scrapes_go_on_during_installs_and_uninstalls(small: Small) -> None:
    errors: list[BaseException] = []
    is_over = threading.Event()

    def scrape() -> None:
        while not is_over.is_set():
            try:
                Scraped()
            except BaseException as error:  # noqa: BLE001
                errors.append(error)

    scraping = [threading.Thread(target=scrape) for _ in range(2)]
    for thread in scraping:
        thread.start()
    try:
        for number in range(4):
            biz = small.install(COUNTER.replace("K", "1") + APP, version=str(number))
            small.ask("/one/200")
            small.leave(biz)
    finally:
        is_over.set()
        for thread in scraping:
            thread.join()
    assert errors == []
