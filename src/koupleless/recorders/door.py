"""The door through which all recorders are put in, and the list of all sweeps.

A new recorder is a file with ``install(patches)`` and ``KINDS``, with ``SWEEPS``, or with all three, and a line in each
of the lists below.
"""

from __future__ import annotations

import threading
from typing import Final

from koupleless.ownership import caches
from koupleless.ownership.recording import Patches
from koupleless.recorders.libraries import celery, pydantic, signals, sqlalchemy, telemetry
from koupleless.recorders.loops import eventloop
from koupleless.recorders.registries import entries, logging, mocks, overloads, remembered, tables
from koupleless.recorders.registries.interpreter import (
    allocations,
    codecs,
    exits,
    finalizers,
    generators,
    hooks,
    monitoring,
    traces,
    trampolines,
)
from koupleless.recorders.running import executors, forks, once, processes, sockets, threads, tracing

_lock = threading.Lock()
_patches: Final = Patches()
_installed = 0


def install_recorders() -> None:
    """Start recording: the first call replaces the functions, further calls are counted.

    Several containers thereby share one set of recorders. Called as the base, before the first biz is installed. Raises
    any error of a recorder, after every function was put back. Thread-safe.
    """
    global _installed  # noqa: PLW0603 - the process has one set of functions to replace
    with _lock:
        _installed += 1
        if _installed == 1:
            try:
                for put_in in RECORDERS:
                    put_in(_patches)
            except BaseException:
                _installed = 0
                _patches.restore()
                raise


def remove_recorders() -> None:
    """Undo one `install_recorders`; the last call puts every function back. Raises ``RuntimeError`` if none is left."""
    global _installed  # noqa: PLW0603 - as above
    with _lock:
        if _installed == 0:
            raise RuntimeError("no recorders are installed")
        _installed -= 1
        if _installed == 0:
            _patches.restore()


RECORDERS: Final = (
    once.install,
    threads.install,
    executors.install,
    tracing.install,
    processes.install,
    forks.install,
    sockets.install,
    eventloop.install,
    exits.install,
    codecs.install,
    entries.install,
    trampolines.install,
    monitoring.install,
    finalizers.install,
    hooks.install,
    mocks.install,
    generators.install,
    allocations.install,
    remembered.install,
    caches.install,
    logging.install,
    sqlalchemy.install,
    signals.install,
    telemetry.install,
)
"""The functions that `install_recorders` calls in this order, each with the patches of the process."""
KINDS: Final = (
    *once.KINDS,
    *threads.KINDS,
    *executors.KINDS,
    *tracing.KINDS,
    *processes.KINDS,
    *sockets.KINDS,
    *eventloop.KINDS,
    *exits.KINDS,
    *codecs.KINDS,
    *entries.KINDS,
    *trampolines.KINDS,
    *monitoring.KINDS,
    *mocks.KINDS,
    *generators.KINDS,
    *allocations.KINDS,
    *logging.KINDS,
    *sqlalchemy.KINDS,
    *signals.KINDS,
    *telemetry.KINDS,
)
"""The kinds of registration that are seen."""
SWEEPS: Final = (
    *hooks.SWEEPS,
    *entries.SWEEPS,
    *traces.SWEEPS,
    *finalizers.SWEEPS,
    *remembered.SWEEPS,
    *eventloop.SWEEPS,
    *celery.SWEEPS,
    *pydantic.SWEEPS,
    *overloads.SWEEPS,
    *sqlalchemy.SWEEPS,
    *tables.SWEEPS,
)
"""The sweeps of a purge, in the order in which a purge makes them."""
