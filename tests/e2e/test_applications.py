"""A few of the applications of ``scripts/applications``, in one base: they answer as they do alone."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from tests.conftest import unmeasured

RUN = Path(__file__).with_name("applications") / "run.py"
QUICK = ("pecan", "prometheus-client", "quart")


@pytest.mark.network
@pytest.mark.timeout(900)
def test_quick_applications_of_the_index_answer_alike_and_leave_nothing_behind(tmp_path: Path) -> None:
    environment = {**unmeasured(), "XDG_CACHE_HOME": str(tmp_path / "cache"), "PIP_NO_COMPILE": "1"}
    command = [sys.executable, "-P", str(RUN), "--scratch", str(tmp_path / "scratch"), *QUICK]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=840, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in done.stdout.splitlines() if "|" in line]
    assert [row[0] for row in rows[2:]] == list(QUICK)
    for name, *_, asked, client, report in rows[2:]:
        equal, count = map(int, re.findall(r"\d+", asked))
        assert equal == count >= 6, name
        assert (client in {"same", "-"}, report) == (True, "nothing left behind"), name
    answers = (tmp_path / "scratch" / "quart" / "inside.txt").read_text()
    assert "<a href='/quart/shop/tea'>" in answers, "they were mounted"
    assert "\n--- client\n/ws one\n/ws two\n" in answers, "the client did talk to them"
