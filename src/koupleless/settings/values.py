"""The types of settings: the rules of a value, in the form that msgspec checks, and the words for these rules.

The description of a type completes the sentence "<setting> must be ...". A type may have a step before the check, since
an environment variable and a flag can hold nothing but text, and a step after the check.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeAlias, get_args

import msgspec
from msgspec import Meta

from koupleless.biz import parse_name, parse_version
from koupleless.errors import InvalidIdentity


class Steps:
    """The steps of a type before and after the check.

    ``before`` returns a written value in the form that the check knows; ``after`` returns the value for the field, and
    is also given the directory where relative paths start.
    """

    # No dataclass: a command line pays for each one at its start.
    __slots__ = ("after", "before")

    def __init__(
        self,
        *,
        before: Callable[[object], object] = lambda raw: raw,
        after: Callable[[Any, Path], object] = lambda value, _: value,
    ) -> None:
        self.before = before
        self.after = after


_WORDS: Final = {"yes": True, "on": True, "no": False, "off": False}
"""Words for a flag beside those that msgspec knows."""


def _plain(raw: object) -> object:
    """A text without white space at both ends, for a path, too; any other value as it is."""
    if isinstance(raw, os.PathLike):
        return str(raw)
    return raw.strip() if isinstance(raw, str) else raw


def _number(raw: object) -> object:
    """Read a text as Python does: with a sign, with zeros in front, or with nothing before the point."""
    if isinstance(raw, str) and raw.isascii():
        for read in (int, float):
            with contextlib.suppress(ValueError):
                return read(raw)
    return raw


def _flag(raw: object) -> object:
    return _WORDS.get(raw.lower(), raw) if isinstance(raw, str) else raw


def _items(raw: object) -> object:
    """Split a text at commas; leave out blank items."""
    items = raw.split(",") if isinstance(raw, str) else raw
    if not isinstance(items, (list, tuple)):
        return raw
    return [plain for plain in map(_plain, items) if plain != ""]


def _tables(raw: object) -> object:
    """Decode a text as JSON."""
    try:
        return msgspec.json.decode(raw) if isinstance(raw, str) else raw
    except (msgspec.DecodeError, RecursionError):
        return raw


def _path(written: object, directory: Path) -> Path:
    if not isinstance(written, str) or not written:
        raise ValueError
    try:
        return directory / Path(written).expanduser()
    except RuntimeError:
        raise ValueError(f"cannot be used: there is no home directory {written.partition('/')[0]}") from None


def _locations(items: tuple[str, ...], directory: Path) -> tuple[str, ...]:
    return tuple(item if "://" in item else str(_path(item, directory)) for item in items)


def _name(text: str, _: Path) -> str:
    try:
        return parse_name(text)
    except InvalidIdentity as error:
        raise ValueError(f"cannot be used: {error}") from None


def _version(text: str, _: Path) -> str:
    try:
        return parse_version(text)
    except InvalidIdentity as error:
        raise ValueError(f"cannot be used: {error}") from None


def _endpoint(text: str, _: Path) -> str:
    """The address of a server, with its scheme and without a slash at the end."""
    from urllib.parse import urlsplit  # noqa: PLC0415 - seldom given, and a command line pays for the import

    url = (text if "://" in text else f"http://{text}").rstrip("/")
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - reading a port checks the port
    except ValueError as error:
        raise ValueError(f"cannot be used: {error}") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise ValueError("must be http://host:port, https://host:port, or host:port")
    if "@" in parts.netloc:
        raise ValueError("must be without user and password; a token has a setting of its own")
    return url


Text: TypeAlias = Annotated[str, Meta(min_length=1, description="a text that is not blank")]
Name: TypeAlias = Annotated[Text, Steps(after=_name)]
Version: TypeAlias = Annotated[Text, Steps(after=_version)]
Endpoint: TypeAlias = Annotated[Text, Steps(after=_endpoint)]
"""The address of a server over HTTP; ``host:port`` alone means ``http``."""
Flag: TypeAlias = Annotated[bool, Meta(description="true or false"), Steps(before=_flag)]
InvertedFlag: TypeAlias = Annotated[Flag, Steps(after=lambda is_on, _: not is_on)]
"""For a property of the original with the opposite meaning."""
Seconds: TypeAlias = Annotated[
    float, Meta(gt=0, le=sys.float_info.max, description="a number of seconds above 0"), Steps(before=_number)
]
SecondsOrNone: TypeAlias = Annotated[
    float, Meta(ge=0, le=sys.float_info.max, description="a number of seconds, or 0 for none"), Steps(before=_number)
]
Number: TypeAlias = Annotated[int, Meta(gt=0, lt=10**9, description="a whole number above 0"), Steps(before=_number)]
Port: TypeAlias = Annotated[
    int, Meta(ge=0, le=65535, description="a port number from 0 to 65535"), Steps(before=_number)
]
"""0 means any free port."""
LogLevel: TypeAlias = Annotated[
    Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"],
    Meta(description="debug, info, warning, error or critical"),
    Steps(before=lambda raw: raw.upper() if isinstance(raw, str) else raw),
]
LogFormat: TypeAlias = Annotated[Literal["text", "json"], Meta(description="text or json")]
Count: TypeAlias = Annotated[int, Meta(ge=0, lt=10**9, description="a whole number"), Steps(before=_number)]
Output: TypeAlias = Annotated[Literal["table", "wide", "json"], Meta(description="table, wide or json")]
OnBroken: TypeAlias = Annotated[Literal["refuse", "continue"], Meta(description="refuse or continue")]
FilePath: TypeAlias = Annotated[Path, Meta(description="a path, as a text that is not blank")]
"""The path of a file or directory, from the directory of the origin; ``~`` is the home directory."""
Texts: TypeAlias = Annotated[tuple[str, ...], Meta(description="a list of texts"), Steps(before=_items)]
Paths: TypeAlias = Annotated[tuple[Path, ...], Meta(description="a list of paths"), Steps(before=_items)]
Locations: TypeAlias = Annotated[Texts, Steps(after=_locations)]
"""URLs and paths; a path starts from the directory of the origin."""
Tables: TypeAlias = Annotated[
    tuple[Mapping[str, Any], ...],
    Meta(description="a list of tables, in a variable written as JSON"),
    Steps(before=_tables),
]


def without_none(kind: Any) -> Any:
    """The type of the values that are written for a field: the type of the field without ``None``."""
    kinds = get_args(kind)
    return next(each for each in kinds if each is not type(None)) if type(None) in kinds else kind


def convert(raw: object, kind: Any, directory: Path) -> Any:
    """Check a written value and return the value for the field.

    ``kind`` is a type of this file, ``directory`` the place where relative paths start. Raises ``ValueError`` with
    words to complete the sentence "<setting> ...".
    """
    rules, *steps = kind.__metadata__
    value = _plain(raw)
    for step in steps:
        value = step.before(value)
    try:
        value = msgspec.convert(value, kind, strict=False, dec_hook=lambda _, written: _path(written, directory))
    except msgspec.ValidationError as error:
        # A cause is the error of a path, in words of its own.
        raise ValueError(str(error.__cause__ or "") or f"must be {rules.description}") from None
    for step in steps:
        value = step.after(value, directory)
    return value
