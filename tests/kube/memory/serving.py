"""An API server in memory that listens on loopback, in a thread of its own."""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
from typing import TYPE_CHECKING

import uvicorn
from tests.kube.memory.app import MemoryServer

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the errors that uvicorn logs for watches that a fault cuts."""
    log = logging.getLogger("uvicorn.error")
    before = log.level
    log.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        log.setLevel(before)


@contextlib.contextmanager
def served() -> Iterator[tuple[str, MemoryServer]]:
    """A server of its own, and its address. Watches that are open at the end are cut."""
    memory = MemoryServer()
    config = uvicorn.Config(memory.app, log_config=None, lifespan="off", timeout_graceful_shutdown=0, access_log=False)
    server = uvicorn.Server(config)
    with _quiet(), socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, name="API server in memory")
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}", memory
        finally:
            server.should_exit = True
            thread.join()
