"""Recorder for ``sys.set_asyncgen_hooks``: hooks of a biz for asynchronous generators are emptied with the biz."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Any, Final

from koupleless.context import current
from koupleless.frames import standing_for
from koupleless.ownership.kinds import Kind
from koupleless.ownership.ledger import owner

if TYPE_CHECKING:
    from collections.abc import Callable

    from koupleless.context import Scope
    from koupleless.ownership.recording import Patches

_HOOKS: Final = Kind("asyncgen hook", "sys.set_asyncgen_hooks", "emptied")
KINDS: Final = (_HOOKS,)


def install(patches: Patches) -> None:
    """Replace the function that sets the hooks of a thread."""
    patches.replace(sys, "set_asyncgen_hooks", _set_asyncgen_hooks)


class _Hook:
    """Stands in a thread's hook for asynchronous generators: calls a biz's function, for the biz alone."""

    def __init__(self, scope: Scope, function: Callable[[Any], object], before: Callable[[Any], object] | None) -> None:
        self.function: Callable[[Any], object] | None = function
        self._is_here: Callable[[], bool] = lambda: current() is scope
        self._before = before

    def __call__(self, generator: Any) -> None:
        function = self.function if self._is_here() else self._before
        if function is not None:
            function(generator)

    def empty(self) -> None:
        self.function = None
        self._is_here = lambda: False


def _set_asyncgen_hooks(original: Callable[..., None]) -> Any:
    """Empty hooks of a biz when the biz leaves. A loop puts back its own hooks; others would stay on the thread."""

    @standing_for(original)
    def set_asyncgen_hooks(*args: Any, **kwargs: Any) -> None:
        ledger = owner()
        given = dict(zip(("firstiter", "finalizer"), args, strict=False)) | kwargs
        if ledger is None or not all(_is_hook(hook) for hook in given.values()):
            original(*args, **kwargs)
            return
        present = sys.get_asyncgen_hooks()
        for name, hook in given.items():
            before = getattr(present, name)
            if hook is None and isinstance(before, _Hook) and before.function is not None:
                given[name] = before._before  # noqa: SLF001 - of the same class
            elif hook is not None and hook is not before:
                given[name] = held = _Hook(ledger.scope, hook, before)
                _HOOKS.record(ledger, name, held.empty)
        original(**given)

    return set_asyncgen_hooks


def _is_hook(hook: Any) -> bool:
    """Tell whether a hook stays on the thread: a hook is callable, and not a loop's."""
    return hook is None or (
        callable(hook) and not isinstance(getattr(hook, "__self__", None), asyncio.AbstractEventLoop)
    )
