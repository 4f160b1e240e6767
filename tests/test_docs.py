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
    root = DOCS.parent
    roots = [root, root / "src", root / "src/koupleless"]
    tops = {place.name for above in roots for place in above.iterdir() if place.is_dir()}
    pages = "".join(page.read_text(encoding="utf-8") for page in [*DOCS.glob("*.md"), *root.glob("*.md")])
    named = set(re.findall(r"`(\w[\w/-]*/[\w.-]*)`", pages))

    assert any(name.endswith(".py") for name in named)
    ours = {name for name in named if name.partition("/")[0] in tops}
    assert {name for name in ours if not any((place / name).exists() for place in roots)} == set()


@pytest.mark.parametrize("page", ["architecture", "how-an-install-runs", "how-an-uninstall-runs"])
def test_names_of_the_source_on_pages_about_the_inside_are_there(page):
    known = set(re.findall(r"\w+", "".join(file.read_text("utf-8") for file in (DOCS.parent / "src").rglob("*.py"))))
    text = re.sub(r"```.*?```", "", (DOCS / f"{page}.md").read_text(encoding="utf-8"), flags=re.DOTALL)
    named = {word for span in re.findall(r"`([^`\n]+)`", text) for word in re.findall(r"[A-Za-z_]\w+", span)}
    commands = {file.stem for file in (DOCS.parent / "scripts").iterdir()}

    assert named
    assert named <= known | commands


def test_the_floors_of_the_architecture_are_those_of_the_contract():
    page = (DOCS / "architecture.md").read_text(encoding="utf-8")
    drawn = page.partition("## Floors")[2].partition("```text\n")[2].partition("```")[0]
    contracts = tomllib.loads((DOCS.parent / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]["contracts"]
    (layers,) = (contract["layers"] for contract in contracts if contract["name"] == "Layers")

    # A line of the drawing is a floor, with its explanation behind a gap or on a line of its own.
    assert [line.split("  ")[0] for line in drawn.splitlines() if not line.startswith(" ")] == layers
