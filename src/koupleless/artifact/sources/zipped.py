"""Sources that are one file: a zip in the form written by the builder, or a wheel."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from koupleless.artifact.archive import DEFAULT_LIMITS, Archive, FileMark, Limits, digest_of
from koupleless.artifact.manifest import BIZ_TOML
from koupleless.artifact.sources.content import read_manifests
from koupleless.errors import ArtifactError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from koupleless.artifact.sources.content import Content


class ZipContent:
    """The content of a zip in the form written by the builder. Refuses artefacts for a Java base."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive
        if BIZ_TOML not in archive.entries and any(name.endswith(".class") for name in archive.entries):
            archive.refuse("the archive is a module for a Java base, and this base runs Python modules")
        self.manifest = read_manifests(archive.read_text, archive.origin)

    def files(self) -> Iterator[tuple[str, Iterator[bytes]]]:
        """Pairs of the relative path and the content in pieces, as `Content.files`."""
        for name in self._archive.entries:
            yield name, self._archive.chunks(name)


class FileSource:
    """An artefact that is one file on disk. ``read`` makes the content of the open archive."""

    def __init__(
        self, path: Path, *, limits: Limits = DEFAULT_LIMITS, read: Callable[[Archive], Content] = ZipContent
    ) -> None:
        self._path = path
        self._limits = limits
        self._read = read
        self._digested: tuple[str, FileMark] | None = None

    @property
    def origin(self) -> str:
        """The path of the file."""
        return str(self._path)

    @property
    def mark(self) -> FileMark | None:
        """The mark of the file. Raises ``ArtifactError`` if the file cannot be found."""
        try:
            return FileMark.of(self._path.stat())
        except OSError as error:
            raise ArtifactError(f"cannot read {self._path}: {error.strerror}") from None

    def digest(self) -> str:
        """The SHA-256 of the bytes of the file."""
        self._digested = digest_of(self._path)
        return self._digested[0]

    @contextlib.contextmanager
    def open(self) -> Iterator[Content]:
        """Open for reading. Raises as `BizSource.open` does, and ``ArtifactError`` if the file changes meanwhile."""
        with Archive(self._path, limits=self._limits) as archive:
            # The unpacked content has to be the digested content, although the file may be written at any moment.
            if self._digested is not None and archive.mark != self._digested[1]:
                raise ArtifactError(f"{self._path} was changed while it was being read; try again")
            yield self._read(archive)
            if self.mark != archive.mark:
                raise ArtifactError(f"{self._path} was changed while it was being read; try again")
