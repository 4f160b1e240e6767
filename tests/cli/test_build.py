"""What ``arkctl build`` takes, and what it prints."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from koupleless.artifact.source import read_manifest, source_for

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.cli.conftest import Outcome

    Arkctl = Callable[..., Outcome]


def test_the_path_of_the_artefact_is_all_that_is_printed(arkctl: Arkctl, hello_file: Path) -> None:
    outcome = arkctl("build", hello_file)
    assert outcome.status == 0
    assert Path(outcome.out.strip()) == hello_file.parent / "dist" / "hello-1.0.0-ark-biz.zip"
    assert "built hello:1.0.0" in outcome.err


def test_flags_win_over_what_the_file_says(arkctl: Arkctl, hello_file: Path) -> None:
    flags = ["--name", "bonjour", "--version-override", "2", "--web-context-path", "/salut", "--entry", "hello:app"]
    outcome = arkctl("build", hello_file, "--out", "there", *flags, "-o", "json")
    said = json.loads(outcome.out)
    assert (said["bizName"], said["bizVersion"]) == ("bonjour", "2")
    manifest = read_manifest(source_for(Path(said["path"])))
    assert manifest.web_context_path == "/salut"
    assert said["size"] == Path(said["path"]).stat().st_size


def test_every_distribution_is_explained_on_demand(arkctl: Arkctl, hello_file: Path) -> None:
    outcome = arkctl("build", hello_file, "--requirement", "click", "-v")
    assert outcome.status == 0, outcome.err
    assert "left out  click" in outcome.err
    said = json.loads(arkctl("build", hello_file, "--requirement", "click", "-o", "json").out)["distributions"]
    assert [(entry["name"], entry["packed"]) for entry in said] == [("click", False)]


def test_an_application_from_the_index_needs_to_be_told_its_entry(arkctl: Arkctl) -> None:
    refused = arkctl("build", "--requirement", "httpbin")
    assert refused.status == 2
    assert "Pass --entry" in refused.err


def test_what_is_built_already_is_not_built_again(arkctl: Arkctl, hello_zip: Path) -> None:
    refused = arkctl("build", hello_zip)
    assert refused.status == 2
    assert "is built already" in refused.err


def test_every_mistake_of_a_project_is_reported_at_once(arkctl: Arkctl, hello_file: Path) -> None:
    table = '[project]\nname = "a b"\nversion = "1"\n[tool.koupleless.module]\npriority = "high"\n'
    (hello_file.parent / "pyproject.toml").write_text(table)
    refused = arkctl("build")
    assert refused.status == 2
    assert "3 mistakes" in refused.err
    assert "suggestion: set `entry" in refused.err
