"""The modules of a base that has ended, again in the next one: artefact, order, active version and arguments."""

from __future__ import annotations

import shutil
import threading
from typing import TYPE_CHECKING

import pytest

from koupleless.biz import BizId
from koupleless.container.terms import Place, Rules, Strategy
from koupleless.errors import KouplelessError, StateUnwritable
from koupleless.state.desired import Wanted

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.state.conftest import Lasting

    Start = Callable[..., Lasting]
    Make = Callable[..., Path]

BROKEN = "raise RuntimeError('the database is away')"


def biz(text: str) -> BizId:
    return BizId.parse(text)


def test_modules_come_back_from_the_store_in_their_order(start: Start, module: Make) -> None:
    base = start().replay()
    for identity in ("one:1", "two:1", "three:1"):
        path = module(identity)
        base.install(path)
        path.unlink()  # as the file of a deployment, which is gone afterwards

    again = start().replay()

    assert again.states() == [("one:1", "ACTIVATED"), ("two:1", "ACTIVATED"), ("three:1", "ACTIVATED")]
    assert again.get("/two/") == "two:1"
    assert next(info.url for info in again.container.bizs()).endswith("one-1-ark-biz.zip")


def test_of_several_versions_the_active_one_answers_again(start: Start, module: Make) -> None:
    base = start().replay()
    for identity in ("shop:1", "shop:2", "shop:3"):
        base.install(module(identity))
    base.container.switch(biz("shop:2"))
    before = base.states()

    again = start().replay()

    assert again.states() == before == [("shop:1", "DEACTIVATED"), ("shop:2", "ACTIVATED"), ("shop:3", "DEACTIVATED")]
    assert again.get("/shop/") == "shop:2"


def test_replaced_and_removed_modules_stay_away(start: Start, module: Make) -> None:
    base = start().replay()
    base.install(module("shop:1"))
    base.install(module("shop:2"), strategy=Strategy.REPLACE)
    base.install(module("other:1"))
    base.install(module("other:2"), strategy=Strategy.UNINSTALL_THEN_INSTALL)
    base.install(module("gone:1"))
    base.container.uninstall(biz("gone:1"))

    assert start().replay().states() == [("shop:2", "ACTIVATED"), ("other:2", "ACTIVATED")]


def test_arguments_come_back(start: Start, module: Make) -> None:
    code = "import sys\ndef app(environ, start): start('200 OK', []); return [repr(sys.argv[1:]).encode()]\n"
    start().replay().install(module("shop:1", code), args=["--stock", "7"])

    assert start().replay().get("/shop/") == "['--stock', '7']"


def test_priorities_come_one_after_the_other(start: Start, module: Make) -> None:
    code = """
import time, koupleless, os
def app(environ, start_response): ...
with open(os.environ['MARKS'], 'a') as file:
    file.write(koupleless.current().identity + ' ')
"""
    base = start().replay()
    marks = base.directory / "marks"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MARKS", str(marks))
        for identity, priority in (("c:1", 300), ("a:1", 100), ("b:1", 200)):
            base.install(
                module(identity, code.replace("koupleless.current().identity", repr(identity)), priority=priority)
            )
        marks.unlink()
        start().replay()

    assert marks.read_text().split() == ["a:1", "b:1", "c:1"]


def test_modules_that_wait_in_their_start_wait_at_the_same_time(start: Start, module: Make, tmp_path: Path) -> None:
    """Each waits until all have begun."""
    code = f"""
import time
from pathlib import Path
def app(environ, start_response): ...
begun = Path({str(tmp_path / "begun")!r})
begun.mkdir(exist_ok=True)
(begun / NAME).touch()
while len(list(begun.iterdir())) < WAITS:
    time.sleep(0.01)
"""
    names = [f"m{number}:1" for number in range(6)]
    base = start().replay()
    for name in names:
        gate = f"Path({str(tmp_path / 'again')!r}).exists()"
        base.install(module(name, code.replace("NAME", repr(name)).replace("WAITS", f"(6 if {gate} else 1)")))
    shutil.rmtree(tmp_path / "begun")
    (tmp_path / "again").touch()

    assert start().replay().states() == [(name, "ACTIVATED") for name in names]


def test_a_module_that_does_not_come_back_is_broken_and_the_others_serve(
    start: Start, module: Make, caplog: pytest.LogCaptureFixture
) -> None:
    base = start().replay()
    flag = base.directory / "broken"
    code = f"import os\nif os.path.exists({str(flag)!r}): {BROKEN}\nfrom helper import app\n"
    base.install(module("good:1"))
    base.install(
        module("bad:1", code.replace("from helper import app", "def app(e, s): s('200 OK', []); return [b'bad']"))
    )
    base.install(module("lost:1"))
    lost = base.container.book.standing().find(biz("lost:1"))
    assert lost is not None
    flag.touch()
    (base.directory.parent / "lost-1-ark-biz.zip").unlink()
    next_ = start()
    shutil.rmtree(next(next_.directory.glob(f"store/*/{lost.digest}")))

    with caplog.at_level("INFO"):
        next_.replay()

    assert next_.states() == [("good:1", "ACTIVATED"), ("bad:1", "BROKEN"), ("lost:1", "BROKEN")]
    assert next_.get("/good/") == "good:1"
    bad, lost_ = next_.container.bizs()[1:]
    assert "the database is away" in bad.records[-1].message
    assert "has no artefact" in lost_.records[-1].message
    assert "deploy the module again" in lost_.records[-1].message
    assert "1 of 3 modules serve again after" in caplog.text
    assert "; broken: bad:1, lost:1" in caplog.text

    flag.unlink()  # and a later start finds it as if nothing had been
    assert start().replay().states()[:2] == [("good:1", "ACTIVATED"), ("bad:1", "ACTIVATED")]


def test_a_broken_module_is_replaced_or_removed(start: Start, module: Make) -> None:
    base = start().replay()
    for identity in ("shop:1", "other:1"):
        path = module(identity)
        base.install(path)
        path.unlink()
    next_ = start()
    for entry in next_.directory.glob("store/cpython*/*"):
        shutil.rmtree(entry)
    next_.replay()
    assert next_.states() == [("shop:1", "BROKEN"), ("other:1", "BROKEN")]

    next_.install(module("shop:1"), strategy=Strategy.REPLACE)
    report = next_.container.uninstall(biz("other:1"))

    assert report.clean
    assert next_.states() == [("shop:1", "ACTIVATED")]
    assert start().replay().states() == [("shop:1", "ACTIVATED")]


def test_a_failed_install_does_not_come_back(start: Start, module: Make) -> None:
    base = start(rules=Rules(keep_broken=True)).replay()
    base.install(module("shop:1"))
    for strategy in Strategy:
        with pytest.raises(KouplelessError):
            base.install(module("shop:2", BROKEN), strategy=strategy)
    assert [str(each.id) for each in base.container.book.standing().pending] == []

    assert [state for state in start().replay().states() if state[1] != "BROKEN"] == []  # the last strategy removed it


def test_an_install_that_had_not_ended_is_tried_again_after_the_others(
    start: Start, module: Make, caplog: pytest.LogCaptureFixture
) -> None:
    base = start().replay()
    base.install(module("shop:1"))
    new = base.container.prepare(str(module("shop:2")))
    bad = base.container.prepare(str(module("bad:1", BROKEN)))
    for prepared in (new, bad):  # recorded, and then the process dies
        base.container.book.installing(
            Wanted(id=prepared.id, digest=prepared.unpacked.digest, url=prepared.url, strategy="replace")
        )
        prepared.discard()

    again = start().replay()

    assert again.states() == [("shop:2", "ACTIVATED")]
    assert again.get("/shop/") == "shop:2"
    assert "the install of bad:1 is given up: biz bad:1" in caplog.text
    standing = again.container.book.standing()
    assert standing.pending == ()
    assert [str(each.id) for each in standing.before] == ["shop:1"]


def test_an_install_in_flight_when_the_base_ends_does_not_come_back(start: Start, module: Make) -> None:
    base = start().replay()
    base.install(module("shop:1"))
    waits = base.directory / "waits"
    code = f"import time\nopen({str(waits)!r}, 'w').close()\ntime.sleep(20)\n"
    refused: list[KouplelessError] = []

    def install() -> None:
        try:
            base.install(module("slow:1", code))
        except KouplelessError as error:
            refused.append(error)

    thread = threading.Thread(target=install)
    thread.start()
    while not waits.exists():
        thread.join(0.01)
    base.container.shut()
    thread.join(30)
    assert refused

    assert start().replay().states() == [("shop:1", "ACTIVATED")]


def test_static_modules_come_in_the_place_of_all_versions_of_their_names(
    start: Start, module: Make, caplog: pytest.LogCaptureFixture
) -> None:
    base = start().replay()
    base.install(module("shop:2"))
    base.install(module("other:1"))
    again = start()
    again.install(module("shop:1"), place=Place())

    again.replay()

    assert again.states() == [("other:1", "ACTIVATED"), ("shop:1", "ACTIVATED")]
    assert "shop:2 is not started again: the settings of the base name another shop" in caplog.text
    assert start().replay().states() == [("other:1", "ACTIVATED")]  # a static module is the matter of the settings


def test_without_an_active_version_the_last_one_answers_where_the_rules_say_so(start: Start, module: Make) -> None:
    base = start().replay()
    for identity in ("shop:1", "shop:2", "shop:3"):
        base.install(module(identity))
    base.container.book.leaving(biz("shop:1"))  # and the process dies

    again = start(rules=Rules(activate_next=True)).replay()

    assert again.states() == [("shop:2", "DEACTIVATED"), ("shop:3", "ACTIVATED")]


def test_nothing_is_changed_that_the_disk_does_not_record(
    start: Start, module: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = start().replay()
    base.install(module("shop:1"))
    base.install(module("shop:2"))

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.pwrite", full)
        for operation in (
            lambda: base.install(module("other:1")),
            lambda: base.install(module("shop:3"), strategy=Strategy.REPLACE),
            lambda: base.container.uninstall(biz("shop:1")),
            lambda: base.container.switch(biz("shop:2")),
        ):
            with pytest.raises(StateUnwritable, match="No space left on device; make room there"):
                operation()

    assert base.states() == [("shop:1", "ACTIVATED"), ("shop:2", "DEACTIVATED")]
    assert base.get("/shop/") == "shop:1"
    base.container.switch(biz("shop:2"))
    assert start().replay().states() == [("shop:1", "DEACTIVATED"), ("shop:2", "ACTIVATED")]


def test_modules_that_are_installed_at_the_same_time_all_come_back(start: Start, module: Make) -> None:
    base = start().replay()
    artefacts = [module(f"m{number}:1") for number in range(12)]
    threads = [threading.Thread(target=base.install, args=(artefact,)) for artefact in artefacts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    before = base.states()

    assert sorted(before) == sorted((f"m{number}:1", "ACTIVATED") for number in range(12))
    assert sorted(start().replay().states()) == sorted(before)
