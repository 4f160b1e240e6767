"""The scope of a biz: facets that close themselves."""

from __future__ import annotations

import pytest

from koupleless.biz import BizId
from koupleless.context import Scope


class One: ...


class Two: ...


class Three: ...


@pytest.fixture
def scope() -> Scope:
    return Scope(BizId.parse("hello:1.0"))


def test_facets_are_closed_from_the_last_to_the_first_and_find_the_others_meanwhile(scope: Scope) -> None:
    closed: list[tuple[str, bool]] = []

    def closing(name: str, other: type) -> list[str]:
        closed.append((name, scope.find_facet(other) is not None))
        return []

    scope.attach(One(), close=lambda: closing("one", Three))
    scope.attach(Two())
    scope.attach(Three(), close=lambda: closing("three", One))

    assert scope.close() == []
    assert closed == [("three", True), ("one", True)]
    assert scope.is_closed
    assert scope.find_facet(Two) is None


def test_a_facet_that_fails_to_close_is_told_and_keeps_no_other_from_closing(scope: Scope) -> None:
    def fail(error: BaseException) -> None:
        raise error

    closed: list[str] = []
    scope.attach(One(), close=lambda: closed.append("one"))
    scope.attach(Two(), close=lambda: fail(SystemExit(3)))
    scope.attach(Three(), close=lambda: ["a handler was busy"])

    assert scope.close() == ["a handler was busy", "close Two: SystemExit: 3"]
    assert closed == ["one"]
    assert scope.is_closed


def test_a_facet_is_closed_once(scope: Scope) -> None:
    closed: list[str] = []
    scope.attach(One(), close=lambda: closed.append("one"))

    assert [*scope.close(), *scope.close()] == []
    assert closed == ["one"]
