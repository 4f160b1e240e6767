"""A module's own checks: called as the module, with a deadline, and gone with the module."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from tests.conftest import until

import koupleless
from koupleless.container.surroundings import Deadlines
from koupleless.health.readiness import Readiness, Status

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from koupleless.biz import BizId
    from koupleless.container.host import Host

HEAD = "import asyncio, sys, time\nimport koupleless\nfrom koupleless import health_check\n"


@pytest.fixture
def readiness(plain: Host, monkeypatch: pytest.MonkeyPatch) -> Readiness:
    monkeypatch.setattr("koupleless.health.readiness.FRESH_S", 0.0)
    made = Readiness(plain.container, plain.stage.call_as)
    made.base = Status.UP
    return made


def checks_of(readiness: Readiness, biz: BizId) -> dict[str, tuple[bool, dict[str, Any]]]:
    return {name: (one.is_up, dict(one.details)) for name, one in readiness.modules()[biz].checks.items()}


def test_checks_of_all_kinds_are_called_as_their_module(
    plain: Host, put: Callable[..., BizId], readiness: Readiness
) -> None:
    biz = put(
        f"""{HEAD}
@health_check
def plain():
    return None

@health_check(name="database")
async def ask():
    await asyncio.sleep(0)
    return {{"who": koupleless.current_biz(), "connections": 3}}

@health_check
def refusing():
    return False

@health_check
def failing():
    raise LookupError("no disk")

@health_check
async def exiting():
    sys.exit(3)

@health_check
def leaving():
    sys.exit(3)

class Unspeakable:
    def __str__(self):
        raise RuntimeError("unspeakable")

@health_check
def hostile():
    return {{1: Unspeakable()}}
"""
    )
    found = checks_of(readiness, biz)
    assert found["plain"] == (True, {})
    assert found["database"] == (True, {"who": "shop:1", "connections": 3})
    assert found["refusing"] == (False, {})
    assert found["failing"] == (False, {"error": "LookupError: no disk"})
    assert not found["exiting"][0]
    assert found["leaving"] == (False, {"error": "SystemExit: 3"})
    assert found["hostile"] == (False, {"error": "RuntimeError: unspeakable"})
    assert readiness.modules()[biz].status is readiness.overall() is Status.DOWN
    assert readiness.start_up() is Status.UP  # states alone decide about readiness
    assert plain.container.uninstall(biz).clean
    assert readiness.overall() is Status.UP


@pytest.mark.parametrize("kind", ["def", "async def"])
def test_a_check_that_hangs_is_down_is_not_called_twice_and_leaves(
    plain: Host, put: Callable[..., BizId], readiness: Readiness, kind: str
) -> None:
    wait = "time.sleep(1000)" if kind == "def" else "await asyncio.sleep(1000)"
    biz = put(f"{HEAD}\n@health_check(timeout=0.1)\n{kind} hanging():\n    {wait}\n")
    begun = time.monotonic()
    assert checks_of(readiness, biz)["hanging"] == (False, {"error": "no answer within 0.1 s"})
    assert time.monotonic() - begun < 5
    again = checks_of(readiness, biz)["hanging"][1]["error"]
    assert again == ("the call before has not ended after 0 s" if kind == "def" else "no answer within 0.1 s")
    checking = [thread for thread in threading.enumerate() if thread.name.startswith("health check")]
    assert len(checking) == (kind == "def")
    report = plain.container.uninstall(biz)
    assert report.clean
    assert len(report.ended) == (kind == "def")  # the thread is interrupted


def test_the_answers_are_fresh_for_a_moment_for_whoever_asks(
    put: Callable[..., BizId], readiness: Readiness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("koupleless.health.readiness.FRESH_S", 0.2)
    biz = put(
        f"{HEAD}\ncalls = []\n@health_check\ndef counting():\n    calls.append(1)\n    return {{'n': len(calls)}}\n"
    )
    threads = [threading.Thread(target=readiness.modules) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert checks_of(readiness, biz)["counting"] == (True, {"n": 1})
    until(lambda: checks_of(readiness, biz)["counting"] == (True, {"n": 2}), 10)


def test_a_later_check_of_a_name_replaces_the_earlier(put: Callable[..., BizId], readiness: Readiness) -> None:
    biz = put(f"{HEAD}\nhealth_check(name='x')(lambda: False)\nhealth_check(name='x')(lambda: True)\n")
    assert checks_of(readiness, biz) == {"x": (True, {})}


def test_in_the_base_a_check_is_a_function_as_any_other() -> None:
    def check() -> bool:
        return False

    assert koupleless.health_check(check) is check
    assert koupleless.health_check(name="x", timeout=1)(check) is check


class TestSilence:
    @pytest.fixture
    def deadlines(self) -> Deadlines:
        return Deadlines(stop_s=2.0, silence_s=0.4)

    def test_a_module_serves_on_while_probes_say_that_it_leaves(self, plain: Host, put: Callable[..., BizId]) -> None:
        readiness = Readiness(plain.container, plain.stage.call_as, with_modules=True)
        readiness.base = Status.UP
        biz = put("")
        assert readiness.is_ready()
        leaving = threading.Thread(target=plain.container.uninstall, args=(biz,))
        begun = time.monotonic()
        leaving.start()
        until(lambda: not readiness.is_ready(), 5)
        assert plain.front.table.owner_of("/shop") == biz
        leaving.join(20)
        assert time.monotonic() - begun >= 0.4
        assert readiness.is_ready()

    def test_the_end_of_the_base_ends_the_silence(self, plain: Host, put: Callable[..., BizId]) -> None:
        biz = put("")
        object.__setattr__(plain.container._around.deadlines, "silence_s", 60.0)
        leaving = threading.Thread(target=plain.container.uninstall, args=(biz,))
        leaving.start()
        until(lambda: plain.container.find(biz).records[-1].message.startswith("serves"), 5)
        plain.container.shut()
        leaving.join(20)
        assert not leaving.is_alive()


def test_the_latest_health_is_told_at_once_and_asked_for_in_the_background(
    plain: Host, put: Callable[..., BizId], readiness: Readiness, tmp_path: Path
) -> None:
    answer = tmp_path / "answer"
    without = put("STARTED = True\n", name="without")
    biz = put(
        f"""{HEAD}
from pathlib import Path
ANSWER = Path({str(answer)!r})

@health_check(timeout=20)
def slow():
    while not ANSWER.exists():
        time.sleep(0.005)
    return ANSWER.read_text() == "up"
"""
    )
    for _ in range(50):
        assert readiness.latest() == {biz: Status.UP, without: Status.UP}  # nobody has answered yet
    answer.write_text("down")
    until(lambda: readiness.latest() == {biz: Status.DOWN, without: Status.UP})
    answer.write_text("up")
    until(lambda: readiness.latest()[biz] is Status.UP)
    readiness.close()
    assert readiness.latest()[biz] is Status.UP  # the base ends, and nobody is asked any more
