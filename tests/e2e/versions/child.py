"""One scenario in a process of its own: a base with or without a version, modules with others; used, removed, put back.

Run by run.py as ``python -I -S child.py settings.json answer.json``: the search path is what the settings say, and
nothing else is installed. The answer tells what failed, or nothing; a process that dies has failed, too.
"""

from __future__ import annotations

import _imp
import faulthandler
import hashlib
import importlib
import itertools
import json
import sys
import traceback
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from koupleless.container.container import Container
    from koupleless.container.stage import Stage

TIMEOUT_S: Final = 120.0


class Initialised:
    """Stands at ``_imp.create_dynamic`` and counts how often each compiled file is initialised."""

    def __init__(self) -> None:
        self._times: Counter[tuple[int, int]] = Counter()
        self._files: dict[tuple[int, int], str] = {}
        self._contents: Counter[str] = Counter()
        self._create = _imp.create_dynamic

    def __call__(self, spec: Any, file: object = None) -> Any:
        status = Path(spec.origin).stat()
        key = (status.st_dev, status.st_ino)  # of a file that is mapped: not given to another, whatever its name is
        self._times[key] += 1
        self._files[key] = spec.origin
        self._contents[hashlib.sha256(Path(spec.origin).read_bytes()).hexdigest()] += 1
        return self._create(spec, file)

    def total(self, below: str) -> int:
        """How many of the files lie in a directory; the standard library has some, too."""
        return sum(file.startswith(below) for file in self._files.values())

    def copies(self) -> int:
        """How many of the files have the content of another."""
        return self._contents.total() - len(self._contents)

    def repeated(self) -> list[str]:
        return sorted(f"{self._files[key]}: {times} times" for key, times in self._times.items() if times > 1)


class World:
    """A base in this process: what it uses itself, and its container."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.settings = settings
        self.steps: list[str] = []
        self.kept: list[str] = []
        self._host = importlib.import_module("inside").Host(Path(settings["store"]), start_s=TIMEOUT_S, end_s=30.0)
        self._container: Container = self._host.container
        self._stage: Stage = self._host.stage
        self._installed: dict[str, str] = {}

    def install(self, biz: str) -> None:
        """Deploy one of the artefacts and use it at once."""
        self.steps.append(f"install {biz}")
        of = self.settings["bizs"][biz]
        self._container.install(self._container.prepare(of["artefact"]))
        self._installed[biz] = of["side"]
        self.use(biz)

    def uninstall(self, biz: str) -> None:
        self.steps.append(f"uninstall {biz}")
        del self._installed[biz]
        info = next(info for info in self._container.bizs() if info.id.name == biz)
        report = self._container.uninstall(info.id)
        if not report.clean:
            self.kept.append(report.summary())

    def use(self, biz: str) -> None:
        self.steps.append(f"use {biz}")
        self._check(
            json.loads(self._host.ask(f"/{biz}/", timeout_s=TIMEOUT_S)), self._installed[biz], is_base=biz == "shared"
        )

    def use_base(self) -> None:
        """Use what the base itself has, as its own code."""
        self.steps.append("use the base's")

        async def answer() -> Any:
            return importlib.import_module("entry").answer()

        self._check(self._stage.call(answer, timeout_s=TIMEOUT_S), self.settings["base"], is_base=True)

    def use_all(self) -> None:
        """Everything that is there, the oldest last."""
        for biz in reversed(self._installed):
            self.use(biz)
        if self.settings["base"]:
            self.use_base()

    def _check(self, told: dict[str, Any], side: str, *, is_base: bool) -> None:
        expected = self.settings["sides"][side]
        assert "error" not in told, told["error"]
        assert told["version"] == expected["version"], f"metadata says {told['version']}"
        assert told["says"] in {None, expected["says"]}, f"it calls itself {told['says']}"
        for way, result in told["results"].items():
            assert result == expected["results"][way], f"{result} instead of {expected['results'][way]} {way}"
        site = self.settings["sites"].get(self.settings["base"])
        if site is not None:
            assert told["file"].startswith(site) == is_base, f"it comes from {told['file']}"

    def close(self) -> None:
        self.steps.append("close")
        self._container.close()


# --- scenarios -----------------------------------------------------------------------------------------------------


def beside_the_base(world: World, memory: list[float]) -> None:
    """The base's version and a module's, and a module that takes the base's."""
    private = world.settings["order"][1]
    if world.settings["first"] == "base":
        world.use_base()
    memory.append(resident_mb())
    world.install(private)
    world.use_base()
    memory.append(resident_mb())
    world.install("shared")
    world.use_all()
    for _ in range(world.settings["redeploys"]):
        world.uninstall(private)
        world.use_all()
        world.install(private)
        world.use_all()
        memory.append(resident_mb())
    world.uninstall("shared")
    world.use_all()
    world.uninstall(private)
    world.use_all()


def two_modules(world: World, memory: list[float]) -> None:
    """Two modules' versions, each leaving while the other stays; and a third one with the content of the first."""
    one, other = world.settings["order"]
    memory.append(resident_mb())
    world.install(one)
    world.install(other)
    world.use_all()
    memory.append(resident_mb())
    for leaving in itertools.islice(itertools.cycle((one, other)), world.settings["redeploys"]):
        world.uninstall(leaving)
        world.use_all()
        world.install(leaving)
        world.use_all()
        memory.append(resident_mb())
    world.install("twin")
    world.use_all()
    world.uninstall(one)
    world.use_all()
    world.uninstall(other)
    world.use_all()
    world.install(one)
    world.use_all()


def resident_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6


def main() -> None:
    faulthandler.enable()
    settings = json.loads(Path(sys.argv[1]).read_text())
    sys.path[:0] = settings["path"]
    told: dict[str, Any] = {}
    initialised = Initialised()
    _imp.create_dynamic = initialised
    if settings["scenario"] == "alone":
        for _ in range(2):  # a pair has more to do the second time
            told = importlib.import_module("entry").answer()
    else:
        memory: list[float] = []
        world = World(settings)
        try:
            (beside_the_base if settings["scenario"] == "base" else two_modules)(world, memory)
            world.close()
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is the answer
            told["failed"] = f"{world.steps[-1]} (step {len(world.steps)}): {last_line(error)}"
            told["trace"] = traceback.format_exc()
        told["kept"] = world.kept
        told["repeated"] = initialised.repeated()
        told["copies"] = initialised.copies()
        told["memory"] = memory
    told["files"] = initialised.total(settings["path"][0])
    Path(sys.argv[2]).write_text(json.dumps(told))


def last_line(error: BaseException) -> str:
    """The words of an error, or of the one that a module told of in its answer."""
    lines = str(error).strip().splitlines()
    return lines[-1] if lines else repr(error)


if __name__ == "__main__":
    main()
