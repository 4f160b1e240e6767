"""Code of several bizs called in one round: a call that hangs holds up neither the others nor the caller for long."""

from __future__ import annotations

import threading
import weakref
from typing import TYPE_CHECKING, Any, Final

from koupleless.context import as_base, call_merged
from koupleless.ownership.ledger import start_thread
from koupleless.recorders.running.threads import record_guest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from koupleless.ownership.ledger import Entry, Ledger

PATIENCE_S: Final = 1.0
"""Seconds for one call, and at most twice as many until the call is given up."""

_hanging: Final[weakref.WeakSet[Ledger]] = weakref.WeakSet()
"""The bizs with a call that has not returned: further rounds leave them out until the call returns."""


def call_each(calls: Iterable[tuple[Ledger, Callable[[], Any]]]) -> list[tuple[Ledger, Any]]:
    """Call a function of each biz as the biz, one after another on one thread.

    Returns the results, with an exception in the place of the result where a call raised one, and ``TimeoutError`` for
    a call that has not returned in time. The thread is left behind in such a call, and another one goes on with the
    next biz. Bizs with a call left behind by an earlier round are passed over. Safe to call from any thread.
    """
    left = [(ledger, call) for ledger, call in calls if ledger not in _hanging][::-1]
    answers: list[tuple[Ledger, Any]] = []
    while left:
        worker = _Worker(left)
        worker.run_to_end_or_hang()
        answers += worker.answers
    return answers


class _Worker:
    """A thread that makes calls until none is left, or until it is given up in a call that hangs.

    A biz owns the thread that hangs in its code, so that an uninstall ends the thread with the other threads of the
    biz.
    """

    def __init__(self, left: list[tuple[Ledger, Callable[[], Any]]]) -> None:
        self.answers: list[tuple[Ledger, Any]] = []
        self._left = left
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._inside: Ledger | None = None
        self._entry: Entry | None = None

    def run_to_end_or_hang(self) -> None:
        """Start the thread, and wait for the end of the calls, or give the thread up."""
        with as_base():  # the thread may outlive the caller
            thread = threading.Thread(target=self._work, name="koupleless-round", daemon=True)
            start_thread(thread)
        done = -1
        while not self._ended.wait(PATIENCE_S):
            with self._lock:
                if len(self.answers) == done and self._inside is not None:
                    self._give_up(self._inside, thread)
                    return
                done = len(self.answers)

    def _give_up(self, ledger: Ledger, thread: threading.Thread) -> None:
        self._entry = record_guest(ledger, thread)
        _hanging.add(ledger)
        self.answers.append((ledger, TimeoutError(f"no answer within {PATIENCE_S:g} s")))

    def _work(self) -> None:
        while self._left:
            ledger, call = self._left.pop()
            self._inside = ledger
            try:
                answer = call_merged(ledger.scope, call)
            except BaseException as error:  # noqa: BLE001 - code of a biz, which may raise SystemExit
                answer = error.with_traceback(None)
            del call
            with self._lock:
                if self._entry is not None:
                    ledger.forget(self._entry)
                    _hanging.discard(ledger)
                    return
                self.answers.append((ledger, answer))
                self._inside = None
            del ledger, answer
        self._ended.set()
