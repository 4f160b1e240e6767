"""The path of a request with and without the mount point of the application."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

if TYPE_CHECKING:
    from koupleless.router.types import ASGIApp, Connection, Receive, Send


def below(path: str, root: str) -> str:
    """``path`` without ``root``. In ASGI a path begins with the root; behind some proxies and servers, none does."""
    rest = path.removeprefix(root)
    return rest if rest != path and (not rest or rest[0] == "/") else path


def unmounted(app: ASGIApp) -> ASGIApp:
    """An application that finds the path below its mount point in ``path``, as behind a proxy that strips mount points.

    ASGI has the whole path there (HTTP scope, ``root_path``), and some applications compare the whole path.
    ``root_path`` names the mount point all the same.
    """

    async def stripped(connection: Connection, receive: Receive, send: Send) -> None:
        root = connection.get("root_path", "")
        if root and connection["type"] in ("http", "websocket"):
            path = below(connection["path"], root) or "/"
            connection = {**connection, "path": path}
            raw = connection.get("raw_path")
            if raw is not None:
                start = quote(root).encode()
                connection["raw_path"] = raw.removeprefix(start) if raw.startswith(start) else quote(path).encode()
        await app(connection, receive, send)

    return stripped
