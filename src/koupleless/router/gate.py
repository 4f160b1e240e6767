"""The entrance of one biz: lets requests in, refuses requests once the biz is leaving, and waits for the last one."""

from __future__ import annotations

import asyncio
import contextlib
from contextvars import copy_context
from time import perf_counter
from types import CoroutineType
from typing import TYPE_CHECKING, Any, Final

from koupleless import exits
from koupleless.context import enter
from koupleless.router.refusals import UNAVAILABLE, apologise
from koupleless.traffic import UNCOUNTED, Traffic
from koupleless.variables import ENDED, as_coroutine, await_in, rest_in
from koupleless.visits import Visit, Visits

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping

    from koupleless.context import Scope
    from koupleless.router.types import ASGIApp, Connection, Message, Receive, Send

_STATUSES: Final = {"websocket.accept": 101, "websocket.close": 403}
"""The statuses of answers that do not say their status: those which servers send for them."""


class _Request(Visit):
    """One request, WebSocket or stream inside a gate.

    The code of the server runs as the base, in a context in which no biz has set a variable. The server sets timers,
    resumes reading and starts the next request of the connection, and each of these inherits the context of its maker:
    the context of a biz would be pinned there, and would be the context of requests for other bizs.
    """

    is_answered = False
    """Whether the application has sent a message."""
    status: object = 0
    """The status of the answer; 0 before the answer."""
    has_failed = True
    """Whether the application has raised; until the end, nobody knows."""

    def __init__(self, kind: str, receive: Receive, send: Send) -> None:
        self.kind = kind
        self.task = asyncio.current_task()
        self._context = copy_context()
        self._receive = receive
        self._send = send

    async def receive(self) -> Message:
        """The ``receive`` of the server, for the application."""
        if exits.end_child is not None:
            exits.end_child()
        return await await_in(self._context, self._receive)

    async def send(self, message: Message) -> None:
        """The ``send`` of the server, for the application."""
        if exits.end_child is not None:
            exits.end_child()
        if not self.is_answered:
            self.is_answered = True
            self.status = message.get("status") or _STATUSES.get(message["type"], 0)
        # As `await_in`, without a call in between: mostly a server does not have to wait.
        context = self._context
        coroutine = context.run(self._send, message)
        if type(coroutine) is not CoroutineType:
            coroutine = as_coroutine(coroutine)
        item = context.run(next, coroutine.__await__(), ENDED)
        if item is not ENDED:
            await rest_in(context, coroutine, item)

    async def apologise(self, identity: str) -> None:
        """Tell the client that the request was aborted, as far as the protocol still allows.

        Raises ``ConnectionAbortedError`` if a part of the answer has been sent: an error is the only way to have the
        server close the connection instead of leaving it open.
        """
        if self.kind == "websocket":
            detail = f"{identity} was uninstalled"
        elif self.is_answered:
            raise ConnectionAbortedError(f"{identity} was uninstalled before the answer was complete")
        else:
            detail = f"{identity} is being uninstalled"
        if not self.is_answered:
            self.status = UNAVAILABLE
        # A client that has left in the meantime needs no apology; servers refuse to send one.
        with contextlib.suppress(Exception):
            await apologise(self.kind, self._send, detail=detail)


def _begin(
    scope: Scope, app: ASGIApp, traffic: Traffic, connection: Connection, visit: _Request
) -> tuple[Any, Coroutine[Any, Any, None]]:
    """Call an application as its biz, and make the first step; in a context that ends with the request.

    Returns the item to wait for, or `ENDED`, and the coroutine for `rest_in`.
    """
    scope.variables.put_on_top()
    enter(scope)
    if traffic.begun >= traffic.due:
        app = traffic.measured(app)
    serving = app(connection, visit.receive, visit.send)
    if type(serving) is not CoroutineType:
        serving = as_coroutine(serving)
    return next(serving.__await__(), ENDED), serving


class Gate:
    """The entrance to one life of one biz.

    Lifetime: made by the container when the application of the biz is ready. When no route leads to the gate any more,
    the container calls `shut`, then `drain`, perhaps `abort`, then `close`; a closed gate holds nothing of the biz. A
    gate never opens again.

    Threads: as `Visits`; `serve` runs on an event loop.
    """

    __slots__ = ("__weakref__", "_after_first", "_app", "_close", "_inside", "_scope", "_state", "_traffic", "name")

    def __init__(
        self,
        scope: Scope,
        app: ASGIApp,
        *,
        state: Mapping[str, object] | None = None,
        close: Callable[[float], tuple[str, ...]] | None = None,
        after_first: Callable[[], object] | None = None,
        traffic: Traffic = UNCOUNTED,
    ) -> None:
        """Open the gate.

        ``state`` is the state of the lifespan of the application. ``close`` ends the application, takes a deadline in
        seconds and returns the names of threads that still run. ``after_first`` is called once, on the loop, when the
        first request has ended. ``traffic`` counts the requests.
        """
        self.name = str(scope.biz)
        """The identity of the biz, for messages; a closed gate keeps the name."""
        self._scope: Scope | None = scope
        self._app: ASGIApp | None = app
        self._close = close
        self._state: Mapping[str, object] = {} if state is None else state
        self._inside = Visits()
        self._after_first = after_first
        self._traffic = traffic

    @property
    def is_shut(self) -> bool:
        """Whether the gate refuses requests."""
        return self._inside.is_shut

    def changes(self, connection: Connection) -> bool:
        """Whether `serve` changes a connection: applications get their own state in the place of the base's."""
        return bool(self._state) or "state" in connection

    async def serve(self, connection: Connection, receive: Receive, send: Send) -> bool:
        """Let a request in and run the application on the request, as the biz, until the application returns.

        Returns ``False``, with nothing read or sent, if the gate is shut: the caller looks for another gate. Errors of
        the application pass through.
        """
        began = perf_counter()
        visit = _Request(connection["type"], receive, send)
        is_in = self._inside.enter(visit)
        scope, app = self._scope, self._app
        if not is_in or app is None or scope is None:
            self._inside.leave(visit)
            return False
        if self._state or "state" in connection:
            connection["state"] = {**self._state}
        traffic, method = self._traffic, connection.get("method")  # the application may change the connection
        traffic.begun += 1
        try:
            context = copy_context()
            item, serving = context.run(_begin, scope, app, traffic, connection, visit)
            if item is not ENDED:
                await rest_in(context, serving, item)
            visit.has_failed = False
        except asyncio.CancelledError:
            visit.has_failed = False
            if not visit.is_aborted:
                raise
            await visit.apologise(self.name)
        except exits.EXITS as error:
            if exits.is_of_signal(error):
                raise
            # In a task this would end the event loop, and with it every other module.
            raise exits.in_place_of(error, self.name, "while it served a request") from error
        finally:
            if visit.is_aborted:
                visit.forgive()
            self._inside.leave(visit)
            traffic.count(method, visit.status, perf_counter() - began, visit.has_failed)
            if self._after_first is not None:
                self._call_after_first()
        return True

    def _call_after_first(self) -> None:
        after_first, self._after_first = self._after_first, None
        if after_first is not None:
            after_first()

    def shut(self) -> None:
        """Refuse further requests. Requests that are inside stay."""
        self._inside.shut()

    async def drain(self, timeout_s: float) -> int:
        """Shut the gate and wait until the last request has left, at most ``timeout_s``.

        Returns the number of requests that are still inside.
        """
        return await self._inside.drain(timeout_s)

    async def abort(self, timeout_s: float) -> int:
        """Cancel the requests inside and wait for them to leave, at most ``timeout_s``.

        A request that has not been answered gets a 503, a WebSocket is closed, a half-sent answer is cut off. Returns
        the number of requests that are still inside.
        """
        return await self._inside.abort(timeout_s)

    def close(self, timeout_s: float = 1.0) -> tuple[str, ...]:
        """Let go of the application, the scope and the state, and end the threads of the application. Idempotent.

        Returns the names of the threads that still run after ``timeout_s``: their code neither returned nor noticed
        that the client has left. Not on the loop of the server: the threads may need the loop to come to their end.
        """
        self.shut()
        self._app = self._scope = self._after_first = None
        self._state = {}
        close, self._close = self._close, None
        return () if close is None else close(timeout_s)

    def __repr__(self) -> str:
        condition = "closed" if self._app is None else "shut" if self.is_shut else "open"
        return f"<Gate {self.name} {condition}, {len(self._inside)} in flight>"
