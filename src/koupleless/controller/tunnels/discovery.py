"""The server that hears bases: heartbeats, and questions for the baseline.

Answers at once: everything that takes time comes after the answer, on the side of the listener.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final, Protocol

import msgspec
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from koupleless.controller.doors.porter import Porter, Refused
from koupleless.controller.vnodes.base import AnnouncedBase, Foreign, Senseless
from koupleless.wire.envelope import encode

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from starlette.requests import Request

    from koupleless.controller.doors.porter import Caller

_UNAUTHORIZED: Final = 401
_FORBIDDEN: Final = 403
_MOST_BYTES: Final = 64 << 10
"""The longest heartbeat that is read."""

_log: Final = logging.getLogger("koupleless.controller")


class Listener(Protocol):
    """The part of the controller that news of bases are for. Called on the event loop, and must not wait."""

    def hear(self, base: AnnouncedBase) -> None:
        """Take note of a heartbeat. Raises `Foreign`."""

    def baseline(self, cluster: str) -> Sequence[dict[str, Any]]:
        """Return the modules for every base of a cluster, in the order of their install."""


class Discovery:
    """The pages of the server."""

    def __init__(
        self,
        listener: Listener,
        porter: Porter | None = None,
        *,
        count: Callable[[str], object] = lambda _outcome: None,
    ) -> None:
        """``porter`` judges callers; without a porter, everybody is heard.

        ``count`` is told ``refused`` and ``senseless`` of requests that do not reach the listener.
        """
        self._count = count
        self._listener = listener
        self._porter = porter or Porter()

    def application(self) -> Starlette:
        """Make the application that bases send to."""
        pages = (("/heartbeat", self._heartbeat), ("/queryBaseline", self._query_baseline))
        return Starlette(routes=[Route(path, page, methods=["POST"]) for path, page in pages])

    async def _heartbeat(self, request: Request) -> Response:
        return await self._answer(request, self._hear)

    async def _query_baseline(self, request: Request) -> Response:
        return await self._answer(request, self._baseline)

    def _hear(self, body: object, caller: Caller) -> Response:
        self._listener.hear(caller.announce(AnnouncedBase.of(body)))
        return PlainTextResponse("SUCCESS")

    def _baseline(self, body: object, _: Caller) -> Response:
        if not isinstance(body, dict):
            raise Senseless("the metadata is no object")
        cluster = body.get("clusterName")
        found = self._listener.baseline(cluster if isinstance(cluster, str) else "")
        return Response(encode(list(found)), media_type="application/json")

    async def _answer(self, request: Request, take: Callable[[object, Caller], Response]) -> Response:
        try:
            caller = await self._porter.admit(request.headers.get("Authorization", ""))
        except Refused as refused:
            self._count("refused")
            return _refusal(request, refused.status, str(refused))
        raw = bytearray()
        async for piece in request.stream():
            raw += piece
            if len(raw) > _MOST_BYTES:
                return PlainTextResponse(f"more than {_MOST_BYTES} bytes", 413)
        try:
            return take(msgspec.json.decode(bytes(raw)), caller)
        except Refused as refused:
            self._count("refused")
            return _refusal(request, refused.status, str(refused))
        except Foreign as foreign:
            return _refusal(request, _FORBIDDEN, str(foreign))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, Senseless) as error:
            self._count("senseless")
            _log.warning("%s from %s makes no sense: %s", request.url.path, request.client, error)
            return PlainTextResponse(str(error), 400)


def _refusal(request: Request, status: int, text: str) -> Response:
    _log.warning("%s from %s is refused: %s", request.url.path, request.client, text)
    headers = {"WWW-Authenticate": "Bearer"} if status == _UNAUTHORIZED else {}
    return PlainTextResponse(text, status, headers)
