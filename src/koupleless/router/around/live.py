"""Live reload: pages of a module show the next version by themselves, while a developer asks for it.

The pages of the module get a script, which listens to a stream of the base; when another life of the module answers,
the page is loaded again. A module is asked for by name, and for some seconds: whoever asks has to ask again, and if the
developer's tool is killed, everything is as before soon after.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import os
import threading
import time
from typing import TYPE_CHECKING, Final
from urllib.parse import quote
from weakref import WeakKeyDictionary

from koupleless.router.around.pages import can_take, is_navigation, plainly_asked, without_memory

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from koupleless.router.types import ASGIApp, Connection, Message, Receive, Send

PLACE: Final = "/.koupleless/live"
"""The path of the stream below the path of the module; the script has the ending ``.js``."""
MAX_S: Final = 60.0
"""The longest time that can be asked for at once."""

_STREAM_S: Final = 15.0
"""Seconds after which a stream ends, and the page begins the next: a server that goes down waits no longer for it."""
_SCRIPT: Final = b"""{
  const [stream, token] = document.currentScript.src.split(".js?")
  let tries = 30
  const listen = () => {
    const events = new EventSource(stream)
    events.onmessage = ({data}) => { tries = 30; if (data !== token) location.reload() }
    events.onerror = () => { if (events.readyState === EventSource.CLOSED && tries-- > 0) setTimeout(listen, 2000) }
  }
  listen()
}
"""


class Live:
    """Live reload of the modules of one front.

    Lifetime: of the front. Threads: `keep`, `wake` and `close` are for any; everything else is for the loop of the
    server.
    """

    def __init__(self) -> None:
        self.asked: dict[str, float] = {}
        """The modules that are asked for, by name, and until when by the monotonic clock. For reading.

        Empty while nobody asks, and a request then pays for no more than this look.
        """
        self._lock = threading.Lock()
        self._streams: dict[asyncio.Event, asyncio.AbstractEventLoop] = {}
        self._tokens: WeakKeyDictionary[object, str] = WeakKeyDictionary()
        self._numbers = itertools.count(1)
        self._process = os.urandom(6).hex()  # after a restart of the base no token of before is met again

    def keep(self, name: str, seconds: float) -> None:
        """Reload the pages of a module for so many seconds from now, at most `MAX_S`; 0 ends this at once."""
        with self._lock:
            if seconds > 0:
                self.asked[name] = time.monotonic() + min(seconds, MAX_S)
            else:
                self.asked.pop(name, None)
        self.wake()

    def is_wanted(self, name: str) -> bool:
        """Whether somebody asks for the module."""
        return self._left(name) > 0

    def _left(self, name: str) -> float:
        now = time.monotonic()
        left = self.asked.get(name, now) - now
        if left <= 0:
            with self._lock:
                for other in [each for each, until in self.asked.items() if until <= now]:
                    del self.asked[other]
        return left

    def wake(self) -> None:
        """Let every stream look which life of its module answers."""
        with self._lock:
            streams = tuple(self._streams.items())
        for event, loop in streams:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(event.set)

    def close(self) -> None:
        """End all streams, and ask for nothing any more."""
        with self._lock:
            self.asked.clear()
        self.wake()

    def token_of(self, life: object) -> str:
        """A text for one life of a module, never used for another life."""
        with self._lock:
            token = self._tokens.get(life)
            if token is None:
                token = self._tokens[life] = f"{self._process}-{next(self._numbers)}"
        return token

    # --- requests ------------------------------------------------------------------------------------------------

    def app_at(self, place: str, name: str, present: Callable[[], object | None]) -> ASGIApp | None:
        """The application for the script or the stream at ``place`` below the path of a module, else ``None``.

        ``name`` is the module, and ``present`` returns the life of the module that answers there at the moment.
        """
        if place == f"{PLACE}.js":
            return _script
        return functools.partial(self._stream, name, present) if place == PLACE else None

    async def _stream(
        self, name: str, present: Callable[[], object | None], _connection: Connection, receive: Receive, send: Send
    ) -> None:
        changed, ends = asyncio.Event(), time.monotonic() + _STREAM_S
        with self._lock:
            self._streams[changed] = asyncio.get_running_loop()
        gone = asyncio.ensure_future(_until_gone(receive))
        sent = ""
        try:
            await send(_start(b"text/event-stream"))
            await send({"type": "http.response.body", "body": b"retry: 300\n\n", "more_body": True})
            while (left := min(self._left(name), ends - time.monotonic())) > 0 and not gone.done():
                changed.clear()
                life = present()
                token = sent if life is None else self.token_of(life)
                del life
                if token != sent:
                    sent = token
                    await send({"type": "http.response.body", "body": f"data: {token}\n\n".encode(), "more_body": True})
                waiting = asyncio.ensure_future(changed.wait())
                await asyncio.wait((waiting, gone), timeout=left, return_when=asyncio.FIRST_COMPLETED)
                waiting.cancel()
            await send({"type": "http.response.body", "body": b""})
        finally:
            gone.cancel()
            with self._lock:
                del self._streams[changed]

    def around(self, life: object, connection: Connection, send: Send) -> tuple[Connection, Send]:
        """The connection and ``send`` for the application, so that a page that is answered gets the script.

        Both are the given ones for anything but a browser's request for a page. An answer stays as it is if it is no
        complete page in plain text, or if its policy forbids the script.
        """
        if not is_navigation(connection):
            return connection, send
        place = quote(connection.get("root_path", "")) + f"{PLACE}.js?{self.token_of(life)}"
        tag = f'<script src="{place}"></script>'.encode()
        return plainly_asked(connection), _Page(send, tag).send


async def _script(_connection: Connection, _receive: Receive, send: Send) -> None:
    await send(_start(b"text/javascript; charset=utf-8", (b"content-length", str(len(_SCRIPT)).encode())))
    await send({"type": "http.response.body", "body": _SCRIPT})


def _start(kind: bytes, *more: tuple[bytes, bytes]) -> Message:
    headers = [(b"content-type", kind), (b"cache-control", b"no-store"), (b"x-content-type-options", b"nosniff"), *more]
    return {"type": "http.response.start", "status": 200, "headers": headers}


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class _Page:
    """One answer on its way: the script is added behind the last byte, where browsers take it into the body."""

    def __init__(self, send: Send, tag: bytes) -> None:
        self._send = send
        self._tag = tag

    def send(self, message: Message) -> Awaitable[None]:
        kind = message["type"]
        if kind == "http.response.start":
            headers = list(message.get("headers") or ())
            if can_take(message.get("status", 0), headers):
                message = {**message, "headers": without_memory(headers, longer=len(self._tag))}
            else:
                self._tag = b""
        elif kind == "http.response.body" and not message.get("more_body") and self._tag:
            message = {**message, "body": bytes(message.get("body", b"")) + self._tag}
            self._tag = b""
        return self._send(message)
