"""Lines of a log: a record, or an event without a record, as text for people or as JSON for programs."""

from __future__ import annotations

import json
import logging
import time
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

_NOTHING: Final[Mapping[str, object]] = MappingProxyType({})
_formatter: Final = logging.Formatter()
_KNOWN: Final = frozenset({*vars(logging.makeLogRecord({})), "message", "asctime", "taskName"})
"""Attributes of every record; others come from ``extra``."""
_PLAIN: Final = (str, int, float, bool, type(None))


class Event(NamedTuple):
    """An event for a line, of a biz or, without ``biz``, of the base."""

    created: float
    """The time, in seconds."""
    level: str
    biz: str
    logger: str
    message: str
    """May have several lines."""
    more: Mapping[str, object] = _NOTHING
    """Values by name, for programs only."""


class Lines(Protocol):
    """The form of lines. Without state that threads could disturb."""

    def line(self, event: Event) -> str:
        """Make the line of an event, without the line end."""


def line_of(lines: Lines, record: logging.LogRecord, biz: str) -> str:
    """Make the line of a record that ``biz`` has logged, with the traceback; changes nothing in the record.

    Raises any error of the arguments of the record, which are objects of the biz.
    """
    message, more = _message(record), _extra(record)
    return lines.line(Event(record.created, record.levelname, biz, record.name, message, more))


def _message(record: logging.LogRecord) -> str:
    parts = [record.getMessage()]
    if record.exc_text:
        parts.append(record.exc_text)
    elif record.exc_info:
        parts.append(_formatter.formatException(record.exc_info))
    if record.stack_info:
        parts.append(_formatter.formatStack(record.stack_info))
    return "\n".join(parts)


def _extra(record: logging.LogRecord) -> Mapping[str, object]:
    attributes = vars(record)
    if len(attributes) <= len(_KNOWN) - 2 and attributes.keys() <= _KNOWN:
        return _NOTHING
    return {name: value for name, value in attributes.items() if name not in _KNOWN}


class TextLines:
    """Lines for people: time, level, biz, logger, message; a message of several lines goes on below."""

    def __init__(self) -> None:
        self._second = (0, "")

    def line(self, event: Event) -> str:
        """Make a line as ``logging`` does, with the milliseconds behind a comma."""
        second, said = self._second  # one value, so that no thread sees a half
        now = int(event.created)
        if now != second:
            said = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(now))
            self._second = now, said
        milliseconds = int((event.created - now) * 1000)
        return f"{said},{milliseconds:03} {event.level} {event.biz} {event.logger}: {event.message}"


class JsonLines:
    """Lines for programs: one JSON object each."""

    def line(self, event: Event) -> str:
        """Make an object of time, level, logger, message, biz, version, and further values under names not taken."""
        name, _, version = event.biz.partition(":")
        said = {
            "time": _iso(event.created),
            "level": event.level,
            "logger": event.logger,
            "message": event.message,
        }
        if name:
            said |= {"biz": name, "version": version}
        more = {key: _jsonable(value) for key, value in event.more.items() if key not in said}
        return json.dumps({**said, **more}, ensure_ascii=False)


class ConsoleLines:
    """Lines for a terminal, in the form of the server's: the level, the message, and the module or ``name`` between."""

    def __init__(self, name: str = "") -> None:
        self._name = f"{name}: " if name else ""

    def line(self, event: Event) -> str:
        """Make a line without a time, which a terminal shows as it passes."""
        who = f"{event.biz} {event.logger}: " if event.biz else self._name
        return f"{event.level + ':':<10}{who}{event.message}"


class LinesFormatter(logging.Formatter):
    """A formatter of the logging module for handlers of the base: lines of a form; ``record.biz`` is the module."""

    def __init__(self, lines: Lines) -> None:
        super().__init__()
        self._lines = lines

    def format(self, record: logging.LogRecord) -> str:
        """Make the line of a record."""
        return line_of(self._lines, record, getattr(record, "biz", ""))


def _iso(created: float) -> str:
    zone = time.strftime("%z", time.localtime(created))
    second = int(created)
    clock = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(second))
    return f"{clock}.{int((created - second) * 1000):03}{zone[:3]}:{zone[3:]}"


def _jsonable(value: Any) -> object:
    return value if isinstance(value, _PLAIN) else str(value)
