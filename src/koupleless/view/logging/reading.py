"""Read the logs of modules back: the newest entries, and the entries after a place, over rotations.

A place is the identity of a file and an offset; the text of a place is opaque to clients. An entry is a line that
begins with a time, with the lines below up to the next such line.
"""

from __future__ import annotations

import datetime as dt
import json
import logging
import re
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from koupleless.view.logging.files import older_file
from koupleless.view.logging.logbook import SUFFIX

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from koupleless.view.logging.logbook import Logbook

_TIME: Final = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}"
_HEAD: Final = re.compile(rf"(?P<time>{_TIME}) (?P<level>.+?) (?P<biz>\S+?:\S+) ")
_MOST_BYTES: Final = 4 << 20
"""Bytes that are read of one log for one answer."""


class Entry(NamedTuple):
    """One entry of a log."""

    created: float
    """The time, in seconds."""
    level: int
    name: str
    """The name of the module."""
    text: str
    """The lines, without the last line end."""


@dataclass(frozen=True, slots=True)
class Wish:
    """The entries that are asked for."""

    names: tuple[str, ...] = ()
    """The names of modules; empty means all."""
    most: int = 100
    """The number of entries, the newest of all."""
    level: int = logging.NOTSET
    """The lowest level."""
    since: float = 0.0
    """The earliest time, in seconds."""

    def has(self, entry: Entry) -> bool:
        """Whether an entry is asked for, of whichever module."""
        return entry.level >= self.level and entry.created >= self.since


@dataclass(frozen=True, slots=True)
class Reading:
    """Entries in the order of time, and the places behind, by path, for the next reading."""

    entries: tuple[Entry, ...]
    places: Mapping[str, str]


def names_of(logbook: Logbook, names: Iterable[str] = ()) -> list[str]:
    """The names of modules with logs, of ``names`` or of all."""
    directory = logbook.directory
    if directory is None or not directory.is_dir():
        return []
    there = sorted(path.name for path in directory.iterdir() if path.is_dir())
    return [name for name in there if not names or name in names]


def no_logs(logbook: Logbook, name: str) -> str:
    """Say why there is no log of a module."""
    if logbook.directory is None:
        return "this base keeps no logs of modules: it has no log-dir"
    others = ", ".join(names_of(logbook)) or "no module"
    return f"there is no log of {name} in {logbook.directory}; there are logs of {others}"


def read_logs(logbook: Logbook, wish: Wish, places: Mapping[str, str] | None = None) -> Reading:
    """Read the newest entries; or, with the ``places`` of an earlier reading, the entries after these places.

    A log without a place among ``places`` has come since, and is read from its beginning. Files that cannot be read
    have no entries. Takes time by the size of the logs, and is for a thread.
    """
    found: list[Entry] = []
    ends: dict[str, str] = {}
    for name, path in _logs(logbook, wish.names):
        key = f"{name}/{path.name}"
        place = None if places is None else places.get(key, "")
        text, ends[key] = _after(path, place) if place is not None else _newest(path, wish)
        found += [entry for entry in _entries(text, name) if wish.has(entry)]
    found.sort(key=lambda entry: entry.created)  # a stable sort: entries of one log stay in their order
    return Reading(tuple(found[max(0, len(found) - wish.most) :] if places is None else found), ends)


def _logs(logbook: Logbook, names: Iterable[str]) -> Iterator[tuple[str, Path]]:
    for name in names_of(logbook, names):
        assert logbook.directory is not None
        yield from ((name, path) for path in sorted((logbook.directory / name).glob(f"*{SUFFIX}")))


def _newest(path: Path, wish: Wish) -> tuple[str, str]:
    """Read a log from the end, and older files as far as entries are wanted; returns the text, and the place behind."""
    parts: deque[str] = deque()
    size, end = 0, ""
    for number, file in enumerate(_files(path)):
        try:
            with file.open("rb") as stream:
                length = stream.seek(0, 2)
                begin = max(0, length - (_MOST_BYTES - size))
                stream.seek(begin)
                data = stream.read(length - begin)
                if not number:
                    data = data[: data.rfind(b"\n") + 1]
                    end = _place(file, begin + len(data))
        except OSError:
            break
        parts.appendleft(data.decode("utf-8", "replace"))
        size += len(data)
        if begin or size >= _MOST_BYTES or _is_enough("".join(parts), wish):
            break
    return "".join(parts), end


def _is_enough(text: str, wish: Wish) -> bool:
    entries = list(_entries(text, ""))
    return bool(entries) and (entries[0].created < wish.since or sum(wish.has(entry) for entry in entries) >= wish.most)


def _after(path: Path, place: str) -> tuple[str, str]:
    """Read the lines that are whole after a place; where the file of the place was rotated away, from there on."""
    identity, _, offset = place.partition(":")
    newer: list[Path] = []
    for file in _files(path):
        newer.append(file)
        if not identity or _identity(file) == identity:
            break
    else:
        newer, offset = newer[:1], ""  # the file of the place is gone
    if not identity:
        newer, offset = newer[:1], ""
    text, end = "", place
    for file in reversed(newer):
        try:
            with file.open("rb") as stream:
                begin = int(offset or 0)
                stream.seek(begin if begin <= stream.seek(0, 2) else 0)  # a file that was cut begins anew
                begin = stream.tell()
                data = stream.read(_MOST_BYTES)
                data = data[: data.rfind(b"\n") + 1]
        except (OSError, ValueError):
            continue
        text += data.decode("utf-8", "replace")
        end, offset = _place(file, begin + len(data)), ""
    return text, end


def _files(path: Path) -> Iterator[Path]:
    """The file at a path, and the older ones, the newest first."""
    number = 0
    file = path
    while file.exists():
        yield file
        number += 1
        file = older_file(path, number)


def _identity(file: Path) -> str:
    try:
        there = file.stat()
    except OSError:
        return ""
    return f"{there.st_dev:x}-{there.st_ino:x}"


def _place(file: Path, offset: int) -> str:
    return f"{_identity(file)}:{offset}"


def _entries(text: str, name: str) -> Iterator[Entry]:
    """Divide text into entries; lines before the first entry, of one whose head was cut off, are left out."""
    head: tuple[float, int] | None = None
    lines: list[str] = []
    for line in text.removesuffix("\n").split("\n"):
        new = _head(line)
        if new is None:
            lines.append(line)
            continue
        if head is not None:
            yield Entry(*head, name, "\n".join(lines))
        head, lines = new, [line]
    if head is not None:
        yield Entry(*head, name, "\n".join(lines))


def _head(line: str) -> tuple[float, int] | None:
    """The time and the level of a line that begins an entry."""
    if line.startswith("{"):
        try:
            said = json.loads(line)
            return _seconds(said["time"]), _level(said["level"])
        except (ValueError, KeyError, TypeError):
            return None
    found = _HEAD.match(line)
    return None if found is None else (_seconds(found["time"].replace(",", ".")), _level(found["level"]))


def _seconds(text: str) -> float:
    return dt.datetime.fromisoformat(text).timestamp()


def _level(name: str) -> int:
    """The number of a level; that of a name only the module knows counts as INFO."""
    return logging.getLevelNamesMapping().get(name, logging.INFO)
