"""One scenario with one library in a process of its own; tells what everybody saw after each step.

Run by run.py as ``python -I -S child.py settings.json answer.json``: the search path is what the settings say, and
nothing else is installed. Judging the answers is the business of the caller; a process that dies has no answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import faulthandler
import gc
import importlib
import inspect
import json
import os
import sys
import time
import traceback
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from koupleless.container.container import Container
    from koupleless.container.stage import Stage
    from koupleless.ownership.purge import PurgeReport

TIMEOUT_S: Final = 60.0
NUMBERS: Final = {"base": 11, "one": 22, "two": 33, "three": 44}


def last_line(error: BaseException) -> str:
    """The type and the last line of an error."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[-1] if lines else ''}"


def plain(value: Any) -> Any:
    """A value as it comes back from JSON."""
    return json.loads(json.dumps(value))


class Application:
    """The application that the base serves: code of the base, with the context in which it was imported."""

    def __init__(self) -> None:
        self._context = contextvars.copy_context()
        self._use: Any = None

    def configure(self) -> None:
        """Import and configure the library, on the thread of the server."""
        self._use = importlib.import_module("use")
        self._use.configure("base", NUMBERS["base"])
        self._context = contextvars.copy_context()

    async def observe(self) -> Any:
        """The configuration in effect in a request of the base."""
        return plain(await asyncio.get_running_loop().create_task(look(self._use), context=self._context))


async def look(use: Any) -> Any:
    """The configuration that a use observes."""
    seen = use.observe()
    return await seen if inspect.isawaitable(seen) else seen


class World:
    """A base in this process: its application, its container, and a record of what was seen.

    Made on the main thread, where the server's loop runs later, as everything of the base. The methods are for another
    thread, as that of the ops agent.
    """

    def __init__(self, settings: dict[str, Any], *, is_warm: bool) -> None:
        self.settings = settings
        self.application = Application()
        self.is_warm = is_warm
        if is_warm:
            self.application.configure()
        self._host = importlib.import_module("inside").Host(Path(settings["store"]), start_s=TIMEOUT_S, end_s=10.0)
        self.container: Container = self._host.container
        self._stage: Stage = self._host.stage
        self.modules: dict[str, str] = {}
        """Name of a biz -> the value that it has to see."""
        self.steps: list[dict[str, Any]] = []
        self.leaving: list[dict[str, Any]] = []
        self.identities: dict[str, dict[str, int]] = {}
        self.libraries: dict[str, tuple[str, str]] = {}
        """Normalised name of a distribution -> how the last biz holds it, and why."""

    def serve(self, work: Callable[[World], dict[str, Any]]) -> dict[str, Any]:
        """Run the loop of the server here, and the work on a thread, until that ends. Returns what the work returns."""

        async def main() -> dict[str, Any]:
            self._stage.adopt(asyncio.get_running_loop())
            return await asyncio.get_running_loop().run_in_executor(None, work, self)

        return asyncio.run(main())

    def step(self, name: str, actor: str, action: Callable[[], object]) -> None:
        """Do something, then ask everybody; a failure is recorded."""
        record: dict[str, Any] = {"step": name, "actor": actor, "saw": {}}
        self.steps.append(record)
        try:
            action()
        except Exception as error:  # noqa: BLE001 - however it fails, it is the answer
            record["failed"] = last_line(error)
            record["trace"] = traceback.format_exc() + getattr(error, "traceback", "")
        for biz, value in self.modules.items():
            record["saw"][value] = self.ask(biz)
        if self.is_warm:
            record["saw"]["base"] = self.ask_base()

    def ask(self, biz: str) -> dict[str, Any]:
        """The answer of one module."""
        try:
            told: dict[str, Any] = json.loads(self._host.ask(f"/{biz}/", timeout_s=TIMEOUT_S))
        except Exception as error:  # noqa: BLE001 - however it fails, it is the answer
            return {"error": last_line(error), "trace": traceback.format_exc()}
        self.identities[biz] = told.pop("modules", {})
        return told

    def ask_base(self) -> dict[str, Any]:
        """The answer of the base."""
        try:
            return {"seen": self._stage.call(self.application.observe, timeout_s=TIMEOUT_S)}
        except Exception as error:  # noqa: BLE001 - however it fails, it is the answer
            return {"error": last_line(error), "trace": traceback.format_exc()}

    def warm(self) -> None:
        """Import and configure the library as the base, in a request of it."""

        async def configure() -> None:
            self.application.configure()

        self._stage.call(configure, timeout_s=TIMEOUT_S)
        self.is_warm = True

    def install(self, artefact: str, *, biz: str, value: str) -> None:
        """Deploy an artefact in place of whatever has its name."""
        from koupleless.container.terms import Strategy

        installed = self.container.install(self.container.prepare(artefact), strategy=Strategy.REPLACE)
        self.modules[biz] = value
        self.libraries = {each.name: (each.held, each.reason) for each in installed.info.libraries}
        for report in installed.replaced:
            self._left(report)

    def uninstall(self, biz: str) -> None:
        """Remove one module."""
        del self.modules[biz]
        info = next(info for info in self.container.bizs() if info.id.name == biz)
        self._left(self.container.uninstall(info.id))

    def _left(self, report: PurgeReport) -> None:
        self.leaving.append({"biz": str(report.biz), "clean": report.clean, "summary": report.summary()})

    def held(self, biz: str) -> dict[str, bool]:
        """Name of a Python module of the library -> whether the biz has the one of the process."""
        return {name: id(sys.modules.get(name)) == identity for name, identity in self.identities[biz].items()}


# --- scenarios -----------------------------------------------------------------------------------------------------


def alone(settings: dict[str, Any]) -> dict[str, Any]:
    """Configure the library as a program of its own and look twice."""
    use = importlib.import_module("use")
    use.configure(settings["value"], NUMBERS[settings["value"]])

    async def twice() -> dict[str, Any]:
        loop = asyncio.get_running_loop()
        return {name: plain(await loop.create_task(look(use))) for name in ("seen", "again")}

    return asyncio.run(twice())


def together(world: World) -> dict[str, Any]:
    """A base and two modules; a new version of the first; all leave; at last the base looks, or uses it first."""
    if world.is_warm:
        world.step("start", "base", lambda: None)
    artefacts = world.settings["artefacts"]
    for biz in ("one", "two"):
        world.step(f"install {biz}", biz, partial(world.install, artefacts[biz], biz=biz, value=biz))
    world.step("replace one", "three", partial(world.install, artefacts["three"], biz="one", value="three"))
    held = {biz: world.held(biz) for biz in world.modules}
    identities = dict(world.identities)
    for biz, value in list(world.modules.items()):
        world.step(f"uninstall {biz}", value, partial(world.uninstall, biz))
    world.step("end", "base", (lambda: None) if world.is_warm else world.warm)
    with contextlib.suppress(Exception):
        world.container.close()
    told = {"libraries": world.libraries, "held": held, "identities": identities}
    return {"steps": world.steps, "leaving": world.leaving, **told}


def cost(world: World) -> dict[str, Any]:
    """Install modules of equal content one after the other into a warm base: milliseconds and bytes of each."""
    world.ask_base()
    told: dict[str, Any] = {}
    for hold, artefacts in world.settings["costs"].items():
        told[hold] = [measure(world, artefact) for artefact in artefacts]
    return told


def measure(world: World, artefact: str) -> Sequence[float] | str:
    """Milliseconds of processor time from the install to the first answer, and by how many bytes the process grew."""
    try:
        prepared = world.container.prepare(artefact)
        gc.collect()
        before, begin = resident_bytes(), time.process_time()
        info = world.container.install(prepared).info
        told = world.ask(info.id.name)
    except Exception as error:  # noqa: BLE001 - however it fails, it is the answer
        return last_line(error)
    elapsed_ms = (time.process_time() - begin) * 1_000
    if "error" in told:
        return str(told["error"])
    gc.collect()
    return elapsed_ms, resident_bytes() - before


def copy_all(names: Sequence[str]) -> None:
    """Let each biz have its own copy of some distributions, whatever is known of them."""
    from koupleless.isolation.libraries import holding, known

    for name in names:
        known.SHARE[name] = known.Share.COPY
    vars(holding)["COPYABLE"] = known.COPYABLE.union(names)


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def main() -> None:
    faulthandler.enable()
    settings = json.loads(Path(sys.argv[1]).read_text())
    sys.path[:0] = settings["path"]
    if settings["scenario"] != "alone" and settings["copied"]:
        copy_all(settings["copied"])
    scenario = settings["scenario"]
    try:
        if scenario == "alone":
            told = alone(settings)
        else:
            told = World(settings, is_warm=scenario != "cold").serve(cost if scenario == "cost" else together)
    except BaseException as error:  # noqa: BLE001 - however it fails, it is the answer
        told = {"failed": last_line(error), "trace": traceback.format_exc()}
    answer = Path(sys.argv[2])
    answer.with_suffix(".part").write_text(json.dumps(told))
    answer.with_suffix(".part").rename(answer)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # a thread of a library that never ends is no business of this trial


if __name__ == "__main__":
    main()
