"""Install and uninstall one small FastAPI module again and again in one process: does anything grow?

``python bench/cycles.py [CYCLES]`` (1,000). Runs the container without a server, so that nothing else allocates.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

from harness import SMALL_APP, Row, report, resident_mb, spread

from koupleless.artifact.build import Options, build_file
from koupleless.artifact.store import Store
from koupleless.biz import BizId, BizInfo, BizState
from koupleless.container.container import EMBED_MAIN, Container
from koupleless.container.life import Surroundings
from koupleless.container.prepare import Preparation
from koupleless.container.stage import Stage
from koupleless.ownership.purge import freeze_base
from koupleless.router.asgi import Front
from koupleless.service.registry import Registry


def main(cycles: int) -> None:
    """Run the cycles and compare the memory after half of them with that at the end."""
    import fastapi  # noqa: F401, PLC0415 - the base is warm

    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        source = directory / "small.py"
        source.write_text(SMALL_APP, encoding="utf-8")
        url = build_file(source, Options(out=directory)).path.as_uri()
        container = Container(
            base=BizInfo(BizId.of("base", "1.0.0"), BizState.ACTIVATED, EMBED_MAIN, is_base=True),
            front=Front(),
            preparation=Preparation(Store(directory / "store")),
            around=Surroundings(stage=Stage(), services=Registry()),
        )
        freeze_base()
        installs, uninstalls, memory, unclean = [], [], [], []
        for number in range(cycles):
            begin = time.perf_counter()
            installed = container.install(container.prepare(url))
            middle = time.perf_counter()
            purged = container.uninstall(installed.info.id)
            installs.append((middle - begin) * 1e3)
            uninstalls.append((time.perf_counter() - middle) * 1e3)
            memory.append(resident_mb(os.getpid()))
            if not purged.clean:
                unclean.append((number, purged.summary()))
        container.close()
    warm = min(500, cycles // 2)
    grown = memory[-1] - memory[warm]
    rows = [
        Row("install, P50", f"{spread(installs)['p50']:.1f} ms", budget="<= 10 ms", kept=spread(installs)["p50"] <= 10),
        Row("uninstall with purge, P50", f"{spread(uninstalls)['p50']:.1f} ms"),
        Row(f"memory growth, cycles {warm} to {cycles}", f"{grown:+.2f} MB", budget="<= 2 MB", kept=grown <= 2),
        Row("cycles whose purge was not clean", f"{len(unclean)}", budget="0", kept=not unclean),
    ]
    details = {"install_ms": spread(installs), "uninstall_ms": spread(uninstalls), "unclean": unclean[:10]}
    report("cycles", rows, {**details, "memory_mb": memory[:: max(1, cycles // 50)]})


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000)
