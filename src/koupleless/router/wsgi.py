"""A WSGI application behind the ASGI front: a2wsgi translates, and this file ends streams, threads and responses.

Under a2wsgi alone, a stream goes on for ever after its client has left; an aborted stream leaves its thread waiting for
a loop that no longer listens; threads never end; and a head that the application replaces, because the application has
caught an error, is sent in its first form, and the error is raised all the same.
"""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from koupleless.context import as_base
from koupleless.exits import EXITS, in_place_of
from koupleless.traffic import SERVES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from concurrent.futures import Future
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from koupleless.router.types import Connection, Message, Receive, Send

DEFAULT_WORKERS: Final = 32
_QUEUED_CHUNKS: Final = 10


class _Workers(ThreadPoolExecutor):
    """Threads that belong to the base even when a request of the biz makes the pool start a thread.

    Work on a thread runs as the biz all the same: a2wsgi hands the context of the request along with the work.
    """

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        with as_base():
            return super().submit(fn, *args, **kwargs)


@contextmanager
def _no_exit(name: str) -> Iterator[None]:
    """Turn ``sys.exit()`` into an error: a ``SystemExit`` would come out of the event loop and end the server."""
    try:
        yield
    except EXITS as error:
        raise in_place_of(error, name, "while it served a request") from error


class _Head:
    """Status and headers of a response, sent with the first bytes; until then the application may replace the head."""

    def __init__(self, start: StartResponse) -> None:
        self._start = start
        self._head: tuple[str, list[tuple[str, str]]] | None = None
        self._send: Callable[[bytes], object] | None = None

    def replace(self, status: str, headers: list[tuple[str, str]], error: Any = None, /) -> Callable[[bytes], object]:
        """``start_response`` (PEP 3333), for the application."""
        if error is not None:
            try:
                if self._send is not None:
                    raise error[1].with_traceback(error[2])
            finally:
                error = None
        elif self._head is not None:
            raise AssertionError("start_response was called a second time without an error")
        self._head = status, headers
        return self.write

    def write(self, chunk: bytes) -> None:
        """Send a chunk: the function that ``start_response`` returns."""
        self.send()(chunk)

    def send(self) -> Callable[[bytes], object]:
        """Send the head, unless the head has been sent; returns the function that sends a chunk."""
        if self._send is None:
            if self._head is None:
                raise AssertionError("the application did not call start_response")
            self._send = self._start(*self._head)
        return self._send


class _Watched:
    """The chunks of a response, for as long as there is a client."""

    def __init__(self, chunks: Iterable[bytes], head: _Head, exchange: _Exchange, name: str) -> None:
        self._chunks = chunks
        self._head = head
        self._exchange = exchange
        self._name = name

    def __iter__(self) -> Iterator[bytes]:
        with _no_exit(self._name):
            for chunk in self._chunks:
                if chunk:
                    self._head.send()
                    yield chunk
                if self._exchange.is_over:
                    return
            self._head.send()

    def close(self) -> None:
        close = getattr(self._chunks, "close", None)
        if close is not None:
            with _no_exit(self._name):
                close()


class _Exchange:
    """The two directions of one request, between the server and a worker thread.

    Lives on the loop; the worker reads `is_over` and nothing else. Once the exchange is over, everything that the
    worker sends is dropped and everything that the worker reads is the end, so that the thread always comes back.
    """

    def __init__(self, receive: Receive, send: Send) -> None:
        self.is_over = False
        self._receive = receive
        self._send = send
        self._error: Exception | None = None
        self._kept: list[Message] = []
        self._reading = asyncio.Lock()
        self._reader: asyncio.Task[Any] | None = None
        self._sender: asyncio.Task[Any] | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._chunks = 0

    async def receive(self) -> Message:
        if self._kept:
            return self._kept.pop(0)
        self._reader = asyncio.current_task()
        try:
            async with self._reading:
                if self._kept:
                    return self._kept.pop(0)
                message = await self._receive()
        except asyncio.CancelledError:
            if not self.is_over:
                raise
            return {"type": "http.disconnect"}
        finally:
            self._reader = None
        if message["type"] == "http.disconnect":
            self.is_over = True
        return message

    async def send(self, message: Message) -> None:
        if self.is_over:
            return
        if message.get("body"):
            self._chunks += 1
            if self._chunks == 2:  # noqa: PLR2004 - a response of one chunk is over before anybody could leave
                self._watcher = asyncio.create_task(self._watch())
        self._sender = asyncio.current_task()
        try:
            await self._send(message)
        except asyncio.CancelledError:
            if not self.is_over:
                raise
        except Exception as error:  # noqa: BLE001 - raised by `finish`, when the worker has come back
            self._error = error
            self.is_over = True
        finally:
            self._sender = None

    async def _watch(self) -> None:
        """Notice that the client leaves during a stream: servers tell only readers, and a stream reads nothing."""
        while True:
            async with self._reading:
                if any(message.get("more_body") for message in self._kept):
                    return  # the worker has not read the body of the request yet, and will be told by a read
                message = await self._receive()
                if message["type"] == "http.disconnect":
                    self.is_over = True
                    return
                self._kept.append(message)

    def abandon(self) -> None:
        """Let go of the worker, wherever the worker waits: the request was cancelled."""
        self.is_over = True
        for task in (self._reader, self._sender, self._watcher):
            if task is not None:
                task.cancel()

    def finish(self) -> None:
        """Note that the worker has come back. Raises the error of a server that refused the response."""
        if self._watcher is not None:
            self._watcher.cancel()
        if self._error is not None:
            raise self._error


class WsgiApp:
    """An ASGI application that runs a WSGI application on threads of its own.

    Lifetime: made with the face of the biz, closed with the gate. There is no lifespan, and WebSockets are closed.
    Threads are started as requests need threads, at most ``workers``, and named after the biz.
    """

    def __init__(self, app: WSGIApplication, *, name: str, workers: int = DEFAULT_WORKERS) -> None:
        with as_base():
            from a2wsgi.wsgi import WSGIResponder  # noqa: PLC0415 - only a base with such a module pays for it

        self._name = name
        self._app: WSGIApplication | None = app
        # The types of a2wsgi for messages and environments are dictionaries of its own, not the standard library's.
        self._responder: Any = WSGIResponder
        self._workers = _Workers(workers, thread_name_prefix=f"{name} wsgi", initializer=_note_server, initargs=(name,))

    async def __call__(self, connection: Connection, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if connection["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1000, "reason": ""})
            return
        app = self._app
        if connection["type"] != "http" or app is None:
            return
        exchange = _Exchange(receive, send)

        def watched(environ: WSGIEnvironment, start_response: StartResponse) -> _Watched:
            head = _Head(start_response)
            with _no_exit(self._name):
                return _Watched(app(environ, head.replace), head, exchange, self._name)

        respond = self._responder(watched, self._workers, _QUEUED_CHUNKS)
        # A task of its own: when the task here is cancelled, the work goes on until the worker has noticed.
        work = asyncio.ensure_future(respond(connection, exchange.receive, exchange.send))
        try:
            await asyncio.shield(work)
        except asyncio.CancelledError:
            exchange.abandon()
            work.add_done_callback(_look_at)
            raise
        except BaseException:
            exchange.abandon()
            raise
        exchange.finish()

    def close(self, timeout_s: float = 1.0) -> tuple[str, ...]:
        """End the threads, waiting at most ``timeout_s``; returns the names of threads that still run. Idempotent."""
        self._app = None
        threads = tuple(self._workers._threads)  # noqa: SLF001 - the pool has no bounded way to wait
        self._workers.shutdown(wait=False, cancel_futures=True)
        deadline = monotonic() + timeout_s
        for thread in threads:
            thread.join(max(0.0, deadline - monotonic()))
        return tuple(thread.name for thread in threads if thread.is_alive())


def _note_server(name: str) -> None:
    """Note on this thread that all work here is the biz's."""
    vars(threading.current_thread())[SERVES] = name


def _look_at(work: asyncio.Future[None]) -> None:
    """Take the outcome of abandoned work, so that asyncio does not complain of an outcome that nobody took."""
    if not work.cancelled():
        work.exception()
