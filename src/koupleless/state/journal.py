"""A file of records, safe against the death of the process at any instruction.

A record is one line: the CRC-32 of the JSON text in hexadecimal, a space, the JSON text. The first record names the
format. A record counts once the line is whole; bytes behind the last whole line are the rest of an unfinished
write, and are cut off. The file is replaced by a shorter one of the same meaning through a rename.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
import zlib
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

Record: TypeAlias = dict[str, Any]

_FORMAT: Final = "koupleless-journal"
_VERSION: Final = 1


class Journal:
    """One open file of records.

    Lifetime: of a base. Threads: one at a time, as the caller sees to. The lock of the state directory keeps
    other processes away.
    """

    def __init__(self, path: Path) -> None:
        """Open the file, made if there is none. An unreadable file is set aside, and told in `notice`.

        Raises ``OSError`` if the directory refuses.
        """
        self.path = path
        found = _read(path)
        self.records: tuple[Record, ...] = found.records
        """The records found at the opening."""
        self.notice = self._set_aside(found.damage) if found.damage else ""
        """A sentence for the operator if the file was damaged; empty for a whole file, and for a torn last line."""
        self._length = len(self.records) + 1
        if found.is_whole:
            self._handle = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            self._end = found.end
            if os.fstat(self._handle).st_size > self._end:
                os.ftruncate(self._handle, self._end)
        else:
            self._handle, self._end = self._replaced(self.records)

    def __len__(self) -> int:
        """Count the records in the file, the first included."""
        return self._length

    def append(self, record: Record, *, is_durable: bool) -> None:
        """Add a record; with ``is_durable`` the record is on the disk when the call returns.

        Raises ``OSError`` if the disk refuses; the file is then as before.
        """
        line = _line(record)
        try:
            done = 0
            while done < len(line):
                done += os.pwrite(self._handle, line[done:], self._end + done)
            if is_durable:
                os.fsync(self._handle)
        except OSError:
            with contextlib.suppress(OSError):  # a rest is written over by the next record, or cut off at the opening
                os.ftruncate(self._handle, self._end)
            raise
        self._end += len(line)
        self._length += 1

    def rewrite(self, records: Iterable[Record]) -> None:
        """Replace all records by ``records``, in one step. Raises ``OSError``; the file is then as before."""
        records = tuple(records)
        old, (self._handle, self._end) = self._handle, self._replaced(records)
        self._length = len(records) + 1
        os.close(old)

    def close(self) -> None:
        """Let go of the file. Idempotent."""
        handle, self._handle = self._handle, -1
        if handle >= 0:
            os.close(handle)

    def _replaced(self, records: Iterable[Record]) -> tuple[int, int]:
        """Write a new file beside the old one and put it in place; returns descriptor and length."""
        new = self.path.with_name(f"{self.path.name}.new")
        text = b"".join(map(_line, ({_FORMAT: _VERSION}, *records)))
        handle = os.open(new, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            done = 0
            while done < len(text):
                done += os.pwrite(handle, text[done:], done)
            os.fsync(handle)
            os.rename(new, self.path)  # noqa: PTH104 - one name for each step that a test ends the process at
            _sync_directory(self.path.parent)
        except BaseException:
            os.close(handle)
            raise
        return handle, len(text)

    def _set_aside(self, damage: str) -> str:
        """Keep the damaged file under another name; returns the sentence for the operator."""
        aside = self.path.with_name(f"{self.path.name}.damaged-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}")
        try:
            os.link(self.path, aside)  # the file keeps its name as well, until the new one takes the name
        except OSError:  # a directory, or a file system without links
            os.rename(self.path, aside)  # noqa: PTH104 - as below
        kept = f"the {len(self.records)} records that can be read are used" if self.records else "the base starts empty"
        return f"the journal {self.path} {damage}; {kept}, and the file is kept as {aside.name}"


def read_records(path: Path) -> tuple[Record, ...]:
    """Read the records of a journal without a change of the file; of a damaged file those that can be read."""
    return _read(path).records


class _Found(NamedTuple):
    """The content of a file of records."""

    records: tuple[Record, ...] = ()
    end: int = 0
    """The length of the whole lines."""
    is_whole: bool = False
    """Whether more records may be added behind ``end``."""
    damage: str = ""
    """The reason, in words, for which the file cannot be used as it is."""


def _read(path: Path) -> _Found:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return _Found()
    except OSError as error:
        return _Found(damage=f"cannot be read ({error.strerror or error})")
    lines = content.split(b"\n")
    lines.pop()  # behind the last line end: nothing, or the rest of a write
    found = [_record(line) for line in lines]
    while found and found[-1] is None:
        found.pop()
    records = [record for record in found if record is not None]
    if not records:
        is_torn = _line({_FORMAT: _VERSION}).startswith(content)
        return _Found() if is_torn else _Found(damage="is no journal")
    version = records[0].get(_FORMAT)
    if version != _VERSION:
        newer = isinstance(version, int)
        return _Found(damage="was written by another version of koupleless" if newer else "has lost its beginning")
    end = sum(len(line) + 1 for line in lines[: len(found)])
    if len(records) < len(found):
        lost = len(found) - len(records)
        return _Found(tuple(records[1:]), end, damage=f"is damaged in {lost} place{'s' * (lost != 1)}")
    return _Found(tuple(records[1:]), end, is_whole=True)


def _line(record: Record) -> bytes:
    text = json.dumps(record, separators=(",", ":")).encode()
    return b"%08x %b\n" % (zlib.crc32(text), text)


def _record(line: bytes) -> Record | None:
    """Read one line; ``None`` for a damaged line."""
    checksum, _, text = line.partition(b" ")
    try:
        if int(checksum, 16) != zlib.crc32(text):
            return None
        record = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def _sync_directory(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
