"""Recorders for registries of the interpreter and the standard library: exit functions, codecs, hooks.

A registration with a way back is recorded, or swept when the biz leaves. For a registration without a way back, a
trampoline is registered, which is emptied. Settings of the whole process, signals among them, are guarded in
``view.process``.
"""

from __future__ import annotations

import atexit
import codecs
import copyreg
import functools
import gc
import linecache
import logging
import os
import sys
import threading
import weakref
from typing import TYPE_CHECKING, Any, Final

from koupleless.context import as_base, call_as, current
from koupleless.contextual import ContextCallable
from koupleless.errors import in_words
from koupleless.frames import passed_over, standing_for
from koupleless.ownership.belonging import attributes, tracked_of
from koupleless.ownership.ledger import Ledger, bounded, owner, take_out
from koupleless.ownership.purge import Sweep
from koupleless.ownership.recording import enter_own
from koupleless.ownership.registered import note_error, note_exit
from koupleless.recorders.running.once import is_of_process

if TYPE_CHECKING:
    import types
    from collections.abc import Callable, Iterable

    from koupleless.context import Scope
    from koupleless.ownership.belonging import Survey
    from koupleless.ownership.ledger import Entry
    from koupleless.ownership.recording import Patches


_log: Final = logging.getLogger("koupleless")


def install(patches: Patches) -> None:
    """Replace the functions that register, and remember the hooks of the base when a ledger is opened."""
    patches.replace(atexit, "register", _atexit_register)
    patches.replace(atexit, "unregister", _atexit_unregister)
    patches.replace(codecs, "register", _codecs_register)
    patches.replace(codecs, "unregister", _codecs_unregister)
    patches.replace(codecs, "register_error", _codecs_register_error)
    _install_own_entries(patches)
    if hasattr(os, "register_at_fork"):
        patches.replace(os, "register_at_fork", _register_at_fork)
    patches.replace(sys, "addaudithook", _addaudithook)
    monitoring: Any = getattr(sys, "monitoring", None)  # from 3.12 on
    if monitoring is not None:
        patches.replace(monitoring, "use_tool_id", functools.partial(_use_tool_id, monitoring))
        patches.replace(monitoring, "free_tool_id", _free_tool_id)
    patches.replace(weakref.finalize, "__init__", _finalize_init)
    patches.when_opened(_remember_hooks)


# --- atexit: exit functions of a biz run when the biz ends ------------------------------------------------------------


class _ExitFunction:
    """Exit function of a biz as ``atexit`` holds the function; the interpreter calls it if the biz stays to the end."""

    def __init__(
        self, scope: Scope, function: Callable[..., object], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        self.scope = scope
        self.function = function
        self.args = args
        self.kwargs = kwargs
        self.entry: Entry | None = None

    def __call__(self) -> None:
        call_as(self.scope, self.function, *self.args, **self.kwargs)

    def __repr__(self) -> str:
        return repr(self.function)  # the interpreter names a failing exit function so

    def undo(self, unregister: Callable[[Callable[..., object]], object], ledger: Ledger) -> None:
        unregister(self)
        bounded(self, name=f"atexit {ledger.biz}", timeout_s=ledger.remaining_s())


def _atexit_register(original: Callable[..., Any]) -> Any:
    unregister = atexit.unregister  # replaced by ours, by now or later; ours passes on functions of the base

    @standing_for(original)
    def register(func: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Callable[..., Any]:
        scope = current()
        ledger = None if scope is None or is_of_process(sys._getframe(1)) else scope.find_facet(Ledger)  # noqa: SLF001
        if scope is None or ledger is None or not callable(func):
            if not args and not kwargs:
                note_exit(func)
            return original(func, *args, **kwargs)  # type: ignore[no-any-return]
        held = _ExitFunction(scope, func, args, kwargs)
        original(held)
        undo = functools.partial(held.undo, unregister, ledger)
        held.entry = ledger.record("atexit", _name(func), undo)
        ledger.notes.setdefault("atexit", []).append(held)
        return func

    return register


def _atexit_unregister(original: Callable[[object], None]) -> Any:
    @standing_for(original)
    def unregister(func: object, /) -> None:
        ledger = owner()
        if ledger is None:
            return original(func)
        mine: list[_ExitFunction] = ledger.notes.get("atexit", [])
        for held in [held for held in mine if held.function == func]:
            mine.remove(held)
            original(held)
            if held.entry is not None:
                ledger.forget(held.entry)
        return None

    return unregister


# --- codecs, copyreg -------------------------------------------------------------------------------------------------


def _codecs_register(original: Callable[[Any], None]) -> Any:
    unregister = codecs.unregister

    @standing_for(original)
    def register(search_function: Callable[[str], codecs.CodecInfo | None], /) -> None:
        original(search_function)
        ledger = owner()
        if ledger is not None:
            entry = ledger.record("codec", _name(search_function), functools.partial(unregister, search_function))
            ledger.notes.setdefault("codecs", []).append((search_function, entry))

    return register


def _codecs_unregister(original: Callable[[Any], None]) -> Any:
    @standing_for(original)
    def unregister(search_function: Callable[[str], codecs.CodecInfo | None], /) -> None:
        original(search_function)
        ledger = owner()
        if ledger is not None:
            for pair in [pair for pair in ledger.notes.get("codecs", []) if pair[0] is search_function]:
                ledger.notes["codecs"].remove(pair)
                ledger.forget(pair[1])

    return unregister


class _Box:
    """Content of a biz for a trampoline that stays for ever; emptied when the biz leaves."""

    def __init__(self, content: Any) -> None:
        self.content = content

    def empty(self) -> None:
        self.content = None


def _codecs_register_error(original: Callable[[str, Any], None]) -> Any:
    @standing_for(original)
    def register_error(errors: str, handler: Callable[[UnicodeError], tuple[str | bytes, int]], /) -> None:
        ledger = owner()
        if ledger is None or not callable(handler):
            note_error(errors)
            return original(errors, handler)
        try:
            before = codecs.lookup_error(errors)
        except LookupError:
            before = None
        box = _Box(handler)

        def gone(_: UnicodeError) -> tuple[str | bytes, int]:
            raise LookupError(f"unknown error handler name {errors!r}")

        trampoline = ContextCallable(lambda: box.content or gone)
        original(errors, trampoline)

        def undo() -> None:
            box.empty()
            if before is not None and codecs.lookup_error(errors) is trampoline:
                original(errors, before)

        ledger.record("codec error handler", repr(errors), undo)
        return None

    return register_error


# --- registrations for ever: one trampoline for all bizs --------------------------------------------------------------

_fork_boxes: Final[list[_Box]] = []
_audit_boxes: Final[list[_Box]] = []
_trampolines: Final[set[str]] = set()


def _register_at_fork(original: Callable[..., None]) -> Any:
    def call(phase: str, boxes: Iterable[_Box]) -> None:
        for box in boxes:
            hook = (box.content or {}).get(phase)
            if hook is not None:
                hook()

    @standing_for(original)
    def register_at_fork(**hooks: Callable[[], object]) -> None:
        ledger = owner()
        if ledger is None or not all(callable(hook) for hook in hooks.values()):
            return original(**hooks)
        if "fork" not in _trampolines:
            _trampolines.add("fork")
            original(
                before=lambda: call("before", _fork_boxes[::-1]),
                after_in_parent=lambda: call("after_in_parent", list(_fork_boxes)),
                after_in_child=lambda: call("after_in_child", list(_fork_boxes)),
            )
        scope = ledger.scope
        as_biz = {phase: functools.partial(call_as, scope, hook) for phase, hook in hooks.items()}
        _keep(_fork_boxes, as_biz, ledger, "fork")
        return None

    return register_at_fork


@passed_over
def _addaudithook(original: Callable[[Callable[[str, tuple[Any, ...]], Any]], None]) -> Any:
    def trampoline(event: str, args: tuple[Any, ...]) -> None:
        for box in tuple(_audit_boxes):
            if box.content is not None:
                _hear(box, event, args)

    @standing_for(original)
    def addaudithook(hook: Callable[[str, tuple[Any, ...]], Any]) -> None:
        ledger = owner()
        if ledger is None:
            return original(hook)
        if "audit" not in _trampolines:
            _trampolines.add("audit")
            original(trampoline)
        _keep(_audit_boxes, (ledger.scope, hook), ledger, "audit")
        return None

    return addaudithook


@passed_over
def _hear(box: _Box, event: str, args: tuple[Any, ...]) -> None:
    """Call the audit hook of a biz. The hook may forbid acts of the biz; a hook that forbids others is emptied."""
    scope, hook = box.content
    if current() is scope:
        hook(event, args)
        return
    try:
        hook(event, args)
    except BaseException as error:  # noqa: BLE001 - code of the biz; told
        box.empty()
        with as_base():
            _log.warning(
                "an audit hook of biz %s is called no more: %s, at %r of others", scope.biz, in_words(error), event
            )


def _keep(boxes: list[_Box], content: Any, ledger: Ledger, kind: str) -> None:
    box = _Box(content)
    boxes.append(box)

    def undo() -> None:
        box.empty()
        boxes.remove(box)

    ledger.record(f"{kind} hook", _name(content[1] if kind == "audit" else content), undo)


# --- tools of sys.monitoring -----------------------------------------------------------------------------------------


def _use_tool_id(monitoring: Any, original: Callable[[int, str], None]) -> Any:
    free, set_events, register = monitoring.free_tool_id, monitoring.set_events, monitoring.register_callback
    events = [value for name, value in vars(monitoring.events).items() if name.isupper() and value]

    def end(tool: int) -> None:
        set_events(tool, 0)
        for event in events:
            register(tool, event, None)  # 3.12 and 3.13 keep the callbacks of a freed tool
        free(tool)

    @functools.wraps(original)
    def use_tool_id(tool_id: int, name: str, /) -> None:
        original(tool_id, name)
        ledger = owner()
        if ledger is not None:
            entry = ledger.record("monitoring tool", name, functools.partial(end, tool_id))
            ledger.notes.setdefault("monitoring", {})[tool_id] = entry

    return use_tool_id


def _free_tool_id(original: Callable[[int], None]) -> Any:
    @functools.wraps(original)
    def free_tool_id(tool_id: int, /) -> None:
        original(tool_id)
        ledger = owner()
        entry = None if ledger is None else ledger.notes.get("monitoring", {}).pop(tool_id, None)
        if ledger is not None and entry is not None:
            ledger.forget(entry)

    return free_tool_id


# --- hooks and lists that are swept when a biz leaves -----------------------------------------------------------------

_HOOKS: Final[tuple[tuple[types.ModuleType, str], ...]] = (
    (sys, "excepthook"),
    (sys, "unraisablehook"),
    (sys, "displayhook"),
    (sys, "breakpointhook"),
    (sys, "stdin"),
    (sys, "stdout"),
    (sys, "stderr"),
    (threading, "excepthook"),
    (threading, "_trace_hook"),
    (threading, "_profile_hook"),
    (logging, "_logRecordFactory"),
    (logging, "_loggerClass"),
    (logging, "lastResort"),
)
_lives: Final[weakref.WeakSet[Ledger]] = weakref.WeakSet()


def _remember_hooks(ledger: Ledger) -> None:
    _lives.add(ledger)
    for hook in _HOOKS:
        ledger.before[hook] = getattr(*hook, None)


def _put_hooks_back(survey: Survey) -> int:
    # The hook found by a starting biz may be another biz's, which may leave first: then the hook before is remembered.
    for life in list(_lives):
        for hook, value in life.before.items():
            if value is not None and survey.reaches(value):
                life.before[hook] = survey.before.get(hook)
    count = 0
    for hook in _HOOKS:
        value = getattr(*hook, None)
        if value is not None and survey.reaches(value):
            setattr(*hook, survey.before.get(hook))
            count += 1
    return count


def _sweep_lists(survey: Survey) -> int:
    """Take callbacks and hooks of the biz out of lists of the interpreter. Returns the number of entries taken out."""
    count = 0
    lists: tuple[list[Any], ...] = (gc.callbacks, sys.path_hooks, sys.meta_path)
    for listed in lists:
        for item in [item for item in listed if survey.reaches(item)]:
            take_out(listed, item)
            count += 1
    return count


def _sweep_copyreg(survey: Survey) -> int:
    """Remove pickling functions where the class or the function is of the biz. Returns the number removed."""
    count = 0
    for kind, function in list(copyreg.dispatch_table.items()):
        if survey.reaches(kind) or survey.reaches(function):
            take_out(copyreg.dispatch_table, kind)
            count += 1
    return count


def _forget_sources(survey: Survey) -> int:
    """Remove the lines of source files of the biz from ``linecache``. Not counted: the lines were not registered."""
    for file in survey.files:
        linecache.cache.pop(file, None)
    return 0


def _forget_warnings(survey: Survey) -> int:
    """Drop warning categories of the biz from the ``__warningregistry__`` of all Python modules. Returns the number."""
    count = 0
    for module in list(sys.modules.values()):
        registry = (attributes(module) or {}).get("__warningregistry__")
        if type(registry) is not dict:
            continue
        for key in list(registry):
            if type(key) is tuple and any(survey.owns(part) for part in key):
                take_out(registry, key)
                count += 1
    return count


def _forget_exceptions(survey: Survey) -> int:
    trace = getattr(sys, "last_traceback", None)
    error = getattr(sys, "last_exc", None) or getattr(sys, "last_value", None)
    is_ours = survey.owns(error) or any(survey.owns(part) for part in _traces(trace))
    if is_ours:
        for name in ("last_exc", "last_type", "last_value", "last_traceback"):
            if hasattr(sys, name):
                delattr(sys, name)
    return int(is_ours)


def _traces(trace: types.TracebackType | None) -> Iterable[types.TracebackType]:
    while trace is not None:
        yield trace
        trace = trace.tb_next


def _finalize_init(original: Callable[..., None]) -> Any:
    @standing_for(original)
    def __init__(self: Any, obj: Any, func: Any, /, *args: Any, **kwargs: Any) -> None:  # noqa: N807
        original(self, obj, func, *args, **kwargs)
        ledger = owner()
        info = None if ledger is None else _finalizers().get(self)
        if ledger is None or info is None:
            return
        made = ledger.finalizers
        made.add(info.index)
        if len(made) >= _MANY and len(made).bit_count() == 1:
            made.intersection_update({one.index for one in list(_finalizers().values())})

    return __init__


_MANY: Final = 1_024


def _finalizers() -> dict[Any, Any]:
    return getattr(weakref.finalize, "_registry", {})


def _sweep_finalizers(survey: Survey) -> int:
    """End ``weakref.finalize`` finalisers and after-fork functions of the biz that wait for an object of the base.

    Finalisers of the biz's own objects have run by now, except for a finaliser with an argument that leads to the
    awaited object, as a pool of urllib3 leads to a connection. As at interpreter exit, finalisers with ``atexit`` set
    are called. Returns the number of entries ended.
    """
    count = 0
    for finalizer, info in list(_finalizers().items()):
        reaches = survey.reaches_deeply if info.index in survey.finalizers else survey.reaches
        if any(reaches(part) for part in (info.func, *(info.args or ()), *(info.kwargs or {}).values())):
            run_at_exit = finalizer.atexit
            detached = finalizer.detach()
            if detached is None:
                continue
            count += 1
            if run_at_exit:
                _, function, args, kwargs = detached
                _quietly(function, *args, **(kwargs or {}))
    after_fork: dict[Any, Any] = getattr(sys.modules.get("multiprocessing.util"), "_afterfork_registry", {})
    for key in [key for key in list(after_fork) if survey.reaches(key)]:
        after_fork.pop(key, None)
        count += 1
    return count


def _sweep_locals(survey: Survey) -> int:
    count = 0
    for values in (values for local in _locals() for values in values_by_thread(local)):
        for name in [name for name, value in list(values.items()) if survey.reaches(value)]:
            values.pop(name, None)
            count += 1
    return count


def values_by_thread(local: threading.local) -> list[dict[str, Any]]:
    """Return the values of a thread local, one dictionary for each thread with values.

    Only the collector is shown all values: the referents of the thread local include a dictionary of dictionaries.
    """
    tables = [part for part in gc.get_referents(local) if type(part) is dict]
    return [values for by_thread in tables for values in list(by_thread.values()) if type(values) is dict]


def _locals() -> list[Any]:
    """List the ``threading.local`` objects of the process; in too large a heap, only those in globals."""
    kinds: dict[int, type] = {}
    todo: list[type] = [threading.local]
    while todo:
        kinds[id(todo[-1])] = todo[-1]
        todo += type.__subclasses__(todo.pop())
    things: list[Any] = tracked_of(*kinds.values()) if sys.getallocatedblocks() <= _LISTED else []
    for module in list(sys.modules.values()):  # frozen objects are not listed
        things += list((attributes(module) or {}).values())
    return list({id(thing): thing for thing in things if id(type(thing)) in kinds}.values())


_LISTED: Final = 1_000_000
"""Blocks of memory up to which all objects are listed: the listing takes 20 ms, in which no other thread runs."""


def _quietly(function: Callable[..., object], *args: Any, **kwargs: Any) -> None:
    try:
        function(*args, **kwargs)
    except BaseException as error:  # noqa: BLE001 - reported where finalisers report what they raise
        sys.unraisablehook(_Unraisable(error, function))


class _Unraisable:
    def __init__(self, error: BaseException, function: object) -> None:
        self.exc_type = type(error)
        self.exc_value: BaseException | None = error
        self.exc_traceback = error.__traceback__
        self.err_msg: str | None = "Exception ignored in the finaliser of a biz"
        self.object = function


def _name(thing: object) -> str:
    return getattr(thing, "__qualname__", None) or type(thing).__qualname__


# --- registries in which each biz has an entry of its own -------------------------------------------------------------

_SQLITE: Final = ("sqlite3", "sqlite3.dbapi2", "_sqlite3")


def _install_own_entries(patches: Patches) -> None:
    patches.replace(copyreg, "pickle", _copyreg_pickle)
    try:
        import sqlite3  # noqa: PLC0415 - Python may have been built without it
    except ImportError:
        return
    for name in _SQLITE:
        module = sys.modules[name]
        patches.replace(module, "register_adapter", functools.partial(_register_adapter, sqlite3))
        patches.replace(module, "register_converter", functools.partial(_register_converter, sqlite3))


def _copyreg_pickle(original: Callable[..., None]) -> Any:
    @standing_for(original)
    def pickle(ob_type: type, pickle_function: Any, constructor_ob: Any = None) -> None:
        if not callable(pickle_function):
            return original(ob_type, pickle_function, constructor_ob)  # the original refuses the function
        if constructor_ob is not None:
            copyreg.constructor(constructor_ob)
        put = functools.partial(copyreg.dispatch_table.__setitem__, ob_type)
        enter_own("copyreg", copyreg.dispatch_table, ob_type, pickle_function, put, _as_without_entry)
        return None

    return pickle


def _as_without_entry(value: Any) -> Any:
    return value.__reduce_ex__(4)


def _register_adapter(sqlite3: Any, original: Callable[..., None]) -> Any:
    def none(value: Any) -> Any:
        conform = getattr(value, "__conform__", None)
        return value if conform is None else conform(sqlite3.PrepareProtocol)

    @standing_for(original)
    def register_adapter(type: type, adapter: Callable[[Any], Any], /) -> None:  # noqa: A002 - as in sqlite3
        key = (type, sqlite3.PrepareProtocol)
        enter_own("sqlite3", sqlite3.adapters, key, adapter, functools.partial(original, type), none)

    return register_adapter


def _register_converter(sqlite3: Any, original: Callable[..., None]) -> Any:
    @standing_for(original)
    def register_converter(typename: str, converter: Callable[[bytes], Any], /) -> None:
        key, put = typename.upper(), functools.partial(original, typename)
        enter_own("sqlite3", sqlite3.converters, key, converter, put, _as_stored)

    return register_converter


def _as_stored(value: bytes) -> object:
    # For a column without a converter: the stored type is not told, so the value decides.
    for kind in (int, float):
        try:
            return kind(value)
        except ValueError:
            continue
    return value.decode()


SWEEPS: Final = (
    Sweep("hook", _put_hooks_back),
    Sweep("callback", _sweep_lists),
    Sweep("copyreg", _sweep_copyreg),
    Sweep("stored exception", _forget_exceptions),
    Sweep("shown warning", _forget_warnings),
    Sweep("source line", _forget_sources),
    Sweep("finalizer", _sweep_finalizers, is_thorough=True),
    Sweep("thread local", _sweep_locals, is_thorough=True),
)
