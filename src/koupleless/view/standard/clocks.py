"""Give each biz its own replacements of functions and classes of ``time``, ``datetime`` and ``uuid``.

Libraries that fake time replace these, as does code that patches a clock. Code in the biz's context, of shared
libraries too, reads the biz's replacements; the base, other bizs and their threads get the real ones. The event loop is
shared by all, and the deadlines of this package are real ones: both get the real ones, too.
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
    """Let each biz assign variables of a Python module for itself, and leave the way back with ``undo``."""
    assign_any_by_context(undo, module, functools.partial(_here, module.__name__), "asyncio", "koupleless")


def _here(module: str) -> dict[str, Any] | None:
    """Return the variables of a module set by the running biz; ``None`` for the process.

    A biz with the process to itself assigns the process's variables, and gets ``None`` as well.
    """
    scope = current()
    if scope is None:
        return None
    environment = scope.find_facet(Environment)
    return None if environment is not None and environment.has_process else own_of(module)
