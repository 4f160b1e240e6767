"""The HTTP server of the arklet: a thread and an event loop of its own, shared with no application.

Each connection is served by uvicorn's protocol, but not under ``uvicorn.Server``. Start and stop of ``Server`` write
into ``uvicorn.error``, the log of the application's server; the loop of ``Server`` wakes ten times a second, and the
stop waits in steps of a tenth of a second. A subclass without all this would replace ``_serve``, which is private,
``main_loop`` and ``shutdown``, and would inherit one call of ``create_server``.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import logging
import socket
import threading
from typing import TYPE_CHECKING, Any, Final

import h11
import uvicorn
from uvicorn.server import ServerState

from koupleless.arklet.api import ArkletApi
from koupleless.arklet.guard import Guard, Rotating, check_exposure
from koupleless.connections import BoundedH11, Bounds, Door
from koupleless.context import as_base
from koupleless.errors import BaseStartFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from uvicorn.protocols.http.h11_impl import RequestResponseCycle

    from koupleless.arklet.operations import Operations
    from koupleless.arklet.pages.pages import Pages
    from koupleless.arklet.reviewer import Reviewer
    from koupleless.certificates import ServerCertificate

DEFAULT_PORTS: Final = range(1238, 1338)
BACKLOG: Final = 64
"""Also the most connections that are accepted at once: so many file descriptors are taken beyond `CONNECTIONS`."""
CONNECTIONS: Final = 64
HEADER_S: Final = 10.0
LINGER_S: Final = 5.0
"""Seconds for running requests to be answered once the server stops."""

_LAST_S: Final = 0.5
"""Seconds for the callers of requests that have not ended by then to be told."""
_PAUSE_S: Final = 0.05
_LONGEST_PAUSE_S: Final = 5.0
"""Seconds before a server that has ended is started again: the second time, and at most."""

logger = logging.getLogger("koupleless.arklet")


class ArkletServer:
    """Serves operations over HTTP.

    Lifetime: made and started by the composition root, stopped once, before the container is closed. `start` and `stop`
    may be called from any thread but the server's own; both block.
    """

    def __init__(
        self,
        operations: Operations,
        host: str = "127.0.0.1",
        port: int | None = None,
        token: str | None = None,
        insecure: bool = False,
        *,
        allowed_hosts: Iterable[str] = (),
        header_timeout_s: float = HEADER_S,
        max_connections: int = CONNECTIONS,
        metrics_token: str | None = None,
        reread: Callable[[], str | None] | None = None,
        reviewer: Reviewer | None = None,
        expose: Callable[[str], tuple[bytes, str]] | None = None,
        pages: Pages | None = None,
        certificate: ServerCertificate | None = None,
    ) -> None:
        """``port`` is the port to listen on; ``None`` means the first free one of 1238 to 1337.

        A connection without a request is closed after ``header_timeout_s``, or sooner if more than ``max_connections``
        are open. ``reread`` reads the token anew, which may change; ``reviewer`` judges other tokens. ``expose`` writes
        the metrics, which ``metrics_token`` opens, too; ``pages`` answer every other GET. With a ``certificate`` the
        server speaks TLS.

        Raises ``SettingsError`` if strangers could call, ``BaseStartFailed`` if ``host`` is no address of this machine.
        """
        self._family, self._address = _resolve(host)
        check_exposure(
            self._address,
            token=token,
            insecure=insecure,
            metrics_token=metrics_token,
            is_reviewed=reviewer is not None,
        )
        self._reviewer = reviewer
        self._operations = operations
        self._host = host
        self._port = port
        self._token = token
        self._metrics_token = metrics_token
        self._rotating = None if reread is None else Rotating(reread)
        self._expose = expose
        self._pages = pages
        self._ssl = None if certificate is None else certificate.context
        self._allowed_hosts = tuple(allowed_hosts)
        self._bounds = Bounds(header_timeout_s, max_connections, BACKLOG)
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Event | None = None
        self._is_stopping = threading.Event()
        self._failure: BaseException | None = None

    def start(self) -> int:
        """Listen, and return the port. Raises ``BaseStartFailed`` if the address or port cannot be had."""
        address = self._address
        listener = _listen(self._family, address, self._port)
        port: int = listener.getsockname()[1]
        names = (self._host, *self._allowed_hosts)
        guard = Guard(
            bound=address,
            token=self._token,
            names=names,
            metrics_token=self._metrics_token,
            rotating=self._rotating,
            asks_everybody=self._reviewer is not None,
        )
        is_ready = threading.Event()
        thread = threading.Thread(
            target=self._run, args=(listener, guard, is_ready), name="koupleless-arklet", daemon=True
        )
        with as_base():  # the thread outlives its maker
            thread.start()
        is_ready.wait()
        if self._failure is not None:
            thread.join()
            raise BaseStartFailed(f"the arklet could not start: {self._failure}") from self._failure
        self._thread = thread
        return port

    def stop(self) -> None:
        """Take no more requests, let running ones be answered for a moment, and end the thread. Idempotent."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        assert self._loop is not None
        assert self._stopping is not None
        self._is_stopping.set()
        with contextlib.suppress(RuntimeError):  # it has ended, and is about to be started again, or not
            self._loop.call_soon_threadsafe(self._stopping.set)
        thread.join(LINGER_S + 1.0)  # for its own good: a daemon, which holds nothing up

    # --- on the server's thread ----------------------------------------------------------------------------------

    def _run(self, listener: socket.socket, guard: Guard, is_ready: threading.Event) -> None:
        """Serve until `stop`, and again after any other end: a base without an arklet could only be killed."""
        pause_s = 0.0
        with listener:
            while True:
                try:
                    with listener.dup() as own, asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
                        runner.run(self._serve(own, self._api(guard), is_ready))
                except BaseException as error:
                    if not is_ready.is_set():
                        self._failure = error
                        is_ready.set()
                        return
                    logger.exception("the arklet has ended, and is started again")
                if self._is_stopping.wait(pause_s):
                    return
                pause_s = min(2 * pause_s + _PAUSE_S, _LONGEST_PAUSE_S)

    def _api(self, guard: Guard) -> ArkletApi:
        return ArkletApi(self._operations, guard, self._expose, self._pages, reviewer=self._reviewer)

    async def _serve(self, listener: socket.socket, app: ArkletApi, is_ready: threading.Event) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        config = _QuietConfig(app, http=_Protocol, ws="none", lifespan="off", interface="asgi3", proxy_headers=False)
        config.load()
        state = ServerState()
        door = Door(self._bounds, name="the arklet", setting="arklet.max-connections", logger=logger)
        door.watch(self._loop)
        server = await self._loop.create_server(
            lambda: _Protocol(config, state, {}, door=door),
            sock=listener,
            backlog=BACKLOG,
            ssl=self._ssl,
            ssl_handshake_timeout=None if self._ssl is None else self._bounds.header_timeout_s,
        )
        is_ready.set()
        if self._is_stopping.is_set():
            self._stopping.set()
        self._operations.workers.submit(self._operations.vitals.warm)
        await self._stopping.wait()
        server.close()
        for connection in list(state.connections):
            connection.shutdown()
        if state.tasks:
            await asyncio.wait(set(state.tasks), timeout=LINGER_S)
        waiting = set(state.tasks)
        for task in waiting:
            task.cancel()
        if waiting:
            await asyncio.wait(waiting, timeout=_LAST_S)


class _QuietConfig(uvicorn.Config):
    """The settings of uvicorn without the side effect on the loggers of the process, which are the application's."""

    def configure_logging(self) -> None:
        pass


class _Protocol(BoundedH11):
    """HTTP/1.1 on one connection, logging to our logger and not to the access log of the application's server."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.logger = logger
        self.access_log = False

    def _is_idle(self) -> bool:
        """Count a connection as idle also while the body arrives: bodies are small, so a slow sender may give way."""
        return super()._is_idle() or self.conn.their_state is h11.SEND_BODY

    def eof_received(self) -> bool:  # type: ignore[override]
        """Keep the way back open for a client that has closed its half after a complete request."""
        cycle: RequestResponseCycle | None = self.cycle
        return cycle is not None and not cycle.more_body and not cycle.response_complete


def _resolve(host: str) -> tuple[socket.AddressFamily, str]:
    """The address to listen on. Raises ``BaseStartFailed`` for a name without an address."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise BaseStartFailed(f"the arklet cannot listen on {host}: {error}") from error
    # IPv4 first: `localhost` often has both, and the field's clients dial 127.0.0.1.
    family, *_, address = min(found, key=lambda entry: entry[0] is not socket.AF_INET)
    return family, str(ipaddress.ip_address(str(address[0]).partition("%")[0]))


def _listen(family: socket.AddressFamily, address: str, port: int | None) -> socket.socket:
    """Make a listening socket, before any thread exists that could fail instead. Raises ``BaseStartFailed``."""
    if port is not None:
        try:
            return _listen_on(family, address, port)
        except (OSError, OverflowError) as error:
            raise BaseStartFailed(f"the arklet cannot listen on {address} port {port}: {_reason(error)}") from error
    for candidate in DEFAULT_PORTS:
        try:
            return _listen_on(family, address, candidate)
        except OSError as error:
            if error.errno not in (errno.EADDRINUSE, errno.EACCES):
                raise BaseStartFailed(f"the arklet cannot listen on {address}: {_reason(error)}") from error
    raise BaseStartFailed(f"no port from {DEFAULT_PORTS[0]} to {DEFAULT_PORTS[-1]} is free on {address} for the arklet")


def _listen_on(family: socket.AddressFamily, address: str, port: int) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family is socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind((address, port))
        listener.listen(BACKLOG)  # with SO_REUSEADDR, only this call finds out that another process listens there
        listener.setblocking(False)
    except BaseException:
        listener.close()
        raise
    return listener


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
        return "another process listens there already"
    return str(getattr(error, "strerror", None) or error)
