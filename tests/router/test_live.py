"""Live reload: the script in a page, answers that stay as they are, and the stream that tells of another life."""

from __future__ import annotations

import asyncio
import re
import time
from typing import TYPE_CHECKING, Any

import pytest

from koupleless.biz import BizId
from koupleless.router.around.live import Live
from koupleless.router.asgi import Front
from koupleless.router.table import Route

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    import httpx

    from koupleless.router.gate import Gate

    Client = Callable[..., httpx.AsyncClient]
    Mount = Callable[..., Gate]

pytestmark = pytest.mark.anyio

PAGE = b"<!doctype html><html><body>hello</body></html>"
HTML = (b"content-type", b"text/html; charset=utf-8")
ASKING = {"accept": "text/html,*/*;q=0.8"}
TAG = re.compile(r'<script src="([^"]*)/\.koupleless/live\.js\?([0-9a-f]+-\d+)"></script>$')


def answering(*headers: tuple[bytes, bytes], status: int = 200, chunks: tuple[bytes, ...] = (PAGE,)) -> Any:
    async def app(connection: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": status, "headers": [*headers]})
        for chunk in chunks:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body"})

    return app


async def get(client: Client, front: Front, path: str = "/shop/", **headers: str) -> httpx.Response:
    async with client(front) as http:
        return await http.get(path, headers=headers or ASKING)


async def test_a_page_gets_the_script_while_somebody_asks_for_its_module(client: Client, mount: Mount) -> None:
    front = Front()
    mount(front, "/shop", answering(HTML, (b"content-length", b"%d" % len(PAGE)), (b"ETag", b'"1"')))
    mount(front, "/", answering(HTML))
    assert (await get(client, front)).content == PAGE
    front.live.keep("shop", 10)
    answer = await get(client, front)
    tag = TAG.search(answer.text)
    assert tag is not None
    assert (tag[1], answer.text[: tag.start()]) == ("/shop", PAGE.decode())
    assert int(answer.headers["content-length"]) == len(answer.content)
    assert (answer.headers["cache-control"], "etag" in answer.headers) == ("no-store", False)
    assert (await get(client, front, "/other")).content == PAGE, "another module's page"
    script = await get(client, front, f"/shop/.koupleless/live.js?{tag[2]}")
    assert (script.headers["content-type"], "EventSource" in script.text) == ("text/javascript; charset=utf-8", True)

    front.live.keep("shop", 0)
    answer = await get(client, front)
    assert (answer.content, answer.headers["etag"]) == (PAGE, '"1"')
    assert (await get(client, front, "/shop/.koupleless/live.js")).content == PAGE, "the application's path again"


async def test_the_end_of_the_time_is_as_if_nobody_had_asked(client: Client, mount: Mount) -> None:
    front = Front()
    mount(front, "/shop", answering(HTML))
    front.live.keep("shop", 0.05)
    front.live.keep("gone", 0.01)
    assert TAG.search((await get(client, front)).text)
    while front.live.asked:
        assert (await get(client, front)).status_code == 200
        await asyncio.sleep(0.01)
    assert (await get(client, front)).content == PAGE
    before = time.monotonic()
    front.live.keep("shop", 3600)
    assert front.live.asked["shop"] < before + 61


async def test_chunks_of_a_streamed_page_go_out_at_once(mount: Mount) -> None:
    front = Front()
    gate = asyncio.Event()
    sent: asyncio.Queue[Any] = asyncio.Queue()

    async def app(connection: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [HTML]})
        await send({"type": "http.response.body", "body": b"<p>one", "more_body": True})
        await gate.wait()
        await send({"type": "http.response.body", "body": b"<p>two", "more_body": False})

    mount(front, "/shop", app)
    front.live.keep("shop", 10)
    asking = {"type": "http", "method": "GET", "path": "/shop/", "headers": [(b"accept", b"text/html")]}
    task = asyncio.ensure_future(front(asking, asyncio.Event().wait, sent.put))  # type: ignore[arg-type]
    assert [(await sent.get()).get("body") for _ in range(2)] == [None, b"<p>one"]
    gate.set()
    await task
    assert sent.get_nowait()["body"].startswith(b'<p>two<script src="/shop/.koupleless/live.js?')


CSP = b"content-security-policy"
STAY = {
    "not a page": [(b"content-type", b"application/json")],
    "no type": [],
    "compressed": [HTML, (b"content-encoding", b"gzip")],
    "with a digest": [HTML, (b"repr-digest", b"sha-256=:x:")],
    "wide letters": [(b"content-type", b"text/html; charset=UTF-16")],
    "an unknown charset": [(b"content-type", b"text/html; charset=own")],
    "a download": [HTML, (b"content-disposition", b"attachment; filename=x.html")],
    "not to be changed": [HTML, (b"cache-control", b"max-age=1, no-transform")],
    "scripts of others only": [HTML, (CSP, b"script-src 'nonce-x'; connect-src *")],
    "no streams": [HTML, (CSP, b"script-src 'self'; connect-src 'none'")],
    "nothing": [HTML, (CSP, b"default-src 'none'; script-src 'self'")],
    "two policies": [HTML, (CSP, b"default-src 'self', script-src 'none'")],
    "two headers": [HTML, (CSP, b"default-src 'self'"), (CSP, b"script-src 'none'")],
    "trust of a nonce alone": [HTML, (CSP, b"script-src 'self' 'nonce-x' 'strict-dynamic'")],
    "a sandbox": [HTML, (CSP, b"sandbox allow-forms")],
}
GET = {
    "plain": [(b"content-type", b"Text/HTML")],
    "letters of one byte": [(b"content-type", b'text/html; charset="latin-1"')],
    "a policy for its own host": [HTML, (CSP, b"default-src 'self'; img-src *;")],
    "elements": [HTML, (CSP, b"default-src 'none'; script-src-elem https: 'self'; connect-src 'self'")],
    "an open sandbox": [HTML, (CSP, b"sandbox allow-scripts allow-same-origin")],
}


@pytest.mark.parametrize(("kinds", "is_added"), [(STAY, False), (GET, True)], ids=["stay", "get"])
async def test_answers_that_can_take_no_script_stay_as_they_are(
    client: Client, mount: Mount, kinds: dict[str, list[tuple[bytes, bytes]]], is_added: bool
) -> None:
    front = Front()
    for number, headers in enumerate(kinds.values()):
        mount(front, f"/shop{number}", answering(*headers))
        front.live.keep(f"shop{number}", 10)
    for number, kind in enumerate(kinds):
        async with client(front) as http, http.stream("GET", f"/shop{number}/", headers=ASKING) as answer:
            body = b"".join([chunk async for chunk in answer.aiter_raw()])
        assert (body != PAGE) is is_added, kind
        if not is_added:
            assert [(name.lower(), value) for name, value in answer.headers.raw] == kinds[kind]


@pytest.mark.parametrize("status", [204, 205, 206, 304])
async def test_answers_without_a_whole_body_stay_as_they_are(client: Client, mount: Mount, status: int) -> None:
    front = Front()
    mount(front, "/shop", answering(HTML, status=status, chunks=()))
    front.live.keep("shop", 10)
    assert (await get(client, front)).content == b""


@pytest.mark.parametrize(
    ("method", "headers", "is_added"),
    [
        ("GET", {"sec-fetch-dest": "document"}, True),
        ("GET", {"sec-fetch-dest": "iframe", "accept": "*/*"}, True),
        ("GET", {"sec-fetch-dest": "empty", **ASKING}, False),
        ("GET", {"accept": "*/*"}, False),
        ("GET", {"hx-request": "true", **ASKING}, False),
        ("POST", ASKING, False),
        ("HEAD", ASKING, False),
    ],
)
async def test_only_pages_shown_by_a_browser_get_the_script(
    client: Client, mount: Mount, method: str, headers: dict[str, str], is_added: bool
) -> None:
    front = Front()
    mount(front, "/shop", answering(HTML, (b"etag", b"1")))
    front.live.keep("shop", 10)
    async with client(front) as http:
        answer = await http.request(method, "/shop/", headers=headers)
    assert (TAG.search(answer.text) is not None) is is_added
    assert ("etag" in answer.headers) is not is_added


async def test_the_application_is_asked_plainly(client: Client, mount: Mount) -> None:
    seen: list[bytes] = []

    async def app(connection: Any, receive: Any, send: Any) -> None:
        seen.extend(name for name, _ in connection["headers"])
        await answering(HTML)(connection, receive, send)

    front = Front()
    mount(front, "/shop", app)
    front.live.keep("shop", 10)
    await get(client, front, **ASKING, **{"if-none-match": "1", "range": "bytes=0-", "accept-encoding": "gzip"})
    assert not {b"if-none-match", b"range", b"accept-encoding"} & {*seen}
    assert b"accept" in seen


class Stream:
    """A browser that listens."""

    def __init__(self, front: Front, path: str = "/shop/.koupleless/live") -> None:
        self.messages: asyncio.Queue[Any] = asyncio.Queue()
        self.left = asyncio.Event()
        asking = {"type": "http", "method": "GET", "path": path, "headers": []}
        self.task = asyncio.ensure_future(front(asking, self._receive, self.messages.put))

    async def _receive(self) -> Any:
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def next(self) -> Any:
        message = await asyncio.wait_for(self.messages.get(), 10)
        return message.get("body", message.get("status"))

    async def token(self) -> str:
        data: bytes = await self.next()
        return data.decode().removeprefix("data: ").rstrip("\n")


async def test_the_stream_tells_which_life_answers(client: Client, mount: Mount) -> None:
    front = Front()
    mount(front, "/shop", answering(HTML), "shop:1")
    front.live.keep("shop", 10)
    stream = Stream(front)
    assert [await stream.next(), await stream.next()] == [200, b"retry: 300\n\n"]
    first = await stream.token()
    page = TAG.search((await get(client, front)).text)
    assert page is not None
    assert page[2] == first
    mount(front, "/other", answering(HTML))  # a change of the table that is none of this module

    gate = next(route.gate for route in front.table.routes if route.path == "/shop")
    without = front.table.without(gate)
    await asyncio.to_thread(front.swap, without)  # as by a strategy that removes first
    assert await _is_silent(stream)
    mount(front, "/shop", answering(HTML), "shop:2")
    second = await stream.token()
    assert second != first
    front.swap(without.with_route(Route.to(gate, path="/shop", biz=BizId.parse("shop:1"))))
    assert await stream.token() == first, "the life of before, once more"

    stream.left.set()
    assert await stream.next() == b""
    await stream.task


async def _is_silent(stream: Stream) -> bool:
    await asyncio.sleep(0.05)
    return stream.messages.empty()


@pytest.mark.parametrize("end", [lambda live: live.keep("shop", 0), Live.close], ids=["nobody asks", "the base ends"])
async def test_streams_end_with_the_wish(mount: Mount, end: Callable[[Live], Awaitable[None] | None]) -> None:
    front = Front()
    mount(front, "/shop", answering(HTML))
    front.live.keep("shop", 30)
    stream = Stream(front)
    for _ in range(3):
        await stream.next()
    await asyncio.to_thread(end, front.live)
    assert await stream.next() == b""
    await stream.task
    assert not front.live.asked


async def test_a_stream_ends_by_itself(mount: Mount, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("koupleless.router.around.live._STREAM_S", 0.05)
    front = Front()
    mount(front, "/shop", answering(HTML))
    front.live.keep("shop", 30)
    stream = Stream(front)
    await asyncio.wait_for(stream.task, 10)


async def test_a_websocket_and_a_post_at_the_place_of_the_stream_are_the_applications(
    client: Client, mount: Mount
) -> None:
    front = Front()
    mount(front, "/shop", answering((b"x", b"1")))
    front.live.keep("shop", 30)
    async with client(front) as http:
        assert (await http.post("/shop/.koupleless/live")).content == PAGE
