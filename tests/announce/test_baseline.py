"""The order of the origins of modules: static modules, then the controller's baseline, then the journal."""

from __future__ import annotations

import functools
import threading
from typing import TYPE_CHECKING, Any

import pytest
from tests.conftest import until
from tests.state.conftest import Lasting, make_module

from koupleless.announce.announcer import Announcer
from koupleless.announce.baseline import Baseline
from koupleless.announce.controller import Controller
from koupleless.arklet.health import BaseMetadata
from koupleless.arklet.operations import Operations
from koupleless.container.starting.environment import Variables
from koupleless.container.terms import Place, Rules, Strategy
from koupleless.replay import replay
from koupleless.wire.announcements import decode_baseline
from koupleless.wire.envelope import ReplyInvalid
from koupleless.wire.requests import InstallBiz

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from tests.controllers import FakeController

METADATA = BaseMetadata(identity="10.0.0.7", name="shop", version="1.2")


class Wanting(Lasting):
    """A base without a server that starts as a whole one does: static modules, baseline, journal."""

    def __init__(self, directory: Path, **options: Any) -> None:
        super().__init__(directory, **options)
        self.operations = Operations(self.container, METADATA)
        self.baseline = Baseline(self.container, self.operations)
        self.announcer: Announcer | None = None

    def start(self, *, static: Sequence[Path] = (), wanted: Sequence[InstallBiz] = ()) -> Wanting:
        for path in static:
            self.install(path, place=Place(is_kept=False))
        replay(self.container, wishes=self.baseline.wishes(wanted))
        self.reply = self.baseline.bring(wanted)
        return self

    def start_with(self, controller: FakeController, *, patience_s: float = 20) -> Announcer:
        self.announcer = Announcer(
            METADATA, self.baseline, controller=Controller.of(controller.url), patience_s=patience_s
        )
        self.announcer.ask()
        wanted = self.announcer.wanted()
        self.start(wanted=wanted)
        self.announcer.begin(1238)
        return self.announcer

    def end(self) -> None:
        if self.announcer is not None:
            self.announcer.close()
        self.operations.close()
        super().end()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Wanting]]:
    running: list[Wanting] = []

    def make(**options: Any) -> Wanting:
        if running:
            running.pop().end()
        running.append(Wanting(tmp_path / "state", **options))
        return running[-1]

    yield make
    for each in running:
        each.end()


@pytest.fixture
def module(tmp_path: Path) -> Callable[..., Path]:
    return functools.partial(make_module, tmp_path)


def wish(path: Path | str, identity: str) -> InstallBiz:
    url = path if isinstance(path, str) else path.as_uri()
    name, _, version = identity.partition(":")
    return InstallBiz(biz_name=name, biz_version=version, biz_url=url)


def in_wire(*wishes: InstallBiz) -> list[dict[str, Any]]:
    return [each.describe() for each in wishes]


def test_wanted_modules_are_installed_beside_those_of_former_times(
    start: Callable[..., Wanting], module: Callable[..., Path]
) -> None:
    start().start().install(module("old:1"))

    base = start().start(wanted=[wish(module("new:1"), "new:1")])

    assert base.states() == [("old:1", "ACTIVATED"), ("new:1", "ACTIVATED")]
    assert base.reply.is_success


def test_a_wanted_version_comes_in_the_place_of_the_one_of_former_times(
    start: Callable[..., Wanting], module: Callable[..., Path]
) -> None:
    start().start().install(module("shop:1"))

    base = start().start(wanted=[wish(module("shop:2"), "shop:2")])
    assert base.states() == [("shop:2", "ACTIVATED")]
    assert base.get("/shop/") == "shop:2"

    assert start().start().states() == [("shop:2", "ACTIVATED")]  # the journal has it so, from now on


def test_a_wanted_version_of_former_times_comes_from_the_store_and_answers(
    start: Callable[..., Wanting], module: Callable[..., Path]
) -> None:
    code = "import sys\ndef app(environ, start): start('200 OK', []); return [repr(sys.argv[1:]).encode()]\n"
    base = start().start()
    base.install(module("shop:1"))
    path = module("shop:2", code)
    base.container.install(base.container.prepare(path.as_uri()), args=["--stock", "7"])
    assert base.states() == [("shop:1", "ACTIVATED"), ("shop:2", "DEACTIVATED")]
    path.unlink()

    again = start().start(wanted=[wish(path, "shop:2")])

    assert again.states() == [("shop:2", "ACTIVATED")]
    assert again.get("/shop/") == "['--stock', '7']"


def test_the_same_version_from_another_place_is_fetched_there(
    start: Callable[..., Wanting], module: Callable[..., Path], tmp_path: Path
) -> None:
    start().start().install(module("shop:1"))
    (tmp_path / "other").mkdir()
    other = make_module(tmp_path / "other", "shop:1", "def app(e, s): s('200 OK', []); return [b'other']\n")

    base = start().start(wanted=[wish(other, "shop:1")])

    assert base.states() == [("shop:1", "ACTIVATED")]
    assert base.get("/shop/") == "other"


def test_several_wanted_versions_of_one_name_stand_beside_each_other(
    start: Callable[..., Wanting], module: Callable[..., Path]
) -> None:
    start().start().install(module("shop:0"))

    base = start().start(wanted=[wish(module("shop:1"), "shop:1"), wish(module("shop:2"), "shop:2")])

    assert sorted(identity for identity, _ in base.states()) == ["shop:1", "shop:2"]
    assert base.get("/shop/") in ("shop:1", "shop:2")


def test_static_modules_are_stronger_than_the_baseline(
    start: Callable[..., Wanting], module: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    start().start().install(module("shop:3"))
    wanted = [wish(module("shop:2"), "shop:2"), wish(module("new:1"), "new:1")]

    base = start().start(static=[module("shop:1")], wanted=wanted)

    assert base.states() == [("shop:1", "ACTIVATED"), ("new:1", "ACTIVATED")]
    assert "shop:2, which the controller wants, is not installed: the settings of the base name another" in caplog.text
    entries = base.reply.data.biz_url_to_response
    assert {entry.biz_infos[0].biz_name: entry.biz_infos[0].biz_state.value for entry in entries.values()} == {
        "shop": "BROKEN",
        "new": "ACTIVATED",
    }
    assert not base.reply.is_success


def test_a_wanted_static_version_is_there(start: Callable[..., Wanting], module: Callable[..., Path]) -> None:
    path = module("shop:1")
    base = start().start(static=[path], wanted=[wish(path, "shop:1")])

    assert base.states() == [("shop:1", "ACTIVATED")]
    (entry,) = base.reply.data.biz_url_to_response.values()
    assert entry.code.value == "REPEAT_BIZ"
    assert entry.biz_infos[0].biz_state.value == "ACTIVATED"


def test_a_wanted_module_that_cannot_be_had_keeps_no_other_away(
    start: Callable[..., Wanting], module: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    start().start().install(module("old:1"))
    broken = module("broken:1", "raise RuntimeError('the database is away')")
    wanted = [wish("file:///nowhere.zip", "gone:1"), wish(broken, "broken:1"), wish(module("new:1"), "new:1")]

    base = start(rules=Rules(keep_broken=True)).start(wanted=wanted)

    assert sorted(base.states()) == [("broken:1", "BROKEN"), ("new:1", "ACTIVATED"), ("old:1", "ACTIVATED")]
    assert "2 of 3 modules that the controller wants are not there" in caplog.text
    entries = base.reply.data.biz_url_to_response
    assert all(len(entry.biz_infos) == 1 for entry in entries.values())  # the original controller dies of none


def test_an_install_that_had_not_ended_gives_way_to_the_wanted_version(
    start: Callable[..., Wanting], module: Callable[..., Path]
) -> None:
    base = start().start()
    prepared = base.container.prepare(str(module("shop:1")))
    base.container.book.installing(base.container._wanted(prepared, (), Variables({}, None), Strategy.INSTALL_ONLY))

    assert start().start(wanted=[wish(module("shop:2"), "shop:2")]).states() == [("shop:2", "ACTIVATED")]


# --- asked for over HTTP ---------------------------------------------------------------------------------------------


def test_the_controller_is_asked_by_who_the_base_is(
    start: Callable[..., Wanting], module: Callable[..., Path], controller: FakeController
) -> None:
    controller.baseline = in_wire(wish(module("shop:1"), "shop:1"))
    base = start()
    base.start_with(controller)

    assert base.states() == [("shop:1", "ACTIVATED")]
    asked = controller.next("/queryBaseline").body
    assert asked == {"identity": "10.0.0.7", "name": "shop", "version": "1.2", "clusterName": "default"}


def test_an_answer_that_comes_too_late_is_brought_into_the_serving_base(
    start: Callable[..., Wanting], module: Callable[..., Path], controller: FakeController
) -> None:
    start().start().install(module("shop:1"))
    controller.baseline = in_wire(wish(module("shop:2"), "shop:2"), wish(module("new:1"), "new:1"))
    controller.holding.clear()

    base = start()
    base.start_with(controller, patience_s=0.1)
    assert base.states() == [("shop:1", "ACTIVATED")]

    controller.holding.set()
    until(lambda: sorted(base.states()) == [("new:1", "ACTIVATED"), ("shop:2", "ACTIVATED")])
    assert base.get("/shop/") == "shop:2"


def test_a_controller_that_is_away_delays_no_start_and_is_asked_when_it_is_back(
    start: Callable[..., Wanting],
    module: Callable[..., Path],
    controller: FakeController,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("koupleless.announce.query.PERIOD_S", 0.05)
    monkeypatch.setattr("koupleless.announce.fortune._dice.uniform", lambda *_: 0.05)
    controller.status = 503
    controller.baseline = in_wire(wish(module("new:1"), "new:1"))

    base = start()
    base.start_with(controller, patience_s=60)
    assert base.states() == []

    controller.status = 200
    until(lambda: base.states() == [("new:1", "ACTIVATED")])


@pytest.mark.parametrize("status", [404, 405])
def test_a_controller_that_knows_no_baseline_is_asked_once(
    start: Callable[..., Wanting], controller: FakeController, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    controller.status = status
    start().start_with(controller)

    until(lambda: not any(thread.name == "koupleless-baseline" for thread in threading.enumerate()))
    assert controller.next("/queryBaseline")
    assert "asks again" not in caplog.text


def test_a_base_that_ends_takes_no_more_modules_in(
    start: Callable[..., Wanting], module: Callable[..., Path], controller: FakeController
) -> None:
    controller.baseline = in_wire(wish(module("new:1"), "new:1"))
    controller.holding.clear()
    base = start()
    announcer = base.start_with(controller, patience_s=0.01)
    announcer.leave()
    controller.holding.set()

    until(lambda: not any(thread.name == "koupleless-baseline" for thread in threading.enumerate()))
    assert base.states() == []


@pytest.mark.parametrize("raw", [b"", b"{}", b"[1]", b"[[]]", b'"x"', b"[" * 100_000])
def test_an_answer_that_is_no_baseline_is_refused(raw: bytes) -> None:
    with pytest.raises(ReplyInvalid, match="the baseline is"):
        decode_baseline(raw)


def test_a_baseline_may_be_null() -> None:
    assert decode_baseline(b"null") == []
    assert decode_baseline(b'[{"bizName":"a","bizVersion":"1","bizUrl":"u"}]') == [wish("u", "a:1")]
