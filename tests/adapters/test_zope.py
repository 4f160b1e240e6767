"""zope.interface: adapter hooks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

interface = pytest.importorskip("zope.interface.interface")

if TYPE_CHECKING:
    from tests.adapters.conftest import Fleet

MODULE = """
from zope.interface import Interface
from zope.interface.interface import adapter_hooks

class IShown(Interface):
    pass

adapter_hooks.append(lambda provided, thing: "{name} shows " + thing if thing == "mine" else None)

def shown():
    return IShown("mine", None), IShown("theirs", None), len(adapter_hooks)
"""


def test_hooks_are_each_module_s_own(fleet: Fleet) -> None:
    in_c, before = interface.adapter_hooks, [*interface.adapter_hooks]
    shown = interface.InterfaceClass("IShown", (), {})
    one, two = (fleet.start(name, MODULE.format(name=name)) for name in ("one", "two"))
    assert [one.call("shown"), two.call("shown"), shown("mine", None)] == [
        ("one shows mine", None, len(before) + 1),
        ("two shows mine", None, len(before) + 1),
        None,
    ]

    def of_the_base(_provided: object, thing: object) -> object:
        return "of the base" if thing == "theirs" else None

    interface.adapter_hooks.append(of_the_base)
    assert [shown("theirs", None), two.call("shown")[1]] == ["of the base", None]
    fleet.start("one", MODULE.format(name="changed"))
    assert [two.call("shown")[0], shown("theirs", None)] == ["two shows mine", "of the base"]
    fleet.stop_all()
    assert interface.adapter_hooks is in_c
    assert in_c == [*before, of_the_base]
    in_c.remove(of_the_base)
