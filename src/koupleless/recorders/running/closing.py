"""Closes servers, connections and pools of libraries, made by a biz, when the biz leaves and before the objects die.

Left to their deallocators, such objects end badly: a gRPC server that was not stopped waits for the end of the server
with the interpreter lock held, a context of ZeroMQ waits for sockets without an owner, and until then all go on serving
clients. The adapters know the classes, and how the instances of each are closed.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Final

from koupleless.context import as_base, call_as
from koupleless.errors import in_words
from koupleless.frames import standing_for
from koupleless.ownership.kinds import Herd
from koupleless.ownership.ledger import NOTHING, Order, Pending, owner, start_thread
from koupleless.ownership.recording import Patches

if TYPE_CHECKING:
    import contextlib
    from collections.abc import Callable

    from koupleless.context import Scope
    from koupleless.ownership.ledger import Ledger

_FLOOR_S: Final = 0.1


class Closer(Herd[Any]):
    """Instances of one class of a library, and how they are closed.

    ``close`` is called with the object and the seconds for the closing, as the biz, on a thread of the container. It
    returns ``False`` if the object was closed before. With ``is_for_one_thread`` closing ends badly while another
    thread uses the object: then a continuing thread keeps the object.
    """

    def __init__(
        self,
        name: str,
        module: str,
        kind: str,
        close: Callable[[Any, float], object],
        order: Order = Order.REST,
        *,
        is_for_one_thread: bool = False,
    ) -> None:
        seen = f"{module}.{kind}()"
        super().__init__(name, seen, "closed", what="that was not closed", end=self._close, order=order)
        self.module = module
        """The Python module with the class."""
        self._kind = kind
        self._close_one = close
        self._is_for_one_thread = is_for_one_thread

    def follow(self, undo: contextlib.ExitStack, module: Any) -> None:
        """Close all instances of the class made by a biz when the biz leaves, until ``undo`` is closed."""
        kind = getattr(module, self._kind, None)
        if isinstance(kind, type):
            Patches.until(undo).replace(kind, "__init__", self._making)

    def _making(self, original: Callable[..., None]) -> Any:
        herd = self

        @standing_for(original)
        def __init__(self: Any, *args: Any, **kwargs: Any) -> None:  # noqa: N807
            ledger = owner()
            if ledger is not None:
                herd.add(ledger, self)
            original(self, *args, **kwargs)

        return __init__

    def _close(self, ledger: Ledger, things: list[Any]) -> Pending:
        if self._is_for_one_thread and ledger.has_left_threads:
            return NOTHING
        closing = _Closing(ledger.scope, self._close_one, things, max(ledger.remaining_s() / 2, _FLOOR_S))
        with as_base():
            start_thread(threading.Thread(target=closing.run, name=f"close {self.name} {ledger.biz}", daemon=True))
        pending = Pending(lambda _: None)

        def wait(timeout_s: float) -> str | None:
            reason = closing.wait(timeout_s)
            pending.count = closing.closed
            return reason

        pending.wait = wait
        return pending


class _Closing:
    """Closes the objects of one class made by a biz, on a thread that may be left behind."""

    def __init__(
        self, scope: Scope, close: Callable[[Any, float], object], things: list[Any], timeout_s: float
    ) -> None:
        self.closed = 0
        self._scope = scope
        self._close = close
        self._things = things
        self._timeout_s = timeout_s
        self._failures: list[str] = []
        self._ended = threading.Event()

    def run(self) -> None:
        while self._things:
            thing = self._things.pop()
            try:
                was_open = call_as(self._scope, self._close, thing, self._timeout_s)
                self.closed += was_open is not False
            except BaseException as error:  # noqa: BLE001 - code of a library; the others are closed whatever it raises
                self._failures.append(in_words(error))
            del thing
        self._ended.set()

    def wait(self, timeout_s: float) -> str | None:
        if not self._ended.wait(timeout_s):
            return "did not close in time"
        return "; ".join(self._failures) or None


def calling(name: str, *, unless: str = "") -> Callable[[Any, float], bool]:
    """Make a function that closes an object by a method, unless an attribute of the object is true by then."""

    def close(thing: Any, _: float) -> bool:
        if getattr(thing, unless, False) is True:
            return False
        getattr(thing, name)()
        return True

    return close
