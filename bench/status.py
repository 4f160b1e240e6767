"""The wall time of ``arkctl status`` as a whole process, beside a Python that does nothing.

The libraries are compiled by the first call, as pip compiles them where users install: to compile anew takes longer
than all else.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from harness import Row, report, spread, warm_base

ROUNDS = 15


def wall_ms(command: list[str], directory: str) -> float:
    """Run a command once, in a project with a ``pyproject.toml`` that says nothing about arkctl."""
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    begin = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=directory, env=environ)
    return (time.perf_counter() - begin) * 1e3


def main() -> None:
    """Alternate the two commands and compare their medians."""
    with tempfile.TemporaryDirectory() as name, warm_base(Path(name)) as (_, _, arklet):
        status = [str(Path(sys.executable).with_name("arkctl")), "status", "--port", str(arklet)]
        nothing = [sys.executable, "-c", "pass"]
        Path(name, "pyproject.toml").write_text('[project]\nname = "shop"\nversion = "1"\n', encoding="utf-8")
        wall_ms(status, name)
        pairs = [(wall_ms(status, name), wall_ms(nothing, name)) for _ in range(ROUNDS)]
    ours, python = spread([a for a, _ in pairs]), spread([b for _, b in pairs])
    rows = [
        Row(
            "arkctl status, P50",
            f"{ours['p50']:.0f} ms",
            f"{python['p50']:.0f} ms (python -c pass)",
            f"{ours['p50'] / python['p50']:.1f} x",
            "<= 70 ms",
            ours["p50"] <= 70,
        )
    ]
    report("status", rows, {"status_ms": ours, "python_ms": python})


if __name__ == "__main__":
    main()
