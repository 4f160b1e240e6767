"""pymongo: listeners that a module registers for every client are its own, and leave with it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

monitoring = pytest.importorskip("pymongo.monitoring")

if TYPE_CHECKING:
    from tests.adapters.conftest import Fleet

MODULE = """
from pymongo import monitoring

class Listener(monitoring.CommandListener):
    name = "{name}"
    def started(self, event): ...
    def succeeded(self, event): ...
    def failed(self, event): ...

monitoring.register(Listener())

def listeners():
    return [type(one).__module__ for one in monitoring._EventListeners(None).event_listeners() if hasattr(one, "name")]
"""


class OfBase(monitoring.CommandListener):  # type: ignore[name-defined, misc]
    name = "base"

    def started(self, event: object) -> None: ...
    def succeeded(self, event: object) -> None: ...
    def failed(self, event: object) -> None: ...


def listeners() -> list[str]:
    return [one.name for one in monitoring._EventListeners(None).event_listeners() if hasattr(one, "name")]


def test_a_listener_of_a_module_hears_its_clients_alone(fleet: Fleet) -> None:
    before = [list(each) for each in monitoring._LISTENERS]
    one = fleet.start("one", MODULE.format(name="one"))
    two = fleet.start("two", MODULE.format(name="two"))
    monitoring.register(OfBase())
    assert [one.call("listeners"), two.call("listeners"), listeners()] == [["one"], ["two"], ["base"]]
    again = fleet.start("one", MODULE.format(name="newer"))
    assert [len(again.call("listeners")), two.call("listeners")] == [1, ["two"]]
    fleet.stop_all()
    assert listeners() == ["base"]
    monitoring._LISTENERS.command_listeners.pop()
    assert [list(each) for each in monitoring._LISTENERS] == before
