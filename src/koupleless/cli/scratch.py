"""Resources of a running command, removed at any end: a temporary directory, and a server for one file."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import tempfile
import threading
import urllib.parse
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from koupleless.artifact.temporary import INSIDE, hold, sweep
from koupleless.errors import ArtifactError, BaseUnreachable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

_PREFIX: Final = "arkctl-run-"
_ENDING: Final = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


class Ended(SystemExit):
    """A signal asked the program to end. The exit status is 128 plus the number of the signal, as in a shell."""

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """A new directory, removed at the end of the block, even if a signal ends the command (`signals_raised`)."""
    with signals_raised() as signals:
        signals.hold()
        sweep(_PREFIX)
        directory = Path(tempfile.mkdtemp(prefix=_PREFIX))
        held = hold(directory)
        # A signal may raise between any two steps here: hence two attempts, the second with signals held.
        try:
            try:
                signals.release()
                yield directory / INSIDE
            finally:
                signals.hold()
                shutil.rmtree(directory, ignore_errors=True)
        finally:
            signals.hold()
            shutil.rmtree(directory, ignore_errors=True)
            os.close(held)


@contextlib.contextmanager
def signals_raised() -> Iterator[Signals]:
    """Turn signals that end a program into exceptions while the context lasts, so that ``finally`` blocks run.

    SIGINT keeps its handler; a signal without a handler, which would kill the process, raises `Ended`; an ignored
    signal stays ignored. Python handles signals on the main thread only: on another thread nothing changes.
    """
    signals = Signals()
    if threading.current_thread() is not threading.main_thread():
        yield signals
        return
    signals.take_over()
    try:
        yield signals
    finally:
        signals.give_back()


class Signals:
    """Handler for signals that end a program: acts at once, or, while signals are held, at the release."""

    def __init__(self) -> None:
        self._before: dict[int, Any] = {}
        self._is_holding = False
        self._held: int | None = None

    def hold(self) -> None:
        """Delay signals until `release`."""
        self._is_holding = True

    def release(self) -> None:
        """Let signals interrupt again; a delayed signal acts now."""
        self._is_holding = False
        number, self._held = self._held, None
        if number is not None:
            self._raise(number, None)

    def take_over(self) -> None:
        """Become the handler of all signals that are not ignored."""
        for number in _ENDING:
            handler = signal.getsignal(number)
            if handler is not signal.SIG_IGN:
                self._before[number] = handler
                signal.signal(number, self._handle)

    def give_back(self) -> None:
        """Restore the handlers from before, except for signals with a newer handler; then `release`."""
        for number, handler in self._before.items():
            if signal.getsignal(number) == self._handle:
                signal.signal(number, handler)
        self.release()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._is_holding:
            self._held = number
        else:
            self._raise(number, frame)

    def _raise(self, number: int, frame: FrameType | None) -> None:
        handler = self._before[number]
        if callable(handler):
            handler(number, frame)
        else:
            raise Ended(number)


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
