"""A few of the suites of ``scripts/suites``, the fast ones: what nobody here wrote passes inside a module as alone."""

from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.conftest import unmeasured

if TYPE_CHECKING:
    from collections.abc import Sequence

SCRIPT = Path(__file__).parents[2] / "scripts" / "suites.py"
FAST = ("blinker", "itsdangerous", "jinja2")


@pytest.mark.network
@pytest.mark.timeout(900)
def test_fast_suites_differ_in_nothing(tmp_path: Path) -> None:
    page = tmp_path / "suites.md"
    environment = {**unmeasured(), "XDG_CACHE_HOME": str(tmp_path / "cache"), "PIP_NO_COMPILE": "1"}
    command = [sys.executable, "-P", str(SCRIPT), "--write", str(page), *FAST]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=840, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [row for row in rows_of(page) if row[0] in FAST]
    assert [row[0] for row in rows] == list(FAST)
    for name, _, _, alone, inside, differ in rows:
        assert (alone, differ) == (inside, "none"), name
        assert int(alone.split()[0]) >= 25, "it did run"


def test_a_suite_with_a_repository_is_that_of_the_tag_of_its_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    upstream = tmp_path / "upstream"
    git = ("git", "-C", str(upstream), "-c", "user.name=a", "-c", "user.email=a@b")
    subprocess.run(["git", "init", "--quiet", upstream], check=True)
    for version in ("1.0", "1.1"):
        (upstream / "version").write_text(version)
        subprocess.run([*git, "add", "version"], check=True)
        subprocess.run([*git, "commit", "--quiet", "-m", version], check=True)
        subprocess.run([*git, "tag", version], check=True)
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", f"url.{upstream.as_uri()}.insteadOf")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", "https://example.invalid/owner/named")
    script = runpy.run_path(str(SCRIPT))
    suite = script["Named"](source="named==1.0", repository="https://example.invalid/owner/named")
    tree = script["clone"](suite.repository, script["version_of"](suite), tmp_path)
    assert (tree.name, (tree / "version").read_text()) == ("named", "1.0")


def rows_of(page: Path) -> list[Sequence[str]]:
    lines = page.read_text(encoding="utf-8").splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
