"""Fetching an artefact: from a location to a file on this machine. Local files are used in place."""

from __future__ import annotations

import contextlib
import re
import shutil
import stat
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from koupleless.artifact.archive import digest_of
from koupleless.artifact.fetching.locations import check_name, check_prefix, expanded, file_path, split, without_secrets
from koupleless.artifact.fetching.oci import Pull, Reference
from koupleless.artifact.fetching.transfer import Transfer
from koupleless.errors import ArtifactError, DigestMismatch, FetchFailed

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from koupleless.artifact.fetching.credentials import Credentials

DEFAULT_TIMEOUT_S: Final = 120.0
DEFAULT_MAX_BYTES: Final = 1 << 30
_PIN: Final = re.compile(r"sha256=([0-9A-Fa-f]{64})")


@contextlib.contextmanager
def fetch(
    url: str,
    *,
    into: Path | None = None,
    sha256: str | None = None,
    allowed_prefixes: Sequence[str] = (),
    timeout_s: float = DEFAULT_TIMEOUT_S,
    max_bytes: int = DEFAULT_MAX_BYTES,
    credentials: Credentials | None = None,
) -> Iterator[Path]:
    """The artefact at ``url``, as a path that is valid inside the ``with`` block.

    ``url`` is a plain path, ``file://``, ``http(s)://``, or ``oci://`` for a registry; ``#sha256=...`` at the end, or
    the parameter, pins the content. A local file or directory is used in place and left alone. A download goes to a new
    directory (below ``into``, else below the system's directory for temporary files), removed at the end of the block
    in any case. ``allowed_prefixes``, if not empty, are the only places artefacts may come from, redirects included; a
    prefix ends at a path segment. ``credentials`` are sent to their hosts alone, and to no host of a redirect.
    ``timeout_s`` is for the whole transfer, from the name look-up to the last byte.

    Raises ``FetchFailed`` and ``DigestMismatch``. May be called from any thread that is allowed to block.
    """
    if "\0" in url or not url.isascii():
        check_name(url)
    place, pin = _pinned(url, sha256)
    check_prefix(place, allowed_prefixes)
    scheme = split(place).scheme.lower()
    if scheme not in {"http", "https", "oci"}:
        yield _local(place, scheme, pin)
        return
    shown = without_secrets(place)
    try:
        if into is not None:
            into.mkdir(parents=True, exist_ok=True)
        directory = Path(tempfile.mkdtemp(prefix="koupleless-fetch-", dir=into))
    except OSError as error:
        raise FetchFailed(shown, f"there is no room to download to: {error.strerror}") from None
    try:
        limits: dict[str, Any] = {"timeout_s": timeout_s, "max_bytes": max_bytes, "credentials": credentials}
        if scheme == "oci":
            transfer: Transfer = Pull(Reference.parse(place), directory, **limits)
        else:
            transfer = Transfer(place, shown, directory, allowed_prefixes, **limits)
        path, digest = transfer.run()
        if pin is not None and digest != pin:
            raise DigestMismatch(shown, expected=pin, actual=digest)
        yield path
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _pinned(url: str, sha256: str | None) -> tuple[str, str | None]:
    """The location without the fragment, and the required digest; ``None`` if the content is not pinned."""
    if sha256 is not None and not _PIN.fullmatch(f"sha256={sha256}"):
        raise FetchFailed(without_secrets(url), f"{sha256!r} is no SHA-256")
    pin = sha256.lower() if sha256 else None
    is_plain = "://" not in url
    place, hash_sign, fragment = url.rpartition("#") if is_plain else url.partition("#")
    # In a plain path '#' is a letter like others, unless a pin follows.
    if not hash_sign or (is_plain and not fragment.startswith("sha256=")):
        return url, pin
    match = _PIN.fullmatch(fragment)
    if match is None:
        raise FetchFailed(without_secrets(place), f"the fragment {fragment!r} is no sha256=<64 hexadecimal digits>")
    if pin is not None and pin != match[1].lower():
        raise FetchFailed(without_secrets(place), "two different digests are given")
    return place, match[1].lower()


def _local(place: str, scheme: str, pin: str | None) -> Path:
    if scheme == "file":
        path = file_path(place)
    elif "://" in place:
        raise FetchFailed(
            without_secrets(place), f"{scheme}:// is not understood; use a path, file://, http://, https:// or oci://"
        )
    else:
        path = expanded(place)
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise FetchFailed(place, error.strerror or str(error)) from None
    except ValueError as error:
        raise FetchFailed(place, str(error)) from None
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):  # reading might never end, or never begin
        raise FetchFailed(place, "the path is neither a file nor a directory but a pipe, a socket or a device")
    if pin is not None:
        if path.is_dir():
            raise FetchFailed(place, "a directory cannot be pinned by sha256; give the archive")
        try:
            actual, _ = digest_of(path)
        except ArtifactError as error:
            raise FetchFailed(place, str(error)) from None
        if actual != pin:
            raise DigestMismatch(place, expected=pin, actual=actual)
    return path
