"""Closes servers, connections and pools of libraries, made by a biz, when the biz leaves and before the objects die.

Left to their deallocators, such objects end badly: a gRPC server that was not stopped waits for the end of the server
with the interpreter lock held, a context of ZeroMQ waits for sockets without an owner, and until then all go on serving
clients. The adapters know the classes, and how the instances of each are closed.
"""

from __future__ import annotations

import functools
import threading
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from koupleless.context import as_base, call_as
from koupleless.errors import in_words
from koupleless.frames import standing_for
from koupleless.ownership.ledger import NOTHING, Order, Pending, owner, start_thread

if TYPE_CHECKING:
    from collections.abc import Callable

    from koupleless.context import Scope
    from koupleless.ownership.ledger import Ledger
    from koupleless.ownership.recording import Patches

    _Things: TypeAlias = dict[int, weakref.ref[Any]]
    """Objects by their address: an object may claim to equal others, or have no hash before `__init__`."""

_FLOOR_S: Final = 0.1


@dataclass(frozen=True, slots=True)
class Closer:
    """How instances of one class are closed."""

    kind: str
    """The kind of registration in the report: the name of counts and failures."""
    close: Callable[[Any, float], object]
    """Called with the object and the seconds for the closing, as the biz, on a thread of the container.

    Returns ``False`` if the object was closed before."""
    order: Order = Order.REST
    is_for_one_thread: bool = False
    """Whether closing ends badly while another thread uses the object: then a continuing thread keeps the object."""


def follow_class(patches: Patches, kind: type, closer: Closer) -> None:
    """Close all instances of a class made by a biz when the biz leaves."""
    patches.replace(kind, "__init__", functools.partial(_making, closer))


def _making(closer: Closer, original: Callable[..., None]) -> Any:
    @standing_for(original)
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:  # noqa: N807
        ledger = owner()
        if ledger is not None:
            _add(ledger, closer, self)
        original(self, *args, **kwargs)

    return __init__


def _add(ledger: Ledger, closer: Closer, made: Any) -> None:
    things: _Things | None = ledger.notes.get(closer)
    if things is None:
        things = ledger.notes[closer] = {}
        close = functools.partial(_close, ledger, closer, things)
        ledger.record(closer.kind, "that was not closed", close, order=closer.order)
    address = id(made)
    things[address] = weakref.ref(made, lambda _: things.pop(address, None))


def _close(ledger: Ledger, closer: Closer, things: _Things) -> Pending:
    if closer.is_for_one_thread and ledger.has_left_threads:
        return NOTHING
    made = [thing for reference in list(things.values()) if (thing := reference()) is not None]
    closing = _Closing(ledger.scope, closer, made, max(ledger.remaining_s() / 2, _FLOOR_S))
    with as_base():
        start_thread(threading.Thread(target=closing.run, name=f"close {closer.kind} {ledger.biz}", daemon=True))
    pending = Pending(lambda _: None)

    def wait(timeout_s: float) -> str | None:
        reason = closing.wait(timeout_s)
        pending.count = closing.closed
        return reason

    pending.wait = wait
    return pending


class _Closing:
    """Closes the objects of one class made by a biz, on a thread that may be left behind."""

    def __init__(self, scope: Scope, closer: Closer, things: list[Any], timeout_s: float) -> None:
        self.closed = 0
        self._scope = scope
        self._closer = closer
        self._things = things
        self._timeout_s = timeout_s
        self._failures: list[str] = []
        self._ended = threading.Event()

    def run(self) -> None:
        while self._things:
            thing = self._things.pop()
            try:
                was_open = call_as(self._scope, self._closer.close, thing, self._timeout_s)
                self.closed += was_open is not False
            except BaseException as error:  # noqa: BLE001 - code of a library; the others are closed whatever it raises
                self._failures.append(in_words(error))
            del thing
        self._ended.set()

    def wait(self, timeout_s: float) -> str | None:
        if not self._ended.wait(timeout_s):
            return "did not close in time"
        return "; ".join(self._failures) or None
