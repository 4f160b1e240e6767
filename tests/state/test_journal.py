"""The journal: after a death at any instruction, and with any bytes in the file, a base finds one of its states."""

from __future__ import annotations

import errno
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from koupleless.biz import BizId
from koupleless.errors import StateUnwritable
from koupleless.state.book import Book, Standing
from koupleless.state.desired import Version, Wanted
from koupleless.state.journal import Journal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def biz(text: str) -> BizId:
    return BizId.parse(text)


def wanted(identity: str, digest: str = "d", **members: Any) -> Wanted:
    return Wanted(id=biz(identity), digest=digest, url=f"file:///{identity}.zip", **members)


def install(
    book: Book, identity: str, *, is_active: bool = True, digest: str = "d", beside: tuple[str, ...] = ()
) -> None:
    """Do with the book what a container does for an install that replaces the versions not in ``beside``."""
    order = book.installing(wanted(identity, digest, args=("--x",), variables=("KEY",), strategy="replace"))
    standing = book.standing()
    others = [
        Version(each.id, each.order, is_started=True, is_active=each.id in standing.active and not is_active)
        for each in standing.modules
        if str(each.id) in beside
    ]
    book.settle(biz(identity), lambda: [*others, Version(biz(identity), order, is_started=True, is_active=is_active)])


def fail(book: Book, identity: str) -> None:
    book.installing(wanted(identity))
    book.settle(biz(identity), lambda: None)


def uninstall(book: Book, identity: str) -> None:
    book.leaving(biz(identity))
    book.settle(biz(identity), lambda: None)


OPERATIONS: tuple[Callable[[Book], object], ...] = (
    lambda book: install(book, "shop:1.0"),
    lambda book: install(book, "prices:1.0", digest="e"),
    lambda book: install(book, "shop:2.0", digest="f"),
    lambda book: install(book, "shop:3.0", is_active=False, beside=("shop:2.0",)),
    lambda book: book.switching(biz("shop:3.0")),
    lambda book: fail(book, "broken:1.0"),
    lambda book: uninstall(book, "prices:1.0"),
    lambda book: book.open(),  # writes the file anew
    lambda book: install(book, "shop:3.0", digest="g"),
)


def loaded(path: Path) -> tuple[Book, str]:
    book = Book()
    return book, book.load(Journal(path))


def opened(path: Path) -> Book:
    book, _ = loaded(path)
    book.open()
    return book


def read(path: Path) -> Standing:
    book, _ = loaded(path)
    try:
        return book.standing()
    finally:
        book.close()


def settled(standing: Standing) -> tuple[object, ...]:
    """A state without installs that have not ended, which are tried again and lead to the state afterwards."""
    return standing.modules, standing.active, standing.before


def states(path: Path) -> list[Standing]:
    """The states before the first, and after each of the operations."""
    book = opened(path)
    found = [book.standing()]
    for operation in OPERATIONS:
        operation(book)
        found.append(book.standing())
    book.close()
    return found


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal"


@pytest.fixture
def open_book(path: Path) -> Iterator[Book]:
    book = opened(path)
    yield book
    book.close()


def test_what_was_noted_is_found_again(path: Path) -> None:
    last = states(path)[-1]

    assert read(path) == last
    assert [(str(each.id), each.digest, each.args, each.variables) for each in last.modules] == [
        ("shop:3.0", "g", ("--x",), ("KEY",))
    ]
    assert last.active == {biz("shop:3.0")}
    assert [(str(each.id), each.digest) for each in last.before] == [("shop:3.0", "d")]
    assert last.pending == ()


def die(path: Path, step: str, number: int, *, half: bool) -> int | None:
    """Run the operations in a child that ends at the call ``number`` of ``step``; the number of those that ended.

    ``None`` if the child came to its end.
    """
    reader, writer = os.pipe()
    if (child := os.fork()) == 0:
        left = number
        real = getattr(os, step)

        def last(*args: Any) -> Any:
            nonlocal left
            left -= 1
            if left < 0:
                if half and step == "pwrite":
                    handle, data, place = args
                    real(handle, data[: len(data) // 2], place)
                os._exit(9)
            return real(*args)

        setattr(os, step, last)
        try:
            book = opened(path)
            for operation in OPERATIONS:
                operation(book)
                os.write(writer, b".")
        finally:
            os._exit(0 if sys.exception() is None else 1)
    os.close(writer)
    _, status = os.waitpid(child, 0)
    ended = len(os.read(reader, 100))
    os.close(reader)
    code = os.waitstatus_to_exitcode(status)
    assert code in (0, 9)
    return ended if code == 9 else None


def die_everywhere(directory: Path, step: str, *, half: bool) -> None:
    """Leave in ``directory`` the journal of a death at each call of ``step``, and print how far each process came.

    For a process with one thread, which may fork.
    """
    number = 0
    while (ended := die(directory / str(number), step, number, half=half)) is not None:
        sys.stdout.write(f"{ended}\n")
        number += 1


@pytest.mark.parametrize(("step", "least"), [("pwrite", 16), ("fsync", 12), ("rename", 2), ("ftruncate", 0)])
@pytest.mark.parametrize("half", [False, True])
def test_a_death_at_any_step_leaves_the_state_before_or_after_the_operation(
    tmp_path: Path, step: str, least: int, *, half: bool
) -> None:
    expected = states(tmp_path / "whole")
    program = f"""
from pathlib import Path
from tests.state.test_journal import die_everywhere
die_everywhere(Path({str(tmp_path)!r}), {step!r}, half={half})
"""
    done = subprocess.run([sys.executable, "-c", program], check=True, cwd=Path.cwd(), capture_output=True, text=True)
    deaths = [int(line) for line in done.stdout.split()]

    for number, ended in enumerate(deaths):
        found = read(tmp_path / str(number))
        assert settled(found) in map(settled, expected[ended : ended + 2])
        if found.pending:  # begun and not answered, to be tried again; all from before is there
            assert settled(found) == settled(expected[ended])
            assert len(found.pending) == 1
    assert len(deaths) >= least
    assert settled(read(tmp_path / str(len(deaths)))) == settled(expected[-1])


def test_a_file_cut_at_any_byte_has_all_records_before_the_cut(path: Path, tmp_path: Path) -> None:
    book = opened(path)
    for operation in OPERATIONS[:7]:
        operation(book)
    book.close()
    content = path.read_bytes()
    journal = Journal(path)
    records = journal.records
    journal.close()
    assert len(records) > 10
    later = {"do": "uninstall", "biz": "none:1"}
    cut = tmp_path / "cut"
    for length in range(len(content) + 1):
        cut.write_bytes(content[:length])
        whole = records[: max(content[:length].count(b"\n") - 1, 0)]

        journal = Journal(cut)

        assert (journal.records, journal.notice) == (whole, "")
        journal.append(later, is_durable=False)
        journal.close()
        again = Journal(cut)
        assert (again.records, again.notice) == ((*whole, later), "")
        again.close()


def test_damage_in_the_midst_costs_the_damaged_records_alone(path: Path) -> None:
    book = opened(path)
    for name in ("one", "two", "three"):
        install(book, f"{name}:1")
    book.close()
    content = bytearray(path.read_bytes())
    place = content.index(b'"biz":"two:1"')
    content[place + 7] ^= 1
    path.write_bytes(content)

    found, notice = loaded(path)

    assert "is damaged in 1 place; the" in notice
    (aside,) = path.parent.glob("journal.damaged-*")
    assert aside.name in notice
    assert aside.read_bytes() == content
    assert {str(each.id) for each in found.standing().modules} == {"one:1", "three:1"}
    found.close()
    assert Journal(path).notice == ""  # what could be read is a whole file now


@pytest.mark.parametrize(
    "content", [b"\0" * 100, b"no journal\n", b"x", b"00000000 {}\n", b'99999999 {"do":"install"}\n']
)
def test_a_file_that_is_no_journal_is_set_aside(path: Path, content: bytes) -> None:
    path.write_bytes(content)

    journal = Journal(path)

    assert journal.records == ()
    assert "no journal; the base starts empty, and the file is kept as journal.damaged-" in journal.notice
    journal.close()
    assert next(path.parent.glob("journal.damaged-*")).read_bytes() == content


def test_a_directory_in_the_place_of_the_journal_is_set_aside(path: Path) -> None:
    path.mkdir()

    book, notice = loaded(path)

    assert "cannot be read (Is a directory)" in notice
    book.open()
    install(book, "shop:1")
    book.close()
    assert len(read(path).modules) == 1


def test_any_bytes_keep_no_base_from_starting(path: Path) -> None:
    states(path)
    content = path.read_bytes()
    chance = random.Random(7)
    for _ in range(120):
        changed = bytearray(content)
        for _ in range(chance.randrange(1, 8)):
            place = chance.randrange(len(changed))
            match chance.randrange(3):
                case 0:
                    changed[place] = chance.randrange(256)
                case 1:
                    del changed[place : place + chance.randrange(40)]
                case _:
                    changed[place:place] = chance.randbytes(chance.randrange(40))
        path.write_bytes(changed)
        book = opened(path)
        install(book, "after:1")
        book.close()
        assert biz("after:1") in read(path).active
        path.unlink()


def test_records_that_make_no_sense_are_left_out_and_told(path: Path) -> None:
    journal = Journal(path)
    install(book := opened(path.with_name("other")), "shop:1")
    book.close()
    for record in (
        {"do": "install"},
        {"do": "install", "biz": 1},
        {"do": "switch", "biz": "x"},
        {"do": "of a later version"},
    ):
        journal.append(record, is_durable=False)
    journal.close()

    book, notice = loaded(path)

    assert notice == f"3 records of the journal {path} make no sense and were left out"
    book.close()


@pytest.mark.parametrize("step", ["pwrite", "fsync"])
def test_a_change_that_the_disk_refuses_is_not_begun(
    path: Path, open_book: Book, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    install(open_book, "shop:1")
    before = open_book.standing()
    real = getattr(os, step)

    def full(handle: int, *args: Any) -> Any:
        if step == "pwrite":
            real(handle, args[0][:10], args[1])  # a part fits
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, step, full)
        with pytest.raises(StateUnwritable, match=r"the install of shop:2 cannot be recorded .* No space left"):
            open_book.installing(wanted("shop:2"))
        with pytest.raises(StateUnwritable, match="the uninstall of shop:1"):
            open_book.leaving(biz("shop:1"))
    assert open_book.standing() == before
    install(open_book, "shop:2")
    assert read(path) == open_book.standing()
    assert Journal(path).notice == ""


def test_an_outcome_that_the_disk_refuses_is_noted_with_the_next_change(
    path: Path, open_book: Book, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    order = open_book.installing(wanted("shop:1"))

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        open_book.settle(biz("shop:1"), lambda: [Version(biz("shop:1"), order, is_started=True, is_active=True)])
    assert "No space left" in caplog.text
    assert [str(each.id) for each in read(path).pending] == ["shop:1"]

    install(open_book, "prices:1")
    assert read(path) == open_book.standing()
    assert {str(each.id) for each in read(path).modules} == {"shop:1", "prices:1"}


def test_many_changes_do_not_make_a_long_file(path: Path, open_book: Book) -> None:
    lengths = []
    for number in range(400):
        install(open_book, "shop:1", digest=str(number))
        lengths.append(path.stat().st_size)

    assert max(lengths) < 100_000
    assert read(path) == open_book.standing()
    assert [each.digest for each in read(path).before] == ["398"]


def test_values_of_variables_are_not_written(path: Path, open_book: Book) -> None:
    open_book.installing(wanted("shop:1", variables=("TOKEN",)))

    assert b"TOKEN" in path.read_bytes()
    assert path.stat().st_mode & 0o777 == 0o600


def test_threads_note_one_after_the_other(path: Path) -> None:
    program = """
import sys, threading
from pathlib import Path
from tests.state.test_journal import install, opened
book = opened(Path(sys.argv[1]))
threads = [threading.Thread(target=lambda n=n: [install(book, f"m{n}:{v}") for v in range(30)]) for n in range(8)]
[t.start() for t in threads]; [t.join() for t in threads]
book.close()
"""
    subprocess.run([sys.executable, "-c", program, path], check=True, cwd=Path.cwd())

    assert {str(each.id) for each in read(path).modules} == {f"m{n}:29" for n in range(8)}
