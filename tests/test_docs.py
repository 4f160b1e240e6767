"""What the documentation lists is what there is."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

from koupleless.settings import ArkletSettings, BaseSettings, ClientSettings

DOCS = Path(__file__).parent.parent / "docs"


@pytest.mark.parametrize(
    ("group", "prefix"),
    [(BaseSettings, "KOUPLELESS_BASE_"), (ArkletSettings, "KOUPLELESS_ARKLET_"), (ClientSettings, "ARKCTL_")],
)
def test_every_setting_is_documented(group, prefix):
    listed = set(re.findall(r"`([A-Z_]+)`", (DOCS / "settings.md").read_text(encoding="utf-8")))
    there = {f"{prefix}{field.name.removesuffix('_s').upper()}" for field in fields(group) if field.metadata}

    assert there <= listed
    assert {name for name in listed if name.startswith(prefix)} == there


def test_links_between_pages_lead_somewhere():
    for page in [*DOCS.glob("*.md"), *DOCS.parent.glob("*.md")]:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
