"""One letter changed in a module with large private libraries: build and deploy, until the new letter answers.

Beside it: the first deployment, for which nothing is remembered but the downloads of pip, and ``uvicorn --reload`` with
the same application and the libraries of the base. Each figure is by the clock on the wall, from the saved file.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from harness import Row, fetch, free_port, report, server, spread, warm_base

ROUNDS: Final = 5
BUDGET_S: Final = 1.5
LIBRARIES: Final = ("pandas==2.3.3", "numpy==2.3.4")
"""Other versions than those of the base, so that the module has to bring them: 100 MB in 2,900 files."""

APPLICATION: Final = '''"""An application that uses pandas."""

import pandas
from fastapi import FastAPI

app = FastAPI()
LETTER = "{letter}"


@app.get("/")
def tell() -> dict[str, str]:
    return {{"letter": LETTER, "pandas": pandas.__version__, "sum": str(pandas.Series([1, 2]).sum())}}
'''
PROJECT: Final = """
[project]
name = "table"
version = "1.0.0"
dependencies = ["fastapi", {libraries}]

[tool.koupleless.module]
entry = "table:app"
"""


def save(project: Path, letter: str) -> float:
    """Write the application with another letter; returns the time."""
    (project / "table.py").write_text(APPLICATION.format(letter=letter), encoding="utf-8")
    return time.perf_counter()


def until_told(port: int, path: str, letter: str, timeout_s: float = 60.0) -> None:
    """Wait until the application answers with the letter. Raises ``RuntimeError`` after ``timeout_s``."""
    wanted = f'"letter":"{letter}"'.encode()
    begin = time.perf_counter()
    while time.perf_counter() - begin < timeout_s:
        try:
            if wanted in fetch(port, path)[1]:
                return
        except OSError:
            pass
        time.sleep(0.002)
    raise RuntimeError(f"no answer with {letter} within {timeout_s:g} s")


def deploy(project: Path, arklet: int, environment: dict[str, str]) -> str:
    """Build and deploy as a user does; returns the first line of the command's output."""
    command = [sys.executable, "-m", "koupleless", "deploy", str(project), "--port", str(arklet)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stdout + done.stderr)
    return done.stdout.splitlines()[0]


def deployments(directory: Path) -> tuple[float, list[float], list[str]]:
    """Seconds of the first deployment, seconds of those with another letter, and what the command said."""
    project = directory / "table"
    project.mkdir()
    libraries = ", ".join(f'"{library}"' for library in LIBRARIES)
    (project / "pyproject.toml").write_text(PROJECT.format(libraries=libraries), encoding="utf-8")
    downloads = subprocess.run(
        [sys.executable, "-m", "pip", "cache", "dir"], capture_output=True, text=True, check=True
    ).stdout.strip()
    environment = {**os.environ, "XDG_CACHE_HOME": str(directory / "cache"), "PIP_CACHE_DIR": downloads}
    seconds, said = [], []
    with warm_base(directory) as (_, port, arklet):
        for letter in "abcdefghijklmnop"[: ROUNDS + 1]:
            begin = save(project, letter)
            said.append(deploy(project, arklet, environment))
            until_told(port, "/table/", letter)
            seconds.append(time.perf_counter() - begin)
    return seconds[0], seconds[1:], said


def reloads(directory: Path) -> list[float]:
    """Seconds from a saved letter to the answer of ``uvicorn --reload``."""
    project = directory / "alone"
    project.mkdir()
    save(project, "a")
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "table:app", "--port", str(port), "--log-level", "error", "--reload"]
    seconds = []
    with server(command, port=port, cwd=project):
        for letter in "bcdefghijklmnop"[:ROUNDS]:
            time.sleep(1)  # a watcher that has just started may miss a change
            begin = save(project, letter)
            until_told(port, "/", letter)
            seconds.append(time.perf_counter() - begin)
    return seconds


def main() -> None:
    """Deploy, change a letter, deploy again."""
    with tempfile.TemporaryDirectory() as text:
        directory = Path(text)
        first, again, said = deployments(directory)
        peer = reloads(directory)
    p50, of_peer = statistics.median(again), statistics.median(peer)
    rows = [
        Row("first deployment, nothing remembered", f"{first:.2f} s"),
        Row(
            "one letter changed, P50",
            f"{p50:.2f} s",
            f"{of_peer:.2f} s (uvicorn --reload)",
            f"{p50 / of_peer:.2f} x",
            f"<= {BUDGET_S:g} s",
            p50 <= BUDGET_S,
        ),
    ]
    report("redeploy", rows, {"first_s": first, "again_s": spread(again), "reload_s": spread(peer), "said": said})


if __name__ == "__main__":
    main()
