"""Controllers of tests, over HTTP and behind a broker, that speak as the original's do."""

from __future__ import annotations

import contextlib
import json
import queue
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, NamedTuple

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterator

    from tests.mqtt.broker import Broker as RealBroker

DEADLINE_S = 20
ROOT = "koupleless_dev/base-7"


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


# --- behind a broker -------------------------------------------------------------------------------------------------


class Got(NamedTuple):
    """One message of a base."""

    kind: str
    body: Any
    is_retained: bool


class Remote:
    """A controller behind the broker: hears all bases, and publishes as the original does, everything retained."""

    def __init__(self, broker: RealBroker) -> None:
        self.got: queue.Queue[Got] = queue.Queue()
        self._is_in = threading.Event()
        self.client = paho.Client(CallbackAPIVersion.VERSION2)
        self.client.reconnect_delay_set(1, 1)
        self.client.on_connect = lambda client, *_: client.subscribe("koupleless_dev/+/base/#", qos=1)
        self.client.on_subscribe = lambda *_: self._is_in.set()
        self.client.on_message = self._hear
        self.client.connect(broker.host, broker.port)
        self.client.loop_start()
        assert self._is_in.wait(DEADLINE_S)

    def _hear(self, _client: object, _data: object, message: Any) -> None:
        if message.topic.endswith("/base/baseline"):
            return
        assert message.qos == 1
        root, _, kind = message.topic.partition("/base/")
        assert root == ROOT
        self.got.put(Got(kind, json.loads(message.payload), bool(message.retain)))

    def next(self, kind: str) -> Any:
        """The next message of a kind, without its envelope."""
        while True:
            got = self.got.get(timeout=DEADLINE_S)
            if got.kind == kind:
                assert not got.is_retained
                assert abs(got.body["publishTimestamp"] - time.time() * 1000) < 10_000
                return got.body["data"]

    def none(self, kind: str) -> bool:
        return not any(got.kind == kind for got in list(self.got.queue))

    def send(self, command: str, body: object, *, retain: bool = True, qos: int = 0) -> None:
        self.client.publish(f"{ROOT}/{command}", json.dumps(body).encode(), qos, retain).wait_for_publish(DEADLINE_S)

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()
