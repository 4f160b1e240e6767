"""The protocols of a source and of an open artefact, and the steps common to all sources."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Protocol

from koupleless.artifact.manifest import BIZ_TOML, MANIFEST_MF, Manifest, parse_biz_toml
from koupleless.artifact.manifest_mf import manifest_keys, other_attributes, parse_manifest_mf
from koupleless.errors import ManifestInvalid

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from contextlib import AbstractContextManager

    from koupleless.artifact.archive import FileMark


class Content(Protocol):
    """An open artefact: the manifest has been read, the files can be read."""

    @property
    def manifest(self) -> Manifest:
        """The checked manifest of the artefact."""

    def files(self) -> Iterator[tuple[str, Iterator[bytes]]]:
        """Pairs of the relative path and the content in pieces. Consume the pieces before asking for the next file.

        Raises ``ArchiveRefused`` between pieces if the content breaks a limit or turns out to be damaged.
        """


class BizSource(Protocol):
    """A place an artefact can be read from. Holds nothing open between calls; used by one thread at a time.

    ::

        with source.open() as content:
            print(content.manifest.id)
            for name, pieces in content.files():
                write(name, b"".join(pieces))
    """

    @property
    def origin(self) -> str:
        """The name of the artefact in messages."""

    @property
    def mark(self) -> FileMark | None:
        """The mark of the local file; equal marks mean equal digests. ``None`` if there is no single file."""

    def digest(self) -> str:
        """The SHA-256 of the content; for a file, of the bytes of the file."""

    def open(self) -> AbstractContextManager[Content]:
        """Open for reading. Raises ``ArchiveRefused``, ``ManifestInvalid`` or another ``ArtifactError``."""


def tree_digest(digests: Mapping[str, str]) -> str:
    """One SHA-256 for a set of files: relative path -> SHA-256."""
    return hashlib.sha256("".join(f"{digests[name]}  {name}\n" for name in sorted(digests)).encode()).hexdigest()


def read_manifests(read_text: Callable[[str], str | None], origin: str) -> Manifest:
    """Read ``biz.toml`` with the further keys of ``MANIFEST.MF``; without ``biz.toml``, ``MANIFEST.MF`` alone."""
    original = read_text(MANIFEST_MF)
    own = read_text(BIZ_TOML)
    if own is None:
        return parse_manifest_mf(original or "", origin)
    keys = manifest_keys(original or "")
    manifest = parse_biz_toml(own, origin, attributes=other_attributes(keys))
    issues = [
        f"{MANIFEST_MF} says {key}: {keys[key]}, but {BIZ_TOML} says {value}"
        for key, value in (("Ark-Biz-Name", manifest.id.name), ("Ark-Biz-Version", manifest.id.version))
        if keys.get(key, value) != value
    ]
    if issues:
        raise ManifestInvalid(origin, issues)
    return manifest
