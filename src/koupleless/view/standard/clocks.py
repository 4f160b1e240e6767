"""Clocks: what a biz puts in the place of functions and classes of ``time``, ``datetime`` and ``uuid`` is its own.

Libraries that fake time do that, and code that patches a clock. Code that reads these modules in the biz's context gets
what the biz has put there, shared libraries included; the base, other bizs and their threads get the real ones. So do
the event loop, which all share, and this package, whose deadlines are real ones.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from koupleless.context import current
from koupleless.contextual import assign_any_by_context
from koupleless.view.environ import Environment
from koupleless.view.own import own_of

if TYPE_CHECKING:
    import contextlib


def put_in(undo: contextlib.ExitStack, module: Any) -> None:
    """Let a module's variables be each biz's own to assign, and leave the way back with ``undo``."""
    assign_any_by_context(undo, module, functools.partial(_here, module.__name__), "asyncio", "koupleless")


def _here(module: str) -> dict[str, Any] | None:
    """The variables of a module that the running biz has set; ``None`` for the process, also if it is the biz's."""
    scope = current()
    if scope is None:
        return None
    environment = scope.find_facet(Environment)
    return None if environment is not None and environment.has_process else own_of(module)
