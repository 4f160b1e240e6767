"""The numbers of a module: counted where requests pass, shown at a scrape, gone with the module."""

from __future__ import annotations

import textwrap
import threading

import prometheus_client
import pytest
from tests.conftest import until
from tests.metrics.conftest import APP, OPENMETRICS, Scraped, Small

from koupleless.adapters.prometheus import publish
from koupleless.biz import BizId
from koupleless.container.terms import Strategy
from koupleless.descriptions import BizInfo
from koupleless.errors import FetchFailed, StartFailed
from koupleless.health.watch import LoopWatch
from koupleless.isolation.namespace import Namespace
from koupleless.metrics.accounts import Accounts
from koupleless.metrics.exposition import expose
from koupleless.metrics.families import Metrics
from koupleless.traffic import BOUNDS, Traffic

ONE = {"biz": "one", "version": "1"}


def test_requests_are_counted_by_method_and_class(small: Small) -> None:
    biz = small.install()
    for path, method in (("/one/200", "GET"), ("/one/204", "POST"), ("/one/201", "POST"), ("/one/404", "BREW")):
        small.ask(path, method)

    seen = Scraped()
    assert seen.value("koupleless_requests_total", **ONE, method="GET", status="2xx") == 1
    assert seen.value("koupleless_requests_total", **ONE, method="POST", status="2xx") == 2
    assert seen.value("koupleless_requests_total", **ONE, method="other", status="4xx") == 1
    assert seen.value("koupleless_request_duration_seconds_count", **ONE) == 4
    assert seen.value("koupleless_request_duration_seconds_bucket", **ONE, le="+Inf") == 4
    assert 0 < (seen.value("koupleless_request_duration_seconds_sum", **ONE) or 0) < 4
    assert seen.value("koupleless_requests_in_flight", **ONE) == 0
    assert seen.value("koupleless_request_errors_total", **ONE) == 0
    small.leave(biz)


def test_an_exception_is_an_error_and_an_answer_of_the_server(small: Small) -> None:
    small.install()
    assert small.ask("/one/raise").status_code == 500

    seen = Scraped()
    assert seen.value("koupleless_request_errors_total", **ONE) == 1
    assert seen.value("koupleless_requests_total", **ONE, method="GET", status="5xx") == 1


@pytest.fixture
def of_others() -> set[str]:
    """The families of bases of other tests in this process."""
    return set(Scraped().families)


def test_the_series_of_a_module_go_with_the_module(of_others: set[str], small: Small) -> None:
    one, two = small.install(), small.install(name="two")
    for name in ("one", "two"):
        small.ask(f"/{name}/200")
    assert len(Scraped().series(biz="one")) == len(Scraped().series(biz="two")) > 10
    small.leave(one)

    seen = Scraped()
    assert seen.series(biz="one") == []
    assert seen.value("koupleless_requests_total", biz="two", version="1", method="GET", status="2xx") == 1
    small.leave(two)
    assert Scraped().series(version="1") == []
    small.container.close()
    assert {name for name in Scraped().families if name.startswith("koupleless_")} <= of_others


def test_a_redeploy_of_the_same_version_goes_on_counting(small: Small) -> None:
    small.install()
    small.ask("/one/200")
    small.install(strategy=Strategy.REPLACE)
    small.ask("/one/200")

    assert Scraped().value("koupleless_requests_total", **ONE, method="GET", status="2xx") == 2


def test_a_version_that_comes_again_begins_at_nothing(small: Small) -> None:
    biz = small.install()
    small.ask("/one/200")
    small.leave(biz)
    small.install()

    assert Scraped().value("koupleless_requests_total", **ONE, method="GET", status="2xx") is None


def test_threads_tasks_and_states(small: Small) -> None:
    source = """
    import asyncio, threading
    stop = threading.Event()
    tasks = []
    threads = [threading.Thread(target=stop.wait) for _ in range(3)]
    for thread in threads:
        thread.start()
    import koupleless
    koupleless.on_stop(stop.set)
    """
    app = APP.replace("while True:", "tasks.append(asyncio.create_task(asyncio.sleep(60)))\n        while True:", 1)
    biz = small.install(textwrap.dedent(source) + app)

    seen = Scraped()
    assert seen.value("koupleless_biz_threads", **ONE) == 3
    assert (seen.value("koupleless_biz_tasks", **ONE) or 0) >= 1
    assert seen.value("koupleless_bizs", biz="one", state="activated") == 1
    assert seen.value("koupleless_biz_start_memory_bytes", **ONE) is not None
    small.leave(biz)


def test_installs_and_uninstalls_are_counted_by_outcome(small: Small) -> None:
    def count(what: str, outcome: str) -> float:
        return Scraped().value(f"koupleless_{what}_duration_seconds_count", outcome=outcome) or 0

    biz = small.install()
    assert (count("install", "success"), count("install", "failed")) == (1, 0)
    with pytest.raises(StartFailed):
        small.install("1 / 0", name="broken")
    with pytest.raises(FetchFailed):
        small.container.prepare("file:///nowhere.zip")
    assert (count("install", "success"), count("install", "failed")) == (1, 2)
    small.leave(biz)
    assert count("uninstall", "success") == 1


def test_in_flight_is_the_number_of_requests_inside(small: Small) -> None:
    waiting = """
    import threading
    entered, go_on = threading.Event(), threading.Event()
    def app(environ, start_response):
        entered.set()
        go_on.wait(20)
        start_response("200 OK", [])
        return [b""]
    """
    biz = small.install(waiting)
    scope = small.container.scope_of(biz)
    assert scope is not None
    module = scope.facet(Namespace).table["app"]
    asking = threading.Thread(target=small.ask, args=("/one/",))
    asking.start()
    assert module.entered.wait(10)
    assert Scraped().value("koupleless_requests_in_flight", **ONE) == 1
    module.go_on.set()
    asking.join(10)
    assert until(lambda: Scraped().value("koupleless_requests_in_flight", **ONE) == 0)


def test_a_module_that_holds_the_event_loop_is_counted(tmp_path) -> None:
    small = Small(tmp_path, watch=LoopWatch(0.2))
    try:
        biz = small.install("import time\n" + APP.replace("    status = int", "    time.sleep(0.5)\n    status = int"))
        assert until(lambda: small.container.watch.lag_s > 0)  # the watch knows the thread of the loop
        small.ask("/one/200")
        assert until(lambda: (Scraped().value("koupleless_event_loop_blocks_total", **ONE) or 0) >= 1)
        assert 0.2 <= (Scraped().value("koupleless_event_loop_blocked_seconds_total", **ONE) or 0) < 5
        assert Scraped().value("koupleless_event_loop_lag_seconds") is not None
        small.leave(biz)
        assert Scraped().series(**ONE) == []
    finally:
        small.container.close()


def test_both_formats_can_be_read(small: Small) -> None:
    small.install()
    small.ask("/one/200")
    plain, openly = Scraped(), Scraped(accept=OPENMETRICS)

    assert plain.content_type.startswith("text/plain")
    assert openly.content_type.startswith("application/openmetrics-text")
    assert openly.text.endswith("# EOF\n")
    labels = {**ONE, "method": "GET", "status": "2xx"}
    assert (
        plain.value("koupleless_requests_total", **labels) == openly.value("koupleless_requests_total", **labels) == 1
    )
    assert "process_resident_memory_bytes" in plain.families
    assert expose("application/openmetrics-text; version=x, text/plain; version=y")[0]


def test_a_base_without_modules_is_scraped_without_changes_to_the_library() -> None:
    collect = prometheus_client.CollectorRegistry.collect
    assert "python_info" in Scraped().families
    assert prometheus_client.CollectorRegistry.collect is collect


def test_five_hundred_modules_make_one_answer() -> None:
    class Source:
        accounts = Accounts()
        base = BizInfo.of_base(BizId.of("base", "1.0.0"))
        watch = LoopWatch()

        def bizs(self):
            return ()

        def zombies(self):
            return ()

    for number in range(500):
        Source.accounts.traffic_of(BizId.of(f"m{number}", "1")).count("GET", 200, 0.01, False)
    end = publish(Metrics(Source(), lambda: None).read)  # type: ignore[arg-type,return-value]  # without lives
    try:
        seen = Scraped()
    finally:
        end()
    assert len(seen.families["koupleless_requests"].samples) == 500
    assert len(seen.families["koupleless_request_duration_seconds"].samples) == 500 * (len(BOUNDS) + 3)


@pytest.mark.parametrize("status", [0, 99, 600, "200", None, 10**9, True])
def test_a_status_that_is_none_of_http_is_counted_as_none(status: object) -> None:
    traffic = Traffic()
    traffic.count("GET", status, 0.0, False)
    assert traffic.read().answers == {("GET", "none"): 1}


def test_a_duration_on_a_bound_is_within_the_bound() -> None:
    traffic = Traffic()
    for seconds in (*BOUNDS, 11.0, 1e9, 0.0):
        traffic.count("GET", 200, seconds, False)
    assert traffic.read().durations == [2, *[1] * (len(BOUNDS) - 1), 2]
