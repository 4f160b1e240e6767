"""The book in which a container notes every change of modules, before and after the change.

A container without a state directory keeps a book in memory: a restart and a rollback need the artefact and the
arguments of an install.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from koupleless.errors import InvalidIdentity, StateUnwritable
from koupleless.state.desired import Desired, Version, Wanted
from koupleless.state.journal import read_records

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from koupleless.biz import BizId, BizName
    from koupleless.state.journal import Journal, Record

__all__ = ["Book", "Standing", "Version", "Wanted"]

logger = logging.getLogger("koupleless.state")

_SPARE: Final = 256
"""The number of records that a journal may have beyond four for each module, before the journal is rewritten."""


@dataclass(frozen=True, slots=True)
class Standing:
    """A snapshot of a book."""

    modules: tuple[Wanted, ...]
    """In the order of their installs."""
    active: frozenset[BizId]
    pending: tuple[Wanted, ...]
    before: tuple[Wanted, ...]
    """Versions that answered before, at most one for a name."""
    static: tuple[Wanted, ...] = ()
    """Modules of the settings, those that have left included."""

    def find(self, biz: BizId) -> Wanted | None:
        """Look a module up, a static one too; ``None`` without an install."""
        return next((each for each in (*self.modules, *self.static) if each.id == biz), None)

    def before_of(self, name: BizName) -> Wanted | None:
        """Return the former active version of a name."""
        return next((each for each in self.before if each.id.name == name), None)


class Book:
    """The desired modules of one base, in a journal or in memory.

    A new book is in memory, and open. Lifetime: of the container. Threads: any number; a call takes as long as the disk
    needs, and is made without the lock of the container.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._journal: Journal | None = None
        self._desired = Desired()
        self._static: dict[BizId, Wanted] = {}
        self._is_open = True
        self._is_behind = False
        """Whether the journal misses a record refused by the disk."""

    def load(self, journal: Journal) -> str:
        """Go on with the records of ``journal``, which belongs to the book from now on.

        Called at the start, before the first install. Nothing is noted until `open`, while modules come back. Returns
        a sentence for the operator about damage of the journal; empty for a whole journal.
        """
        with self._lock:
            self._journal, self._desired, self._is_open = journal, Desired(), False
            senseless = 0
            for record in journal.records:
                try:
                    self._desired.apply(record)
                except (KeyError, TypeError, ValueError, InvalidIdentity):
                    senseless += 1
        left_out = f"{senseless} records of the journal {journal.path} make no sense and were left out"
        return "; ".join(filter(None, (journal.notice, left_out if senseless else "")))

    def standing(self) -> Standing:
        """Return a snapshot."""
        with self._lock:
            desired = self._desired
            return Standing(
                tuple(desired.in_order()),
                frozenset(desired.active),
                tuple(sorted(desired.pending.values(), key=lambda wanted: wanted.order)),
                tuple(desired.before.values()),
                tuple(self._static.values()),
            )

    def digests(self) -> frozenset[str]:
        """Collect the digests of all artefacts for a later use."""
        with self._lock:
            return frozenset(self._desired.digests())

    def open(self, *, without: Iterable[BizId] = ()) -> None:
        """Note changes from now on, and first the end of the modules ``without``.

        Installs left pending by a former process stay pending, until an install of the same identity or `forget`.
        Never raises: a disk that refuses now is asked again before the next change.
        """
        with self._lock:
            self._is_open = True
            for biz in without:
                self._desired.apply({"do": "uninstall", "biz": str(biz)})
            if self._journal is not None:
                try:
                    self._rewrite()
                except OSError as error:
                    self._is_behind = True
                    logger.warning("%s", _unwritable("the start of the base", error))

    # --- changes ---------------------------------------------------------------------------------------------------

    def note_static(self, wanted: Wanted) -> int:
        """Remember a module that is not to come back from the journal, and return a new place in the order."""
        with self._lock:
            self._desired.last += 1
            self._static[wanted.id] = replace(wanted, order=self._desired.last)
            return self._desired.last

    def installing(self, wanted: Wanted) -> int:
        """Note an install before the begin, and return the place in the order.

        Raises ``StateUnwritable`` if the disk refuses: the install must not begin.
        """
        with self._lock:
            order = self._desired.last + 1
            record = {"do": "install", **replace(wanted, order=order).record()}
            self._write(record, f"the install of {wanted.id}")
            self._desired.last = order
            return order

    def leaving(self, biz: BizId) -> None:
        """Note an uninstall before the begin. Raises ``StateUnwritable``: the uninstall must not begin."""
        with self._lock:
            if biz in self._desired.modules:
                self._write({"do": "uninstall", "biz": str(biz)}, f"the uninstall of {biz}")

    def switching(self, biz: BizId) -> None:
        """Note a switch before the switch. Raises ``StateUnwritable``: the switch must not be made."""
        with self._lock:
            if biz in self._desired.modules:
                self._write({"do": "switch", "biz": str(biz)}, f"the switch to {biz}")

    def forget(self, biz: BizId) -> None:
        """Give up a pending install. Never raises."""
        with self._lock:
            self._settle(self._desired.standing(biz, _as_noted(self._desired, biz.name)))

    def settle(self, biz: BizId, versions: Callable[[], Sequence[Version] | None]) -> None:
        """Note how the versions of a name stand at the end of an operation on ``biz``. Never raises.

        ``versions`` is asked under the lock of the book, for the last answer to be noted last. ``None`` means that the
        base goes down: everything stays as noted, except the operation, which has failed.
        """
        with self._lock:
            if self._is_open:
                found = versions()
                stand = _as_noted(self._desired, biz.name) if found is None else found
                self._settle(self._desired.standing(biz, stand))

    def close(self) -> None:
        """Let go of the journal. Idempotent."""
        with self._lock:
            self._is_open = False
            if self._journal is not None:
                self._journal.close()

    # --- under the lock --------------------------------------------------------------------------------------------

    def _write(self, record: Record, what: str) -> None:
        """Note a change before the change, on the disk first. Raises ``StateUnwritable``."""
        if not self._is_open:
            return
        if self._journal is not None:
            try:
                if self._is_behind or len(self._journal) > 4 * len(self._desired.modules) + _SPARE:
                    self._rewrite()
                self._journal.append(record, is_durable=True)
            except OSError as error:
                raise _unwritable(what, error) from error
        self._desired.apply(record)

    def _settle(self, record: Record | None) -> None:
        """Note a change afterwards, without a wait for the disk: for a lost record an install is repeated."""
        if record is None:
            return
        self._desired.apply(record)
        if self._journal is not None and not self._is_behind:
            try:
                self._journal.append(record, is_durable=False)
            except OSError as error:
                self._is_behind = True
                logger.warning("%s; it is tried again with the next change", _unwritable("a change", error))

    def _rewrite(self) -> None:
        assert self._journal is not None
        self._journal.rewrite(self._desired.records())
        self._is_behind = False


def digests_in(path: Path) -> set[str]:
    """Collect the digests that a journal names, of a base that runs or not, without a change of the file.

    Empty for a file that cannot be read.
    """
    desired = Desired()
    for record in read_records(path):
        with contextlib.suppress(KeyError, TypeError, ValueError, InvalidIdentity):
            desired.apply(record)
    return desired.digests()


def _as_noted(desired: Desired, name: BizName) -> list[Version]:
    """The versions of a name according to the notes."""
    return [
        Version(each.id, each.order, is_started=True, is_active=each.id in desired.active)
        for each in desired.versions(name)
    ]


def _unwritable(change: str, error: OSError) -> StateUnwritable:
    return StateUnwritable(change, error.strerror or str(error))
