"""Logs read back: the newest entries of one module or of all, and those after a place, over rotations."""

import json
import logging
import time
from pathlib import Path

import pytest

from koupleless.biz import BizId
from koupleless.view.logging.files import LogFile, Rotation
from koupleless.view.logging.lines import Event, JsonLines, TextLines
from koupleless.view.logging.logbook import Logbook
from koupleless.view.logging.reading import Life, Reading, Wish, names_of, no_logs, read_logs

NOON = time.mktime((2026, 11, 30, 12, 0, 0, 0, 0, -1))


class Writing:
    """Writes entries of several modules, a second apart."""

    def __init__(self, directory: Path, *, is_json: bool, rotation: Rotation) -> None:
        lines = JsonLines() if is_json else TextLines()
        self.logbook = Logbook(directory=directory, lines=lines, rotation=rotation)
        self.second = 0
        self._files: dict[str, LogFile] = {}

    def write(self, name: str, *messages: str, level: str = "INFO") -> None:
        biz = BizId.of(name, "1")
        path = self.logbook.place(biz)
        assert path is not None
        file = self._files.setdefault(name, self.logbook.file(path))
        for message in messages:
            file.write(self.logbook.lines.line(Event(NOON + self.second, level, str(biz), "app", message)))
            self.second += 1

    def say(self, *messages: str, version: str = "1") -> None:
        """Let the base write about shop; a message that begins with ``app`` is the module's own."""
        biz = BizId.of("shop", version)
        path = self.logbook.place(biz)
        assert path is not None
        for message in messages:
            self.second += 1
            logger = "app" if message.startswith("app") else "koupleless"
            event = Event(NOON + self.second, "INFO", str(biz), logger, message)
            self.logbook.file(path).write(self.logbook.lines.line(event))

    def life(self, life: Life, version: str = "1") -> list[str]:
        found = self.read("shop", version=version, life=life, most=1000).entries
        return [_message(entry.text) for entry in found]

    def read(self, *names: str, after: Reading | None = None, **wish: object) -> Reading:
        return read_logs(self.logbook, Wish(names, **wish), None if after is None else after.places)  # type: ignore[arg-type]


def _message(text: str) -> str:
    return str(json.loads(text)["message"]) if text.startswith("{") else text.split(": ", 1)[1]


def messages(reading: Reading) -> list[str]:
    return [
        entry.text.split("app", 1)[1].strip('": ,').removeprefix('message": "').partition('"')[0]
        for entry in reading.entries
    ]


@pytest.fixture(params=["text", "json"])
def writing(request: pytest.FixtureRequest, tmp_path: Path) -> Writing:
    return Writing(tmp_path, is_json=request.param == "json", rotation=Rotation(size=400, keep=50))


def test_the_newest_entries_come_in_the_order_of_time_of_all_modules(writing: Writing) -> None:
    for number in range(6):
        writing.write("shop" if number % 2 else "till", f"m{number}")
    assert messages(writing.read(most=4)) == ["m2", "m3", "m4", "m5"]
    assert messages(writing.read("shop", most=2)) == ["m3", "m5"]
    assert messages(writing.read("shop", "till")) == [f"m{number}" for number in range(6)]
    assert messages(writing.read(most=0)) == []
    assert messages(writing.read("other")) == []


def test_older_files_are_read_as_far_as_entries_are_wanted(writing: Writing) -> None:
    writing.write("shop", *(f"m{number:02}" for number in range(60)))
    assert len(list((writing.logbook.directory or Path()).rglob("*"))) > 5
    assert messages(writing.read(most=30)) == [f"m{number:02}" for number in range(30, 60)]
    assert messages(writing.read(most=1000)) == [f"m{number:02}" for number in range(60)]


def test_levels_and_times_choose(writing: Writing) -> None:
    writing.write("shop", "quiet", level="DEBUG")
    writing.write("shop", "loud", level="ERROR")
    writing.write("shop", "own", level="NOTICE")
    writing.write("shop", *["filling"] * 20)
    writing.write("shop", "late", level="WARNING")
    assert messages(writing.read(level=logging.WARNING)) == ["loud", "late"]
    assert messages(writing.read(level=logging.INFO, most=2, since=NOON + 2)) == ["filling", "late"]
    assert messages(writing.read(since=NOON + 23)) == ["late"]
    assert messages(writing.read(level=logging.INFO, since=NOON))[:2] == ["loud", "own"]


def test_a_place_is_gone_on_from_also_over_rotations_and_for_modules_that_have_come(writing: Writing) -> None:
    writing.write("shop", "before")
    reading = writing.read()
    assert messages(reading) == ["before"]
    assert messages(writing.read(after=reading)) == []
    expected = [f"m{number:02}" for number in range(40)]
    writing.write("shop", *expected)
    writing.write("till", "new here")
    reading = writing.read(after=reading)
    assert messages(reading) == [*expected, "new here"]
    writing.write("till", "more")
    assert messages(writing.read(after=reading)) == ["more"]


def test_a_place_in_a_file_that_is_gone_means_all_that_is_there(writing: Writing) -> None:
    writing.write("shop", "before")
    reading = writing.read()
    for path in (writing.logbook.directory or Path()).rglob("*.log"):
        path.unlink()
    writing.write("shop", "after")
    reading = writing.read(after=reading)
    assert messages(reading) == ["after"]
    assert messages(writing.read(after=reading)) == []


def test_a_file_that_was_cut_is_read_from_its_beginning(writing: Writing) -> None:
    writing.write("shop", "a long entry, which is cut off")
    reading = writing.read()
    next((writing.logbook.directory or Path()).rglob("*.log")).write_bytes(b"")
    writing.write("shop", "x")
    assert messages(writing.read(after=reading)) == ["x"]


def test_half_a_line_waits_for_its_end(tmp_path: Path) -> None:
    writing = Writing(tmp_path, is_json=False, rotation=Rotation())
    writing.write("shop", "whole")
    with (tmp_path / "shop" / "shop.log").open("a") as log:
        log.write("2026-11-30 12:00:01,000 INFO shop:1 app: hal")
        log.flush()
        reading = writing.read()
        assert messages(reading) == ["whole"]
        log.write("f\n")
    assert messages(writing.read(after=reading)) == ["half"]


def test_an_entry_of_several_lines_is_one(tmp_path: Path) -> None:
    writing = Writing(tmp_path, is_json=False, rotation=Rotation())
    writing.write("shop", "failed\nTraceback:\n  File\nError: x", "next")
    assert [entry.text.count("\n") for entry in writing.read().entries] == [3, 0]
    assert messages(writing.read(most=1)) == ["next"]


def test_places_that_nobody_gave_hurt_nothing(writing: Writing) -> None:
    writing.write("shop", "x")
    for place in ("", "nonsense", "1-2:x", ":", "1-2:99999999999"):
        assert messages(read_logs_with(writing, place)) == ["x"]


def read_logs_with(writing: Writing, place: str) -> Reading:
    return read_logs(writing.logbook, Wish(), {"shop/shop.log": place})


def test_a_name_leads_nowhere_else(tmp_path: Path) -> None:
    writing = Writing(tmp_path / "logs", is_json=False, rotation=Rotation())
    writing.write("shop", "x")
    (tmp_path / "secret.log").write_text("2026-11-30 12:00:00,000 INFO a:1 app: secret\n")
    assert writing.read("..").entries == writing.read("/etc").entries == ()


def test_who_has_logs_is_said(tmp_path: Path) -> None:
    assert names_of(Logbook()) == names_of(Logbook(directory=tmp_path / "none")) == []
    assert "has no log-dir" in no_logs(Logbook(), "shop")
    (tmp_path / "till").mkdir()
    assert no_logs(Logbook(directory=tmp_path), "shop").endswith("; there are logs of till")


def test_a_life_ends_with_the_module_and_the_one_before_is_the_previous(writing: Writing) -> None:
    assert writing.life(Life.CURRENT) == writing.life(Life.PREVIOUS) == []
    writing.say("app a", "installed in 5 ms", "app b")
    assert writing.life(Life.CURRENT) == ["app a", "installed in 5 ms", "app b"]
    assert writing.life(Life.PREVIOUS) == []
    writing.say("uninstalled in 3 ms")
    assert writing.life(Life.CURRENT)[-1] == "uninstalled in 3 ms"  # as of a container that has ended
    writing.say("app c", "failed to start in 7 ms (no)")
    writing.say("app d", "installed in 5 ms")
    assert writing.life(Life.CURRENT) == ["app d", "installed in 5 ms"]
    assert writing.life(Life.PREVIOUS) == ["app c", "failed to start in 7 ms (no)"]


def test_a_start_after_a_killed_base_begins_a_life_with_the_first_line_of_the_start(writing: Writing) -> None:
    writing.say("installed in 5 ms", "app a", "app b", "app c", "installed in 2000 ms", "app d")
    assert writing.life(Life.PREVIOUS) == ["installed in 5 ms", "app a"]
    assert writing.life(Life.CURRENT) == ["app b", "app c", "installed in 2000 ms", "app d"]


def test_a_module_started_again_has_a_new_life_while_the_former_one_drains(tmp_path: Path) -> None:
    writing = Writing(tmp_path, is_json=False, rotation=Rotation())  # both starts are in one file
    writing.say("installed in 5 ms", "app a", "installed in 500 ms", "uninstalled in 3 ms", "app b")
    assert writing.life(Life.CURRENT) == ["installed in 500 ms", "uninstalled in 3 ms", "app b"]
    writing.say("failed to start in 1 ms", "app c")  # a second attempt, while the life goes on
    assert writing.life(Life.CURRENT)[-1] == "app c"
    assert writing.life(Life.PREVIOUS) == ["installed in 5 ms", "app a"]


def test_lives_of_versions_are_apart_and_found_over_rotations(writing: Writing) -> None:
    writing.say("installed in 5 ms", *(f"app {number}" for number in range(30)), "uninstalled", "installed in 5 ms")
    writing.say("installed in 9 ms", "app other", version="2")
    writing.say(*(f"app {number}" for number in range(30, 50)))
    assert writing.life(Life.CURRENT) == ["installed in 5 ms", *(f"app {number}" for number in range(30, 50))]
    assert writing.life(Life.PREVIOUS)[0] == "installed in 5 ms"
    assert len(writing.life(Life.PREVIOUS)) == 32
    assert writing.life(Life.CURRENT, "2") == ["installed in 9 ms", "app other"]
    assert writing.life(Life.CURRENT, "3") == []
    first = writing.read("shop", version="2", life=Life.CURRENT)
    writing.say("app one")
    writing.say("app two", version="2")
    after = writing.read("shop", version="2", after=first)
    assert [_message(entry.text) for entry in after.entries] == ["app two"]


def test_a_module_that_writes_about_ends_as_a_logger_of_another_name_ends_nothing(writing: Writing) -> None:
    writing.say("installed in 5 ms", "app uninstalled", "app failed to start")
    assert len(writing.life(Life.CURRENT)) == 3
