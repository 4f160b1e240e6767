"""The entrance of one biz: who is inside, letting nobody in any more, waiting for the last one, and the figures."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import json
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from koupleless import exits
from koupleless.context import begin_merged
from koupleless.router.wsgi import WsgiApp
from koupleless.variables import as_coroutine, await_in, rest_in
from koupleless.visits import Visit, Visits

if TYPE_CHECKING:
    from collections.abc import Mapping

    from koupleless.context import Scope

Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
ASGIApp: TypeAlias = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

_SERVER_ERROR: Final = 500
_UNAVAILABLE: Final = 503
_GOING_AWAY: Final = 1001  # the WebSocket close code for an endpoint that leaves


@dataclass(frozen=True, slots=True)
class Traffic:
    """What went through a gate since it was made: a snapshot."""

    requests: int
    """Requests and WebSockets let in, those still inside among them."""
    failed: int
    """Those that raised, answered with a status of 500 or more, or were aborted."""
    in_flight: int
    seconds: float
    """The time that the finished ones were inside, added up."""


class _Request(Visit):
    """One request, WebSocket or stream inside a gate: its task, and what it has said to the client so far."""

    def __init__(self, kind: str, receive: Receive, send: Send, task: asyncio.Task[Any] | None) -> None:
        self.task = task
        self.kind = kind
        self.started = False
        self.failed = False
        self._context = contextvars.copy_context()
        self._receive = receive
        self._send = send

    # The server's code runs as the base, in a context that no biz has set anything in. It sets timers, resumes reading
    # and starts the connection's next request, all of which inherit the context they are made in: a biz's would be
    # pinned there, and be that of other requests.

    async def receive(self) -> Message:
        """The ``receive`` that the application gets."""
        if exits.end_child is not None:
            exits.end_child()
        return await await_in(self._context, self._receive)

    async def send(self, message: Message) -> None:
        """The ``send`` that the application gets: looks at the first message and hands each one on."""
        if exits.end_child is not None:
            exits.end_child()
        if not self.started:
            self.started = True
            if message.get("status", 0) >= _SERVER_ERROR:
                self.failed = True
        # As `await_in`, without the way through it: mostly a server does not have to wait.
        context = self._context
        coroutine = as_coroutine(context.run(self._send, message))
        try:
            item = context.run(coroutine.send, None)
        except StopIteration:
            return
        await rest_in(context, coroutine, item)

    async def apologise(self, identity: str) -> None:
        """Tell the client that it was aborted, as far as the protocol still allows."""
        if self.kind != "websocket" and self.started:
            # Half an answer is out. Only an error makes the server close the connection instead of leaving it open.
            raise ConnectionAbortedError(f"{identity} was uninstalled before its answer was complete")
        # A client that has left in the meantime needs no apology; servers refuse to send it one.
        with contextlib.suppress(Exception):
            if self.kind == "websocket":
                reason = f"{identity} was uninstalled"
                await self._send({"type": "websocket.close", "code": _GOING_AWAY, "reason": reason})
            else:
                await _answer("http.response", self._send, _UNAVAILABLE, f"{identity} is being uninstalled")


async def refuse(scope: MutableMapping[str, Any], send: Send, *, status: int, detail: str) -> None:
    """Answer in an application's place: a small JSON document, for a WebSocket too where the server can do that."""
    if scope["type"] != "websocket":
        await _answer("http.response", send, status, detail)
    elif "websocket.http.response" in (scope.get("extensions") or {}):
        await _answer("websocket.http.response", send, status, detail)
    else:
        await send({"type": "websocket.close", "code": _GOING_AWAY, "reason": ""})


async def _answer(kind: str, send: Send, status: int, detail: str) -> None:
    body = json.dumps({"status": status, "detail": detail}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if status == _UNAVAILABLE:
        headers.append((b"retry-after", b"1"))
    await send({"type": f"{kind}.start", "status": status, "headers": headers})
    await send({"type": f"{kind}.body", "body": body})


class Gate:
    """One life of one biz, as requests see it.

    Lifetime: made by the container when the biz's application is ready; `shut` when no table leads to it any more,
    then `drain`, perhaps `abort`, then `close`, after which it holds nothing of the biz. A gate never opens again.

    Threads: as its `Visits`; `serve` runs on an event loop. The figures are exact as long as one loop serves, as in
    every server.
    """

    __slots__ = (
        "__weakref__",
        "_after_first",
        "_app",
        "_failed",
        "_inside",
        "_requests",
        "_scope",
        "_seconds",
        "_state",
        "name",
    )

    def __init__(
        self,
        scope: Scope,
        app: ASGIApp,
        *,
        state: Mapping[str, object] | None = None,
        after_first: Callable[[], object] | None = None,
    ) -> None:
        """Open it; ``after_first`` is called once, on the loop, when the first request has ended."""
        self.name = str(scope.biz)
        """The identity, for messages; it stays when the gate is closed."""
        self._scope: Scope | None = scope
        self._app: ASGIApp | None = app
        self._state: Mapping[str, object] = {} if state is None else state
        self._inside = Visits()
        self._after_first = after_first
        self._requests = 0
        self._failed = 0
        self._seconds = 0.0

    @property
    def is_shut(self) -> bool:
        """Whether nobody is let in any more."""
        return self._inside.is_shut

    @property
    def in_flight(self) -> int:
        """How many are inside now."""
        return len(self._inside)

    def traffic(self) -> Traffic:
        """The figures so far."""
        return Traffic(self._requests, self._failed, len(self._inside), self._seconds)

    async def serve(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> bool:
        """Let a request in and run the application on it, as the biz, until the application returns.

        Returns ``False``, with nothing read or sent, if the gate is shut: the caller looks for another. What the
        application raises passes through and is counted.
        """
        visit = _Request(scope["type"], receive, send, asyncio.current_task())
        is_in = self._inside.enter(visit)
        biz, app = self._scope, self._app
        if not is_in or app is None or biz is None:
            self._inside.leave(visit)
            return False
        self._requests += 1
        if "state" in scope or self._state:
            scope["state"] = dict(self._state)
        began = perf_counter()
        try:
            context, serving = begin_merged(biz, app, scope, visit.receive, visit.send)
            try:
                item = context.run(serving.send, None)
            except StopIteration:  # it did not have to wait
                pass
            else:
                await rest_in(context, serving, item)
        except asyncio.CancelledError:
            if not visit.is_aborted:
                raise
            await visit.apologise(self.name)
        except BaseException as error:
            visit.failed = True
            if not isinstance(error, exits.EXITS) or exits.is_of_signal(error):
                raise
            # In a task this would end the event loop, and with it every other module.
            raise exits.in_place_of(error, self.name, "while it served a request") from error
        finally:
            self._seconds += perf_counter() - began
            self._count(visit)
            self._inside.leave(visit)
            if self._after_first is not None:
                after_first, self._after_first = self._after_first, None
                after_first()
        return True

    def _count(self, visit: _Request) -> None:
        if visit.failed or visit.is_aborted:
            self._failed += 1
            visit.forgive()

    def shut(self) -> None:
        """Let nobody in any more. Whoever is inside stays."""
        self._inside.shut()

    async def drain(self, timeout_s: float) -> int:
        """Shut the gate and wait until the last one has left, at most ``timeout_s``. Returns how many are left."""
        return await self._inside.drain(timeout_s)

    async def abort(self, timeout_s: float) -> int:
        """Cancel whoever is inside and wait for them to leave, at most ``timeout_s``. Returns how many did not.

        A request that has not been answered gets a 503, a WebSocket is closed, a half-sent answer is cut off.
        """
        return await self._inside.abort(timeout_s)

    def close(self, timeout_s: float = 1.0) -> tuple[str, ...]:
        """Let go of the application, the scope and the state, and end the workers of a WSGI application. Idempotent.

        Returns the names of the worker threads that still run after ``timeout_s``: code that neither returned nor
        looked whether its client is there. Not on the server's loop: workers may need it to come to their end.
        """
        self.shut()
        app, self._app, self._scope, self._state = self._app, None, None, {}
        self._after_first = None
        return app.close(timeout_s) if isinstance(app, WsgiApp) else ()

    def __repr__(self) -> str:
        condition = "closed" if self._app is None else "shut" if self.is_shut else "open"
        return f"<Gate {self.name} {condition}, {len(self._inside)} in flight>"
