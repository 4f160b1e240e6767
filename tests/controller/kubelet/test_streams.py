"""SPDY/3.1 as the API server speaks it: streams to and fro, and everything a client may do wrong."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import struct
from typing import TYPE_CHECKING, Any

import pytest
from tests.controller.kubelet.spdy import PING, SETTINGS, SYN_STREAM, Client, Deflating, closed, control

from koupleless.controller.kubelet.transport.frames import DICTIONARY, Malformed, Opened, Piece, Reading
from koupleless.controller.kubelet.transport.streams import Session, Stream, StreamGone

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable


def test_the_dictionary_is_that_of_the_draft() -> None:
    assert len(DICTIONARY) == 1423
    assert hashlib.sha256(DICTIONARY).hexdigest() == "51d27341373f923f3cd88e1eb7162aeaa3723d7585ff2399201dc06498407f02"


@contextlib.asynccontextmanager
async def connected(opened: Callable[[Stream], bool]) -> AsyncIterator[tuple[Client, asyncio.Task[None]]]:
    """A client, and the task of the session of the server."""
    sessions: asyncio.Queue[asyncio.Task[None]] = asyncio.Queue()
    serving: list[Any] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(Session(reader, writer, opened).run())
        sessions.put_nowait(task)
        serving.append(asyncio.current_task())
        await asyncio.gather(task, return_exceptions=True)
        await closed(writer)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    client = Client(*await asyncio.open_connection("127.0.0.1", server.sockets[0].getsockname()[1]))
    try:
        yield client, await sessions.get()
    finally:
        await client.close()
        await asyncio.gather(*serving)
        server.close()


def play(act: Callable[[], Awaitable[None]]) -> None:
    async def run() -> None:
        async with asyncio.timeout(30):
            await act()

    asyncio.run(run())


def test_streams_carry_bytes_to_and_fro_until_each_end_has_ended() -> None:
    async def act() -> None:
        tasks = []

        async def echo(stream: Stream) -> None:
            while data := await stream.read():
                await stream.write(data)
            await stream.end()

        def opened(stream: Stream) -> bool:
            tasks.append(asyncio.create_task(echo(stream)))
            return True

        async with connected(opened) as (client, _):
            numbers = [client.open(streamtype="data", port="8080") for _ in range(20)]
            await client.until(lambda: client.replied == set(numbers))
            for number in numbers:
                client.send(number, b"%d" % number * 50_000)
                client.send(number, b".", is_last=True)
            await client.until(lambda: client.ended == set(numbers))
            assert all(client.got[number] == b"%d" % number * 50_000 + b"." for number in numbers)
            client.writer.write(control(PING, struct.pack(">I", 7)) + control(PING, struct.pack(">I", 8)))
            await client.until(lambda: client.pongs == [7])
        await asyncio.gather(*tasks)

    play(act)


def test_a_refused_stream_is_reset_and_the_connection_goes_on() -> None:
    async def act() -> None:
        async with connected(lambda stream: stream.headers.get("good") == "yes") as (client, _):
            bad, good = client.open(good="no"), client.open(good="yes")
            await client.until(lambda: client.reset == {bad} and client.replied == {good})

    play(act)


def test_a_client_that_is_gone_ends_reads_and_writes() -> None:
    async def act() -> None:
        streams: list[Stream] = []
        async with connected(lambda stream: not streams.append(stream)) as (client, session):  # type: ignore[func-returns-value]
            client.open()
            await client.until(lambda: client.replied)
            reading = asyncio.create_task(streams[0].read())
            await client.close()
            await session
            with pytest.raises(StreamGone):
                await reading
            with pytest.raises(StreamGone):
                await streams[0].write(b"x")
            await streams[0].end()
            await streams[0].reset()

    play(act)


def test_a_stream_that_nobody_reads_stops_the_client_and_holds_little() -> None:
    async def act() -> None:
        streams: list[Stream] = []
        async with connected(lambda stream: not streams.append(stream)) as (client, _):  # type: ignore[func-returns-value]
            number = client.open()
            await client.until(lambda: client.replied)
            sending = asyncio.create_task(_flood(client, number, 64 << 20))
            await _settled(lambda: len(streams[0]._pieces))
            assert not sending.done()
            assert sum(map(len, streams[0]._pieces)) < 1 << 20
            taken = 0
            while taken < 64 << 20:
                taken += len(await streams[0].read())
            await sending

    play(act)


def test_an_ignored_stream_holds_up_nothing() -> None:
    async def act() -> None:
        streams: list[Stream] = []
        async with connected(lambda stream: not streams.append(stream)) as (client, session):  # type: ignore[func-returns-value]
            number = client.open()
            await client.until(lambda: client.replied)
            sending = asyncio.create_task(_flood(client, number, 32 << 20))
            await _settled(lambda: len(streams[0]._pieces))
            streams[0].ignore()
            await sending
            await client.close()
            await session

    play(act)


async def _flood(client: Client, stream: int, size: int) -> None:
    for _ in range(size >> 20):
        client.send(stream, bytes(1 << 20))
        await client.writer.drain()


async def _settled(measure: Callable[[], int]) -> None:
    """Return once a number grows no more."""
    before = -1
    while measure() != before or not before:
        before = measure()
        await asyncio.sleep(0.05)


NONSENSE = {
    "another version": b"\x80\x02\x00\x01\x00\x00\x00\x00",
    "a huge control frame": b"\x80\x03\x00\x01\x00\xff\xff\xff",
    "a frame that is too short": control(SYN_STREAM, b"\x00"),
    "headers that are not compressed": control(SYN_STREAM, struct.pack(">IIH", 1, 0, 0) + b"nonsense"),
    "an even number": control(SYN_STREAM, struct.pack(">IIH", 2, 0, 0) + Deflating().block({"a": "b"})),
    "a bomb": control(SYN_STREAM, struct.pack(">IIH", 1, 0, 0) + Deflating().block({"a": "b" * (1 << 22)})),
    "HTTP": b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * 10,
}


@pytest.mark.parametrize("kind", NONSENSE)
def test_nonsense_ends_the_connection(kind: str) -> None:
    async def act() -> None:
        async with connected(lambda _: True) as (client, session):
            client.writer.write(NONSENSE[kind])
            if kind == "HTTP":  # may be read as data of a long frame of no stream: the end of the client ends this
                client.writer.write_eof()
            await session
            await client.until(lambda: client.is_closed)

    play(act)


def test_frames_of_no_interest_are_passed_over_and_long_data_comes_in_pieces() -> None:
    async def act() -> None:
        reader, headers = asyncio.StreamReader(), Deflating()
        reader.feed_data(control(SETTINGS, struct.pack(">III", 1, 4, 100)))
        reader.feed_data(control(8, struct.pack(">I", 1) + headers.block({"later": "x"})))
        reader.feed_data(control(SYN_STREAM, struct.pack(">IIH", 1, 0, 0) + headers.block({"Port": "1"}), flags=1))
        reader.feed_data(struct.pack(">II", 1, 1 << 24 | 200_000) + bytes(200_000))
        reader.feed_eof()
        frames = []
        with contextlib.suppress(asyncio.IncompleteReadError):
            async for frame in Reading(reader).frames():
                frames.append(frame)  # noqa: PERF401 - the reading raises at the end
        assert frames[0] == Opened(1, {"port": "1"}, is_last=True)
        pieces = [frame for frame in frames if isinstance(frame, Piece)]
        assert sum(len(piece.data) for piece in pieces) == 200_000
        assert [piece.is_last for piece in pieces] == [False, False, False, True]

    play(act)


def test_a_header_that_ends_too_early_is_malformed() -> None:
    from koupleless.controller.kubelet.transport.frames import _pairs

    for text in (struct.pack(">II", 1, 4_000_000_000), struct.pack(">I", 1_000_000_000), b""):
        with pytest.raises((Malformed, struct.error)):
            _pairs(text)
