"""Requests for pages, and answers that are complete pages in plain text, to which a script can be added."""

from __future__ import annotations

import codecs
import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from koupleless.router.types import Connection

    Headers = Sequence[tuple[bytes, bytes]]

_NAVIGATIONS: Final = frozenset({b"document", b"iframe", b"frame"})
_BY_SCRIPT: Final = (b"x-requested-with", b"hx-request")
_CONDITIONS: Final = frozenset(
    {
        b"accept-encoding",
        b"if-none-match",
        b"if-modified-since",
        b"if-match",
        b"if-unmodified-since",
        b"range",
        b"if-range",
    }
)
_EXTENSIONS: Final = frozenset({"http.response.pathsend", "http.response.zerocopysend"})
_WHOLE: Final = frozenset(
    {b"content-encoding", b"digest", b"content-digest", b"repr-digest", b"content-md5", b"content-range"}
)
"""Headers of an answer whose bytes must stay as they are."""
_MEMORY: Final = frozenset({b"etag", b"last-modified", b"expires", b"cache-control", b"content-length"})
_WITHOUT_BODY: Final = frozenset({204, 205, 206, 304})
_CHARSET: Final = re.compile(rb"charset\s*=\s*\"?([^\s\";]+)", re.IGNORECASE)
_ALLOWING: Final = frozenset({"'self'", "*", "http:", "https:"})


def is_navigation(connection: Connection) -> bool:
    """Whether a browser asks for a page to be shown, and not a script of a page for a part of one.

    Browsers say so by ``Sec-Fetch-Dest``, except to plain addresses of other machines; ``Accept`` has to do there.
    """
    if connection["type"] != "http" or connection["method"] != "GET":
        return False
    headers = dict(connection["headers"])
    destination = headers.get(b"sec-fetch-dest")
    if destination is not None:
        return destination in _NAVIGATIONS
    return b"text/html" in headers.get(b"accept", b"") and not any(name in headers for name in _BY_SCRIPT)


def plainly_asked(connection: Connection) -> Connection:
    """The connection without the wish for an answer that is compressed, partial, unchanged, or sent from a file."""
    headers = [(name, value) for name, value in connection["headers"] if name not in _CONDITIONS]
    plain = {**connection, "headers": headers}
    if connection.get("extensions"):
        plain["extensions"] = {name: one for name, one in connection["extensions"].items() if name not in _EXTENSIONS}
    return plain


def can_take(status: int, headers: Headers) -> bool:
    """Whether a script from the same host can be added behind an answer, and would be run there."""
    if status in _WITHOUT_BODY:
        return False
    kinds = [value for name, value in headers if name.lower() == b"content-type"]
    if len(kinds) != 1 or kinds[0].partition(b";")[0].strip().lower() != b"text/html":
        return False
    found = _CHARSET.search(kinds[0])
    if found is not None and not _is_like_ascii(found[1].decode("latin-1")):
        return False
    return all(_allows(name.lower(), value) for name, value in headers)


def _is_like_ascii(charset: str) -> bool:
    try:
        return "<script>".encode(codecs.lookup(charset).name) == b"<script>"
    except (LookupError, ValueError):
        return False


def _allows(name: bytes, value: bytes) -> bool:
    if name in _WHOLE:
        return name == b"content-encoding" and value.strip().lower() == b"identity"
    if name == b"cache-control":
        return b"no-transform" not in value.lower()
    if name == b"content-disposition":
        return not value.strip().lower().startswith(b"attachment")
    return name != b"content-security-policy" or all(map(_policy_allows, value.decode("latin-1").split(",")))


def _policy_allows(policy: str) -> bool:
    """Whether a Content-Security-Policy lets a page load a script, and listen to a stream, of its own host."""
    directives: dict[str, list[str]] = {}
    for directive in policy.split(";"):
        name, *values = directive.lower().split() or [""]
        directives.setdefault(name, values)
    if "sandbox" in directives and not {"allow-scripts", "allow-same-origin"} <= {*directives["sandbox"]}:
        return False
    scripts, streams = (
        next((directives[name] for name in names if name in directives), ["*"])
        for names in (("script-src-elem", "script-src", "default-src"), ("connect-src", "default-src"))
    )
    return "'strict-dynamic'" not in scripts and bool(_ALLOWING & {*scripts}) and bool(_ALLOWING & {*streams})


def without_memory(headers: Headers, *, longer: int) -> list[tuple[bytes, bytes]]:
    """The headers of an answer that no cache keeps, and that is ``longer`` by so many bytes."""
    return [*_kept(headers, longer), (b"cache-control", b"no-store")]


def _kept(headers: Headers, longer: int) -> Iterable[tuple[bytes, bytes]]:
    for name, value in headers:
        if name.lower() not in _MEMORY:
            yield name, value
        elif name.lower() == b"content-length" and value.strip().isdigit():
            yield name, str(int(value) + longer).encode()
