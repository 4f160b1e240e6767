"""What the benchmarks share: a base and a plain server as processes, memory figures, a table and a JSON file."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import platform
import signal
import socket
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ROOT: Final = Path(__file__).parent.parent
BIZS: Final = ROOT / "tests" / "bizs"
RESULTS: Final = Path(__file__).parent / "results"

SMALL_APP: Final = '''"""The small FastAPI application of the budgets."""

from fastapi import FastAPI
from pydantic import BaseModel

app = FastAPI()


class Item(BaseModel):
    name: str
    price: float


@app.get("/")
async def root() -> dict[str, str]:
    return {"hello": "world"}


@app.post("/items")
async def create(item: Item) -> Item:
    return item
'''


def http_scope(path: str, headers: Sequence[tuple[bytes, bytes]]) -> dict[str, Any]:
    """What a server hands to an ASGI application for a GET request, without the lifespan's state."""
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "server": ("127.0.0.1", 8080),
        "client": ("127.0.0.1", 50000),
        "scheme": "http",
        "method": "GET",
        "root_path": "",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": list(headers),
    }


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a result: what was measured, what it is measured against, and the budget it has to keep."""

    figure: str
    ours: str
    peer: str = ""
    ratio: str = ""
    budget: str = ""
    kept: bool | None = None


def report(name: str, rows: Sequence[Row], details: dict[str, Any]) -> None:
    """Print the table and write ``bench/results/<name>.json``; ends the process with 1 if a budget is missed."""
    head = Row("figure", "ours", "peer", "ratio", "budget")
    lines = [
        (r.figure, r.ours, r.peer, r.ratio, r.budget, {True: "kept", False: "MISSED", None: ""}[r.kept])
        for r in (head, *rows)
    ]
    widths = [max(len(line[column]) for line in lines) for column in range(6)]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    RESULTS.mkdir(exist_ok=True)
    machine = {"python": platform.python_version(), "cpus": os.cpu_count(), "system": platform.platform()}
    document = {"machine": machine, "rows": [[getattr(r, f) for f in Row.__slots__] for r in rows], **details}
    (RESULTS / f"{name}.json").write_text(json.dumps(document, indent=1), encoding="utf-8")
    if any(row.kept is False for row in rows):
        sys.exit(1)


def spread(values: Sequence[float]) -> dict[str, float]:
    """Minimum, median, 90th percentile and maximum."""
    ordered = sorted(values)
    return {
        "min": ordered[0],
        "p50": statistics.median(ordered),
        "p90": ordered[min(len(ordered) - 1, round(len(ordered) * 0.9))],
        "max": ordered[-1],
    }


def free_port() -> int:
    """A port that nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def resident_mb(pid: int) -> float:
    """The resident set of a process in MB."""
    pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def fetch(port: int, path: str) -> tuple[int, bytes]:
    """One GET on a connection of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def wait_for(port: int, path: str, process: subprocess.Popen[bytes], timeout_s: float = 60.0) -> float:
    """Seconds until ``path`` answers. Raises ``RuntimeError`` if the process ends first, or after ``timeout_s``."""
    begin = time.perf_counter()
    while time.perf_counter() - begin < timeout_s:
        if process.poll() is not None:
            raise RuntimeError(f"the server ended with {process.returncode} before it answered")
        with contextlib.suppress(OSError, http.client.HTTPException):
            fetch(port, path)
            return time.perf_counter() - begin
        time.sleep(0.001)
    raise RuntimeError(f"nothing answered on port {port} within {timeout_s:g} s")


@contextlib.contextmanager
def server(
    command: Sequence[str], *, port: int, path: str = "/", **options: Any
) -> Iterator[tuple[subprocess.Popen[bytes], float]]:
    """Run a server until the block ends; yields the process and the seconds from its start to its first answer."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **options)
    try:
        yield process, wait_for(port, path, process)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextlib.contextmanager
def small_app_alone(directory: Path) -> Iterator[tuple[subprocess.Popen[bytes], float, int]]:
    """The small application in a uvicorn process of its own: process, seconds to its first answer, port."""
    (directory / "small.py").write_text(SMALL_APP, encoding="utf-8")
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "small:app", "--port", str(port), "--log-level", "error"]
    with server(command, port=port, cwd=directory) as (process, seconds):
        yield process, seconds, port


@contextlib.contextmanager
def warm_base(directory: Path) -> Iterator[tuple[subprocess.Popen[bytes], int, int]]:
    """``arkctl serve`` of a FastAPI application, with its state below ``directory``: process, port, arklet port."""
    (directory / "warm.py").write_text("from fastapi import FastAPI\n\napp = FastAPI()\n", encoding="utf-8")
    port, arklet = free_port(), free_port()
    command = [
        sys.executable,
        "-m",
        "koupleless",
        "serve",
        "warm:app",
        "--state-dir",
        str(directory / "state"),
        "--port",
        str(port),
        "--arklet-port",
        str(arklet),
    ]
    with server(command, port=port, cwd=directory) as (process, _):
        wait_for(arklet, "/", process)
        yield process, port, arklet
