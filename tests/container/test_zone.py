"""A module whose time zone is another one than that of the process is told when it starts."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.container.conftest import World


@pytest.fixture(autouse=True)
def _utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "UTC")
        time.tzset()
        yield
    time.tzset()


def test_the_zone_of_an_install_is_told_in_the_reply_and_in_the_log(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, logger="koupleless"):
        (told,) = world.install("plain-1.0", envs={"TZ": "America/Chicago"}).warnings
    assert told.startswith("the time zone of the biz is 'America/Chicago' (TZ), but local times")
    assert [record.getMessage() for record in caplog.records] == [f"biz plain:1.0: {told}"]


def test_a_module_of_the_same_zone_is_told_nothing(world: World) -> None:
    assert world.install("plain-1.0", envs={"TZ": "Etc/UTC"}).warnings == ()
