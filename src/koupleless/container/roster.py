"""The table of the bizs of one container, and every decision over the table.

A roster has no lock, runs no code of a biz, and touches neither disk nor network. The container calls the roster under
the lock of the container, and acts on the answers: the container swaps the routes, and stops lives after letting go of
the lock.

An identity has one entry in the table. Two more places are for versions that replace their own identity: an *incoming*
entry starts beside the entry in the table, an *outgoing* entry was replaced and has not stopped yet.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from koupleless.biz import BizState, ChangeReason, advance
from koupleless.descriptions import BizInfo, StateRecord
from koupleless.errors import BizNotFound, BizRepeated, IllegalMove, PathTaken
from koupleless.router.table import Route

if TYPE_CHECKING:
    from collections.abc import Container as Membership
    from collections.abc import Iterable, Sequence

    from koupleless.biz import BizId, BizName
    from koupleless.container.life import Life
    from koupleless.container.starting.prepare import Absent, Prepared
    from koupleless.container.terms import Rules
    from koupleless.router.gate import Gate
    from koupleless.router.table import RouteTable


@dataclass(slots=True, eq=False)
class Entry:
    """One registered biz. Fields change only under the lock of the container."""

    prepared: Prepared | Absent
    path: str
    """The path as the route table spells it."""
    order: int = 0
    """The place in the order of installs."""
    is_kept: bool = False
    """Whether the entry stays in the table as broken if the start fails, whatever the rules say."""
    life: Life | None = None
    state: BizState = BizState.UNRESOLVED
    records: list[StateRecord] = field(default_factory=list)
    is_superseded: bool = False
    """Whether another version has replaced this entry, to be removed by the entry's own running operation."""

    @property
    def id(self) -> BizId:
        """The identity."""
        return self.prepared.id

    @property
    def gate(self) -> Gate | None:
        """The gate of the current life; ``None`` for a biz without a web face, and without a life."""
        return None if self.life is None else self.life.gate

    def move(self, to: BizState, reason: ChangeReason, message: str = "") -> None:
        """Change the state, and record the change. Raises ``IllegalMove``."""
        self.state = advance(self.id, self.state, to)
        self.is_superseded &= to is not BizState.ACTIVATED
        self.records.append(StateRecord(time.time_ns() // 1_000_000, to, reason, message))

    def announce(self, message: str) -> None:
        """Record that the biz is about to leave, while the state stays."""
        self.records.append(StateRecord(time.time_ns() // 1_000_000, self.state, ChangeReason.KILLING, message))

    def info(self) -> BizInfo:
        """Return a snapshot."""
        libraries = () if self.life is None else self.life.libraries
        return self.prepared.describe(self.state, tuple(self.records), libraries)


class Withdrawal(NamedTuple):
    """The decision to stop one biz."""

    routes: RouteTable
    """Routes without the biz."""
    successor: Entry | None
    """Another version, which is active from now on."""


class Roster:
    """The bizs of one container.

    Lifetime: of the container. Threads: every method is called under the lock of the container. A method that raises
    has changed nothing, except `register`, which may keep a refused entry as broken.
    """

    def __init__(self, rules: Rules) -> None:
        self.bizs: dict[BizId, Entry] = {}
        """The table, in the order of registration. For reading."""
        self._rules = rules
        self._by_name: dict[BizName, dict[BizId, None]] = {}
        """Name -> identities in the table, in the order of registration."""
        self._incoming: dict[BizId, Entry] = {}
        self._outgoing: list[Entry] = []

    # --- questions -----------------------------------------------------------------------------------------------

    def entry(self, biz: BizId) -> Entry:
        """Look one entry up. Raises ``BizNotFound``."""
        try:
            return self.bizs[biz]
        except KeyError:
            raise BizNotFound(biz) from None

    def versions(self, name: BizName) -> list[Entry]:
        """List the entries of one name, in the order of registration."""
        return [self.bizs[biz] for biz in self._by_name.get(name, ())]

    def stoppable(self) -> list[Entry]:
        """List all entries that are to be stopped when the container ends, outgoing ones too."""
        return [entry for entry in (*self.bizs.values(), *self._outgoing) if entry.state.is_stoppable]

    # --- install -------------------------------------------------------------------------------------------------

    def admit(self, biz: BizId, *, beside: bool) -> None:
        """Raise ``BizRepeated`` if the identity is taken, except with ``beside``: then the entry is to be replaced."""
        if biz in self.bizs and not beside:
            raise BizRepeated(biz)

    def register(self, entry: Entry) -> None:
        """Put an admitted entry into the table, or beside the entry of the same identity, and reserve the path.

        Raises ``PathTaken`` for a path of another name. Then, under the rule ``keep_broken``, the entry stays in the
        table as broken if the identity was free.
        """
        owner = self._owner_of_path(entry)
        is_free = entry.id not in self.bizs
        if owner is not None:
            refusal = PathTaken(entry.id, entry.path or "/", owner.id)
            entry.move(BizState.BROKEN, ChangeReason.INSTALL_FAILED, str(refusal))
            if is_free and (self._rules.keep_broken or entry.is_kept):
                self._list(entry)
            raise refusal
        if is_free:
            self._list(entry)
        else:
            self._incoming[entry.id] = entry

    def commit(
        self, entry: Entry, routes: RouteTable, *, take_over: bool, answers: bool | None = None
    ) -> tuple[RouteTable | None, tuple[Entry, ...]]:
        """Give a started entry the final state, in one step that no request sees half done.

        Returns the new routes, ``None`` if another version goes on answering; and the other started or broken entries
        of the name. With ``take_over`` the entry answers whatever the rules say. ``answers``, if given, decides
        in the place of the rules, and no version yields except one on the same path.
        """
        versions = [other for other in self.versions(entry.id.name) if other is not entry]
        others = tuple(other for other in versions if other.state.is_stoppable)
        active = [other for other in versions if other.state is BizState.ACTIVATED]
        take_over = take_over or self._rules.activate_new
        will_answer = not active or take_over or self._rules.activate_many if answers is None else answers
        # Requests reach every active version: of several active versions each has a path of its own.
        yielding = active if take_over else [old for old in active if will_answer and _meet(old, entry)]
        # Only this call can fail, so the call comes first.
        changed = self._routed(routes, into=entry, away_from=yielding) if will_answer else None
        if will_answer:
            for old in yielding:
                old.move(BizState.DEACTIVATED, ChangeReason.SWITCHED, f"switch to new biz {entry.id}")
            message = f"switch from old biz: {yielding[0].id}" if yielding else ""
            entry.move(BizState.ACTIVATED, ChangeReason.STARTED, message)
        else:
            entry.move(BizState.DEACTIVATED, ChangeReason.STARTED, "start but is deactivated")
        if self._incoming.get(entry.id) is entry:
            del self._incoming[entry.id]
            self._outgoing.append(self.bizs[entry.id])
            self.bizs[entry.id] = entry
        return changed, others

    def fail(self, entry: Entry, message: str) -> None:
        """Record a failed start, or an artefact that is not there; a kept entry stays in the table as broken."""
        entry.life = None
        entry.move(BizState.BROKEN, ChangeReason.INSTALL_FAILED, message)
        if entry.is_kept and entry.id not in self.bizs:
            self._list(entry)
        if not (self._rules.keep_broken or entry.is_kept) or self.bizs.get(entry.id) is not entry:
            self.remove(entry)

    def supersede(self, others: Iterable[Entry]) -> None:
        """Mark entries for removal, except entries that have become active since."""
        for old in others:
            old.is_superseded = old.state is not BizState.ACTIVATED

    def take_superseded(self, biz: BizId) -> Entry | None:
        """Return an entry marked for removal, and take the mark off: a removal is tried once. Else return ``None``."""
        entry = self.bizs.get(biz)
        if entry is None or not entry.is_superseded:
            return None
        entry.is_superseded = False
        return entry

    # --- switch and uninstall ------------------------------------------------------------------------------------

    def switch(self, biz: BizId, routes: RouteTable) -> RouteTable | None:
        """Make a biz the version that answers by name and path; the active versions are deactivated.

        Returns the new routes; ``None`` if the biz is active already. Raises ``BizNotFound``, and ``IllegalMove`` for a
        biz that has not been started.
        """
        entry = self.entry(biz)
        if not entry.state.is_started:
            raise IllegalMove(biz, entry.state, BizState.ACTIVATED)
        if entry.state is not BizState.DEACTIVATED:
            return None
        active = [other for other in self.versions(biz.name) if other.state is BizState.ACTIVATED]
        changed = self._routed(routes, into=entry, away_from=active)
        for old in active:
            old.move(BizState.DEACTIVATED, ChangeReason.SWITCHED, f"switch to new version {biz}")
        message = f"switch from old version: {active[0].id}" if active else ""
        entry.move(BizState.ACTIVATED, ChangeReason.SWITCHED, message)
        return changed

    def withdraw(
        self, entry: Entry, routes: RouteTable, *, with_successor: bool = False, busy: Membership[BizId] = ()
    ) -> Withdrawal:
        """Take requests away from an entry that is about to stop. Raises ``IllegalMove`` if the entry cannot stop.

        With ``with_successor``, another version answers instead of an active entry: the last version that came, except
        versions with an identity in ``busy``.
        """
        if not entry.state.is_stoppable:
            raise IllegalMove(entry.id, entry.state, BizState.STOPPED)
        successor = self._successor_of(entry, busy) if with_successor else None
        changed = self._routed(routes, into=successor, away_from=[entry])
        if entry.state is BizState.ACTIVATED:
            entry.move(BizState.DEACTIVATED, ChangeReason.KILLING)
        if successor is not None:
            successor.move(BizState.ACTIVATED, ChangeReason.SWITCHED, f"switch from old version: {entry.id}")
        return Withdrawal(changed, successor)

    def remove(self, entry: Entry) -> None:
        """Forget an entry, wherever it is; a registered entry of the same identity takes its place. Idempotent."""
        if self._incoming.get(entry.id) is entry:
            del self._incoming[entry.id]
        if self.bizs.get(entry.id) is entry:
            del self.bizs[entry.id]
            versions = self._by_name[entry.id.name]
            del versions[entry.id]
            if not versions:
                del self._by_name[entry.id.name]
        if entry.id in self._incoming and entry.id not in self.bizs:
            self._put(self._incoming.pop(entry.id))
        if entry in self._outgoing:
            self._outgoing.remove(entry)

    # --- how decisions are made ----------------------------------------------------------------------------------

    def _owner_of_path(self, entry: Entry) -> Entry | None:
        """Find the biz of another name that has the path of ``entry``."""
        path, name = entry.path, entry.id.name
        for other in (*self.bizs.values(), *self._incoming.values()):
            if other.path == path and other.id.name != name and other.state is not BizState.BROKEN:
                return other
        return None

    def _successor_of(self, entry: Entry, busy: Membership[BizId]) -> Entry | None:
        others = [other for other in self.versions(entry.id.name) if other is not entry]
        if entry.state is not BizState.ACTIVATED or any(other.state is BizState.ACTIVATED for other in others):
            return None
        ready = [other for other in others if other.state is BizState.DEACTIVATED and other.life is not None]
        idle = [other for other in ready if other.id not in busy and not other.is_superseded]
        return max(idle, key=lambda other: other.order, default=None)

    def _list(self, entry: Entry) -> None:
        """Put an entry into the table, in order: modules from former times come back at the same time."""
        is_last = all(other.order < entry.order for other in self.bizs.values())
        self._put(entry)
        if not is_last:
            ordered = sorted(self.bizs.values(), key=lambda each: each.order)
            self.bizs.clear()
            self._by_name.clear()
            for each in ordered:
                self._put(each)

    def _put(self, entry: Entry) -> None:
        """Put an entry into the table, the last one."""
        self.bizs[entry.id] = entry
        self._by_name.setdefault(entry.id.name, {})[entry.id] = None

    def _routed(self, routes: RouteTable, *, into: Entry | None = None, away_from: Sequence[Entry] = ()) -> RouteTable:
        """Make routes that lead requests to ``into`` instead of the others; forward rules follow active versions.

        Of several active versions the first one answers, as for requests by name, and the next when the first leaves.
        """
        for entry in away_from:
            if entry.gate is not None:
                routes = routes.without(entry.gate)
            routes = routes.with_forwards(routes.forwards.without_module(str(entry.id)))
        candidates = [] if into is None else [into]
        for name in {entry.id.name for entry in away_from}:
            candidates += [other for other in self.versions(name) if other.state is BizState.ACTIVATED]
        for entry in candidates:
            if entry in away_from or entry.life is None:
                continue
            # A taken path is taken by another version of the name: paths were reserved at registration.
            if entry.gate is not None and routes.owner_of(entry.path) is None:
                routes = routes.with_route(Route.to(entry.gate, path=entry.path, biz=entry.id))
            routes = routes.with_forwards(routes.forwards.with_module(str(entry.id), entry.life.forwards))
        return routes


def _meet(one: Entry, other: Entry) -> bool:
    """Tell whether requests can reach only one of two started versions, since both answer on one path."""
    return one.path == other.path and one.gate is not None and other.gate is not None
