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


COUNTED = re.compile(r" (\d+) words  what/whose +([\d.]+)  pronouns +([\d.]+)$", re.MULTILINE)


def test_words_of_a_page_are_counted_without_code_html_links_and_written_tables(tmp_path):
    code = "```\nit its that\n```\n\n    whose them\n\n`it`, ``those ` them``\n\n<!-- what\nit -->\n"
    links = "[a](it.md#that) <https://it.example/that> https://it.example/them\n"
    listed = "- item\n\n    whose text\n\n| it | that |\n|---|---|\n"
    page, written = tmp_path / "page.md", tmp_path / "written.md"
    page.write_text(f"# Head\n\nIt says whose\n\n{code}{links}{listed}", encoding="utf-8")
    written.write_text(f"<!-- written by scripts/it -->\n\nIt says\n\n{listed}", encoding="utf-8")

    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts/prose.py"), str(page), str(written)],
        capture_output=True,
        text=True,
        check=False,
    )

    # Head, It, says, whose, a, item, whose, text, it, that; and of the written page It, says, item, whose, text.
    assert COUNTED.findall(done.stdout) == [("10", "200.0", "300.0"), ("5", "200.0", "200.0")]
    assert done.returncode == 1


def test_a_page_is_well_with_three_of_one_kind_and_thirty_of_the_other_in_a_thousand_words(tmp_path):
    page = tmp_path / "page.md"
    text = "what " * 3 + "it " * 30 + "word " * 967

    def check(text):
        page.write_text(f"{text}\n", encoding="utf-8")
        return subprocess.run([sys.executable, str(ROOT / "scripts/prose.py"), str(page)], check=False).returncode

    assert check(text) == 0
    assert check(text.replace("word", "whose", 1)) == 1
    assert check(text.replace("word", "them", 1)) == 1


def test_rooms_and_pages_and_their_templates_are_counted_where_none_is_named():
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts/prose.py")], capture_output=True, text=True, check=False, cwd=ROOT / "docs"
    )

    counted = {line.split()[0] for line in done.stdout.splitlines() if not line.startswith(" ")}
    templates = {f"src/koupleless/cli/templates/{kind}/README.md.tmpl" for kind in ("base", "module")}
    assert counted >= {"koupleless", "isolation", "README.md", "docs/limits.md", *templates}
