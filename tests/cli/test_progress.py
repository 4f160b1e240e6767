"""What is shown of steps that take longer than a moment, on a terminal and elsewhere."""

from __future__ import annotations

import io
import threading
import time
from typing import TYPE_CHECKING

import pytest
from tests.cli.conftest import biz, failed, installed, succeeded
from tests.conftest import until

from koupleless.cli.showing import progress as module
from koupleless.cli.showing.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.cli.conftest import FakeArklet, Outcome

    Arkctl = Callable[..., Outcome]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def moment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOMENT_S", 0.05)
    monkeypatch.setattr(module, "_TURN_S", 0.01)


def shown(stream: io.StringIO, text: str) -> None:
    until(lambda: text in stream.getvalue(), 10, otherwise=f"{text} is not shown")


def test_each_long_step_is_a_line_where_nothing_moves() -> None:
    stream = io.StringIO()
    with Progress(stream) as progress:
        progress.begin("resolving")
        shown(stream, "resolving")
        progress.begin("resolving")
        progress.begin("packing")
        shown(stream, "packing")
    assert stream.getvalue() == "resolving\npacking\n"


def test_a_moving_line_is_gone_at_the_end() -> None:
    stream = Terminal()
    with Progress(stream) as progress:
        progress.begin("resolving")
        shown(stream, "- resolving (0 s)")
        shown(stream, "| resolving (0 s)")
        progress.begin("packing")
        shown(stream, "packing (0 s)")
    assert stream.getvalue().endswith("\r\033[2K")
    assert "\n" not in stream.getvalue()


def test_a_detail_moves_on_a_terminal_and_is_left_out_elsewhere() -> None:
    stream, lines = Terminal(), io.StringIO()
    with Progress(stream) as progress, Progress(lines) as elsewhere:
        for detail in ("", "dep.whl, 0.5 of 3.0 MB", f"{'a' * 200}.whl, 2.5 of 3.0 MB"):
            progress.begin("downloading", detail)
            elsewhere.begin("downloading", detail)
            shown(stream, detail[-22:])
        shown(stream, "aaa...aaaa")
        shown(lines, "downloading")
        elsewhere.begin("packing")
        shown(lines, "packing")
    assert lines.getvalue() == "downloading\npacking\n"
    assert max(map(len, stream.getvalue().split("\r\033[2K"))) < 120


def test_short_steps_and_silent_ones_are_not_shown() -> None:
    stream = io.StringIO()
    with Progress(stream) as progress:
        progress.begin("resolving")
    with Progress(stream, is_silent=True) as progress:
        progress.begin("resolving")
        time.sleep(0.1)
    with Progress(stream):
        pass
    assert stream.getvalue() == ""
    assert "progress" not in [thread.name for thread in threading.enumerate()]


def slowly(arklet: FakeArklet, answers: int, result: object) -> Callable[[object], object]:
    """An install that is answered after so many questions beside it."""

    def install(_: object) -> object:
        until(lambda: arklet.commands.count("queryAllBiz") >= answers, 20, otherwise="nobody asks")
        return result

    return install


def test_the_steps_in_the_base_are_told(
    arkctl: Arkctl, arklet: FakeArklet, hello_zip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("koupleless.cli.deploying.following._FIRST_S", 0.2)
    old, new = biz("hello", "0.9"), biz("hello", "1.0.0")
    arklet.says(
        "queryAllBiz",
        succeeded([old]),
        succeeded([old, {**new, "bizState": "RESOLVED"}]),
        succeeded([{**old, "bizState": "DEACTIVATED"}, new]),
    )
    arklet.says("installBiz", slowly(arklet, 4, installed("hello", "1.0.0")))
    outcome = arkctl("deploy", hello_zip, "--port", arklet.port, "--strategy", "install-only")
    assert outcome.status == 0, outcome.err
    lines = outcome.err.splitlines()
    assert "the base checks and unpacks hello" in lines
    assert "hello is started" in lines
    assert "hello answers; the version before 0.9 finishes its requests, and leaves" in lines
    arklet.calls.clear()

    def refuse(_: object) -> object:
        time.sleep(0.5)
        return failed("FAILED", "no")

    arklet.says("installBiz", refuse)
    outcome = arkctl("deploy", hello_zip, "--port", arklet.port, "--strategy", "install-only", "-o", "json")
    assert "the base" not in outcome.err
    assert arklet.commands[0] == "installBiz"


def test_an_interrupted_install_says_how_to_follow_it(
    arkctl: Arkctl, arklet: FakeArklet, hello_zip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("koupleless.cli.deploying.deploy.Deployment._install", interrupt)
    outcome = arkctl("deploy", hello_zip, "--port", arklet.port)
    assert outcome.status == 130
    assert "the base may go on with the install of hello: arkctl status" in outcome.err
    arklet.says("cancelBiz", succeeded({"code": "SUCCESS", "message": ""}))
    assert "the install of hello was cancelled" in arkctl("deploy", hello_zip, "--port", arklet.port).err
    assert arklet.calls[-1] == ("cancelBiz", {"bizName": "hello"})
