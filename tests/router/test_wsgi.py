"""WSGI applications behind the front: what they are told, bodies both ways, failures, and threads that end."""

from __future__ import annotations

import asyncio
import socket
import sys
import threading
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from flask import Flask, Response, jsonify, request, url_for
from tests.conftest import until
from tests.router.conftest import requests_in
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from koupleless.biz import BizId
from koupleless.context import Scope, current_biz
from koupleless.router.asgi import Front
from koupleless.router.face import face_of
from koupleless.router.gate import Gate
from koupleless.router.lifespan import Lifespan
from koupleless.router.table import Route
from koupleless.router.wsgi import WsgiApp

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    Client = Callable[..., httpx.AsyncClient]
    Mount = Callable[..., Gate]

pytestmark = pytest.mark.anyio


def workers() -> list[str]:
    return [thread.name for thread in threading.enumerate() if "wsgi" in thread.name]


def flask_app() -> Flask:
    app = Flask("shop")

    @app.route("/who/<path:rest>", methods=["GET", "POST"])
    def who(rest: str) -> Any:
        return jsonify(
            biz=str(current_biz()),
            thread=threading.current_thread().name,
            script_name=request.environ["SCRIPT_NAME"],
            path_info=request.environ["PATH_INFO"],
            url=url_for("who", rest=rest),
            query=request.query_string.decode(),
            method=request.method,
            body=request.get_data(as_text=True),
        )

    @app.post("/upload")
    def upload() -> Any:
        sent = request.files["file"]
        return jsonify(name=sent.filename, size=len(sent.read()), note=request.form["note"])

    @app.get("/stream")
    def stream() -> Response:
        def rows() -> Iterator[str]:
            for number in range(100):
                yield f"row {number} by {current_biz()}\n"

        return Response(rows(), mimetype="text/plain")

    @app.get("/fails")
    def fails() -> str:
        raise LookupError("in the view")

    @app.get("/fails-later")
    def fails_later() -> Response:
        def rows() -> Iterator[str]:
            yield "one"
            raise LookupError("in the stream")

        return Response(rows(), mimetype="text/plain")

    @app.get("/exits")
    def exits() -> str:
        raise SystemExit(3)

    return app


async def test_a_view_is_told_where_it_is_mounted_and_runs_as_its_biz_on_a_thread_named_after_it(
    mount: Mount, client: Client
) -> None:
    front = Front()
    mount(front, "/a/shop", flask_app(), "shop:1.2")

    async with client(front) as http:
        seen = (await http.post("/a/shop/who/gr%C3%BCn/x?q=1&q=2", content=b"body")).json()

    assert seen.pop("thread").startswith("shop:1.2 wsgi")
    assert seen == {
        "biz": "shop:1.2",
        "script_name": "/a/shop",
        "path_info": "/who/grün/x".encode().decode("latin-1"),
        "url": "/a/shop/who/gr%C3%BCn/x",
        "query": "q=1&q=2",
        "method": "POST",
        "body": "body",
    }


async def test_uploads_and_streams_and_pages_that_are_not_there(mount: Mount, client: Client) -> None:
    front = Front()
    gate = mount(front, "/shop", flask_app())

    async with client(front) as http:
        files = {"file": ("big.bin", b"x" * 3_000_000)}
        answer = await http.post("/shop/upload", files=files, data={"note": "big"})
        assert answer.json() == {"name": "big.bin", "size": 3_000_000, "note": "big"}
        lines = (await http.get("/shop/stream")).text.splitlines()
        assert (len(lines), lines[99]) == (100, "row 99 by shop:1.0")
        assert (await http.get("/shop/absent")).status_code == 404
        assert (await http.head("/shop/who/x")).status_code == 200

    assert requests_in(gate) == 0


async def test_views_run_beside_each_other(mount: Mount, client: Client) -> None:
    both = threading.Barrier(2, timeout=10)
    app = Flask("shop")

    @app.get("/")
    def meet() -> str:
        both.wait()
        return "met"

    front = Front()
    mount(front, "/shop", app)
    async with client(front) as http:
        answers = await asyncio.gather(http.get("/shop/"), http.get("/shop/"))
    assert [answer.text for answer in answers] == ["met", "met"]


async def test_an_error_in_a_view_is_the_frameworks_500(mount: Mount, client: Client) -> None:
    front = Front()
    gate = mount(front, "/shop", flask_app())
    async with client(front) as http:
        assert (await http.get("/shop/fails")).status_code == 500
    assert requests_in(gate) == 0


@pytest.mark.parametrize(
    ("path", "error"),
    [("/shop/fails", LookupError), ("/shop/fails-later", LookupError), ("/shop/exits", RuntimeError)],
)
async def test_what_an_application_does_not_catch_reaches_the_server(
    mount: Mount, client: Client, path: str, error: type[Exception]
) -> None:
    app = flask_app()
    app.config["PROPAGATE_EXCEPTIONS"] = True
    front = Front()
    gate = mount(front, "/shop", app)
    async with client(front) as http:
        with pytest.raises(error):
            await http.get(path)
    assert requests_in(gate) == 0


@pytest.mark.parametrize("path", ["/before", "/instead", "/in-the-body", "/written", "/late"])
def test_the_head_of_a_response_may_be_replaced_until_something_is_sent(
    serve: Callable[..., Any], mount: Mount, path: str
) -> None:
    """PEP 3333: as an application does that shows a page for an error it has caught."""

    def fail(start_response: Any) -> bytes:
        try:
            int("nowhere")
        except ValueError:
            start_response("404 Not Found", [("content-type", "text/plain")], sys.exc_info())
        return b"not there"

    def in_the_body(start_response: Any) -> Iterator[bytes]:
        yield b""
        yield fail(start_response)

    def late(start_response: Any) -> Iterator[bytes]:
        yield b"begun"
        yield fail(start_response)

    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        if path == "/before":
            return [fail(start_response)]
        write = start_response("200 OK", [("content-type", "text/html")])
        if path == "/written":
            write(b"all ")
            return [b"of it"]
        if path == "/instead":
            return [fail(start_response)]
        return late(start_response) if path == "/late" else in_the_body(start_response)

    front = Front()
    gate = mount(front, "/raw", app)
    address = serve(front).url(f"/raw{path}")
    if path == "/late":
        with pytest.raises(httpx.RemoteProtocolError):
            httpx.get(address)
        until(lambda: requests_in(gate) == 0)
        return
    answer = httpx.get(address)
    expected = (200, "text/html", "all of it") if path == "/written" else (404, "text/plain", "not there")
    assert (answer.status_code, answer.headers["content-type"], answer.text) == expected
    until(lambda: requests_in(gate) == 0)


@pytest.mark.parametrize("starts", [0, 2])
async def test_a_response_that_has_no_head_or_two_is_an_error(mount: Mount, client: Client, starts: int) -> None:
    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        for _ in range(starts):
            start_response("200 OK", [])
        return [b"text"]

    front = Front()
    mount(front, "/raw", app)
    async with client(front) as http:
        with pytest.raises(AssertionError, match="start_response"):
            await http.get("/raw/")


async def test_the_response_is_closed_whatever_happens(mount: Mount, client: Client) -> None:
    closed = []

    class Chunks:
        def __init__(self, environ: Any) -> None:
            self.fails = environ["PATH_INFO"] == "/fails"

        def __iter__(self) -> Iterator[bytes]:
            yield b"one"
            if self.fails:
                raise LookupError("in the stream")

        def close(self) -> None:
            closed.append(self.fails)

    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [("content-type", "text/plain")])
        return Chunks(environ)

    front = Front()
    mount(front, "/raw", app)
    async with client(front) as http:
        assert (await http.get("/raw/")).text == "one"
        with pytest.raises(LookupError):
            await http.get("/raw/fails")
    assert closed == [False, True]


def test_a_stream_ends_when_its_client_leaves(serve: Callable[..., Any], mount: Mount) -> None:
    ended = threading.Event()
    app = Flask("shop")

    @app.get("/ticks")
    def ticks() -> Response:
        def forever() -> Iterator[bytes]:
            try:
                while True:
                    yield b"tick\n"
            finally:
                ended.set()

        return Response(forever(), mimetype="text/plain")

    front = Front()
    gate = mount(front, "/shop", app)
    served = serve(front)
    with socket.create_connection(("127.0.0.1", served.port), timeout=10) as client:
        client.sendall(b"GET /shop/ticks HTTP/1.1\r\nhost: x\r\n\r\n")
        assert b"tick" in client.recv(65536) + client.recv(65536)

    assert ended.wait(10)
    assert served.run(gate.drain(10)) == 0


@pytest.mark.parametrize("is_late", [False, True])
def test_a_request_body_can_be_read_after_a_stream_has_begun(
    serve: Callable[..., Any], mount: Mount, is_late: bool
) -> None:
    streaming = threading.Event()

    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [("content-type", "text/plain")])
        for _ in range(5):
            yield b"."
        streaming.set()
        yield environ["wsgi.input"].read()

    front = Front()
    mount(front, "/raw", app)
    served = serve(front)
    with socket.create_connection(("127.0.0.1", served.port), timeout=10) as client:
        head = b"POST /raw/ HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 8\r\n\r\n"
        client.sendall(head if is_late else head + b"the body")
        assert streaming.wait(10)
        if is_late:
            client.sendall(b"the ")
            client.sendall(b"body")
        answer = b"".join(iter(lambda: client.recv(65536), b""))
    assert answer.count(b"\r\n.\r\n") == 5
    assert b"the body" in answer or (b"the " in answer and b"body" in answer)


def test_a_client_that_leaves_during_its_upload_ends_the_request(serve: Callable[..., Any], mount: Mount) -> None:
    read: list[bytes] = []
    reading = threading.Event()

    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        reading.set()
        read.append(environ["wsgi.input"].read())
        start_response("200 OK", [])
        return [b"to nobody"]

    front = Front()
    gate = mount(front, "/raw", app)
    served = serve(front)
    with socket.create_connection(("127.0.0.1", served.port), timeout=10) as client:
        client.sendall(b"POST /raw/ HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\nhalf")
        assert reading.wait(10)

    assert served.run(gate.drain(10)) == 0
    assert read in ([b"half"], [b""])  # a server may drop what came in before the client left


async def test_an_answer_that_the_server_refuses_is_raised_once_the_thread_is_back(
    gate_of: Callable[..., Gate],
) -> None:
    ended = threading.Event()

    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [])
        try:
            for _ in range(100):
                yield b"x"
        finally:
            ended.set()

    async def receive() -> Any:
        await asyncio.Event().wait()

    async def send(message: Any) -> None:
        raise OSError("the connection is gone")

    scope = {"type": "http", "method": "GET", "path": "/", "query_string": b"", "http_version": "1.1", "headers": []}
    gate = gate_of(app)
    with pytest.raises(OSError, match="the connection is gone"):
        await gate.serve(scope, receive, send)
    assert ended.is_set()


def test_a_websocket_is_refused(serve: Callable[..., Any], mount: Mount) -> None:
    front = Front()
    mount(front, "/shop", flask_app())
    served = serve(front)
    with pytest.raises(InvalidStatus) as caught:
        connect(served.url("/shop/ws", "ws"))
    assert caught.value.response.status_code == 403


async def test_a_wsgi_application_has_no_lifespan() -> None:
    lifespan = Lifespan(WsgiApp(flask_app(), name="shop:1"))
    await lifespan.startup(5)
    assert lifespan.is_supported is False


class Waiting:
    """A WSGI application that streams, or reads, until it is told to stop."""

    def __init__(self) -> None:
        self.arrived = threading.Event()
        self.ended = threading.Event()

    def __call__(self, environ: Any, start_response: Any) -> Any:
        if environ["PATH_INFO"] == "/read":
            self.arrived.set()
            environ["wsgi.input"].read()
            self.ended.set()
            start_response("200 OK", [])
            return []
        start_response("200 OK", [])
        return self._forever()

    def _forever(self) -> Iterator[bytes]:
        try:
            while True:
                yield b"x" * 65536
                self.arrived.set()
        finally:
            self.ended.set()


@pytest.mark.parametrize(
    "head", [b"GET /shop/stream HTTP/1.1\r\n", b"POST /shop/read HTTP/1.1\r\ncontent-length: 10\r\n"]
)
def test_aborting_a_request_gets_its_thread_back(serve: Callable[..., Any], head: bytes) -> None:
    """Also a thread that waits for a client that neither reads nor writes any more."""
    app = Waiting()
    scope = Scope(BizId.parse("stuck:1.0"))
    face = face_of(app, name="stuck:1.0")
    assert face.asgi is not None
    gate = Gate(scope, face.asgi, close=face.close)
    front = Front()
    front.swap(front.table.with_route(Route.to(gate, path="/shop", biz=BizId.parse("stuck:1.0"))))
    served = serve(front)

    with socket.create_connection(("127.0.0.1", served.port), timeout=10) as client:
        client.sendall(head + b"host: x\r\n\r\n")
        assert app.arrived.wait(10)
        assert served.run(gate.drain(0.05)) == 1
        assert served.run(gate.abort(10)) == 0
        assert app.ended.wait(10)
        assert gate.close(timeout_s=10) == ()
    assert [name for name in workers() if name.startswith("stuck:1.0")] == []


async def test_closing_names_the_threads_that_do_not_end(client: Client) -> None:
    go, arrived = threading.Event(), threading.Event()

    def app(environ: Any, start_response: Any) -> Any:
        arrived.set()
        go.wait(30)
        return []

    face = face_of(app, name="deaf:1.0")
    assert face.asgi is not None
    gate = Gate(Scope(BizId.parse("deaf:1.0")), face.asgi, close=face.close)

    async def never() -> Any:
        await asyncio.Event().wait()

    async def send(message: Any) -> None:
        """To nobody."""

    scope = {"type": "http", "method": "GET", "path": "/", "query_string": b"", "http_version": "1.1", "headers": []}
    inside = asyncio.create_task(gate.serve(scope, never, send))
    assert await asyncio.to_thread(arrived.wait, 10)
    assert await gate.abort(10) == 0
    await inside

    assert await asyncio.to_thread(gate.close, 0.05) == ("deaf:1.0 wsgi_0",)
    go.set()


async def test_a_closed_bridge_answers_nothing() -> None:
    app = WsgiApp(flask_app(), name="shop:1")
    assert app.close() == ()
    await app({"type": "http"}, None, None)  # type: ignore[arg-type] # nothing is read or sent
