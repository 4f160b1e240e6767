"""The news of a base: lists that are older than an operation do not undo what the operation has told."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tests.controller.world import BASE

from koupleless.controller.bases.knowledge import Knowledge
from koupleless.controller.vnodes.liveness import Liveness
from koupleless.controller.vpods.actual import State
from koupleless.controller.vpods.attempts import Verb
from koupleless.controller.vpods.module import ModuleKey

ORDERS, ORDERS_2 = ModuleKey("orders", "1"), ModuleKey("orders", "2")


def listed(*keys: ModuleKey, state: str = "ACTIVATED") -> list[dict[str, Any]]:
    return [{"bizName": key.name, "bizVersion": key.version, "bizState": state} for key in keys]


def states(news: Knowledge) -> dict[ModuleKey, State]:
    return {key: actual.state for key, actual in (news.actual or {}).items()}


@pytest.fixture
def news() -> Knowledge:
    made = Knowledge(BASE, Liveness(0))
    made.take_list(listed(ORDERS), asked=1)
    return made


def test_an_older_list_knows_nothing_of_an_uninstall(news: Knowledge) -> None:
    news.settle(Verb.UNINSTALL, ORDERS, now=5, at=100)
    news.take_list(listed(ORDERS), asked=4)
    assert states(news) == {}
    news.take_list(listed(ORDERS), asked=6)  # installed again, by somebody else
    assert states(news) == {ORDERS: State.ACTIVATED}


def test_the_install_of_a_second_version_is_over_with_the_next_list(news: Knowledge) -> None:
    news.settle(Verb.INSTALL, ORDERS_2, now=5, at=100)
    assert states(news) == {ORDERS: State.ACTIVATED, ORDERS_2: State.INSTALLING}
    news.take_list(listed(ORDERS), asked=4)
    assert states(news)[ORDERS_2] is State.INSTALLING
    news.take_list([*listed(ORDERS, state="DEACTIVATED"), *listed(ORDERS_2)], asked=6)
    assert states(news) == {ORDERS: State.DEACTIVATED, ORDERS_2: State.ACTIVATED}


def test_after_a_switch_the_other_version_answers_no_more_whatever_an_older_list_says(news: Knowledge) -> None:
    news.take_list([*listed(ORDERS), *listed(ORDERS_2, state="DEACTIVATED")], asked=2)
    news.settle(Verb.SWITCH, ORDERS_2, now=5, at=100)
    expected = {ORDERS: State.DEACTIVATED, ORDERS_2: State.ACTIVATED}
    assert states(news) == expected
    news.take_list([*listed(ORDERS), *listed(ORDERS_2, state="DEACTIVATED")], asked=4)
    assert states(news) == expected


def test_the_only_version_answers_once_it_is_installed() -> None:
    news = Knowledge(BASE, Liveness(0))
    news.take_list([], asked=1)
    news.settle(Verb.INSTALL, ORDERS, now=5, at=100)
    assert states(news) == {ORDERS: State.ACTIVATED}


def test_lists_that_overtake_each_other_are_taken_in_the_order_of_the_questions(news: Knowledge) -> None:
    news.take_list([], asked=3)
    assert not news.take_list(listed(ORDERS), asked=2)
    assert states(news) == {}


def test_a_restart_makes_the_modules_unknown(news: Knowledge) -> None:
    assert news.hear(replace(BASE, start="start-2"), 10)
    assert news.actual is None
    assert not news.hear(replace(BASE, start="start-2"), 20)


def test_an_unchanged_list_is_not_read_again(news: Knowledge, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: object) -> None:
        raise AssertionError("read again")

    monkeypatch.setattr("koupleless.controller.bases.knowledge.table_of", refuse)
    assert not news.take_list(listed(ORDERS), asked=2)
    with pytest.raises(AssertionError, match="read again"):
        news.take_list(listed(ORDERS, ORDERS_2), asked=3)


def test_the_list_from_before_an_operation_is_read_again_when_the_operation_is_undone(news: Knowledge) -> None:
    news.settle(Verb.UNINSTALL, ORDERS, now=5, at=100)
    assert news.take_list(listed(ORDERS), asked=6)
    news.forget()
    assert news.take_list(listed(ORDERS), asked=7)
    assert states(news) == {ORDERS: State.ACTIVATED}


def test_the_list_from_before_an_end_of_an_operation_counts_later(news: Knowledge) -> None:
    news.settle(Verb.UNINSTALL, ORDERS, now=5, at=100)
    assert not news.take_list(listed(ORDERS), asked=4) or not states(news)
    assert news.take_list(listed(ORDERS), asked=6)
    assert states(news) == {ORDERS: State.ACTIVATED}
