"""The client's end of SPDY, for tests of the server's."""

from __future__ import annotations

import asyncio
import contextlib
import struct
import zlib
from typing import TYPE_CHECKING, Final

from koupleless.controller.kubelet.transport.frames import DICTIONARY

if TYPE_CHECKING:
    from collections.abc import Mapping

SYN_STREAM, SYN_REPLY, RST_STREAM, SETTINGS, PING, GOAWAY = 1, 2, 3, 4, 6, 7
VERSION: Final = 0x8003


class Deflating:
    """Headers of one connection, as a client writes them."""

    def __init__(self) -> None:
        self._deflating = zlib.compressobj(zdict=DICTIONARY)

    def block(self, headers: Mapping[str, str]) -> bytes:
        text = struct.pack(">I", len(headers))
        for pair in headers.items():
            text += b"".join(struct.pack(">I", len(part)) + part.encode() for part in pair)
        return self._deflating.compress(text) + self._deflating.flush(zlib.Z_SYNC_FLUSH)


def control(kind: int, body: bytes, *, flags: int = 0) -> bytes:
    return struct.pack(">HHI", VERSION, kind, flags << 24 | len(body)) + body


class Client:
    """A client on a connection that has left HTTP."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.got: dict[int, bytearray] = {}
        self.ended: set[int] = set()
        self.reset: set[int] = set()
        self.replied: set[int] = set()
        self.pongs: list[int] = []
        self.changed = asyncio.Condition()
        self.is_closed = False
        self._next = 1
        self._headers = Deflating()
        self._task = asyncio.create_task(self._read())

    def open(self, *, is_last: bool = False, **headers: str) -> int:
        number, self._next = self._next, self._next + 2
        body = struct.pack(">IIH", number, 0, 0) + self._headers.block(headers)
        self.writer.write(control(SYN_STREAM, body, flags=int(is_last)))
        return number

    def send(self, stream: int, data: bytes, *, is_last: bool = False) -> None:
        self.writer.write(struct.pack(">II", stream, int(is_last) << 24 | len(data)) + data)

    async def until(self, condition: object) -> None:
        async with asyncio.timeout(20), self.changed:
            await self.changed.wait_for(condition)  # type: ignore[arg-type]

    async def _read(self) -> None:
        try:
            while True:
                first, second = struct.unpack(">II", await self.reader.readexactly(8))
                body = await self.reader.readexactly(second & 0xFFFFFF)
                if not first >> 31:
                    self.got.setdefault(first, bytearray()).extend(body)
                    if second >> 24 & 1:
                        self.ended.add(first)
                else:
                    number = struct.unpack_from(">I", body)[0]
                    match first & 0xFFFF:
                        case 2:
                            self.replied.add(number)
                        case 3:
                            self.reset.add(number)
                        case 6:
                            self.pongs.append(number)
                await self._tell()
        except (EOFError, ConnectionError):
            self.is_closed = True
            await self._tell()

    async def _tell(self) -> None:
        async with self.changed:
            self.changed.notify_all()

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await closed(self.writer)


async def closed(writer: asyncio.StreamWriter) -> None:
    """Close a connection, and return once it is: the loop of a test ends soon."""
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
