"""The server of the kubelet's API from the first certificate to the end of the controller."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from koupleless.certificates import ServerCertificate
from koupleless.controller.kubelet.transport.server import Server

if TYPE_CHECKING:
    from koupleless.controller.kubelet.certificates import Authority, Certificates
    from koupleless.controller.kubelet.kubelet import Kubelet

_log: Final = logging.getLogger("koupleless.controller")


@dataclass(frozen=True, slots=True)
class Listening:
    """The address to listen on."""

    host: str
    port: int


async def serve(kubelet: Kubelet, listening: Listening, certificates: Certificates, authority: Authority) -> None:
    """Serve until cancelled, from the moment when there is a certificate. Raises ``OSError`` for an address in use."""
    files, issuers = await asyncio.gather(certificates.obtain(), authority.obtain())
    certificate = ServerCertificate(files.certificate, key=files.key, issuers=issuers, is_optional=True)
    server = Server(kubelet.handle)
    port = await server.start(listening.host, listening.port, certificate.context)
    _log.info("the kubelet's API is served on %s port %d", listening.host, port)
    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(certificates.keep())
            tasks.create_task(authority.keep())
    finally:
        await server.close()
