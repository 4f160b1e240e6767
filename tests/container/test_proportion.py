"""An uninstall costs what the module costs that leaves, however many others stay: counted in steps of code."""

from __future__ import annotations

import sys
import urllib.parse
from typing import TYPE_CHECKING, Any

import pytest

from koupleless.artifact.build import Options, build_file
from koupleless.container.host import Host

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from koupleless.container.container import Container

pytestmark = pytest.mark.skipif(sys.version_info < (3, 12), reason="steps are counted by sys.monitoring")

MODULE = '''
"""A module as most are: a class told by no function, one with a method, functions, a library of the base."""

import dataclasses
import json
import shared_by_all


@dataclasses.dataclass
class Item:
    name: str


class Plain:
    size = 1


class Shop:
    def sell(self) -> str:
        return json.dumps([Item("a").name])


async def app(scope, receive, send):
    for step in ("startup", "shutdown"):
        await receive()
        await send({"type": f"lifespan.{step}.complete"})
'''
OTHERS, MANY_OTHERS = 4, 34
TABLES_OF_PATHS = "Namespace.drop"
"""Looks for paths below those of the biz in two tables of paths, which have no order."""


class Base:
    """A container with modules alike under different names."""

    def __init__(self, directory: Path) -> None:
        self.container: Container = Host.make(directory / "store").container
        self._source = directory / "alike.py"
        self._source.write_text(MODULE, encoding="utf-8")
        self._out = directory / "out"
        self._live: list[Any] = []

    def fill(self, count: int) -> None:
        """Install modules until there are so many."""
        while len(self._live) < count:
            artefact = build_file(self._source, Options(out=self._out, name=f"alike-{len(self._live)}")).path
            self._live.append(self.container.install(self.container.prepare(str(artefact))).info.id)

    def uninstall_last(self) -> None:
        vars(urllib.parse)["clear_cache"]()  # has an entry for the address of each of the last 128 installs
        report = self.container.uninstall(self._live.pop())
        assert report.clean, report.summary()


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Base]:
    (tmp_path / "shared_by_all.py").write_text("", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    made = Base(tmp_path)
    yield made
    made.container.close()
    sys.modules.pop("shared_by_all", None)


def steps_of(action: Callable[[], None]) -> dict[str, int]:
    """Count calls, resumptions and turns of loops in code of the package, by function, on all threads."""
    monitoring, counted = vars(sys)["monitoring"], dict[str, int]()
    events = monitoring.events
    tool = next(tool for tool in range(6) if monitoring.get_tool(tool) is None)

    def count(code: Any, *_: object) -> None:
        if "koupleless" in code.co_filename:
            counted[code.co_qualname] = counted.get(code.co_qualname, 0) + 1

    watched = (events.PY_START, events.PY_RESUME, events.JUMP)
    monitoring.use_tool_id(tool, "steps")
    try:
        for event in watched:
            monitoring.register_callback(tool, event, count)
        monitoring.set_events(tool, sum(watched))
        action()
    finally:
        monitoring.set_events(tool, 0)
        for event in watched:
            monitoring.register_callback(tool, event, None)
        monitoring.free_tool_id(tool)
    return counted


def test_an_uninstall_takes_as_many_steps_beside_many_modules_as_beside_few(base: Base) -> None:
    base.fill(OTHERS + 1)
    base.uninstall_last()  # the first of a process finds the caches, and loads the adapters
    base.fill(OTHERS + 1)
    few = steps_of(base.uninstall_last)
    base.fill(MANY_OTHERS + 1)
    base.uninstall_last()
    base.fill(MANY_OTHERS + 1)
    many = steps_of(base.uninstall_last)

    more = {name: count - few.get(name, 0) for name, count in many.items()}
    for_each = {name: count for name, count in more.items() if count >= MANY_OTHERS - OTHERS}
    for_each.pop(TABLES_OF_PATHS, None)
    assert for_each == {}, "steps for each of the other modules"
    assert sum(many.values()) < 1.1 * sum(few.values())
