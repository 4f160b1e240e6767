"""Keep the logging of one biz: root logger, loggers, levels, handlers and file.

Loggers of a biz carry the biz with them (through their manager), and so are right in any thread and context. The base
is a biz's last resort: a record without a handler of the biz goes to the base's handlers, as a copy with the biz's
identity as ``record.biz``. The record itself has the attributes that it has alone: formatters write what they find.
"""

from __future__ import annotations

import copy
import functools
import logging
import sys
import threading
import time
import weakref
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from koupleless.context import as_base, crossed, entered
from koupleless.frames import passed_over, seen_as
from koupleless.view.logging.lines import Event, line_of
from koupleless.view.logging.logbook import Logbook

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from koupleless.context import Scope
    from koupleless.view.logging.files import LogFile

_LONGEST: Final = 1 << 16
"""Characters kept of a line of output that does not end."""
_BUSY_S: Final = 1.0
"""Seconds that `LogSpace.close` waits for a handler to which a thread is just writing."""

module_lock: Final[threading.RLock] = logging._lock  # type: ignore[attr-defined]  # noqa: SLF001 - it guards all tables
"""The one lock of the logging module; held by every change to loggers of several bizs."""

_unformatted: Final = logging.Handler()
"""Tells of records that cannot be formatted, as every handler does."""

_live: weakref.WeakSet[LogSpace] = weakref.WeakSet()


def live_spaces() -> list[LogSpace]:
    """Return the spaces not yet closed."""
    with module_lock:
        return list(_live)


class BizRoot(logging.RootLogger):
    """The root logger of one biz. Its level reads as in a fresh process until somebody sets one."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.own_level: int | None = None

    @property
    def level(self) -> int:
        """The level as it reads; the level in effect may be the base's."""
        return logging.WARNING if self.own_level is None else self.own_level

    @level.setter
    def level(self, value: int) -> None:
        self.own_level = value

    def addHandler(self, hdlr: logging.Handler) -> None:  # noqa: N802 - the name is logging's
        """Add a handler; the first one makes the biz's levels its own."""
        super().addHandler(hdlr)
        self.manager._clear_cache()  # type: ignore[attr-defined]  # noqa: SLF001 - as Logger.setLevel does

    def removeHandler(self, hdlr: logging.Handler) -> None:  # noqa: N802 - the name is logging's
        """Remove a handler; without one the base's levels may be in effect again."""
        super().removeHandler(hdlr)
        self.manager._clear_cache()  # type: ignore[attr-defined]  # noqa: SLF001 - as Logger.setLevel does


class BizManager(logging.Manager):
    """The table of one biz's loggers."""

    def __init__(self, space: LogSpace, root: BizRoot) -> None:
        super().__init__(root)
        self.space = space

    @passed_over
    def getLogger(self, name: str) -> logging.Logger:  # noqa: N802 - the name is logging's
        """Return the biz's logger of this name, made now if need be."""
        with module_lock:
            logger = super().getLogger(name)
            if "getEffectiveLevel" not in vars(logger):
                self.space.adopt(logger)
        return logger


@dataclass(slots=True)
class ModuleVariables:
    """Global variables of the logging module, for one biz."""

    handler_refs: list[weakref.ref[logging.Handler]] = field(default_factory=list)
    """``_handlerList``."""
    named_handlers: weakref.WeakValueDictionary[str, logging.Handler] = field(
        default_factory=weakref.WeakValueDictionary
    )
    """``_handlers``."""
    level_to_name: dict[int, str] | None = None
    """``_levelToName``, from the biz's first own level name on; before, the base's counts."""
    name_to_level: dict[str, int] | None = None
    record_factory: Callable[..., logging.LogRecord] | None = None
    captures_warnings: bool = False
    show_warning: Callable[..., None] | None = None
    """The biz's own function to show warnings, from before warnings were captured."""


def _base_logger(name: str) -> logging.Logger:
    """Return the base's logger in charge of ``name``, without making one. To be called as the base."""
    loggers: Mapping[str, Any] = logging.Logger.manager.loggerDict
    while name:
        found = loggers.get(name)
        if isinstance(found, logging.Logger) and not found.disabled:
            return found
        name = name.rpartition(".")[0]
    return logging.getLogger()


class LogSpace:
    """The logging of one biz: a facet of its scope.

    With ``file``, records at the biz's root also go to this file, besides any handlers of the biz; the file is made
    with the first record. Records without a handler of the biz go to the console of ``logbook``, or to the base.
    ``level`` is the root's; without one the level of ``logbook``, or the base's, counts until the biz configures
    logging, and then ``WARNING`` as in any fresh process. ``has_process`` says: no handlers of the base are behind the
    biz's, and a biz without a handler gets one when it logs, as alone.

    Lifetime: made before the biz's first import, closed when the biz leaves, before the scope is. The loggers may be
    used from any thread, also afterwards: then records go through the base.
    """

    def __init__(
        self,
        scope: Scope,
        logbook: Logbook | None = None,
        *,
        file: Path | None = None,
        level: int | str | None = None,
        has_process: bool = False,
    ) -> None:
        self.identity = str(scope.biz)
        self.has_process = has_process
        self.logbook = logbook or Logbook()
        self.root = BizRoot()
        self.manager = BizManager(self, self.root)
        self.variables = ModuleVariables()
        self.file = None if file is None else self.logbook.file(file)
        """The operator's file, not among the handlers that the biz may close."""
        self._unfinished: dict[tuple[str, int], str] = {}
        """The beginnings of lines of output, by stream and thread."""
        self._scope = scope
        vars(self.root)["manager"] = self.manager
        self.adopt(self.root)
        if level is not None:
            self.root.setLevel(level)
        with module_lock:
            _live.add(self)

    @classmethod
    def from_configuration(
        cls, scope: Scope, configuration: Mapping[str, object], *, logbook: Logbook | None = None
    ) -> LogSpace:
        """Make the logging of a biz by its configuration.

        ``logging.level.root`` and ``logging.level.<logger>`` are levels by name or number. The file is
        ``logging.file.name``, else ``<biz>.log``, in the biz's own folder of ``logbook``; without a directory there and
        without an absolute name there is none. Raises ``ValueError`` for an unknown level.
        """
        logbook = logbook or Logbook()
        prefix = "logging.level."
        levels = {key.removeprefix(prefix): value for key, value in configuration.items() if key.startswith(prefix)}
        name = configuration.get("logging.file.name")
        file = logbook.place(scope.biz, None if name is None else str(name))
        if file is None and name is not None and Path(str(name)).is_absolute():
            file = Path(str(name))
        levels.pop("root", None)
        root_level = configuration.get("logging.level.root")
        space = cls(scope, logbook, file=file, level=None if root_level is None else _level(root_level))
        for logger, level in levels.items():
            space.manager.getLogger(logger).setLevel(_level(level))
        return space

    def logger(self, name: str) -> logging.Logger:
        """Return the biz's logger of this name; takes no lock for an existing one."""
        known = self.manager.loggerDict.get(name)
        return known if isinstance(known, logging.Logger) else self.manager.getLogger(name)

    def adopt(self, logger: logging.Logger) -> None:
        """Let a logger of this biz find the level in effect by the rules of this space.

        The function is set on the instance, not in a class: the base's loggers pay nothing, and the biz keeps its own
        logger class.
        """
        vars(logger)["getEffectiveLevel"] = functools.partial(self._level_of, logger)

    def _level_of(self, logger: logging.Logger) -> int:
        name = "" if logger is self.root else logger.name
        of_base = self._loggers_of_shared_library(name)
        while name:
            for loggers in (self.manager.loggerDict, of_base):
                found = loggers.get(name)
                if isinstance(found, logging.Logger) and found.level:
                    return found.level
            name = name.rpartition(".")[0]
        if self.root.own_level is not None or self.root.handlers:
            return self.root.level
        if self.logbook.level is not None:
            return self.logbook.level
        with as_base():
            return _base_logger(logger.name).getEffectiveLevel()

    def _loggers_of_shared_library(self, name: str) -> Mapping[str, Any]:
        """Return the base's loggers if ``name`` begins with the name of a package that the biz shares with the base.

        A library sets levels on its own loggers when it is imported, and the import was the base's.
        """
        package = name.partition(".")[0]
        with as_base():
            loggers: Mapping[str, Any] = logging.Logger.manager.loggerDict
            of_base = sys.modules.get(package)
        if of_base is None:
            return {}
        with entered(self._scope):
            return loggers if sys.modules.get(package) is of_base else {}

    @seen_as(logging.Logger.callHandlers)
    def deliver(self, logger: logging.Logger, record: logging.LogRecord, *, is_handled: bool) -> None:
        """Hand a record to the log, and to the console or the base if no handler of the biz got the record."""
        file, console = self.file, self.logbook.console
        if file is not None:
            self._keep(file, record)
        if is_handled or (file is not None and console is None):
            return
        named = copy.copy(record)
        named.biz = self.identity
        if console is not None:
            console.handle(named)
            return
        with as_base():  # the base's handlers and filters are code of the base
            last_resort = _base_logger(logger.name)
            if last_resort.isEnabledFor(record.levelno):
                last_resort.handle(named)

    def _keep(self, file: LogFile, record: logging.LogRecord) -> None:
        try:
            line = line_of(self.logbook.lines, record, self.identity)
        except Exception:  # noqa: BLE001 - the arguments of the record are objects of the biz
            _unformatted.handleError(record)
            return
        file.write(line)

    def note(self, level: str, logger: str, message: str, **more: object) -> None:
        """Write an event that is no record of the biz to the file of the biz, if there is one."""
        file = self.file
        if file is not None:
            file.write(self.logbook.lines.line(Event(time.time(), level, self.identity, logger, message, more)))

    def note_output(self, level: str, stream: str, text: str) -> None:
        """Write the lines that are whole with this text; the rest waits for the end of the line of this thread."""
        key = stream, threading.get_ident()
        *whole, rest = (self._unfinished.pop(key, "") + text).split("\n")
        if len(rest) > _LONGEST:
            whole.append(rest)
        elif rest:
            self._unfinished[key] = rest
        for line in whole:
            self.note(level, stream, line.removesuffix("\r"))

    def close(self) -> tuple[str, ...]:
        """Flush and close the handlers opened by the biz, newest first, and let go of all the loggers. Idempotent.

        Returns failures, in words.
        """
        with module_lock:
            _live.discard(self)
            refs = self.variables.handler_refs[::-1]
            loggers = [one for one in self.manager.loggerDict.values() if isinstance(one, logging.Logger)]
        failures: list[str] = []
        with crossed(self._scope):
            for handler in [ref() for ref in refs]:
                if handler is not None:
                    failures += _close(handler)
        while self._unfinished:
            (stream, _), rest = self._unfinished.popitem()
            self.note("INFO", stream, rest)
        if self.file is not None:
            self.file.close()
        with module_lock:
            for logger in (self.root, *loggers):
                logger.handlers.clear()
                logger.filters.clear()
                logger._cache.clear()  # type: ignore[attr-defined]  # noqa: SLF001 - levels are the base's from now on
            self.manager.loggerDict.clear()
            self.variables = ModuleVariables()
        return tuple(failures)

    def __repr__(self) -> str:
        return f"<LogSpace {self.identity}: {len(self.manager.loggerDict)} loggers>"


def _close(handler: logging.Handler) -> list[str]:
    lock = handler.lock
    if lock is not None:
        if not lock.acquire(timeout=_BUSY_S):
            return [f"log handler {type(handler).__name__} was not closed: a thread is writing to it"]
        lock.release()
    try:
        handler.flush()
        handler.close()
    except BaseException as error:  # noqa: BLE001 - a handler is code of the biz; returned, not lost
        return [f"log handler {type(handler).__name__} failed to close: {type(error).__name__}: {error}"]
    return []


def _level(value: object) -> int | str:
    return value if isinstance(value, int) else str(value).strip().upper()
