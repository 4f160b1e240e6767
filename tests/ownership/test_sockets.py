"""Sockets that a biz has bound are closed with it, also where a thread waits on them or the base refers to them."""

from __future__ import annotations

import contextlib
import http.server
import socket
import socketserver
import ssl
import threading
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest
from tests.conftest import until

if TYPE_CHECKING:
    from tests.ownership.conftest import MakeBiz, TinyBiz

GIVEN: dict[str, Any] = {
    "http": http,
    "socket": socket,
    "socketserver": socketserver,
    "ssl": ssl,
    "threading": threading,
}

ECHO = """
class Handler(socketserver.BaseRequestHandler):
    def handle(self):
        self.request.sendall(reach().__name__.encode() + VERSION)

class Server(socketserver.TCPServer):
    allow_reuse_address = True

class ThreadingServer(socketserver.ThreadingMixIn, Server):
    pass

def answer(connection):
    with connection:
        connection.sendall(reach().__name__.encode() + VERSION)

def serve(listener):
    while True:
        connection, _ = listener.accept()
        answer(connection)
"""

SERVERS = {
    "socketserver, in a thread": """
server = Server(("127.0.0.1", PORT), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
""",
    "socketserver with threads": """
server = ThreadingServer(("127.0.0.1", PORT), Handler)
threading.Thread(target=server.serve_forever).start()
""",
    "socketserver, in a loop of the biz": """
def forever():
    with Server(("127.0.0.1", PORT), Handler) as server:
        while True:
            server.handle_request()
threading.Thread(target=forever, daemon=True).start()
""",
    "a raw socket": """
listener = socket.create_server(("127.0.0.1", PORT))
threading.Thread(target=serve, args=(listener,), daemon=True).start()
""",
    "a raw socket that shares its port": """
listener = socket.create_server(("127.0.0.1", PORT), reuse_port=True)
threading.Thread(target=serve, args=(listener,), daemon=True).start()
""",
}


@pytest.fixture(autouse=True)
def in_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a thread says of a socket that is taken away from under it is of no concern."""
    monkeypatch.setattr(threading, "excepthook", lambda _: None)


@pytest.mark.parametrize("source", SERVERS.values(), ids=list(SERVERS))
def test_a_server_that_nobody_stops_gives_its_port_back(biz: TinyBiz, make_biz: MakeBiz, source: str) -> None:
    """And every client gets the version that is there, with no time in between and none that waits for an answer."""
    port = free_port()
    biz.run(ECHO + source, VERSION=b"1", PORT=port, **GIVEN)
    assert ask_first(port) == b"K1"
    report = biz.leave()
    assert report.clean, report
    with pytest.raises(ConnectionRefusedError):
        ask(port)
    after = make_biz("after")
    after.run(ECHO + source, VERSION=b"2", PORT=port, **GIVEN)
    assert ask_first(port) == b"K2"
    assert [ask(port) for _ in range(20)] == [b"K2"] * 20
    report = after.leave()
    assert report.clean, report


def test_an_http_server_gives_its_port_back(biz: TinyBiz) -> None:
    port = free_port()
    biz.run(
        """
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(200)
                self.end_headers()
                self.wfile.write(reach().__name__.encode())
            def log_message(self, *args):
                pass
        server = http.server.ThreadingHTTPServer(("127.0.0.1", PORT), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        """,
        PORT=port,
        **GIVEN,
    )
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5) as answer:
        assert answer.read() == b"K"
    report = biz.leave()
    assert report.clean, report
    assert report.undone["socket"] == 1
    with pytest.raises(ConnectionRefusedError):
        ask(port)


def test_a_socket_that_the_base_refers_to_is_closed(biz: TinyBiz) -> None:
    module = biz.run("listener = socket.create_server(('127.0.0.1', 0))", **GIVEN)
    kept = module.listener
    del module
    report = biz.leave()
    assert report.clean, report
    assert kept.fileno() == -1


def test_one_that_speaks_tls_is_closed(biz: TinyBiz) -> None:
    module = biz.run(
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        listener = context.wrap_socket(socket.create_server(("127.0.0.1", 0)), server_side=True)
        """,
        **GIVEN,
    )
    kept = module.listener
    del module
    report = biz.leave()
    assert report.clean, report
    assert kept.fileno() == -1


def test_a_datagram_socket_gives_its_port_back(biz: TinyBiz) -> None:
    module = biz.run("s = socket.socket(type=socket.SOCK_DGRAM)\ns.bind(('127.0.0.1', 0))", **GIVEN)
    address = module.s.getsockname()
    del module
    assert biz.undo() == ()
    with socket.socket(type=socket.SOCK_DGRAM) as again:
        again.bind(address)


def test_sockets_of_the_base_and_closed_ones_are_let_be(biz: TinyBiz) -> None:
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as of_base:
        biz.run("socket.create_server(('127.0.0.1', 0)).close()", **GIVEN)
        report = biz.leave()
        assert report.clean, report
        assert "socket" not in report.undone
        assert of_base.fileno() != -1
        socket.create_connection(of_base.getsockname()).close()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def ask_first(port: int) -> bytes:
    """As `ask`, once the server is there."""
    answers: list[bytes] = []

    def is_answered() -> bool:
        with contextlib.suppress(ConnectionRefusedError):
            answers.append(ask(port))
        return bool(answers)

    until(is_answered)
    return answers[0]


def ask(port: int) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=5) as client:
        return client.recv(10)
