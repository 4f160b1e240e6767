"""The client against answers of all kinds of servers, the original's among them."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from tests.conftest import free_port

from koupleless.biz import BizId, BizState
from koupleless.client import ArkletClient, NoArklet, Refused
from koupleless.errors import BaseUnreachable
from koupleless.wire.envelope import Code, ResponseCode
from koupleless.wire.replies import OpsStatus
from koupleless.wire.requests import InstallBiz

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SHOP = BizId.of("shop", "1.0")


class Answering:
    """A server that gives one prepared answer to every connection and keeps what it was sent."""

    def __init__(self, answer: bytes, *, delay: threading.Event | None = None, reads: bool = True) -> None:
        self.received: list[bytes] = []
        self._answer = answer
        self._delay = delay
        self._reads = reads
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection, contextlib.suppress(OSError):
                if self._reads:
                    self.received.append(_read_request(connection))
                if self._delay is not None:
                    self._delay.wait(10)
                connection.sendall(self._answer)
                if not self._reads:
                    connection.shutdown(socket.SHUT_WR)
                    while connection.recv(65536):
                        pass

    @property
    def last(self) -> tuple[str, dict[str, str], Any]:
        """The request line, headers and decoded body of the last request."""
        head, _, body = self.received[-1].partition(b"\r\n\r\n")
        line, *lines = head.decode().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (item.partition(":") for item in lines)}
        return line, headers, json.loads(body)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()


def _read_request(connection: socket.socket) -> bytes:
    raw = b""
    while b"\r\n\r\n" not in raw:
        raw += connection.recv(65536)
    head, _, body = raw.partition(b"\r\n\r\n")
    length = next(
        int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")
    )
    while len(body) < length:
        body += connection.recv(65536)
    return head + b"\r\n\r\n" + body


def reply(body: object, *, status: str = "200 OK", headers: str = "") -> bytes:
    content = body if isinstance(body, bytes) else json.dumps(body, separators=(",", ":")).encode()
    return f"HTTP/1.1 {status}\r\n{headers}\r\n".encode() + content  # as the original: no length, no type


@pytest.fixture
def answering() -> Iterator[Callable[..., Answering]]:
    servers: list[Answering] = []

    def make(answer: bytes, **options: Any) -> Answering:
        servers.append(Answering(answer, **options))
        return servers[-1]

    yield make
    for server in servers:
        server.close()


def success(data: object) -> bytes:
    return reply({"baseIdentity": "10.0.0.1", "code": "SUCCESS", "data": data})


def test_uninstall_sends_the_identity_and_reads_a_reply_of_the_original(answering: Callable[..., Answering]) -> None:
    server = answering(success({"code": "SUCCESS", "message": "Uninstall biz: shop:1.0 success."}))

    data = ArkletClient("127.0.0.1", server.port).uninstall(SHOP)

    line, headers, body = server.last
    assert line == "POST /uninstallBiz HTTP/1.1"
    assert headers["content-type"] == "application/json"
    assert "authorization" not in headers
    assert body == {"bizName": "shop", "bizVersion": "1.0"}
    assert (data.code, data.purge_report) == (ResponseCode.SUCCESS, None)


def test_uninstall_reads_our_report(answering: Callable[..., Answering]) -> None:
    report = {"biz": "shop:1.0", "clean": True, "summary": "clean"}
    server = answering(success({"code": "SUCCESS", "message": "", "purgeReport": report}))

    purged = ArkletClient("127.0.0.1", server.port).uninstall(SHOP).purge_report

    assert purged is not None
    assert (purged.clean, purged.held, purged.failures) == (True, [], [])


def test_install_sends_only_what_was_given(answering: Callable[..., Answering]) -> None:
    data = {
        "code": "SUCCESS",
        "elapsedSpace": 7,
        "message": "m",
        "bizInfos": [{"bizName": "shop", "bizState": "activated"}],
    }
    server = answering(success(data))
    client = ArkletClient("127.0.0.1", server.port, token="t0ken")

    installed = client.install("file:///x.jar", identity=SHOP)
    assert server.last[2] == {"bizName": "shop", "bizVersion": "1.0", "bizUrl": "file:///x.jar"}
    assert server.last[1]["authorization"] == "Bearer t0ken"
    assert installed.biz_infos is not None
    assert installed.biz_infos[0].biz_state is BizState.ACTIVATED

    client.install("u", args=("a",), envs={"K": "v"}, strategy="replace")
    assert server.last[2] == {"bizUrl": "u", "args": ["a"], "envs": {"K": "v"}, "installStrategy": "replace"}


def test_install_in_the_background_returns_the_record(answering: Callable[..., Answering]) -> None:
    record = {
        "requestId": "r", "arkBizMeta": {}, "status": "EXECUTING", "startTime": 1, "startTimestamp": 1,
        "endTimestamp": 0, "elapsedTime": 0,
    }  # fmt: skip
    server = answering(success(record))
    client = ArkletClient("127.0.0.1", server.port)

    assert client.install("u", request_id="r").status is OpsStatus.EXECUTING
    assert server.last[2] == {"bizUrl": "u", "async": True, "requestId": "r"}
    assert client.ops("r").request_id == "r"
    assert server.last[0].startswith("POST /queryBizOps ")


def test_switch_query_health_help_and_batch_read_replies_of_the_original(answering: Callable[..., Answering]) -> None:
    def client(data: object) -> ArkletClient:
        return ArkletClient("127.0.0.1", answering(success(data)).port)

    assert client({"code": "SUCCESS", "message": "m"}).switch(SHOP).message == "m"
    assert client([{"bizName": "a", "bizState": "broken"}]).query()[0].biz_state is BizState.BROKEN
    assert client(None).query() == []
    base = {"bizName": "base", "bizState": "activated", "bizVersion": "1.0.0", "webContextPath": "/"}
    health = client({"healthData": {"masterBizInfo": base, "cpu": {"count": 4}}}).health(type="system", metrics=["cpu"])
    assert health.master_biz_info is not None
    assert health.master_biz_info.biz_state is BizState.ACTIVATED
    assert health.cpu == {"count": 4}
    assert client([{"desc": "d", "id": "help"}]).help()[0].id == "help"
    entry = {"code": "SUCCESS", "message": "m", "bizInfos": [base]}
    batch = client({"code": "SUCCESS", "message": "m", "elapsedSpace": 1, "bizUrlToResponse": {"u": entry}})
    assert batch.batch_install([InstallBiz(biz_url="u")]).biz_url_to_response["u"].biz_infos[0].biz_name == "base"


def test_a_refusal_tells_the_reason_in_its_data(answering: Callable[..., Answering]) -> None:
    data = {"code": "REPEAT_BIZ", "elapsedSpace": 0, "message": "Biz: shop:1.0 has been installed or registered."}
    server = answering(reply({"code": "FAILED", "data": data, "message": "install biz not success!"}))

    with pytest.raises(Refused, match=r"shop:1\.0 has been installed") as caught:
        ArkletClient("127.0.0.1", server.port).install("u")

    assert caught.value.response_code == "REPEAT_BIZ"
    assert caught.value.envelope.code is Code.FAILED
    assert caught.value.command == "installBiz"


def test_a_refusal_without_data_tells_the_message(answering: Callable[..., Answering]) -> None:
    server = answering(
        reply({"code": "CMD_PROCESS_INTERNAL_ERROR", "message": "Internal Error: x", "errorStackTrace": "t"})
    )

    with pytest.raises(Refused, match=r"^Internal Error: x$") as caught:
        ArkletClient("127.0.0.1", server.port).query()
    assert caught.value.envelope.error_stack_trace == "t"


def test_an_envelope_counts_whatever_the_status(answering: Callable[..., Answering]) -> None:
    server = answering(reply({"code": "FAILED", "message": "no token"}, status="401 Unauthorized"))

    with pytest.raises(Refused, match="no token"):
        ArkletClient("127.0.0.1", server.port).query()


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (reply(b"POST http request only supported by arklet", status="500 Internal Server Error"), 500),
        (reply(b"<html>hello</html>"), 200),
        (reply(b""), 200),
        (b"SSH-2.0-OpenSSH_9.6\r\n", 0),
        (b"", 0),
        (reply(b"{}", headers="Transfer-Encoding: chunked\r\n"), 0),
    ],
)
def test_a_server_that_is_no_arklet_is_recognised(
    answering: Callable[..., Answering], answer: bytes, status: int
) -> None:
    server = answering(answer)

    with pytest.raises((NoArklet, BaseUnreachable)) as caught:
        ArkletClient("127.0.0.1", server.port).query()
    if isinstance(caught.value, NoArklet):
        assert caught.value.status == status
        assert f"127.0.0.1:{server.port}" in str(caught.value)


def test_data_of_a_wrong_type_is_no_arklets(answering: Callable[..., Answering]) -> None:
    with pytest.raises(NoArklet):
        ArkletClient("127.0.0.1", answering(success([{"bizName": 5}])).port).query()


def test_nobody_at_the_address() -> None:
    port = free_port()
    with pytest.raises(BaseUnreachable, match="Connection refused") as caught:
        ArkletClient("127.0.0.1", port).query()
    assert caught.value.address == f"http://127.0.0.1:{port}"


def test_a_name_that_does_not_resolve() -> None:
    with pytest.raises(BaseUnreachable):
        ArkletClient("no such host", 1238).query()


def test_a_slow_server_is_given_up_after_the_time_allowed(answering: Callable[..., Answering]) -> None:
    is_over = threading.Event()
    server = answering(success([]), delay=is_over)
    begin = time.monotonic()

    with pytest.raises(BaseUnreachable, match="no answer in time"):
        ArkletClient("127.0.0.1", server.port, timeout_s=0.1).query()
    is_over.set()
    assert time.monotonic() - begin < 5


def test_a_server_that_refuses_before_it_reads_is_heard(answering: Callable[..., Answering]) -> None:
    server = answering(reply({"code": "FAILED", "message": "too large"}, status="413 Too Large"), reads=False)

    with pytest.raises(Refused, match="too large"):
        ArkletClient("127.0.0.1", server.port)._ask("installBiz", {"bizUrl": "x" * 4_000_000})


def test_an_address_of_version_6_is_bracketed() -> None:
    assert ArkletClient("::1", 1238).address == "http://[::1]:1238"


def test_importing_the_client_loads_no_server_and_no_runtime() -> None:
    code = (
        "import sys, koupleless.client;"
        "print(sorted({'uvicorn', 'starlette', 'asyncio', 'httpx', 'click', 'psutil', 'koupleless.container',"
        "'koupleless.arklet'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"
