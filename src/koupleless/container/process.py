"""Changes of a container to its process: views and recorders from the first biz on, and the memory of the process.

A base without a biz from the start on runs on an untouched interpreter. Each room counts its installers, so several
containers live in one process, and the last to close restores the interpreter. The hooks of the import system are not
among the changes here: each namespace counts for itself, so the hooks are out while no biz is there.
"""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING

from koupleless.adapters.door import OWN, install_adapters, put_into_own, remove_adapters
from koupleless.changes.changes import changes
from koupleless.isolation.interpreter import loaded, loading, when_loaded
from koupleless.isolation.libraries.resident import resident_bytes
from koupleless.patching import FUNCTIONS
from koupleless.recorders.door import install_recorders, remove_recorders
from koupleless.recorders.loops.eventloop import adopt_loop
from koupleless.recorders.registries.refusals import install_refusals, refuse_in, remove_refusals
from koupleless.view.environ import install_environ, remove_environ
from koupleless.view.logging.logs import install_logs, remove_logs
from koupleless.view.shared.process import install_guards, remove_guards
from koupleless.view.standard.stdlib import install_stdlib, remove_stdlib
from koupleless.view.standard.warning import install_warnings, remove_warnings

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

__all__ = ["ProcessHooks", "resident_bytes"]


def _follow_loading() -> None:
    loading.append(changes.modules_needed)
    loaded.append(changes.module_loaded)


def _leave_loading() -> None:
    loaded.remove(changes.module_loaded)
    loading.remove(changes.modules_needed)


_PAIRS: tuple[tuple[Callable[[], object], Callable[[], object]], ...] = (
    (install_environ, remove_environ),
    (install_guards, remove_guards),
    (install_logs, remove_logs),
    (install_warnings, remove_warnings),
    (install_stdlib, remove_stdlib),
    (install_recorders, remove_recorders),
    (install_refusals, remove_refusals),
    (install_adapters, remove_adapters),
    (_follow_loading, _leave_loading),
)


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
                for put_in, take_out in _PAIRS:
                    put_in()
                    removal.callback(take_out)
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
