"""A module again, and the version before, over a real container."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from koupleless.arklet.ours.keeping import Keeping
from koupleless.biz import BizId
from koupleless.cli.commands import main
from koupleless.container.terms import Place, Stored, Strategy
from koupleless.errors import BizNotFound, DigestMismatch, EndRefused, NoVersionBefore, StartFailed

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.state.conftest import Lasting

    Start = Callable[..., Lasting]
    Make = Callable[..., Path]

COUNTS = """
import os
from pathlib import Path
place = Path({place!r})
NUMBER = int(place.read_text()) if place.exists() else 0
place.write_text(str(NUMBER + 1))
if {broken!r} and Path({broken!r}).exists(): raise RuntimeError('no')
def app(environ, start): start('200 OK', []); return [str(NUMBER).encode()]
"""


def biz(text: str) -> BizId:
    return BizId.parse(text)


def counting(directory: Path, name: str, *, broken: str = "") -> str:
    """Code that answers how often it has been started before."""
    return COUNTS.format(place=str(directory / name), broken=broken)


def test_a_restart_is_a_new_life_in_the_same_place(start: Start, module: Make, tmp_path: Path) -> None:
    base = start().replay()
    base.install(module("shop:1", counting(tmp_path, "one")), args=["--x"])
    base.install(module("shop:2", counting(tmp_path, "two")))
    base.install(module("other:1"))
    before, noted = base.states(), base.container.book.standing()
    keeping = Keeping(base.container)

    installed = keeping.restart(biz("shop:1"))
    keeping.restart(biz("shop:2"))

    assert base.states() == before
    assert base.get("/shop/") == "1"
    assert [str(report.biz) for report in installed.replaced] == ["shop:1"]
    assert all(report.clean for report in installed.replaced)
    assert base.container.book.standing() == noted
    assert (tmp_path / "two").read_text() == "2"
    assert start().replay().states() == before


def test_requests_during_a_restart_are_all_answered(start: Start, module: Make) -> None:
    base = start().replay()
    base.install(module("shop:1"))
    keeping, seen, is_over = Keeping(base.container), set(), threading.Event()

    def ask() -> None:
        while not is_over.is_set():
            seen.add(base.get("/shop/"))

    thread = threading.Thread(target=ask)
    thread.start()
    for _ in range(5):
        keeping.restart(biz("shop:1"))
    is_over.set()
    thread.join()

    assert seen == {"shop:1"}


def test_a_restart_that_fails_leaves_the_old_life(start: Start, module: Make, tmp_path: Path) -> None:
    base = start().replay()
    base.install(module("shop:1", counting(tmp_path, "one", broken=str(tmp_path / "broken"))))
    (tmp_path / "broken").touch()

    with pytest.raises(StartFailed):
        Keeping(base.container).restart(biz("shop:1"))

    assert base.states() == [("shop:1", "ACTIVATED")]
    assert base.get("/shop/") == "0"
    (tmp_path / "broken").unlink()
    assert start().replay().states() == [("shop:1", "ACTIVATED")]


def test_a_module_that_did_not_come_back_is_started_by_a_restart(start: Start, module: Make, tmp_path: Path) -> None:
    base = start().replay()
    base.install(module("shop:1", counting(tmp_path, "one", broken=str(tmp_path / "broken"))))
    (tmp_path / "broken").touch()
    again = start().replay()
    assert again.states() == [("shop:1", "BROKEN")]
    (tmp_path / "broken").unlink()

    Keeping(again.container).restart(biz("shop:1"))

    assert again.states() == [("shop:1", "ACTIVATED")]
    assert again.get("/shop/") == "2"


def test_a_static_module_is_started_again_too(start: Start, module: Make, tmp_path: Path) -> None:
    base = start()
    base.install(module("shop:1", counting(tmp_path, "one")), place=Place())
    base.replay()

    Keeping(base.container).restart(biz("shop:1"))

    assert base.get("/shop/") == "1"
    assert base.states() == [("shop:1", "ACTIVATED")]
    with pytest.raises(BizNotFound):
        Keeping(base.container).restart(biz("shop:2"))
    assert start().replay().states() == []


def test_a_rollback_brings_the_version_before_back_from_the_store(start: Start, module: Make) -> None:
    base = start().replay()
    for version in (1, 2):
        path = module(f"shop:{version}")
        base.install(path, args=[str(version)], strategy=Strategy.REPLACE)
        path.unlink()
    base.store.remove_unused(keep=base.container.book.digests())

    again = start().replay()
    found, installed = Keeping(again.container).rollback("shop")

    assert (str(found), again.states()) == ("shop:1", [("shop:1", "ACTIVATED")])
    assert installed is not None
    assert again.get("/shop/") == "shop:1"
    assert [each.args for each in again.container.book.standing().modules] == [("1",)]
    Keeping(again.container).rollback("shop")  # and forward again
    assert again.states() == [("shop:2", "ACTIVATED")]


def test_the_command_line_cleans_no_store_of_modules_that_a_base_keeps(
    start: Start, module: Make, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    base = start().replay()
    base.store.add_book(base.directory / "journal")
    for version in (1, 2, 3):
        base.install(module(f"shop:{version}"), strategy=Strategy.REPLACE)
    base.end()
    monkeypatch.setenv("KOUPLELESS_BASE_STATE_DIR", str(base.directory))
    monkeypatch.delenv("KOUPLELESS_BASE_EPHEMERAL")

    assert main(["store", "clean", "--keep", "0"]) == 0

    assert [line.split()[1:] for line in capsys.readouterr().out.splitlines()[:-1]] == [["shop:1", "removed"]]
    again = start().replay()
    assert again.states() == [("shop:3", "ACTIVATED")]
    Keeping(again.container).rollback("shop")
    assert again.states() == [("shop:2", "ACTIVATED")]


def test_a_rollback_to_other_content_of_the_same_version(start: Start, module: Make, tmp_path: Path) -> None:
    base = start().replay()
    base.install(module("shop:1"))
    base.install(module("shop:1", counting(tmp_path, "one")), strategy=Strategy.REPLACE)
    Keeping(base.container).restart(biz("shop:1"))  # which is no version of its own
    assert base.get("/shop/") == "1"

    Keeping(base.container).rollback("shop")

    assert base.get("/shop/") == "shop:1"


def test_a_rollback_is_a_switch_where_the_version_before_is_installed(start: Start, module: Make) -> None:
    base = start().replay()
    base.install(module("shop:1"))
    base.install(module("shop:2"))
    base.container.switch(biz("shop:2"))

    assert Keeping(base.container).rollback("shop") == (biz("shop:1"), None)
    assert base.states() == [("shop:1", "ACTIVATED"), ("shop:2", "DEACTIVATED")]


def test_without_a_version_before_a_rollback_is_refused(start: Start, module: Make) -> None:
    base = start().replay()
    base.install(module("shop:1"))

    with pytest.raises(NoVersionBefore, match="no version of shop answered before"):
        Keeping(base.container).rollback("shop")
    with pytest.raises(NoVersionBefore):
        Keeping(base.container).rollback("nobody")


def test_an_artefact_with_another_digest_than_asked_for_is_refused(start: Start, module: Make) -> None:
    base = start().replay()
    path = module("shop:1")

    with pytest.raises(DigestMismatch):
        base.container.install(Stored(biz("shop:1"), "0" * 64, str(path)))

    assert base.states() == []


def test_a_base_inside_another_server_is_not_ended(start: Start) -> None:
    with pytest.raises(EndRefused, match="base base runs inside another server"):
        Keeping(start().container).stop()
