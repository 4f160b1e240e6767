"""The server: TLS, one request of HTTP/1.1 a connection, and the certificate shown by the client.

uvicorn hands on neither the certificate of a client nor a connection with another protocol than WebSockets; hence h11
alone. A connection ends with its request, so nothing is kept between requests, and a certificate is as new as the
request.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qs, unquote, urlsplit

import h11

if TYPE_CHECKING:
    import ssl
    from collections.abc import Awaitable, Callable, Mapping, Sequence

_log: Final = logging.getLogger("koupleless.controller")

CONNECTIONS: Final = 2048
HEADER_S: Final = 10.0
_MOST_HEAD: Final = 32 << 10
_PIECE: Final = 64 << 10
_STALLED_S: Final = 60.0
"""How long a client may take none of the bytes that wait for the client."""
_END_S: Final = 2.0
TEXT: Final = "text/plain; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Request:
    """One request."""

    method: str
    path: tuple[str, ...]
    """The parts between the slashes, decoded."""
    query: Mapping[str, Sequence[str]]
    headers: Mapping[str, str]
    """By names in lower case; of several with one name, all, with commas between."""
    subject: Mapping[str, Sequence[str]] | None
    """The subject of the certificate of the client, by kind of name; ``None`` without a certificate."""

    def first(self, name: str) -> str:
        """Return the first value of a member of the query; empty without one."""
        return next(iter(self.query.get(name, ())), "")

    @property
    def wants(self) -> str:
        """The protocol for which the client would leave HTTP, in lower case; empty for none."""
        tokens = {token.strip().lower() for token in self.headers.get("connection", "").split(",")}
        return self.headers.get("upgrade", "").strip().lower() if "upgrade" in tokens else ""


class Incoming:
    """The bytes of a connection that has left HTTP, beginning with those that came with the request."""

    def __init__(self, reader: asyncio.StreamReader, begin: bytes) -> None:
        self._reader = reader
        self._begin = begin

    async def readexactly(self, n: int, /) -> bytes:
        """Return ``n`` bytes. Raises ``asyncio.IncompleteReadError``."""
        first, self._begin = self._begin[:n], self._begin[n:]
        return first + await self._reader.readexactly(n - len(first)) if len(first) < n else first


class Exchange:
    """The answer to one request. Used by one task, once; raises ``ConnectionError`` where the client is gone."""

    def __init__(self, connection: h11.Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connection = connection
        self._reader = reader
        self._writer = writer
        self.has_begun = False

    async def answer(self, status: int, content: str | bytes, *, content_type: str = TEXT, **headers: str) -> None:
        """Answer with a whole content."""
        body = content.encode() if isinstance(content, str) else content
        await self.begin(status, content_type=content_type, content_length=str(len(body)), **headers)
        await self.write(body)
        await self.end()

    async def begin(self, status: int, *, content_type: str = TEXT, **headers: str) -> None:
        """Begin an answer of any length."""
        self.has_begun = True
        fields = {"content-type": content_type, "connection": "close", "cache-control": "no-store"}
        fields |= {name.replace("_", "-"): value for name, value in headers.items()}
        await self._send(h11.Response(status_code=status, headers=list(fields.items())))

    async def write(self, data: bytes) -> None:
        """Send a part of the answer, as fast as the client takes bytes."""
        for begin in range(0, len(data), _PIECE):
            await self._send(h11.Data(data=data[begin : begin + _PIECE]))

    async def end(self) -> None:
        """End the answer."""
        await self._send(h11.EndOfMessage())

    async def switch(self, protocol: str, **headers: str) -> tuple[Incoming, asyncio.StreamWriter]:
        """Leave HTTP for another protocol, on the same connection."""
        self.has_begun = True
        fields = {"connection": "Upgrade", "upgrade": protocol}
        fields |= {name.replace("_", "-"): value for name, value in headers.items()}
        await self._send(h11.InformationalResponse(status_code=101, headers=list(fields.items())))
        begin, _ = self._connection.trailing_data
        return Incoming(self._reader, begin), self._writer

    async def gone(self) -> None:
        """Return once the client has closed the connection; for answers that wait for news."""
        with contextlib.suppress(ConnectionError):
            while await self._reader.read(_PIECE):
                pass

    async def _send(self, event: Any) -> None:
        data = self._connection.send(event)
        if data:
            self._writer.write(data)
        try:
            async with asyncio.timeout(_STALLED_S):
                await self._writer.drain()
        except TimeoutError:
            raise ConnectionAbortedError("the client takes no bytes") from None


class Server:
    """Serves requests. Lifetime: from `start` to `close`; one event loop."""

    def __init__(self, handle: Callable[[Request, Exchange], Awaitable[None]], *, most: int = CONNECTIONS) -> None:
        self._handle = handle
        self._most = most
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self, host: str, port: int, tls: ssl.SSLContext) -> int:
        """Listen, and return the port. Raises ``OSError``."""
        self._server = await asyncio.start_server(
            self._accept, host, port, ssl=tls, ssl_handshake_timeout=HEADER_S, ssl_shutdown_timeout=_END_S, limit=_PIECE
        )
        chosen: int = self._server.sockets[0].getsockname()[1]
        return chosen

    async def close(self) -> None:
        """Listen no more, and end all connections."""
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            _prepare(writer)
            await self._serve(reader, writer, is_full=len(self._tasks) > self._most)
        except (ConnectionError, EOFError, TimeoutError, OSError, h11.RemoteProtocolError) as error:
            _log.debug("a connection to the kubelet's API has ended: %s", error)
        except asyncio.CancelledError:
            pass  # by `close`; the task belongs to the server
        finally:
            self._tasks.discard(task)
            await _close(writer)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, is_full: bool) -> None:
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=_MOST_HEAD)
        exchange = Exchange(connection, reader, writer)
        try:
            async with asyncio.timeout(HEADER_S):
                event = await _request(connection, reader)
        except h11.RemoteProtocolError as error:
            if connection.our_state in {h11.IDLE, h11.SEND_RESPONSE}:
                await exchange.answer(error.error_status_hint, str(error))
            return
        if event is None:
            return
        if is_full:
            await exchange.answer(503, f"more than {self._most} connections to the kubelet's API; ask again later")
            return
        try:
            request = _read(event, writer)
        except ValueError as error:
            await exchange.answer(400, f"the request cannot be read: {error}")
            return
        try:
            await self._handle(request, exchange)
        except (ConnectionError, asyncio.CancelledError):
            raise
        except Exception:  # noqa: BLE001 - one request must not end the server
            _log.exception("a request to the kubelet's API has failed by a mistake of the controller")
            if not exchange.has_begun:
                await exchange.answer(500, "a mistake of the controller; the log of the controller has more")


async def _request(connection: h11.Connection, reader: asyncio.StreamReader) -> h11.Request | None:
    """Read the headers of a request, and what is there of the body, which nobody needs."""
    found: h11.Request | None = None
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await reader.read(_PIECE))
        elif isinstance(event, h11.Request):
            found = event
        elif event is h11.PAUSED or isinstance(event, h11.EndOfMessage | h11.ConnectionClosed):
            return found


def _read(event: h11.Request, writer: asyncio.StreamWriter) -> Request:
    target = urlsplit(event.target.decode("ascii", "replace"))
    headers: dict[str, str] = {}
    for name, value in event.headers:
        text = value.decode("latin-1")
        key = name.decode("ascii")
        headers[key] = f"{headers[key]},{text}" if key in headers else text
    certificate = writer.get_extra_info("peercert")
    subject: dict[str, list[str]] | None = None
    if certificate:
        subject = {}
        for names in certificate.get("subject", ()):
            for kind, value in names:
                subject.setdefault(kind, []).append(value)
    return Request(
        event.method.decode("ascii"),
        tuple(unquote(part) for part in target.path.strip("/").split("/")),
        parse_qs(target.query, keep_blank_values=True, max_num_fields=1000),
        headers,
        subject,
    )


def _prepare(writer: asyncio.StreamWriter) -> None:
    """Let few bytes wait for a slow client, and let the system notice a client that has vanished."""
    writer.transport.set_write_buffer_limits(high=_PIECE)
    connection = writer.get_extra_info("socket")
    if connection is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    try:
        async with asyncio.timeout(_END_S):
            await writer.wait_closed()
    except (OSError, TimeoutError, asyncio.CancelledError):
        writer.transport.abort()
