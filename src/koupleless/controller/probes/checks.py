"""Single checks of modules over the network, as a kubelet sends them to a container.

Certificates are not checked, and no token of an arklet is shown: a kubelet has none for containers either.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Final, Self
from urllib.parse import urlsplit

import httpx

from koupleless.controller.probes.grpc import ask_health
from koupleless.controller.probes.probe import GrpcCheck, HttpCheck

if TYPE_CHECKING:
    from koupleless.controller.probes.probe import Check, TcpCheck

_HEADERS: Final = {"user-agent": "kube-probe/koupleless", "accept": "*/*", "accept-encoding": "identity"}
_READ_BYTES: Final = 10 << 10
_REDIRECTS: Final = 10
_REDIRECT: Final = range(300, 400)
_GOOD: Final = range(200, 400)
_FAILURES: Final = (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError)


class NetworkChecks:
    """Checks of the modules of all bases. Lifetime: until `close`. Threads: one event loop.

    Each check has a connection of its own, as a new client would.
    """

    def __init__(self, *, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self._client = httpx.AsyncClient(
            verify=False,  # noqa: S501 - as a kubelet, which sends no secret of its own there
            trust_env=False,
            follow_redirects=False,
            timeout=None,  # noqa: S113 - a probe has a time limit of its own
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=0),
            transport=transport,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections."""
        await self._client.aclose()

    async def check(self, address: str, check: Check) -> str:
        """See `Checks.check`."""
        try:
            if isinstance(check, HttpCheck):
                return await self._get(address, check)
            if isinstance(check, GrpcCheck):
                return await ask_health(address, check.port, check.service)
            return await _connect(address, check)
        except _FAILURES as error:
            return str(error) or type(error).__name__

    async def _get(self, address: str, check: HttpCheck) -> str:
        host = check.host or address
        url = f"{check.scheme}://{f'[{host}]' if ':' in host else host}:{check.port}/{check.path.lstrip('/')}"
        headers = [*((name, value) for name, value in _HEADERS.items() if name not in _names(check)), *check.headers]
        for _ in range(_REDIRECTS):
            async with self._client.stream("GET", url, headers=headers) as answer:
                status, left = answer.status_code, _READ_BYTES
                async for piece in answer.aiter_bytes():
                    left -= len(piece)
                    if left <= 0:
                        break
                target = answer.headers.get("location")
            if status not in _REDIRECT or target is None:
                return "" if status in _GOOD else f"HTTP probe failed with statuscode: {status}"
            url = str(httpx.URL(url).join(target))
            if urlsplit(url).hostname != host:
                return ""  # others are not judged
        return f"stopped after {_REDIRECTS} redirects"


async def _connect(address: str, check: TcpCheck) -> str:
    _, writer = await asyncio.open_connection(check.host or address, check.port)
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return ""


def _names(check: HttpCheck) -> set[str]:
    return {name.lower() for name, _ in check.headers}
