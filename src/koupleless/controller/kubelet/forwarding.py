"""Forwarded ports: each pair of streams is a connection to a port of the base, declared by a container of the Pod.

A kubelet forwards to any port inside a Pod. A module has no network of its own: undeclared ports would be all ports of
the machine of the base, with those of other modules and of the arklet.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Final

from koupleless.controller.kubelet.transport.streams import Session, StreamGone
from koupleless.controller.vnodes.base import DEFAULT_PORT

if TYPE_CHECKING:
    from koupleless.controller.kubelet.transport.server import Exchange
    from koupleless.controller.kubelet.transport.streams import Stream
    from koupleless.controller.vnodes.base import AnnouncedBase
    from koupleless.controller.vpods.pod import VPod

_log: Final = logging.getLogger("koupleless.controller")

PROTOCOLS: Final = ("portforward.k8s.io",)
_CONNECT_S: Final = 5.0
_PIECE: Final = 32 << 10
_MOST_PORT: Final = 65_535


class Forwarding:
    """The forwarded ports of one connection of a client, to one Pod. Lifetime: one call of `run`."""

    def __init__(self, pod: VPod, base: AnnouncedBase) -> None:
        self._pod = pod
        self._base = base
        self._halves: dict[str, dict[str, Stream]] = {}
        """Streams that wait for their partners, by the id of the request and by kind."""
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self, exchange: Exchange, protocol: str) -> None:
        """Leave HTTP, and forward until the client closes the connection."""
        headers = {"x_stream_protocol_version": protocol} if protocol else {}
        source, sink = await exchange.switch("SPDY/3.1", **headers)
        session = Session(source, sink, self._open)
        try:
            await session.run()
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def _open(self, stream: Stream) -> bool:
        kind, port = stream.headers.get("streamtype", ""), _port_of(stream)
        if kind not in {"data", "error"} or port is None:
            return False
        # Clients of old open the stream of errors first, and give no id.
        request = stream.headers.get("requestid") or str(stream.number - (2 if kind == "data" else 0))
        halves = self._halves.setdefault(request, {})
        if kind in halves:
            return False
        halves[kind] = stream
        if len(halves) == 2:  # noqa: PLR2004 - both kinds
            del self._halves[request]
            task = asyncio.create_task(self._forward(port, halves["data"], halves["error"]))
            self._tasks.add(task)
            task.add_done_callback(self._end)
        return True

    def _end(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("a forwarded port has ended by a mistake of the controller", exc_info=error)

    async def _forward(self, port: int, data: Stream, errors: Stream) -> None:
        try:
            said = await self._connect(port, data)
            if said:
                with contextlib.suppress(StreamGone):
                    await errors.write(said.encode())
                    await errors.end()
                await data.reset()
        finally:
            await data.end()
            await errors.end()

    async def _connect(self, port: int, data: Stream) -> str:
        """Carry bytes to and fro until the base, or the client, ends the connection; returns words about an error."""
        if port not in _declared(self._pod):
            return (
                f"port {port} is declared by no container of Pod {self._pod.key}: add it as containerPort to be "
                "forwarded"
            )
        if port == (self._base.port or DEFAULT_PORT):
            return f"port {port} is that of the arklet of the base, and is not forwarded"
        host = self._base.ip or "127.0.0.1"
        try:
            async with asyncio.timeout(_CONNECT_S):
                reader, writer = await asyncio.open_connection(host, port)
        except (OSError, TimeoutError) as error:
            said = str(error) or "no answer"
            return f"port {port} of the base {self._base.identity} cannot be reached: {said}"
        try:
            upward = asyncio.create_task(_upward(data, writer))
            try:
                while piece := await reader.read(_PIECE):
                    await data.write(piece)
            finally:
                upward.cancel()
                await asyncio.gather(upward, return_exceptions=True)
        except (StreamGone, OSError) as error:
            _log.debug("a connection to port %d of base %s has ended: %s", port, self._base.identity, error)
        finally:
            writer.transport.abort() if writer.is_closing() else writer.close()
        return ""


async def _upward(data: Stream, writer: asyncio.StreamWriter) -> None:
    """Carry bytes of the client to the base; a client that is gone ends the connection."""
    try:
        while piece := await data.read():
            writer.write(piece)
            await writer.drain()
        writer.write_eof()
    except (StreamGone, OSError):
        writer.transport.abort()


def _port_of(stream: Stream) -> int | None:
    text = stream.headers.get("port", "")
    return int(text) if text.isascii() and text.isdecimal() and 0 < int(text[:6]) <= _MOST_PORT else None


def _declared(pod: VPod) -> set[int]:
    ports = (port for container in pod.containers for port in container.get("ports") or ())
    return {
        port["containerPort"]
        for port in ports
        if (port.get("protocol") or "TCP") == "TCP" and isinstance(port.get("containerPort"), int)
    }
