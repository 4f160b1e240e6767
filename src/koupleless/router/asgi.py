"""The front: the ASGI application that finds the biz of a request, or passes the request to the base."""

from __future__ import annotations

import asyncio
import inspect
import traceback
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote_to_bytes

from koupleless.context import as_base
from koupleless.errors import BaseStartFailed
from koupleless.router.around.live import Live
from koupleless.router.around.mount import below
from koupleless.router.lifespan import Lifespan
from koupleless.router.refusals import NOT_FOUND, UNAVAILABLE, refuse
from koupleless.router.table import RouteTable, normalise_path

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from koupleless.router.gate import Gate
    from koupleless.router.gateway import Forward
    from koupleless.router.table import Route
    from koupleless.router.types import ASGIApp, Connection, Message, Receive, Send


class Front:
    """The application that the server gets: modules by the route table, everything else to the application of the base.

    Lifetime: as long as the server. Several fronts may live in one process; they share nothing.

    Threads: requests run on the loop of the server. `swap` and `table` may be used from any thread: the table is one
    reference to an immutable value, so a request sees the old table or the new one.

    ``on_startup`` is called with the loop of the server when the server has started the application of the base,
    ``on_shutdown`` before the server ends that application; both may be async. Under a server that sends no lifespan
    events, the first request calls ``on_startup`` and waits for the end of the call, and ``on_shutdown`` is never
    called.
    """

    def __init__(
        self,
        base_app: ASGIApp | None = None,
        *,
        table: RouteTable | None = None,
        on_startup: Callable[[asyncio.AbstractEventLoop], Awaitable[None] | None] | None = None,
        on_shutdown: Callable[[], Awaitable[None] | None] | None = None,
    ) -> None:
        self._base_app = base_app
        self._table = RouteTable() if table is None else table
        self._on_startup = on_startup
        self._on_shutdown = on_shutdown
        self.live = Live()
        self.fallbacks: Mapping[str, ASGIApp] = {}
        """By path, for a GET where no module answers, and the application of the base has no such path (404)."""
        self._has_begun = on_startup is None
        self._beginning: asyncio.Task[None] | None = None

    @property
    def table(self) -> RouteTable:
        """The table for the next request."""
        return self._table

    def swap(self, table: RouteTable) -> RouteTable:
        """Let every further request see ``table``; returns the one before."""
        before, self._table = self._table, table
        if self.live.asked:
            self.live.wake()
        return before

    async def __call__(self, connection: Connection, receive: Receive, send: Send) -> None:
        """Serve one connection of the server: its lifespan, a request, or a WebSocket."""
        if connection["type"] == "lifespan":
            await self._live(connection, receive, send)
            return
        if not self._has_begun:
            await self._begin_late()
        table = self._table
        while True:
            root: str = connection.get("root_path", "")
            path: str = below(connection["path"], root) if root else connection["path"]
            if table.is_plain:
                forward, route = None, table.match_path(path)
            else:
                path, forward, route = _look_up(table, connection, path)
            if route is None:
                break
            inner = _inner(connection, root, path, route, forward)
            if await (
                self._serve_live(route, path, inner, receive, send)
                if self.live.asked
                else route.gate.serve(inner, receive, send)
            ):
                return
            if table is self._table:
                # Shut, and no newer table to look at: the module is just leaving.
                detail = f"{route.biz} takes no requests at the moment"
                await refuse(connection, send, status=UNAVAILABLE, detail=detail)
                return
            table = self._table
        fallback = self.fallbacks.get(path)
        if fallback is not None and forward is None and connection.get("method") in ("GET", "HEAD"):
            await self._fall_back(fallback, connection, receive, send)
        elif self._base_app is None or forward is not None:
            await refuse(connection, send, status=NOT_FOUND, detail=f"no module answers at {connection['path']}")
        else:
            await self._base_app(connection, receive, send)

    async def _serve_live(self, route: Route, path: str, inner: Connection, receive: Receive, send: Send) -> bool:
        """Serve as the gate of a route does, while pages of some modules reload by themselves."""
        live, name, host = self.live, route.biz.name, _host_of(inner).lower()
        if not live.is_wanted(name):
            return await route.gate.serve(inner, receive, send)

        def present() -> Gate | None:
            found = self._table.match(host, path)
            return None if found is None or found.biz.name != name else found.gate

        app = live.app_at(path.removeprefix(route.path), name, present) if inner.get("method") == "GET" else None
        if app is not None:
            await app(inner, receive, send)
            return True
        inner, send = live.around(route.gate, inner, send)
        return await route.gate.serve(inner, receive, send)

    async def _fall_back(self, fallback: ASGIApp, connection: Connection, receive: Receive, send: Send) -> None:
        """Ask the application of the base, and send the answer of ``fallback`` in the place of a 404."""
        is_missing = self._base_app is None

        async def sending(message: Message) -> None:
            nonlocal is_missing
            is_missing |= message["type"] == "http.response.start" and message["status"] == NOT_FOUND
            if not is_missing:
                await send(message)

        if self._base_app is not None:
            await self._base_app(connection, receive, sending)
        if is_missing:
            await fallback(connection, receive, send)

    # --- the server's lifespan --------------------------------------------------------------------------------------

    async def _live(self, connection: Connection, receive: Receive, send: Send) -> None:
        """Run the lifespan of the server: the application of the base around the modules, so that it ends last."""
        stage = "startup"
        await receive()
        try:
            async with AsyncExitStack() as stack:
                if self._base_app is not None:
                    base = Lifespan(self._base_app, server=connection)
                    await base.startup(None)
                    stack.push_async_callback(base.shutdown, None)
                await self._begin()
                stack.push_async_callback(self._end)
                stage = "shutdown"
                await send({"type": "lifespan.startup.complete"})
                await receive()
        except Exception as error:
            said = getattr(error, "traceback", "") or "".join(traceback.format_exception(error))
            await send({"type": f"lifespan.{stage}.failed", "message": said})
            raise
        await send({"type": "lifespan.shutdown.complete"})

    async def _begin(self) -> None:
        if self._on_startup is not None:
            outcome = self._on_startup(asyncio.get_running_loop())
            if inspect.isawaitable(outcome):
                await outcome
        self._has_begun = True

    async def _end(self) -> None:
        if self._on_shutdown is not None:
            outcome = self._on_shutdown()
            if inspect.isawaitable(outcome):
                await outcome

    async def _begin_late(self) -> None:
        """Begin at the first request, under a server without lifespan events; other requests wait for the beginning."""
        if self._beginning is None:
            with as_base():
                self._beginning = asyncio.create_task(self._begin(), name="late start of the base")
        await asyncio.wait((self._beginning,))
        error = None if self._beginning.cancelled() else self._beginning.exception()
        if error is not None:
            raise BaseStartFailed(f"the base did not start: {error}") from error

    def __repr__(self) -> str:
        return f"<Front {self._table!r} before {self._base_app!r}>"


def _look_up(table: RouteTable, connection: Connection, path: str) -> tuple[str, Forward | None, Route | None]:
    """The path after forwarding, the forward, and the route, in a table in which the path alone does not decide."""
    host = _host_of(connection)
    forward = table.forwards.find(host, path or "/")
    if forward is not None:
        path = normalise_path(forward.context_path) + forward.target(path or "/")
    return path, forward, table.match(host.lower(), path)


def _host_of(connection: Connection) -> str:
    """The host that the client asked for, in the spelling of the client, without a port; a malformed one as a whole."""
    for name, value in connection["headers"]:
        if name == b"host":
            host: str = value.decode("latin-1")
            if host.startswith("["):
                address, bracket, port = host.partition("]")
                return host if port and not port.startswith(":") else address + bracket
            return host.partition(":")[0]
    return ""


def _inner(connection: Connection, root: str, path: str, route: Route, forward: Forward | None) -> Connection:
    """The connection as the application of a module gets it: mounted at ``root_path``, everything else as it came.

    ``path`` is the path below ``root``, after forwarding. Returns the connection itself where nothing changes.
    """
    # Asked for exactly its mount point, an application gets the path "/". Starlette would redirect to that path, Django
    # and datasette would not find it.
    full = f"{root}{path}/" if path == route.path else root + path
    is_same_path = full == connection["path"]
    if is_same_path and not route.path and not route.gate.changes(connection):
        return connection
    inner = {**connection}  # in half the time of dict()
    inner["root_path"] = root + route.path
    if not is_same_path:
        inner["path"] = full
        if connection.get("raw_path") is not None:
            inner["raw_path"] = _raw_path(connection, root, full, forward)
    return inner


def _raw_path(connection: Connection, root: str, full: str, forward: Forward | None) -> bytes:
    """The percent-encoded form of ``full``, in the spelling of the client wherever the spelling can be told."""
    raw: bytes = connection["raw_path"].partition(b"?")[0]
    guesses: tuple[bytes, ...]
    if forward is None:
        guesses = (raw + b"/", quote(root).encode() + raw, quote(root).encode() + raw + b"/")
    else:
        # As many segments as the rule takes away, by their raw spelling; the check below catches an encoded slash.
        cut = (root + forward.start).removesuffix("/").count("/")
        rest = b"/".join(raw.split(b"/")[cut + 1 :])
        head = quote(root + normalise_path(forward.context_path) + forward.to)
        guesses = (head.removesuffix("/").encode() + b"/" + rest,)
    for guess in guesses:
        if unquote_to_bytes(guess) == full.encode():
            return guess
    return quote(full).encode()
