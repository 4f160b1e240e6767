"""The checks: each is a hook of pre-commit, and the one of Markdown mends what it finds."""

from __future__ import annotations

import re
import subprocess
import sys
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


def test_long_paragraphs_are_wrapped_and_nothing_else_is_touched(tmp_path):
    words = "word " * 40
    prose = f"# Head\n\n- {words}`a span of code`\n  goes on  \n- short\n\n\n{words}1. no list\n"
    code = f"```\n{words}x\n\n\n- x\n```\n\n| {words}|\n"
    page = tmp_path / "page.md"
    page.write_text(f"{prose}{code}", encoding="utf-8")
    check = [sys.executable, str(ROOT / "scripts/markdown.py")]

    before = subprocess.run([*check, str(page)], capture_output=True, text=True, check=False)
    subprocess.run([*check, "--fix", str(page)], check=True)
    lines = page.read_text(encoding="utf-8").split("\n")

    assert before.returncode == 1
    assert [line.partition(f"{page}:")[2] for line in before.stdout.splitlines()] == [
        "3: 218 columns",
        "4: blanks at its end",
        "7: a second empty line",
        "8: 210 columns",
    ]
    assert f"{prose}{code}".split() == page.read_text(encoding="utf-8").split()
    assert [line for line in lines if "a span of code" in line]
    assert "\n".join(lines).endswith(code)
    assert max(len(line) for line in lines[1:8]) <= 140
    assert not [line for line in lines if line.startswith("1. ")]
