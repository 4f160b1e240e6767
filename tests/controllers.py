"""A controller that hears heartbeats and has a baseline, as the original's, and that can be made to misbehave."""

from __future__ import annotations

import contextlib
import json
import queue
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterator

DEADLINE_S = 20


class Heard(NamedTuple):
    """One message to a controller."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]


@dataclass
class FakeController:
    """Answers like the original: 200 and SUCCESS, an array for the baseline, 405 for anything but POST."""

    url: str = ""
    heard: queue.Queue[Heard] = field(default_factory=queue.Queue)
    status: int = 200
    text: str = "SUCCESS"
    baseline: Any = field(default_factory=list)
    holding: threading.Event = field(default_factory=threading.Event)
    """Set to answer; clear to let callers wait."""

    def beat(self) -> dict[str, Any]:
        """The next heartbeat."""
        return self.next("/heartbeat").body

    def next(self, path: str) -> Heard:
        while True:
            heard = self.heard.get(timeout=DEADLINE_S)
            if heard.path == path:
                return heard

    def until(self, state: str) -> dict[str, Any]:
        """The next heartbeat with a state."""
        while True:
            beat = self.beat()
            if beat["state"] == state:
                return beat


@contextlib.contextmanager
def controller_on(port: int = 0, *, tls: ssl.SSLContext | None = None) -> Iterator[FakeController]:
    """A controller on a port of loopback, until the end of the context."""
    controller = FakeController()
    controller.holding.set()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            headers = {name.lower(): value for name, value in self.headers.items()}
            controller.heard.put(Heard(self.path, headers, body))
            controller.holding.wait(DEADLINE_S)
            text = json.dumps(controller.baseline) if self.path == "/queryBaseline" else controller.text
            self.send_response(controller.status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.handle_error = lambda *_: None  # type: ignore[method-assign] # callers may be gone
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    controller.url = f"{'http' if tls is None else 'https'}://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield controller
    finally:
        controller.holding.set()
        server.shutdown()
        thread.join()
        server.server_close()
