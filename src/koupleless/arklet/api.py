"""The commands over HTTP, byte for byte as clients in the field expect.

A request is checked in this order: the caller, the method (POST), the body, the command. The path is the command; the
query and the ``Content-Type`` are ignored; the outcome of a command is in the envelope, never in the status.
"""

from __future__ import annotations

import asyncio
import functools
from typing import TYPE_CHECKING, Final

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from koupleless.arklet.answers import without_recursion
from koupleless.arklet.guard import bearer
from koupleless.arklet.operations import takes_long
from koupleless.errors import in_words
from koupleless.wire.envelope import CONTENT_TYPE, MAX_BODY_BYTES, Code, Envelope, encode

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.types import Message, Receive, Scope, Send

    from koupleless.arklet.guard import Guard, Refusal
    from koupleless.arklet.operations import Operations
    from koupleless.arklet.pages.pages import Pages
    from koupleless.arklet.reviewer import Reviewer

ONLY_POST: Final = b"POST http request only supported by arklet"
TEXT: Final = "text/plain; charset=utf-8"
METRICS: Final = "/metrics"
"""The path of the scrapes, by GET: no command has this name."""
UNINSTALL: Final = "/uninstallBiz"
GO_CLIENT: Final = "go-resty/"
"""The begin of the ``User-Agent`` of both clients of the original, its controller and its ``arkctl``."""
SERVER: Final = "koupleless"
"""The ``Server`` header of every answer, refusals too, by which clients know an arklet with more than the original."""
BODY_SECONDS: Final = 60.0
"""Seconds that a client may take to send the body."""
UNAUTHORIZED: Final = 401
_REVIEWS: Final = 4
"""The number of tokens that the API server is asked about at a time."""
LINGER_SECONDS: Final = 1.0
LINGER_BYTES: Final = 8 * MAX_BODY_BYTES


class BodyTooLarge(Exception):
    """A body of more than `MAX_BODY_BYTES`; ``is_whole`` says that nothing more comes."""

    def __init__(self, *, is_whole: bool) -> None:
        self.is_whole = is_whole


class ArkletApi:
    """The ASGI application of the arklet. Lives as long as the server, on the loop of the server only.

    Commands that may take long run on the workers of the operations; the others are answered on the loop, at once, so
    that no number of running installs can delay them. A command still running when the task of the request is cancelled
    goes on without the caller, who is told that the base shuts down.
    """

    def __init__(
        self,
        operations: Operations,
        guard: Guard,
        expose: Callable[[str], tuple[bytes, str]] | None = None,
        pages: Pages | None = None,
        *,
        reviewer: Reviewer | None = None,
    ) -> None:
        """``reviewer`` judges callers with other tokens than those of ``guard``.

        ``expose`` takes the ``Accept`` header of a scrape, and returns the text of all metrics and its type.

        ``pages`` answer every other GET; without pages, a GET is refused as by the original.
        """
        self._operations = operations
        self._guard = guard
        self._reviewer = reviewer
        self._reviews = asyncio.Semaphore(_REVIEWS)
        self._expose = expose
        self._pages = pages

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        request = Request(scope, receive)
        if self._expose is not None and request.method in ("GET", "HEAD") and scope["path"] == METRICS:
            await _send_before_body(await self._scrape(request, self._expose), request, send)
            return
        if self._pages is not None and request.method in ("GET", "HEAD"):
            await _send_before_body(await self._show(request, self._pages), request, send)
            return
        early = await self._refuse_early(request)
        if early is not None:
            await _send_before_body(early, request, send)
            return
        try:
            async with asyncio.timeout(BODY_SECONDS):
                body = await _read_body(receive)
        except BodyTooLarge as error:
            await _send_before_body(_reply(413), request, send, is_drained=error.is_whole)
        except TimeoutError:
            await _send_before_body(_reply(408), request, send)
        except ClientDisconnect:
            pass
        else:
            envelope = await self._answer(scope["path"][1:], body)
            if scope["path"] == UNINSTALL and request.headers.get("user-agent", "").startswith(GO_CLIENT):
                envelope = without_recursion(envelope)
            response = _reply(200, encode(envelope))
            await response(scope, receive, send)

    async def _scrape(self, request: Request, expose: Callable[[str], tuple[bytes, str]]) -> Response:
        """Answer with the metrics; on a thread, since collectors of modules may take their time."""
        refusal = await self._judge(request, for_metrics=True)
        if refusal is not None:
            return _reply(refusal.status, refusal.reason.encode(), content_type=TEXT)
        try:
            text, content_type = await asyncio.to_thread(expose, request.headers.get("accept", ""))
        except Exception as error:  # noqa: BLE001 - code of the base's own collectors
            return _reply(500, f"a collector of the base failed: {in_words(error)}".encode(), content_type=TEXT)
        return _reply(200, b"" if request.method == "HEAD" else text, content_type=content_type)

    async def _show(self, request: Request, pages: Pages) -> Response:
        """Answer a GET; strangers get the probes, and up or down."""
        path, headers = request.scope["path"], request.scope["headers"]
        is_probe = pages.is_open(path) and not bearer(headers)
        refusal = self._guard.judge(headers) if is_probe else await self._judge(request)
        if refusal is not None and not (pages.is_open(path) and self._guard.judge_probe(headers) is None):
            return _reply(refusal.status, f"{refusal.reason}\n".encode(), content_type=TEXT)
        if pages.takes_long(path):
            answer = functools.partial(pages.answer, path, is_trusted=refusal is None)
            page = await asyncio.get_running_loop().run_in_executor(pages.workers, answer)
        else:
            page = pages.answer(path, is_trusted=refusal is None)
        content = b"" if request.method == "HEAD" else page.content
        return _reply(page.status, content, content_type=page.content_type)

    async def _judge(self, request: Request, *, for_metrics: bool = False) -> Refusal | None:
        """Judge a caller; on a thread if the API server has to be asked. Strangers cannot take many threads."""
        headers = request.scope["headers"]
        refusal = self._guard.judge(headers, for_metrics=for_metrics)
        if refusal is None or refusal.status != UNAUTHORIZED or self._reviewer is None:
            return refusal
        if (known := self._reviewer.remembered(headers)) is not None:
            return known[0]
        async with self._reviews:
            return await asyncio.to_thread(self._reviewer.judge, headers)

    async def _refuse_early(self, request: Request) -> Response | None:
        refusal = await self._judge(request)
        if refusal is not None:
            return _reply(refusal.status, encode(Envelope(code=Code.FAILED, message=refusal.reason)))
        if request.method != "POST":
            return _reply(500, ONLY_POST, content_type=TEXT)
        if int(request.headers.get("content-length", "0")) > MAX_BODY_BYTES:
            return _reply(413)
        return None

    async def _answer(self, command: str, body: bytes) -> Envelope:
        operations = self._operations
        if takes_long(command):
            loop = asyncio.get_running_loop()
            try:
                envelope = await loop.run_in_executor(operations.workers, operations.handle, command, body)
            except asyncio.CancelledError:  # by the server, which stops
                envelope = operations.give_up(command)
        else:
            envelope = operations.handle(command, body)
        return envelope


async def _read_body(receive: Receive) -> bytes:
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        body += message.get("body", b"")
        is_whole = not message.get("more_body", False)
        if len(body) > MAX_BODY_BYTES:
            raise BodyTooLarge(is_whole=is_whole)
        if is_whole:
            return bytes(body)


def _reply(status: int, content: bytes = b"", *, content_type: str = CONTENT_TYPE) -> Response:
    headers = {"Server": SERVER, "Connection": "close"}
    if content:
        headers["Content-Type"] = content_type
    if status == 401:  # noqa: PLR2004
        headers["WWW-Authenticate"] = "Bearer"
    return Response(content, status, headers)


async def _send_before_body(response: Response, request: Request, send: Send, *, is_drained: bool = False) -> None:
    """Answer without waiting for the body, then take a little of the body in.

    A connection that is closed while data waits is reset, and a reset can overtake the answer.
    """

    async def send_open(message: Message) -> None:
        await send({**message, "more_body": True} if message["type"] == "http.response.body" else message)

    await response(request.scope, request.receive, send_open)
    # A client that waits for "100 Continue" has sent nothing, and will not.
    if not is_drained and "expect" not in request.headers:
        await _drain(request.receive)
    await send({"type": "http.response.body", "body": b""})


async def _drain(receive: Receive) -> None:
    taken = 0
    try:
        async with asyncio.timeout(LINGER_SECONDS):
            while taken < LINGER_BYTES:
                message = await receive()
                taken += len(message.get("body", b""))
                if not message.get("more_body", False):
                    return
    except TimeoutError:
        return
