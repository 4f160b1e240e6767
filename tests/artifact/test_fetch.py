"""From a location to a file: local ones in place, servers of every temper within the deadline, nothing left behind."""

from __future__ import annotations

import hashlib
import socket
import threading
import time
from typing import TYPE_CHECKING

import pytest

from koupleless.artifact.fetch import fetch
from koupleless.errors import DigestMismatch, FetchFailed

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable
    from pathlib import Path

    from tests.artifact.conftest import MakeFiles, MakeZip, Serve

ZIP = b"PK\x03\x04" + b"z" * 3000
PIN = hashlib.sha256(ZIP).hexdigest()


@pytest.fixture
def into(tmp_path: Path) -> Path:
    return tmp_path / "downloads"


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def reply(
    body: bytes = ZIP,
    *,
    status: str = "200 OK",
    kind: str = "application/zip",
    length: int | None = None,
    more: str = "",
) -> Callable[[socket.socket], None]:
    head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nConnection: close\r\n{more}"
    if length is None or length >= 0:
        head += f"Content-Length: {len(body) if length is None else length}\r\n"
    return lambda connection: connection.sendall(head.encode() + b"\r\n" + body)


def failure(url: str, into: Path, **options: object) -> str:
    """Why the location cannot be fetched; checks that nothing is left."""
    with pytest.raises(FetchFailed) as caught, fetch(url, into=into, **options):  # type: ignore[arg-type]
        pass
    assert not into.exists() or list(into.iterdir()) == []
    return caught.value.reason


class TestLocal:
    @pytest.mark.parametrize("form", ["{}", "file://{}", "file://localhost{}"])
    def test_a_file_is_used_where_it_is(self, make_zip: MakeZip, form: str, into: Path) -> None:
        path = make_zip({"a": b""})
        with fetch(form.format(path), into=into) as found:
            assert found == path
        assert path.exists()
        assert not into.exists()

    def test_escapes_in_a_file_url_are_undone(self, make_zip: MakeZip) -> None:
        path = make_zip({"a": b""}, "with space#1.zip")
        with fetch(path.as_uri()) as found, fetch(str(path)) as plain:
            assert found == plain == path

    def test_a_directory_is_used_where_it_is(self, tmp_path: Path) -> None:
        with fetch(str(tmp_path)) as found:
            assert found == tmp_path

    def test_a_pin_is_checked(self, make_zip: MakeZip) -> None:
        path = make_zip({"a": b""})
        right = hashlib.sha256(path.read_bytes()).hexdigest()
        with fetch(f"{path}#sha256={right}") as one, fetch(path.as_uri() + f"#sha256={right.upper()}") as two:
            assert one == two == path
        with pytest.raises(DigestMismatch) as caught, fetch(f"{path}#sha256={'0' * 64}"):
            pass
        assert (caught.value.expected, caught.value.actual) == ("0" * 64, right)

    @pytest.mark.parametrize(
        ("url", "words"),
        [
            ("/nowhere/x.zip", "No such file"),
            ("file:///nowhere/x.zip", "No such file"),
            ("file://other.host/x.zip", "another machine"),
            ("ftp://host/x.zip", "ftp:// is not understood"),
            ("/x\0y", "null"),
            ("http://host/x.zip#sha265=00", "no sha256="),
            ("/x.zip#sha256=00", "no sha256="),
        ],
    )
    def test_what_cannot_be_a_location_is_said(self, url: str, words: str, into: Path) -> None:
        assert words in failure(url, into)

    def test_a_directory_cannot_be_pinned(self, tmp_path: Path, into: Path) -> None:
        assert "cannot be pinned" in failure(f"{tmp_path}#sha256={PIN}", into)

    def test_two_pins_must_agree(self, make_zip: MakeZip, into: Path) -> None:
        path = make_zip({"a": b""})
        assert "two different digests" in failure(f"{path}#sha256={PIN}", into, sha256="0" * 64)
        assert "is no SHA-256" in failure(str(path), into, sha256="abc")


class TestHttp:
    def test_an_artefact_arrives_whole_and_goes_with_the_block(
        self, serve: Serve, make_zip: MakeZip, make_files: MakeFiles, into: Path
    ) -> None:
        data = make_zip(make_files()).read_bytes()
        server = serve(reply(data))
        with fetch(f"{server.url}/x/hello-ark-biz.jar?token=1", into=into) as path:
            assert path.read_bytes() == data
            assert path.suffix == ".jar"
        assert list(into.iterdir()) == []
        assert b"Accept-Encoding: identity" in server.requests[0]

    def test_it_is_removed_also_when_the_block_fails(self, serve: Serve, into: Path) -> None:
        with pytest.raises(KeyError), fetch(serve(reply()).url, into=into):
            raise KeyError
        assert list(into.iterdir()) == []

    def test_the_name_of_a_wheel_is_kept_and_others_are_not(self, serve: Serve, into: Path) -> None:
        url = serve(reply()).url
        with fetch(f"{url}/a/hello-1.0-py3-none-any.whl", into=into) as wheel, fetch(f"{url}/get", into=into) as other:
            assert (wheel.name, other.name) == ("hello-1.0-py3-none-any.whl", "artefact.zip")

    def test_a_body_without_length_is_taken_to_its_end(self, serve: Serve, into: Path) -> None:
        with fetch(f"{serve(reply(length=-1)).url}/a.zip#sha256={PIN}", into=into) as path:
            assert path.read_bytes() == ZIP

    def test_a_wrong_pin_is_refused(self, serve: Serve, into: Path) -> None:
        with pytest.raises(DigestMismatch), fetch(f"{serve(reply()).url}/a.zip#sha256={'0' * 64}", into=into):
            pass
        assert list(into.iterdir()) == []

    @pytest.mark.parametrize(
        ("answer", "words"),
        [
            (reply(b"<html>", kind="text/html; charset=utf-8"), "a web page"),
            (reply(b"<!doctype html>", kind="application/zip"), "no archive"),
            (reply(b'{"error": 1}', kind="application/json"), "application/json"),
            (reply(b"gone", status="404 Not Found"), "404 Not Found"),
            (reply(b"<html>", status="503 Unavailable", kind="text/html"), "503 Unavailable"),
            (reply(b""), "is empty"),
            (reply(length=10_000), "ended after"),
            (reply(more="Content-Encoding: gzip\r\n"), "encoded as gzip"),
            (reply(status="302 Found", more="Location: ftp://x/y\r\n"), "redirect"),
            (reply(status="302 Found", more="Location: /again\r\n"), "302"),
            (lambda connection: connection.sendall(b"nonsense\r\n\r\n"), "nonsense"),
            (lambda connection: None, "closed connection"),
        ],
    )
    def test_an_answer_that_is_no_artefact_is_said_in_words(
        self, serve: Serve, into: Path, answer: Callable[[socket.socket], None], words: str
    ) -> None:
        assert words in failure(f"{serve(answer).url}/a.zip", into)

    def test_nobody_there_is_said_at_once(self, into: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
        assert "refused" in failure(f"http://127.0.0.1:{port}/a.zip", into)

    @pytest.mark.parametrize("length", [None, -1], ids=["promised", "not promised"])
    def test_too_many_bytes_are_refused(self, serve: Serve, into: Path, length: int | None) -> None:
        assert "1000" in failure(f"{serve(reply(length=length)).url}/a.zip", into, max_bytes=1000)

    def test_redirects_are_followed(self, serve: Serve, into: Path) -> None:
        target = serve(reply())
        start = serve(reply(status="302 Found", more=f"Location: {target.url}/real.jar\r\n"))
        with fetch(f"{start.url}/a", into=into) as path:
            assert path.name == "artefact.jar"

    def test_a_login_is_sent_as_a_header_and_shown_to_nobody(self, serve: Serve, into: Path) -> None:
        server = serve(reply(status="401 Unauthorized"))
        with (
            pytest.raises(FetchFailed) as caught,
            fetch(f"http://me:secret@127.0.0.1:{server.port}/a.zip?key=hidden", into=into),
        ):
            pass
        assert b"Authorization: Basic bWU6c2VjcmV0" in server.requests[0]
        assert ":secret" not in str(caught.value)
        assert "hidden" not in str(caught.value)

    def test_a_login_does_not_follow_a_redirect_to_another_server(self, serve: Serve, into: Path) -> None:
        target = serve(reply())
        start = serve(reply(status="302 Found", more=f"Location: {target.url}/a.zip\r\n"))
        with fetch(f"http://me:secret@127.0.0.1:{start.port}/", into=into):
            pass
        assert b"Authorization" in start.requests[0]
        assert b"Authorization" not in target.requests[0]

    def test_this_machine_is_never_reached_through_a_proxy(
        self, serve: Serve, into: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        proxy, server = serve(reply(status="502 Proxy")), serve(reply())
        monkeypatch.setenv("http_proxy", proxy.url)
        with fetch(f"{server.url}/a.zip", into=into):
            pass
        assert proxy.requests == []

    def test_another_machine_is_reached_through_the_proxy(
        self, serve: Serve, into: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        proxy = serve(reply())
        monkeypatch.setenv("http_proxy", proxy.url)
        with fetch("http://artefacts.invalid/a.zip", into=into) as path:
            assert path.read_bytes() == ZIP
        assert proxy.requests[0].startswith(b"GET http://artefacts.invalid/a.zip")

    def test_no_room_for_the_download_is_said(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(FetchFailed, match="no room"), fetch("http://127.0.0.1/a.zip", into=tmp_path / "file"):
            pass

    def test_a_full_disk_leaves_nothing(self, serve: Serve, into: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("koupleless.artifact.fetching.transfer.hashlib.sha256", full)
        assert "No space left" in failure(f"{serve(reply()).url}/a.zip", into)


class TestHttps:
    def test_an_artefact_arrives_whole(self, serve: Serve, into: Path, tls: ssl.SSLContext) -> None:
        with fetch(f"{serve(reply(), tls).url}/a.zip#sha256={PIN}", into=into) as path:
            assert path.read_bytes() == ZIP

    def test_a_certificate_that_nobody_trusts_is_refused(
        self, serve: Serve, into: Path, tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("SSL_CERT_FILE")
        server = serve(reply(), tls)
        assert "certificate verify failed" in failure(f"{server.url}/a.zip", into)
        assert server.requests == []

    def test_it_does_not_lead_back_to_plain_http(self, serve: Serve, into: Path, tls: ssl.SSLContext) -> None:
        target = serve(reply())
        start = serve(reply(status="302 Found", more=f"Location: {target.url}/a.zip\r\n"), tls)
        assert "which is not followed" in failure(f"{start.url}/a.zip", into)
        assert target.requests == []

    def test_a_server_that_drips_is_cut_off(self, serve: Serve, into: Path, tls: ssl.SSLContext) -> None:
        def drip(connection: socket.socket) -> None:
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\nPK\x03\x04")
            for _ in range(2000):
                connection.sendall(b"z")
                time.sleep(0.02)

        begin = time.monotonic()
        assert "within 0.5 s" in failure(f"{serve(drip, tls).url}/a.zip", into, timeout_s=0.5)
        assert time.monotonic() - begin < 3
        assert not [thread for thread in threading.enumerate() if thread.name == "koupleless-fetch"]


class TestDeadline:
    """Servers that take their time: each fetch has 0.3 seconds and must not take ten times as long."""

    def within_deadline(self, url: str, into: Path) -> str:
        begin = time.monotonic()
        reason = failure(url, into, timeout_s=0.3)
        assert time.monotonic() - begin < 3
        return reason

    def drip(self, head: bytes, piece: bytes) -> Callable[[socket.socket], None]:
        def answer(connection: socket.socket) -> None:
            connection.sendall(head)
            for _ in range(2000):
                connection.sendall(piece)
                time.sleep(0.02)

        return answer

    def test_a_server_that_says_nothing(self, serve: Serve, into: Path) -> None:
        waiting = threading.Event()
        server = serve(lambda _: (waiting.wait(20), None)[1])
        try:
            assert "within 0.3 s" in self.within_deadline(f"{server.url}/a.zip", into)
        finally:
            waiting.set()

    def test_a_server_that_drips_its_headers(self, serve: Serve, into: Path) -> None:
        server = serve(self.drip(b"HTTP/1.1 200 OK\r\n", b"X-A: b\r\n"))
        assert "within 0.3 s" in self.within_deadline(f"{server.url}/a.zip", into)

    def test_a_server_that_drips_its_body(self, serve: Serve, into: Path) -> None:
        server = serve(self.drip(b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\nPK\x03\x04", b"z"))
        assert "within 0.3 s" in self.within_deadline(f"{server.url}/a.zip", into)

    def test_a_server_that_never_accepts(self, into: Path) -> None:
        with socket.create_server(("127.0.0.1", 0), backlog=1) as listener:
            assert "within 0.3 s" in self.within_deadline(f"http://127.0.0.1:{listener.getsockname()[1]}/a.zip", into)

    def test_a_name_server_that_says_nothing(self, into: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        answered = threading.Event()

        def slow(*_: object, **__: object) -> None:
            answered.wait(20)
            raise socket.gaierror(-2, "late")

        monkeypatch.setattr(socket, "getaddrinfo", slow)
        try:
            assert "within 0.3 s" in self.within_deadline("http://artefacts.invalid/a.zip", into)
        finally:
            answered.set()

    def test_the_thread_is_gone_afterwards(self, serve: Serve, into: Path) -> None:
        server = serve(self.drip(b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\nPK\x03\x04", b"z"))
        self.within_deadline(f"{server.url}/a.zip", into)
        assert not [thread for thread in threading.enumerate() if thread.name == "koupleless-fetch"]


class TestAllowedPrefixes:
    @pytest.mark.parametrize(
        ("url", "prefix"),
        [
            ("http://repo.example/modules-evil/a.zip", "http://repo.example/modules"),
            ("http://repo.example.evil.example/a.zip", "http://repo.example"),
            ("http://repo.example@evil.example/a.zip", "http://repo.example"),
            ("http://repo.example/modules/../secret/a.zip", "http://repo.example/modules"),
            ("http://repo.example/modules/%2e%2e/a.zip", "http://repo.example/modules"),
            ("http://repo.example:81/a.zip", "http://repo.example"),
            ("https://repo.example/a.zip", "http://repo.example"),
            ("/srv/other/a.zip", "/srv/modules"),
            ("/srv/modules/../other/a.zip", "/srv/modules"),
            ("file:///srv/modules%2f..%2fother/a.zip", "file:///srv/modules"),
            ("/srv/modules/a.zip", "http://repo.example"),
        ],
    )
    def test_what_lies_elsewhere_is_refused(self, url: str, prefix: str, into: Path) -> None:
        reason = failure(url, into, allowed_prefixes=[prefix])
        assert "may only come from" in reason or "climbs" in reason

    def test_what_lies_below_is_taken(self, make_zip: MakeZip, tmp_path: Path) -> None:
        path = make_zip({"a": b""})
        for prefix in (str(tmp_path), tmp_path.as_uri(), f"{tmp_path}/", str(path)):
            with fetch(path.as_uri(), allowed_prefixes=["http://x", prefix]) as found:
                assert found == path

    def test_a_link_out_of_the_allowed_directory_is_refused(
        self, make_zip: MakeZip, tmp_path: Path, into: Path
    ) -> None:
        path = make_zip({"a": b""})
        (tmp_path / "modules").mkdir()
        (tmp_path / "modules" / "a.zip").symlink_to(path)
        reason = failure(str(tmp_path / "modules" / "a.zip"), into, allowed_prefixes=[str(tmp_path / "modules")])
        assert "may only come from" in reason

    def test_a_redirect_out_of_the_prefix_is_refused(self, serve: Serve, into: Path) -> None:
        target = serve(reply())
        start = serve(reply(status="302 Found", more=f"Location: {target.url}/a.zip\r\n"))
        assert "may only come from" in failure(f"{start.url}/a.zip", into, allowed_prefixes=[start.url])
        assert target.requests == []
