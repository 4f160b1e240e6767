"""Install time and memory of a small FastAPI module in a warm base, beside a uvicorn process of the same application.

``python bench/install.py [MODULES]``: installs that many modules (200), under names of their own, into one base.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from harness import SMALL_APP, Row, fetch, report, resident_mb, small_app_alone, spread, warm_base

from koupleless.artifact.build import Options, build_file
from koupleless.client import ArkletClient


def main(modules: int) -> None:
    """Measure both sides in one run and print them side by side."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        source = directory / "small_module.py"
        source.write_text(SMALL_APP, encoding="utf-8")
        artefacts = [
            build_file(source, Options(out=directory / "out", name=f"small-{number}")).path for number in range(modules)
        ]
        alone: list[tuple[float, float]] = []
        for _ in range(5):
            with small_app_alone(directory) as (process, seconds, port):
                fetch(port, "/")
                alone.append((seconds, resident_mb(process.pid)))
        with warm_base(directory) as (process, port, arklet):
            client = ArkletClient("127.0.0.1", arklet)
            wall, first = [], []
            client.install(artefacts[0].as_uri())
            fetch(port, "/small-0/")
            before = resident_mb(process.pid)
            for number, artefact in list(enumerate(artefacts))[1:]:
                begin = time.perf_counter()
                client.install(artefact.as_uri())
                wall.append((time.perf_counter() - begin) * 1e3)
                status, _ = fetch(port, f"/small-{number}/")
                first.append((time.perf_counter() - begin) * 1e3)
                assert status == 200
            grown = (resident_mb(process.pid) - before) / (modules - 1)
    installs, answers = spread(wall), spread(first)
    start_ms, memory = spread([s * 1e3 for s, _ in alone])["p50"], spread([m for _, m in alone])["p50"]
    rows = [
        Row("install, P50 (request to reply)", f"{installs['p50']:.1f} ms", "", "", "<= 5 ms", installs["p50"] <= 5),
        Row(
            "to the first answer, P50",
            f"{answers['p50']:.1f} ms",
            f"{start_ms:.0f} ms",
            f"{start_ms / answers['p50']:.0f} x",
            ">= 60 x",
            start_ms / answers["p50"] >= 60,
        ),
        Row(
            f"memory of one more, {modules} live",
            f"{grown:.3f} MB",
            f"{memory:.1f} MB",
            f"{memory / grown:.0f} x",
            "<= 0.1 MB, >= 300 x",
            grown <= 0.1 and memory / grown >= 300,
        ),
    ]
    report("install", rows, {"install_ms": installs, "first_answer_ms": answers, "grown_mb": grown, "alone": alone})


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200)
