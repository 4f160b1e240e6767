"""Make logging answer by context: state of the logging module, which a process has once, is kept once per biz.

The root logger and the manager, which everybody holds already, stay the same objects and look up the state for the
context. A logger made by the base (a shared library's, at import) hands records of a running biz to the biz's logger of
the same name, and asks this logger for the level in effect. Code of a biz that asks for a logger gets the biz's own.
"""

from __future__ import annotations

import atexit
import builtins
import functools
import logging
import logging.config
import sys
import warnings
from typing import TYPE_CHECKING, Any, Final

from koupleless.context import as_base, current
from koupleless.contextual import ContextCallable, ContextList, ContextMapping
from koupleless.frames import passed_over, seen_as, standing_for
from koupleless.replacing import Shared, replace, specialise
from koupleless.view.logging.logspace import BizManager, LogSpace, live_spaces, module_lock

if TYPE_CHECKING:
    import contextlib
    from collections.abc import Callable

__all__ = ["LOGS", "LogSpace"]


def _here() -> LogSpace | None:
    scope = current()
    return None if scope is None else scope.find_facet(LogSpace)


def _answering(logger: logging.Logger) -> logging.Logger:
    """Return the logger meant by ``logger`` in this context: while a biz runs, the biz's for a base's of this name."""
    space = _here()
    if space is None:
        return logger
    # A logger out of a table has a ``manager`` among its own attributes; a logger made directly by somebody is left
    # alone.
    manager = vars(logger).get("manager")
    if manager is None:
        return space.root if logger is logging.root else logger
    return logger if type(manager) is BizManager else space.logger(logger.name)


# --- the two objects of the process that everybody holds -------------------------------------------------------------


def _by_context(name: str, counterpart: Callable[[LogSpace], object]) -> property:
    """An attribute of a process-wide object that, while a biz runs, is the attribute of the biz's ``counterpart``."""

    def get(self: object) -> Any:
        if current() is None:  # the base's way is the short one: each record of the base comes along here
            return self.__dict__[name]
        space = _here()
        return self.__dict__[name] if space is None else getattr(counterpart(space), name)

    def put(self: object, value: object) -> None:
        space = _here()
        if space is None:
            vars(self)[name] = value
        else:
            setattr(counterpart(space), name, value)
            space.manager._clear_cache()  # type: ignore[attr-defined]  # noqa: SLF001 - levels may follow from it

    return property(get, put)


def _root_of(space: LogSpace) -> object:
    return space.root


def _manager_of(space: LogSpace) -> object:
    return space.manager


class ContextRoot(logging.RootLogger):
    """Class of ``logging.root`` while bizs may be there."""

    __slots__ = ()

    level = _by_context("level", _root_of)
    handlers = _by_context("handlers", _root_of)
    filters = _by_context("filters", _root_of)
    disabled = _by_context("disabled", _root_of)
    propagate = _by_context("propagate", _root_of)
    _cache = _by_context("_cache", _root_of)

    def isEnabledFor(self, level: int) -> bool:  # noqa: N802 - the name is logging's
        """Answer as other loggers do, but past the properties while the base is running."""
        if current() is None:
            state = self.__dict__
            enabled = state["_cache"].get(level)
            if enabled is not None and not state["disabled"]:
                return bool(enabled)
        return super().isEnabledFor(level)


class ContextManager(logging.Manager):
    """Class of ``logging.Logger.manager`` while bizs may be there."""

    __slots__ = ()

    loggerDict = _by_context("loggerDict", _manager_of)  # noqa: N815 - logging's name
    loggerClass = _by_context("loggerClass", _manager_of)  # noqa: N815 - logging's name
    emittedNoHandlerWarning = _by_context("emittedNoHandlerWarning", _manager_of)  # noqa: N815
    _disable = _by_context("_disable", _manager_of)

    @passed_over
    def getLogger(self, name: str) -> logging.Logger:  # noqa: N802 - the name is logging's
        """Return the logger of this name: the running biz's, else the base's."""
        space = _here()
        if space is not None:
            return space.manager.getLogger(name)
        known = self.__dict__["loggerDict"].get(name)
        return known if isinstance(known, logging.Logger) else super().getLogger(name)

    def _clear_cache(self) -> None:
        """Clear caches, of bizs as well on a change in the base: bizs without an own level follow the base's."""
        space = _here()
        if space is not None:
            space.manager._clear_cache()  # type: ignore[attr-defined]  # noqa: SLF001 - logging's own
            return
        super()._clear_cache()  # type: ignore[misc]
        for each in live_spaces():
            each.manager._clear_cache()  # type: ignore[attr-defined]  # noqa: SLF001 - logging's own


# --- loggers -------------------------------------------------------------------------------------------------------


def _is_enabled_for(original: Callable[[logging.Logger, int], bool]) -> Callable[[Any, int], bool]:
    @standing_for(original)
    def isEnabledFor(self: Any, level: int) -> bool:  # noqa: N802 - the name is logging's
        if current() is not None:
            return original(_answering(self), level)
        # The original's first lines again: calling the original would double the cost of a disabled message for the
        # base.
        if self.disabled:
            return False
        try:
            return self._cache[level]  # type: ignore[no-any-return]
        except KeyError:
            return original(self, level)

    return isEnabledFor


def _handle(original: Callable[[logging.Logger, logging.LogRecord], None]) -> Callable[..., None]:
    is_plain = getattr(original, "__globals__", None) is logging.Logger.info.__globals__

    @seen_as(original)
    @functools.wraps(original)
    def handle(self: logging.Logger, record: logging.LogRecord) -> None:
        if current() is not None:
            self = _answering(self)
        if not is_plain:
            original(self, record)
        elif not self.disabled:  # the original's lines again: handlers count frames
            kept: bool | logging.LogRecord = self.filter(record)
            if kept:
                self.callHandlers(kept if isinstance(kept, logging.LogRecord) else record)

    return handle


def _call_handlers(original: Callable[[logging.Logger, logging.LogRecord], None]) -> Callable[..., None]:
    """In the class, where a module that patches the function (Sentry does) finds ours as the one before."""

    @seen_as(original)
    @functools.wraps(original)
    def callHandlers(self: logging.Logger, record: logging.LogRecord) -> None:  # noqa: N802 - the name is logging's
        manager = self.__dict__.get("manager")
        if type(manager) is not BizManager:
            original(self, record)
            return
        is_handled, node = False, self
        while True:  # the original's lines again: handlers count frames
            for handler in node.handlers:
                is_handled = True
                if record.levelno >= handler.level:
                    handler.handle(record)
            if not node.propagate or node.parent is None:
                break
            node = node.parent
        manager.space.deliver(self, record, is_handled=is_handled)

    return callHandlers


def _answered(original: Callable[..., Any]) -> Callable[..., Any]:
    @standing_for(original)
    def method(self: logging.Logger, *args: Any, **kwargs: Any) -> Any:
        logger = _answering(self)
        if logger is not self:
            return getattr(logger, original.__name__)(*args, **kwargs)
        return original(self, *args, **kwargs)

    return method


# --- functions and variables of the module -------------------------------------------------------------------------


class _ModuleFunctions:
    """Functions to change state of the logging module, by context; made for one installation."""

    def __init__(self, undo: contextlib.ExitStack) -> None:
        self._undo = undo
        self._original_class: Any = logging.getLoggerClass
        self._original_set_class = logging.setLoggerClass
        self._original_add_level = logging.addLevelName
        self._original_set_factory = logging.setLogRecordFactory
        self._original_get_factory: Any = logging.getLogRecordFactory
        self._original_basic_config: Any = logging.basicConfig
        self._original_capture = logging.captureWarnings
        self._original_shutdown = logging.shutdown
        self._base_factory: Callable[..., logging.LogRecord] | None = None

    def put_in(self) -> None:
        for function in (
            self.setLoggerClass,
            self.getLoggerClass,
            self.addLevelName,
            self.setLogRecordFactory,
            self.getLogRecordFactory,
            self.basicConfig,
            self.captureWarnings,
            self.shutdown,
        ):
            replace(self._undo, logging, function.__name__, function)

    @passed_over
    def setLoggerClass(self, klass: type[logging.Logger]) -> None:  # noqa: N802 - the name is logging's
        space = _here()
        (self._original_set_class if space is None else space.manager.setLoggerClass)(klass)

    @passed_over
    def getLoggerClass(self) -> type[logging.Logger]:  # noqa: N802 - the name is logging's
        space = _here()
        return (space and space.manager.loggerClass) or self._original_class()

    @passed_over
    def shutdown(self, handlerList: Any = None) -> None:  # noqa: N803 - the name is logging's
        space = _here()
        if handlerList is not None:
            self._original_shutdown(handlerList)
        elif space is not None:
            self._original_shutdown(space.variables.handler_refs)
        else:
            self._original_shutdown()

    @passed_over
    def addLevelName(self, level: int, levelName: str) -> None:  # noqa: N802, N803 - the names are logging's
        space = _here()
        if space is not None:
            with module_lock:
                self._level_names_by_context()
                if space.variables.level_to_name is None:
                    space.variables.level_to_name = dict(logging._levelToName)  # noqa: SLF001 - no public name
                    space.variables.name_to_level = dict(logging._nameToLevel)  # noqa: SLF001 - no public name
        self._original_add_level(level, levelName)

    def _level_names_by_context(self) -> None:
        """Let names of levels answer by context, from the first biz on that names a level.

        Not earlier, since every record looks its level up here.
        """
        to_name, to_level = logging._levelToName, logging._nameToLevel  # noqa: SLF001 - they have no public name
        if isinstance(to_name, ContextMapping):
            return

        def names() -> Any:
            space = _here()
            return (space and space.variables.level_to_name) or to_name

        def levels() -> Any:
            space = _here()
            return (space and space.variables.name_to_level) or to_level

        replace(self._undo, logging, "_levelToName", ContextMapping(names))
        replace(self._undo, logging, "_nameToLevel", ContextMapping(levels))

    @passed_over
    def setLogRecordFactory(self, factory: Callable[..., logging.LogRecord]) -> None:  # noqa: N802 - logging's name
        space = _here()
        if space is not None:
            with module_lock:
                if self._base_factory is None:
                    self._base_factory = self._original_get_factory()
                    replace(self._undo, logging, "_logRecordFactory", ContextCallable(self.getLogRecordFactory))
            space.variables.record_factory = factory
        elif self._base_factory is not None:
            self._base_factory = factory
        else:
            self._original_set_factory(factory)

    @passed_over
    def getLogRecordFactory(self) -> Callable[..., logging.LogRecord]:  # noqa: N802 - the name is logging's
        space = _here()
        factory = None if space is None else space.variables.record_factory
        return factory or self._base_factory or self._original_get_factory()

    @passed_over
    def basicConfig(self, **kwargs: Any) -> None:  # noqa: N802 - the name is logging's
        # ``logging.info`` and its kin call ``basicConfig`` where there is no handler; a biz has the base's then.
        is_asked_for = sys._getframe(1).f_globals is not vars(logging)  # noqa: SLF001 - there is no other way to ask
        space = _here()
        if is_asked_for or space is None or space.has_process:
            self._original_basic_config(**kwargs)

    @passed_over
    def captureWarnings(self, capture: bool) -> None:  # noqa: N802 - the name is logging's
        space = _here()
        if space is None:
            self._original_capture(capture)
            return
        variables = space.variables
        if capture and not variables.captures_warnings:
            before = warnings.showwarning
            with as_base():
                is_own = before is not warnings.showwarning
            variables.show_warning = before if is_own else None
            warnings.showwarning = logging._showwarning  # type: ignore[attr-defined]  # noqa: SLF001 - as it does itself
        elif not capture and variables.captures_warnings:
            if variables.show_warning is None:
                del warnings.showwarning  # the biz has the process's function again
            else:
                warnings.showwarning = variables.show_warning
        variables.captures_warnings = capture


class _HandlerRefs(ContextList[Any]):
    """``logging._handlerList``. A handler may be collected, and its reference removed, while anybody is running."""

    __slots__ = ("_of_base",)

    def __init__(self, of_base: list[Any]) -> None:
        super().__init__(self._meant)
        self._of_base = of_base

    def _meant(self) -> list[Any]:
        space = _here()
        return self._of_base if space is None else space.variables.handler_refs

    def __bool__(self) -> bool:
        return True

    def remove(self, value: Any, /, is_ending: Callable[[], bool] = sys.is_finalizing) -> None:
        if is_ending():  # the globals of this module may be gone
            return
        for refs in (self._of_base, *(space.variables.handler_refs for space in live_spaces())):
            if value in refs:
                refs.remove(value)
                return
        raise ValueError("not in list")


def _close_all() -> None:
    """Close handlers of all bizs at interpreter exit, as the logging module does for the base's handlers."""
    for space in live_spaces():
        space.close()


def _import(*args: Any, **kwargs: Any) -> Any:
    return builtins.__import__(*args, **kwargs)


def _put_in(undo: contextlib.ExitStack) -> None:
    named: Any = logging._handlers  # type: ignore[attr-defined]  # noqa: SLF001 - they have no public name
    refs: list[Any] = logging._handlerList  # type: ignore[attr-defined]  # noqa: SLF001 - they have no public name

    def named_here() -> Any:
        space = _here()
        return named if space is None else space.variables.named_handlers

    replace(undo, logging, "_handlers", ContextMapping(named_here))
    replace(undo, logging, "_handlerList", _HandlerRefs(refs))
    _ModuleFunctions(undo).put_in()
    specialise(undo, logging.root, ContextRoot)
    specialise(undo, logging.Logger.manager, ContextManager)
    replace(undo, logging.Logger, "isEnabledFor", _is_enabled_for(logging.Logger.isEnabledFor))
    replace(undo, logging.Logger, "handle", _handle(logging.Logger.handle))
    replace(undo, logging.Logger, "callHandlers", _call_handlers(logging.Logger.callHandlers))
    for name in (
        "addHandler",
        "removeHandler",
        "addFilter",
        "removeFilter",
        "setLevel",
        "hasHandlers",
        "getEffectiveLevel",
    ):
        replace(undo, logging.Logger, name, _answered(getattr(logging.Logger, name)))
    # Names in a configuration are looked up by a function taken from the interpreter when the class was made.
    replace(undo, logging.config.BaseConfigurator, "importer", staticmethod(_import))
    atexit.register(_close_all)
    undo.callback(atexit.unregister, _close_all)


LOGS: Final = Shared("views of logging", _put_in)
"""Logging by context."""
