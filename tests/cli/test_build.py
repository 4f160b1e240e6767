"""What ``arkctl build`` takes, and what it prints."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from koupleless.artifact.cached.cache import Cache
from koupleless.artifact.source import read_manifest, source_for

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest
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


def test_how_each_distribution_is_held_is_said_with_the_reason(arkctl: Arkctl, hello_file: Path) -> None:
    needs = ["--requirement", "click", "--requirement", "python-dotenv"]
    outcome = arkctl("build", hello_file, *needs)
    assert outcome.status == 0, outcome.err
    heading, *rows = (line.split(None, 2) for line in outcome.err.splitlines())
    assert heading[:2] == ["LIBRARY", "VERSION"]
    held = {row[0]: row[2] for row in rows}
    assert held["click"].startswith("shared ")
    assert held["python-dotenv"].startswith("own copy ")
    assert "nobody has said may be shared" in held["python-dotenv"]
    said = json.loads(arkctl("build", hello_file, *needs, "-o", "json").out)["distributions"]
    assert [(entry["name"], entry["packed"], entry["held"]) for entry in said] == [
        ("click", False, "shared"),
        ("python-dotenv", False, "own copy"),
    ]


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


def test_results_of_earlier_builds_are_removed_when_asked(
    arkctl: Arkctl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    made = tmp_path / "made"
    made.write_bytes(bytes(1 << 20))
    Cache.of_user().keep_archive(made, "0" * 64)
    assert "0 KiB freed, 1.0 MiB left" in arkctl("cache", "clean").out
    assert "1.0 MiB freed, 0 KiB left" in arkctl("cache", "clean", "--all").out
    assert list((tmp_path / "koupleless" / "builds").iterdir()) == []
