"""What is checked before a commit is what `scripts/check` runs."""

from __future__ import annotations

import re
from pathlib import Path

import yaml  # type: ignore[import-untyped]

ROOT = Path(__file__).parent.parent


def test_every_check_is_a_hook_of_pre_commit():
    listed = re.search(r"^CHECKS=\((.+)\)$", (ROOT / "scripts/check").read_text(encoding="utf-8"), re.MULTILINE)
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    (repository,) = config["repos"]

    assert listed is not None
    assert repository["repo"] == "local"
    assert [hook["id"] for hook in repository["hooks"]] == listed[1].split()
    assert [hook["entry"] for hook in repository["hooks"]] == [f"scripts/check {name}" for name in listed[1].split()]
