"""Recorders for ``multiprocessing``: child processes, finalisers, and the start method that a biz has chosen.

A program chooses once how children are started, and names of start methods are registered in one table. Each biz is
a program: a biz has a choice and a table of its own, above the choice and the table of the base.
"""

from __future__ import annotations

import builtins
import contextlib
import functools
import os
import signal
import sys
import time
from collections import ChainMap
from typing import TYPE_CHECKING, Any, Final

from koupleless.context import call_as, entered
from koupleless.contextual import ContextMapping
from koupleless.frames import standing_for
from koupleless.ownership.kinds import Herd, Kind, Own
from koupleless.ownership.ledger import Order, Pending, bounded, owner

if TYPE_CHECKING:
    from collections.abc import Callable, MutableMapping

    from koupleless.ownership.ledger import Ledger
    from koupleless.ownership.recording import Patches

_Wrapped = Any


def install(patches: Patches) -> None:
    """Replace the functions, in Python modules that the base has or will have."""
    patches.when_imported("multiprocessing.process", _follow_processes)
    patches.when_imported("multiprocessing.util", _follow_finalizers)
    patches.when_imported("multiprocessing.context", _follow_contexts)
    patches.when_imported("multiprocessing.synchronize", _follow_semaphores)
    patches.when_imported("multiprocessing", _follow_package)


# --- child processes -------------------------------------------------------------------------------------------------


def _follow_processes(patches: Patches, module: Any) -> None:
    patches.replace(module.BaseProcess, "start", _process_start)


def _process_start(original: Callable[[Any], None]) -> _Wrapped:
    @standing_for(original)
    def start(self: Any) -> None:
        original(self)
        ledger = owner()
        if ledger is not None:
            _PROCESSES.add(ledger, self)

    return start


def _end_processes(_: Ledger, processes: list[Any]) -> Pending:
    # As at interpreter exit: daemonic children are terminated, the others are awaited, but with a deadline.
    running = [process for process in processes if process.is_alive() and not _is_reaped(process)]
    for process in running:
        if process.daemon:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()

    def wait(timeout_s: float) -> str | None:
        ends = time.monotonic() + timeout_s
        stubborn = []
        for process in running:
            process.join(max(0.0, ends - time.monotonic()))
            if process.is_alive() and not _is_reaped(process):
                _kill(process)
                process.join(1.0)
                stubborn.append(f"{process.name} did not end in time and was killed")
        return "; ".join(stubborn) or None

    return Pending(wait, count=len(running))


def _is_reaped(process: Any) -> bool:
    """Tell whether other code has awaited the end of a child process; `multiprocessing` is told the end then.

    `multiprocessing` takes such a process for a running one, and refers to it, for ever.
    """
    try:
        os.kill(process.pid, 0)
    except ProcessLookupError:
        process._popen.returncode = 0  # noqa: SLF001 - unknown, as `subprocess` has it for a lost child
        return not process.is_alive()
    return False


def _kill(process: Any) -> None:
    with contextlib.suppress(ProcessLookupError):
        try:
            process.kill()
        except AttributeError:  # processes of loky have no method but the one for terminating
            os.kill(process.pid, signal.SIGKILL)


def _follow_finalizers(patches: Patches, module: Any) -> None:
    patches.replace(module.Finalize, "__init__", _finalize_init)


def _finalize_init(original: Callable[..., None]) -> _Wrapped:
    @standing_for(original)
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:  # noqa: N807
        original(self, *args, **kwargs)
        ledger = owner()
        if ledger is not None:
            _FINALIZERS.add(ledger, self)

    return __init__


def _finalize(ledger: Ledger, finalizers: list[Any]) -> Pending:
    """Run the finalisers meant for interpreter exit, in their order; the others run after everything else has ended.

    The others wait for an object to die, a process or a pool needed until then, and close descriptors of the object.
    A finaliser is cancelled if the callback is code of the biz, since the code will be gone.
    """
    waiting = [finalizer for finalizer in finalizers if finalizer.still_active()]
    at_exit = [finalizer for finalizer in waiting if finalizer._key[0] is not None]  # noqa: SLF001 - as its own exit
    later = [finalizer for finalizer in waiting if finalizer._key[0] is None]  # noqa: SLF001
    at_exit.sort(key=lambda finalizer: finalizer._key, reverse=True)  # noqa: SLF001
    scope = ledger.scope

    def run() -> None:
        for finalizer in at_exit:
            finalizer()

    if later:
        _LATE_FINALIZERS.record(ledger, "of multiprocessing", functools.partial(_release, later))
    if at_exit:
        end = functools.partial(call_as, scope, run)
        bounded(end, name=f"finalisers {ledger.biz}", timeout_s=ledger.remaining_s())
    return Pending(lambda _: None, count=len(at_exit))


def _release(finalizers: list[Any]) -> Pending:
    active = [finalizer for finalizer in finalizers if finalizer.still_active()]
    for finalizer in active:
        if getattr(finalizer._callback, "__builtins__", builtins.__dict__) is builtins.__dict__:  # noqa: SLF001
            finalizer()
        else:
            finalizer.cancel()
    return Pending(lambda _: None, count=len(active))


# Processes after functions that end a pool of child processes in an orderly way.
_PROCESSES: Final[Herd[Any]] = Herd(
    "process",
    "multiprocessing.Process.start",
    "daemons terminated, others awaited and killed",
    what="of multiprocessing",
    end=_end_processes,
    order=Order.DAEMONS,
)
_FINALIZERS: Final[Herd[Any]] = Herd(
    "finalizer", "multiprocessing.util.Finalize", "called, if meant for exit", what="of multiprocessing", end=_finalize
)
_LATE_FINALIZERS: Final = Kind(
    "finalizer", "multiprocessing.util.Finalize", "called, or cancelled for code of the biz", order=Order.LAST
)
KINDS: Final = (_PROCESSES, _FINALIZERS, _LATE_FINALIZERS)


# --- start methods ----------------------------------------------------------------------------------------------------

_CHOICE: Final = ("get_context", "get_start_method", "set_start_method")


def _follow_contexts(patches: Patches, module: Any) -> None:
    default = module._default_context  # noqa: SLF001 - its bound methods are everywhere
    own = Own(lambda: module.DefaultContext(default._actual_context or default._default_context))  # noqa: SLF001
    for name in _CHOICE:
        patches.replace(module.DefaultContext, name, functools.partial(_choose, default, own))
    patches.replace(module, "_concrete_contexts", _by_owner)


def _choose(default: Any, own: Own[Any], original: Callable[..., Any]) -> _Wrapped:
    @standing_for(original)
    def choose(self: Any, *args: Any, **kwargs: Any) -> Any:
        mine = own.get() if self is default else None
        return original(self if mine is None else mine, *args, **kwargs)

    return choose


def _follow_package(patches: Patches, package: Any) -> None:
    """Look methods up late: the package hands out methods bound before they were replaced."""
    default = package.context._default_context  # noqa: SLF001
    for name in _CHOICE:
        patches.replace(package, name, functools.partial(_bound_late, default, name))


def _bound_late(default: Any, name: str, original: Callable[..., Any]) -> _Wrapped:
    @standing_for(original)
    def choose(*args: Any, **kwargs: Any) -> Any:
        return getattr(default, name)(*args, **kwargs)

    return choose


def _by_owner(of_base: MutableMapping[str, Any]) -> _Wrapped:
    own: Own[MutableMapping[str, Any]] = Own(lambda: ChainMap({}, of_base))

    def target() -> MutableMapping[str, Any]:
        mine = own.get()
        return of_base if mine is None else mine

    return ContextMapping(target)


# --- names of semaphores ----------------------------------------------------------------------------------------------


def _follow_semaphores(patches: Patches, module: Any) -> None:
    kind = module.SemLock
    patches.when_leaving(functools.partial(_put_back, kind, "_make_name", vars(kind)["_make_name"]))


def _put_back(holder: type, name: str, original: object, ledger: Ledger) -> None:
    """Put back a method that a biz's copy of loky replaces at import without keeping the original."""
    with entered(ledger.scope):
        own = vars(sys.modules["builtins"])
    if own is not builtins.__dict__ and getattr(getattr(holder, name), "__builtins__", None) is own:
        setattr(holder, name, original)
