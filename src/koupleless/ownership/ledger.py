"""Who registered what in the process, and undoing it in reverse.

The recorders (``recorders`` says which) write what a biz registers, each with its undo, into the `Ledger` of the biz
that is running.
"""

from __future__ import annotations

import enum
import math
import threading
import time
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from koupleless.context import as_base, current

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from koupleless.biz import BizId
    from koupleless.context import Scope


class Order(enum.IntEnum):
    """When an entry is undone; within one order the last recorded is first."""

    TIMERS = 0
    """Nothing new is started any more."""
    EXECUTORS = 1
    TASKS = 2
    THREADS = 3
    REST = 4
    DAEMONS = 5
    """Daemon threads: as at interpreter exit, what was registered with ``atexit`` gets to stop them first."""
    LAST = 6
    """What the others may still use: log handlers."""


class Entry:
    """One registration. Lifetime: until it is forgotten or undone; the ledger alone makes it."""

    __slots__ = ("kind", "order", "undo", "what")

    def __init__(self, kind: str, what: str, undo: Callable[[], object], order: Order) -> None:
        self.kind = kind
        self.what = what
        self.undo = undo
        self.order = order

    def __repr__(self) -> str:
        return f"<Entry {self.kind} {self.what}>"


class Pending:
    """What an undo returns when it has asked for an end that takes time, so that all are asked before one is awaited.

    ``wait`` is given the seconds that are left, returns ``None`` once the end has come, else words for what still
    runs. ``count`` is how many things one entry stood for.
    """

    __slots__ = ("count", "wait")

    def __init__(self, wait: Callable[[float], str | None], *, count: int = 1) -> None:
        self.wait = wait
        self.count = count


NOTHING: Final = Pending(lambda _: None, count=0)
"""What an undo returns that found nothing left to undo, so that it is not counted."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Something that was not undone, in words; it refers to nothing of the biz."""

    kind: str
    what: str
    reason: str

    def __str__(self) -> str:
        return f"{self.kind} {self.what}: {self.reason}"


# Undoing may run code of the biz (atexit functions) which registers more; a biz that never stops doing so is cut off.
_ROUNDS: Final = 8

# When one has used up the deadline, the others still get long enough to answer, so that they are not reported for it.
_FLOOR_S: Final = 0.05
_OVERTIME_S: Final = 0.5


class Ledger:
    """The book of one life of one biz, a facet of its `Scope`.

    Lifetime: as its scope. Threads: any thread records and forgets, also from weak reference callbacks in the middle
    of a collection, which is why there is no lock but only single operations of one dictionary; `undo_all` is called
    by one thread at a time, never by that of the event loop.
    """

    __slots__ = ("__weakref__", "_counts", "_ends", "_entries", "_undone", "notes", "scope")

    def __init__(self, scope: Scope) -> None:
        self.scope = scope
        self.notes: dict[object, Any] = {}
        """What recorders keep for this biz, each under a key of its own."""
        self._entries: dict[Entry, None] = {}
        self._counts: dict[str, int] = {}
        self._undone = MappingProxyType(self._counts)
        self._ends = math.inf

    @property
    def biz(self) -> BizId:
        """Whose ledger this is."""
        return self.scope.biz

    @property
    def undone(self) -> Mapping[str, int]:
        """How many registrations of each kind were undone so far; a live view that outlives the ledger."""
        return self._undone

    def record(self, kind: str, what: str, undo: Callable[[], object], *, order: Order = Order.REST) -> Entry:
        """Write down that the biz registered ``what``, a thing of this ``kind``.

        ``undo`` is called without arguments, as the base, on the thread that calls `undo_all`; it may return a
        `Pending`. It must hold weakly whatever the registry itself does not keep alive.
        """
        entry = Entry(kind, what, undo, order)
        self._entries[entry] = None
        return entry

    def forget(self, entry: Entry) -> None:
        """The thing ended or was unregistered by itself. Idempotent; harmless after it was undone."""
        self._entries.pop(entry, None)

    def remaining_s(self) -> float:
        """The seconds the running `undo_all` has left, never negative; infinite when none runs.

        Past the deadline, half a second in all is given in small pieces.
        """
        left = self._ends - time.monotonic()
        return max(left, min(_FLOOR_S, left + _OVERTIME_S), 0.0)

    def undo_all(self, deadline_s: float) -> tuple[Failure, ...]:
        """Undo everything, timers first, then executors, tasks, threads and the rest in reverse.

        Every entry is tried whatever happened to the others, and also when the deadline has passed: it bounds the
        waiting, which is shared by all, and is exceeded by half a second at most. Returns what could not be undone;
        what comes late is undone by another call.
        """
        self._ends = time.monotonic() + deadline_s
        failures: list[Failure] = []
        try:
            with as_base():
                for _ in range(_ROUNDS):
                    entries = list(self._entries)
                    if not entries:
                        break
                    for order in Order:
                        self._undo([entry for entry in reversed(entries) if entry.order is order], failures)
        finally:
            self._ends = math.inf
            self.notes.clear()
        return tuple(failures)

    def _undo(self, entries: list[Entry], failures: list[Failure]) -> None:
        pending: list[tuple[Entry, Pending]] = []
        for entry in entries:
            if entry not in self._entries:
                continue  # it ended while others were undone
            self.forget(entry)
            try:
                result = entry.undo()
            except BaseException as error:  # noqa: BLE001 - code of the biz, which may well raise SystemExit
                failures.append(Failure(entry.kind, entry.what, in_words(error)))
                continue
            if isinstance(result, Pending):
                pending.append((entry, result))
            else:
                self._count(entry.kind)
        for entry, end in pending:
            try:
                reason = end.wait(self.remaining_s())
            except BaseException as error:  # noqa: BLE001 - as above
                reason = in_words(error)
            if reason is None:
                self._count(entry.kind, end.count)
            else:
                failures.append(Failure(entry.kind, entry.what, reason))

    def _count(self, kind: str, times: int = 1) -> None:
        if times:
            self._counts[kind] = self._counts.get(kind, 0) + times

    def __len__(self) -> int:
        return len(self._entries)

    def __bool__(self) -> bool:
        return True

    def __repr__(self) -> str:
        kinds = ", ".join(sorted({entry.kind for entry in list(self._entries)}))
        return f"<Ledger {self.biz} {len(self)} entries{': ' * bool(kinds)}{kinds}>"


def owner() -> Ledger | None:
    """The ledger of the biz that is running; ``None`` for the base, and for a biz that has left."""
    scope = current()
    return None if scope is None else scope.find_facet(Ledger)


def in_words(error: BaseException) -> str:
    """An exception as text. The exception itself is never kept: its frames would hold the biz."""
    try:
        text = str(error)
    except Exception:  # noqa: BLE001 - its __str__ is code of the biz
        text = ""
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def bounded(function: Callable[[], object], *, name: str, timeout_s: float) -> None:
    """Call code of a biz on a thread of ours, in the context of the caller's choice, and wait ``timeout_s`` for it.

    Raises what it raises, and ``TimeoutError`` when it has not returned by then; the thread goes on as a daemon.
    """
    errors: list[BaseException] = []
    ended = threading.Event()

    def work() -> None:
        try:
            function()
        except BaseException as error:  # noqa: BLE001 - raised again below
            errors.append(error)
        finally:
            ended.set()

    with as_base():
        thread = threading.Thread(target=work, name=name, daemon=True)
        thread.start()
    if not ended.wait(None if math.isinf(timeout_s) else timeout_s):
        raise TimeoutError("did not return in time")
    thread.join()
    try:
        if errors:
            raise errors[0]
    finally:
        errors.clear()
