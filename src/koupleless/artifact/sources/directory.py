"""Artefacts that are directories, unpacked or written by hand."""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Final

from koupleless.artifact.archive import CHUNK, DEFAULT_LIMITS, FileMark, Limits, digest_of
from koupleless.artifact.reading.common_keys import path_issue
from koupleless.artifact.sources.content import read_manifests, tree_digest
from koupleless.errors import ArchiveRefused, ArtifactError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from koupleless.artifact.manifest import Manifest
    from koupleless.artifact.sources.content import Content

_LEFTOVERS: Final = frozenset({"__pycache__", ".git", ".hg", ".svn"})


class DirectorySource:
    """An artefact that is a directory, unpacked or written by hand. Bytecode and version control are left out."""

    mark: FileMark | None = None

    def __init__(self, path: Path, *, limits: Limits = DEFAULT_LIMITS) -> None:
        self._path = path
        self._limits = limits
        self._digest: str | None = None

    @property
    def origin(self) -> str:
        """The path of the directory."""
        return str(self._path)

    def digest(self) -> str:
        """The SHA-256 of all files, by path and content."""
        digests = {}
        for name, path in self._walk(_listed_in(self._manifest())).items():
            digests[name] = digest_of(path)[0]
        self._digest = tree_digest(digests)
        return self._digest

    @contextlib.contextmanager
    def open(self) -> Iterator[Content]:
        """Open for reading. Raises as `BizSource.open` does."""
        manifest = self._manifest()
        yield _DirectoryContent(manifest, self._walk(_listed_in(manifest)), self.origin, self._digest)

    def _manifest(self) -> Manifest:
        return read_manifests(self._read_text, self.origin)

    def _read_text(self, name: str) -> str | None:
        path = self._path / name
        if not path.is_file():
            return None
        try:
            if path.stat().st_size > self._limits.max_manifest_bytes:
                raise ArchiveRefused(
                    self.origin, f"{name} of the directory is larger than {self._limits.max_manifest_bytes} bytes"
                )
            return path.read_text("utf-8")
        except UnicodeDecodeError:
            raise ArchiveRefused(self.origin, f"{name} of the directory is no UTF-8 text") from None
        except OSError as error:
            raise ArtifactError(f"cannot read {path}: {error.strerror}") from None

    def _walk(self, listed: frozenset[str]) -> dict[str, Path]:
        """All files, sorted. Refuses links, special files, odd names, and more than the limits allow."""
        found: dict[str, Path] = {}
        total = directories = 0
        pending = [(self._path, "")]
        while pending:
            directory, prefix = pending.pop()
            for entry in _scan(directory):
                name = prefix + entry.name
                if entry.name in _LEFTOVERS and not any(path.startswith(name + "/") for path in listed):
                    continue
                if self._is_directory(name, entry):
                    pending.append((Path(entry.path), name + "/"))
                    directories += 1
                elif "__pycache__" not in name or name in listed:
                    found[name] = Path(entry.path)
                    total += entry.stat().st_size
            if len(found) + directories > self._limits.max_files:
                raise ArchiveRefused(
                    self.origin, f"the directory holds more than {self._limits.max_files} files and directories"
                )
        if total > self._limits.max_bytes:
            raise ArchiveRefused(self.origin, f"the directory holds more than {self._limits.max_bytes} bytes")
        return dict(sorted(found.items()))

    def _is_directory(self, name: str, entry: os.DirEntry[str]) -> bool:
        """Whether the entry is a directory. Refuses entries that are neither a directory nor a file."""
        if (why := path_issue(name)) is not None:
            raise ArchiveRefused(self.origin, f"file {name!r} {why}")
        if entry.is_symlink():
            raise ArchiveRefused(self.origin, f"{name!r} is a link")
        if not entry.is_dir() and not stat.S_ISREG(entry.stat().st_mode):
            raise ArchiveRefused(self.origin, f"{name!r} is a special file")
        return entry.is_dir()


def _scan(directory: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(directory) as entries:
            return list(entries)
    except OSError as error:
        raise ArtifactError(f"cannot read {directory}: {error.strerror}") from None


def _listed_in(manifest: Manifest) -> frozenset[str]:
    return frozenset(path for path in manifest.files if "__pycache__" in path)


class _DirectoryContent:
    def __init__(self, manifest: Manifest, paths: Mapping[str, Path], origin: str, digest: str | None) -> None:
        self.manifest = manifest
        self._paths = paths
        self._origin = origin
        self._digest = digest

    def files(self) -> Iterator[tuple[str, Iterator[bytes]]]:
        digests: dict[str, str] = {}
        for name, path in self._paths.items():
            yield name, self._chunks(name, path, digests)
        if self._digest is not None and tree_digest(digests) != self._digest:
            raise ArtifactError(f"{self._origin} was changed while it was being read; try again")

    @staticmethod
    def _chunks(name: str, path: Path, digests: dict[str, str]) -> Iterator[bytes]:
        hashed = hashlib.sha256()
        try:
            with path.open("rb", buffering=0) as file:
                while piece := file.read(CHUNK):
                    hashed.update(piece)
                    yield piece
        except OSError as error:
            raise ArtifactError(f"cannot read {path}: {error.strerror}") from None
        digests[name] = hashed.hexdigest()
