"""Replace a module by its next version while requests keep coming: how many fail, how long is the longest gap?

``python bench/swap.py [SWAPS]`` (20). Two clients on kept connections ask without a pause.
"""

from __future__ import annotations

import asyncio
import itertools
import sys
import tempfile
import threading
import time
from pathlib import Path

from harness import SMALL_APP, Row, report, spread, warm_base

from koupleless.artifact.build import Options, build_file
from koupleless.client import ArkletClient

REQUEST = b"GET /small/ HTTP/1.1\r\nhost: base\r\n\r\n"


async def ask(port: int, until: threading.Event, ends: list[float], failures: list[str]) -> None:
    """Ask one after the other on one connection; notes when each answer was complete, and what was no success."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    while not until.is_set():
        writer.write(REQUEST)
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        await reader.readexactly(length)
        ends.append(time.perf_counter())
        if not head.startswith(b"HTTP/1.1 200"):
            failures.append(head.partition(b"\r\n")[0].decode())
        if b"connection: close" in head.lower():
            writer.close()
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.close()


def main(swaps: int) -> None:
    """Swap under load and look at the gaps between answers."""
    with tempfile.TemporaryDirectory() as name, warm_base(Path(name)) as (_, port, arklet):
        directory = Path(name)
        source = directory / "small.py"
        source.write_text(SMALL_APP, encoding="utf-8")
        client = ArkletClient("127.0.0.1", arklet)
        artefacts = [
            build_file(source, Options(out=directory, name="small", version=f"1.0.{number}")).path
            for number in range(swaps + 1)
        ]
        client.install(artefacts[0].as_uri())
        until = threading.Event()
        failures: list[str] = []
        streams: list[list[float]] = [[], []]

        async def load() -> None:
            await asyncio.gather(*(ask(port, until, ends, failures) for ends in streams))

        thread = threading.Thread(target=asyncio.run, args=(load(),))
        thread.start()
        time.sleep(1)
        swapped = time.perf_counter()
        for artefact in artefacts[1:]:
            client.install(artefact.as_uri(), strategy="replace")
        over = time.perf_counter()
        time.sleep(0.5)
        until.set()
        thread.join()
    gaps = [(b - a) * 1e3 for ends in streams for a, b in itertools.pairwise(ends) if swapped <= b <= over]
    calm = [(b - a) * 1e3 for ends in streams for a, b in itertools.pairwise(ends) if b < swapped]
    sent, longest = sum(map(len, streams)), max(gaps)
    rows = [
        Row("requests sent", f"{sent:,}"),
        Row("requests failed", f"{len(failures)}", budget="0", kept=not failures),
        Row(
            f"longest gap over {swaps} swaps",
            f"{longest:.1f} ms",
            f"{max(calm):.1f} ms calm",
            "",
            "<= 25 ms",
            longest <= 25,
        ),
    ]
    report("swap", rows, {"gaps_ms": spread(gaps), "calm_ms": spread(calm), "failures": failures[:10]})


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20)
