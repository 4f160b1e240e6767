"""The logs of the modules of one base: a file for each name, and stderr for records without a handler of the module."""

from __future__ import annotations

import logging
import os
import sys
import time
import weakref
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Self

from koupleless.context import as_base
from koupleless.view.logging.files import LogFile, Rotation
from koupleless.view.logging.lines import ConsoleLines, Event, JsonLines, LinesFormatter, TextLines

if TYPE_CHECKING:
    from collections.abc import Iterator, MutableMapping
    from pathlib import Path

    from koupleless.biz import BizId
    from koupleless.view.logging.lines import Lines

SUFFIX: Final = ".log"

_log: Final = logging.getLogger("koupleless")


class Console(logging.Handler):
    """Writes to the stderr of the moment. An error of stderr is nobody's error: a log must not hurt a request."""

    def __init__(self, *, is_json: bool = False, name: str = "") -> None:
        super().__init__()
        self.setFormatter(LinesFormatter(JsonLines() if is_json else ConsoleLines(name)))

    def emit(self, record: logging.LogRecord) -> None:
        """Write the line of a record; the record is formatted as its module, and written as the base."""
        try:
            line = self.format(record)
        except Exception:  # noqa: BLE001 - the arguments of a record are objects of a module
            self.handleError(record)
            return
        with as_base(), suppress(Exception):
            stream = sys.stderr
            stream.write(f"{line}\n")
            stream.flush()


@contextmanager
def say_alone(logger: logging.Logger, console: Console) -> Iterator[None]:
    """Let records of ``logger``, from INFO on, reach stderr while nobody has configured logging, as in most servers."""

    def is_alone(record: logging.LogRecord) -> bool:  # noqa: ARG001 - as filters are called
        with as_base():
            return not logging.root.handlers and logger.handlers[0] is console

    with as_base():
        level = logger.level
        console.addFilter(is_alone)
        logger.addHandler(console)
        if level == logging.NOTSET:
            logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        with as_base():
            logger.removeHandler(console)
            if level == logging.NOTSET:
                logger.setLevel(level)


@dataclass(frozen=True, slots=True, kw_only=True)
class Logbook:
    """The places of the logs of modules, and their form. Thread-safe; lives as long as the base.

    Without ``directory`` and ``console``, records without a handler of their module go to the handlers of the base.
    """

    directory: Path | None = None
    """The parent of a directory for each name."""
    rotation: Rotation = field(default_factory=Rotation)
    lines: Lines = field(default_factory=TextLines)
    """The form of lines in files."""
    console: Console | None = None
    """Shows records without a handler of their module, in the place of the handlers of the base."""
    level: int | None = None
    """The level of modules that configure no logging; ``None`` is the base's."""
    has_access: bool = True
    """Whether each request has a line in the file of its module."""
    _files: MutableMapping[Path, LogFile] = field(
        default_factory=weakref.WeakValueDictionary[Any, Any], repr=False, compare=False
    )

    @classmethod
    def make(
        cls,
        directory: Path | None,
        rotation: Rotation,
        *,
        is_json: bool = False,
        level: str | None = None,
        has_access: bool = True,
        has_console: bool = False,
    ) -> Self:
        """Make a logbook of settings. A ``directory`` named ``-`` is none; ``has_console`` says whether to use stderr.

        A directory where nothing can be written is told, once, and is none.
        """
        if directory is not None and directory.name == "-":
            directory = None
        if directory is not None:
            directory = directory.absolute()  # modules have working directories of their own
        if directory is not None and (reason := _unusable(directory)):
            _log.warning("modules write no log files: %s: %s", directory, reason)
            directory = None
        return cls(
            directory=directory,
            rotation=rotation,
            lines=JsonLines() if is_json else TextLines(),
            console=Console(is_json=is_json) if has_console else None,
            level=None if level is None else logging.getLevelNamesMapping()[level],
            has_access=has_access,
        )

    def place(self, biz: BizId, name: str | None = None) -> Path | None:
        """The path of the log of a biz, whose configuration may give a ``name``; ``None`` if the biz has no file."""
        directory = self.directory
        if directory is not None:
            return directory / biz.name / (name or f"{biz.name}{SUFFIX}")
        return None

    def file(self, path: Path) -> LogFile:
        """The one file at ``path``, for all lives that write there."""
        return self._files.get(path) or self._files.setdefault(path, LogFile(path, self.rotation))

    def note(self, biz: BizId, level: int, message: str) -> None:
        """Write a line about a biz, there or not; nothing without a directory, or below the level."""
        path = self.place(biz)
        if path is not None and level >= (self.level or logging.INFO):
            event = Event(time.time(), logging.getLevelName(level), str(biz), "koupleless", message)
            self.file(path).write(self.lines.line(event))


def _unusable(directory: Path) -> str:
    """Say why no file can be made in a directory; nothing is made now, because a base without modules has no logs."""
    there = directory
    while not there.exists() and there != there.parent:
        there = there.parent
    if not there.is_dir():
        return f"{there} is no directory"
    return "" if os.access(there, os.W_OK | os.X_OK) else f"{there} is read-only"
