"""A small registry on loopback: pull and push of the OCI distribution specification, with basic or token login."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import threading
import urllib.parse
from base64 import b64encode
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

LOGIN = b64encode(b"me:s3cret").decode()
TOKEN = "t0ken-of-the-registry"


@dataclass
class FakeRegistry:
    """Holds blobs by digest and manifests by repository and tag; ``login`` is ``""``, ``basic`` or ``token``."""

    port: int = 0
    login: str = ""
    elsewhere: str = ""
    """The address to which a download of a blob is redirected."""
    blobs: dict[str, bytes] = field(default_factory=dict)
    manifests: dict[str, bytes] = field(default_factory=dict)
    requests: list[tuple[str, str, str]] = field(default_factory=list)
    """Method, path and ``Authorization``."""

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    def put(self, content: bytes) -> str:
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        self.blobs[digest] = content
        return digest

    def put_manifest(self, name: str, tag: str, content: bytes) -> str:
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        self.manifests[f"{name}:{tag}"] = self.manifests[f"{name}:{digest}"] = content
        return digest


class Handler(BaseHTTPRequestHandler):
    registry: FakeRegistry
    protocol_version = "HTTP/1.1"

    def _answer(self, status: int, content: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _is_refused(self) -> bool:
        given = self.headers.get("Authorization", "")
        self.registry.requests.append((self.command, self.path, given))
        if self.path.startswith("/token") or not self.registry.login:
            return False
        if self.registry.login == "basic" and given != f"Basic {LOGIN}":
            self._answer(401, WWW_Authenticate='Basic realm="registry"')
            return True
        if self.registry.login == "token" and given != f"Bearer {TOKEN}":
            realm = f"http://{self.registry.host}/token"
            asks = f'Bearer realm="{realm}",service="registry",scope="repository:team/shop:pull,push"'
            self._answer(401, WWW_Authenticate=asks)
            return True
        return False

    def do_GET(self) -> None:
        if self._is_refused():
            return
        if self.path.startswith("/token"):
            if self.headers.get("Authorization") != f"Basic {LOGIN}":
                self._answer(401)
                return
            self._answer(200, json.dumps({"token": TOKEN}).encode(), Content_Type="application/json")
            return
        found = re.fullmatch(r"/v2/(.+)/(manifests|blobs)/([^/]+)", self.path)
        assert found, self.path
        name, kind, which = found.groups()
        if kind == "blobs" and self.registry.elsewhere:
            self._answer(307, Location=f"{self.registry.elsewhere}/{which}")
            return
        content = self.registry.blobs.get(which) if kind == "blobs" else self.registry.manifests.get(f"{name}:{which}")
        if content is None:
            self._answer(404)
        else:
            self._answer(200, content, Content_Type="application/octet-stream")

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_POST(self) -> None:
        if not self._is_refused():
            self._answer(202, Location=f"{self.path}some-upload?state=1")

    def do_PUT(self) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"]))
        if self._is_refused():
            return
        parts = urllib.parse.urlsplit(self.path)
        if "/blobs/uploads/" in parts.path:
            (digest,) = urllib.parse.parse_qs(parts.query)["digest"]
            self._answer(201 if self.registry.put(content) == digest else 400)
        else:
            name, _, tag = parts.path.removeprefix("/v2/").rpartition("/manifests/")
            self.registry.put_manifest(name, tag, content)
            self._answer(201)

    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def registry_on(login: str = "") -> Iterator[FakeRegistry]:
    """A registry on a port of loopback, until the end of the context."""
    registry = FakeRegistry(login=login)

    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"registry": registry}))
    registry.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield registry
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
