"""One HTTP/1.1 exchange on a new connection, for command lines that have to start fast.

The standard library's client imports the parsers of e-mail and TLS: a fifth of the start of a short command. An arklet
needs neither; TLS is for callers with a context. Sends a request, and reads one answer: with a length, in chunks, or
up to the end of the connection.
"""

from __future__ import annotations

import contextlib
import socket
import time
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping

_PIECE: Final = 65536
_LONGEST_LINE: Final = 65536
_MOST_HEADERS: Final = 100
_VERSIONS: Final = (b"HTTP/1.1", b"HTTP/1.0")
_DIGITS: Final = frozenset("0123456789abcdef")
_MOST_DIGITS: Final = 15
_CONTINUE: Final = range(100, 200)
_WITHOUT_BODY: Final = (204, 304)


class BadAnswer(Exception):
    """The answer is not HTTP/1.1, or ends in the middle."""


class Answer(NamedTuple):
    """One answer: status, headers by their names in lower case, and content."""

    status: int
    headers: Mapping[str, str]
    content: bytes


def exchange(
    address: tuple[str, int],
    method: str,
    path: str,
    *,
    headers: Mapping[str, str] = {},
    body: bytes = b"",
    connect_timeout_s: float,
    timeout_s: float,
    tls: ssl.SSLContext | None = None,
) -> Answer:
    """Send one request and return the answer, of any status. ``timeout_s`` is for request and answer together.

    With ``tls`` the exchange is encrypted, and the server shows a certificate for ``host``.

    Raises ``TimeoutError``, another ``OSError`` if the host cannot be reached, `BadAnswer`, and ``ValueError`` for a
    host or a header with characters that HTTP does not allow. May be called from any thread.
    """
    host, port = address
    if not host.isprintable() or " " in host:
        raise ValueError(f"{host!r} is no host name")
    if wrong := [name for name, value in headers.items() if not {"\r", "\n", "\0"}.isdisjoint(value)]:
        raise ValueError(f"the header {wrong[0]} contains a line end")
    shown = f"[{host}]" if ":" in host else host.encode("idna").decode() if not host.isascii() else host
    fields = {"Host": f"{shown}:{port}", "Accept-Encoding": "identity", "Content-Length": str(len(body)), **headers}
    head = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items()), "", ""]
    deadline = time.monotonic() + timeout_s
    # As bytes, a name of ASCII characters is looked up without the codec for international names.
    target = host.encode() if host.isascii() else host
    with socket.create_connection((target, port), timeout=min(connect_timeout_s, timeout_s)) as connection:  # type: ignore[arg-type]
        _limit(connection, deadline)
        with connection if tls is None else tls.wrap_socket(connection, server_hostname=host) as stream:
            # A server may refuse before the body is read; the answer can be read all the same.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                stream.sendall("\r\n".join(head).encode("latin-1") + body)
            return _read(_Stream(stream, deadline))


def _limit(connection: socket.socket, deadline: float) -> None:
    """Give the next wait on the connection the time left until ``deadline``. Raises ``TimeoutError`` if none is."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    connection.settimeout(left)


class _Stream:
    """The bytes of one connection, read up to a deadline."""

    def __init__(self, connection: socket.socket, deadline: float) -> None:
        self._connection = connection
        self._deadline = deadline
        self._buffer = bytearray()

    def is_empty(self) -> bool:
        """Whether the server closed the connection without a byte more."""
        return not self._buffer and not self._more()

    def line(self) -> bytes:
        """The next line, with its end. Raises `BadAnswer` for none, or a very long one."""
        while (end := self._buffer.find(b"\n")) < 0:
            if len(self._buffer) > _LONGEST_LINE or not self._more():
                raise BadAnswer(f"no line of HTTP: {bytes(self._buffer[:80])!r}")
        return self._take(end + 1)

    def exactly(self, count: int) -> bytes:
        """The next ``count`` bytes. Raises `BadAnswer` if the connection ends before."""
        while len(self._buffer) < count:
            if not self._more():
                raise BadAnswer(f"the answer ends after {len(self._buffer)} of {count} bytes")
        return self._take(count)

    def rest(self) -> bytes:
        """All bytes up to the end of the connection."""
        while self._more():
            pass
        return self._take(len(self._buffer))

    def _take(self, count: int) -> bytes:
        taken = bytes(self._buffer[:count])
        del self._buffer[:count]
        return taken

    def _more(self) -> bool:
        _limit(self._connection, self._deadline)
        piece = self._connection.recv(_PIECE)
        self._buffer += piece
        return bool(piece)


def _read(stream: _Stream) -> Answer:
    if stream.is_empty():
        raise ConnectionResetError("the connection was closed without an answer")
    status = 100
    headers: dict[str, str] = {}
    while status in _CONTINUE:
        status = _status(stream.line())
        headers = _headers(stream)
    if status in _WITHOUT_BODY:
        return Answer(status, headers, b"")
    if headers.get("transfer-encoding", "").lower() == "chunked":
        return Answer(status, headers, _chunks(stream))
    length = headers.get("content-length", "")
    if not length:
        return Answer(status, headers, stream.rest())
    if not (length.isascii() and length.isdigit()):
        raise BadAnswer(f"the length {length!r} is no number")
    return Answer(status, headers, stream.exactly(int(length)))


def _status(line: bytes) -> int:
    version, _, rest = line.rstrip(b"\r\n").partition(b" ")
    code = rest.partition(b" ")[0]
    if version not in _VERSIONS or len(code) != len("200") or not code.isdigit() or code < b"100":
        raise BadAnswer(f"no status line of HTTP/1.1: {line[:80]!r}")
    return int(code)


def _headers(stream: _Stream) -> dict[str, str]:
    headers: dict[str, str] = {}
    for _ in range(_MOST_HEADERS):
        line = stream.line().rstrip(b"\r\n").decode("latin-1")
        if not line:
            return headers
        name, _, value = line.partition(":")
        headers[name.strip().lower()] = value.strip()
    raise BadAnswer(f"more than {_MOST_HEADERS} headers")


def _chunks(stream: _Stream) -> bytes:
    content = bytearray()
    while True:
        text = stream.line().partition(b";")[0].strip().decode("latin-1").lower()
        if not 0 < len(text) <= _MOST_DIGITS or not _DIGITS.issuperset(text):
            raise BadAnswer(f"{text[:80]!r} is no size of a chunk")
        size = int(text, 16)
        if not size:
            break
        content += stream.exactly(size)
        stream.line()
    _headers(stream)  # trailers
    return bytes(content)
