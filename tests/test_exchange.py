"""One HTTP exchange: every form that an answer may have, and every way in which it may be none."""

from __future__ import annotations

import contextlib
import socket
import threading
import time

import pytest
from tests.conftest import free_port

from koupleless.exchange import Answer, BadAnswer, exchange

OK = b"HTTP/1.1 200 OK\r\n"


@pytest.fixture
def answering():
    """Makes servers that send prepared pieces to one connection, and keep what they were sent."""
    opened = []

    def make(*pieces, every_s=0.0, stays=False, host="127.0.0.1"):
        listener = socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
        over, received = threading.Event(), []

        def serve():
            connection, _ = listener.accept()
            with connection, contextlib.suppress(OSError):
                received.append(connection.recv(65536))
                for piece in pieces:
                    connection.sendall(piece)
                    over.wait(every_s)
                if stays:
                    over.wait(30)

        thread = threading.Thread(target=serve)
        thread.start()
        opened.append((listener, over, thread))
        return listener.getsockname()[:2], received

    yield make
    for listener, over, thread in opened:
        over.set()
        thread.join()
        listener.close()


def ask(address, **options):
    return exchange(address, "POST", "/x", **{"connect_timeout_s": 5, "timeout_s": 5, **options})


@pytest.mark.parametrize(
    ("pieces", "content"),
    [
        ([OK + b"Content-Length: 5\r\n\r\nhello"], b"hello"),
        ([OK + b"content-length:5\r\n\r\n", b"hel", b"lo and more"], b"hello"),
        ([OK, b"Content-Type: text/plain\r\n\r\nhello"], b"hello"),
        ([b"HTTP/1.0 200\n\nhello"], b"hello"),
        ([OK + b"Transfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2;a=b\r\nlo\r\n0\r\nLater: x\r\n\r\n"], b"hello"),
        ([OK + b"Transfer-Encoding: Chunked\r\n\r\n", b"0", b"5\r\nhe", b"llo\r", b"\n0\r\n\r\n"], b"hello"),
        ([b"HTTP/1.1 100 Continue\r\n\r\n" + OK + b"Content-Length: 5\r\n\r\nhello"], b"hello"),
        ([OK + b"Content-Length: 0\r\n\r\n"], b""),
    ],
    ids=["length", "in pieces", "to the end", "1.0", "chunks", "cut chunks", "continue", "empty"],
)
def test_an_answer_is_read_in_every_form(answering, pieces, content):
    address, _ = answering(*pieces)

    assert ask(address).content == content


def test_an_answer_with_a_length_is_whole_although_the_server_stays(answering):
    address, _ = answering(OK + b"Content-Length: 2\r\nA-Name:  a value \r\n\r\n{}", stays=True)

    assert ask(address) == Answer(200, {"content-length": "2", "a-name": "a value"}, b"{}")


def test_a_status_without_content_has_none(answering):
    address, _ = answering(b"HTTP/1.1 204 No Content\r\n\r\n", stays=True)

    assert ask(address) == Answer(204, {}, b"")


def test_the_request_has_the_host_the_length_and_the_headers_that_are_given(answering):
    address, received = answering(OK + b"\r\n")

    ask(address, headers={"A": "b"}, body=b"body")

    head, _, body = received[0].partition(b"\r\n\r\n")
    assert head.splitlines() == [
        b"POST /x HTTP/1.1",
        f"Host: 127.0.0.1:{address[1]}".encode(),
        b"Accept-Encoding: identity",
        b"Content-Length: 4",
        b"A: b",
    ]
    assert body == b"body"


def test_an_address_of_version_6_is_bracketed_in_the_request(answering):
    try:
        address, received = answering(OK + b"\r\n", host="::1")
    except OSError:
        pytest.skip("there is no IPv6 here")

    ask(address)

    assert f"\r\nHost: [::1]:{address[1]}\r\n".encode() in received[0]


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"HTTP/2 200\r\n\r\n",
        b"HTTP/1.1 20 OK\r\n\r\n",
        b"HTTP/1.1 2x0 OK\r\n\r\n",
        OK,
        OK + b"A: b",
        OK + b"Content-Length: five\r\n\r\nhello",
        OK + b"Content-Length: -5\r\n\r\nhello",
        OK + b"Content-Length: 6\r\n\r\nhello",
        OK + b"Transfer-Encoding: chunked\r\n\r\n{}",
        OK + b"Transfer-Encoding: chunked\r\n\r\n-2\r\n{}\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhe",
        OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n",
        OK + b"A: b\r\n" * 200,
        OK + b"A" * 200_000,
    ],
)
def test_what_is_no_answer_is_told(answering, answer):
    address, _ = answering(answer)

    with pytest.raises(BadAnswer):
        ask(address)


def test_a_connection_that_is_closed_at_once_is_no_answer_either(answering):
    address, _ = answering()

    with pytest.raises(ConnectionResetError, match="without an answer"):
        ask(address)


def test_a_server_that_sends_byte_by_byte_is_given_up_at_the_deadline(answering):
    address, _ = answering(OK, *[b"A: b\r\n"] * 50, every_s=0.1)
    begin = time.monotonic()

    with pytest.raises(TimeoutError):
        ask(address, timeout_s=0.4)

    assert time.monotonic() - begin < 3


@pytest.mark.parametrize(
    ("host", "headers"), [("a b", {}), ("a\nb", {}), ("127.0.0.1", {"A": "b\r\nC: d"}), ("127.0.0.1", {"A": "\0"})]
)
def test_what_http_does_not_allow_is_not_sent(host, headers):
    with pytest.raises(ValueError, match=r"is no host name|contains a line end"):
        ask((host, free_port()), headers=headers)
