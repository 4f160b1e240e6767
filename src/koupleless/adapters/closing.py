"""Classes of libraries with objects that serve clients, hold connections or wait for others, and the end of each.

Objects made by a biz are closed when the biz leaves, whichever way the biz holds the library. An object of the library
that a biz was merely the first to ask for, such as the global context of ZeroMQ, belongs to the base.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import sys
import threading
from typing import TYPE_CHECKING, Any, Final

from koupleless.context import as_base
from koupleless.ownership.ledger import Order
from koupleless.recorders.running.closing import Closer

if TYPE_CHECKING:
    from collections.abc import Callable

DISTRIBUTIONS: Final = ()
"""None is shared on account of this."""


# --- gRPC ------------------------------------------------------------------------------------------------------------


def _stop_grpc(server: Any, timeout_s: float) -> bool:
    # Running calls get the time, new calls are refused at once.
    state = getattr(server, "_state", None)
    if state is None or getattr(state.stage, "value", "") == "stopped":
        return False
    return bool(server.stop(timeout_s / 2).wait(timeout_s)) or _fail("it did not stop in time")


def _stop_grpc_of_loop(server: Any, timeout_s: float) -> bool:
    return _on_its_loop(server, lambda: server.stop(timeout_s / 2), timeout_s)


def _close_grpc_of_loop(channel: Any, timeout_s: float) -> bool:
    return _on_its_loop(channel, lambda: channel.close(timeout_s / 2), timeout_s)


def _on_its_loop(thing: Any, make: Callable[[], Any], timeout_s: float) -> bool:
    loop = getattr(thing, "_loop", None)
    if not isinstance(loop, asyncio.AbstractEventLoop) or loop.is_closed() or not loop.is_running():
        return False  # without the library, nothing can be closed, and nothing served
    asyncio.run_coroutine_threadsafe(make(), loop).result(timeout_s)
    return True


# --- ZeroMQ ----------------------------------------------------------------------------------------------------------


def _wake_zmq(context: Any, timeout_s: float) -> bool:
    """End the waits in sockets of a context; the only call that other threads may make."""
    if context.closed or _is_everybodys(context):
        return False
    ended = threading.Event()

    def terminate() -> None:
        with contextlib.suppress(Exception):  # closed by another thread meanwhile
            context.term()
        ended.set()

    with as_base():
        threading.Thread(target=terminate, name="end ZeroMQ", daemon=True).start()
    ended.wait(min(timeout_s, _MOMENT_S))  # the context itself ends with the last socket, below
    return True


_MOMENT_S: Final = 0.05


def _close_zmq_socket(socket: Any, _: float) -> bool:
    if socket.closed:
        return False
    socket.close(linger=0)
    return True


def _is_everybodys(context: Any) -> bool:
    """Whether a context is the global one of a library of the base."""
    kind = type(context)
    with as_base():
        module = sys.modules.get(kind.__module__)
    return getattr(kind, "_instance", None) is context and getattr(module, kind.__name__, None) is kind


# --- MQTT ------------------------------------------------------------------------------------------------------------


def _end_paho(client: Any, _: float) -> bool:
    is_running = getattr(client, "_thread", None) is not None
    is_connected = client.is_connected()
    client.disconnect()
    client.loop_stop()
    return is_running or is_connected


# --- databases -------------------------------------------------------------------------------------------------------


def _close_record(record: Any, _: float) -> bool:
    """Close a connection of an SQLAlchemy pool, in use or not; disposing of a pool leaves connections in use open."""
    connection = record.dbapi_connection
    if connection is None or hasattr(connection, "driver_connection"):
        return False  # a connection of an event loop; the transport is closed with the others
    try:
        connection.close()
    except Exception:  # noqa: BLE001 - a driver may allow this to the thread alone that has opened it (sqlite3)
        return False
    record.dbapi_connection = None  # nobody rolls the connection back then
    return True


def _call(name: str, is_closed: str, pool: Any, _: float) -> bool:
    if getattr(pool, is_closed, False) is True:
        return False
    getattr(pool, name)()
    return True


def _fail(reason: str) -> bool:
    raise TimeoutError(reason)


KINDS: Final = (
    Closer("gRPC server", "grpc._server", "_Server", _stop_grpc, Order.SERVERS),
    Closer("gRPC server", "grpc.aio._server", "Server", _stop_grpc_of_loop, Order.SERVERS),
    Closer("gRPC channel", "grpc._channel", "Channel", functools.partial(_call, "close", "")),
    Closer("gRPC channel", "grpc.aio._channel", "Channel", _close_grpc_of_loop, Order.SERVERS),
    Closer("ZeroMQ context", "zmq.sugar.context", "Context", _wake_zmq, Order.SERVERS),
    Closer("ZeroMQ socket", "zmq.sugar.socket", "Socket", _close_zmq_socket, Order.LAST, is_for_one_thread=True),
    Closer("MQTT client", "paho.mqtt.client", "Client", _end_paho),
    Closer("connection pool", "psycopg_pool.pool", "ConnectionPool", functools.partial(_call, "close", "closed")),
    Closer(
        "connection pool", "psycopg2.pool", "AbstractConnectionPool", functools.partial(_call, "closeall", "closed")
    ),
    Closer("database connection", "sqlalchemy.pool.base", "_ConnectionRecord", _close_record, Order.LAST),
    Closer(
        "connection pool", "redis.connection", "ConnectionPool", functools.partial(_call, "disconnect", ""), Order.LAST
    ),
    Closer(
        "MongoDB client",
        "pymongo.synchronous.mongo_client",
        "MongoClient",
        functools.partial(_call, "close", "_closed"),
    ),
)
OWN: Final[dict[str, Callable[[contextlib.ExitStack, Any], None]]] = {closer.module: closer.follow for closer in KINDS}
"""Followed in own copies and own versions of a biz, too."""
FOLLOWED: Final = OWN
