"""The access log of one biz, and the tracebacks of requests that failed."""

from __future__ import annotations

import traceback
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from koupleless.view.logging.logspace import LogSpace

_OPENED: Final = 101
_REFUSED: Final = 403
_FAILED: Final = 500
_LEFT: Final = 499
"""The status of a request without an answer, as nginx writes it: the client has left, or the module."""


def logged(app: Callable[..., Any], space: LogSpace) -> Callable[..., Any]:
    """Return an ASGI application that also notes each request in the file of a biz; ``app`` itself without a file.

    A request has a line at its end, and an error of the application is noted with its traceback before the server
    learns of the error.
    """
    if space.file is None:
        return app

    async def noted(connection: Any, receive: Any, send: Any) -> None:
        first: Mapping[str, Any] = {}

        def sending(message: Mapping[str, Any]) -> Awaitable[None]:
            nonlocal first
            first = first or message
            return send(message)  # type: ignore[no-any-return]

        begun = perf_counter()
        try:
            await app(connection, receive, sending)
        except Exception as error:
            trace = error.__traceback__ and error.__traceback__.tb_next  # from the application on
            told = "".join(traceback.format_exception(type(error), error, trace)).rstrip()
            space.note("ERROR", "requests", f"{_method(connection)} {_path(connection)} failed\n{told}")
            _note_access(space, connection, _status(first) or _FAILED, begun)
            raise
        except BaseException:
            _note_access(space, connection, _status(first) or _LEFT, begun)
            raise
        _note_access(space, connection, _status(first) or _LEFT, begun)

    return noted


def _note_access(space: LogSpace, connection: Mapping[str, Any], status: int, begun: float) -> None:
    if not space.logbook.has_access:
        return
    spent = round((perf_counter() - begun) * 1000, 1)
    method, path = _method(connection), _path(connection)
    host, port = connection.get("client") or ("-", 0)
    said = f'{host}:{port} "{method} {path} HTTP/{connection.get("http_version", "1.1")}" {status} {spent} ms'
    space.note("INFO", "access", said, client=host, method=method, path=path, status=status, ms=spent)


def _method(connection: Mapping[str, Any]) -> str:
    return connection.get("method") or "WebSocket"


def _path(connection: Mapping[str, Any]) -> str:
    """The path and the query as the client has sent them, in printable ASCII: a line stays a line."""
    raw = connection.get("raw_path")
    path = quote(connection["path"]) if raw is None else raw.partition(b"?")[0].decode("ascii", "backslashreplace")
    query = connection.get("query_string", b"").decode("ascii", "backslashreplace")
    return f"{path}?{query}" if query else path


def _status(first: Mapping[str, Any]) -> int:
    """The status of an answer by the first message of the application; 0 without one."""
    status = first.get("status")
    if isinstance(status, int):
        return int(status)  # an HTTPStatus is shown by its number
    return {"websocket.accept": _OPENED, "websocket.close": _REFUSED}.get(str(first.get("type")), 0)
