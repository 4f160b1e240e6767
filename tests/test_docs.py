"""What the documentation lists is what there is."""

from __future__ import annotations

import re
import tomllib
from dataclasses import fields
from importlib import metadata
from pathlib import Path

import pytest

from koupleless.settings.base import ArkletSettings, BaseSettings
from koupleless.settings.client import ClientSettings

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


def test_links_of_the_readme_lead_somewhere_from_the_package_index_too():
    about = metadata.metadata("koupleless")
    root = f"https://github.com/koupleless/koupleless-python/blob/v{about['Version']}/"
    there = re.findall(r"\]\(([^)#]+)", str(about.json["description"]))
    written = re.findall(r"\]\(([^)#]+)", (DOCS.parent / "README.md").read_text(encoding="utf-8"))

    assert there == [link if link.startswith("https:") else root + link for link in written]
    assert all((DOCS.parent / link.removeprefix(root)).exists() for link in there if link.startswith(root))
    assert any(link.startswith(root) for link in there)


def test_files_that_pages_name_are_there():
    roots = [DOCS.parent / place for place in ("", "src", "src/koupleless")]
    pages = "".join(page.read_text(encoding="utf-8") for page in DOCS.glob("*.md"))
    named = set(re.findall(r"`(\w[\w/]*/\w+\.py)`", pages))

    assert named
    assert {name for name in named if not any((root / name).exists() for root in roots)} == set()


def test_the_floors_of_the_architecture_are_those_of_the_contract():
    page = (DOCS / "architecture.md").read_text(encoding="utf-8")
    drawn = page.partition("## Floors")[2].partition("```text\n")[2].partition("```")[0]
    contracts = tomllib.loads((DOCS.parent / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]["contracts"]
    (layers,) = (contract["layers"] for contract in contracts if contract["name"] == "Layers")

    # A line of the drawing is a floor, with its explanation behind a gap or on a line of its own.
    assert [line.split("  ")[0] for line in drawn.splitlines() if not line.startswith(" ")] == layers
