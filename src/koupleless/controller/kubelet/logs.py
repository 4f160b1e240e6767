"""The log of a container: the log of a version of a module since its last start, asked of the base again and again.

Of a thousand followers at one place in a log, one question goes to the base: followers are known by their places.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Self

from koupleless.controller.tunnels.tunnel import NoAnswer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from koupleless.controller.kubelet.places import Bases, Located
    from koupleless.controller.kubelet.transport.server import Exchange, Request
    from koupleless.controller.vnodes.base import AnnouncedBase

POLL_S: Final = 0.5
_MOST_ENTRIES: Final = 10_000_000
_WAITING_BYTES: Final = 64 << 20
"""Bytes of all logs that wait for slow readers; further readers wait for room."""
_ROOM_S: Final = 30.0
_TRUE: Final = frozenset({"true", "1"})


class Senseless(ValueError):
    """A request without sense; the text says why."""


@dataclass(frozen=True, slots=True)
class Wish:
    """The part of a log that is asked for."""

    follow: bool = False
    previous: bool = False
    timestamps: bool = False
    tail: int | None = None
    """The number of lines, the newest."""
    since: float = 0.0
    """The earliest time, in seconds since the epoch."""
    limit: int | None = None
    """The number of bytes."""

    @classmethod
    def of(cls, request: Request, *, now: float) -> Self:
        """Read the query of a request. Raises `Senseless`."""
        seconds, moment = _number(request, "sinceSeconds", 1), request.first("sinceTime")
        if seconds is not None and moment:
            raise Senseless("sinceSeconds and sinceTime exclude each other")
        since = 0.0 if seconds is None else now - seconds
        if moment:
            since = _moment(moment)
        return cls(
            follow=request.first("follow").lower() in _TRUE,
            previous=request.first("previous").lower() in _TRUE,
            timestamps=request.first("timestamps").lower() in _TRUE,
            tail=_number(request, "tailLines", 0),
            since=since,
            limit=_number(request, "limitBytes", 1),
        )


def _number(request: Request, name: str, least: int) -> int | None:
    text = request.first(name)
    if not text:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) < 16 and int(text) >= least):  # noqa: PLR2004
        raise Senseless(f"{name} has to be a number from {least} on")
    return int(text)


def _moment(text: str) -> float:
    try:
        moment = dt.datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise Senseless("sinceTime has to be a time as in RFC 3339, with a zone")
    return moment.timestamp()


@dataclass(frozen=True, slots=True)
class _Part:
    """An answer of a base."""

    entries: tuple[tuple[float, str], ...]
    """The time and the lines of each entry."""
    places: Mapping[str, str]

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Self:
        """Read the data of an answer. Raises `NoAnswer` for other data."""
        try:
            entries = tuple((float(one["time"]), str(one["text"])) for one in data.get("entries") or ())
            places = {str(name): str(place) for name, place in (data.get("places") or {}).items()}
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise NoAnswer(f"the answer of the base is no log: {error}") from None
        return cls(entries, places)


class Logs:
    """The logs of all modules. Lifetime: as the server; all on one event loop."""

    def __init__(self, bases: Bases, *, wall: Callable[[], float] = time.time, poll_s: float = POLL_S) -> None:
        self._bases = bases
        self._wall = wall
        self._poll_s = poll_s
        self._asked: dict[tuple[object, ...], tuple[float, asyncio.Task[_Part]]] = {}
        self._room = _Room(_WAITING_BYTES)

    async def send(self, found: Located, wish: Wish, exchange: Exchange, *, is_there: Callable[[], bool]) -> None:
        """Answer with the log of a container; following ends when the Pod is no longer there.

        Raises `NoAnswer` before the begin of the answer.
        """
        key = found.module.key
        most = _MOST_ENTRIES if wish.tail is None else wish.tail
        life = "previous" if wish.previous else "current"
        module = {"bizName": key.name, "bizVersion": key.version}
        asked = {**module, "life": life, "lines": most, "since": wish.since}
        part = _Part.of(await self._bases.ask(found.base, "queryLogs", asked))
        if wish.previous and not part.entries and not wish.since and wish.tail != 0:
            raise Senseless(f"previous terminated container {found.container!r} in Pod {found.pod.key} not found")
        lines: Iterable[bytes] = _lines(part, wish)
        if wish.tail is not None:
            lines = deque(lines, maxlen=wish.tail)
        left = _Left(wish.limit)
        await exchange.begin(200)
        await self._write(lines, left, exchange)
        if wish.follow and not wish.previous and not left.is_used_up:
            await self._follow(found, _Going(wish, left, part.places), exchange, is_there)
        await exchange.end()

    async def _follow(self, found: Located, going: _Going, exchange: Exchange, is_there: Callable[[], bool]) -> None:
        gone = asyncio.create_task(exchange.gone())
        try:
            is_going_on = True
            while is_going_on and not going.left.is_used_up:
                is_going_on = is_there()  # once more afterwards, for the last lines
                if is_going_on and (await asyncio.wait([gone], timeout=self._poll_s))[0]:
                    raise ConnectionResetError
                try:
                    part = await self._after(found.base, found.module.key, going.places)
                except NoAnswer:
                    continue  # the base is silent for a while, or is gone, and then the Pod soon is
                going.places = part.places
                await self._write(_lines(part, going.wish), going.left, exchange)
        finally:
            gone.cancel()

    async def _after(self, base: AnnouncedBase, key: Any, places: Mapping[str, str]) -> _Part:
        """Return the entries after a place, by the question of another follower where one has just asked."""
        now = asyncio.get_running_loop().time()
        same = (base.identity, base.ip, base.port, key, tuple(sorted(places.items())))
        asked, task = self._asked.get(same, (0.0, None))
        if task is None or (task.done() and asked + self._poll_s <= now):
            self._asked = {one: kept for one, kept in self._asked.items() if kept[0] + self._poll_s > now}
            body = {"bizName": key.name, "bizVersion": key.version, "places": dict(places)}
            task = asyncio.create_task(self._ask(base, body))
            task.add_done_callback(lambda task: task.cancelled() or task.exception())  # all followers may be gone
            self._asked[same] = now, task
        return await asyncio.shield(task)

    async def _ask(self, base: AnnouncedBase, body: Mapping[str, Any]) -> _Part:
        return _Part.of(await self._bases.ask(base, "queryLogs", body))

    async def _write(self, lines: Iterable[bytes], left: _Left, exchange: Exchange) -> None:
        data = left.take(b"".join(lines))
        if not data:
            return
        async with self._room.held(len(data)):
            await exchange.write(data)


def _lines(part: _Part, wish: Wish) -> Iterator[bytes]:
    for created, text in part.entries:
        if created < wish.since:
            continue
        stamp = f"{_stamp(created)} " if wish.timestamps else ""
        for line in text.split("\n"):
            yield f"{stamp}{line}\n".encode("utf-8", "replace")


def _stamp(created: float) -> str:
    """Write a time as kubelets do, with nanoseconds; clients read the zone."""
    seconds = int(created)
    whole = dt.datetime.fromtimestamp(seconds, dt.UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{whole}.{min(round((created - seconds) * 1_000), 999):03}000000Z"


class _Left:
    """The bytes that may still be sent."""

    def __init__(self, limit: int | None) -> None:
        self._left = limit

    @property
    def is_used_up(self) -> bool:
        return self._left == 0

    def take(self, data: bytes) -> bytes:
        if self._left is not None:
            data = data[: self._left]
            self._left -= len(data)
        return data


@dataclass(slots=True)
class _Going:
    """A log that is being followed: the wish, the bytes left, and the places reached."""

    wish: Wish
    left: _Left
    places: Mapping[str, str]


class _Room:
    """The bytes that all readers together may have waiting. One text larger than the whole is let through alone."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._used = 0
        self._changed = asyncio.Condition()

    def held(self, size: int) -> _Held:
        return _Held(self, size)

    async def take(self, size: int) -> None:
        async with self._changed:
            async with asyncio.timeout(_ROOM_S):
                await self._changed.wait_for(lambda: not self._used or self._used + size <= self._most)
            self._used += size

    async def give(self, size: int) -> None:
        self._used -= size
        async with self._changed:
            self._changed.notify_all()


class _Held:
    def __init__(self, room: _Room, size: int) -> None:
        self._room = room
        self._size = size

    async def __aenter__(self) -> None:
        await self._room.take(self._size)

    async def __aexit__(self, *_: object) -> None:
        await self._room.give(self._size)
