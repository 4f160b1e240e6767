"""Locations of artefacts: parsing, hiding secrets, and the prefixes that artefacts may come from. No I/O but links."""

from __future__ import annotations

import ipaddress
import os
import re
import urllib.parse
from pathlib import Path
from typing import TYPE_CHECKING

from koupleless.errors import FetchFailed

if TYPE_CHECKING:
    from collections.abc import Sequence


def check_name(url: str) -> None:
    """Refuse a text that cannot be the name of a file."""
    try:
        os.fsencode(url)
    except UnicodeEncodeError:
        raise FetchFailed(ascii(url), "the location is no Unicode text") from None
    if "\0" in url:
        raise FetchFailed(without_secrets(url), "the location has an embedded null byte")


def split(place: str) -> urllib.parse.SplitResult:
    """The parts of a location. Raises ``FetchFailed`` for a text that is no location."""
    try:
        return urllib.parse.urlsplit(place)
    except ValueError as error:
        raise FetchFailed(without_secrets(place), f"this is no location: {error}") from None


def expanded(place: str) -> Path:
    """The path, with ``~`` replaced. Raises ``FetchFailed`` if there is no such home directory."""
    try:
        return Path(place).expanduser()
    except RuntimeError:
        raise FetchFailed(place, f"there is no home directory {place.partition('/')[0]}") from None


def file_path(place: str) -> Path:
    """The path of a ``file://`` location. Raises ``FetchFailed`` for another machine, or an impossible name."""
    parts = split(place)
    if parts.netloc not in {"", "localhost"}:
        raise FetchFailed(place, f"file:// cannot name another machine ({parts.netloc}); use file:///path or http://")
    path = urllib.parse.unquote(parts.path)
    check_name(path)
    return Path(path)


def without_secrets(url: str) -> str:
    """The location for logs and messages: without user, password and query."""
    try:
        parts = urllib.parse.urlsplit(url)
    except ValueError:  # reported where the location is used
        return re.sub(r"//[^/]*@", "//", url.partition("?")[0])
    if not parts.netloc:
        return url
    return urllib.parse.urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def is_loopback(host: str) -> bool:
    """Whether a host name or address means this machine. No name look-up is made."""
    if host.lower().rstrip(".") == "localhost" or host.lower().endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_prefix(place: str, allowed: Sequence[str]) -> None:
    """Raise ``FetchFailed`` unless ``place`` is below one of ``allowed``. No prefixes allow all places."""
    if allowed and not any(_is_below(_normal(place), _normal(prefix)) for prefix in allowed):
        raise FetchFailed(without_secrets(place), f"artefacts may only come from {', '.join(allowed)}")


def _normal(place: str) -> tuple[str, str, str]:
    """Scheme, host and path, with links, dot segments and escapes resolved, so that prefixes compare truly."""
    parts = split(place)
    scheme = parts.scheme.lower()
    if scheme in {"http", "https"}:
        default = {"http": 80, "https": 443}[scheme]
        try:
            host = f"{(parts.hostname or '').lower()}:{parts.port or default}"
        except ValueError as error:
            raise FetchFailed(without_secrets(place), str(error)) from None
        path = urllib.parse.unquote(parts.path)
        if ".." in path.replace("\\", "/").split("/"):
            raise FetchFailed(without_secrets(place), "the path climbs by '..'")
        return scheme, host, path
    if scheme == "oci":  # of a registry, a prefix names repositories
        return scheme, parts.netloc.rpartition("@")[2].lower(), parts.path.partition("@")[0].partition(":")[0]
    if "://" in place and scheme != "file":
        return scheme, parts.netloc, parts.path
    path = str(file_path(place)) if scheme == "file" else str(expanded(place))
    return "file", "", os.path.realpath(path)


def _is_below(place: tuple[str, str, str], prefix: tuple[str, str, str]) -> bool:
    path, root = place[2], prefix[2].rstrip("/")
    return place[:2] == prefix[:2] and (path == root or path.startswith(root + "/"))
