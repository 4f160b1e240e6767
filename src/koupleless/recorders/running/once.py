"""Runs as the base the functions that make an object of the process, even if a biz is the first to need the object.

The standard library makes its fork server, its resource tracker, a directory for sockets and the like at the first
need, and keeps each for all users. Made while a biz is current, each would be recorded for the biz and ended with the
biz, under the feet of the base. So the making functions run as the base. A clean-up of the standard library itself,
registered with ``atexit``, is registered for the process, no matter which biz called the library.

The reusable executor of loky (joblib has a copy of loky inside) is different: the worker processes import by plain
names, from the search path with which the workers were started. Two bizs, or a biz and the base, must not share such
workers. Where bizs share loky, each biz has an executor of its own, which ends with the biz.
"""

from __future__ import annotations

import builtins
import contextlib
import functools
import sys
import threading
from typing import TYPE_CHECKING, Any, Final

from koupleless.context import as_base, call_as, current
from koupleless.frames import standing_for
from koupleless.ownership.kinds import Kind, Own
from koupleless.ownership.ledger import bounded, owner
from koupleless.recorders.names import name_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

    from koupleless.ownership.ledger import Ledger
    from koupleless.ownership.recording import Patches

_MADE_ONCE: Final = {
    "asyncio.events": ("_init_event_loop_policy",),
    "asyncio.unix_events": ("_UnixDefaultEventLoopPolicy._init_watcher",),
    "multiprocessing.forkserver": ("ForkServer.ensure_running", "ensure_running"),
    "multiprocessing.heap": ("Heap._new_arena",),
    "multiprocessing.resource_sharer": ("_ResourceSharer._start",),
    "multiprocessing.resource_tracker": (
        "ResourceTracker.ensure_running",
        "ResourceTracker._ensure_running_and_write",
        "ensure_running",
    ),
    "multiprocessing.util": ("get_temp_dir", "get_logger"),
    "tempfile": ("_get_default_tempdir",),
}
"""Python module -> functions that make an object for the whole process. A Python may lack a function."""

_LOKY: Final = ("loky", "joblib.externals.loky")


def install(patches: Patches) -> None:
    """Replace the functions, in Python modules that the base has or will have."""
    for name, paths in _MADE_ONCE.items():
        patches.when_imported(name, functools.partial(_follow, paths))
    patches.replace(threading, "_register_atexit", _register_atexit)
    for name in _LOKY:
        patches.when_imported(f"{name}.reusable_executor", _follow_loky)
        patches.when_imported(f"{name}.backend.resource_tracker", _follow_tracker)


def _follow(paths: tuple[str, ...], patches: Patches, module: Any) -> None:
    for path in paths:
        head, _, tail = path.rpartition(".")
        holder = getattr(module, head, None) if head else module
        if holder is not None:
            patches.replace(holder, tail, _as_base)


def _follow_tracker(patches: Patches, module: Any) -> None:
    _follow(_MADE_ONCE["multiprocessing.resource_tracker"], patches, module)


def _as_base(original: Callable[..., Any]) -> Any:
    @standing_for(original)
    def make(*args: Any, **kwargs: Any) -> Any:
        if current() is None:
            return original(*args, **kwargs)
        with as_base():
            return original(*args, **kwargs)

    return make


_THREADS: Final = frozenset({("grpc._cython.cygrpc", "_poll_wrapper")})
"""Functions of threads that serve all users of a library, by Python module and name."""


def is_thread_of_process(target: object) -> bool:
    """Tell whether ``target`` is the function of a thread that a library starts once, at the first need, for all."""
    home = getattr(target, "__module__", None) or type(getattr(target, "__self__", None)).__module__
    return (home, getattr(target, "__name__", "")) in _THREADS


# --- clean-up at interpreter exit ------------------------------------------------------------------------------------


def is_of_process(frame: FrameType) -> bool:
    """Tell whether a frame runs code of the standard library, and not of a biz's Python module of the same name."""
    top = str(frame.f_globals.get("__name__", "")).partition(".")[0]
    return top in sys.stdlib_module_names and frame.f_builtins is builtins.__dict__


def _register_atexit(original: Callable[..., None]) -> Any:
    """``threading._register_atexit``: functions by which executors end their threads before Python awaits these."""

    @standing_for(original)
    def register(func: Callable[..., object], /, *args: Any, **kwargs: Any) -> None:
        ledger = None if is_of_process(sys._getframe(1)) else owner()  # noqa: SLF001
        if ledger is None or not callable(func):
            with _registering:
                return original(func, *args, **kwargs)
        scope = ledger.scope

        def call() -> None:
            call_as(scope, func, *args, **kwargs)

        with _registering:
            original(call)
            wrapper = threading._threading_atexits[-1]  # type: ignore[attr-defined]  # noqa: SLF001
        _EXITS.record(ledger, name_of(func), functools.partial(_end, wrapper, func, call, ledger))
        return None

    return register


_registering: Final = threading.Lock()
_EXITS: Final = Kind("atexit", "threading._register_atexit", "called and unregistered")
KINDS: Final = (_EXITS,)


def _end(wrapper: object, func: Callable[..., object], call: Callable[[], None], ledger: Ledger) -> None:
    """Take one function off the list; call a function of the biz, but none of the base, which would end others'."""
    with _registering, contextlib.suppress(ValueError):
        threading._threading_atexits.remove(wrapper)  # type: ignore[attr-defined]  # noqa: SLF001
    if getattr(func, "__builtins__", None) is not builtins.__dict__:
        bounded(call, name=f"threading atexit {ledger.biz}", timeout_s=ledger.remaining_s())


# --- loky ------------------------------------------------------------------------------------------------------------


def _follow_loky(patches: Patches, module: Any) -> None:
    kind = getattr(module, "_ReusablePoolExecutor", None)
    if kind is None or not hasattr(module, "_executor_lock"):
        return
    own: Own[dict[str, Any]] = Own(functools.partial(dict.fromkeys, _VARIABLES))
    if isinstance(vars(kind).get("get_reusable_executor"), classmethod):
        patches.replace(kind, "get_reusable_executor", functools.partial(_by_owner, module, own, is_classmethod=True))
    else:
        patches.replace(module, "get_reusable_executor", functools.partial(_by_owner, module, own))
    patches.replace(kind, "submit", functools.partial(_by_owner, module, own))


def _by_owner(
    module: Any, own: Own[dict[str, Any]], original: Callable[..., Any], *, is_classmethod: bool = False
) -> Any:
    plain = getattr(original, "__func__", original) if is_classmethod else original

    @standing_for(plain)
    def with_own(*args: Any, **kwargs: Any) -> Any:
        with _own_executor(module, own):
            return plain(*args, **kwargs)

    return classmethod(with_own) if is_classmethod else with_own


_VARIABLES: Final = ("_executor", "_executor_kwargs")


@contextlib.contextmanager
def _own_executor(module: Any, own: Own[dict[str, Any]]) -> Iterator[None]:
    """Give the variables of loky's Python module the values of the current biz, under loky's own lock."""
    if own.get() is None:
        yield
        return
    with module._executor_lock:  # noqa: SLF001
        table = vars(module)
        of_base = {name: table.get(name) for name in _VARIABLES}
        table.update(own.get() or {})
        try:
            yield
        finally:
            own.put({name: table.get(name) for name in _VARIABLES})
            table.update(of_base)
