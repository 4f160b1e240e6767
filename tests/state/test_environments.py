"""Kept values: over restarts of the base where there is a directory, whole or not at all, for their owner only."""

from __future__ import annotations

import os
import stat
import threading
from typing import TYPE_CHECKING

import pytest

from koupleless.errors import SettingsError
from koupleless.state.environments import Environments, Kept

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(params=["memory", "files"])
def environments(request: pytest.FixtureRequest, tmp_path: Path) -> Environments:
    return Environments(tmp_path / "kept" if request.param == "files" else None)


def test_each_value_stays_until_it_is_changed(environments: Environments) -> None:
    environments.keep("shop", {"A": "1", "B": "2"}, project={"P": "1", "Q": "2"})
    environments.keep("shop", {"B": "3"}, project={"P": "9"})
    environments.keep("shop", {})
    environments.keep("other", {"A": "x"})
    assert environments.of("shop") == Kept({"A": "1", "B": "3"}, {"P": "9"})
    assert environments.change("shop", {"C": "4"}, ["A", "NONE", "C"]) == ("NONE",)
    assert environments.of("shop").given == {"B": "3", "C": "4"}
    assert environments.of("other") == Kept({"A": "x"})
    assert environments.of("nobody") == Kept()


def test_another_process_finds_them_and_only_their_owner_reads_them(tmp_path: Path) -> None:
    directory = tmp_path / "state" / "environments"
    before = os.umask(0)
    try:
        Environments(directory).keep("shop", {"A": "ä"}, project={})
    finally:
        os.umask(before)
    (file,) = directory.iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert Environments(directory).of("shop") == Kept({"A": "ä"})


def test_a_file_that_cannot_be_written_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    environments = Environments(tmp_path / "file")
    with pytest.raises(SettingsError):
        environments.keep("shop", {"A": "s3cret"})
    directory = tmp_path / "kept"
    kept = Environments(directory)
    kept.keep("shop", {"A": "1"})
    (directory / "shop.json").unlink()
    (directory / "shop.json").mkdir()
    with pytest.raises(SettingsError, match="cannot write"):
        kept.keep("shop", {"A": "2"})
    assert kept.of("shop") == Kept({"A": "1"})
    assert [path.name for path in directory.iterdir()] == ["shop.json"]


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"given": {"A": 1}, "project": {}}', '{"given": {}}', '"s3cret', "\xff"]
)
def test_a_damaged_file_is_told_by_its_name_alone(tmp_path: Path, content: str) -> None:
    (tmp_path / "shop.json").write_text(content, encoding="latin-1")
    with pytest.raises(SettingsError) as caught:
        Environments(tmp_path).of("shop")
    assert str(tmp_path / "shop.json") in str(caught.value)
    assert "s3cret" not in str(caught.value)


def test_nothing_shows_a_value(environments: Environments) -> None:
    environments.keep("shop", {"A": "s3cret"}, project={"B": "s3cret"})
    assert "s3cret" not in f"{environments!r} {environments.of('shop')!r}"


def test_threads_lose_nothing_of_each_other(environments: Environments) -> None:
    def work(number: int) -> None:
        for index in range(20):
            environments.change("shop", {f"K{number}_{index}": ""})

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(environments.of("shop").given) == 80
