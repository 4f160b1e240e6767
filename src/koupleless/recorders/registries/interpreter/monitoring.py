"""Recorder for ``sys.monitoring``: the tools of a biz are freed, without events and callbacks, when the biz leaves."""

from __future__ import annotations

import functools
import sys
from typing import TYPE_CHECKING, Any, Final

from koupleless.ownership.kinds import Pair
from koupleless.ownership.ledger import owner

if TYPE_CHECKING:
    from collections.abc import Callable

    from koupleless.ownership.recording import Patches

_TOOL: Final[Pair[int]] = Pair("monitoring tool", "sys.monitoring.use_tool_id", "sys.monitoring.free_tool_id")
KINDS: Final = (_TOOL,)


def install(patches: Patches) -> None:
    """Replace the functions that take and free tools, from Python 3.12 on."""
    monitoring: Any = getattr(sys, "monitoring", None)
    if monitoring is not None:
        patches.replace(monitoring, "use_tool_id", functools.partial(_use_tool_id, monitoring))
        patches.replace(monitoring, "free_tool_id", _free_tool_id)


def _use_tool_id(monitoring: Any, original: Callable[[int, str], None]) -> Any:
    free, set_events, register = monitoring.free_tool_id, monitoring.set_events, monitoring.register_callback
    events = [value for name, value in vars(monitoring.events).items() if name.isupper() and value]

    def end(tool: int) -> None:
        set_events(tool, 0)
        for event in events:
            register(tool, event, None)  # 3.12 and 3.13 keep the callbacks of a freed tool
        free(tool)

    @functools.wraps(original)
    def use_tool_id(tool_id: int, name: str, /) -> None:
        original(tool_id, name)
        ledger = owner()
        if ledger is not None:
            _TOOL.add(ledger, tool_id, name, functools.partial(end, tool_id))

    return use_tool_id


def _free_tool_id(original: Callable[[int], None]) -> Any:
    @functools.wraps(original)
    def free_tool_id(tool_id: int, /) -> None:
        original(tool_id)
        _TOOL.remove(tool_id)

    return free_tool_id
