"""List the settings of the standard library that exist once per process, with their owners, as tables.

A call of a biz to change such a setting is ignored, with a warning that names the biz, or refused where the biz must
not go on as if the call had worked. A variable assigned by a biz is the biz's own, for readers of a module's attribute
as for functions with the variable among their globals.
"""

from __future__ import annotations

import asyncio
import functools
import gc
import os
import reprlib
import sys
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from koupleless.contextual import assign_by_context, call_by_context
from koupleless.frames import standing_for
from koupleless.replacing import replace
from koupleless.view.own import own_of, put_in_late, with_own_globals
from koupleless.view.shared import zone
from koupleless.view.shared.guest import guest, ignored, refused
from koupleless.view.standard.classes import own_attributes

if TYPE_CHECKING:
    import contextlib
    import types
    from collections.abc import Callable


@dataclass(frozen=True, slots=True)
class _Setting:
    """A function that changes a setting of the whole process."""

    where: str
    """Names of Python modules with the function, separated by spaces; replaced in all once the first is imported."""
    name: str
    what: str
    """The setting, in words."""
    is_so: Callable[..., bool] = lambda *_args, **_kwargs: False
    """Tell, given the arguments, whether the call changes nothing: sets the present value, or only asks for one."""
    answer: Callable[..., Any] = lambda *_args, **_kwargs: None
    """Return the answer for a biz, given the original function and the arguments."""
    is_refused: bool = False
    """Whether a biz must not go on as if the call had worked."""


def _none_given(*args: Any) -> bool:
    return not any(args)


def _asked(original: Callable[..., Any], *_args: Any, **_kwargs: Any) -> Any:
    """Answer as functions that return the present value if called without arguments."""
    return original()


def _is_other_process(pid: int, *_args: Any) -> bool:
    return pid not in {0, os.getpid()}


def _is_ours(pid: int) -> bool:
    """Tell whether a signal to ``pid`` reaches this process, alone, as one of a group or as one of all."""
    return pid in {0, -1, os.getpid(), -os.getpgrp()}


def _limits_are(resource: int, limits: Any) -> bool:
    return tuple(limits) == sys.modules["resource"].getrlimit(resource)  # type: ignore[no-any-return]


def _is_outside_loops(*_args: Any, **_kwargs: Any) -> bool:
    """Tell whether the thread has no running loop: there the setting is the biz's own affair."""
    return asyncio._get_running_loop() is None  # noqa: SLF001 - the public one raises


def _stops_nothing(which: int, seconds: float) -> bool:
    return not seconds and not any(sys.modules["signal"].getitimer(which))


def _lazy_mode() -> object:
    get: Callable[[], str] = getattr(sys, "get_lazy_imports")  # noqa: B009 - 3.15 and newer
    return get()


_COLLECTOR: Final = "the garbage collector"
_TRACED: Final = "the trace function of threads"
_PRIORITY: Final = "the priority"
_CATALOGUES: Final = "the message catalogue of C code"


def _is_main_thread() -> bool:
    """Tell whether this is the thread in which Python handles signals."""
    return threading.get_ident() == threading.main_thread().ident


_LIFE: Final = "the life of the process"
_STREAMS: Final = "a standard stream"
_STANDARD: Final = frozenset({0, 1, 2})

_SETTINGS: Final = (
    _Setting("gc", "disable", _COLLECTOR, lambda: not gc.isenabled()),
    _Setting("gc", "enable", _COLLECTOR, gc.isenabled),
    _Setting("gc", "freeze", _COLLECTOR),
    _Setting("gc", "unfreeze", _COLLECTOR, lambda: not gc.get_freeze_count()),
    _Setting("gc", "set_threshold", _COLLECTOR, lambda *given: given == gc.get_threshold()[: len(given)]),
    _Setting("gc", "set_debug", _COLLECTOR, lambda flags: flags == gc.get_debug()),
    _Setting("sys", "setswitchinterval", "the switch interval", lambda seconds: seconds == sys.getswitchinterval()),
    _Setting("sys", "setdlopenflags", "how libraries are loaded", lambda flags: flags == sys.getdlopenflags()),
    _Setting(
        "sys",
        "set_int_max_str_digits",
        "the limit for the digits of numbers",
        lambda maxdigits: maxdigits == sys.get_int_max_str_digits(),
    ),
    _Setting("sys", "set_lazy_imports", "which imports are lazy", lambda mode: mode == _lazy_mode()),
    _Setting("sys", "set_coroutine_origin_tracking_depth", "the tracking of coroutines", _is_outside_loops),
    _Setting("sys", "activate_stack_trampoline", "how the process is profiled"),
    _Setting("sys", "deactivate_stack_trampoline", "how the process is profiled"),
    _Setting("threading", "stack_size", "the stack of new threads", _none_given, _asked),
    _Setting("threading", "settrace_all_threads", _TRACED),
    _Setting("threading", "setprofile_all_threads", _TRACED),
    _Setting("csv _csv", "field_size_limit", "the limit for fields", lambda *limit: not limit, _asked),
    _Setting("faulthandler", "disable", "the report of a crash"),
    _Setting("time", "tzset", "the time zone", zone.is_of_process),
    _Setting("zoneinfo zoneinfo._tzpath", "reset_tzpath", "the search path for time zones"),
    _Setting("locale _locale", "textdomain", _CATALOGUES, _none_given, lambda original, _: original(None)),
    _Setting(
        "locale _locale",
        "bindtextdomain",
        _CATALOGUES,
        lambda _, to=None: to is None,
        lambda original, domain, _: original(domain, None),
    ),
    _Setting("multiprocessing.spawn", "set_executable", "the interpreter for child processes"),
    _Setting("multiprocessing.forkserver", "set_forkserver_preload", "the fork server"),
    _Setting("signal", "alarm", "an alarm", lambda seconds: _stops_nothing(0, seconds), lambda *_: 0),
    _Setting("signal", "setitimer", "a timer", lambda which, to, *_: _stops_nothing(which, to), lambda *_: (0.0, 0.0)),
    _Setting("signal", "siginterrupt", "the handling of signals"),
    _Setting("resource", "setrlimit", "a limit for resources", _limits_are),
    _Setting("os", "nice", _PRIORITY, lambda by: not by, lambda original, _: original(0)),
    _Setting("os", "setpriority", _PRIORITY, lambda which, who, _: which == os.PRIO_PROCESS and _is_other_process(who)),
    _Setting("os", "sched_setaffinity", "which processors are used", _is_other_process),
    _Setting("os", "setuid", "the user", lambda to: to == os.getuid() == os.geteuid(), is_refused=True),
    _Setting("os", "setgid", "the group", lambda to: to == os.getgid() == os.getegid(), is_refused=True),
    _Setting("os", "seteuid", "the user", lambda to: to == os.geteuid(), is_refused=True),
    _Setting("os", "setegid", "the group", lambda to: to == os.getegid(), is_refused=True),
    *(
        _Setting("os", name, "the user and the group", is_refused=True)
        for name in ("setreuid", "setregid", "setresuid", "setresgid", "setgroups", "initgroups")
    ),
    *(_Setting("os", name, "the session", is_refused=True) for name in ("setsid", "setpgrp")),
    _Setting("os", "setpgid", "the session", lambda pid, _: _is_other_process(pid), is_refused=True),
    _Setting("os", "chroot", "the root directory", is_refused=True),
    *(_Setting("os", name, "the process's view of the system", is_refused=True) for name in ("unshare", "setns")),
    # Calls that would end the process, or close its streams or sockets.
    *(_Setting("os posix", name, _LIFE, is_refused=True) for name in ("_exit", "abort", "execv", "execve")),
    _Setting("os posix", "kill", _LIFE, lambda pid, sig: not sig or not _is_ours(pid), is_refused=True),
    _Setting("os posix", "killpg", _LIFE, lambda group, sig: not sig or not _is_ours(-group), is_refused=True),
    _Setting("signal _signal", "raise_signal", _LIFE, is_refused=True),
    _Setting("signal _signal", "pthread_kill", _LIFE, lambda _, sig: not sig, is_refused=True),
    _Setting("_thread", "interrupt_main", _LIFE, is_refused=True),
    _Setting(
        "signal",
        "pthread_sigmask",
        "the handling of signals",
        # In other threads the mask is the biz's own, and pools block signals while they start a process.
        lambda how, mask: not mask or not _is_main_thread(),  # noqa: ARG005 - the names are those of the function
        lambda original, how, mask: original(how, ()),  # noqa: ARG005 - as above
    ),
    *(
        _Setting("faulthandler", name, "the report of a crash")
        for name in ("dump_traceback_later", "cancel_dump_traceback_later", "register", "unregister")
    ),
    _Setting("os posix", "close", _STREAMS, lambda fd: fd not in _STANDARD, is_refused=True),
    _Setting("os posix", "dup2", _STREAMS, lambda fd, fd2, **_: fd2 not in _STANDARD, is_refused=True),  # noqa: ARG005
    _Setting("os posix", "closerange", "what is open", lambda low, high: low >= high, is_refused=True),
)

_VARIABLES: Final = {
    "ssl": ("_create_default_https_context", "_create_stdlib_context"),
    "http.client": ("_MAXHEADERS", "_MAXLINE"),
    "logging": ("raiseExceptions",),
    "socket": ("socket",),
}
"""Variables of Python modules; each biz has its own."""
_READERS: Final = {
    "http.client": (
        "_read_headers",
        "HTTPResponse._read_status",
        "HTTPResponse._read_next_chunk_size",
        "HTTPResponse._read_and_discard_trailer",
        "HTTPConnection._tunnel",
    ),
    "logging": ("Handler.handleError",),
    "socket": ("create_connection", "create_server", "fromfd", "socketpair"),
}
"""Functions of these Python modules that read such variables as globals."""

_HOOKS: Final = {"threading": ("excepthook",)}
"""Hooks in Python modules, each biz's own: called for events while the biz runs. Hooks of ``sys`` are elsewhere."""

_ATTRIBUTES: Final = {
    "http.client": {"HTTPConnection": ("debuglevel",), "HTTPSConnection": ("debuglevel",)},
    "tarfile": {"TarFile": ("extraction_filter",)},
}
"""Attributes of classes of Python modules; each biz has its own."""


def put_in(undo: contextlib.ExitStack) -> None:
    """Guard the functions, and let variables and attributes answer by context."""
    for setting in _SETTINGS:
        put_in_late(undo, setting.where.partition(" ")[0], functools.partial(_guard, setting))
    for name in _VARIABLES:
        put_in_late(undo, name, _own_variables)
    for name in _HOOKS:
        put_in_late(undo, name, _own_hooks)
    for name in _ATTRIBUTES:
        put_in_late(undo, name, _own_attributes)


def _guard(setting: _Setting, undo: contextlib.ExitStack, module: types.ModuleType) -> None:
    original = vars(module).get(setting.name)
    if original is None:  # on another system, or in another version of Python
        return

    @standing_for(original)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        if guest() is None or setting.is_so(*args, **kwargs):
            return original(*args, **kwargs)
        given = ", ".join([*map(reprlib.repr, args), *(f"{name}={reprlib.repr(arg)}" for name, arg in kwargs.items())])
        call = f"{module.__name__}.{setting.name}({given})"
        if setting.is_refused:
            raise refused(call, setting.what)
        ignored(call, setting.what)
        return setting.answer(original, *args, **kwargs)

    for name in setting.where.split():
        replace(undo, sys.modules[name], setting.name, guarded)


def _own_variables(undo: contextlib.ExitStack, module: types.ModuleType) -> None:
    name = module.__name__
    variables = _VARIABLES[name]
    for variable in variables:
        assign_by_context(undo, module, variable, functools.partial(own_of, name))
    for path in _READERS.get(name, ()):
        outer, _, function = path.rpartition(".")
        with_own_globals(undo, module, vars(module)[outer] if outer else module, function, *variables)


def _own_hooks(undo: contextlib.ExitStack, module: types.ModuleType) -> None:
    for hook in _HOOKS[module.__name__]:
        call_by_context(undo, module, hook, functools.partial(own_of, module.__name__))


def _own_attributes(undo: contextlib.ExitStack, module: types.ModuleType) -> None:
    for kind, attributes in _ATTRIBUTES[module.__name__].items():
        own_attributes(undo, module, kind, *attributes)
