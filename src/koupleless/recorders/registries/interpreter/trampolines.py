"""Recorders for hooks without a way back: one trampoline, kept by the interpreter for ever, calls hooks of all bizs.

Functions at a fork, and audit hooks, cannot be taken back. So the trampoline stays, and the box of a biz is emptied.
"""

from __future__ import annotations

import functools
import logging
import os
import sys
from typing import TYPE_CHECKING, Any, Final

from koupleless.context import as_base, call_as, current
from koupleless.errors import in_words
from koupleless.frames import passed_over, standing_for
from koupleless.ownership.ledger import owner
from koupleless.recorders.names import name_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from koupleless.ownership.ledger import Ledger
    from koupleless.ownership.recording import Patches

_log: Final = logging.getLogger("koupleless")


def install(patches: Patches) -> None:
    """Replace the functions for registering hooks for ever."""
    if hasattr(os, "register_at_fork"):
        patches.replace(os, "register_at_fork", _register_at_fork)
    patches.replace(sys, "addaudithook", _addaudithook)


class Box:
    """Content of a biz for a trampoline; emptied when the biz leaves."""

    def __init__(self, content: Any) -> None:
        self.content = content

    def empty(self) -> None:
        """Let go of the content, for good: the trampoline does nothing for the biz from now on."""
        self.content = None


_fork_boxes: Final[list[Box]] = []
_audit_boxes: Final[list[Box]] = []
_trampolines: Final[set[str]] = set()


def _register_at_fork(original: Callable[..., None]) -> Any:
    def call(phase: str, boxes: Iterable[Box]) -> None:
        for box in boxes:
            hook = (box.content or {}).get(phase)
            if hook is not None:
                hook()

    @standing_for(original)
    def register_at_fork(**hooks: Callable[[], object]) -> None:
        ledger = owner()
        if ledger is None or not all(callable(hook) for hook in hooks.values()):
            return original(**hooks)
        if "fork" not in _trampolines:
            _trampolines.add("fork")
            original(
                before=lambda: call("before", _fork_boxes[::-1]),
                after_in_parent=lambda: call("after_in_parent", list(_fork_boxes)),
                after_in_child=lambda: call("after_in_child", list(_fork_boxes)),
            )
        scope = ledger.scope
        as_biz = {phase: functools.partial(call_as, scope, hook) for phase, hook in hooks.items()}
        _keep(_fork_boxes, as_biz, ledger, "fork")
        return None

    return register_at_fork


@passed_over
def _addaudithook(original: Callable[[Callable[[str, tuple[Any, ...]], Any]], None]) -> Any:
    def trampoline(event: str, args: tuple[Any, ...]) -> None:
        for box in tuple(_audit_boxes):
            if box.content is not None:
                _hear(box, event, args)

    @standing_for(original)
    def addaudithook(hook: Callable[[str, tuple[Any, ...]], Any]) -> None:
        ledger = owner()
        if ledger is None:
            return original(hook)
        if "audit" not in _trampolines:
            _trampolines.add("audit")
            original(trampoline)
        _keep(_audit_boxes, (ledger.scope, hook), ledger, "audit")
        return None

    return addaudithook


@passed_over
def _hear(box: Box, event: str, args: tuple[Any, ...]) -> None:
    """Call the audit hook of a biz. The hook may forbid acts of the biz; a hook that forbids others is emptied."""
    scope, hook = box.content
    if current() is scope:
        hook(event, args)
        return
    try:
        hook(event, args)
    except BaseException as error:  # noqa: BLE001 - code of the biz; told
        box.empty()
        with as_base():
            _log.warning(
                "an audit hook of biz %s is called no more: %s, at %r of others", scope.biz, in_words(error), event
            )


def _keep(boxes: list[Box], content: Any, ledger: Ledger, kind: str) -> None:
    box = Box(content)
    boxes.append(box)

    def undo() -> None:
        box.empty()
        boxes.remove(box)

    ledger.record(f"{kind} hook", name_of(content[1] if kind == "audit" else content), undo)
