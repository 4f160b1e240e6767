"""The table that joins states to the health of a base."""

from __future__ import annotations

import itertools

import pytest

from koupleless.biz import BizId, BizState, ChangeReason
from koupleless.descriptions import BizInfo, StateRecord
from koupleless.health.readiness import Readiness, Status, first_of, joined, status_of, worst
from koupleless.health.watch import LoopWatch

UP, DOWN, UNKNOWN, OUT = Status.UP, Status.DOWN, Status.UNKNOWN, Status.OUT_OF_SERVICE


@pytest.mark.parametrize(
    ("base", "modules", "without", "with_modules"),
    [
        (UNKNOWN, [], UNKNOWN, UNKNOWN),
        (UP, [], UP, UP),
        (DOWN, [], DOWN, DOWN),
        (UNKNOWN, [UP], UNKNOWN, UNKNOWN),
        (UP, [UP, UP], UP, UP),
        (UP, [UP, UNKNOWN], UP, UNKNOWN),
        (UP, [UP, DOWN], UP, DOWN),
        (UP, [UNKNOWN, DOWN], UP, UNKNOWN),
        (DOWN, [UP], DOWN, DOWN),
        (DOWN, [UNKNOWN], DOWN, UNKNOWN),
    ],
)
def test_base_and_modules_are_joined_as_in_the_original(
    base: Status, modules: list[Status], without: Status, with_modules: Status
) -> None:
    for order in itertools.permutations(modules):
        assert joined(base, order, with_modules=False) is without
        assert joined(base, order, with_modules=True) is with_modules


@pytest.mark.parametrize(
    ("found", "worst_one", "first_one"),
    [
        ([], UP, UNKNOWN),
        ([UP], UP, UP),
        ([UNKNOWN], UNKNOWN, UNKNOWN),
        ([UP, UNKNOWN], UNKNOWN, UP),
        ([UP, UNKNOWN, DOWN], DOWN, DOWN),
        ([OUT, UP], UP, OUT),
    ],
)
def test_down_wins_in_both_orders(found: list[Status], worst_one: Status, first_one: Status) -> None:
    assert (worst(found), first_of(found)) == (worst_one, first_one)


def biz(state: BizState, reason: ChangeReason | None = None, name: str = "shop") -> BizInfo:
    records = () if reason is None else (StateRecord(0, state, reason),)
    return BizInfo(BizId.of(name, "1"), state, "app:app", records=records)


@pytest.mark.parametrize(
    ("info", "status"),
    [
        (biz(BizState.UNRESOLVED), UNKNOWN),
        (biz(BizState.RESOLVED, ChangeReason.CREATED), UNKNOWN),
        (biz(BizState.ACTIVATED, ChangeReason.STARTED), UP),
        (biz(BizState.DEACTIVATED, ChangeReason.SWITCHED), UP),
        (biz(BizState.ACTIVATED, ChangeReason.KILLING), DOWN),
        (biz(BizState.DEACTIVATED, ChangeReason.KILLING), DOWN),
        (biz(BizState.BROKEN, ChangeReason.INSTALL_FAILED), DOWN),
        (biz(BizState.STOPPED, ChangeReason.STOPPED), DOWN),
    ],
)
def test_a_module_is_up_from_its_start_to_the_decision_that_it_leaves(info: BizInfo, status: Status) -> None:
    assert status_of(info) is status


class Source:
    """A container with changing modules."""

    def __init__(self) -> None:
        self.base = BizInfo.of_base(BizId.of("base", "1"))
        self.watch = LoopWatch()
        self.there: list[BizInfo] = []

    def bizs(self) -> tuple[BizInfo, ...]:
        return tuple(self.there)

    def scope_of(self, _: BizId) -> None:
        return None


def never(*_: object, **__: object) -> object:
    raise AssertionError("there are no checks")


def test_readiness_follows_every_event_also_those_that_the_original_forgot() -> None:
    source = Source()
    readiness = Readiness(source, never, with_modules=True)
    assert (readiness.is_ready(), readiness.start_up()) == (False, UNKNOWN)
    readiness.base = UP
    assert readiness.is_ready()
    steps = [
        ([biz(BizState.RESOLVED)], False),
        ([biz(BizState.ACTIVATED)], True),
        ([biz(BizState.ACTIVATED), biz(BizState.BROKEN, name="till")], False),
        ([biz(BizState.ACTIVATED)], True),  # the broken one was removed
        ([biz(BizState.ACTIVATED, ChangeReason.KILLING)], False),
        ([], True),  # after the uninstall
    ]
    for there, is_ready in steps:
        source.there = there
        assert readiness.is_ready() is is_ready
    readiness.base = DOWN
    assert not readiness.is_ready()


def test_a_loop_that_is_held_for_a_minute_is_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    readiness = Readiness(Source(), never)
    assert readiness.is_alive()
    monkeypatch.setattr(LoopWatch, "lag_s", 61.0)
    assert not readiness.is_alive()
