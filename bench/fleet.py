"""One controller with 1,000 bases of 50 modules each: memory, work, writes to the API server, and how soon it tells.

``python bench/fleet.py [BASES] [MODULES] [SECONDS]``. The API server (that of the tests, in memory) and the bases are
processes of their own, `bench/simulated.py`; the controller is `arkctl controller`, as users start it. The cluster is
as another controller has left it: all Pods ready. Then three controllers share the same cluster, and one is killed.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import simulated
from harness import Row, free_port, report, resident_mb, spread

if TYPE_CHECKING:
    from collections.abc import Iterator

_TICKS: Final = os.sysconf("SC_CLK_TCK")
_SAMPLES: Final = 40
_WITHIN_S: Final = 300.0
_WRITES: Final = ("create", "update", "patch", "delete")


def ask(url: str, body: Any = None) -> Any:
    """Send JSON, and return the JSON of the answer."""
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(url, data), timeout=60) as answer:
        return json.load(answer)


def processor_s(pid: int) -> float:
    """Seconds of processor time that a process has taken."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


@dataclass
class Scene:
    """A cluster and its bases."""

    api: str
    bases: str
    directory: Path
    ports: dict[str, int]
    size: tuple[int, int]

    def stats(self) -> Any:
        return ask(f"{self.api}/stats")

    def led(self) -> int:
        """The number of Nodes with a leader."""
        return sum(count for holder, count in self.stats()["holders"].items() if holder)

    def control(self, path: str, body: Any = None) -> Any:
        return ask(f"{self.bases}/{path}", body or {})["data"]

    def is_ready(self, base: int, module: int) -> bool:
        name = simulated.pod_name(base, module)
        pod = ask(f"{self.api}/api/v1/namespaces/{simulated.NAMESPACE}/pods/{name}")
        return bool(pod["status"]["containerStatuses"][0]["ready"])

    @contextlib.contextmanager
    def controller(self, name: str) -> Iterator[subprocess.Popen[bytes]]:
        """Run a controller until the block ends."""
        config = self.directory / "kubeconfig"
        cluster = {"name": "c", "cluster": {"server": self.api}}
        context = {"name": "c", "context": {"cluster": "c", "user": "u"}}
        user = {"name": "u", "user": {}}
        config.write_text(
            json.dumps({"clusters": [cluster], "contexts": [context], "users": [user], "current-context": "c"}),
            encoding="utf-8",
        )
        command = [
            *(sys.executable, "-P", "-m", "koupleless", "controller", "--kubeconfig", str(config)),
            *("--env", simulated.ENV, "--name", name, "--port", str(self.ports[name])),
            *("--probes-port", str(free_port())),
        ]
        with (self.directory / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self.directory)
        try:
            yield process
        finally:
            process.kill()
            process.wait()


@contextlib.contextmanager
def scene(bases: int, modules: int, *controllers: str) -> Iterator[Scene]:
    """Run a cluster and bases until the block ends."""
    api, control = free_port(), free_port()
    ports = {name: free_port() for name in controllers}
    places = [f"127.0.0.1:{port}" for port in ports.values()]
    command = [sys.executable, simulated.__file__]
    sizes = [str(bases), str(modules)]
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as closing:
        for arguments in (["api", str(api), *sizes], ["bases", str(control), *sizes, *places]):
            process = subprocess.Popen([*command, *arguments])
            closing.callback(process.wait)
            closing.callback(process.kill)
        made = Scene(f"http://127.0.0.1:{api}", f"http://127.0.0.1:{control}", Path(name), ports, (bases, modules))
        until(lambda: [ask(f"{made.api}/stats"), made.control("")], "the processes beside do not answer")
        yield made


def until(condition: Any, otherwise: str) -> float:
    """Return the seconds until a condition holds."""
    begin = time.perf_counter()
    while time.perf_counter() - begin < _WITHIN_S:
        with contextlib.suppress(OSError):
            if condition():
                return time.perf_counter() - begin
        time.sleep(0.05)
    raise RuntimeError(otherwise)


def latencies(made: Scene) -> list[float]:
    """Milliseconds from the end of a module in a base to the status of its Pod, of modules all over the fleet."""
    bases, modules = made.size
    found = []
    for sample in range(_SAMPLES):
        base, module = sample * 7 % bases, sample * 3 % modules
        begin = time.perf_counter()
        made.control("change", {"base": base, "module": f"module-{module:02}", "state": "DEACTIVATED"})
        while made.is_ready(base, module):
            if time.perf_counter() - begin > _WITHIN_S:
                raise RuntimeError("the status of a Pod is not written")
            time.sleep(0.005)
        found.append((time.perf_counter() - begin) * 1e3)
    return found


def alone(bases: int, modules: int, seconds: float) -> dict[str, Any]:
    """Measure one controller."""
    with scene(bases, modules, "one") as made, made.controller("one") as process:
        led_s = until(lambda: made.led() == bases, "not all Nodes are led")
        time.sleep(30)  # until all has been asked once, and written
        begin, before, used = time.perf_counter(), made.stats()["counts"], processor_s(process.pid)
        time.sleep(seconds)
        taken = time.perf_counter() - begin
        after = made.stats()["counts"]
        busy = (processor_s(process.pid) - used) / taken
        writes = {
            what: (count - before.get(what, 0)) / taken
            for what, count in after.items()
            if what.split()[0] in _WRITES and count > before.get(what, 0)
        }
        mb = resident_mb(process.pid)
        told = spread(latencies(made))
        return {
            "led_s": led_s,
            "memory_mb": mb,
            "busy": busy,
            "writes": writes,
            "latency_ms": told,
            "memory_after_mb": resident_mb(process.pid),
            "commands": made.control(""),
        }


def shared(bases: int, modules: int) -> dict[str, Any]:
    """Measure three controllers, of which one is killed."""
    names = ("one", "two", "three")
    with scene(bases, modules, *names) as made, contextlib.ExitStack() as closing:
        processes = [closing.enter_context(made.controller(name)) for name in names]
        until(lambda: made.led() == bases, "not all Nodes are led")

        def is_even() -> bool:
            shares = made.stats()["holders"]
            return len(shares) == len(names) and max(shares.values()) - min(shares.values()) <= 2

        even_s = until(is_even, "the Nodes are not shared evenly")
        time.sleep(10)
        processes[0].send_signal(signal.SIGKILL)
        again_s = until(lambda: not made.stats()["holders"].get("one"), "the Nodes of a killed controller are not led")
        time.sleep(20)
        return {"even_s": even_s, "again_s": again_s, "commands": made.control("")}


def main(bases: int, modules: int, seconds: float) -> None:
    """Measure, and print the table."""
    one = alone(bases, modules, seconds)
    three = shared(bases, modules)
    written = sum(one["writes"].values())
    commands = sum(one["commands"].values()) + sum(three["commands"].values())
    p90 = one["latency_ms"]["p90"]
    rows = [
        Row("memory", f"{one['memory_mb']:.0f} MB", budget="<= 300 MB", kept=one["memory_mb"] <= 300),
        Row("start until all Nodes are led", f"{one['led_s']:.1f} s"),
        Row("share of a core, nothing happens", f"{one['busy']:.0%}", budget="<= 100%", kept=one["busy"] <= 1),
        Row("writes to the API server", f"{written:.1f}/s", "200/s", f"{written / 200:.2f}"),
        Row("change in a base to status of the Pod, P90", f"{p90:.0f} ms", budget="<= 500 ms", kept=p90 <= 500),
        Row("one of three killed: until its Nodes are led", f"{three['again_s']:.1f} s"),
        Row("commands to bases by all this", str(commands), budget="0", kept=commands == 0),
    ]
    report("fleet", rows, {"alone": one, "shared": three})


if __name__ == "__main__":
    numbers = [int(argument) for argument in sys.argv[1:]]
    main(*numbers, *(1_000, 50, 60)[len(numbers) :])
