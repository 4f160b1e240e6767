"""A thousand modules live at once in one base: memory, the install of the last ones, and requests.

``python bench/thousand.py [MODULES]`` (1,000). Every module is the small FastAPI application under a name of its own. A
second base with one module runs beside it: both are asked in turns, over one keep-alive connection each, so that
whatever else the machine does hits them alike.
"""

from __future__ import annotations

import http.client
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from harness import SMALL_APP, Row, fetch, report, resident_mb, spread, warm_base

from koupleless.artifact.build import Options, build_file
from koupleless.biz import BizId
from koupleless.client import ArkletClient

ROUNDS: Final = 21
TURN_S: Final = 0.4


def rate(port: int, paths: list[str], seconds: float) -> float:
    """Answers per second over one connection, for the paths one after another."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    answers, begin = 0, time.perf_counter()
    while time.perf_counter() - begin < seconds:
        connection.request("GET", paths[answers % len(paths)])
        answer = connection.getresponse()
        answer.read()
        assert answer.status == 200
        answers += 1
    took = time.perf_counter() - begin
    connection.close()
    return answers / took


def main(modules: int) -> None:
    """Fill the base, then ask it and the one beside it."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        source = directory / "small_module.py"
        source.write_text(SMALL_APP, encoding="utf-8")
        out = directory / "out"
        artefacts = [build_file(source, Options(out=out, name=f"small-{number}")).path for number in range(modules)]
        for place in ("full", "single"):
            (directory / place).mkdir()
        with (
            warm_base(directory / "full") as (process, port, arklet),
            warm_base(directory / "single") as (_, single_port, single_arklet),
        ):
            client = ArkletClient("127.0.0.1", arklet)
            single = ArkletClient("127.0.0.1", single_arklet)
            single.install(artefacts[0].as_uri())
            installs, memory = [], [resident_mb(process.pid)]
            for artefact in artefacts:
                begin = time.perf_counter()
                client.install(artefact.as_uri())
                installs.append((time.perf_counter() - begin) * 1e3)
                memory.append(resident_mb(process.pid))
            paths = [f"/small-{number}/" for number in range(modules)]
            # The first request to an application builds its stack of middleware, which is no figure of ours.
            for path in paths:
                assert fetch(port, path)[0] == 200
            asked = resident_mb(process.pid)
            rate(single_port, ["/small-0/"], TURN_S)
            turns = []
            for turn in range(ROUNDS):
                contenders = (
                    ("one", single_port, ["/small-0/"]),
                    ("same", port, [f"/small-{modules // 2}/"]),
                    ("all", port, paths),
                )
                order = contenders[turn % 3 :] + contenders[: turn % 3]
                turns.append({which: rate(where, asking, TURN_S) for which, where, asking in order})
            some = min(50, modules)
            uninstalls = []
            for number in range(modules - some, modules):
                begin = time.perf_counter()
                client.uninstall(BizId.of(f"small-{number}", "1.0.0"))
                uninstalls.append((time.perf_counter() - begin) * 1e3)
            beside = []
            for _ in range(6):
                begin = time.perf_counter()
                single.uninstall(BizId.of("small-0", "1.0.0"))
                beside.append((time.perf_counter() - begin) * 1e3)
                single.install(artefacts[0].as_uri())
                fetch(single_port, "/small-0/")
    alone = statistics.median(beside[1:])  # the first of a base looks at all of it; that of the full one is in its list
    first, last = spread(installs[1 : some + 1]), spread(installs[-some:])
    grown = (memory[-1] - memory[1]) / (modules - 1)
    one = statistics.median(turn["one"] for turn in turns)
    ratios = {which: statistics.median(turn[which] / turn["one"] for turn in turns) for which in ("same", "all")}
    rows = [
        Row("memory of the base", f"{memory[-1]:.1f} MB", f"{memory[0]:.1f} MB without modules"),
        Row("memory of one more", f"{grown:.3f} MB", budget="<= 0.1 MB", kept=grown <= 0.1),
        Row("memory after a request to each", f"{asked:.1f} MB"),
        Row(
            f"install, P50 of the last {some}",
            f"{last['p50']:.1f} ms",
            f"{first['p50']:.1f} ms (the first)",
            f"{last['p50'] / first['p50']:.2f} x",
            "<= 5 ms",
            last["p50"] <= 5,
        ),
        Row(f"install of number {modules:,}", f"{installs[-1]:.1f} ms"),
        Row(
            f"requests to one of {modules:,}",
            f"{statistics.median(turn['same'] for turn in turns):,.0f}/s",
            f"{one:,.0f}/s (one live)",
            f"{ratios['same']:.3f}",
            ">= 0.97",
            ratios["same"] >= 0.97,
        ),
        Row(
            "requests to all in turn",
            f"{statistics.median(turn['all'] for turn in turns):,.0f}/s",
            f"{one:,.0f}/s (one live)",
            f"{ratios['all']:.3f}",
        ),
        Row(
            f"uninstall, P50 of {some}",
            f"{spread(uninstalls[1:])['p50']:.1f} ms",
            f"{alone:.1f} ms (the only one)",
            f"{spread(uninstalls[1:])['p50'] / alone:.2f} x",
            "<= 15 ms",
            spread(uninstalls[1:])["p50"] <= 15,
        ),
        Row(
            "the first uninstall of a base",
            f"{uninstalls[0]:.1f} ms",
            f"{beside[0]:.1f} ms (the only one)",
            f"{uninstalls[0] / beside[0]:.2f} x",
            "<= 40 ms",
            uninstalls[0] <= 40,
        ),
    ]
    report(
        "thousand",
        rows,
        {
            "install_ms": installs,
            "uninstall_ms": uninstalls,
            "uninstall_alone_ms": beside,
            "memory_mb": memory,
            "answers_per_s": turns,
        },
    )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000)
