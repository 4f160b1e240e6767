"""Changes of a container to its process: views and recorders from the first biz on, and the memory of the process.

A base without a biz from the start on runs on an untouched interpreter. The changes are shared: several containers live
in one process, and the last to close restores the interpreter. The hooks of the import system are not among the changes
here: each namespace counts for itself, so the hooks are out while no biz is there.
"""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, Final, NamedTuple

from koupleless.adapters.door import ADAPTERS, OWN, put_into_own
from koupleless.changes.changes import changes
from koupleless.isolation.interpreter import loaded, loading, when_loaded
from koupleless.isolation.libraries.resident import resident_bytes
from koupleless.patching import FUNCTIONS
from koupleless.recorders.door import RECORDING
from koupleless.recorders.loops.eventloop import adopt_loop
from koupleless.recorders.registries.refusals import REFUSALS, refuse_in
from koupleless.replacing import Shared
from koupleless.view.environ import ENVIRON
from koupleless.view.logging.logs import LOGS
from koupleless.view.logging.streams import STREAMS
from koupleless.view.paths import PATHS
from koupleless.view.shared.guest import begin
from koupleless.view.shared.process import GUARDS
from koupleless.view.standard.stdlib import STDLIB
from koupleless.view.standard.warning import WARNINGS

if TYPE_CHECKING:
    import asyncio

__all__ = ["HOOKS", "ProcessHooks", "resident_bytes"]


def _follow_loading(undo: contextlib.ExitStack) -> None:
    loading.append(changes.modules_needed)
    undo.callback(loading.remove, changes.modules_needed)
    loaded.append(changes.module_loaded)
    undo.callback(loaded.remove, changes.module_loaded)


class Hook(NamedTuple):
    """One change of the process for all bizs."""

    change: Shared
    is_for_one: bool = False
    """Whether a biz without others in its process needs the hook, too."""


HOOKS: Final = (
    Hook(ENVIRON, is_for_one=True),
    Hook(PATHS),
    Hook(GUARDS),
    Hook(LOGS, is_for_one=True),
    Hook(STREAMS),
    Hook(WARNINGS, is_for_one=True),
    Hook(STDLIB, is_for_one=True),
    Hook(RECORDING, is_for_one=True),
    Hook(REFUSALS),
    Hook(ADAPTERS),
    Hook(Shared("followers of loading", _follow_loading)),
)
"""In the order of putting in."""


class ProcessHooks:
    """The share of one container in the process-wide hooks. Thread-safe, idempotent both ways."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._removal: contextlib.ExitStack | None = None

    def install(self, loop: asyncio.AbstractEventLoop) -> None:
        """Put the hooks in, also on the loop of the bizs, unless this container has put the hooks in already.

        Raises any error of a hook, after all hooks put in before were taken out.
        """
        with self._lock:
            if self._removal is not None:
                return
            with contextlib.ExitStack() as removal:
                begin()  # the changes may be in, from before a server has forked the process
                for hook in HOOKS:
                    hook.change.acquire()
                    removal.callback(hook.change.release)
                for name in FUNCTIONS:
                    removal.callback(when_loaded(name, refuse_in))
                for name in OWN:
                    removal.callback(when_loaded(name, put_into_own))
                removal.callback(adopt_loop(loop).release)
                self._removal = removal.pop_all()

    def remove(self) -> None:
        """Take the share of this container out."""
        with self._lock:
            removal, self._removal = self._removal, None
        if removal is not None:
            removal.close()
