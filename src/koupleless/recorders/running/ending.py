"""Ends threads of a biz that ignore their stop: asks in the ways known to the thread, then wakes and interrupts.

Asking goes through the function of the thread: an object with a way to stop (``shutdown``, ``stop``, ``close``,
``join``), an event named for a stop, a queue whose reader takes ``None`` for the end, an event loop. Interrupting
raises `ThreadEnded` in the thread, as ``KeyboardInterrupt`` is raised in the main thread, and ends the present wait of
the thread, so that the exception is raised soon.

A thread is interrupted only where no work of the base is half done: in code of the biz, or in waiting functions of the
standard library, and never below, or above, a function of a shared library: such a function may hold a lock of the
base.
"""

from __future__ import annotations

import asyncio
import contextlib
import dis
import functools
import gc
import inspect
import queue
import re
import selectors
import socket
import sys
import threading
import time
import types
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final, Protocol

from koupleless.context import as_base, entered
from koupleless.frames import is_ours
from koupleless.ownership.ledger import PATIENCE_S

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from types import CodeType, FrameType

    from koupleless.context import Scope


DAEMONS_S: Final = 0.5
"""Seconds before more is done about a daemon thread: without a base, the end of the program ends the thread at once."""


class ThreadEnded(SystemExit):
    """Raised in a thread that has not ended though its biz leaves. ``except Exception`` does not catch this."""


class Started(Protocol):
    """Thread that a biz has started."""

    @property
    def ident(self) -> int | None:
        """Number of the thread, as of ``threading.Thread``; ``None`` before the start."""

    def is_alive(self) -> bool:
        """Tell whether the thread runs; until the end, no other thread gets the same ``ident``."""

    def join(self, timeout: float | None = None) -> None:
        """Wait for the end of the thread, at most ``timeout`` seconds if given."""


class Ending:
    """The `Force` of one or more threads that a biz has started, with the function of the threads where known."""

    def __init__(
        self, scope: Scope, threads: Sequence[Started], target: object = None, *, patience_s: float = DAEMONS_S
    ) -> None:
        self.patience_s = patience_s
        self._scope = scope
        self._threads = threads
        self._target = target

    def has_ended(self, timeout_s: float) -> bool:
        """Wait for the end of all threads, at most ``timeout_s`` seconds. Returns whether all have ended."""
        ends = time.monotonic() + timeout_s
        for thread in self._threads:
            if thread.is_alive():
                thread.join(max(0.0, ends - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def steps(self) -> Sequence[Callable[[], str | None]]:
        """Return the steps of this `Force`: ask the object, ask events and queues, interrupt, unblock."""
        return (
            functools.partial(self._of_each, self._ask_object),
            functools.partial(self._of_each, self._ask_inside),
            functools.partial(self._of_each, self._interrupt),
            functools.partial(self._of_each, self._unblock),
        )

    def _of_each(self, step: Callable[[Started], str | None]) -> str | None:
        said = [step(thread) for thread in self._threads if thread.is_alive()]
        return next((one for one in said if one is not None), None)

    # --- asking --------------------------------------------------------------------------------------------------

    def _ask_object(self, thread: Started) -> str | None:
        """Call the stopping method of the object that runs, on a thread of the biz, since the method may block."""
        runs = holder(self._target)
        thing = runs if runs is not None else thread
        if _is_of_library(type(thing)) or isinstance(thing, (type, asyncio.AbstractEventLoop)):
            return None
        if (found := _way_to_stop(thing)) is None or _is_of_base(thing):
            return None
        verb, call = found
        with entered(self._scope):
            threading.Thread(target=call, name=f"{verb} of {type(thing).__qualname__}", daemon=True).start()
        return f"was stopped by {type(thing).__qualname__}.{verb}"

    def _ask_inside(self, thread: Started) -> str | None:
        """Set the events, end the queue and stop the event loop that the thread runs by."""
        runs, verb = holder(self._target), getattr(self._target, "__name__", "")
        said: list[str] = []
        if isinstance(runs, threading.Event) and verb == "wait":
            runs.set()
            said.append("the event of the thread was set")
        elif isinstance(runs, (queue.Queue, queue.SimpleQueue)) and verb == "get":
            said += _end_queue(runs)
        own = self._builtins()
        frames = _stack(thread)
        for name, event in _stop_events(frames, own):
            if not event.is_set():
                event.set()
                said.append(f"the event {name!r} of the thread was set")
        if (waited_for := _queue_of(frames, own)) is not None:
            said += _end_queue(waited_for)
        for loop in _loops(frames, runs):
            _stop_loop(loop, thread.ident)
            said.append("the event loop of the thread was stopped")
        del frames
        return "ended when " + " and ".join(said) if said else None

    # --- interrupting --------------------------------------------------------------------------------------------

    def _interrupt(self, thread: Started) -> str | None:
        raise_in, own = _raiser(), self._builtins()
        if raise_in is None:
            return None
        _be_silent(thread)
        for _ in range(_TRIES):
            time.sleep(0)  # a new turn of the interpreter begins, so the steps below are not interrupted themselves
            frames = _stack(thread)
            if not frames or not thread.is_alive():
                return None
            if _is_interruptible(frames, own):
                raise_in(thread.ident or 0)
                _wake(frames)
                return f"was interrupted {_place(frames, own)}"
            del frames
            time.sleep(_BETWEEN_S)
        return None

    def _unblock(self, thread: Started) -> str | None:
        """Shut down sockets that the thread may wait for, and interrupt once more: the first may have been caught."""
        own = self._builtins()
        frames = _stack(thread)
        if not frames or not _is_interruptible(frames, own):
            return None
        sockets = _sockets(frames)
        del frames
        said = self._interrupt(thread)
        for one in sockets:
            _shut_down(one)
        return said if said is None or not sockets else f"{said}, and the socket of the thread was shut down"

    def _builtins(self) -> dict[str, Any]:
        """Return the ``__builtins__`` of the biz's code."""
        with entered(self._scope):
            return vars(sys.modules["builtins"])


_TRIES: Final = 30
_BETWEEN_S: Final = 0.01


def _stack(thread: Started) -> list[FrameType]:
    """List the frames of a running thread, the innermost first."""
    frame = sys._current_frames().get(thread.ident or 0) if thread.is_alive() else None  # noqa: SLF001
    frames = []
    while frame is not None:
        frames.append(frame)
        frame = frame.f_back
    return frames


# --- the owner of the code that a thread runs -------------------------------------------------------------------------

_GUARDED: Final = frozenset({"importlib", "logging", "tempfile", "warnings", "weakref", "zipimport"})
"""Python modules of the standard library that change, or lock, state of the whole process."""
_BOOT: Final = frozenset(
    {
        "koupleless.container.stage",
        "koupleless.context",
        "koupleless.recorders.running.executors",
        "koupleless.recorders.running.threads",
    }
)
"""Python modules of this package that only begin a thread or a call on one, or let a thread sleep."""
_SLEEP: Final = "sleep"
"""The name of the function of this package that only waits."""
_ENDING: Final = frozenset({"_bootstrap", "_bootstrap_inner", "_delete", "_stop"})
"""Functions of ``threading`` in which a thread enters or leaves the list of all threads."""


def _is_interruptible(frames: Sequence[FrameType], own: dict[str, Any]) -> bool:
    """Tell whether an exception in the innermost frame leaves no work of the base half done."""
    if frames[0].f_code.co_name in _ENDING and frames[0].f_globals is vars(threading):
        return False
    is_inside = True
    for frame in frames:
        name = str(frame.f_globals.get("__name__", ""))
        if is_ours(frame):
            if is_inside and name not in _BOOT:
                return False
        elif _is_of_process(frame, name):
            top = name.partition(".")[0]
            if top not in sys.stdlib_module_names or (is_inside and top in _GUARDED):
                return False
        elif frame.f_builtins is own:
            is_inside = False
        else:
            return False
    return not is_ours(frames[0]) or frames[0].f_code.co_name == _SLEEP


def _is_of_process(frame: FrameType, name: str) -> bool:
    """Tell whether a frame runs code of a Python module of the base."""
    with as_base():
        module = sys.modules.get(name)
    return getattr(module, "__dict__", None) is frame.f_globals


def _place(frames: Sequence[FrameType], own: dict[str, Any]) -> str:
    """Name the place of the interrupt in words: the innermost line of the biz, else the innermost line at all."""
    inner = (f for f in frames if f.f_builtins is own and not is_ours(f) and not _is_of_process(f, _name_of(f)))
    frame = next(inner, frames[0])
    return f"at {frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_name}"


def _name_of(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", ""))


def _own_frames(frames: Sequence[FrameType], own: dict[str, Any]) -> Iterator[FrameType]:
    for frame in frames:
        if frame.f_builtins is own and not is_ours(frame) and not _is_of_process(frame, _name_of(frame)):
            yield frame


# --- ways to ask -----------------------------------------------------------------------------------------------------

_VERBS: Final = ("shutdown", "stop", "close", "join")


def holder(target: object) -> Any:
    """Return the object of the bound method that a thread runs, or ``None``."""
    while isinstance(target, functools.partial):
        target = target.func
    return getattr(target, "__self__", None) if callable(target) else None


def reaches(thing: object, part: object) -> bool:
    """Tell whether an object has another in an attribute, in a container there, or in attributes of these objects."""
    known: set[int] = set()
    layer = [thing]
    for _ in range(_DEEPEST):
        if any(each is part for each in layer):
            return True
        known.update(map(id, layer))
        found = {id(each): each for each in gc.get_referents(*layer) if gc.is_tracked(each) or type(each) is dict}
        layer = [each for key, each in found.items() if key not in known and not isinstance(each, _NO_PARTS)]
        if len(layer) > _MOST:
            return False
    return any(each is part for each in layer)


_NO_PARTS: Final = (type, types.ModuleType, types.FunctionType, types.CodeType, types.FrameType, threading.Thread)
_DEEPEST: Final = 5
_MOST: Final = 2_000


def _is_of_library(kind: type) -> bool:
    """Tell whether a class belongs to the standard library or to this package: their ways to stop are known."""
    with as_base():
        module = sys.modules.get(kind.__module__)
    top = kind.__module__.partition(".")[0]
    is_known = top in sys.stdlib_module_names or top == __name__.partition(".")[0]
    return is_known and getattr(module, kind.__name__, None) is kind


def _way_to_stop(thing: Any) -> tuple[str, Callable[[], object]] | None:
    """Find the method that stops an object, with arguments that keep the method from waiting long."""
    for verb in _VERBS:
        function = getattr(type(thing), verb, None)
        if not callable(function) or inspect.iscoroutinefunction(function):
            continue
        if verb == "join" and isinstance(thing, threading.Thread) and function is threading.Thread.join:
            continue
        bound = getattr(thing, verb)
        try:
            parameters = inspect.signature(bound).parameters
        except (TypeError, ValueError):
            continue
        if any(
            each.default is each.empty and each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)
            for each in parameters.values()
        ):
            continue
        fitting: dict[str, Any] = {"wait": False} if "wait" in parameters else {}
        return verb, functools.partial(bound, **fitting)
    return None


def _is_of_base(thing: object) -> bool:
    """Tell whether an object is a global of a Python module of the base: the base may go on using the object."""
    with as_base():
        modules = list(sys.modules.values())
    for module in modules:
        table = getattr(module, "__dict__", None)
        if type(table) is dict and any(value is thing for value in list(table.values())):
            return True
    return False


_STOP: Final = re.compile(r"stop|quit|exit|shut|clos|terminat|cancel|kill|halt|abort", re.IGNORECASE)


def _stop_events(frames: Sequence[FrameType], own: dict[str, Any]) -> list[tuple[str, threading.Event]]:
    """Find the events that running code of the biz knows under the name of a stop: locals, attributes, globals."""
    found: dict[int, tuple[str, threading.Event]] = {}
    for frame in _own_frames(frames, own):
        for name, value in _known(frame):
            if isinstance(value, threading.Event) and _STOP.search(name) and not _is_of_base(value):
                found[id(value)] = name, value
    return list(found.values())


def _known(frame: FrameType) -> Iterator[tuple[str, Any]]:
    """Yield the names known to the code of a frame, with values: locals, attributes of locals, globals."""
    values = dict(frame.f_locals)
    yield from values.items()
    for value in values.values():
        table = getattr(value, "__dict__", None)
        if type(table) is dict and not isinstance(value, type):
            yield from ((name, part) for name, part in list(table.items()) if isinstance(name, str))
    for name in frame.f_code.co_names:
        if name in frame.f_globals:
            yield name, frame.f_globals[name]


def _queue_of(frames: Sequence[FrameType], own: dict[str, Any]) -> Any:
    """Find the queue on which code of the biz waits, if the code takes ``None`` for the end of the queue."""
    waiting: Any = None
    for frame in frames:
        if frame.f_code is queue.Queue.get.__code__:
            waiting = frame.f_locals.get("self")
        elif frame.f_builtins is own and not is_ours(frame) and not _is_of_process(frame, _name_of(frame)):
            if not _knows_none(frame.f_code, frame.f_lasti):
                return None
            if waiting is None:  # a queue of C code, which has no frame
                simple = {id(value): value for _, value in _known(frame) if isinstance(value, queue.SimpleQueue)}
                waiting = next(iter(simple.values())) if len(simple) == 1 and frame is frames[0] else None
            return waiting
    return None


def _knows_none(code: CodeType, at: int) -> bool:
    """Tell whether code compares the value it gets at this place with ``None``, or reads until ``None`` comes."""
    known = [one for one in dis.get_instructions(code) if one.opname != "CACHE"]
    here = max((number for number, one in enumerate(known) if one.offset <= at), default=0)
    if known[here].opname == "FOR_ITER":
        return any(_is_none(one) and after.opname.startswith(("CALL", "PRECALL")) for one, after in pairwise(known))
    stored = next(
        (_names(one)[0] for one in known[here + 1 :] if one.opname.startswith("STORE_") and _names(one)), None
    )
    return stored is not None and any(
        _names(one)[-1:] == [stored]
        and ("_NONE" in after.opname or (_is_none(after) and then.opname == "IS_OP") or _is_walrus(one, after))
        for one, after, then in zip(known, known[1:], known[2:], strict=False)
        if one.opname.startswith(("LOAD_", "STORE_"))
    )


def _names(one: dis.Instruction) -> list[Any]:
    """Return the variables of an instruction; newer versions of Python have instructions with two variables."""
    return list(one.argval) if isinstance(one.argval, tuple) else [one.argval]


def _is_none(one: dis.Instruction) -> bool:
    return one.opname.startswith("LOAD_CO") and one.argval is None  # from 3.15 on ``None`` is a common constant


def _is_walrus(one: dis.Instruction, after: dis.Instruction) -> bool:
    """Tell whether a stored value is compared at once: ``(job := jobs.get()) is not None``."""
    return one.opname.startswith("STORE_") and ("_NONE" in after.opname or _is_none(after))


def _end_queue(waited_for: Any) -> list[str]:
    try:
        waited_for.put(None, block=False)
    except queue.Full:  # then no thread waits for the queue
        return []
    return ["the queue of the thread was ended"]


def _loops(frames: Sequence[FrameType], runs: Any) -> list[asyncio.AbstractEventLoop]:
    """Find event loops that a thread may be running: the loops known to the functions of the thread."""
    found: dict[int, asyncio.AbstractEventLoop] = {}
    candidates = [runs]
    for frame in frames:
        if is_ours(frame):
            continue
        candidates += (value for _, value in _known(frame))
    for value in candidates:
        if isinstance(value, asyncio.AbstractEventLoop) and value.is_running():
            found[id(value)] = value
    return list(found.values())


def _stop_loop(loop: asyncio.AbstractEventLoop, ident: int | None) -> None:
    """Cancel the tasks of a loop and stop the loop, if the thread runs it: functions know loops of other threads, too.

    The check is made on the loop's thread. Returns at once.
    """

    def end() -> None:
        if threading.get_ident() != ident:
            return
        tasks = asyncio.all_tasks(loop)
        for task in tasks:
            task.cancel()
        if tasks:
            loop.call_later(PATIENCE_S / 2, loop.stop)
        else:
            loop.call_soon(loop.stop)
        waiting = set(tasks)

        def done(task: asyncio.Task[Any]) -> None:
            waiting.discard(task)
            if not waiting:  # a loop that runs until a task is done ends by itself, two turns earlier
                loop.call_soon(loop.call_soon, loop.stop)

        for task in tasks:
            task.add_done_callback(done)

    with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
        loop.call_soon_threadsafe(end)


# --- ways to interrupt -----------------------------------------------------------------------------------------------


@functools.cache
def _raiser() -> Callable[[int], object] | None:
    """Return the function that raises `ThreadEnded` in a thread, by number, once the thread executes Python code.

    Returns ``None`` without ctypes.
    """
    try:
        import ctypes  # noqa: PLC0415 - a Python may be built without it
    except ImportError:
        return None
    call = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_ulong, ctypes.py_object)(
        ("PyThreadState_SetAsyncExc", ctypes.pythonapi)
    )
    return lambda ident: call(ident, ThreadEnded)


def _wake(frames: Sequence[FrameType]) -> None:
    """Let the innermost wait return: for a condition, as all waits of ``threading`` and ``queue`` are, or a socket."""
    frame = frames[0]
    if frame.f_code is threading.Condition.wait.__code__:
        waiter = frame.f_locals.get("waiter")
        if waiter is not None:
            with contextlib.suppress(RuntimeError):  # the thread was woken meanwhile
                waiter.release()
    elif frame.f_globals is vars(socket) or frame.f_globals is vars(selectors):
        for one in _sockets(frames):
            _shut_down(one)


def _shut_down(one: socket.socket) -> None:
    with contextlib.suppress(OSError):  # the method of the base class: the method of TLS would drop the TLS state
        socket.socket.shutdown(one, socket.SHUT_RDWR)


_NEAR: Final = 6
"""Number of innermost frames that are searched for sockets that a thread waits for."""


def _sockets(frames: Sequence[FrameType]) -> list[socket.socket]:
    """Find the blocking sockets known to the innermost functions."""
    found: dict[int, socket.socket] = {}
    for frame in frames[:_NEAR]:
        if is_ours(frame):
            continue
        for _, value in _known(frame):
            if isinstance(value, socket.socket) and value.fileno() != -1 and value.gettimeout() != 0.0:
                found[id(value)] = value
    return list(found.values())


def _be_silent(thread: Started) -> None:
    """Keep ``threading.excepthook`` from printing a `ThreadEnded`: no code of the biz is to blame for the exception."""
    invoke = getattr(thread, "_invoke_excepthook", None)
    if invoke is None or not isinstance(thread, threading.Thread) or isinstance(invoke, _Silent):
        return
    vars(thread)["_invoke_excepthook"] = _Silent(invoke)


class _Silent:
    """``_invoke_excepthook`` of one thread, silent about `ThreadEnded`."""

    __slots__ = ("_invoke",)

    def __init__(self, invoke: Callable[[threading.Thread], object]) -> None:
        self._invoke = invoke

    def __call__(self, thread: threading.Thread) -> None:
        if not isinstance(sys.exception(), ThreadEnded):
            self._invoke(thread)
