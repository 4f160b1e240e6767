"""The reader of one TOML table."""

from __future__ import annotations

import difflib
from typing import Final

from koupleless.artifact.reading.texts import shown

INTEGERS: Final = range(-(2**31), 2**31)
"""Whole numbers that every client can read from the wire."""
_MOST_HINTS: Final = 8
_LONGEST_KEY: Final = 255


class Table:
    """A reader of one TOML table: returns values of the right kind and collects the mistakes as issues.

    Lives as long as one parse. ``where`` stands before each issue, for files with several tables.
    """

    def __init__(self, values: object, issues: list[str], *, where: str = "") -> None:
        self._where = f"[{where}] " if where else ""
        self._issues = issues
        self._asked: set[str] = set()
        if not isinstance(values, dict):
            self.blame("is no table")
            values = {}
        self._values: dict[str, object] = values

    def blame(self, issue: str) -> None:
        """Note an issue with this table."""
        self._issues.append(self._where + issue)

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def _take(self, key: str, kind: type, words: str) -> object:
        self._asked.add(key)
        value = self._values.get(key)
        if value is None or (isinstance(value, kind) and not (kind is int and isinstance(value, bool))):
            return value
        self.blame(f"{key} = {shown(value)} is not {words}")
        return None

    def text(self, key: str) -> str | None:
        """The text under ``key``, without white space at both ends; ``None`` if there is no text."""
        value = self._take(key, str, "a text")
        return value.strip() if isinstance(value, str) else None

    def number(self, key: str, default: int) -> int:
        """The whole number under ``key``, else ``default``."""
        value = self._take(key, int, "a whole number")
        if not isinstance(value, int):
            return default
        if value not in INTEGERS:
            self.blame(f"{key} = {shown(value)} is too large a number")
            return default
        return value

    def flag(self, key: str) -> bool:
        """Whether ``key`` is there and true."""
        return self._take(key, bool, "true or false") is True

    def texts(self, key: str) -> tuple[str, ...]:
        """The list of texts under ``key``; empty if there is no list."""
        value = self._take(key, list, "a list of texts")
        if not isinstance(value, list):
            return ()
        if not all(isinstance(item, str) for item in value):
            self.blame(f"{key} = {shown(value)} is not a list of texts")
            return ()
        return tuple(item.strip() for item in value)

    def mapping(self, key: str) -> dict[str, str]:
        """The table of plain values under ``key``, as texts."""
        value = self._take(key, dict, "a table")
        if not isinstance(value, dict):
            return {}
        plain = {name: _as_text(item) for name, item in value.items()}
        for name, item in plain.items():
            if item is None:
                self.blame(f"{key}.{name} is not a plain value")
        return {name: item for name, item in plain.items() if item is not None}

    def refuse_the_rest(self) -> None:
        """Note an issue for every key that was not read, with the likely spelling."""
        unknown = sorted(self._values.keys() - self._asked)
        if len(unknown) > _MOST_HINTS:
            self.blame(f"{len(unknown)} unknown keys, {shown(unknown[0])} among them")
            return
        for key in unknown:
            near = difflib.get_close_matches(key, self._asked, n=1)
            hint = f"; did you mean {near[0]}?" if near else f"; known are {', '.join(sorted(self._asked))}"
            self.blame(f"unknown key {key if len(key) < _LONGEST_KEY else shown(key)}{hint}")


def _as_text(value: object) -> str | None:
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, (str, int, float)) else None
