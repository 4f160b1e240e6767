"""Bounds of a server: the seconds to wait for the headers of a request, and the number of connections at once.

uvicorn has neither: its timer for a kept connection is stopped by one byte, and its limit of concurrency counts
connections without closing any, so that idle ones shut everybody out. Here the connection that has waited longest
without a request gives way to a new one, and a new one is refused only where all have requests.
"""

from __future__ import annotations

import asyncio
import errno
import functools
import resource
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable

    from uvicorn.protocols.http.h11_impl import RequestResponseCycle

MAX_HEAD_BYTES: Final = 64 << 10
"""Bytes that may be sent before the headers of a request are whole."""
_QUIET_S: Final = 60.0
"""Seconds without another line in the log, for messages likely to come a thousand times."""
_FIRST_S: Final = 1.0
"""Seconds for the first request of a connection to arrive when the server ends just after accepting the connection."""
_LINGER_S: Final = 2.0
"""Seconds for which the rest of a body is read after the answer, before the connection is closed."""
_STEP_S: Final = 0.01
_PASSES: Final = 4
"""Passes of the event loop from an accepted connection to bytes that have arrived: task, transport, reader, bytes."""
_BACKLOG: Final = 2048
_MANY: Final = 1 << 20
"""The number of descriptors where the system sets no limit."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """The bounds of one server."""

    header_timeout_s: float
    connections: int
    backlog: int
    """Connections kept by the system until accepted, which is also the number accepted at once."""

    @classmethod
    def of_application(cls, header_timeout_s: float, connections: int | None) -> Bounds:
        """Set the bounds of the application's port, by default to half of the descriptors the process may have."""
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        descriptors = _MANY if soft == resource.RLIM_INFINITY else soft
        backlog = max(16, min(_BACKLOG, descriptors // 8))
        return cls(header_timeout_s, connections or max(16, descriptors // 2), backlog)


class Door:
    """The connections of one server without a request. Lives as long as the server, on its thread only."""

    def __init__(self, bounds: Bounds, *, name: str, setting: str, logger: logging.Logger) -> None:
        """Take the ``name`` of the server and the ``setting`` for the number of connections, both for messages."""
        self.bounds = bounds
        self._name = name
        self._setting = setting
        self._logger = logger
        self._waiting: dict[_Bounded, None] = {}  # the longest first
        self._quiet_until = 0.0

    def admit(self, connections: set[Any]) -> bool:
        """Make room for a new connection, already one of ``connections``; return ``False`` if there is none."""
        while len(connections) > self.bounds.connections:
            self._tell(
                "more than %d connections to %s at once: those without a request are closed, the longest first (%s)",
                self.bounds.connections,
                self._name,
                self._setting,
            )
            oldest = next(iter(self._waiting), None)
            if oldest is None:
                return False
            oldest.give_way()
        return True

    def waits(self, connection: _Bounded) -> None:
        """Note that the connection has no request now. A connection waiting already keeps its place in the order."""
        self._waiting.setdefault(connection)

    def works(self, connection: _Bounded) -> None:
        """Note that the connection has a request, or is gone."""
        self._waiting.pop(connection, None)

    async def hear_out(self) -> None:
        """Read the requests of connections that were just accepted, before a server that takes no more closes them.

        A connection with a first request on the way would else be closed without an answer. Returns at once if there is
        no new connection, and after a second at most. A kept connection is read only for bytes that are there already.
        """
        for _ in range(_PASSES):
            await asyncio.sleep(0)
        loop = asyncio.get_running_loop()
        begun = loop.time()
        while any(  # noqa: ASYNC110 - the other side is a client
            each.is_new and loop.time() < min(begun, each.made_at) + _FIRST_S for each in self._waiting
        ):
            await asyncio.sleep(_STEP_S)

    def watch(self, loop: asyncio.AbstractEventLoop) -> None:
        """Log once a minute that no descriptor is left: asyncio writes a traceback for each waiting connection."""

        def handle(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
            error = context.get("exception")
            if isinstance(error, OSError) and error.errno in {errno.EMFILE, errno.ENFILE} and "socket" in context:
                self._tell("%s takes no connections: the process has no file descriptors left", self._name)
            else:
                loop.default_exception_handler(context)

        loop.set_exception_handler(handle)

    def _tell(self, message: str, *arguments: object) -> None:
        now = time.monotonic()
        if now >= self._quiet_until:
            self._quiet_until = now + _QUIET_S
            self._logger.warning(message, *arguments)


class _Lingering:
    """The transport of a request with a body on the way: `close` waits for the body."""

    def __init__(self, transport: asyncio.Transport, close: Callable[[], None]) -> None:
        self._transport = transport
        self.write = transport.write
        self.close = close

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


if TYPE_CHECKING:
    _Protocol = H11Protocol
else:
    _Protocol = object


class _Bounded(_Protocol):
    """A connection of uvicorn within the bounds of a `Door`."""

    cycle: RequestResponseCycle | None  # type: ignore[assignment]  # there is none before the first request

    def __init__(self, *arguments: Any, door: Door, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._door = door
        self.made_at = self.loop.time()
        self._deadline: asyncio.TimerHandle | None = None
        self._lingering: asyncio.TimerHandle | None = None
        self._head_bytes = 0

    @property
    def is_new(self) -> bool:
        """Whether the first request has not arrived."""
        return self.cycle is None

    # --- for each implementation ---

    def _is_idle(self) -> bool:
        """Whether the server owes the client no answer at this moment."""
        return self.cycle is None or self.cycle.response_complete

    def _lacks_head(self) -> bool:
        """Whether the headers of a request are to come next, for an idle connection."""
        raise NotImplementedError

    def _may_refuse(self) -> bool:
        """Whether an answer may begin now: none has begun for the request of the client."""
        return self.cycle is None or not self.cycle.response_started

    # --- called by uvicorn and the event loop ---

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if self._door.admit(self.connections):
            self._settle(is_timed=True)
        else:
            self.connections.discard(self)
            self._refuse(b"503 Service Unavailable")

    def connection_lost(self, exc: Exception | None) -> None:
        self._cease()
        if self._lingering is not None:
            self._lingering.cancel()
        if self.cycle is not None:
            self.cycle.transport = self.transport  # no ring, which would keep the request for the collector
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._lingering is not None:
            return
        self._head_bytes += len(data)
        super().data_received(data)
        cycle = self.cycle
        if cycle is not None and cycle.more_body and not cycle.response_complete and cycle.transport is self.transport:
            cycle.transport = cast("asyncio.Transport", _Lingering(self.transport, self.linger))
        self._settle(is_timed=True)
        if self._head_bytes > MAX_HEAD_BYTES:
            self._cease()
            self._refuse(b"431 Request Header Fields Too Large")

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._settle(is_timed=False)  # uvicorn has a timer for a kept connection, until the first byte

    def send_400_response(self, msg: str) -> None:
        """Answer to bytes other than HTTP, in the place of the application; only close after an answer."""
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True  # further output of the application is dropped
            self.cycle.message_event.set()
        if self._may_refuse():
            super().send_400_response(msg)
        else:
            self.transport.close()

    # --- inside ---

    def linger(self) -> None:
        """Close the way to the client, and the connection once the client has, or soon.

        The system would answer the rest of a body with a reset, for which clients and proxies drop the answer.
        """
        if self.cycle is None or not self.cycle.more_body or not self.transport.can_write_eof():
            self.transport.close()
        elif self._lingering is None and not self.transport.is_closing():
            self._lingering = self.loop.call_later(_LINGER_S, self.transport.abort)
            self.transport.write_eof()
            self.transport.resume_reading()

    def give_way(self) -> None:
        """Close the connection now, even in the middle of a message."""
        self._cease()
        self.connections.discard(self)
        self.transport.abort()

    def _settle(self, *, is_timed: bool) -> None:
        if not self._is_idle():
            self._cease()
            return
        # The connection of a WebSocket has another protocol, which uvicorn counts as well.
        if self.transport.is_closing() or self.transport.get_protocol() is not self:
            self._cease()
            return
        self._door.waits(self)
        if not self._lacks_head():
            self._stop_clock()
        elif is_timed and self._deadline is None:
            self._deadline = self.loop.call_later(self._door.bounds.header_timeout_s, self._give_up)

    def _cease(self) -> None:
        self._stop_clock()
        self._door.works(self)

    def _stop_clock(self) -> None:
        self._head_bytes = 0
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _give_up(self) -> None:
        is_begun = self._head_bytes > 0
        self._cease()
        if is_begun:
            self._refuse(b"408 Request Timeout")
        else:
            self.transport.close()

    def _refuse(self, status: bytes) -> None:
        if not self.transport.is_closing():
            self.transport.write(b"HTTP/1.1 " + status + b"\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
            self.transport.close()


class BoundedH11(_Bounded, H11Protocol):
    """HTTP/1.1 by h11."""

    def _lacks_head(self) -> bool:
        return self.conn.their_state is h11.IDLE

    def _may_refuse(self) -> bool:
        return self.conn.our_state in {h11.IDLE, h11.SEND_RESPONSE}


@functools.cache
def _fast_class() -> type[_Bounded]:
    """The class for the implementation preferred by uvicorn: httptools if present, else h11."""
    try:
        from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol  # noqa: PLC0415 - not on every Python
    except ImportError:
        return BoundedH11

    class BoundedHttpTools(_Bounded, HttpToolsProtocol):  # type: ignore[misc]
        """HTTP/1.1 by httptools."""

        _is_between = True

        def _lacks_head(self) -> bool:
            return self._is_between

        def on_headers_complete(self) -> None:
            self._is_between = False
            super().on_headers_complete()

        def on_message_complete(self) -> None:
            self._is_between = True
            super().on_message_complete()

    return BoundedHttpTools


def application_protocol(door: Door) -> type[asyncio.Protocol]:
    """The ``http`` of a `uvicorn.Config`, within the bounds of ``door``."""
    return cast("type[asyncio.Protocol]", functools.partial(_fast_class(), door=door))
