"""The files of logs: their lines, their rotation, and all that may happen to a file."""

import errno
import json
import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from koupleless.biz import BizId
from koupleless.context import Scope, current, entered
from koupleless.view.logging.files import LogFile, Rotation
from koupleless.view.logging.lines import ConsoleLines, JsonLines
from koupleless.view.logging.logbook import Console, Logbook
from koupleless.view.logging.logs import LogSpace

MakeBiz = Callable[..., Scope]

pytestmark = pytest.mark.usefixtures("with_logs")


def lines_of(*paths: Path) -> list[str]:
    return [line for path in paths for line in path.read_text(encoding="utf-8").splitlines()]


def test_nothing_is_made_before_the_first_line(tmp_path: Path) -> None:
    file = LogFile(tmp_path / "a" / "b.log")
    assert list(tmp_path.iterdir()) == []
    file.write("x")
    assert lines_of(file.path) == ["x"]
    file.close()
    file.close()


def test_a_full_file_becomes_an_older_one_and_the_oldest_goes(tmp_path: Path) -> None:
    file = LogFile(tmp_path / "x.log", Rotation(size=10, keep=2))
    for number in range(8):
        file.write(f"line{number}")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.log", "x.log.1", "x.log.2"]
    assert [lines_of(tmp_path / name) for name in ("x.log.2", "x.log.1", "x.log")] == [["line5"], ["line6"], ["line7"]]


def test_without_older_files_a_full_file_begins_anew(tmp_path: Path) -> None:
    file = LogFile(tmp_path / "x.log", Rotation(size=10, keep=0))
    for number in range(3):
        file.write(f"line{number}")
    assert [path.name for path in tmp_path.iterdir()] == ["x.log"]
    assert lines_of(file.path) == ["line2"]


def test_a_line_longer_than_a_file_stays_whole(tmp_path: Path) -> None:
    file = LogFile(tmp_path / "x.log", Rotation(size=10, keep=2))
    file.write("a" * 100)
    file.write("b" * 100)
    assert lines_of(tmp_path / "x.log.1", file.path) == ["a" * 100, "b" * 100]


def test_a_file_that_another_program_rotates_or_removes_is_made_anew(tmp_path: Path) -> None:
    file = LogFile(tmp_path / "logs" / "x.log")
    file.write("first")
    file.path.rename(tmp_path / "moved")
    file.write("second")
    assert (lines_of(tmp_path / "moved"), lines_of(file.path)) == (["first"], ["second"])
    file.path.unlink()
    file.path.parent.rmdir()
    file.write("third")
    assert lines_of(file.path) == ["third"]


def test_two_files_of_one_path_as_in_two_processes_rotate_without_loss(tmp_path: Path) -> None:
    one, other = (LogFile(tmp_path / "x.log", Rotation(size=400, keep=9)) for _ in range(2))
    for number in range(100):
        (one if number % 2 else other).write(f"line {number:03}")
    written = lines_of(*tmp_path.iterdir())
    assert sorted(written) == [f"line {number:03}" for number in range(100)]


def test_many_threads_lose_no_line(tmp_path: Path) -> None:
    file = LogFile(tmp_path / "x.log", Rotation(size=2000, keep=99))

    def write(name: int) -> None:
        for number in range(200):
            file.write(f"{name}:{number}")

    threads = [threading.Thread(target=write, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(lines_of(*tmp_path.iterdir())) == sorted(
        f"{name}:{number}" for name in range(4) for number in range(200)
    )


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
def test_a_full_disk_loses_lines_says_so_once_and_hurts_nobody(
    of_base: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("koupleless.view.logging.files._PAUSE_S", 0.0)
    path = tmp_path / "x.log"
    path.symlink_to("/dev/full")
    file = LogFile(path)
    for _ in range(3):
        file.write("lost")
    path.unlink()
    file.write("there is room again")
    assert lines_of(path) == ["there is room again"]
    assert of_base.messages == [
        f"the log {path} cannot be written: No space left on device; lines are lost until it can",
        f"the log {path} is written again; 3 lines were lost",
    ]


def test_after_a_failure_no_line_waits_for_the_disk(
    of_base: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    opened = []

    def fail(*given: Any) -> int:
        opened.append(given)
        raise OSError(errno.EIO, "sick")

    monkeypatch.setattr(os, "open", fail)
    file = LogFile(tmp_path / "x.log")
    for _ in range(100):
        file.write("x")
    assert len(opened) == 1
    assert len(of_base.messages) == 1


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")  # by other tests, too
def test_the_child_of_a_fork_does_not_wait_for_a_thread_of_the_parent(tmp_path: Path) -> None:
    file = LogFile(tmp_path / "x.log")
    with file._lock:
        child = os.fork()
        if not child:
            file.write("of the child")
            os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert lines_of(file.path) == ["of the child"]


def test_a_line_for_programs_has_the_traceback_and_further_values(tmp_path: Path, make_biz: MakeBiz) -> None:
    logbook = Logbook(directory=tmp_path, lines=JsonLines())
    scope = Scope(BizId.of("shop", "2.0"))
    scope.attach(LogSpace.from_configuration(scope, {}, logbook=logbook))
    with entered(scope):
        try:
            dict[str, int]()["gone"]
        except KeyError:
            logging.getLogger("app").exception("failed", extra={"order": 7, "time": "taken", "of": BizId.of("a", "1")})
    (line,) = lines_of(tmp_path / "shop" / "shop.log")
    found = json.loads(line)
    assert found.pop("time").startswith("20")
    assert "KeyError: 'gone'" in found["message"]
    assert found["message"].startswith("failed\nTraceback")
    del found["message"]
    assert found == {"level": "ERROR", "logger": "app", "biz": "shop", "version": "2.0", "order": 7, "of": "a:1"}
    scope.facet(LogSpace).close()
    scope.close()


def test_two_versions_of_one_name_share_their_file_and_its_rotation(tmp_path: Path) -> None:
    logbook = Logbook(directory=tmp_path, rotation=Rotation(size=300, keep=99))
    scopes = [Scope(BizId.of("shop", version)) for version in ("1", "2")]
    for scope in scopes:
        scope.attach(LogSpace.from_configuration(scope, {}, logbook=logbook))
    for number in range(20):
        for scope in scopes:
            with entered(scope):
                logging.getLogger("app").warning("%s", number)
    assert scopes[0].facet(LogSpace).file is scopes[1].facet(LogSpace).file
    scopes[0].facet(LogSpace).close()
    with entered(scopes[1]):
        logging.getLogger("app").warning("after the other has left")
    written = lines_of(*(tmp_path / "shop").iterdir())
    assert len(written) == 41
    assert sum(" shop:1 app: " in line for line in written) == 20
    assert all(path.stat().st_size <= 300 for path in (tmp_path / "shop").iterdir())
    for scope in scopes:
        scope.facet(LogSpace).close()
        scope.close()


def test_a_record_that_cannot_be_formatted_is_told_as_by_any_handler(
    make_biz: MakeBiz, tmp_path: Path, capsys: Any
) -> None:
    with entered(make_biz(file=tmp_path / "x.log")):
        logging.getLogger("app").warning("%d", "no number")
        logging.getLogger("app").warning("next")
    assert "Arguments: ('no number',)" in capsys.readouterr().err
    assert [line.rsplit(" ", 1)[1] for line in lines_of(tmp_path / "x.log")] == ["next"]


def test_the_console_of_a_base_gets_the_records_without_a_handler_of_their_module(
    keeping: Any, of_base: Any, tmp_path: Path, capsys: Any
) -> None:
    logbook = Logbook(directory=tmp_path, console=Console(), level=logging.INFO)
    scope = Scope(BizId.of("shop", "2.0"))
    scope.attach(LogSpace.from_configuration(scope, {}, logbook=logbook))
    kept = keeping()
    with entered(scope):
        assert logging.getLogger().level == logging.WARNING  # as it reads in a fresh process
        logging.getLogger("app").info("shown")
        logging.getLogger("app").debug("below")
        logging.getLogger("own").addHandler(kept)
        logging.getLogger("own").warning("kept by the module")
    assert capsys.readouterr().err == "INFO:     shop:2.0 app: shown\n"
    assert [line.rsplit(": ", 1)[1] for line in lines_of(tmp_path / "shop" / "shop.log")] == [
        "shown",
        "kept by the module",
    ]
    assert (kept.messages, of_base.messages) == (["kept by the module"], [])
    scope.facet(LogSpace).close()
    scope.close()


def test_a_broken_stderr_hurts_nobody(make_biz: MakeBiz, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", None)
    Console().handle(logging.makeLogRecord({"msg": "x"}))


def test_a_line_of_the_console_names_the_module_or_the_base() -> None:
    record = logging.makeLogRecord({"msg": "x", "levelname": "WARNING"})
    console = Console(name="koupleless")
    assert console.format(record) == "WARNING:  koupleless: x"
    assert ConsoleLines.__doc__


@pytest.mark.parametrize("name", ["-", "a file", "closed/inner"])
def test_a_directory_that_cannot_be_used_is_told_and_is_none(
    tmp_path: Path, name: str, of_base: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a file").touch()
    (tmp_path / "closed").mkdir()
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).name != "closed")
    logbook = Logbook.make(tmp_path / name, Rotation())
    assert logbook.directory is None
    assert logbook.place(BizId.of("shop", "1")) is None
    logbook.note(BizId.of("shop", "1"), logging.INFO, "nowhere")
    assert [message.startswith("modules write no log files: ") for message in of_base.messages] == [True] * (
        name != "-"
    )


def test_a_relative_directory_is_that_of_the_base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Modules have working directories of their own."""
    monkeypatch.chdir(tmp_path)
    logbook = Logbook.make(Path("logs"), Rotation())
    assert logbook.directory == tmp_path / "logs"
    assert logbook.place(BizId.of("shop", "1")) == tmp_path / "logs" / "shop" / "shop.log"


def test_a_line_is_written_as_the_base(make_biz: MakeBiz, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    running = []
    monkeypatch.setattr(LogFile, "_put", lambda *_: running.append(current()))
    with entered(make_biz()):
        LogFile(tmp_path / "x.log").write("x")
    assert running == [None]
