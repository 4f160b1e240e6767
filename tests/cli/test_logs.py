"""``arkctl logs`` against a real arklet."""

from __future__ import annotations

import json
import logging
import time
from typing import TYPE_CHECKING, cast

import pytest
from tests.arklet.conftest import FakeContainer

from koupleless.arklet.health import BaseMetadata
from koupleless.arklet.operations import Operations
from koupleless.arklet.server import ArkletServer
from koupleless.biz import BizId
from koupleless.view.logging.logbook import Logbook

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.cli.conftest import Outcome

    from koupleless.container.container import Container


@pytest.fixture
def logbook(tmp_path: Path) -> Logbook:
    return Logbook(directory=tmp_path / "logs")


@pytest.fixture
def logs(logbook: Logbook, arkctl: Callable[..., Outcome]) -> Iterator[Callable[..., Outcome]]:
    operations = Operations(cast("Container", FakeContainer()), BaseMetadata(identity="me"), logbook=logbook)
    server = ArkletServer(operations, port=0)
    port = server.start()
    yield lambda *arguments: arkctl("logs", *arguments, "--port", str(port))
    server.stop()
    operations.close()


def note(logbook: Logbook, name: str, message: str, level: int = logging.INFO) -> None:
    logbook.note(BizId.of(name, "1"), level, message)


def test_the_entries_of_one_module_or_of_all_are_printed(logbook: Logbook, logs: Callable[..., Outcome]) -> None:
    for name, message in (("shop", "one"), ("till", "two"), ("shop", "three\nwith more")):
        note(logbook, name, message)
        time.sleep(0.002)  # entries of several logs are in the order of their milliseconds
    note(logbook, "shop", "bad", logging.ERROR)
    assert [line.split(": ")[-1] for line in logs("shop").out.splitlines()] == ["one", "three", "with more", "bad"]
    assert [line.split(": ")[-1] for line in logs().out.splitlines()] == ["one", "two", "three", "with more", "bad"]
    assert logs("-n", "1").out.endswith("ERROR shop:1 koupleless: bad\n")
    assert len(logs("--level", "error").out.splitlines()) == 1
    assert len(logs("--since", "1h", "till").out.splitlines()) == 1
    (entry,) = map(json.loads, logs("till", "-o", "json").out.splitlines())
    assert (entry["bizName"], entry["text"].rpartition(": ")[2]) == ("till", "two")


def test_following_prints_what_comes(
    logbook: Logbook, logs: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    note(logbook, "shop", "before")
    coming = iter(["first", "second"])

    def pause(seconds: float) -> None:
        message = next(coming, None)
        if message is None:
            raise KeyboardInterrupt
        note(logbook, "shop", message)

    monkeypatch.setattr("time.sleep", pause)
    done = logs("shop", "-f")
    assert [line.split(": ")[-1] for line in done.out.splitlines()] == ["before", "first", "second"]
    assert done.status == 130


def test_one_version_and_the_life_before_are_printed(logbook: Logbook, logs: Callable[..., Outcome]) -> None:
    for message in ("installed in 1 ms", "uninstalled", "installed in 2 ms"):
        note(logbook, "shop", message)
    logbook.note(BizId.of("shop", "2"), logging.INFO, "other")
    assert logs("shop:2").out.endswith("shop:2 koupleless: other\n")
    assert len(logs("shop:2").out.splitlines()) == 1
    before = [line.split(": ")[-1] for line in logs("shop:1", "--previous", "-f").out.splitlines()]
    assert before == ["installed in 1 ms", "uninstalled"]
    assert "bizVersion is missing" in logs("shop", "--previous").err


def test_a_module_without_a_log_is_told_and_who_has_one(logbook: Logbook, logs: Callable[..., Outcome]) -> None:
    note(logbook, "till", "x")
    done = logs("shop")
    assert done.status == 1
    assert f"there is no log of shop in {logbook.directory}; there are logs of till" in done.err


@pytest.mark.parametrize("span", ["soon", "10 parsecs", "-1s", ""])
def test_a_span_that_is_none_is_refused(logs: Callable[..., Outcome], span: str) -> None:
    assert "is no span of time" in logs("--since", span).err


def test_a_level_that_is_none_is_refused_by_the_base() -> None:
    operations = Operations(cast("Container", FakeContainer()), BaseMetadata(identity="me"))
    answer = operations.handle("queryLogs", b'{"level": "loud"}')
    operations.close()
    assert "loud is no level" in (answer.message or "")
