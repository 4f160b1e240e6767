"""Who registered what in the process, and undoing it in reverse; how functions are replaced to see what is registered.

A recorder puts a function of its own, by `Patches`, in the place of one that registers. That passes straight through
while the base is running (one call of a context variable) and otherwise writes what was registered, with its undo, into
the `Ledger` of the biz that is running. `koupleless.recorders.door` puts all recorders in.
"""

from __future__ import annotations

import contextlib
import enum
import functools
import math
import threading
import time
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias

from koupleless.context import as_base, current
from koupleless.errors import in_words
from koupleless.late import when_imported

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from koupleless.biz import BizId
    from koupleless.context import Scope


Entered: TypeAlias = "dict[Any, dict[Any, Any]]"
"""Cache, which is known by identity -> what was entered there."""


class Order(enum.IntEnum):
    """When an entry is undone; within one order the last recorded is first."""

    SERVERS = 0
    """Nothing comes in any more, while what works it off is still there."""
    TIMERS = 1
    """Nothing new is started any more."""
    EXECUTORS = 2
    TASKS = 3
    GENERATORS = 4
    """Async generators, which tasks were stepping through."""
    THREADS = 5
    REST = 6
    DAEMONS = 7
    """Daemon threads: as at interpreter exit, what was registered with ``atexit`` gets to stop them first."""
    LAST = 8
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
    runs. ``count`` is how many things one entry stood for. ``force`` ends something that does not end by itself.
    """

    __slots__ = ("count", "force", "wait")

    def __init__(self, wait: Callable[[float], str | None], *, count: int = 1, force: Force | None = None) -> None:
        self.wait = wait
        self.count = count
        self.force = force


class Force(Protocol):
    """What is done, one thing after another, about something that has not ended although it was asked to."""

    patience_s: float
    """How long it is awaited before each thing, at most; less where the deadline is near."""

    def has_ended(self, timeout_s: float) -> bool:
        """Wait for the end, and do nothing else."""

    def steps(self) -> Sequence[Callable[[], str | None]]:
        """The mildest first. Each says in words what it did, ``None`` if it found nothing to do; none blocks."""


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


PATIENCE_S: Final = 1.0
"""How long something that was asked, woken or interrupted is given, before more is done about it."""

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

    __slots__ = (
        "__weakref__", "_counts", "_ends", "_entries", "_undone", "before", "ended", "entered", "finalizers",
        "has_left_threads", "notes", "scope",
    )  # fmt: skip

    def __init__(self, scope: Scope) -> None:
        self.scope = scope
        self.notes: dict[object, Any] = {}
        """What recorders keep for this biz, each under a key of its own; emptied by `undo_all`."""
        self.finalizers: set[int] = set()
        """Those of ``weakref.finalize`` that were made while the biz was running, by their place in that order."""
        self.entered: Entered = {}
        """What it entered into caches of the standard library, until it is purged (``remembered``)."""
        self.before: dict[object, Any] = {}
        """What stood in hooks of the process when the biz came."""
        self.ended: list[str] = []
        """What did not end by itself and was ended, in words that say how; refers to nothing of the biz."""
        self.has_left_threads = False
        """Whether a thread of the biz did not end, so that what it uses may be in use."""
        self._entries: dict[Entry, None] = {}
        self._counts: dict[str, int] = {}
        self._undone = MappingProxyType(self._counts)
        self._ends = math.inf
        for opened in tuple(_openers):
            opened(self)

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

    def undo_all(self, deadline_s: float, *, daemons_s: float = math.inf, by_force: bool = True) -> tuple[Failure, ...]:
        """Undo everything, servers and timers first, then executors, tasks, threads and the rest in reverse.

        Daemon threads are awaited for ``daemons_s`` seconds at most, and no force is used on them if that is short of
        the deadline: the process ends, and they with it. Without ``by_force`` none is used at all.

        Every entry is tried whatever happened to the others, and also when the deadline has passed: it bounds the
        waiting, which is shared by all, and is exceeded by half a second at most. Returns what could not be undone;
        what comes late is undone by another call.
        """
        self._ends = time.monotonic() + deadline_s
        failures: list[Failure] = []
        try:
            with as_base():
                for leaving in tuple(_leavers):
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
            self.notes.clear()
        return tuple(failures)

    def _undo(self, entries: list[Entry], failures: list[Failure], *, by_force: bool) -> None:
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
        """Take the steps of all that do not end, side by side, each step when those before had their time.

        Returns the last thing that was done about each. Each time at most half of what is left is waited.
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
        except Exception as error:  # noqa: BLE001 - it looks at objects of the biz, and the next step is another one
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


_openers: Final[list[Callable[[Ledger], object]]] = []
"""Called with each new ledger."""
_leavers: Final[list[Callable[[Ledger], object]]] = []
"""Called with each ledger that is about to be undone, to record what could not be at its source."""


def owner() -> Ledger | None:
    """The ledger of the biz that is running; ``None`` for the base, and for a biz that has left."""
    scope = current()
    return None if scope is None else scope.find_facet(Ledger)


def take_out(container: dict[Any, Any] | set[Any] | list[Any], key: Any) -> None:
    """Remove a key of a dictionary or an item of a set or list, also one whose ``==`` or ``hash`` raises: a biz's code.

    It is found by identity then, and others that cannot be entered again, which nobody could find either, go as well.
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
"""The interpreter's own, for threads of ours, as the base: what a biz has put in its place must not keep it here."""


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
        start_thread(thread)
    if not ended.wait(None if math.isinf(timeout_s) else timeout_s):
        raise TimeoutError("did not return in time")
    thread.join()
    try:
        if errors:
            raise errors[0]
    finally:
        errors.clear()


# --- replacing functions of the process ------------------------------------------------------------------------------

_MISSING: Final = object()


class Patches:
    """Attributes that were replaced, and the way back.

    An attribute that somebody else has replaced since is left alone at `restore`, because theirs calls ours; ours
    stays in that chain, passes through, and is not put in a second time by a later `replace`.
    """

    def __init__(self) -> None:
        self._applied: list[tuple[object, str, object, object]] = []
        self._awaited: list[Callable[[], None]] = []
        self._called: list[tuple[list[Callable[[Ledger], object]], Callable[[Ledger], object]]] = []
        self._restored: list[Callable[[], object]] = []

    def replace(self, holder: object, name: str, make: Callable[[Any], Any]) -> None:
        """Put ``make(original)`` in the place of an attribute of a module, class or instance, if there is one."""
        original = getattr(holder, name, _MISSING)
        if original is _MISSING or any(held is holder and called == name for held, called, _, _ in self._applied):
            return
        before = vars(holder).get(name, _MISSING)
        after = make(original)
        setattr(holder, name, after)
        self._applied.append((holder, name, before, after))

    def when_imported(self, name: str, install: Callable[[Patches, Any], object]) -> None:
        """Call ``install(patches, module)`` now if the base has that module, else as soon as it is imported.

        So no library is imported on a recorder's behalf, and one that comes late is not missed. ``patches`` are those
        of the module: they are restored when it leaves the base, and with these here.
        """
        own = Patches()

        def put_in(module: Any) -> Callable[[], None]:
            install(own, module)
            return own.restore

        self._awaited.append(when_imported(name, put_in))

    def when_opened(self, opened: Callable[[Ledger], object]) -> None:
        """Call ``opened(ledger)`` for each biz that comes, before its code runs."""
        _openers.append(opened)
        self._called.append((_openers, opened))

    def when_leaving(self, leaving: Callable[[Ledger], object]) -> None:
        """Call ``leaving(ledger)`` for each biz before what it registered is undone; it may record more."""
        _leavers.append(leaving)
        self._called.append((_leavers, leaving))

    def when_restored(self, restored: Callable[[], object]) -> None:
        """Call ``restored()`` once, when everything was put back."""
        self._restored.append(restored)

    def restore(self) -> None:
        """Put back, last first, everything that is still ours."""
        while self._awaited:
            self._awaited.pop()()
        while self._called:
            callbacks, callback = self._called.pop()
            callbacks.remove(callback)
        kept = []
        for patch in reversed(self._applied):
            holder, name, before, after = patch
            if vars(holder).get(name, _MISSING) is not after:
                kept.append(patch)
            elif before is _MISSING:
                delattr(holder, name)
            else:
                setattr(holder, name, before)
        self._applied = kept[::-1]
        while self._restored:
            self._restored.pop()()


# --- registries in which each biz has its own entry -------------------------------------------------------------------


class ByOwner:
    """Stands in a registry for one key: calls what the running biz registered, else what the base did.

    Two bizs may register the same key, and leave in any order; the last one that leaves takes this out again.
    """

    def __init__(self, of_base: Callable[[Any], Any] | None, none: Callable[[Any], Any]) -> None:
        self.of_base = of_base
        self.none = none
        self.users = 0

    @property
    def __call__(self) -> Callable[[Any], Any]:
        """The function of whoever is running, which is called with no frame of ours in between."""
        ledger = owner()
        mine = None if ledger is None else ledger.notes.get(self)
        return mine or self.of_base or self.none


def enter_own(  # noqa: PLR0917 - what a registry is, and what goes into it
    kind: str,
    registry: dict[Any, Any],
    key: Any,
    function: Callable[[Any], Any],
    put: Callable[[Any], object],
    none: Callable[[Any], Any],
) -> None:
    """Let ``function`` answer for ``key`` where the caller is asked; ``none`` answers for whom nobody registered."""
    ledger = owner()
    there = registry.get(key)
    if ledger is None:
        if isinstance(there, ByOwner):
            there.of_base = function
        else:
            put(function)
        return
    if not isinstance(there, ByOwner):
        there = ByOwner(there, none)
        put(there)
    is_new = there not in ledger.notes
    ledger.notes[there] = function
    if is_new:
        there.users += 1
        what = key if isinstance(key, str) else (key[0] if isinstance(key, tuple) else key).__qualname__
        ledger.record(kind, what, functools.partial(_leave, registry, key, there))


def _leave(registry: dict[Any, Any], key: Any, mine: ByOwner) -> None:
    mine.users -= 1
    if mine.users or not any(value is mine for value in list(registry.values())):
        return
    if mine.of_base is None:
        take_out(registry, key)
    else:
        registry[key] = mine.of_base
