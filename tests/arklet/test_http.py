"""The arklet over HTTP, byte for byte: which requests are understood, and what goes back."""

from __future__ import annotations

import contextlib
import json
import socket
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest
from tests.arklet.conftest import Wire
from tests.conftest import free_port, until

from koupleless.arklet.server import DEFAULT_PORTS, ArkletServer
from koupleless.errors import BaseStartFailed

if TYPE_CHECKING:
    from collections.abc import Callable

    from koupleless.arklet.operations import Operations

MIB = 1024 * 1024
COMMANDS = {
    "batchInstallBiz": "install one ark biz",
    "health": "get all health info",
    "help": "list all supported commands",
    "installBiz": "install one ark biz",
    "queryAllBiz": "query all ark biz(including master biz)",
    "queryBizOps": "query ark biz ops",
    "queryLogs": "query the logs of ark bizs",
    "cancelBiz": "cancel the install of one ark biz",
    "liveBiz": "reload pages of one ark biz by themselves for a while",
    "commandBiz": "write a file on this machine to run a command as one ark biz",
    "envBiz": "set, unset and list kept variables of one ark biz",
    "queryLibraries": "query private libraries in the store, by digest",
    "restartBiz": "start one ark biz again from the same artefact",
    "rollbackBiz": "let the version of one ark biz answer that did before",
    "exportBizs": "query the ark bizs that start again with the base",
    "consoleBiz": "run code inside one ark biz, if consoles are on",
    "stopBase": "end the base in order",
    "switchBiz": "switch one ark biz",
    "uninstallBiz": "uninstall one ark biz",
}
ONLY_POST = b"POST http request only supported by arklet"


def head(method: str, target: str, *lines: str) -> bytes:
    return "\r\n".join([f"{method} {target} HTTP/1.1", "Host: 127.0.0.1", *lines, "", ""]).encode("latin-1")


@pytest.mark.parametrize(
    "request_bytes",
    [
        pytest.param(head("POST", "/help", "Content-Length: 2") + b"{}", id="an empty object"),
        pytest.param(head("POST", "/help", "Content-Length: 0"), id="an empty body"),
        pytest.param(head("POST", "/help"), id="no length at all"),
        pytest.param(head("POST", "/help", "Content-Length: 4") + b"null", id="null"),
        pytest.param(head("POST", "/help", "Content-Length: 5") + b"\xef\xbb\xbf{}", id="a byte order mark"),
        pytest.param(head("POST", "/help?x=1", "Content-Length: 2") + b"{}", id="a query"),
        pytest.param(head("POST", "/he%6Cp", "Content-Length: 2") + b"{}", id="a percent-encoded path"),
        pytest.param(head("POST", "/help", "Content-Length: 2", "Content-Type: text/plain") + b"{}", id="text/plain"),
        pytest.param(
            head("POST", "/help", "Content-Length: 2", "Content-Type: application/x-www-form-urlencoded",
                 "'Content-Type: application/json'") + b"{}", id="the odd header of curl in a pod",
        ),
        pytest.param(head("POST", "/help", "Content-Length: 2", "Connection: keep-alive") + b"{}", id="keep-alive"),
        pytest.param(head("POST", "/help", "Content-Length: 2", "Connection: close") + b"{}", id="close"),
        pytest.param(
            head("POST", "/help", "Transfer-Encoding: chunked") + b"1\r\n{\r\n1\r\n}\r\n0\r\n\r\n", id="chunks"
        ),
        pytest.param(b"POST /help HTTP/1.0\r\n\r\n", id="HTTP/1.0 without a host"),
        pytest.param(
            head("POST", "/help", "Content-Length: 2") + b"{}" + head("POST", "/help", "Content-Length: 0"),
            id="a second request behind it",
        ),
    ],
)  # fmt: skip
def test_help_lists_eight_commands_however_the_request_is_written(wire: Any, request_bytes: bytes) -> None:
    reply = wire.exchange(request_bytes)

    assert reply.status == 200
    assert {item["id"]: item["desc"] for item in reply.json["data"]} == COMMANDS
    assert reply.json["code"] == "SUCCESS"
    assert reply.json["baseIdentity"] == "10.1.2.3"


def test_a_reply_is_compact_json_with_its_length_on_a_connection_that_is_closed(wire: Any) -> None:
    reply = wire.post("queryAllBiz")

    assert reply.headers["content-type"] == "application/json; charset=utf-8"
    assert int(reply.headers["content-length"]) == len(reply.body)
    assert reply.headers["connection"] == "close"
    assert b'"code":"SUCCESS"' in reply.body
    assert b'": ' not in reply.body
    assert b"null" not in reply.body


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "OPTIONS", "PATCH", "BREW", "post"])
def test_any_method_but_post_gets_500_and_the_fixed_text(wire: Any, method: str) -> None:
    reply = wire.exchange(head(method, "/help", "Content-Length: 2") + b"{}")

    assert (reply.status, reply.body) == (500, ONLY_POST)


def test_head_gets_500_without_a_body(wire: Any) -> None:
    reply = wire.exchange(head("HEAD", "/help"))

    assert (reply.status, reply.body) == (500, b"")


@pytest.mark.parametrize(
    "target", ["/", "/fooBar", "/help/", "/Help", "//help", "/help%0A", "/%zz", "/installPlugin", "http://x/help",
               "/" + "a" * 5000]
)  # fmt: skip
def test_an_unknown_command_gets_the_exact_text_and_no_base_identity(wire: Any, target: str) -> None:
    reply = wire.exchange(head("POST", target, "Content-Length: 2") + b"{}")

    assert reply.status == 200
    assert reply.json == {"code": "CMD_NOT_FOUND", "message": "please follow the doc"}


@pytest.mark.parametrize("command", ["help", "queryAllBiz", "installBiz"])
@pytest.mark.parametrize(
    "body",
    [b"not json", b"[]", b'"x"', b"1", b"true", b"   ", b"{}{}", b"{} xyz", b'{"bizName":', b'{"a":1,}', b"{a:1}",
     b"{'a':1}", b'{"a":NaN}', b'{"a":"\xff"}', b"// no\n{}", b"[" * 100_000, b"\xff\xfe{\x00}\x00"],
    ids=lambda body: repr(body[:12]),
)  # fmt: skip
def test_a_body_that_is_no_json_object_is_answered_at_once(wire: Any, command: str, body: bytes) -> None:
    reply = wire.post(command, body)

    assert reply.status == 200
    assert reply.json["code"] == "CMD_PROCESS_INTERNAL_ERROR"
    assert reply.json["message"].startswith("Internal Error: the body ")
    assert reply.json["errorStackTrace"]
    assert "baseIdentity" not in reply.json


def test_a_body_of_exactly_one_mebibyte_is_read(wire: Any) -> None:
    body = b'{"x":"' + b"a" * (MIB - 8) + b'"}'
    assert len(body) == MIB

    assert wire.post("help", body).json["code"] == "SUCCESS"


def test_a_longer_body_gets_413_without_content(wire: Any) -> None:
    reply = wire.post("help", b'{"x":"' + b"a" * MIB + b'"}')

    assert (reply.status, reply.body) == (413, b"")
    assert reply.headers["content-length"] == "0"


def test_a_longer_body_is_refused_before_it_is_sent(wire: Any) -> None:
    with wire.connect() as connection:
        connection.sendall(head("POST", "/help", f"Content-Length: {MIB + 1}"))
        assert connection.recv(65536).startswith(b"HTTP/1.1 413 ")


def test_a_longer_body_in_chunks_gets_413_and_the_connection_is_closed(wire: Any) -> None:
    chunk = b"10000\r\n" + b"a" * 0x10000 + b"\r\n"
    reply = wire.exchange(head("POST", "/help", "Transfer-Encoding: chunked") + chunk * 17 + b"0\r\n\r\n")

    assert (reply.status, reply.body) == (413, b"")


def test_a_client_that_expects_it_is_told_to_continue(wire: Any) -> None:
    with wire.connect() as connection:
        connection.sendall(head("POST", "/help", "Content-Length: 2", "Expect: 100-continue"))
        assert connection.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(b"{}")
        assert wire.receive(connection).json["code"] == "SUCCESS"


def test_a_client_that_expects_it_is_not_told_to_continue_with_too_much(wire: Any) -> None:
    with wire.connect() as connection:
        connection.sendall(head("POST", "/help", f"Content-Length: {MIB + 1}", "Expect: 100-continue"))
        assert wire.receive(connection).status == 413


def test_a_client_may_close_its_half_after_the_request(wire: Any) -> None:
    with wire.connect() as connection:
        connection.sendall(head("POST", "/help", "Content-Length: 2") + b"{}")
        connection.shutdown(socket.SHUT_WR)
        assert wire.receive(connection).json["code"] == "SUCCESS"


def test_a_client_that_leaves_in_the_middle_harms_nobody(wire: Any) -> None:
    with wire.connect() as connection:
        connection.sendall(head("POST", "/help", "Content-Length: 100") + b"{")

    assert wire.command("help")["code"] == "SUCCESS"


def test_an_explicit_port_that_is_taken_fails_the_start(operations: Operations, wire: Any) -> None:
    with pytest.raises(BaseStartFailed, match=rf"127\.0\.0\.1 port {wire.port}: another process listens"):
        ArkletServer(operations, port=wire.port).start()


@pytest.mark.parametrize("host", ["256.1.1.1", "no such host", "198.51.100.1"])
def test_an_address_that_is_not_ours_fails_the_start(operations: Operations, host: str) -> None:
    with pytest.raises(BaseStartFailed, match="cannot listen on"):
        ArkletServer(operations, host, 0, "secret").start()


def test_the_default_port_is_the_first_free_one_of_the_range(
    operations: Operations, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    free = free_port()
    ports = [listener.getsockname()[1] for listener in taken] + [free]
    monkeypatch.setattr("koupleless.arklet.server.DEFAULT_PORTS", ports)
    first, second = ArkletServer(operations), ArkletServer(operations)

    assert first.start() == free
    with pytest.raises(BaseStartFailed, match=f"no port from {ports[0]} to {free} is free"):
        second.start()
    first.stop()
    for listener in taken:
        listener.close()


def test_the_default_range_is_the_fields() -> None:
    assert (DEFAULT_PORTS[0], DEFAULT_PORTS[-1]) == (1238, 1337)


def test_stopping_closes_the_port_and_ends_the_thread(operations: Operations) -> None:
    server = ArkletServer(operations, port=0)
    port = server.start()
    server.stop()
    server.stop()

    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))
    assert "koupleless-arklet" not in {thread.name for thread in threading.enumerate()}


def test_a_server_that_stops_answers_what_is_running(
    operations: Operations, container: Any, pause: Callable[[], Any], in_background: Callable[..., Any]
) -> None:
    server = ArkletServer(operations, port=0)
    port = server.start()
    held = pause()
    url = container.offer("slow:1", on_start=held)
    body = json.dumps({"bizUrl": url}).encode()

    def install() -> bytes:
        with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
            connection.sendall(head("POST", "/installBiz", f"Content-Length: {len(body)}") + body)
            raw = b""
            while chunk := connection.recv(65536):
                raw += chunk
            return raw

    answer = in_background(install)
    held.await_reached()

    def stop() -> str:
        server.stop()
        return "stopped"

    stopped = in_background(stop)
    held.let_go()

    assert b'"code":"SUCCESS"' in answer()
    assert stopped() == "stopped"


def test_a_command_that_outlasts_a_server_that_stops_is_answered_that_the_base_is_shutting_down(
    operations: Operations,
    container: Any,
    pause: Callable[[], Any],
    in_background: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("koupleless.arklet.server.LINGER_S", 0.05)
    server = ArkletServer(operations, port=0)
    wire = Wire(server.start())
    held = pause()
    url = container.offer("slow:1", on_start=held)
    answer = in_background(lambda: wire.command("installBiz", {"bizUrl": url}))
    held.await_reached()

    server.stop()
    told = answer()
    held.let_go()

    assert told["code"] == "CMD_PROCESS_INTERNAL_ERROR"
    assert told["message"] == (
        "Internal Error: the base is shutting down and waits no longer for installBiz, which may not have been done"
    )


def test_serving_leaves_the_access_log_of_the_application_alone(wire: Any, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("DEBUG"):
        wire.command("help")

    assert [record for record in caplog.records if record.name.startswith("uvicorn")] == []


def test_a_server_whose_loop_cannot_be_made_fails_the_start(
    operations: Operations, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr("koupleless.arklet.server.asyncio.new_event_loop", refuse)

    with pytest.raises(BaseStartFailed, match=r"the arklet could not start: .*Too many open files"):
        ArkletServer(operations, port=0).start()


def test_the_loopback_of_version_6_serves_too(operations: Operations) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6")
    server = ArkletServer(operations, "::1", 0)
    port = server.start()
    try:
        with socket.create_connection(("::1", port), timeout=10) as connection:
            connection.sendall(f"POST /help HTTP/1.1\r\nHost: [::1]:{port}\r\nContent-Length: 0\r\n\r\n".encode())
            assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")
    finally:
        server.stop()


def test_a_port_out_of_range_fails_the_start(operations: Operations) -> None:
    with pytest.raises(BaseStartFailed, match="port 70000"):
        ArkletServer(operations, port=70000).start()


def test_a_client_that_does_not_finish_its_body_is_given_up(wire: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("koupleless.arklet.api.BODY_SECONDS", 0.05)
    monkeypatch.setattr("koupleless.arklet.api.LINGER_SECONDS", 0.05)

    reply = wire.exchange(head("POST", "/help", "Content-Length: 10") + b"{")

    assert (reply.status, reply.body) == (408, b"")


@pytest.mark.parametrize("refused", [True, False])
@pytest.mark.parametrize(
    "rest", [b"zz\r\n", b"5\r\nabc", b"-1\r\n\r\n", b"5\r\nabcdeXX\r\n"], ids=["no size", "short", "negative", "no end"]
)
@pytest.mark.parametrize("at_once", [True, False])
def test_a_malformed_body_is_one_line_in_the_log(
    serve: Callable[..., Any], caplog: pytest.LogCaptureFixture, refused: bool, rest: bytes, at_once: bool
) -> None:
    wire = serve(token="secret" if refused else None)
    begin = head("POST", "/help", "Transfer-Encoding: chunked")
    with wire.connect() as connection:
        if at_once:
            connection.sendall(begin + rest)
        else:
            connection.sendall(begin)
            if refused:
                assert connection.recv(65536).startswith(b"HTTP/1.1 401 ")
            connection.sendall(rest)
        connection.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionResetError):
            while connection.recv(65536):
                pass
    serve(port=0).command("help")  # the server that was asked goes on
    wire.post("help")

    assert len(caplog.records) <= 1, caplog.text
    assert "Traceback" not in caplog.text


def test_connections_without_a_request_do_not_shut_others_out(serve: Callable[..., Any]) -> None:
    wire = serve(max_connections=5, header_timeout_s=60)
    with contextlib.ExitStack() as stack:
        for first in [b"", b"P", head("POST", "/help", "Content-Length: 2") + b"{"] * 10:
            connection = stack.enter_context(wire.connect())
            connection.sendall(first)
        for _ in range(10):
            assert wire.command("help")["code"] == "SUCCESS"


def test_headers_must_come_in_time(serve: Callable[..., Any]) -> None:
    wire = serve(header_timeout_s=0.2)
    with wire.connect() as idle, wire.connect() as begun, wire.connect() as whole:
        begun.sendall(b"POST /help HTTP/1.1\r\n")
        whole.sendall(head("POST", "/help", "Content-Length: 2") + b"{")
        assert wire.receive(begun).status == 408
        assert idle.recv(1) == b""
        whole.sendall(b"}")
        assert wire.receive(whole).status == 200


def test_an_arklet_that_ended_is_started_again_on_its_port_and_says_so(
    operations: Operations, caplog: pytest.LogCaptureFixture
) -> None:
    server = ArkletServer(operations, port=free_port())
    wire = Wire(server.start())
    try:
        for count in range(1, 4):
            assert server._loop is not None
            server._loop.call_soon_threadsafe(sys.exit, 3)
            until(lambda: len(caplog.records) >= count)  # noqa: B023 - called at once
            assert wire.command("help")["code"] == "SUCCESS"
    finally:
        server.stop()
    assert {record.getMessage() for record in caplog.records} == {"the arklet has ended, and is started again"}
    with pytest.raises(ConnectionRefusedError):
        wire.command("help")
