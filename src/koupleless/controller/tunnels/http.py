"""The HTTP tunnel: commands to the arklet of a base.

A Java base sends neither length nor type with an answer, and closes the connection, which ends the answer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol, Self

import httpx

from koupleless.controller.tunnels.answers import answer_to_install, answer_to_switch, answer_to_uninstall
from koupleless.controller.tunnels.tunnel import Health, Limits, NoAnswer, install_body, read_health, uninstall_body
from koupleless.controller.vnodes.base import DEFAULT_PORT
from koupleless.wire.envelope import Envelope, ReplyInvalid, decode_envelope, encode

if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping, Sequence

    from koupleless.controller.tunnels.answers import Answer
    from koupleless.controller.vnodes.base import AnnouncedBase
    from koupleless.controller.vpods.hooks import Visit
    from koupleless.controller.vpods.module import Module, ModuleKey

_OK: Final = 200
_REFUSED: Final = 400
_UNAUTHORIZED: Final = 401
_FORBIDDEN: Final = 403
_MOST_BYTES: Final = 64 << 20
"""The longest answer that is read."""


class Credentials(Protocol):
    """The proofs that the controller shows to arklets."""

    async def tokens(self, base: AnnouncedBase, *, is_fresh: bool = False) -> Sequence[str | None]:
        """Return the bearer tokens for a base, the best first; ``None`` is none.

        ``is_fresh`` asks for tokens of now, because the arklet has refused all others.
        """


class HttpTunnel:
    """The arklets of all bases with a port.

    Lifetime: from the start of the controller to `close`. Threads: one event loop. Connections to a base are kept.
    """

    def __init__(
        self,
        credentials: Credentials | None = None,  # none for arklets that ask for none
        *,
        limits: Limits = Limits(),
        tls: ssl.SSLContext | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """``tls`` checks the arklets of bases; without one the arklets speak plain HTTP."""
        self._credentials = credentials
        self._limits = limits
        self._scheme = "http" if tls is None else "https"
        pool = httpx.Limits(max_connections=None, max_keepalive_connections=1_000, keepalive_expiry=30)
        self._client = httpx.AsyncClient(
            verify=tls or False, trust_env=False, follow_redirects=False, limits=pool, transport=transport
        )
        self._visitor = httpx.AsyncClient(
            verify=False,  # noqa: S501 - as a kubelet, which sends no secret of its own there
            trust_env=False,
            follow_redirects=False,
            limits=pool,
            transport=transport,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections."""
        await self._client.aclose()
        await self._visitor.aclose()

    async def install(self, base: AnnouncedBase, module: Module, *, replaces: bool = False) -> Answer:
        """See `Commands.install`."""
        body = install_body(module, replaces=replaces)
        return answer_to_install(await self._ask(base, "installBiz", body, self._limits.install_s))

    async def uninstall(self, base: AnnouncedBase, key: ModuleKey, *, drain_s: float | None = None) -> Answer:
        """See `Commands.uninstall`."""
        limit_s = self._limits.uninstall_s + (drain_s or 0)
        body = uninstall_body(key, drain_s)
        return answer_to_uninstall(await self._ask(base, "uninstallBiz", body, limit_s))

    async def switch(self, base: AnnouncedBase, key: ModuleKey) -> Answer:
        """See `Commands.switch`."""
        body = {"bizName": key.name, "bizVersion": key.version}
        return answer_to_switch(await self._ask(base, "switchBiz", body, self._limits.health_s))

    async def modules(self, base: AnnouncedBase) -> tuple[Mapping[str, Any], ...]:
        """See `Commands.modules`."""
        reply = await self._ask(base, "queryAllBiz", {}, self._limits.list_s)
        found = reply.data if reply.data is not None else []
        if not reply.is_success or not isinstance(found, list):
            raise NoAnswer(f"{_place(base)} gives no list of modules: {reply.message or reply.code.value}")
        return tuple(one for one in found if isinstance(one, dict))

    async def health(self, base: AnnouncedBase) -> Health:
        """See `Commands.health`."""
        reply = await self._ask(base, "health", {}, self._limits.health_s)
        return read_health(reply.data) if reply.is_success else Health(None)

    async def visit(self, base: AnnouncedBase, visit: Visit) -> None:
        """See `Tunnel.visit`. No token of the arklet is shown; certificates are not checked, as with a kubelet."""
        url = f"{visit.scheme}://{_host(visit.host or base.ip)}:{visit.port}/{visit.path.lstrip('/')}"
        timeout = httpx.Timeout(None, connect=self._limits.connect_s)
        try:
            async with self._visitor.stream("GET", url, headers=visit.headers, timeout=timeout) as response:
                status = response.status_code
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
            raise NoAnswer(f"{url} gives no answer: {str(error) or type(error).__name__}") from None
        if status >= _REFUSED:
            raise NoAnswer(f"{url} answers with HTTP {status}")

    async def ask(self, base: AnnouncedBase, command: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
        """Send a command that changes nothing, and return the data of the answer; a refusal counts as `NoAnswer`."""
        reply = await self._ask(base, command, body, self._limits.list_s)
        if not reply.is_success or not isinstance(reply.data, dict):
            raise NoAnswer(f"{_place(base)} refuses {command}: {reply.message or reply.code.value}")
        return reply.data

    async def scrape(self, base: AnnouncedBase) -> str:
        """Return the metrics of a base, in the text format of Prometheus. Raises `NoAnswer`."""
        return (await self._call(base, "metrics", None, self._limits.list_s)).decode("utf-8", "replace")

    async def _ask(self, base: AnnouncedBase, command: str, body: Mapping[str, Any], limit_s: float) -> Envelope:
        try:
            return decode_envelope(await self._call(base, command, encode(body), limit_s))
        except ReplyInvalid as error:
            raise NoAnswer(f"{_place(base)} answers {command} with nonsense: {error}") from None

    async def _call(self, base: AnnouncedBase, command: str, body: bytes | None, limit_s: float) -> bytes:
        """Ask an arklet, and again with other tokens if the arklet has got a new one. Raises `NoAnswer`."""
        status, raw, refused = _UNAUTHORIZED, b"", set[str | None]()
        for is_fresh in (False, True):
            if status != _UNAUTHORIZED:
                break
            tokens = [None] if self._credentials is None else await self._credentials.tokens(base, is_fresh=is_fresh)
            for token in tokens:
                if status == _UNAUTHORIZED and token not in refused:
                    refused.add(token)
                    status, raw = await self._send(base, command, body, limit_s, token)
        if status in {_UNAUTHORIZED, _FORBIDDEN}:
            raise NoAnswer(
                f"{_place(base)} refuses the token of the controller (HTTP {status} to {command}): arklet-token-file "
                "or arklet-secret of the controller has to be the token of this arklet"
            )
        if status != _OK:
            raise NoAnswer(f"{_place(base)} answers {command} with HTTP {status}")
        return raw

    async def _send(
        self, base: AnnouncedBase, command: str, body: bytes | None, limit_s: float, token: str | None
    ) -> tuple[int, bytes]:
        """Send a command by POST, or ask for a page by GET without a ``body``."""
        headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        url = f"{self._scheme}://{_host(base.ip)}:{base.port or DEFAULT_PORT}/{command}"
        timeout = httpx.Timeout(limit_s, connect=self._limits.connect_s)
        method = "GET" if body is None else "POST"
        try:
            async with self._client.stream(method, url, content=body, headers=headers, timeout=timeout) as response:
                raw = bytearray()
                async for piece in response.aiter_bytes():
                    raw += piece
                    if len(raw) > _MOST_BYTES:
                        raise NoAnswer(f"{_place(base)} sends an endless answer to {command}")
        except (httpx.HTTPError, OSError, ValueError) as error:
            said = str(error) or type(error).__name__
            raise NoAnswer(f"{_place(base)} gives no answer to {command}: {said}") from None
        return response.status_code, bytes(raw)


def _host(ip: str) -> str:
    return f"[{ip}]" if ":" in ip else ip or "127.0.0.1"


def _place(base: AnnouncedBase) -> str:
    return f"base {base.identity} at {base.ip}:{base.port or DEFAULT_PORT}"
