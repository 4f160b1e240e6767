"""gRPC: servers and channels of a biz are closed with the biz."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from koupleless.ownership.ledger import Order
from koupleless.recorders.running.closing import Closer, calling

if TYPE_CHECKING:
    from collections.abc import Callable

distribution: Final = "grpcio"


def _stop_grpc(server: Any, timeout_s: float) -> bool:
    # Running calls get the time, new calls are refused at once.
    state = getattr(server, "_state", None)
    if state is None or getattr(state.stage, "value", "") == "stopped":
        return False
    if not server.stop(timeout_s / 2).wait(timeout_s):
        raise TimeoutError("the server did not stop in time")
    return True


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


KINDS: Final = (
    Closer("gRPC server", "grpc._server", "_Server", _stop_grpc, Order.SERVERS),
    Closer("gRPC server", "grpc.aio._server", "Server", _stop_grpc_of_loop, Order.SERVERS),
    Closer("gRPC channel", "grpc._channel", "Channel", calling("close")),
    Closer("gRPC channel", "grpc.aio._channel", "Channel", _close_grpc_of_loop, Order.SERVERS),
)

follow: Final = {closer.module: closer.follow for closer in KINDS}
follow_own: Final = follow
"""Followed in own copies and own versions of a biz, too."""
