"""A server for one artefact, for a base on another machine."""

from __future__ import annotations

import shutil
import threading
import urllib.parse
from typing import TYPE_CHECKING, Any, Self

from koupleless.errors import ArtifactError, BaseUnreachable

if TYPE_CHECKING:
    from pathlib import Path


class OneFileServer:
    """A server for one file, under a secret path, on the interface towards the base, while the context lasts."""

    def __init__(self, path: Path, *, towards: str) -> None:
        self._path = path
        self._towards = towards
        self.url = ""
        self.was_fetched = False

    def __enter__(self) -> Self:
        import hashlib  # noqa: PLC0415 - for bases elsewhere alone
        import secrets  # noqa: PLC0415

        if not self._path.is_file():
            raise ArtifactError(f"{self._path} is a directory, which a base elsewhere cannot fetch: build an artefact")
        place = f"/{secrets.token_urlsafe(16)}/{urllib.parse.quote(self._path.name)}"
        self._server = self._listen(place)
        host, port = self._server.server_address[:2]
        digest = hashlib.sha256(self._path.read_bytes()).hexdigest()
        shown = f"[{host!s}]" if ":" in str(host) else str(host)
        self.url = f"http://{shown}:{port}{place}#sha256={digest}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _listen(self, place: str) -> Any:
        import http.server  # noqa: PLC0415 - for bases elsewhere alone
        import socket  # noqa: PLC0415

        offer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            timeout = 60

            def do_HEAD(self) -> None:
                self._begin()

            def do_GET(self) -> None:
                if self._begin():
                    with offer._path.open("rb") as file:
                        shutil.copyfileobj(file, self.wfile)
                    offer.was_fetched = True

            def _begin(self) -> bool:
                if self.path != place:
                    self.send_error(404)
                    return False
                self.send_response(200)
                self.send_header("Content-Type", "application/zip")
                self.send_header("Content-Length", str(offer._path.stat().st_size))
                self.end_headers()
                return True

            def log_message(self, *_: object) -> None:
                """Print nothing: the user watches a deployment, not a server."""

        try:
            family, _, _, _, address = socket.getaddrinfo(self._towards, 9, type=socket.SOCK_DGRAM)[0]
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.connect(address)  # sends nothing; asks the routing table for the local address
                here = probe.getsockname()[0]
            server_class = type(
                "Server", (http.server.ThreadingHTTPServer,), {"address_family": family, "daemon_threads": True}
            )
            return server_class((here, 0), Handler)
        except OSError as error:
            raise BaseUnreachable(self._towards, error.strerror or str(error)) from error
