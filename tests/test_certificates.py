"""A server's certificate that is renewed while the server listens."""

from __future__ import annotations

import contextlib
import logging
import shutil
import socket
import ssl
import subprocess
import threading
from typing import TYPE_CHECKING

import pytest

from koupleless.certificates import ServerCertificate

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

OPENSSL = shutil.which("openssl")

pytestmark = pytest.mark.skipif(OPENSSL is None, reason="openssl, which makes certificates, is not here")


def make(path: Path, name: str) -> Path:
    """A file with a certificate for 127.0.0.1 that is its own issuer, and with the key."""
    command = [str(OPENSSL), "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1,DNS:base.example", "-days", "2"]
    command += ["-keyout", f"{path}.key", "-out", f"{path}.crt"]
    subprocess.run(command, check=True, capture_output=True, cwd=path.parent)
    unfinished = path.with_name("unfinished")
    unfinished.write_bytes(
        path.with_name(f"{path.name}.crt").read_bytes() + path.with_name(f"{path.name}.key").read_bytes()
    )
    unfinished.rename(path)
    return path


@contextlib.contextmanager
def served(context: ssl.SSLContext) -> Iterator[int]:
    """The port of a server that says a word on each connection."""

    def serve() -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            with contextlib.suppress(OSError), connection, context.wrap_socket(connection, server_side=True) as secured:
                secured.recv(100)
                secured.sendall(b"hello")

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listening.getsockname()[1]
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join()


def name_at(port: int, *, server_name: str | None = None, shown: Path | None = None) -> str:
    """The name in the certificate that a server shows."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if shown is not None:
        context.load_cert_chain(shown)
    with contextlib.ExitStack() as stack:
        plain = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=30))
        secured = stack.enter_context(context.wrap_socket(plain, server_hostname=server_name))
        secured.sendall(b"GET / HTTP/1.1\r\nHost: base.example\r\n\r\n")
        assert secured.recv(100)
        found = secured.getpeercert(binary_form=True)
    assert found is not None
    pem = ssl.DER_cert_to_PEM_cert(found)
    done = subprocess.run(
        [str(OPENSSL), "x509", "-noout", "-subject", "-nameopt", "multiline"],
        input=pem,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.rpartition("= ")[2].strip()


@pytest.mark.parametrize("server_name", [None, "base.example"], ids=["without a server name", "with a server name"])
def test_a_renewed_certificate_is_served_from_the_next_handshake_on(tmp_path: Path, server_name: str | None) -> None:
    path = make(tmp_path / "both.pem", "first")
    with served(ServerCertificate(path).context) as port:
        assert name_at(port, server_name=server_name) == "first"
        make(path, "second")
        assert [name_at(port, server_name=server_name) for _ in range(2)] == ["second"] * 2


def test_a_certificate_that_cannot_be_used_is_told_once_and_the_one_before_served(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path, other = make(tmp_path / "both.pem", "first"), make(tmp_path / "other.pem", "second")
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    shutil.copy(f"{path}.crt", certificate)
    shutil.copy(f"{path}.key", key)
    caplog.set_level(logging.INFO, "koupleless.base")
    with served(ServerCertificate(certificate, key=key).context) as port:
        shutil.copy(f"{other}.crt", certificate)
        assert [name_at(port) for _ in range(3)] == ["first"] * 3
        certificate.unlink()
        assert name_at(port) == "first"
        shutil.copy(f"{other}.crt", certificate)
        shutil.copy(f"{other}.key", key)
        assert name_at(port) == "second"
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 3
    assert said[0].startswith(f"the certificate {certificate} has changed and cannot be used (KEY_VALUES_MISMATCH)")
    assert "No such file" in said[1]
    assert said[2] == f"the certificate {certificate} has changed, and is served from now on"


def test_links_that_lead_elsewhere_are_a_change(tmp_path: Path) -> None:
    for number, name in enumerate(("first", "second")):
        (tmp_path / str(number)).mkdir()
        make(tmp_path / str(number) / "both.pem", name)
    (tmp_path / "data").symlink_to("0")
    with served(ServerCertificate(tmp_path / "data" / "both.pem").context) as port:
        assert name_at(port) == "first"
        (tmp_path / "new").symlink_to("1")
        (tmp_path / "new").rename(tmp_path / "data")  # as Kubernetes renews a volume
        assert name_at(port) == "second"


def test_renewed_issuers_decide_about_clients(tmp_path: Path) -> None:
    path = make(tmp_path / "both.pem", "server")
    mine, other = make(tmp_path / "mine.pem", "mine"), make(tmp_path / "other.pem", "other")
    issuers = tmp_path / "issuers.pem"
    shutil.copy(f"{mine}.crt", issuers)
    with served(ServerCertificate(path, issuers=issuers).context) as port:
        assert name_at(port, shown=mine) == "server"
        for refused in (None, other):
            with pytest.raises((OSError, AssertionError)):
                name_at(port, shown=refused)
        shutil.copy(f"{other}.crt", issuers)
        assert name_at(port, shown=other) == "server"
        with pytest.raises((OSError, AssertionError)):
            name_at(port, shown=mine)
