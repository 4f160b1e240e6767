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
from koupleless.ownership.kinds import Trampoline
from koupleless.ownership.ledger import owner
from koupleless.recorders.names import name_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from koupleless.context import Scope
    from koupleless.ownership.kinds import Box
    from koupleless.ownership.recording import Patches

_log: Final = logging.getLogger("koupleless")


def install(patches: Patches) -> None:
    """Replace the functions for registering hooks for ever."""
    if hasattr(os, "register_at_fork"):
        patches.replace(os, "register_at_fork", _register_at_fork)
    patches.replace(sys, "addaudithook", _addaudithook)


_FORK: Final[Trampoline[Mapping[str, Callable[[], object]]]] = Trampoline("fork hook", "os.register_at_fork")
_AUDIT: Final[Trampoline[tuple[Scope, Callable[[str, tuple[Any, ...]], Any]]]] = Trampoline(
    "audit hook", "sys.addaudithook"
)
KINDS: Final = (_FORK, _AUDIT)


def _register_at_fork(original: Callable[..., None]) -> Any:
    def call(phase: str, boxes: Iterable[Box[Mapping[str, Callable[[], object]]]]) -> None:
        for box in boxes:
            hook = (box.content or {}).get(phase)
            if hook is not None:
                hook()

    @standing_for(original)
    def register_at_fork(**hooks: Callable[[], object]) -> None:
        ledger = owner()
        if ledger is None or not all(callable(hook) for hook in hooks.values()):
            return original(**hooks)
        if not _FORK.is_registered:
            _FORK.is_registered = True
            original(
                before=lambda: call("before", reversed(_FORK.boxes())),
                after_in_parent=lambda: call("after_in_parent", _FORK.boxes()),
                after_in_child=lambda: call("after_in_child", _FORK.boxes()),
            )
        scope = ledger.scope
        as_biz = {phase: functools.partial(call_as, scope, hook) for phase, hook in hooks.items()}
        _FORK.keep(ledger, as_biz, name_of(as_biz))
        return None

    return register_at_fork


@passed_over
def _addaudithook(original: Callable[[Callable[[str, tuple[Any, ...]], Any]], None]) -> Any:
    def trampoline(event: str, args: tuple[Any, ...]) -> None:
        for box in _AUDIT.boxes():
            if (content := box.content) is not None:
                _hear(box, *content, event, args)

    @standing_for(original)
    def addaudithook(hook: Callable[[str, tuple[Any, ...]], Any]) -> None:
        ledger = owner()
        if ledger is None:
            return original(hook)
        if not _AUDIT.is_registered:
            _AUDIT.is_registered = True
            original(trampoline)
        _AUDIT.keep(ledger, (ledger.scope, hook), name_of(hook))
        return None

    return addaudithook


@passed_over
def _hear(
    box: Box[Any], scope: Scope, hook: Callable[[str, tuple[Any, ...]], Any], event: str, args: tuple[Any, ...]
) -> None:
    """Call the audit hook of a biz. The hook may forbid acts of the biz; a hook that forbids others is emptied."""
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
