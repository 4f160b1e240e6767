"""Readers of single values.

A reader takes the written value (a string, or a value of TOML) and returns the checked value, or raises ``ValueError``
with words to complete the sentence "<setting> ...".
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

from koupleless.biz import parse_name
from koupleless.errors import InvalidIdentity

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Origin:
    """The place of a written value, in words, and the directory for relative paths."""

    label: str
    directory: Path


_TRUE: Final = frozenset({"true", "1", "yes", "on"})
_FALSE: Final = frozenset({"false", "0", "no", "off"})


def as_text(raw: object, _: Origin) -> str:
    """A text that is not blank, without white space at both ends."""
    if not isinstance(raw, str) or not raw.strip():
        raise ValueError("must be a text that is not blank")
    return raw.strip()


def as_flag(raw: object, _: Origin) -> bool:
    """True or false, also as a word."""
    if isinstance(raw, bool):
        return raw
    word = str(raw).strip().lower()
    if word in _TRUE | _FALSE:
        return word in _TRUE
    raise ValueError("must be true or false")


def as_inverted_flag(raw: object, origin: Origin) -> bool:
    """The opposite of a flag, for a property of the original with the opposite meaning."""
    return not as_flag(raw, origin)


def as_seconds(raw: object, _: Origin) -> float:
    """A number of seconds above 0."""
    try:
        seconds = float(cast("Any", raw)) if not isinstance(raw, bool) else -1.0
    except (TypeError, ValueError):
        seconds = -1.0
    if not 0 < seconds < float("inf"):
        raise ValueError("must be a number of seconds above 0")
    return seconds


def as_number(raw: object, _: Origin) -> int:
    """A whole number above 0."""
    word = str(raw).strip() if not isinstance(raw, bool) else ""
    if not (word.isascii() and word.isdigit() and len(word) < 10 and int(word) > 0):  # noqa: PLR2004 - digits
        raise ValueError("must be a whole number above 0")
    return int(word)


def as_port(raw: object, _: Origin) -> int:
    """A port number; 0 means any free port."""
    word = str(raw).strip() if not isinstance(raw, bool) else ""
    if not (word.isascii() and word.isdigit() and int(word) <= 65535):  # noqa: PLR2004 - the highest port there is
        raise ValueError("must be a port number from 0 to 65535")
    return int(word)


def as_name(raw: object, origin: Origin) -> str:
    """A biz name."""
    try:
        return parse_name(as_text(raw, origin))
    except InvalidIdentity as error:
        raise ValueError(f"cannot be used: {error}") from None


def as_path(raw: object, origin: Origin) -> Path:
    """A path, from the directory of the origin; ``~`` is the home directory."""
    written = str(raw) if isinstance(raw, os.PathLike) else as_text(raw, origin)
    try:
        return origin.directory / Path(written).expanduser()
    except RuntimeError:
        raise ValueError(f"cannot be used: there is no home directory {written.partition('/')[0]}") from None


def as_texts(raw: object, _: Origin) -> tuple[str, ...]:
    """A list of texts, in a variable separated by commas."""
    items = raw.split(",") if isinstance(raw, str) else raw
    if not isinstance(items, (list, tuple)) or not all(isinstance(item, (str, os.PathLike)) for item in items):
        raise ValueError("must be a list of texts")
    return tuple(item for item in (str(item).strip() for item in items) if item)


def as_paths(raw: object, origin: Origin) -> tuple[Path, ...]:
    """A list of paths, from the directory of the origin."""
    return tuple(as_path(item, origin) for item in as_texts(raw, origin))


def as_locations(raw: object, origin: Origin) -> tuple[str, ...]:
    """A list of URLs and paths; a path starts from the directory of the origin."""
    return tuple(item if "://" in item else str(as_path(item, origin)) for item in as_texts(raw, origin))


def as_tables(raw: object, _: Origin) -> tuple[Mapping[str, object], ...]:
    """A list of tables, in a variable written as JSON."""
    if isinstance(raw, str):
        import json  # noqa: PLC0415 - a list of tables is seldom written into a variable

        try:
            raw = json.loads(raw)
        except ValueError:
            raise ValueError("must be a list of tables, in a variable written as JSON") from None
    if not isinstance(raw, (list, tuple)) or not all(isinstance(item, dict) for item in raw):
        raise ValueError("must be a list of tables")
    return tuple(raw)


def as_output(raw: object, origin: Origin) -> str:
    """The name of a form of output."""
    word = as_text(raw, origin)
    if word not in ("table", "wide", "json"):
        raise ValueError("must be table, wide or json")
    return word
