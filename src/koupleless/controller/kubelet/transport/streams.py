"""The streams of one SPDY connection, opened by the other end, each read and written like a connection of its own."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from typing import TYPE_CHECKING, Final

from koupleless.controller.kubelet.transport.frames import (
    Goodbye,
    Malformed,
    Opened,
    Piece,
    Ping,
    Reading,
    Reset,
    Writing,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from koupleless.controller.kubelet.transport.frames import Frame, Source

_MOST_STREAMS: Final = 512
_WAITING_BYTES: Final = 256 << 10
"""Bytes of a stream that wait to be read, until nothing more is read of the whole connection."""
_PIECE: Final = 32 << 10
IDLE_S: Final = 4 * 3600.0
"""The time after which a connection without a byte in either direction ends, as with a kubelet."""


class StreamGone(ConnectionError):
    """The other end has given up the stream, or the connection."""


class Stream:
    """One stream, opened by the other end. Used on the loop of the `Session`."""

    def __init__(self, session: Session, number: int, headers: Mapping[str, str]) -> None:
        self.number = number
        self.headers = headers
        self._session = session
        self._pieces: deque[bytes] = deque()
        self._waiting = 0
        self._changed = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._is_heard_out = False
        self._is_ended = False
        self._is_gone = False
        self._is_ignored = False

    async def read(self) -> bytes:
        """Return the next bytes; none at the end. Raises `StreamGone`."""
        while not self._pieces:
            if self._is_gone:
                raise StreamGone
            if self._is_heard_out:
                return b""
            self._changed.clear()
            await self._changed.wait()
        data = self._pieces.popleft()
        self._waiting -= len(data)
        if self._waiting <= _WAITING_BYTES:
            self._room.set()
        return data

    async def write(self, data: bytes) -> None:
        """Send bytes, as fast as the other end takes them. Raises `StreamGone`."""
        for begin in range(0, len(data), _PIECE):
            if self._is_gone or self._is_ended:
                raise StreamGone
            await self._session.send(self._session.writing.data(self.number, data[begin : begin + _PIECE]))

    async def end(self) -> None:
        """Send nothing more. Idempotent."""
        if not self._is_gone and not self._is_ended:
            self._is_ended = True
            with contextlib.suppress(StreamGone):
                await self._session.send(self._session.writing.data(self.number, b"", is_last=True))
            self._session.forget(self, is_over=self._is_heard_out)

    def ignore(self) -> None:
        """Drop all that the other end has sent and sends, so that the connection is read on. Idempotent."""
        self._is_ignored = True
        self._pieces.clear()
        self._waiting = 0
        self._room.set()

    async def reset(self) -> None:
        """Give up the stream in both directions. Idempotent."""
        if not self._is_gone:
            self.lose()
            with contextlib.suppress(StreamGone):
                await self._session.send(self._session.writing.reset(self.number))
            self._session.forget(self, is_over=True)

    # --- for the session ---------------------------------------------------------------------------------------------

    async def take(self, data: bytes, *, is_last: bool) -> None:
        """Take data of the other end; returns once there is room for more."""
        if data and not (self._is_heard_out or self._is_gone or self._is_ignored):
            self._pieces.append(data)
            self._waiting += len(data)
        self._is_heard_out |= is_last
        self._changed.set()
        if self._is_heard_out:
            self._session.forget(self, is_over=self._is_ended)
        elif self._waiting > _WAITING_BYTES:
            self._room.clear()
            await self._room.wait()

    def lose(self) -> None:
        """Note that the other end is gone."""
        self._is_gone = True
        self._pieces.clear()
        self._waiting = 0
        self._changed.set()
        self._room.set()


class Session:
    """One connection. Lifetime: one call of `run`; all on one event loop."""

    def __init__(self, source: Source, sink: asyncio.StreamWriter, opened: Callable[[Stream], bool]) -> None:
        """``opened`` is given each new stream, and returns whether the stream is accepted; must not wait."""
        self.writing = Writing()
        self._reading = Reading(source)
        self._sink = sink
        self._opened = opened
        self._streams: dict[int, Stream] = {}
        self._last = 0
        self._turn = asyncio.Lock()
        self._seen = asyncio.get_running_loop().time()

    async def run(self) -> None:
        """Read until the other end closes the connection, says nonsense, or falls silent; never raises for these."""
        reading = asyncio.create_task(self._read())
        try:
            while not (await asyncio.wait([reading], timeout=self._left_s()))[0]:
                if self._left_s() <= 0:
                    return
        finally:
            reading.cancel()
            with contextlib.suppress(asyncio.CancelledError, ConnectionError, EOFError, Malformed, OSError):
                await reading
            for stream in self._streams.values():
                stream.lose()
            self._streams.clear()

    async def send(self, frame: bytes) -> None:
        """Send a frame, as fast as the other end takes bytes. Raises `StreamGone`."""
        self._seen = asyncio.get_running_loop().time()
        try:
            async with self._turn:
                self._sink.write(frame)
                await self._sink.drain()
        except OSError:
            raise StreamGone from None

    async def close(self) -> None:
        """Send the last words, after everything written before."""
        with contextlib.suppress(StreamGone):
            await self.send(self.writing.goodbye(self._last))

    def forget(self, stream: Stream, *, is_over: bool) -> None:
        """Let go of a stream that is over in both directions."""
        if is_over:
            self._streams.pop(stream.number, None)

    def _left_s(self) -> float:
        return self._seen + IDLE_S - asyncio.get_running_loop().time()

    async def _read(self) -> None:
        async for frame in self._reading.frames():
            self._seen = asyncio.get_running_loop().time()
            await self._take(frame)

    async def _take(self, frame: Frame) -> None:
        match frame:
            case Opened():
                await self._open(frame)
            case Piece() if (stream := self._streams.get(frame.stream)) is not None:
                await stream.take(frame.data, is_last=frame.is_last)
            case Reset() if (stream := self._streams.pop(frame.stream, None)) is not None:
                stream.lose()
            case Ping() if frame.number % 2:  # even numbers would be answers to ours
                await self.send(self.writing.pong(frame.number))
            case Goodbye() | Piece() | Reset() | Ping():
                pass

    async def _open(self, frame: Opened) -> None:
        number = frame.stream
        if number % 2 == 0 or number <= self._last:
            raise Malformed(f"stream {number} after {self._last}")
        self._last = number
        stream = Stream(self, number, frame.headers)
        if len(self._streams) >= _MOST_STREAMS or not self._opened(stream):
            await self.send(self.writing.reset(number, is_refusal=True))
            return
        self._streams[number] = stream
        await self.send(self.writing.reply(number))
        if frame.is_last:
            await stream.take(b"", is_last=True)
