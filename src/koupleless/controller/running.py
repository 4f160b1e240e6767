"""A controller as a process: the servers for bases and for probes, and an end in order at a signal."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import uvicorn
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from koupleless.controller.tunnels.discovery import Discovery

if TYPE_CHECKING:
    import ssl
    from collections.abc import Coroutine, Iterator

    from starlette.requests import Request

    from koupleless.controller.controller import Controller
    from koupleless.controller.doors.porter import Porter
    from koupleless.controller.tunnels.mqtt.tunnel import MqttTunnel

_log: Final = logging.getLogger("koupleless.controller")


@dataclass(frozen=True, slots=True)
class Door:
    """The addresses of a controller."""

    host: str
    port: int | None
    """The port to hear bases on; ``None`` means that bases are heard through a broker alone."""
    probes_port: int
    porter: Porter | None = None
    """The judge of callers; everybody is heard without a porter."""
    tls: ssl.SSLContext | None = None


async def run(controller: Controller, door: Door, *besides: Coroutine[None, None, None]) -> None:
    """Serve until SIGTERM or SIGINT, then give up all Nodes.

    Raises ``OSError`` if an address cannot be had, and any error by which a part of the controller ends: a process that
    does half of the work would look alive, and one that ends is started again. ``besides`` are further servers, run
    until the end and then cancelled.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with controller:
        servers = [_Server(probes(controller), door.host, door.probes_port)]
        if door.port is not None:
            pages = Discovery(controller, door.porter, count=controller.figures.heartbeat).application()
            servers.append(_Server(pages, door.host, door.port, door.tls))
        tasks = [asyncio.create_task(server.serve()) for server in servers]
        others = [asyncio.create_task(other) for other in (controller.failed(), *besides)]
        stopping = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait([stopping, *tasks, *others], return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (stopping, *others):
                task.cancel()
            for server in servers:
                server.should_exit = True
            await asyncio.gather(*tasks, *others, return_exceptions=True)
    for task in (*tasks, *others):
        if not stop.is_set() and not task.cancelled() and (error := task.exception()) is not None:
            raise error


async def hear(controller: Controller, mqtt: MqttTunnel) -> None:
    """Hear bases through a broker until cancelled, once the cluster is known: a base believes the first baseline."""
    await controller.ready()
    await mqtt.run(controller, count=controller.figures.heartbeat)


class _Server(uvicorn.Server):
    """A server that leaves signals to the process."""

    def __init__(self, application: Starlette, host: str, port: int, tls: ssl.SSLContext | None = None) -> None:
        config = uvicorn.Config(application, host=host, port=port, log_config=None, access_log=False, lifespan="off")
        config.load()
        config.ssl = tls
        super().__init__(config)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def probes(controller: Controller) -> Starlette:
    """Make the application for probes and scrapers."""

    async def healthz(_: Request) -> PlainTextResponse:
        return PlainTextResponse("ok")

    async def readyz(_: Request) -> PlainTextResponse:
        trouble = controller.trouble()
        lines = [trouble or "ok"]
        if missing := controller.missing_rights():
            lines.append(f"the account of the controller lacks rights: {', '.join(missing)}")
        return PlainTextResponse("\n".join(lines), 503 if trouble else 200)

    async def metrics(request: Request) -> Response:
        text, content_type = controller.figures.text(request.headers.get("Accept", ""))
        return Response(text, headers={"Content-Type": content_type})

    pages = {"/healthz": healthz, "/livez": healthz, "/readyz": readyz, "/metrics": metrics}
    return Starlette(routes=[Route(path, page) for path, page in pages.items()])
