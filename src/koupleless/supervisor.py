"""The service manager that has started the process, as systemd has it: what it hands over, and what it is told.

The listening sockets that it keeps open are file descriptors from 3 on (``sd_listen_fds``, socket units). It is told
when the base serves, goes on, and stops; each message is one datagram to the socket named in the environment
(``sd_notify``, ``Type=notify``). Without a socket there, nothing is sent.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from typing import TYPE_CHECKING, Final

from koupleless.context import as_base
from koupleless.errors import BaseStartFailed

if TYPE_CHECKING:
    from collections.abc import MutableMapping

_log: Final = logging.getLogger("koupleless.base")
_PER_SECOND: Final = 1_000_000
_FIRST_DESCRIPTOR: Final = 3


class Supervisor:
    """The service manager of one process.

    Lifetime: as the server. Threads: `begin` and `end` on the event loop of the server.
    """

    def __init__(self, environ: MutableMapping[str, str]) -> None:
        """Take the variables out of ``environ``: neither modules nor children are to speak for the base."""
        address = environ.pop("NOTIFY_SOCKET", "")
        usec, pid = environ.pop("WATCHDOG_USEC", ""), environ.pop("WATCHDOG_PID", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        is_ours = not pid or pid == str(os.getpid())
        self._watchdog_s = int(usec) / _PER_SECOND if usec.isdecimal() and is_ours else 0.0
        self._beating: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Tell that the base serves, and from now on, twice in the time of the watchdog, that the loop runs."""
        self._tell("READY=1")
        if self._address and self._watchdog_s:
            with as_base():
                self._beating = asyncio.get_running_loop().create_task(self._beat(), name="watchdog of the base")

    def end(self) -> None:
        """Tell that the base stops. The watchdog is told until the loop ends: leaving takes time."""
        self._tell("STOPPING=1")

    async def _beat(self) -> None:
        while True:
            self._tell("WATCHDOG=1")
            await asyncio.sleep(self._watchdog_s / 2)

    def _tell(self, state: str) -> None:
        if not self._address:
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.setblocking(False)
            try:
                sender.sendto(state.encode(), self._address)
            except OSError as error:
                _log.warning("the service manager was not told %s at %r: %s", state, self._address, error)


def handed_sockets(environ: MutableMapping[str, str]) -> list[socket.socket]:
    """The listening sockets handed over by the service manager; none if it handed none to this process.

    The variables are taken out of ``environ``, and children do not inherit the sockets. Raises ``BaseStartFailed`` for
    a descriptor other than a listening stream socket. Call once: the sockets own the descriptors.
    """
    count, pid = environ.pop("LISTEN_FDS", ""), environ.pop("LISTEN_PID", "")
    environ.pop("LISTEN_FDNAMES", None)
    if pid != str(os.getpid()) or not count.isdecimal():
        return []
    return [_listening(descriptor) for descriptor in range(_FIRST_DESCRIPTOR, _FIRST_DESCRIPTOR + int(count))]


def address_of(listening: socket.socket) -> str:
    """The address of a listening socket in words, as ``127.0.0.1:8080`` or the path of a Unix socket."""
    name = listening.getsockname()
    if not isinstance(name, tuple):
        return os.fsdecode(name)
    host, port = name[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _listening(descriptor: int) -> socket.socket:
    said = f"the service manager has handed over descriptor {descriptor}, which"
    try:
        handed = socket.socket(fileno=descriptor)
    except OSError as error:
        raise BaseStartFailed(f"{said} is no socket: {error.strerror}") from error
    handed.set_inheritable(False)
    if handed.type != socket.SOCK_STREAM or not handed.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        handed.detach()
        raise BaseStartFailed(f"{said} does not listen; a socket unit needs ListenStream= and Accept=no")
    return handed
