"""One question by the health protocol of gRPC (``grpc.health.v1.Health/Check``), without a library for gRPC.

A probe asks a single, fixed question, so a few frames of HTTP/2 do: the request has constant headers without
compression, and the answer is decided by the first message. Sources: RFC 9113; RFC 7541, section 6.2.2; the
documentation of gRPC, "gRPC over HTTP2" and "GRPC Health Checking Protocol".
"""

from __future__ import annotations

import asyncio
import contextlib
import struct
from typing import Final

_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RESET, _SETTINGS, _PING, _GOAWAY = 0, 1, 3, 4, 6, 7
_ACK, _END_STREAM, _END_HEADERS, _PADDED = 1, 1, 4, 8
_STREAM: Final = 1
_LONGEST: Final = 1 << 20
_FOREIGN: Final = -1
_HEAD_BYTES: Final = 5
_SIGNS: Final = (_SETTINGS, _PING)
_REFUSALS: Final = {
    _FOREIGN: "the server does not speak HTTP/2",
    _RESET: "the server refuses the question",
    _GOAWAY: "the server refuses the connection",
}
_WORDS: Final = {0: "UNKNOWN", 1: "SERVING", 2: "NOT_SERVING", 3: "SERVICE_UNKNOWN"}
_SERVING: Final = 1


async def ask_health(address: str, port: int, service: str = "") -> str:
    """Ask a server for the health of a service; returns the failure in words, or an empty text for a success.

    Raises ``OSError`` without a connection. The call has no time limit of its own.
    """
    reader, writer = await asyncio.open_connection(address, port)
    try:
        writer.write(_PREFACE + _frame(_SETTINGS, 0, 0, b"") + _request(f"{address}:{port}", service))
        await writer.drain()
        return await _answer(reader, writer)
    except asyncio.IncompleteReadError:
        return "the server closed the connection without an answer of gRPC"
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


def _frame(kind: int, flags: int, stream: int, content: bytes) -> bytes:
    return struct.pack(">I", len(content))[1:] + struct.pack(">BBI", kind, flags, stream) + content


def _request(authority: str, service: str) -> bytes:
    headers = (
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/grpc.health.v1.Health/Check"),
        (":authority", authority),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
        ("user-agent", "kube-probe/koupleless"),
    )
    block = b"".join(b"\x00" + _text(name) + _text(value) for name, value in headers)
    name = service.encode()
    message = b"" if not name else b"\x0a" + _number(len(name)) + name
    head = b"\x00" + struct.pack(">I", len(message))
    return _frame(_HEADERS, _END_HEADERS, _STREAM, block) + _frame(_DATA, _END_STREAM, _STREAM, head + message)


def _text(text: str) -> bytes:
    """Write a text of a header: the length in 7 bits and more, and the text as it is."""
    content = text.encode()
    short = 127
    if len(content) < short:
        return bytes([len(content)]) + content
    return bytes([short]) + _number(len(content) - short) + content


def _number(number: int) -> bytes:
    """Write a number in groups of seven bits, the lowest first."""
    groups = bytearray()
    while number > 127:  # noqa: PLR2004
        groups.append(number & 127 | 128)
        number >>= 7
    return bytes([*groups, number])


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> str:
    """Read frames until the first message is whole, and judge the message."""
    message = b""
    while True:
        kind, flags, stream, content = await _read(reader)
        if kind in _SIGNS and not flags & _ACK:
            writer.write(_frame(kind, _ACK, 0, b"" if kind == _SETTINGS else content))
        elif kind in _REFUSALS:
            return _REFUSALS[kind]
        elif stream == _STREAM:
            if kind == _DATA:
                message += content[1 : len(content) - content[0]] if flags & _PADDED and content else content
            if len(message) >= _HEAD_BYTES and len(message) >= _HEAD_BYTES + int.from_bytes(message[1:_HEAD_BYTES]):
                return _judge(message[_HEAD_BYTES:])
            if kind in (_DATA, _HEADERS) and flags & _END_STREAM:
                return "the server answers with an error of gRPC: no such service, or no health service"


async def _read(reader: asyncio.StreamReader) -> tuple[int, int, int, bytes]:
    """Return kind, flags, stream and content of the next frame; a server of another protocol is refused."""
    head = await reader.readexactly(9)
    kind, flags, stream = struct.unpack(">BBI", head[3:])
    length = int.from_bytes(head[:3])
    if length > _LONGEST:
        return _FOREIGN, 0, 0, b""
    return kind, flags, stream, await reader.readexactly(length)


def _judge(message: bytes) -> str:
    """Read the status from a message: the first member, a number."""
    status = message[1] if len(message) > 1 and message[0] == 0x08 else 0  # noqa: PLR2004 - the member and its kind
    return "" if status == _SERVING else f"service unhealthy (responded with {_WORDS.get(status, str(status))!r})"
