"""The page of the metrics lists what there is."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from koupleless.announce.fortune import Fortune
from koupleless.metrics.families import Metrics, of_process

if TYPE_CHECKING:
    from tests.metrics.conftest import Small

PAGE = Path(__file__).parent.parent.parent / "docs" / "metrics.md"


def test_every_series_is_on_the_page(small: Small) -> None:
    row = re.compile(r"^\| `(koupleless_\w+)` \| (\w+) \| (.*?) \| (.*?) \|$", re.MULTILINE)
    rows = row.findall(PAGE.read_text(encoding="utf-8"))
    there = [
        (
            family.name + "_total" * (family.kind == "counter"),
            family.kind,
            ", ".join(f"`{label}`" for label in family.labels),
            family.text,
        )
        for family in (
            *Metrics(small.container, lambda: small.host.stage.loop).read(),
            *of_process(),
            *Fortune("", "").read(),
        )
    ]

    assert rows == there
