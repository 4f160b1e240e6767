"""One answer to a GET, as a value."""

from __future__ import annotations

from typing import NamedTuple

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
