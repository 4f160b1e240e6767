"""The ledger of a biz: its registrations in the process, each with its undo, and the undoing of all in reverse.

`recording` has the means to see registrations, and `koupleless.recorders` writes them down. A ledger knows no registry:
an entry is a kind, words for a report, and a function to call.
"""

from __future__ import annotations

import contextlib
import enum
import math
import threading
import time
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Protocol

from koupleless.context import as_base, current
from koupleless.errors import in_words

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from koupleless.biz import BizId
    from koupleless.context import Scope


class Order(enum.IntEnum):
    """The moment at which an entry is undone; within one order the last recorded is first."""

    SERVERS = 0
    """No request comes in any more, while the threads and tasks for requests are still there."""
    TIMERS = 1
    """No new work is started any more."""
    EXECUTORS = 2
    TASKS = 3
    GENERATORS = 4
    """Async generators, which tasks were stepping through."""
    THREADS = 5
    REST = 6
    DAEMONS = 7
    """Daemon threads: as at interpreter exit, functions registered with ``atexit`` get to stop the threads first."""
    LAST = 8
    """Objects that the other entries may still use: log handlers."""


class Entry:
    """One registration. Lifetime: until the entry is forgotten or undone; made by the ledger alone."""

    __slots__ = ("kind", "order", "undo", "what")

    def __init__(self, kind: str, what: str, undo: Callable[[], object], order: Order) -> None:
        self.kind = kind
        self.what = what
        self.undo = undo
        self.order = order

    def __repr__(self) -> str:
        return f"<Entry {self.kind} {self.what}>"


class Pending:
    """Returned by an undo which has asked for an end and does not wait: all ends are asked for before one is awaited.

    ``wait`` takes the seconds left and returns ``None`` once the end has come, else words for the work still running.
    ``count`` is the number of registrations in the one entry. ``force`` ends work that does not end by itself.
    """

    __slots__ = ("count", "force", "wait")

    def __init__(self, wait: Callable[[float], str | None], *, count: int = 1, force: Force | None = None) -> None:
        self.wait = wait
        self.count = count
        self.force = force


class Force(Protocol):
    """Steps taken, one after another, against work still running although an end was asked for."""

    patience_s: float
    """Seconds to wait before each step, at most; less where the deadline is near."""

    def has_ended(self, timeout_s: float) -> bool:
        """Wait for the end, without taking a step."""

    def steps(self) -> Sequence[Callable[[], str | None]]:
        """Return the steps, the mildest first. A step returns its action in words, ``None`` for none; none blocks."""


NOTHING: Final = Pending(lambda _: None, count=0)
"""Returned by an undo with nothing left to undo, so that the entry is not counted."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A registration not undone, in words; refers to nothing of the biz."""

    kind: str
    what: str
    reason: str

    def __str__(self) -> str:
        return f"{self.kind} {self.what}: {self.reason}"


PATIENCE_S: Final = 1.0
"""Seconds for work to end once asked, woken or interrupted, before a harder step is taken."""

# Undoing may run code of the biz (atexit functions) which registers more; a biz is cut off if this never stops.
_ROUNDS: Final = 8

# When one entry has used up the deadline, the others still get long enough to answer, and are not reported for it.
_FLOOR_S: Final = 0.05
_OVERTIME_S: Final = 0.5


class Ledger:
    """The book of one life of one biz, a facet of its `Scope`.

    Lifetime: as its scope. Threads: any thread records and forgets, also from weak reference callbacks in the middle of
    a collection, which is why there is no lock but only single operations of one dictionary; `undo_all` is called by
    one thread at a time, never by the thread of the event loop.
    """

    __slots__ = (
        "__weakref__", "_counts", "_ends", "_entries", "_undone", "ended", "has_left_threads", "scope",
    )  # fmt: skip

    def __init__(self, scope: Scope) -> None:
        self.scope = scope
        self.ended: list[str] = []
        """Work ended by force, each with the way of its end in words; refers to nothing of the biz."""
        self.has_left_threads = False
        """Whether a thread of the biz did not end, so that objects used by the thread may be in use."""
        self._entries: dict[Entry, None] = {}
        self._counts: dict[str, int] = {}
        self._undone = MappingProxyType(self._counts)
        self._ends = math.inf
        for opened in tuple(openers):
            opened(self)

    @property
    def biz(self) -> BizId:
        """The biz of the ledger."""
        return self.scope.biz

    @property
    def undone(self) -> Mapping[str, int]:
        """The number of registrations undone so far, by kind; a live view that outlives the ledger."""
        return self._undone

    def record(self, kind: str, what: str, undo: Callable[[], object], *, order: Order = Order.REST) -> Entry:
        """Write down that the biz registered ``what``, an object of this ``kind``.

        ``undo`` is called without arguments, as the base, on the thread of `undo_all`, and may return a `Pending`.
        ``undo`` must refer weakly to every object that the registry itself does not keep alive.
        """
        entry = Entry(kind, what, undo, order)
        self._entries[entry] = None
        return entry

    def forget(self, entry: Entry) -> None:
        """Strike out an entry after the object ended or was unregistered. Idempotent; harmless after the undo."""
        self._entries.pop(entry, None)

    def remaining_s(self) -> float:
        """The seconds the running `undo_all` has left, never negative; infinite when none runs.

        Past the deadline, half a second in all is given in small pieces.
        """
        left = self._ends - time.monotonic()
        return max(left, min(_FLOOR_S, left + _OVERTIME_S), 0.0)

    def undo_all(self, deadline_s: float, *, daemons_s: float = math.inf, by_force: bool = True) -> tuple[Failure, ...]:
        """Undo everything, servers and timers first, then executors, tasks, threads and the rest in reverse.

        Daemon threads are awaited for ``daemons_s`` seconds at most; if ``daemons_s`` is short of the deadline, no
        force is used on daemon threads: the process ends, and they with it. Without ``by_force`` no force is used at
        all.

        Every entry is tried whatever happened to the others, and also when the deadline has passed. The deadline bounds
        the waiting, which all entries share, and is exceeded by half a second at most. Returns a `Failure` for each
        registration left; a late registration is undone by another call.
        """
        self._ends = time.monotonic() + deadline_s
        failures: list[Failure] = []
        try:
            with as_base():
                for leaving in tuple(leavers):
                    try:
                        leaving(self)
                    except Exception as error:  # noqa: BLE001 - the rest is undone whatever happens
                        failures.append(Failure("recorder", repr(leaving), in_words(error)))
                for _ in range(_ROUNDS):
                    entries = list(self._entries)
                    if not entries:
                        break
                    for order in Order:
                        ends = self._ends
                        is_short = order is Order.DAEMONS and time.monotonic() + daemons_s < ends
                        if is_short:
                            self._ends = time.monotonic() + daemons_s
                        undoing = [entry for entry in reversed(entries) if entry.order is order]
                        self._undo(undoing, failures, by_force=by_force and not is_short)
                        self._ends = ends
        finally:
            self._ends = math.inf
        return tuple(failures)

    def _undo(self, entries: list[Entry], failures: list[Failure], *, by_force: bool) -> None:
        pending: list[tuple[Entry, Pending]] = []
        for entry in entries:
            if entry not in self._entries:
                continue  # the entry ended while others were undone
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
        done = self._use_force(pending) if by_force else {}
        for entry, end in pending:
            try:
                reason = end.wait(self.remaining_s())
            except BaseException as error:  # noqa: BLE001 - as above
                reason = in_words(error)
            if reason is None:
                self._count(entry.kind, end.count)
                if entry in done:
                    self.ended.append(f"{entry.kind} {entry.what} {done[entry]}")
            else:
                failures.append(Failure(entry.kind, entry.what, reason))
                self.has_left_threads |= end.force is not None

    def _use_force(self, pending: list[tuple[Entry, Pending]]) -> dict[Entry, str]:
        """Take the steps against all work still running, side by side, each step when earlier ones had their time.

        Returns the last action on each entry, in words. Each wait takes half of the time left, at most.
        """
        done: dict[Entry, str] = {}
        left = [(entry, force, list(force.steps())) for entry, end in pending if (force := end.force) is not None]
        while left:
            patience_s = max(force.patience_s for _, force, _ in left)
            ends = time.monotonic() + min(self.remaining_s() / 2, patience_s)
            left = [
                (entry, force, steps)
                for entry, force, steps in left
                if not force.has_ended(max(0.0, ends - time.monotonic()))
            ]
            for entry, force, steps in left:
                while steps:
                    if (said := self._take(steps.pop(0))) is not None:
                        done[entry] = said
                        force.patience_s = PATIENCE_S
                        break
            left = [one for one in left if one[2]]
        return done

    @staticmethod
    def _take(step: Callable[[], str | None]) -> str | None:
        try:
            return step()
        except Exception as error:  # noqa: BLE001 - objects of the biz may raise; the next step is another one
            return in_words(error)

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


openers: Final[list[Callable[[Ledger], object]]] = []
"""Called with each new ledger."""
leavers: Final[list[Callable[[Ledger], object]]] = []
"""Called with each ledger before the undo, to record objects which could not be recorded at their source."""


def owner() -> Ledger | None:
    """The ledger of the biz that is running; ``None`` for the base, and for a biz that has left."""
    scope = current()
    return None if scope is None else scope.find_facet(Ledger)


def take_out(container: dict[Any, Any] | set[Any] | list[Any], key: Any) -> None:
    """Remove a key of a dictionary or an item of a set or list, also a key whose ``==`` or ``hash`` is code of a biz.

    If ``==`` or ``hash`` raises, the key is found by identity. Other keys go as well if they cannot be entered again:
    nobody could find these keys either.
    """
    if isinstance(container, list):
        at = next((at for at, one in enumerate(container) if one is key), None)
        if at is not None:
            del container[at]
        return
    try:
        if isinstance(container, dict):
            container.pop(key, None)
        else:
            container.discard(key)
    except BaseException:  # noqa: BLE001 - SystemExit, too
        pairs = list(container.items()) if isinstance(container, dict) else [(one, None) for one in container]
        container.clear()
        for one, value in pairs:
            with contextlib.suppress(BaseException):
                if one is key:
                    continue
                if isinstance(container, dict):
                    container[one] = value
                else:
                    container.add(one)


start_thread: Final = threading.Thread.start
"""The interpreter's own function, for threads of ours, as the base: a replacement by a biz must not keep the biz here.
"""


def bounded(function: Callable[[], object], *, name: str, timeout_s: float) -> None:
    """Call code of a biz on a thread of ours, in the context of the caller's choice, and wait ``timeout_s`` seconds.

    Raises the errors of the code, and ``TimeoutError`` if the code has not returned in time; the thread goes on as a
    daemon.
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
        start_thread(thread)
    if not ended.wait(None if math.isinf(timeout_s) else timeout_s):
        raise TimeoutError("did not return in time")
    thread.join()
    try:
        if errors:
            raise errors[0]
    finally:
        errors.clear()
