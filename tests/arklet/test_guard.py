"""Who may call the arklet, and who may not."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any

import pytest

from koupleless.arklet.guard import Guard, Rotating, check_exposure
from koupleless.arklet.server import ArkletServer
from koupleless.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable

    from koupleless.arklet.operations import Operations

TOKEN = "s3cret-Token"  # not a password of anything


def judge(guard: Guard, *headers: tuple[str, str]) -> int | None:
    refusal = guard.judge([(name.encode(), value.encode("latin-1")) for name, value in headers])
    return None if refusal is None else refusal.status


def test_a_token_in_a_file_may_change_and_the_former_one_counts_for_a_while() -> None:
    now, content = 0.0, [TOKEN]

    def read() -> str | None:
        if not content:
            raise SettingsError("no such file")
        return content[0]

    guard = Guard(bound="127.0.0.1", token=TOKEN, rotating=Rotating(read, clock=lambda: now))

    def statuses() -> list[int | None]:
        return [judge(guard, ("authorization", f"Bearer {token}")) for token in (TOKEN, "next", "last")]

    assert statuses() == [None, 401, 401]
    content[:] = ["next"]
    now = 1.0
    assert statuses() == [None, None, 401]
    content.clear()  # a Secret that is being replaced
    now = 100.0
    assert statuses() == [None, None, 401]
    now = 182.0
    assert statuses() == [401, None, 401]
    content[:] = ["last"]
    now = 183.0
    assert statuses() == [401, None, None]


# --- web pages -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "", "http://127.0.0.1"])
def test_a_request_of_a_web_page_is_refused(wire: Any, container: Any, origin: str) -> None:
    url = container.offer("shop:1")
    reply = wire.post("installBiz", {"bizUrl": url}, headers={"Origin": origin})

    assert reply.status == 403
    assert reply.json["code"] == "FAILED"
    assert "Origin" in reply.json["message"]
    assert container.prepared == []


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example", "10.0.0.9", "127.0.0.1.nip.io", "a@localhost"]
)
def test_a_request_to_a_name_that_is_not_ours_is_refused(wire: Any, host: str) -> None:
    reply = wire.post("help", host=host)

    assert reply.status == 403
    assert reply.json["code"] == "FAILED"
    assert host in reply.json["message"]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "LocalHost", "localhost.", "[::1]", "127.9.9.9"])
def test_loopback_names_are_ours(wire: Any, host: str) -> None:
    assert wire.post("help", host=host).status == 200


def test_configured_names_are_ours(serve: Callable[..., Any]) -> None:
    assert serve(allowed_hosts=["Base.Example."]).post("help", host="base.example").status == 200


def test_the_refusal_comes_before_the_body(wire: Any) -> None:
    with wire.connect() as connection:
        connection.sendall(b"POST /help HTTP/1.1\r\nHost: evil.example\r\nContent-Length: 1000000\r\n\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 403 ")


@pytest.mark.parametrize("expect", ["", "Expect: 100-continue\r\n"])
def test_the_token_is_asked_for_before_the_body(serve: Callable[..., Any], expect: str) -> None:
    with serve(token=TOKEN).connect() as connection:
        head = f"POST /installBiz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n{expect}\r\n"
        connection.sendall(head.encode())
        assert connection.recv(65536).startswith(b"HTTP/1.1 401 ")


def test_a_refused_client_that_sends_its_body_all_the_same_gets_the_answer(wire: Any) -> None:
    reply = wire.post("help", b"a" * 3_000_000, headers={"Origin": "http://evil.example"})

    assert reply.status == 403


def test_two_host_headers_are_no_request(wire: Any) -> None:
    reply = wire.exchange(b"POST /help HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: evil.example\r\n\r\n")

    assert reply.status == 400


@pytest.mark.parametrize(
    ("bound", "host", "is_ours"),
    [
        ("0.0.0.0", "10.244.0.17:1238", True),
        ("0.0.0.0", "[fd00::17]:1238", True),
        ("0.0.0.0", "base.default.svc:1238", False),
        ("::", "10.244.0.17", True),
        ("10.244.0.17", "10.244.0.17:1238", True),
        ("10.244.0.17", "10.244.0.18:1238", False),
        ("10.244.0.17", "localhost:1238", True),
        ("fd00::17", "[fd00::17]:1238", True),
        ("fd00::17", "fd00::17", True),
        ("127.0.0.1", "192.168.1.4", False),
        ("127.0.0.1", "", False),
        ("127.0.0.1", "\xe9vil", False),
        ("127.0.0.1", "[::1]:1238", True),
        ("127.0.0.1", "[::1]:", True),
        ("127.0.0.1", "[::1]evil", False),
        ("127.0.0.1", "[::1].evil", False),
        ("127.0.0.1", "[::1]:80:90", False),
        ("127.0.0.1", "[::1]:x", False),
        ("127.0.0.1", "[::1]]", False),
        ("127.0.0.1", "[::1", False),
        ("127.0.0.1", "[[::1]]", False),
        ("127.0.0.1", "[localhost]", False),
        ("127.0.0.1", "[127.0.0.1]", False),
        ("127.0.0.1", "localhost:\xb2", False),
        ("127.0.0.1", "localhost:80@evil", False),
        ("127.0.0.1", "0:0:0:0:0:0:0:1", True),
    ],
)
def test_addresses_are_ours_where_they_can_be(bound: str, host: str, is_ours: bool) -> None:
    # The original controller calls a base by its address; an address in `Host` cannot be a rebound name.
    assert judge(Guard(bound=bound, token=None), ("host", host)) == (None if is_ours else 403)


# --- tokens --------------------------------------------------------------------------------------------------------


def test_with_a_token_only_its_bearer_may_call(serve: Callable[..., Any]) -> None:
    wire = serve(token=TOKEN)

    assert wire.post("help", headers={"Authorization": f"Bearer {TOKEN}"}).json["code"] == "SUCCESS"
    refused = wire.post("help")
    assert refused.status == 401
    assert refused.json["code"] == "FAILED"
    assert refused.headers["www-authenticate"] == "Bearer"
    assert TOKEN.encode() not in refused.raw


@pytest.mark.parametrize(
    "value", ["", "Bearer", "Bearer ", f"Basic {TOKEN}", TOKEN, f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}",
              f"Bearer {TOKEN.lower()}", "Bearer \xe9"]
)  # fmt: skip
def test_anything_but_the_token_is_refused(value: str) -> None:
    assert judge(Guard(bound="127.0.0.1", token=TOKEN), ("authorization", value)) == 401


def test_the_scheme_is_read_without_case_and_a_second_header_is_not_read() -> None:
    guard = Guard(bound="127.0.0.1", token=TOKEN)

    assert judge(guard, ("authorization", f"bearer  {TOKEN}")) is None
    assert judge(guard, ("authorization", f"Bearer {TOKEN}"), ("authorization", "Bearer x")) == 401


def test_a_web_page_is_refused_even_with_the_token(serve: Callable[..., Any]) -> None:
    reply = serve(token=TOKEN).post("help", headers={"Authorization": f"Bearer {TOKEN}", "Origin": "http://x"})

    assert reply.status == 403


# --- addresses -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.244.0.17"])
def test_an_address_that_others_reach_demands_a_token(operations: Operations, host: str) -> None:
    with pytest.raises(SettingsError, match="set a token"):
        ArkletServer(operations, host, 0).start()


def test_an_open_arklet_must_be_meant_and_is_warned_about(
    serve: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "koupleless.arklet"):
        wire = serve(host="0.0.0.0", insecure=True)

    assert wire.post("help", host="10.244.0.17").status == 200
    assert [record.getMessage() for record in caplog.records] == [
        "the arklet listens on 0.0.0.0 without a token: anybody who reaches the port can install code"
    ]


def test_with_a_token_any_address_will_do(serve: Callable[..., Any], caplog: pytest.LogCaptureFixture) -> None:
    wire = serve(host="0.0.0.0", token=TOKEN)

    assert wire.post("help", headers={"Authorization": f"Bearer {TOKEN}"}, host="10.0.0.1").status == 200
    assert caplog.records == []


@pytest.mark.parametrize("token", ["", " ", " x", "x\n", "caf\xe9"])
def test_a_token_that_cannot_be_sent_is_refused(token: str) -> None:
    with pytest.raises(SettingsError, match="token must be"):
        check_exposure("127.0.0.1", token=token, insecure=False)


def test_localhost_by_name_is_loopback(serve: Callable[..., Any]) -> None:
    reply = serve(host="localhost").post("help", host="localhost")

    assert json.loads(reply.body)["code"] == "SUCCESS"


# --- metrics ---------------------------------------------------------------------------------------------------------


def scrape(wire: Any, *lines: str, method: str = "GET") -> Any:
    return wire.exchange("\r\n".join([f"{method} /metrics HTTP/1.1", "Host: 127.0.0.1", *lines, "", ""]).encode())


@pytest.fixture
def metrics(serve: Callable[..., Any]) -> Callable[..., Any]:
    def start(**options: Any) -> Any:
        return serve(expose=lambda accept: (f"x 1 {accept}".encode(), "text/plain; version=0.0.4"), **options)

    return start


def test_metrics_are_read_by_get_in_the_format_asked_for(metrics: Callable[..., Any]) -> None:
    reply = scrape(metrics(), "Accept: a/b")
    assert (reply.status, reply.body) == (200, b"x 1 a/b")
    assert reply.headers["content-type"] == "text/plain; version=0.0.4"
    assert reply.headers["server"] == "koupleless"


def test_metrics_have_a_head_and_no_other_method(metrics: Callable[..., Any], wire: Any) -> None:
    served = metrics()
    head = scrape(served, method="HEAD")
    assert (head.status, head.body) == (200, b"")
    assert scrape(served, "Content-Length: 0", method="POST").json["code"] == "CMD_NOT_FOUND"
    assert scrape(wire).status == 500  # without metrics


@pytest.mark.parametrize(
    ("tokens", "given", "status"),
    [
        ({}, "", 200),
        ({"token": TOKEN}, "", 401),
        ({"token": TOKEN}, TOKEN, 200),
        ({"token": TOKEN, "metrics_token": "reader"}, "reader", 200),
        ({"token": TOKEN, "metrics_token": "reader"}, TOKEN, 200),
        ({"token": TOKEN, "metrics_token": "reader"}, "other", 401),
        ({"metrics_token": "reader"}, "", 401),
        ({"metrics_token": "reader"}, "reader", 200),
    ],
)
def test_metrics_are_for_callers_with_either_token(
    metrics: Callable[..., Any], tokens: dict[str, str], given: str, status: int
) -> None:
    lines = [f"Authorization: Bearer {given}"] if given else []
    assert scrape(metrics(**tokens), *lines).status == status


def test_the_token_for_metrics_opens_no_command(metrics: Callable[..., Any]) -> None:
    served = metrics(token=TOKEN, metrics_token="reader")
    assert served.post("help", headers={"Authorization": "Bearer reader"}).status == 401
    assert served.post("help", headers={"Authorization": f"Bearer {TOKEN}"}).status == 200


def test_metrics_are_no_way_around_the_guard(metrics: Callable[..., Any]) -> None:
    served = metrics()
    assert scrape(served, "Origin: http://evil.example").status == 403
    reply = served.exchange(b"GET /metrics HTTP/1.1\r\nHost: evil.example\r\n\r\n")
    assert reply.status == 403


def test_a_token_for_metrics_has_the_form_of_a_token(operations: Operations) -> None:
    with pytest.raises(SettingsError, match="metrics-token"):
        ArkletServer(operations, port=0, metrics_token=" ")


def test_a_failing_collector_of_the_base_is_told_to_the_scraper(serve: Callable[..., Any]) -> None:
    def expose(accept: str) -> tuple[bytes, str]:
        raise ValueError("no gauge")

    reply = scrape(serve(expose=expose))
    assert (reply.status, reply.body) == (500, b"a collector of the base failed: ValueError: no gauge")
