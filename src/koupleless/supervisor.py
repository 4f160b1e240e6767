"""The service manager that has started the process: told when the base serves, goes on, and stops, as systemd asks.

Each message is one datagram to the socket named in the environment (``sd_notify``, ``Type=notify``). Without a socket
there, nothing is sent.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from typing import TYPE_CHECKING, Final

from koupleless.context import as_base

if TYPE_CHECKING:
    from collections.abc import MutableMapping

_log: Final = logging.getLogger("koupleless.base")
_PER_SECOND: Final = 1_000_000


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
