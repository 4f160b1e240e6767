"""A base and its modules configure the same library differently, and nothing of it crosses.

A few of many: ``scripts/libraries`` tries more than a hundred so, and writes docs/libraries.md.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

RUN = Path(__file__).parent / "libraries" / "run.py"

TOGETHER = """
[together]
state = "a file, of which there is one for each process"
needs = ["packaging"]
imports = ["packaging"]
use = '''
import os
from pathlib import Path
FILE = Path(f"said-{os.getpid()}")
def configure(value, number):
    FILE.write_text(value)
def observe():
    return FILE.read_text()
'''

[nothing]
state = "none"
needs = ["packaging"]
imports = ["packaging"]
use = '''
def configure(value, number):
    pass
def observe():
    return 1
'''
"""


def run(*arguments: str | Path, document: Path) -> tuple[subprocess.CompletedProcess[str], dict[str, dict[str, str]]]:
    """The script with the environment that runs the tests; Library -> column -> cell of the table that it wrote."""
    command = [sys.executable, "-P", str(RUN), "--jobs", "2", "--write", str(document)]
    command += ["--scratch", str(document.parent / "scratch")]
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=110, check=False)
    assert document.exists(), done.stdout + done.stderr
    lines = [line.strip("| ").split(" | ") for line in document.read_text(encoding="utf-8").splitlines() if "|" in line]
    return done, {line[0]: dict(zip(lines[0], line, strict=False)) for line in lines[2:]}


def test_libraries_are_kept_apart(tmp_path: Path) -> None:
    names = ["blinker", "jinja2", "prometheus-client"]
    done, rows = run(*names, document=tmp_path / "libraries.md")

    assert done.returncode == 0, done.stdout + done.stderr
    assert list(rows) == names
    for row in rows.values():
        assert (row["Base uses it"], row["Base has it"], row["Leaves"]) == ("apart", "apart", "clean")
        assert row["One more, shared"].endswith(" MB")


def test_what_crosses_and_what_proves_nothing_is_told(tmp_path: Path) -> None:
    tables = tmp_path / "tables"
    tables.mkdir()
    tables.joinpath("some.toml").write_text(TOGETHER)
    found = tmp_path / "found.json"
    done, rows = run("--tables", tables, "--json", found, document=tmp_path / "libraries.md")

    assert done.returncode == 1
    assert rows["together"]["Base uses it"] == "left behind; module → base; module → module"
    assert rows["together"]["Base has it"] == "module → module"
    assert rows["nothing"]["Base uses it"] == "proves nothing"
    findings = json.loads(found.read_text())["together"]["findings"]["warm"]
    assert {"kind": "module → base", "where": "install one, base", "detail": "one instead of base"} in findings
    assert done.stdout.endswith("together is not kept apart\n")
    assert "nothing proves nothing\n" in done.stdout
