"""The dashboard, the scrape configuration and the alerts of ``examples/`` ask for series that a base gives."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest
import yaml  # type: ignore[import-untyped]
from tests.metrics.conftest import Scraped

from koupleless.arklet.api import METRICS
from koupleless.settings.reading import FIRST_ARKLET_PORT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.metrics.conftest import Small

EXAMPLES: Final = Path(__file__).parents[2] / "examples"
DASHBOARD: Final[Any] = json.loads((EXAMPLES / "grafana" / "modules.json").read_text(encoding="utf-8"))
ALERTS: Final[Any] = yaml.safe_load((EXAMPLES / "prometheus" / "alerts.yml").read_text(encoding="utf-8"))
SCRAPE: Final[Any] = yaml.safe_load((EXAMPLES / "prometheus" / "prometheus.yml").read_text(encoding="utf-8"))

_OF_PROMETHEUS: Final = {"job", "instance"}
_SERIES: Final = re.compile(r"\b((?:koupleless|process|python)_\w+)(?:\{([^}]*)\})?")


def queries() -> Iterator[str]:
    for panel in DASHBOARD["panels"]:
        yield from (target["expr"] for target in panel["targets"])
    yield from (variable["definition"] for variable in DASHBOARD["templating"]["list"] if "definition" in variable)
    yield from (rule["expr"] for rule in ALERTS["groups"][0]["rules"])


@pytest.fixture
def seen(small: Small) -> dict[str, set[str]]:
    """The labels of each series of a base with a module, and with one that has left something behind."""
    small.install()
    for path in ("/one/200", "/one/500"):
        small.ask(path)
    small.leave(small.install(name="two"))
    labels: dict[str, set[str]] = {}
    for family in Scraped().families.values():
        for sample in family.samples:
            labels.setdefault(sample.name, set()).update(sample.labels)
    # In this base nothing is held, neither in memory nor the event loop, and nothing was brought along.
    held = ("koupleless_event_loop_blocks_total", "koupleless_event_loop_blocked_seconds_total")
    of_bizs = {name: {"biz", "version"} for name in ("koupleless_zombies", *held)}
    return {**labels, **of_bizs, "koupleless_resident_bytes": {"library"}}


def test_every_query_asks_for_series_and_labels_that_there_are(seen: dict[str, set[str]]) -> None:
    asked = 0
    for query in queries():
        names = _SERIES.findall(query)
        for name, matchers in names:
            assert name in seen, query
            assert set(re.findall(r"(\w+)\s*[=!]~?", matchers)) <= seen[name] | _OF_PROMETHEUS, query
            asked += 1
        labels = {label for group in re.findall(r"by \(([^)]*)\)", query) for label in group.split(", ")}
        if names:
            assert labels <= set().union(*(seen[name] for name, _ in names)) | _OF_PROMETHEUS, query
    assert asked > 30


def test_states_and_outcomes_that_queries_name_are_there() -> None:
    from koupleless.biz import BizState

    states = {state for query in queries() for state in re.findall(r'state="(\w+)"', query)}
    assert states <= {state.value.lower() for state in BizState}
    assert {outcome for query in queries() for outcome in re.findall(r'outcome="(\w+)"', query)} <= {"failed"}


def test_every_series_of_ours_has_a_panel(seen: dict[str, set[str]]) -> None:
    shown = " ".join(target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"])
    ours = {re.sub(r"_(bucket|count|sum|created)$", "", name) for name in seen if name.startswith("koupleless_")}
    assert {name for name in ours if name not in shown} == set()


def test_panels_do_not_lie_upon_each_other() -> None:
    places = [
        (x, y)
        for panel in DASHBOARD["panels"]
        for at in [panel["gridPos"]]
        for x in range(at["x"], at["x"] + at["w"])
        for y in range(at["y"], at["y"] + at["h"])
    ]
    assert len(places) == len(set(places))
    assert max(x for x, _ in places) < 24
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])


def test_the_scrape_asks_where_an_arklet_answers() -> None:
    (job,) = SCRAPE["scrape_configs"]
    assert job["metrics_path"] == METRICS
    assert job["static_configs"] == [{"targets": [f"127.0.0.1:{FIRST_ARKLET_PORT}"]}]
    assert all((EXAMPLES / "prometheus" / name).exists() for name in SCRAPE["rule_files"])


def test_every_alert_has_its_line_on_the_page_for_operators() -> None:
    page = (EXAMPLES.parent / "docs" / "operating.md").read_text(encoding="utf-8")
    told = re.findall(r"^\| `(\w+)` \|", page.partition("## Monitoring")[2].partition("\n## ")[0], flags=re.MULTILINE)
    assert told == [rule["alert"] for rule in ALERTS["groups"][0]["rules"]]
