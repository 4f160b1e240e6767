"""Zip archives from strangers: every bad one is refused in words, and none takes more than its share to find out."""

from __future__ import annotations

import random
import stat
import struct
import zipfile
from typing import TYPE_CHECKING

import pytest

from koupleless.artifact.archive import DEFAULT_LIMITS, Archive, Limits, digest_of, write_archive
from koupleless.errors import ArchiveRefused, ArtifactError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.artifact.conftest import MakeFiles, MakeZip


def read_all(path: Path, limits: Limits = DEFAULT_LIMITS) -> dict[str, bytes]:
    with Archive(path, limits=limits) as archive:
        return {name: b"".join(archive.chunks(name)) for name in archive.entries}


def write_entry(
    path: Path, name: str, data: bytes = b"x", change: Callable[[zipfile.ZipInfo], None] | None = None
) -> Path:
    info = zipfile.ZipInfo(name)
    info.compress_type = zipfile.ZIP_DEFLATED
    if change is not None:
        change(info)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(info, data)
    return path


def patch(path: Path, offset: int, form: str, value: int) -> None:
    """Overwrite a field of the first entry in the central directory, and nothing else."""
    data = bytearray(path.read_bytes())
    struct.pack_into(form, data, data.index(b"PK\x01\x02") + offset, value)
    path.write_bytes(data)


def test_a_sound_archive_is_read_whole(make_zip: MakeZip) -> None:
    files = {"a/b.txt": b"1" * 1000, "c": b""}
    assert read_all(make_zip(files)) == files


def test_directories_are_no_files(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.mkdir("pkg")
        archive.writestr("pkg/a", "1")
    assert read_all(tmp_path / "x.zip") == {"pkg/a": b"1"}


@pytest.mark.parametrize("name", ["../evil", "a/../../evil", "/etc/evil", "C:/evil", "a\\b", "a//b", "./a", "a/\x01"])
def test_a_path_that_leads_elsewhere_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ArchiveRefused, match="entry"):
        read_all(write_entry(tmp_path / "x.zip", name))


def test_a_path_with_a_zero_byte_is_refused(tmp_path: Path) -> None:
    path = write_entry(tmp_path / "x.zip", "a.py_.txt")
    path.write_bytes(path.read_bytes().replace(b"a.py_.txt", b"a.py\0.txt"))
    with pytest.raises(ArchiveRefused, match="control character"):
        read_all(path)


@pytest.mark.parametrize(
    ("kind", "words"), [(stat.S_IFLNK, "is a link"), (stat.S_IFIFO, "special file"), (stat.S_IFCHR, "special file")]
)
def test_links_and_devices_are_refused(tmp_path: Path, kind: int, words: str) -> None:
    def make(info: zipfile.ZipInfo) -> None:
        info.create_system = 3
        info.external_attr = (kind | 0o777) << 16

    with pytest.raises(ArchiveRefused, match=words):
        read_all(write_entry(tmp_path / "x.zip", "link", b"/etc/passwd", make))


def test_an_encrypted_entry_is_refused(tmp_path: Path) -> None:
    path = write_entry(tmp_path / "x.zip", "a")
    patch(path, 8, "<H", 0x1)
    with pytest.raises(ArchiveRefused, match="encrypted"):
        read_all(path)


def test_an_unusual_compression_is_refused(tmp_path: Path) -> None:
    path = write_entry(tmp_path / "x.zip", "a", change=lambda info: setattr(info, "compress_type", zipfile.ZIP_LZMA))
    with pytest.raises(ArchiveRefused, match="method 14"):
        read_all(path)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_that_stands_twice_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("a", "1")
        archive.writestr("a", "2")
    with pytest.raises(ArchiveRefused, match="'a' twice"):
        read_all(tmp_path / "x.zip")


@pytest.mark.parametrize("names", [("a", "a/b"), ("a/b/c", "a/b")])
def test_a_name_that_is_file_and_directory_is_refused(make_zip: MakeZip, names: tuple[str, str]) -> None:
    with pytest.raises(ArchiveRefused, match="both as a file and as a directory"):
        read_all(make_zip(dict.fromkeys(names, b"")))


@pytest.mark.parametrize(("count", "size"), [(1, 40 << 20), (40, 1 << 20)], ids=["one file", "many files"])
def test_a_bomb_is_refused_before_it_is_read_whatever_its_files_are(make_zip: MakeZip, count: int, size: int) -> None:
    with pytest.raises(ArchiveRefused, match="a bomb"):
        Archive(make_zip({f"bomb{number}": bytes(size) for number in range(count)}))


def test_a_padded_file_among_others_is_no_bomb(make_zip: MakeZip) -> None:
    """As the libraries that wheels bundle, which are filled up with zeros for the linker."""
    files = {"padded.so": bytes(48 << 20), "code.so": random.Random(3).randbytes(400_000)}
    path = make_zip(files)
    with zipfile.ZipFile(path) as archive:
        padded = archive.getinfo("padded.so")
        assert padded.file_size > 900 * padded.compress_size
    assert {name: len(data) for name, data in read_all(path).items()} == {"padded.so": 48 << 20, "code.so": 400_000}


def test_a_bomb_that_is_read_several_times_is_stopped(make_zip: MakeZip) -> None:
    with Archive(make_zip({"zeros": bytes(20 << 20)})) as archive:
        list(archive.chunks("zeros"))
        with pytest.raises(ArchiveRefused, match="a bomb"):
            list(archive.chunks("zeros"))


def test_entries_that_use_the_same_bytes_are_refused(tmp_path: Path, make_zip: MakeZip) -> None:
    """One kernel of zeros, named by many entries of the directory: each has a good ratio, none has bytes of its own."""
    path = make_zip({f"z{number:03}": bytes(2 << 20) for number in range(40)})
    data = bytearray(path.read_bytes())
    kernel = data.index(b"PK\x03\x04")
    place, end = data.index(b"PK\x01\x02"), 0
    first = data.index(b"PK\x03\x04", kernel + 4)
    directory = bytearray(data[place:])
    while (at := directory.find(b"PK\x01\x02", end)) >= 0:
        struct.pack_into("<L", directory, at + 42, 0)  # all begin where the first does
        end = at + 4
    struct.pack_into("<L", directory, directory.rindex(b"PK\x05\x06") + 16, first)
    (tmp_path / "kernel.zip").write_bytes(bytes(data[:first]) + bytes(directory))
    with pytest.raises(ArchiveRefused, match="overlap"):
        Archive(tmp_path / "kernel.zip")


def test_an_archive_in_an_archive_stays_packed(make_zip: MakeZip) -> None:
    inner = make_zip({"bomb": bytes(40 << 20)}).read_bytes()
    assert read_all(make_zip({"inner.zip": inner})) == {"inner.zip": inner}


def test_a_bomb_that_lies_about_its_size_gives_no_more_than_it_promised(make_zip: MakeZip) -> None:
    path = make_zip({"bomb": bytes(10 << 20)})
    patch(path, 24, "<L", 1000)
    seen: list[int] = []
    with Archive(path) as archive, pytest.raises(ArchiveRefused, match="damaged"):
        seen.extend(len(piece) for piece in archive.chunks("bomb"))
    assert sum(seen) <= 1000


def test_small_files_may_have_any_ratio(make_zip: MakeZip) -> None:
    assert len(read_all(make_zip({"zeros": bytes(1 << 20)}))["zeros"]) == 1 << 20


def test_the_total_is_limited_by_what_is_promised(make_zip: MakeZip) -> None:
    with pytest.raises(ArchiveRefused, match="more than 100 bytes"):
        read_all(make_zip({"a": b"x" * 60, "b": b"x" * 60}), Limits(max_bytes=100))


def test_the_total_is_limited_by_what_comes_out(make_zip: MakeZip) -> None:
    path = make_zip({"a": b"x" * 60, "b": b"y" * 60})
    with Archive(path, limits=Limits(max_bytes=150)) as archive:
        list(archive.chunks("a"))
        list(archive.chunks("b"))
        with pytest.raises(ArchiveRefused, match="more than 150 bytes"):
            list(archive.chunks("a"))


def test_too_many_entries_are_refused_before_they_are_listed(
    make_zip: MakeZip, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_zip({f"f{number}": b"" for number in range(11)})

    def never(*_: object) -> None:
        raise AssertionError("the entries were listed")

    monkeypatch.setattr("koupleless.artifact.archive.zipfile.ZipFile", never)
    with pytest.raises(ArchiveRefused, match="more than 10 entries"):
        read_all(path, Limits(max_files=10))


def test_entries_that_share_their_bytes_are_refused(make_zip: MakeZip) -> None:
    path = make_zip({"a": random.Random(1).randbytes(5000)})
    patch(path, 20, "<L", 4_000_000)
    with pytest.raises(ArchiveRefused, match="overlap"):
        read_all(path)


@pytest.mark.parametrize("keep", [0, 1, 20, 100, -1, -30])
def test_a_truncated_archive_is_refused(make_zip: MakeZip, make_files: MakeFiles, keep: int) -> None:
    path = make_zip(make_files())
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ArchiveRefused):
        read_all(path)


def test_something_that_is_no_archive_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.zip").write_text("<html>" * 1000)
    with pytest.raises(ArchiveRefused, match="no zip archive"):
        read_all(tmp_path / "x.zip")


def test_a_missing_file_is_an_error_in_words(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="No such file"):
        read_all(tmp_path / "none.zip")
    with pytest.raises(ArtifactError, match="No such file"):
        digest_of(tmp_path / "none.zip")


def test_a_text_that_is_none_is_refused(make_zip: MakeZip) -> None:
    with Archive(make_zip({"t": b"\xff\xfe"})) as archive, pytest.raises(ArchiveRefused, match="no UTF-8"):
        archive.read_text("t")


def test_a_manifest_larger_than_any_is_refused(make_zip: MakeZip) -> None:
    with (
        Archive(make_zip({"t": b"x" * 20}), limits=Limits(max_manifest_bytes=10)) as archive,
        pytest.raises(ArchiveRefused, match="larger than 10"),
    ):
        archive.read_text("t")


def test_whatever_is_flipped_the_answer_is_the_content_or_an_error_of_ours(
    make_zip: MakeZip, make_files: MakeFiles, tmp_path: Path
) -> None:
    """Two thousand archives with a few bytes changed; none may raise anything but an ``ArtifactError``."""
    chance = random.Random(20)
    sound = make_zip(make_files()).read_bytes()
    path = tmp_path / "flipped.zip"
    refused = 0
    for _ in range(2000):
        data = bytearray(sound)
        for _ in range(chance.randint(1, 4)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        path.write_bytes(data[: chance.choice([None, None, chance.randrange(len(data))])])
        try:
            read_all(path)
        except ArtifactError:
            refused += 1
    assert refused > 1000


def test_the_same_files_give_the_same_bytes(tmp_path: Path) -> None:
    files = {"a.py": b"x = 1\n" * 100, "mark": b""}
    size = write_archive(tmp_path / "one" / "a.zip", files)
    write_archive(tmp_path / "two" / "b.zip", files)
    one, two = (tmp_path / "one" / "a.zip"), (tmp_path / "two" / "b.zip")
    assert one.read_bytes() == two.read_bytes()
    assert size == one.stat().st_size
    with zipfile.ZipFile(one) as archive:
        assert {info.date_time for info in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        assert {info.external_attr >> 16 for info in archive.infolist()} == {0o100644}


def test_an_archive_that_cannot_be_put_in_place_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("koupleless.artifact.archive.os.replace", fail)
    with pytest.raises(OSError, match="No space"):
        write_archive(tmp_path / "a.zip", {"a": b"1"})
    assert list(tmp_path.iterdir()) == []
