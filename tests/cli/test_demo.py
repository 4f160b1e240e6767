"""The demonstration: it does what it shows, fails when a step fails, and leaves nothing behind, however it ends."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import psutil  # type: ignore[import-untyped]
import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextlib.contextmanager
def demo(scratch: Path, *arguments: str, **environ: str) -> Iterator[subprocess.Popen[str]]:
    """``arkctl demo`` with its temporary files below ``scratch``."""
    environment = {**os.environ, "TMPDIR": str(scratch), "PYTHONUNBUFFERED": "1", **environ}
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "koupleless", "demo", *arguments],
        cwd=scratch.parent,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    directory = tmp_path / "scratch"
    directory.mkdir()
    return directory


def left_in(scratch: Path) -> list[str]:
    return [path.name for path in scratch.iterdir() if path.name.startswith(("arkctl-", "koupleless-"))]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it_with_everything_it_started(scratch: Path, number: signal.Signals) -> None:
    with demo(scratch) as process:
        assert process.stdout is not None
        while "first answer" not in (line := process.stdout.readline()):
            assert line, process.stderr.read() if process.stderr else ""
        started = psutil.Process(process.pid).children(recursive=True)
        assert started, "the base is a process of its own"
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number, out + err
    assert "interrupted" in err
    assert "Traceback" not in err
    gone, alive = psutil.wait_procs(started, timeout=10)
    assert gone
    assert not alive
    assert left_in(scratch) == []


def test_a_step_that_fails_ends_it_with_a_status_and_the_reason(scratch: Path) -> None:
    nowhere = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(scratch)}
    with demo(scratch, **nowhere) as process:
        out, err = process.communicate(timeout=100)
    assert process.returncode == 3, out + err
    assert "error: cannot build" in err
    assert "the base said last" in err
    assert left_in(scratch) == []


@pytest.mark.network
@pytest.mark.timeout(300)
def test_every_step_shows_what_it_measured(scratch: Path) -> None:
    with demo(scratch, "--copies", "5") as process:
        out, err = process.communicate(timeout=280)
    assert process.returncode == 0, out + err
    assert err == ""
    for finding in (
        r"first answer after \d+ ms, [\d.]+ MiB resident",
        r"hello:1.0 deployed in [\d.]+ ms",
        r"GET http://127.0.0.1:\d+/hello/ -> 200",
        r"GET http://127.0.0.1:\d+/httpbin/get -> 200",
        r"GET http://127.0.0.1:\d+/datasette/planets/planets.json\S* -> 200",
        r"each: [\d.]+ ms to install \(median; slowest [\d.]+ ms\), -?[\d.]+ [KM]iB of memory",
        r"one uvicorn process of the same application: \d+ ms to its first answer, [\d.]+ MiB of memory",
        r"[1-9]\d* requests sent, 0 failed, longest gap between two answers [\d.]+ ms",
        r"hello:1.1: clean",
        r"httpbin:\S+: clean",
        r"datasette:\S+: clean",
        r"did not end by itself: thread '\S+ \(_execute_writes\)' \(daemon\) was interrupted at \S+ in _execute_writes",
        r"5 of the 5 copies: clean",
        r"memory before [\d.]+ MiB, after [\d.]+ MiB",
    ):
        assert re.search(finding, out), f"{finding} is not in\n{out}"
    assert left_in(scratch) == []
