"""The time zone of a biz: whether it is that of the process, and what the biz is told if not."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import pytest

from koupleless.context import Scope, entered
from koupleless.view.shared.zone import is_of_process, other_zone

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    MakeBiz = Callable[..., Scope]

pytestmark = pytest.mark.usefixtures("with_environ")


@pytest.fixture(params=["UTC", "Europe/Berlin", None])
def zone(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str | None]:
    """That of the process."""
    with monkeypatch.context() as patch:
        if request.param is None:
            patch.delenv("TZ", raising=False)
        else:
            patch.setenv("TZ", request.param)
        time.tzset()
        yield request.param
    time.tzset()


def test_a_biz_without_a_zone_of_its_own_is_told_nothing(make_biz: MakeBiz, zone: str | None) -> None:
    with entered(make_biz()):
        assert is_of_process()
        assert other_zone() is None


def test_another_zone_is_told_with_what_to_do(make_biz: MakeBiz, zone: str | None) -> None:
    with entered(make_biz(envs={"TZ": "Asia/Tokyo"})):
        told = other_zone()
    assert told is not None
    assert "the time zone of the biz is 'Asia/Tokyo' (TZ)" in told
    assert f"those of the process, {zone or 'UTC'}; start the base with TZ=Asia/Tokyo" in told


@pytest.mark.parametrize(
    ("process", "mine", "is_same"),
    [
        ("UTC", "Etc/UTC", True),
        ("UTC", ":UTC", True),
        ("Europe/Berlin", "Europe/Paris", True),
        ("UTC", "Europe/London", False),  # in summer
        ("UTC", "Nowhere/Never", False),
        ("UTC", "CET-1CEST", False),
    ],
)
def test_another_name_of_the_same_offsets_is_the_same_zone(
    make_biz: MakeBiz, monkeypatch: pytest.MonkeyPatch, process: str, mine: str, is_same: bool
) -> None:
    with monkeypatch.context() as patch:
        patch.setenv("TZ", process)
        time.tzset()
        with entered(make_biz()):
            os.environ["TZ"] = mine
            assert is_of_process() is is_same
    time.tzset()
