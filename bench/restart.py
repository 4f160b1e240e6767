"""A base with many modules starts again, beside installs one after the other, and a uvicorn process for each module.

``python bench/restart.py [MODULES]``: a base with so many small FastAPI modules (200) is killed and started again over
its state directory, three times.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psutil  # type: ignore[import-untyped]
from harness import SMALL_APP, Row, fetch, report, small_app_alone, spread, warm_base

from koupleless.artifact.build import Options, build_file
from koupleless.client import ArkletClient

if TYPE_CHECKING:
    import subprocess


def main(modules: int) -> None:
    """Measure all three in one run and print them side by side."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        source = directory / "small_module.py"
        source.write_text(SMALL_APP, encoding="utf-8")
        alone = []
        for _ in range(3):
            with small_app_alone(directory) as (_, seconds, port):
                fetch(port, "/")
                alone.append(seconds)
        names = [f"small-{number}" for number in range(modules)]
        artefacts = [build_file(source, Options(out=directory / "out", name=each)).path for each in names]
        begin = time.perf_counter()
        with warm_base(directory) as (process, _, arklet):
            empty_s = time.perf_counter() - begin
            client = ArkletClient("127.0.0.1", arklet)
            begin = time.perf_counter()
            for artefact in artefacts:
                client.install(artefact.as_uri())
            installs_s = time.perf_counter() - begin
            kill(process)
        for artefact in artefacts:
            artefact.unlink()
        starts, processor = [], []
        for _ in range(3):
            begin = time.perf_counter()
            with warm_base(directory) as (process, port, _):
                starts.append(time.perf_counter() - begin)
                processor.append(sum(psutil.Process(process.pid).cpu_times()[:2]))
                for each in names:
                    assert fetch(port, f"/{each}/")[0] == 200
                kill(process)
    start, process_s = spread(starts)["p50"], spread(alone)["p50"]
    rows = [
        Row(
            f"a base with {modules} modules, until ready",
            f"{start:.2f} s",
            f"{process_s * modules:.0f} s",
            f"{process_s * modules / start:.0f} x",
            "<= 3 s",
            start <= 3,
        ),
        Row("its processor time until then", f"{spread(processor)['p50']:.2f} s"),
        Row("the same base without modules", f"{empty_s:.2f} s"),
        Row("installs one after the other", f"{installs_s:.2f} s"),
    ]
    figures = {
        "start_s": starts,
        "processor_s": processor,
        "empty_s": empty_s,
        "installs_s": installs_s,
        "alone_s": alone,
    }
    report("restart", rows, {"modules": modules, **figures})


def kill(process: subprocess.Popen[bytes]) -> None:
    """End a base as a crash does."""
    process.kill()
    process.wait()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200)
