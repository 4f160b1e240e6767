"""Single checks over the network: HTTP as a kubelet sends it, connections, and the health protocol of gRPC."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import grpc  # type: ignore[import-untyped]
import httpx
import pytest
from tests.conftest import free_port

from koupleless.controller.probes.checks import NetworkChecks
from koupleless.controller.probes.probe import GrpcCheck, HttpCheck, TcpCheck

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from koupleless.controller.probes.probe import Check

HERE = "127.0.0.1"
UNREACHED = 65_535


def check(one: Check, answer: Callable[[httpx.Request], httpx.Response] | None = None, address: str = HERE) -> str:
    async def run() -> str:
        transport = None if answer is None else httpx.MockTransport(answer)
        async with NetworkChecks(transport=transport) as checks, asyncio.timeout(10):
            return await checks.check(address, one)

    return asyncio.run(run())


@pytest.mark.parametrize(
    ("status", "said"), [(200, ""), (204, ""), (304, ""), (399, ""), (400, "400"), (404, "404"), (503, "503")]
)
def test_any_code_from_200_to_399_is_a_success(status: int, said: str) -> None:
    wanted = f"HTTP probe failed with statuscode: {said}" if said else ""
    assert check(HttpCheck(80), lambda _: httpx.Response(status)) == wanted


def test_a_request_has_the_headers_of_the_probe() -> None:
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200)

    headers = (("Host", "shop.example"), ("User-Agent", "mine"), ("X-Many", "1"), ("X-Many", "2"))
    assert check(HttpCheck(8080, "ready?deep=1", headers=headers), answer) == ""
    assert check(HttpCheck(8080, "/", "https", "other.example"), answer) == ""
    assert check(HttpCheck(8080), answer, "fd00::7") == ""
    assert [str(request.url) for request in seen] == [
        "http://127.0.0.1:8080/ready?deep=1",
        "https://other.example:8080/",
        "http://[fd00::7]:8080/",
    ]
    assert seen[0].headers["host"] == "shop.example"
    assert seen[0].headers.get_list("user-agent") == ["mine"]
    assert seen[0].headers.get_list("x-many") == ["1", "2"]
    assert seen[1].headers["user-agent"].startswith("kube-probe/")


def test_a_redirect_on_the_same_host_is_followed_and_another_host_is_not_asked() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        assert request.url.host == HERE
        places = {"/": "/next", "/next": "/down", "/away": "http://elsewhere.example/", "/round": "/round"}
        place = places.get(request.url.path)
        return httpx.Response(500) if place is None else httpx.Response(302, headers={"Location": place})

    assert check(HttpCheck(80), answer) == "HTTP probe failed with statuscode: 500"
    assert check(HttpCheck(80, "/away"), answer) == ""
    assert check(HttpCheck(80, "/round"), answer) == "stopped after 10 redirects"


@pytest.mark.parametrize(
    "one", [HttpCheck(UNREACHED), TcpCheck(UNREACHED), GrpcCheck(UNREACHED), HttpCheck(80, host="a b"),
            HttpCheck(80, scheme="gopher"), HttpCheck(80, "/\x00"), TcpCheck(80, "\x00")]
)  # fmt: skip
def test_what_cannot_be_reached_has_failed(one: Check) -> None:
    assert check(one)


def test_an_endless_answer_is_not_read_to_its_end() -> None:
    pieces = []

    async def endless() -> Any:
        while True:
            pieces.append(1)
            yield b"x" * 1024

    assert check(HttpCheck(80), lambda _: httpx.Response(200, content=endless())) == ""
    assert len(pieces) < 100


def test_a_connection_is_a_success() -> None:
    with socket.create_server((HERE, 0)) as server:
        assert check(TcpCheck(server.getsockname()[1])) == ""


@contextlib.contextmanager
def serving(answer: Callable[[bytes], bytes]) -> Iterator[int]:
    """A server of gRPC with a health service that answers by a function."""
    server = grpc.server(ThreadPoolExecutor(1))
    handler = grpc.unary_unary_rpc_method_handler(lambda request, _: answer(request))
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("grpc.health.v1.Health", {"Check": handler}),)
    )
    port = server.add_insecure_port(f"{HERE}:0")
    server.start()
    try:
        yield port
    finally:
        server.stop(None).wait()


def test_the_health_service_of_a_real_server_is_asked() -> None:
    long = "s" * 200
    states = {
        b"": b"\x08\x01",
        b"\x0a\x04shop": b"\x08\x02",
        b"\x0a\x05empty": b"",
        b"\x0a\xc8\x01" + long.encode(): b"\x08\x01",
    }
    with serving(states.__getitem__) as port:
        assert check(GrpcCheck(port)) == ""
        assert check(GrpcCheck(port, "shop")) == "service unhealthy (responded with 'NOT_SERVING')"
        assert check(GrpcCheck(port, "empty")) == "service unhealthy (responded with 'UNKNOWN')"
        assert check(GrpcCheck(port, long)) == ""
        assert "error of gRPC" in check(GrpcCheck(port, "other"))
        assert check(TcpCheck(port)) == ""


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (b"", "closed the connection"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "does not speak HTTP/2"),
        (b"\x00\x00\x00\x07\x00\x00\x00\x00\x00", "refuses the connection"),
        (b"\x00\x00\x04\x03\x00\x00\x00\x00\x01\x00\x00\x00\x07", "refuses the question"),
        (b"\x00\x00\x00\x00\x01\x00\x00\x00\x01", "error of gRPC"),
        (b"\x00\x00\x09\x00\x08\x00\x00\x00\x01\x01\x00\x00\x00\x00\x02\x08\x01\x00", ""),
    ],
)
def test_a_server_of_another_kind_is_not_healthy(said: bytes, words: str) -> None:
    with socket.create_server((HERE, 0)) as server:

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(1 << 16)
                connection.sendall(said)
                connection.shutdown(socket.SHUT_WR)
                connection.recv(1 << 16)

        thread = threading.Thread(target=answer)
        thread.start()
        found = check(GrpcCheck(server.getsockname()[1]))
        thread.join()
    assert words in found if words else found == ""


def test_a_free_port_is_no_server() -> None:
    assert check(TcpCheck(free_port()))
