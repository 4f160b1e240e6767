"""Recorder for listening sockets: sockets bound by a biz are closed with the biz, despite references.

A listening socket in use by a thread, or not yet collected, goes on taking clients, even clients of the next version
(``SO_REUSEPORT``). Closing the socket does not wake the thread. So the socket is shut down first.
"""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING, Any, Final

from koupleless.frames import standing_for
from koupleless.ownership.kinds import Herd
from koupleless.ownership.ledger import Order, Pending, owner

if TYPE_CHECKING:
    from collections.abc import Callable

    from koupleless.ownership.ledger import Ledger
    from koupleless.ownership.recording import Patches


def install(patches: Patches) -> None:
    """Replace the methods for binding a socket to an address, and the method for wrapping a socket with TLS."""
    patches.replace(socket.socket, "bind", _binding)
    patches.replace(socket.socket, "listen", _binding)
    patches.when_imported("ssl", _follow_tls)


def _binding(original: Callable[..., None]) -> Any:
    @standing_for(original)
    def bind(self: socket.socket, *args: Any) -> None:
        original(self, *args)
        ledger = owner()
        if ledger is not None:
            _SOCKETS.add(ledger, self)

    return bind


def _follow_tls(patches: Patches, module: Any) -> None:
    patches.replace(module.SSLContext, "wrap_socket", _wrapping)


def _wrapping(original: Callable[..., socket.socket]) -> Any:
    @standing_for(original)
    def wrap_socket(self: Any, sock: socket.socket, *args: Any, **kwargs: Any) -> socket.socket:
        ledger = owner()
        is_bound = ledger is not None and _SOCKETS.has(ledger, sock)
        wrapped = original(self, sock, *args, **kwargs)
        if ledger is not None and is_bound:
            _SOCKETS.add(ledger, wrapped)
        return wrapped

    return wrap_socket


def _close(_: Ledger, sockets: list[socket.socket]) -> Pending:
    count = 0
    for bound in sockets:
        if bound.fileno() == -1:
            continue
        count += 1
        with contextlib.suppress(OSError):  # by the base class: the method of TLS would drop the TLS state
            socket.socket.shutdown(bound, socket.SHUT_RDWR)
        socket.socket.close(bound)
    return Pending(lambda _: None, count=count)


_SOCKETS: Final[Herd[socket.socket]] = Herd(
    "socket", "socket.bind, listen", "shut down and closed", what="that was bound", end=_close, order=Order.LAST
)
KINDS: Final = (_SOCKETS,)
