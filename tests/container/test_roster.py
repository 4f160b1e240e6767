"""The decisions over the table of bizs, in any order, without a lock, a life or a request."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from koupleless.biz import BizId, BizState, ChangeReason
from koupleless.container.roster import Entry, Roster
from koupleless.container.terms import Rules
from koupleless.errors import BizNotFound, BizRepeated, IllegalMove, PathTaken
from koupleless.router.gateway import Forwards
from koupleless.router.table import RouteTable

NAMES = st.sampled_from(["shop", "desk"])
VERSIONS = st.sampled_from(["1", "2", "3"])
PATHS = st.sampled_from(["/a", "/b"])


def entry_of(name: str, version: str, path: str = "/a") -> Entry:
    entry = Entry(cast("Any", SimpleNamespace(id=BizId.of(name, version))), path)
    entry.move(BizState.RESOLVED, ChangeReason.CREATED)
    return entry


def started(entry: Entry, *, has_gate: bool = True) -> Entry:
    entry.life = cast("Any", SimpleNamespace(gate=object() if has_gate else None, forwards=Forwards(), libraries=()))
    return entry


class Operations(RuleBasedStateMachine):
    """A container without lives: the operations of several identities, in the steps that a container makes of them."""

    terms = Rules()

    def __init__(self) -> None:
        super().__init__()
        self.roster = Roster(self.terms)
        self.routes = RouteTable()
        self.starting: list[Entry] = []
        self.replaced: list[Entry] = []

    # --- what a container does -----------------------------------------------------------------------------------

    @rule(name=NAMES, version=VERSIONS, path=PATHS, beside=st.booleans())
    def register(self, name: str, version: str, path: str, *, beside: bool) -> None:
        entry = entry_of(name, version, path)
        if any(other.id == entry.id for other in self.starting):
            return  # one operation at a time for an identity
        before = dict(self.roster.bizs)
        try:
            self.roster.admit(entry.id, beside=beside)
            self.roster.register(entry)
        except BizRepeated:
            assert entry.id in before
            assert not beside
            assert self.roster.bizs == before
        except PathTaken:
            assert any(other.path == path and other.id.name != name for other in [*before.values(), *self.starting])
            assert entry.state is BizState.BROKEN
            assert (self.roster.bizs.get(entry.id) is entry) == (self.terms.keep_broken and entry.id not in before)
        else:
            self.starting.append(entry)

    @precondition(lambda self: self.starting)
    @rule(data=st.data(), take_over=st.booleans(), has_gate=st.booleans())
    def commit(self, data: st.DataObject, *, take_over: bool, has_gate: bool) -> None:
        entry = started(self.taken(data), has_gate=has_gate)
        before = self.roster.bizs.get(entry.id)
        if before is not entry and before is not None:
            take_over = data.draw(st.booleans())  # or the earlier life of the identity leaves first
            if not take_over:
                self.leave(before)
                assert self.roster.bizs[entry.id] is entry
                before = entry
        routes, others = self.roster.commit(entry, self.routes, take_over=take_over)
        self.routes = self.routes if routes is None else routes
        assert entry not in others
        assert self.roster.bizs[entry.id] is entry
        assert (entry.state is BizState.ACTIVATED) == (routes is not None)
        if take_over:
            assert entry.state is BizState.ACTIVATED
        if before is not entry and before is not None:
            self.replaced.append(before)

    @precondition(lambda self: self.starting)
    @rule(data=st.data())
    def fail(self, data: st.DataObject) -> None:
        entry = self.taken(data)
        is_beside = self.roster.bizs.get(entry.id) is not entry
        self.roster.fail(entry, "it did not start")
        assert (self.roster.bizs.get(entry.id) is entry) == (self.terms.keep_broken and not is_beside)

    @rule(name=NAMES, version=VERSIONS)
    def switch(self, name: str, version: str) -> None:
        biz = BizId.of(name, version)
        try:
            routes = self.roster.switch(biz, self.routes)
        except BizNotFound:
            assert biz not in self.roster.bizs
        except IllegalMove:
            assert not self.roster.bizs[biz].state.is_started
        else:
            self.routes = self.routes if routes is None else routes
            assert [other.id for other in self.roster.versions(biz.name) if other.state is BizState.ACTIVATED] == [
                biz
            ] or routes is None

    @rule(data=st.data(), with_successor=st.booleans())
    def stop(self, data: st.DataObject, *, with_successor: bool) -> None:
        idle = [entry for entry in self.roster.stoppable() if all(entry.id != other.id for other in self.starting)]
        if idle:
            self.leave(data.draw(st.sampled_from(idle)), with_successor=with_successor)

    def leave(self, entry: Entry, *, with_successor: bool = False) -> None:
        was_active = entry.state is BizState.ACTIVATED
        busy = {other.id for other in self.starting}
        routes, successor = self.roster.withdraw(entry, self.routes, with_successor=with_successor, busy=busy)
        self.routes, entry.life = routes, None
        entry.move(BizState.STOPPED, ChangeReason.STOPPED)
        self.roster.remove(entry)
        self.replaced = [other for other in self.replaced if other is not entry]
        if successor is not None:
            assert was_active
            assert with_successor
            assert successor.state is BizState.ACTIVATED
            assert successor.id not in busy

    def taken(self, data: st.DataObject) -> Entry:
        entry = data.draw(st.sampled_from(self.starting))
        self.starting.remove(entry)
        return entry

    # --- what holds at any time ----------------------------------------------------------------------------------

    @invariant()
    def requests_reach_active_bizs_and_no_others(self) -> None:
        gates = {id(route.gate): route for route in self.routes.routes}
        active = [entry for entry in self.roster.bizs.values() if entry.state is BizState.ACTIVATED]
        for route in self.routes.routes:
            (entry,) = (entry for entry in active if entry.gate is route.gate)
            assert (entry.id, entry.path) == (route.biz, route.path)
        for entry in active:
            assert entry.gate is None or id(entry.gate) in gates

    @invariant()
    def a_name_has_one_active_version_unless_the_rules_allow_more(self) -> None:
        for name in {entry.id.name for entry in self.roster.bizs.values()}:
            active = [entry for entry in self.roster.versions(name) if entry.state is BizState.ACTIVATED]
            assert len(active) <= 1 or self.terms.activate_many

    @invariant()
    def a_path_belongs_to_one_name(self) -> None:
        owners: dict[str, str] = {}
        for entry in [*self.roster.bizs.values(), *self.starting]:
            if entry.state is not BizState.BROKEN:
                assert owners.setdefault(entry.path, entry.id.name) == entry.id.name

    @invariant()
    def nothing_that_was_replaced_is_lost(self) -> None:
        assert all(any(entry is other for other in self.roster.stoppable()) for entry in self.replaced)

    def teardown(self) -> None:
        for entry in self.starting:
            self.roster.fail(entry, "the base is shutting down")
        for entry in self.roster.stoppable():
            self.leave(entry)
        assert self.routes.routes == ()
        assert self.roster.bizs == {}


@pytest.mark.parametrize(
    "rules",
    [
        Rules(),
        Rules(activate_new=True, keep_broken=True),
        Rules(activate_many=True, activate_next=True),
        Rules(activate_many=True, keep_broken=True),
    ],
    ids=str,
)
def test_decisions_in_any_order_keep_routes_and_states_together(rules: Rules) -> None:
    class Machine(Operations):
        terms = rules

    run_state_machine_as_test(Machine, settings=settings(max_examples=60, stateful_step_count=40, deadline=None))


def test_a_version_that_became_active_again_is_not_removed() -> None:
    roster, routes = Roster(Rules()), RouteTable()
    entries = [entry_of("shop", "1"), entry_of("shop", "2")]
    for entry in entries:
        roster.register(entry)
        changed, others = roster.commit(started(entry), routes, take_over=True)
        routes = changed or routes
    assert others == (entries[0],)
    roster.switch(entries[0].id, routes)
    roster.supersede(others)
    assert roster.take_superseded(entries[0].id) is None
    roster.supersede([entries[1]])
    assert roster.take_superseded(entries[1].id) is entries[1]
    assert roster.take_superseded(entries[1].id) is None, "a removal is tried once"
