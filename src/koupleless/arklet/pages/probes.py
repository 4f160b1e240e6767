"""The probes of a scheduler of containers: up or down, and nothing else, to whoever asks."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

import msgspec

from koupleless.arklet.pages.page import Page
from koupleless.health.readiness import Status

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from koupleless.health.readiness import Readiness


class Probed(msgspec.Struct, frozen=True):
    """The answer of a probe."""

    status: Status


PROBES: Final = frozenset({"/livez", "/readyz", "/healthz"})


def probe(readiness: Readiness, path: str) -> Page:
    """Answer one of `PROBES`: 200 or 503. May take time where `takes_long` says so."""
    if path == "/livez":
        status = Status.UP if readiness.is_alive() else Status.DOWN
    elif path == "/readyz":
        status = readiness.start_up()
    else:
        status = readiness.overall()
    is_fine = status is Status.UP or (status is Status.UNKNOWN and path == "/healthz")
    return Page.of_json(Probed(status), 200 if is_fine else 503)


def probe_apps(readiness: Readiness) -> dict[str, Callable[[Any, Any, Any], Awaitable[None]]]:
    """Make ASGI applications of `PROBES`, by path, for the port of the base."""

    def make(path: str) -> Callable[[Any, Any, Any], Awaitable[None]]:
        async def app(connection: Any, receive: Any, send: Any) -> None:  # noqa: ARG001 - an ASGI application
            if takes_long(path):
                loop = asyncio.get_running_loop()
                page = await loop.run_in_executor(readiness.workers, probe, readiness, path)
            else:
                page = probe(readiness, path)
            headers = [(b"content-type", page.content_type.encode()), (b"content-length", b"%d" % len(page.content))]
            await send({"type": "http.response.start", "status": page.status, "headers": headers})
            body = b"" if connection["method"] == "HEAD" else page.content
            await send({"type": "http.response.body", "body": body})

        return app

    return {path: make(path) for path in PROBES}


def takes_long(path: str) -> bool:
    """Whether the answer of a probe may take longer than a moment, because checks of modules are called."""
    return path == "/healthz"
