"""Requests to the arklet that are nearly right, as bytes on real connections."""

from __future__ import annotations

import gc
import json
import logging
import selectors
import socket
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest
from tests.arklet.conftest import FakeContainer, Wire
from tests.conftest import until
from tests.fuzz.mutations import INPUTS, SEED, Mutator

from koupleless.arklet.health import BaseMetadata
from koupleless.arklet.operations import COMMANDS, Operations
from koupleless.arklet.server import ArkletServer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from koupleless.container.container import Container

TOKEN = "open-sesame"
AT_ONCE = 40
STATUSES = {200, 400, 401, 403, 408, 413, 431, 500, 503}
WORDS = [
    *(b"POST ", b"GET ", b" HTTP/1.1", b" HTTP/1.0", b" HTTP/2.0", b"Host: ", b"Host: [::1]evil", b"Origin: x"),
    *(b"Content-Length: ", b"Content-Length: -1", b"Transfer-Encoding: chunked", b"0\r\n\r\n", b"ffffffffffffffff\r\n"),
    *(
        b"\r\n\r\n",
        b"Expect: 100-continue",
        b"Connection: Upgrade\r\nUpgrade: websocket",
        b"Authorization: Bearer ",
        b"\r\n folded",
    ),
    *(b'{"bizName":', b'"async": true', b"null", b"[" * 60, b'"\\ud800"', b"1e999", b"installBiz", b"health"),
]


def request(path: str, body: object, *headers: str, chunked: bool = False) -> bytes:
    content = json.dumps(body).encode()
    lines = [f"POST /{path} HTTP/1.1", "Host: 127.0.0.1", f"Authorization: Bearer {TOKEN}", *headers]
    if chunked:
        head = "\r\n".join([*lines, "Transfer-Encoding: chunked", "", ""]).encode()
        return head + f"{len(content):x}\r\n".encode() + content + b"\r\n0\r\n\r\n"
    return "\r\n".join([*lines, f"Content-Length: {len(content)}", "", ""]).encode() + content


NAMED = {"bizName": "shop", "bizVersion": "1.0", "bizUrl": "file:///nowhere.jar", "envs": {"A": "b"}, "args": ["x"]}
SEEDS = [
    *(request(command.id, NAMED) for command in COMMANDS),
    *(request(command.id, {**NAMED, "async": True, "requestId": "r-1"}, chunked=True) for command in COMMANDS),
    request("batchInstallBiz", {"bizList": [NAMED, NAMED]}),
    request("health", {"type": "biz", "metrics": ["cpu"], "moduleName": "shop"}),
    request("queryBizOps", {"requestId": "r-1"}, "Connection: keep-alive"),
    request("help", {}) * 2,
    b"GET / HTTP/1.0\r\n\r\n",
]


@pytest.fixture
def wire() -> Iterator[Wire]:
    operations = Operations(cast("Container", FakeContainer()), BaseMetadata(identity="10.1.2.3"))
    server = ArkletServer(operations, port=0, token=TOKEN)
    yield Wire(server.start())
    server.stop()
    operations.close()
    operations.workers.shutdown()


def exchange(port: int, requests: list[bytes]) -> list[bytes]:
    """Send each on a connection of its own, all at once; what came back until the server closed."""
    got = [b""] * len(requests)
    with selectors.DefaultSelector() as selector:
        for index, data in enumerate(requests):
            connection = socket.create_connection(("127.0.0.1", port), timeout=20)
            try:
                connection.sendall(data)
                connection.shutdown(socket.SHUT_WR)
            except OSError:  # it was refused before it was whole
                pass
            selector.register(connection, selectors.EVENT_READ, index)
        while selector.get_map():
            ready = selector.select(20)
            assert ready, "a connection is neither answered nor closed"
            for key, _ in ready:
                found = cast("socket.socket", key.fileobj)
                try:
                    part = found.recv(1 << 16)
                except ConnectionResetError:
                    part = b""
                got[key.data] += part
                if not part:
                    selector.unregister(found)
                    found.close()
    return got


def check(sent: bytes, got: bytes) -> None:
    if not got:
        return  # it was no request, or went away
    head, _, body = got.partition(b"\r\n\r\n")
    while head.startswith(b"HTTP/1.1 100 "):
        head, _, body = body.partition(b"\r\n\r\n")
    status = int(head.split()[1])
    assert head.startswith(b"HTTP/1.1 "), (sent, got)
    assert status in STATUSES, (sent, got)
    assert b"Traceback" not in got or b"CMD_PROCESS_INTERNAL_ERROR" in got, (sent, got)
    if status == 200:
        assert b"\r\nserver: koupleless" in head.lower(), (sent, got)
        length = int(head.lower().partition(b"content-length: ")[2].split()[0])
        reply: dict[str, Any] = json.loads(body[:length])
        assert reply["code"] in {"SUCCESS", "FAILED", "CMD_NOT_FOUND", "CMD_PROCESS_INTERNAL_ERROR"}, (sent, got)
        if reply["code"] == "CMD_PROCESS_INTERNAL_ERROR":  # in words, and of what is known to go wrong
            assert "Traceback" not in reply.get("errorStackTrace", ""), (sent, got)


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.timeout(0 if INPUTS > 20_000 else 120)
def test_requests_with_changed_bytes(wire: Wire, caplog: pytest.LogCaptureFixture) -> None:
    mutator = Mutator(SEED, WORDS)
    caplog.set_level(logging.ERROR)  # of warnings there is one for each
    exchange(wire.port, SEEDS)
    before, threads = descriptors(), threading.active_count()
    for start in range(0, INPUTS, AT_ONCE):
        sent = [mutator.mutate(SEEDS[(start + index) % len(SEEDS)]) for index in range(AT_ONCE)]
        for data, got in zip(sent, exchange(wire.port, sent), strict=True):
            check(data, got)
        assert not caplog.records, (SEED, start, caplog.text)
    answer = wire.post("help", headers={"Authorization": f"Bearer {TOKEN}"})

    assert answer.json["code"] == "SUCCESS"
    gc.collect()
    until(lambda: descriptors() <= before, 10, otherwise="file descriptors are left")
    assert threading.active_count() <= threads + 60  # the workers of commands that change bizs
