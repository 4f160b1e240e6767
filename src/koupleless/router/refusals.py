"""Answers in the place of an application: to requests without an application, and to requests that are cut off."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from koupleless.router.types import Connection, Send

NOT_FOUND: Final = 404
UNAVAILABLE: Final = 503
_GOING_AWAY: Final = 1001  # the WebSocket close code for an endpoint that leaves


async def refuse(connection: Connection, send: Send, *, status: int, detail: str) -> None:
    """Answer a request with a small JSON document, before anything else has been sent.

    A WebSocket gets the document where the server can send one, and is closed elsewhere.
    """
    if connection["type"] != "websocket":
        await _answer("http.response", send, status, detail)
    elif "websocket.http.response" in (connection.get("extensions") or {}):
        await _answer("websocket.http.response", send, status, detail)
    else:
        await send({"type": "websocket.close", "code": _GOING_AWAY, "reason": ""})


async def apologise(kind: str, send: Send, *, detail: str) -> None:
    """Tell the client of a request, or of a WebSocket in any state, that the biz of the request leaves.

    ``kind`` is the type of the connection. Nothing of the answer to an HTTP request may have been sent.
    """
    if kind == "websocket":
        await send({"type": "websocket.close", "code": _GOING_AWAY, "reason": detail})
    else:
        await _answer("http.response", send, UNAVAILABLE, detail)


async def _answer(kind: str, send: Send, status: int, detail: str) -> None:
    body = json.dumps({"status": status, "detail": detail}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if status == UNAVAILABLE:
        headers.append((b"retry-after", b"1"))
    await send({"type": f"{kind}.start", "status": status, "headers": headers})
    await send({"type": f"{kind}.body", "body": body})
