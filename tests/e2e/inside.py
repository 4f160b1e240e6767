"""A base made by hand in a process of its own, and a way to ask what it serves: for the children of the trials.

The run.py of a trial puts this file into its children's search path beside ``koupleless``, as ``inside``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from koupleless.container import host
from koupleless.container.surroundings import Deadlines

if TYPE_CHECKING:
    from pathlib import Path


class Host:
    """An empty container, what it serves requests with, and the place of its loop."""

    def __init__(self, store: Path, *, start_s: float, end_s: float) -> None:
        made = host.Host.make(store, deadlines=Deadlines(start_s=start_s, drain_s=end_s, stop_s=end_s))
        self.stage, self._front, self.container = made.stage, made.front, made.container

    def ask(self, path: str, *, timeout_s: float) -> bytes:
        """The body of the answer to a request; called on any thread but that of the loop."""
        return self.stage.call(lambda: self._get(path), timeout_s=timeout_s)

    async def _get(self, path: str) -> bytes:
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "GET",
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "headers": [(b"host", b"base")],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 80),
        }
        sent: list[Any] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Any) -> None:
            sent.append(message)

        await self._front(scope, receive, send)
        assert sent[0]["status"] == 200, sent
        return b"".join(message.get("body", b"") for message in sent[1:])
