"""The door through which all recorders are put in, and the list of all sweeps.

A new recorder is a file with ``install(patches)`` and ``KINDS``, with ``SWEEPS``, or with all three, and a line in each
of the lists below.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from koupleless.ownership import caches
from koupleless.ownership.recording import Patches
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
from koupleless.replacing import Shared

if TYPE_CHECKING:
    import contextlib

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
)
"""The functions that put recorders in, in this order, each with the patches of the process."""
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
)
"""The kinds of registration that are seen."""
SWEEPS: Final = (
    *hooks.SWEEPS,
    *entries.SWEEPS,
    *traces.SWEEPS,
    *finalizers.SWEEPS,
    *remembered.SWEEPS,
    *eventloop.SWEEPS,
    *overloads.SWEEPS,
    *tables.SWEEPS,
)
"""The sweeps of a purge, in the order in which a purge makes them."""

_patches: Final = Patches()


def _put_in(undo: contextlib.ExitStack) -> None:
    undo.callback(_patches.restore)
    for put_in in RECORDERS:
        put_in(_patches)


RECORDING: Final = Shared("recorders", _put_in)
"""All recorders. Put in as the base, before the first biz is installed."""
