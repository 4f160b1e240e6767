"""Cookies of an application below a path: sent back by browsers to this application only, and read before others.

What reverse proxies do for an application at a path of its own (``proxy_cookie_path`` of nginx), in both directions.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterable

    from koupleless.router.types import ASGIApp, Connection, Message, Receive, Send

_PATH: Final = re.compile(rb";[ \t]*path[ \t]*=[ \t]*([^;]*)", re.IGNORECASE)
_ANSWERS: Final = frozenset({"http.response.start", "websocket.accept"})
_OF_HOST: Final = b"__host-"


def with_scoped_cookies(app: ASGIApp) -> ASGIApp:
    """An application whose cookies have paths below its mount point, as if the mount point were the root.

    A cookie for ``/`` becomes one for the mount point; a path below the mount point stays. Of cookies with one name in
    a request, the application gets the first, which has the longest path in the order of browsers (RFC 6265, 5.4): the
    cookie of the application goes before a cookie for ``/`` of another. At the root, nothing changes.
    """

    async def scoped(connection: Connection, receive: Receive, send: Send) -> None:
        root = connection.get("root_path", "").rstrip("/")
        if not root or connection["type"] not in ("http", "websocket"):
            await app(connection, receive, send)
            return
        below = quote(root).encode()

        def sending(message: Message) -> Awaitable[None]:
            if message["type"] in _ANSWERS:
                message = {**message, "headers": _scoped(message.get("headers") or (), below)}
            return send(message)

        await app({**connection, "headers": _without_namesakes(connection["headers"])}, receive, sending)

    return scoped


def _scoped(headers: Iterable[tuple[bytes, bytes]], root: bytes) -> list[tuple[bytes, bytes]]:
    return [(name, _below(value, root) if name.lower() == b"set-cookie" else value) for name, value in headers]


def _below(cookie: bytes, root: bytes) -> bytes:
    """The value of ``Set-Cookie`` with a path below ``root``. A cookie of a whole host has no other path than ``/``."""
    found = next(reversed(list(_PATH.finditer(cookie))), None)  # of several paths, browsers take the last
    path = b"" if found is None else found[1].strip()
    if found is None or not path.startswith(b"/"):
        return cookie  # the browser takes the path of the request
    if cookie.lstrip()[: len(_OF_HOST)].lower() == _OF_HOST or path == root or path.startswith(root + b"/"):
        return cookie
    scoped = root if path == b"/" else root + path
    return cookie[: found.start(1)] + scoped + cookie[found.end(1) :]


def _without_namesakes(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    kept, known = [], set()
    for name, value in headers:
        if name != b"cookie":
            kept.append((name, value))
            continue
        pairs = []
        for pair in value.split(b";"):
            key = pair.partition(b"=")[0].strip()
            if key not in known:
                known.add(key)
                pairs.append(pair.strip())
        if pairs:
            kept.append((name, b"; ".join(pairs)))
    return kept
