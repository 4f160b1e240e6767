"""One answer to a GET, and one line of the table of pages, as values."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

TEXT = "text/plain; charset=utf-8"
JSON = "application/json; charset=utf-8"


class Page(NamedTuple):
    """Status, content and type of an answer."""

    status: int
    content: bytes
    content_type: str = JSON

    @classmethod
    def of_json(cls, value: object, status: int = 200) -> Page:
        """Make a page of a value."""
        return cls(status, msgspec.json.encode(value))

    @classmethod
    def of_text(cls, text: str, status: int = 200) -> Page:
        """Make a page of words."""
        return cls(status, text.encode(), TEXT)


class Route(NamedTuple):
    """A page, as the overview and the OpenAPI document show the page."""

    path: str
    """A name in braces stands for one part of the path."""
    summary: str
    kind: Any = None
    """The type of the answer in JSON; ``None`` for text."""
    statuses: tuple[int, ...] = (200,)
    texts: tuple[str, ...] = ("text/plain",)
    """The media types of the answer as text."""
