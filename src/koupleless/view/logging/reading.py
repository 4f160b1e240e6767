"""Read the logs of modules back: the newest entries, and the entries after a place, over rotations.

A place is the identity of a file and an offset; the text of a place is opaque to clients. An entry is a line that
begins with a time, with the lines below up to the next such line.

A life of a module goes from the begin of a start to the end of the module, by the entries of the base in the log. A
base that is killed writes no end; the next start then is the end.
"""

from __future__ import annotations

import datetime as dt
import enum
import json
import logging
import re
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from koupleless.view.logging.files import older_file
from koupleless.view.logging.logbook import SUFFIX

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from koupleless.view.logging.logbook import Logbook

_TIME: Final = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}"
_HEAD: Final = re.compile(rf"(?P<time>{_TIME}) (?P<level>.+?) (?P<biz>\S+?:\S+) (?:koupleless: (?P<said>.*))?")
_STARTED: Final = re.compile(r"installed(?: in (?P<spent>\d+) ms)?\b")
_FAILED: Final = "failed to start"
_STOPPED: Final = "uninstalled"
"""The entries of the base about the life of a module begin with these texts."""
_SLACK_S: Final = 0.002
"""Times in a log are cut to milliseconds, and so is the time of a start."""
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
    biz: str = ""
    """Name and version of the module."""
    said: str = ""
    """The first line of a message of the base about the module; empty for all other messages."""


class Life(enum.Enum):
    """A life of one version of a module, by the log."""

    CURRENT = "current"
    """The last life with an entry, whether it goes on or not."""
    PREVIOUS = "previous"
    """The life before."""


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
    version: str = ""
    """The version of the one module of `names`; empty means all versions."""
    life: Life | None = None
    """The life of this version; ``None`` means all lives."""

    def has(self, entry: Entry) -> bool:
        """Whether an entry is asked for, of whichever module and life."""
        return entry.level >= self.level and entry.created >= self.since and self._is_of_version(entry)

    def choose(self, entries: Iterable[Entry]) -> tuple[list[Entry], bool]:
        """Return the entries asked for, of all entries of one log; and whether older entries could be asked for, too.

        Without a life, older entries always could be. A start in an older file, of a life that still drains, is not
        looked for.
        """
        if self.life is None:
            return [entry for entry in entries if self.has(entry)], True
        own = [entry for entry in entries if self._is_of_version(entry)]
        lives = list(_lives(own))
        back = 1 if self.life is Life.CURRENT else 2
        chosen = lives[-back] if back <= len(lives) else []
        before = lives[-back - 1] if back < len(lives) else []
        is_begin_known = any(_STARTED.match(entry.said) for entry in before)  # else the end there may be of another
        return [entry for entry in chosen if self.has(entry)], not is_begin_known

    def _is_of_version(self, entry: Entry) -> bool:
        return not self.version or entry.biz.partition(":")[2] == self.version


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
        entries = _entries(text, name)
        found += wish.choose(entries)[0] if places is None else [entry for entry in entries if wish.has(entry)]
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
    chosen, has_more = wish.choose(entries)
    return bool(entries) and (entries[0].created < wish.since or len(chosen) >= wish.most or not has_more)


def _lives(entries: Sequence[Entry]) -> Iterator[list[Entry]]:
    """Divide the entries of one version of a module into lives, the oldest first; no life is empty.

    A module that is started again while the former life goes on has a new life from then on.
    """
    begin = 0
    running = 0
    for index, entry in enumerate(entries):
        if (started := _STARTED.match(entry.said)) is not None:
            if running:  # the base was killed, or the module is started again
                first = entry.created - int(started["spent"] or 0) / 1000 - _SLACK_S
                while index > begin and entries[index - 1].created >= first and not _is_end(entries[index - 1]):
                    index -= 1  # noqa: PLW2901 - back to the begin of the start
                if index > begin:
                    yield list(entries[begin:index])
                begin = index
            running += 1
        elif _is_end(entry):
            is_start = entry.said.startswith(_FAILED)
            if is_start and running:
                continue  # the former life goes on
            running = max(0, running - 1)
            if not running:
                yield list(entries[begin : index + 1])
                begin = index + 1
    if begin < len(entries):
        yield list(entries[begin:])


def _is_end(entry: Entry) -> bool:
    return entry.said.startswith((_STOPPED, _FAILED))


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
    head: _Head | None = None
    lines: list[str] = []
    for line in text.removesuffix("\n").split("\n"):
        new = _head(line)
        if new is None:
            lines.append(line)
            continue
        if head is not None:
            yield head.entry(name, lines)
        head, lines = new, [line]
    if head is not None:
        yield head.entry(name, lines)


class _Head(NamedTuple):
    """The begin of an entry."""

    created: float
    level: int
    biz: str
    said: str

    def entry(self, name: str, lines: Iterable[str]) -> Entry:
        return Entry(self.created, self.level, name, "\n".join(lines), self.biz, self.said)


def _head(line: str) -> _Head | None:
    """Read a line that begins an entry; ``None`` for other lines."""
    if line.startswith("{"):
        try:
            told = json.loads(line)
            said = str(told["message"]).partition("\n")[0] if told.get("logger") == "koupleless" else ""
            biz = f"{told.get('biz', '')}:{told.get('version', '')}"
            return _Head(_seconds(told["time"]), _level(told["level"]), biz, said)
        except (ValueError, KeyError, TypeError, AttributeError):
            return None
    found = _HEAD.match(line)
    if found is None:
        return None
    return _Head(_seconds(found["time"].replace(",", ".")), _level(found["level"]), found["biz"], found["said"] or "")


def _seconds(text: str) -> float:
    return dt.datetime.fromisoformat(text).timestamp()


def _level(name: str) -> int:
    """The number of a level; that of a name only the module knows counts as INFO."""
    return logging.getLevelNamesMapping().get(name, logging.INFO)
