"""ZeroMQ: contexts and sockets of a biz are closed with the biz.

The global context, which a biz was merely the first to ask for, belongs to the base.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from typing import Any, Final

from koupleless.context import as_base
from koupleless.ownership.ledger import Order
from koupleless.recorders.running.closing import Closer

distribution: Final = "pyzmq"


def _wake_zmq(context: Any, timeout_s: float) -> bool:
    """End the waits in sockets of a context; the only call that other threads may make."""
    if context.closed or _is_everybodys(context):
        return False
    ended = threading.Event()

    def terminate() -> None:
        with contextlib.suppress(Exception):  # closed by another thread meanwhile
            context.term()
        ended.set()

    with as_base():
        threading.Thread(target=terminate, name="end ZeroMQ", daemon=True).start()
    ended.wait(min(timeout_s, _MOMENT_S))  # the context itself ends with the last socket, below
    return True


_MOMENT_S: Final = 0.05


def _close_zmq_socket(socket: Any, _: float) -> bool:
    if socket.closed:
        return False
    socket.close(linger=0)
    return True


def _is_everybodys(context: Any) -> bool:
    """Whether a context is the global one of a library of the base."""
    kind = type(context)
    with as_base():
        module = sys.modules.get(kind.__module__)
    return getattr(kind, "_instance", None) is context and getattr(module, kind.__name__, None) is kind


KINDS: Final = (
    Closer("ZeroMQ context", "zmq.sugar.context", "Context", _wake_zmq, Order.SERVERS),
    Closer("ZeroMQ socket", "zmq.sugar.socket", "Socket", _close_zmq_socket, Order.LAST, is_for_one_thread=True),
)

follow: Final = {closer.module: closer.follow for closer in KINDS}
follow_own: Final = follow
"""Followed in own copies and own versions of a biz, too."""
