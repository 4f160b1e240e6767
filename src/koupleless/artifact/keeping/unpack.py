"""The destination of an artefact: a directory, filled with the files of an open artefact, all digests checked.

Or with the files of an entry of the store, where the artefact was unpacked for another Python.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from typing import TYPE_CHECKING, Final

from koupleless.artifact.archive import CHUNK
from koupleless.artifact.manifest import BIZ_TOML, MARK, UNLISTED
from koupleless.errors import ArchiveRefused, DigestMismatch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from koupleless.artifact.keeping.inventory import Inventory
    from koupleless.artifact.sources.content import Content

_NOT_WRITTEN: Final = UNLISTED | {MARK}
_SEALED: Final = ("koupleless/", "lib/koupleless/")


def copy_files(content: Content, directory: Path, origin: str) -> dict[str, str]:
    """Write the files of an open artefact below the empty ``directory``; returns relative path -> SHA-256.

    All files are checked against the digests of the manifest. A manifest with digests must list all files, and no
    missing one. The manifests and the mark are checked but not written, since only readers of the archive need them.
    After an error the directory may be half full; the caller removes the directory. Raises ``ArchiveRefused``,
    ``DigestMismatch`` and ``OSError``.
    """
    expected = content.manifest.files
    places = _Places(directory)
    seen: dict[str, str] = {}
    for name, pieces in content.files():
        if name.startswith(_SEALED):
            raise ArchiveRefused(
                origin, "the artefact has a copy of koupleless; every biz gets the base's, so leave the copy out"
            )
        if expected and name not in expected and name not in UNLISTED:
            raise ArchiveRefused(origin, f"the artefact holds {name!r}, which {BIZ_TOML} does not list")
        hashed = hashlib.sha256()
        with places.create(name) as write:
            for piece in pieces:
                hashed.update(piece)
                write(piece)
        actual = hashed.hexdigest()
        if expected.get(name, actual) != actual:
            raise DigestMismatch(f"{name!r} in {origin}", expected=expected[name], actual=actual)
        seen[name] = actual
    if missing := expected.keys() - seen.keys():
        raise ArchiveRefused(origin, f"the artefact lacks {min(missing)!r}, which {BIZ_TOML} lists")
    return {name: seen[name] for name in sorted(seen.keys() - _NOT_WRITTEN)}


def copy_unpacked(inventory: Inventory, source: Path, directory: Path) -> dict[str, str]:
    """Write the files of a store entry, but for bytecode, below the empty ``directory``; relative path -> SHA-256.

    Files added since unpacking are no part of the artefact. Raises ``DigestMismatch`` for a file with other bytes than
    when unpacked, and ``OSError``.
    """
    places = _Places(directory)
    written: dict[str, str] = {}
    for name, mark in inventory.marks.items():
        if f"/{name}".rpartition("/")[0].endswith("/__pycache__"):
            continue
        data = (source / name).read_bytes()
        actual = hashlib.sha256(data).hexdigest()
        if actual != mark.digest:
            raise DigestMismatch(str(source / name), expected=mark.digest, actual=actual)
        with places.create(name) as write:
            write(data)
        written[name] = actual
    return written


class _Places:
    """A directory to write an artefact to. Makes each directory in between once."""

    def __init__(self, directory: Path) -> None:
        self._root = f"{directory}/"
        self._made = {""}

    @contextlib.contextmanager
    def create(self, name: str) -> Iterator[Callable[[bytes], object]]:
        """Create a file at the relative path ``name``; the context gives the function that writes to the file."""
        if name in _NOT_WRITTEN:
            yield len
            return
        self._make_directory(name.rpartition("/")[0])
        with open(self._root + name, "xb", buffering=CHUNK) as file:  # noqa: PTH123 - hot, and checked by path_issue
            yield file.write

    def _make_directory(self, name: str) -> None:
        if name not in self._made:
            self._make_directory(name.rpartition("/")[0])
            os.mkdir(self._root + name)  # noqa: PTH102 - as above
            self._made.add(name)
