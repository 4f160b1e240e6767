"""The types of ASGI, under the names that all files of the room use."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeAlias

Connection: TypeAlias = MutableMapping[str, Any]
"""ASGI's scope of a request, a WebSocket or a lifespan. A `Scope` of this project is the life of a biz."""
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
ASGIApp: TypeAlias = Callable[[Connection, Receive, Send], Awaitable[None]]
