"""The application in front: who gets a request, what it sees of it, and the server's lifespan."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Route as StarletteRoute
from tests.router.conftest import requests_in
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from koupleless.context import current_biz
from koupleless.errors import BaseStartFailed, StartFailed
from koupleless.router.asgi import Front
from koupleless.router.gateway import Forwards, Rule

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from koupleless.router.gate import Gate

    Client = Callable[..., httpx.AsyncClient]
    Mount = Callable[..., Gate]

pytestmark = pytest.mark.anyio


def named(name: str) -> Any:
    """An application that answers its name and what it sees of the request."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen = {
            "app": name,
            "biz": str(current_biz()),
            "path": scope["path"],
            "root_path": scope["root_path"],
            "raw_path": scope["raw_path"].decode() if scope.get("raw_path") is not None else None,
        }
        if scope["type"] == "http":
            await JSONResponse(seen)(scope, receive, send)
        else:
            await receive()
            await send({"type": "websocket.accept"})
            await send({"type": "websocket.send", "text": repr(seen)})
            await send({"type": "websocket.close", "code": 1000, "reason": ""})

    return app


async def get(front: Front, path: str, **scope: Any) -> tuple[int, Any]:
    """Status and JSON of a request with exactly this scope, as a server would make it."""
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    request = {
        "type": "http",
        "method": "GET",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": [],
        **scope,
    }
    before = dict(request)
    await front(request, receive, send)
    assert request == before  # the server's own scope is nobody's to change
    return sent[0]["status"], httpx.Response(200, content=sent[1]["body"]).json()


# --- who gets it -----------------------------------------------------------------------------------------------------


async def test_a_request_goes_to_the_module_of_its_path_and_everything_else_to_the_base(mount: Mount) -> None:
    front = Front(named("base"))
    mount(front, "/hello", named("hello"))

    assert (await get(front, "/hello/x"))[1]["app"] == "hello"
    assert (await get(front, "/hello/x"))[1]["biz"] == "hello:1.0"
    for path in ("/", "/other", "/hellox", "/x/hello"):
        status, seen = await get(front, path)
        assert (status, seen["app"], seen["biz"], seen["path"], seen["root_path"]) == (200, "base", "None", path, "")


async def test_the_base_gets_the_very_scope_of_the_server(mount: Mount) -> None:
    got = []

    async def base(scope: Any, receive: Any, send: Any) -> None:
        got.append(scope)

    front = Front(base)
    mount(front, "/hello", named("hello"))
    request = {"type": "http", "path": "/x", "headers": []}
    await front(request, None, None)  # type: ignore[arg-type] # not called here

    assert got[0] is request


async def test_without_a_base_a_path_of_nobody_is_a_404_that_names_it(client: Client) -> None:
    async with client(Front()) as http:
        answer = await http.get("/nobody/<b>here")

    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == {"status": 404, "detail": "no module answers at /nobody/<b>here"}


async def test_hosts_are_told_apart_without_case_and_port(mount: Mount) -> None:
    front = Front()
    mount(front, "/a", named("any"), "any:1")
    mount(front, "/a", named("shop"), "shop:1", host="Shop.example")
    mount(front, "/a", named("six"), "six:1", host="[::1]")

    async def app_for(host: str) -> str:
        return str((await get(front, "/a", headers=[(b"accept", b"*/*"), (b"host", host.encode())]))[1]["app"])

    assert [
        await app_for(host)
        for host in ("SHOP.example:8080", "shop.example", "[::1]:80", "[::1]", "b.example", "[::1]evil", "[::1].evil")
    ] == [
        "shop",
        "shop",
        "six",
        "six",
        "any",
        "any",
        "any",
    ]
    assert (await get(front, "/a"))[1]["app"] == "any"


async def test_two_fronts_in_a_process_share_nothing(mount: Mount) -> None:
    one, two = Front(), Front()
    mount(one, "/a", named("one"), "a:1")
    mount(two, "/a", named("two"), "a:2")

    assert (await get(one, "/a"))[1]["app"] == "one"
    assert (await get(two, "/a"))[1]["app"] == "two"
    assert (await get(two, "/a"))[1]["biz"] == "a:2"


async def test_500_modules_are_each_found(mount: Mount) -> None:
    front = Front(named("base"))
    for number in range(500):
        mount(front, f"/m{number}", named(str(number)))

    assert [(await get(front, f"/m{number}/x"))[1]["app"] for number in (0, 1, 250, 499)] == ["0", "1", "250", "499"]
    assert (await get(front, "/m500/x"))[1]["app"] == "base"
    assert len(front.table.routes) == 500


# --- what it sees of the request -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("request_scope", "path", "root_path", "raw_path"),
    [
        ({"path": "/hello/a b", "raw_path": b"/hello/a%20b"}, "/hello/a b", "/hello", "/hello/a%20b"),
        ({"path": "/hello/x", "raw_path": b"/h%65llo/x"}, "/hello/x", "/hello", "/h%65llo/x"),
        ({"path": "/hello"}, "/hello/", "/hello", "/hello/"),
        ({"path": "/hello/"}, "/hello/", "/hello", "/hello/"),
        ({"path": "/hello", "raw_path": b"/h%65llo"}, "/hello/", "/hello", "/h%65llo/"),
        ({"path": "/hello", "raw_path": b"/hello?q=1"}, "/hello/", "/hello", "/hello/"),
        ({"path": "/hello", "raw_path": None}, "/hello/", "/hello", None),
        ({"path": "/api/hello/x", "root_path": "/api"}, "/api/hello/x", "/api/hello", "/api/hello/x"),
        ({"path": "/api/hello", "root_path": "/api"}, "/api/hello/", "/api/hello", "/api/hello/"),
        # Behind a proxy that strips its prefix, some servers set root_path and leave it out of path.
        ({"path": "/hello/x", "root_path": "/api"}, "/api/hello/x", "/api/hello", "/api/hello/x"),
        ({"path": "/hello", "root_path": "/api"}, "/api/hello/", "/api/hello", "/api/hello/"),
        ({"path": "/hello/ü", "root_path": "/hell", "raw_path": b"/?"}, "/hell/hello/ü", "/hell/hello", None),
    ],
)
async def test_a_module_is_mounted_as_asgi_says(
    mount: Mount, request_scope: dict[str, Any], path: str, root_path: str, raw_path: str | None
) -> None:
    front = Front()
    mount(front, "/hello", named("hello"))

    _, seen = await get(front, **request_scope)

    assert (seen["path"], seen["root_path"]) == (path, root_path)
    if request_scope.get("raw_path") == b"/?":
        raw_path = "/hell/hello/%C3%BC"  # what the client sent does not fit the path, so it is spelt anew
    assert seen["raw_path"] == raw_path


@pytest.mark.parametrize("path", ["/", ""])
async def test_a_module_at_the_root_sees_the_path_as_it_is(mount: Mount, path: str) -> None:
    front = Front(named("base"))
    mount(front, "/", named("root"), "root:1")

    _, seen = await get(front, path)
    assert (seen["app"], seen["path"], seen["root_path"]) == ("root", "/", "")
    _, seen = await get(front, "/x/y")
    assert (seen["app"], seen["path"], seen["root_path"]) == ("root", "/x/y", "")


async def test_what_a_module_raises_reaches_the_server(mount: Mount, client: Client) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise LookupError("in the module")

    front = Front()
    gate = mount(front, "/hello", app)
    async with client(front) as http:
        with pytest.raises(LookupError, match="in the module"):
            await http.get("/hello")
    async with client(front, raise_app_exceptions=False) as http:
        assert (await http.get("/hello")).status_code == 500

    assert requests_in(gate) == 0


# --- forward rules ---------------------------------------------------------------------------------------------------


async def test_forward_rules_lead_paths_that_name_no_module_to_one(mount: Mount) -> None:
    front = Front(named("base"))
    mount(front, "/biz2", named("biz2"))
    rule = Rule("biz2", paths=(("/idx2", "/"), ("/t2", "/timestamp"), ("/c d", "/e f")))
    front.swap(front.table.with_forwards(Forwards.of([rule])))

    async def seen(path: str, raw_path: bytes | None = None) -> tuple[str, str, str]:
        _, answer = await get(front, path, **({"raw_path": raw_path} if raw_path else {}))
        assert answer["root_path"] == "/biz2"
        return answer["app"], answer["path"], answer["raw_path"]

    assert await seen("/idx2") == ("biz2", "/biz2/", "/biz2/")
    assert await seen("/idx2/x") == ("biz2", "/biz2/x", "/biz2/x")
    assert await seen("/t2/x") == ("biz2", "/biz2/timestamp/x", "/biz2/timestamp/x")
    assert await seen("/t2") == ("biz2", "/biz2/timestamp", "/biz2/timestamp")
    assert await seen("/t2/a/b", b"/t2/a%2Fb") == ("biz2", "/biz2/timestamp/a/b", "/biz2/timestamp/a%2Fb")
    assert await seen("/c d/x", b"/c%20d/x") == ("biz2", "/biz2/e f/x", "/biz2/e%20f/x")
    assert (await get(front, "/elsewhere"))[1]["app"] == "base"


async def test_forward_rules_below_a_root_path(mount: Mount) -> None:
    front = Front()
    mount(front, "/biz2", named("biz2"))
    front.swap(front.table.with_forwards(Forwards.of([Rule("biz2")])))

    _, seen = await get(front, "/api/x", root_path="/api")
    assert (seen["path"], seen["root_path"], seen["raw_path"]) == ("/api/biz2/x", "/api/biz2", "/api/biz2/x")


async def test_forward_rules_look_at_the_host(mount: Mount) -> None:
    front = Front(named("base"))
    mount(front, "/biz1", named("biz1"))
    front.swap(front.table.with_forwards(Forwards.of([Rule("biz1", hosts=("a",))])))

    assert (await get(front, "/x", headers=[(b"host", b"a.example.com:80")]))[1]["app"] == "biz1"
    assert (await get(front, "/x", headers=[(b"host", b"b.example.com")]))[1]["app"] == "base"


async def test_a_rule_for_a_module_that_is_not_there_is_a_404_and_not_the_bases_business() -> None:
    front = Front(named("base"))
    front.swap(front.table.with_forwards(Forwards.of([Rule("absent")])))

    assert await get(front, "/x") == (404, {"status": 404, "detail": "no module answers at /x"})


# --- WebSockets ------------------------------------------------------------------------------------------------------


def test_websockets_are_routed_forwarded_and_refused_like_requests(mount: Mount, serve: Callable[..., Any]) -> None:
    front = Front()
    mount(front, "/hello", named("hello"))
    front.swap(front.table.with_forwards(Forwards.of([Rule("hello", paths=(("/old", "/new"),))])))
    served = serve(front)

    for asked, seen in (("/hello/ws", "/hello/ws"), ("/hello", "/hello/"), ("/old/ws", "/hello/new/ws")):
        with connect(served.url(asked, "ws")) as socket:
            assert f"'path': '{seen}', 'root_path': '/hello'" in str(socket.recv(5))
    with pytest.raises(InvalidStatus) as caught:
        connect(served.url("/nobody", "ws"))
    assert caught.value.response.status_code == 404


async def test_a_websocket_for_nobody_gets_a_404_from_a_server_that_can_send_one() -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    request = {"type": "websocket", "path": "/x", "headers": [], "extensions": {"websocket.http.response": {}}}
    await Front()(request, None, send)  # type: ignore[arg-type] # nothing is received
    await Front()({**request, "extensions": None}, None, send)  # type: ignore[arg-type]

    assert [message["type"] for message in sent] == [
        "websocket.http.response.start",
        "websocket.http.response.body",
        "websocket.close",
    ]
    assert sent[0]["status"] == 404


# --- gates and tables ------------------------------------------------------------------------------------------------


async def test_a_request_at_a_gate_that_shut_meanwhile_is_looked_up_in_the_newer_table(
    mount: Mount, gate_of: Callable[..., Gate], monkeypatch: pytest.MonkeyPatch
) -> None:
    front = Front(named("base"))
    old = mount(front, "/hello", named("old"), "hello:1")
    stale = front.table
    front.swap(stale.without(old))
    mount(front, "/hello", named("new"), "hello:2")
    fresh = front.table
    old.shut()

    # The request read the table a moment before it was replaced.
    front.swap(stale)
    serve = type(old).serve

    async def serve_after_swap(gate: Gate, *args: Any) -> bool:
        front.swap(fresh)
        return await serve(gate, *args)

    monkeypatch.setattr(type(old), "serve", serve_after_swap)
    assert (await get(front, "/hello/x"))[1]["app"] == "new"


async def test_a_gate_that_is_shut_for_good_answers_503_and_when_to_come_back(mount: Mount, client: Client) -> None:
    front = Front()
    mount(front, "/hello", named("hello")).shut()

    async with client(front) as http:
        answer = await http.get("/hello")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert answer.json()["detail"] == "hello:1.0 takes no requests at the moment"


async def test_a_front_shows_its_routes(mount: Mount) -> None:
    front = Front()
    mount(front, "/", named("root"), "root:1", host="a.example")
    mount(front, "/hello", named("hello")).shut()

    told = {(route.host, route.path, str(route.biz), route.gate.is_shut) for route in front.table.routes}
    assert told == {("a.example", "", "root:1", False), (None, "/hello", "hello:1.0", True)}
    assert repr(front) == "<Front <RouteTable 2 routes, 1 hosts, 0 forwards> before None>"


# --- the server's lifespan -------------------------------------------------------------------------------------------


class Recorder:
    """Callbacks of a composition root."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.loop: asyncio.AbstractEventLoop | None = None

    def on_startup(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.events.append("modules up")

    async def on_shutdown(self) -> None:
        await asyncio.sleep(0)
        self.events.append("modules down")

    def starlette(self) -> Starlette:
        @contextlib.asynccontextmanager
        async def life(app: Any) -> AsyncIterator[dict[str, str]]:
            self.events.append("base up")
            yield {"engine": "warm"}
            self.events.append("base down")

        async def page(request: Any) -> Any:
            return PlainTextResponse(request.state.engine)

        return Starlette(routes=[StarletteRoute("/page", page)], lifespan=life)


class Server:
    """The lifespan as a server conducts it, start-up and shutdown without a pause."""

    def __init__(self) -> None:
        self.sent: list[Any] = []
        self._events = iter(("lifespan.startup", "lifespan.shutdown"))

    async def run(self, front: Front) -> None:
        await front({"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}, self._receive, self._send)

    async def _receive(self) -> Any:
        return {"type": next(self._events)}

    async def _send(self, message: Any) -> None:
        self.sent.append(message)


def test_the_bases_lifespan_runs_through_around_that_of_the_modules(serve: Callable[..., Any]) -> None:
    recorder = Recorder()
    front = Front(recorder.starlette(), on_startup=recorder.on_startup, on_shutdown=recorder.on_shutdown)

    for _ in range(2):
        recorder.events.clear()
        served = serve(front)
        assert httpx.get(served.url("/page")).text == "warm"
        assert recorder.events == ["base up", "modules up"]
        assert recorder.loop is served.loop
        served.stop()
        assert recorder.events == ["base up", "modules up", "modules down", "base down"]


@pytest.mark.parametrize("lifespan", ["on", "auto"])
def test_a_base_without_lifespan_is_served_all_the_same(serve: Callable[..., Any], lifespan: str) -> None:
    async def base(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        await PlainTextResponse("base")(scope, receive, send)

    recorder = Recorder()
    served = serve(Front(base, on_startup=recorder.on_startup, on_shutdown=recorder.on_shutdown), lifespan=lifespan)

    assert httpx.get(served.url("/x")).text == "base"
    assert recorder.loop is served.loop
    served.stop()
    assert recorder.events == ["modules up", "modules down"]


def test_a_server_that_sends_no_lifespan_starts_with_the_first_request(serve: Callable[..., Any]) -> None:
    begun: list[asyncio.AbstractEventLoop] = []
    has_begun, go = threading.Event(), asyncio.Event()

    async def on_startup(loop: asyncio.AbstractEventLoop) -> None:
        begun.append(loop)
        has_begun.set()
        await go.wait()

    front = Front(named("base"), on_startup=on_startup)
    served = serve(front, lifespan="off")

    async def ask() -> list[int]:
        async with httpx.AsyncClient() as http:
            asking = [asyncio.create_task(http.get(served.url(f"/{number}"))) for number in range(3)]
            assert await asyncio.to_thread(has_begun.wait, 10)
            served.loop.call_soon_threadsafe(go.set)
            return [answer.status_code for answer in await asyncio.gather(*asking)]

    assert asyncio.run(ask()) == [200] * 3
    assert begun == [served.loop]


async def test_a_late_start_that_fails_fails_every_request_in_words() -> None:
    def on_startup(loop: asyncio.AbstractEventLoop) -> None:
        raise LookupError("no such module")

    front = Front(named("base"), on_startup=on_startup)
    for _ in range(2):
        with pytest.raises(BaseStartFailed, match="no such module"):
            await get(front, "/x")


async def test_a_base_that_fails_to_start_is_said_to_the_server_and_no_module_is_started() -> None:
    @contextlib.asynccontextmanager
    async def life(app: Any) -> AsyncIterator[None]:
        if app is not None:
            raise LookupError("no database")
        yield

    recorder = Recorder()
    server = Server()
    with pytest.raises(StartFailed, match="no database"):
        await server.run(Front(Starlette(lifespan=life), on_startup=recorder.on_startup))

    assert recorder.events == []
    assert [message["type"] for message in server.sent] == ["lifespan.startup.failed"]
    assert "LookupError: no database" in server.sent[0]["message"]


async def test_modules_that_fail_to_start_stop_the_server_and_the_base_is_ended() -> None:
    recorder = Recorder()

    def on_startup(loop: asyncio.AbstractEventLoop) -> None:
        raise LookupError("no such module")

    server = Server()
    with pytest.raises(LookupError):
        await server.run(Front(recorder.starlette(), on_startup=on_startup))

    assert recorder.events == ["base up", "base down"]
    assert [message["type"] for message in server.sent] == ["lifespan.startup.failed"]
    assert "no such module" in server.sent[0]["message"]


async def test_a_shutdown_that_fails_is_said_to_the_server_after_the_base_has_ended() -> None:
    recorder = Recorder()

    def on_shutdown() -> None:
        raise LookupError("a module is stuck")

    server = Server()
    with pytest.raises(LookupError):
        await server.run(Front(recorder.starlette(), on_shutdown=on_shutdown))

    assert recorder.events == ["base up", "base down"]
    assert [message["type"] for message in server.sent] == ["lifespan.startup.complete", "lifespan.shutdown.failed"]


# --- fallbacks ------------------------------------------------------------------------------------------------------


async def test_a_fallback_answers_where_neither_a_module_nor_the_base_does(client: Client) -> None:
    async def taken(request: Any) -> Any:
        return PlainTextResponse("of the base")

    base = Starlette(routes=[StarletteRoute("/readyz", taken)])
    for app, expected in ((None, ["fallback", "fallback"]), (base, ["fallback", "of the base"])):
        front = Front(app)
        front.fallbacks = {path: PlainTextResponse("fallback") for path in ("/livez", "/readyz")}
        async with client(front) as asking:
            assert [(await asking.get(path)).text for path in ("/livez", "/readyz")] == expected
            assert (await asking.post("/livez")).status_code == 404
            assert (await asking.get("/other")).status_code == 404


async def test_a_module_at_the_root_is_asked_before_a_fallback(mount: Mount) -> None:
    front = Front()
    front.fallbacks = {"/livez": PlainTextResponse("fallback")}
    mount(front, "/", named("root"))
    assert (await get(front, "/livez"))[1]["app"] == "root"
