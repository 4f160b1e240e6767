"""Recorder and sweeps for finalisers and thread locals: both wait for an object, or a thread, that the base keeps."""

from __future__ import annotations

import gc
import sys
import threading
import weakref
from typing import TYPE_CHECKING, Any, Final

from koupleless.frames import standing_for
from koupleless.ownership.belonging import attributes, tracked_of
from koupleless.ownership.kinds import Own
from koupleless.ownership.ledger import owner
from koupleless.ownership.purge import Sweep

if TYPE_CHECKING:
    from collections.abc import Callable

    from koupleless.ownership.belonging import Survey
    from koupleless.ownership.recording import Patches


def install(patches: Patches) -> None:
    """Replace the constructor of ``weakref.finalize``, to note the finalisers of each biz."""
    patches.replace(weakref.finalize, "__init__", _finalize_init)


def _finalize_init(original: Callable[..., None]) -> Any:
    @standing_for(original)
    def __init__(self: Any, obj: Any, func: Any, /, *args: Any, **kwargs: Any) -> None:  # noqa: N807
        original(self, obj, func, *args, **kwargs)
        ledger = owner()
        info = None if ledger is None else _finalizers().get(self)
        if ledger is None or info is None:
            return
        made = _MADE.of(ledger.scope)
        made.add(info.index)
        if len(made) >= _MANY and len(made).bit_count() == 1:
            made.intersection_update({one.index for one in list(_finalizers().values())})

    return __init__


_MANY: Final = 1_024
_MADE: Final[Own[set[int]]] = Own(set, is_swept=True)
"""Finalisers made while the biz was running, by their place in the order of all."""


def _finalizers() -> dict[Any, Any]:
    return getattr(weakref.finalize, "_registry", {})


def _sweep_finalizers(survey: Survey) -> int:
    """End ``weakref.finalize`` finalisers and after-fork functions of the biz that wait for an object of the base.

    Finalisers of the biz's own objects have run by now, except for a finaliser with an argument that leads to the
    awaited object, as a pool of urllib3 leads to a connection. As at interpreter exit, finalisers with ``atexit`` set
    are called. Returns the number of entries ended.
    """
    count = 0
    made = survey.find(_MADE) or ()
    for finalizer, info in list(_finalizers().items()):
        reaches = survey.reaches_deeply if info.index in made else survey.reaches
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


SWEEPS: Final = (
    Sweep("finalizer", "weakref.finalize, functions after a fork", _sweep_finalizers, is_thorough=True),
    Sweep("thread local", "threading.local", _sweep_locals, is_thorough=True),
)
