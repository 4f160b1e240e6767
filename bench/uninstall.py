"""Uninstall a small module beside a large heap: how long does it take, and how long do requests stop meanwhile?

``python bench/uninstall.py [CYCLES] [OBJECTS]`` (30, 10,000,000). The heap, about 100 bytes for each object, is made
before the base is and nothing of it is frozen, as in a base inside another server. A thread that wakes up every
millisecond stands for the requests. The same is measured in a process whose heap is empty. A last uninstall, of a
module that the base holds, shows what looking for the holder costs.
"""

from __future__ import annotations

import gc
import itertools
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from harness import SMALL_APP, Row, report, resident_mb, spread

from koupleless.artifact.build import Options, build_file
from koupleless.container.host import Host

HELD = SMALL_APP + "\n\nimport warehouse\n\nwarehouse.handlers.append(root)\n"


class Ticker:
    """A thread that notes when it ran: what stops it stops requests."""

    def __init__(self) -> None:
        self.ticks: list[tuple[float, float]] = []
        self._until = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._until.is_set():
            time.sleep(0.001)
            self.ticks.append((time.perf_counter(), time.process_time()))

    def longest_ms(self, begin: float, end: float) -> tuple[float, float]:
        """The longest time in which it did not run between two moments, and the most that the process computed in one.

        The two differ on a machine that others use too. Waits for the end of the gap that is open at the second moment.
        """
        while self.ticks[-1][0] < end:
            time.sleep(0.001)
        gaps = [
            ((later - earlier) * 1e3, (after - before) * 1e3)
            for (earlier, before), (later, after) in itertools.pairwise(list(self.ticks))
            if later > begin and earlier < end
        ]
        return max(gap for gap, _ in gaps), max(computed for _, computed in gaps)

    def stop(self) -> None:
        """End the thread."""
        self._until.set()
        self._thread.join()


def warehouse(objects: int) -> Any:
    """A module of the base that keeps ``objects`` objects the collector knows, 100 bytes for each."""
    import types  # noqa: PLC0415 - with the rest of what is the base's

    module = types.ModuleType("warehouse")
    sys.modules["warehouse"] = module
    gc.disable()  # making them with the collector on takes minutes
    module.__dict__.update(shelves=[[number % 1_000] for number in range(objects)], handlers=[])
    gc.enable()
    gc.collect()  # where they are after a while
    return module


def measure(cycles: int, objects: int) -> dict[str, Any]:
    """Run the cycles in this process."""
    import fastapi  # noqa: F401, PLC0415 - the base is warm

    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        urls = {}
        for module, source in (("small", SMALL_APP), ("held", HELD)):
            (directory / f"{module}.py").write_text(source, encoding="utf-8")
            urls[module] = build_file(directory / f"{module}.py", Options(out=directory)).path.as_uri()
        module = warehouse(objects)
        container = Host.make(directory / "store").container
        ticker = Ticker()
        time.sleep(0.5)
        calm = ticker.longest_ms(ticker.ticks[0][0], time.perf_counter())
        took, gaps, unclean = [], [], []
        for _ in range(cycles):
            installed = container.install(container.prepare(urls["small"]))
            begin = time.perf_counter()
            purged = container.uninstall(installed.info.id)
            end = time.perf_counter()
            took.append((end - begin) * 1e3)
            gaps.append(ticker.longest_ms(begin, end))
            if not purged.clean:
                unclean.append(purged.summary())
        installed = container.install(container.prepare(urls["held"]))
        begin = time.perf_counter()
        purged = container.uninstall(installed.info.id)
        end = time.perf_counter()
        held_gap = ticker.longest_ms(begin, end)
        ticker.stop()
        module.handlers.clear()
        container.close()
    return {
        "uninstall_ms": took,
        "gap_ms": gaps,
        "calm_ms": calm,
        "unclean": unclean,
        "memory_mb": resident_mb(os.getpid()),
        "tracked": len(gc.get_objects()),
        "held": {"took_ms": (end - begin) * 1e3, "gap_ms": held_gap, "summary": purged.summary()},
    }


def elsewhere(cycles: int, objects: int) -> dict[str, Any]:
    """As `measure`, in a process of its own."""
    command = [sys.executable, __file__, "--measure", str(cycles), str(objects)]
    result = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    found: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    return found


def main(cycles: int, objects: int) -> None:
    """Measure with the heap and without, and print the one beside the other."""
    empty, large = elsewhere(cycles, 0), elsewhere(cycles, objects)
    took, peer = spread(large["uninstall_ms"]), spread(empty["uninstall_ms"])
    (gap, computed), (peer_gap, peer_computed) = (
        [max(column) for column in zip(*found["gap_ms"], strict=True)] for found in (large, empty)
    )
    held, peer_held = large["held"], empty["held"]
    rows = [
        Row("objects the collector knows", f"{large['tracked']:,}", f"{empty['tracked']:,} empty"),
        Row("memory", f"{large['memory_mb']:,.0f} MB", f"{empty['memory_mb']:,.0f} MB"),
        Row("uninstall, P50", f"{took['p50']:.1f} ms", f"{peer['p50']:.1f} ms", f"{took['p50'] / peer['p50']:.2f}"),
        Row(
            f"uninstall, longest of {cycles}",
            f"{took['max']:.1f} ms",
            f"{peer['max']:.1f} ms",
            f"{took['max'] / peer['max']:.2f}",
            "<= 150 ms",
            took["max"] <= 150,
        ),
        Row("requests stopped, longest", f"{gap:.1f} ms", f"{peer_gap:.1f} ms", "", "<= 20 ms", gap <= 20),
        Row("of which the base computed, longest", f"{computed:.1f} ms", f"{peer_computed:.1f} ms"),
        Row("longest without uninstalls", f"{large['calm_ms'][0]:.1f} ms", f"{empty['calm_ms'][0]:.1f} ms"),
        Row("purges that were not clean", f"{len(large['unclean'])}", "", "", "0", not large["unclean"]),
        Row("uninstall of a held module", f"{held['took_ms']:.1f} ms", f"{peer_held['took_ms']:.1f} ms"),
        Row(
            "requests stopped by that",
            f"{held['gap_ms'][0]:.1f} ms",
            f"{peer_held['gap_ms'][0]:.1f} ms",
            "",
            "<= 20 ms",
            held["gap_ms"][0] <= 20,
        ),
        Row("of which the base computed", f"{held['gap_ms'][1]:.1f} ms", f"{peer_held['gap_ms'][1]:.1f} ms"),
    ]
    report("uninstall", rows, {"large": large, "empty": empty})


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        print(json.dumps(measure(int(sys.argv[2]), int(sys.argv[3]))))
    else:
        given = [int(text) for text in sys.argv[1:]]
        main(*(given + [30, 10_000_000][len(given) :]))
