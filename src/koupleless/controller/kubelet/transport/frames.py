"""Frames of SPDY/3.1, as far as Kubernetes uses the protocol: streams opened by the client, without priorities.

API servers turn the WebSockets of newer clients into SPDY, and hand on the SPDY of older ones. Neither end keeps a
window of flow control, so there are no such frames here, and TCP alone slows a sender down. Source: the draft
"SPDY Protocol - Draft 3.1", sections 2.2, 2.6 and 2.6.10.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

_WORDS: Final = (
    "options head post put delete trace accept accept-charset accept-encoding accept-language accept-ranges age allow "
    "authorization cache-control connection content-base content-encoding content-language content-length "
    "content-location content-md5 content-range content-type date etag expect expires from host if-match "
    "if-modified-since if-none-match if-range if-unmodified-since last-modified location max-forwards pragma "
    "proxy-authenticate proxy-authorization range referer retry-after server te trailer transfer-encoding upgrade "
    "user-agent vary via warning www-authenticate method get status 200_OK version HTTP/1.1 url public set-cookie "
    "keep-alive origin"
)
_REST: Final = (
    "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505203 Non-Authoritative "
    "Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 Forbidden404 Not Found500 "
    "Internal Server Error501 Not Implemented503 Service UnavailableJan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec "
    "00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMTchunked,text/html,image/png,image/jpg,image/gif,application/xml,"
    "application/xhtml+xml,text/plain,text/javascript,publicprivatemax-age=gzip,deflate,sdchcharset=utf-8"
    "charset=iso-8859-1,utf-,*,enq=0."
)
_COUNTED: Final = [word.replace("_", " ").encode() for word in _WORDS.split()]
DICTIONARY: Final = b"".join(struct.pack(">I", len(word)) + word for word in _COUNTED) + _REST.encode()
"""The dictionary of the compression of headers, given by the draft."""

_VERSION: Final = 0x8003
_SYN_STREAM, _SYN_REPLY, _RST_STREAM, _PING, _GOAWAY = 1, 2, 3, 6, 7
_FIN: Final = 0x01
_MOST_CONTROL: Final = 64 << 10
_MOST_HEADERS: Final = 64 << 10
_PIECE: Final = 64 << 10
"""Bytes of one piece of data; a longer frame is read piece by piece."""


class Malformed(Exception):
    """The other end does not speak SPDY/3.1."""


class Source(Protocol):
    """Bytes of the other end."""

    async def readexactly(self, n: int, /) -> bytes:
        """Return ``n`` bytes. Raises ``asyncio.IncompleteReadError`` at the end of the connection."""


@dataclass(frozen=True, slots=True)
class Opened:
    """A stream of the other end has begun."""

    stream: int
    headers: Mapping[str, str]
    is_last: bool
    """Whether the other end sends nothing on the stream."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Data of a stream."""

    stream: int
    data: bytes
    is_last: bool


@dataclass(frozen=True, slots=True)
class Reset:
    """The other end has given up a stream."""

    stream: int


@dataclass(frozen=True, slots=True)
class Ping:
    """The other end asks for a sign of life."""

    number: int


class Goodbye:
    """The other end opens no more streams."""


Frame = Opened | Piece | Reset | Ping | Goodbye


class Reading:
    """Reads the frames of one connection. Headers are one compressed text over all frames."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._inflating = zlib.decompressobj(zdict=DICTIONARY)

    async def frames(self) -> AsyncIterator[Frame]:
        """Yield frames until the connection ends. Raises `Malformed`, and the errors of the source."""
        while True:
            first, second = struct.unpack(">II", await self._source.readexactly(8))
            flags, length = second >> 24, second & 0xFFFFFF
            if not first >> 31:
                async for piece in self._pieces(first, length, is_last=bool(flags & _FIN)):
                    yield piece
                continue
            if first >> 16 != _VERSION:
                raise Malformed(f"a frame of version {(first >> 16) & 0x7FFF}")
            if length > _MOST_CONTROL:
                raise Malformed(f"a frame of {length} bytes")
            frame = self._control(first & 0xFFFF, flags, await self._source.readexactly(length))
            if frame is not None:
                yield frame

    async def _pieces(self, stream: int, length: int, *, is_last: bool) -> AsyncIterator[Piece]:
        left = length
        while True:
            data = await self._source.readexactly(min(left, _PIECE))
            left -= len(data)
            yield Piece(stream, data, is_last and not left)
            if not left:
                return

    def _control(self, kind: int, flags: int, body: bytes) -> Frame | None:
        try:
            match kind:
                case 1:
                    (stream,) = struct.unpack_from(">I", body)
                    return Opened(stream & 0x7FFFFFFF, self._headers(body[10:]), bool(flags & _FIN))
                case 3:
                    return Reset(struct.unpack_from(">I", body)[0] & 0x7FFFFFFF)
                case 6:
                    return Ping(*struct.unpack_from(">I", body))
                case 7:
                    return Goodbye()
                case 2 | 8:
                    self._headers(body[4:])  # of no interest, but part of the one compressed text
        except struct.error:
            raise Malformed(f"a frame of kind {kind} is too short") from None
        return None

    def _headers(self, block: bytes) -> Mapping[str, str]:
        try:
            text = self._inflating.decompress(block, _MOST_HEADERS)
        except zlib.error as error:
            raise Malformed(f"headers cannot be read: {error}") from None
        if self._inflating.unconsumed_tail:
            raise Malformed(f"headers of more than {_MOST_HEADERS} bytes")
        return dict(_pairs(text))


def _pairs(text: bytes) -> list[tuple[str, str]]:
    (count,) = struct.unpack_from(">I", text)
    place, found = 4, []
    for _ in range(count):
        pair = []
        for _ in range(2):
            (length,) = struct.unpack_from(">I", text, place)
            if place + 4 + length > len(text):
                raise Malformed("headers end too early")
            pair.append(text[place + 4 : place + 4 + length].decode("utf-8", "replace"))
            place += 4 + length
        found.append((pair[0].lower(), pair[1]))
    return found


class Writing:
    """Makes the frames of this end."""

    def __init__(self) -> None:
        self._deflating = zlib.compressobj(zdict=DICTIONARY)

    def reply(self, stream: int) -> bytes:
        """Accept a stream."""
        block = self._deflating.compress(struct.pack(">I", 0)) + self._deflating.flush(zlib.Z_SYNC_FLUSH)
        return _control_frame(_SYN_REPLY, struct.pack(">I", stream) + block)

    def data(self, stream: int, data: bytes, *, is_last: bool = False) -> bytes:
        """Send data on a stream, fewer than 16 MiB."""
        return struct.pack(">II", stream, (_FIN if is_last else 0) << 24 | len(data)) + data

    def reset(self, stream: int, *, is_refusal: bool = False) -> bytes:
        """Give up a stream, or refuse a new one."""
        return _control_frame(_RST_STREAM, struct.pack(">II", stream, 3 if is_refusal else 5))

    def pong(self, number: int) -> bytes:
        """Answer a `Ping`."""
        return _control_frame(_PING, struct.pack(">I", number))

    def goodbye(self, last: int) -> bytes:
        """Announce the end of the connection, after the last stream of the other end."""
        return _control_frame(_GOAWAY, struct.pack(">II", last, 0))


def _control_frame(kind: int, body: bytes) -> bytes:
    return struct.pack(">HHI", _VERSION, kind, len(body)) + body
