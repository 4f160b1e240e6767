"""Artefacts and servers for the tests of this room; everything is made on the spot, nothing is checked in as binary."""

from __future__ import annotations

import contextlib
import hashlib
import socket
import ssl
import threading
import zipfile
from typing import TYPE_CHECKING, Protocol

import pytest

from koupleless.artifact.manifest import BIZ_TOML, MARK, Manifest, render_biz_toml
from koupleless.artifact.store import Store
from koupleless.biz import BizId

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path


class MakeFiles(Protocol):
    def __call__(self, extra: Mapping[str, bytes] = ..., *, version: str = ...) -> dict[str, bytes]: ...


class MakeZip(Protocol):
    def __call__(self, files: Mapping[str, bytes], name: str = ...) -> Path: ...


@pytest.fixture
def make_files() -> MakeFiles:
    """The files of a small module, and ``extra`` ones, with a ``biz.toml`` that lists them all."""

    def make(extra: Mapping[str, bytes] = {}, *, version: str = "1.0.0") -> dict[str, bytes]:
        files = {
            "hello/__init__.py": b"",
            "hello/app.py": b"def app():\n    return 'hello'\n",
            "hello/data.txt": b"data",
            "lib/private/__init__.py": b"VALUE = 1\n",
            MARK: b"",
            **extra,
        }
        manifest = Manifest(
            id=BizId.of("hello", version),
            entry="hello.app:app",
            web_context_path="/hello",
            files={name: hashlib.sha256(data).hexdigest() for name, data in files.items()},
        )
        return {BIZ_TOML: render_biz_toml(manifest).encode(), **files}

    return make


@pytest.fixture
def make_zip(tmp_path: Path) -> MakeZip:
    def make(files: Mapping[str, bytes], name: str = "hello.zip") -> Path:
        path = tmp_path / name
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for place, data in files.items():
                archive.writestr(place, data)
        return path

    return make


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "store") as opened:
        yield opened


def everything_below(root: Path) -> set[str]:
    return {path.relative_to(root).as_posix() for path in root.rglob("*")}


class LoopbackServer:
    """Answers every connection by one function that is handed the socket, on threads that end with the test."""

    def __init__(self, answer: Callable[[socket.socket], None], tls: ssl.SSLContext | None = None) -> None:
        self.requests: list[bytes] = []
        self._answer = answer
        self._tls = tls
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}"
        self._connections: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._connections.append(connection)
            thread = threading.Thread(target=self._serve, args=(connection,))
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            if self._tls is None:
                self._converse(connection)
            else:
                with self._tls.wrap_socket(connection, server_side=True) as secure:
                    self._converse(secure)

    def _converse(self, connection: socket.socket) -> None:
        request = b""
        while b"\r\n\r\n" not in request and (piece := connection.recv(65536)):
            request += piece
        self.requests.append(request)
        self._answer(connection)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)
            assert not thread.is_alive()


class Serve(Protocol):
    def __call__(self, answer: Callable[[socket.socket], None], tls: ssl.SSLContext | None = ...) -> LoopbackServer: ...


@pytest.fixture
def serve() -> Iterator[Serve]:
    servers: list[LoopbackServer] = []

    def start(answer: Callable[[socket.socket], None], tls: ssl.SSLContext | None = None) -> LoopbackServer:
        servers.append(LoopbackServer(answer, tls))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def tls(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    """The context of a server whose certificate the clients of this test trust."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context
