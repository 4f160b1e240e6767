"""Zip archives: read as input from a stranger, written so that the same content gives the same bytes."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import stat
import struct
import tempfile
import zipfile
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NoReturn, Self

from koupleless.artifact.reading.common_keys import path_issue
from koupleless.errors import ArchiveRefused, ArtifactError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path
    from types import TracebackType

CHUNK: Final = 1 << 18

_PLAIN_COMPRESSIONS: Final = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED})
_ENCRYPTED: Final = 0x1 | 0x40 | 0x2000
_ENTRY_SIGNATURE: Final = b"PK\x01\x02"
_ZIP64_TAIL: Final = 76
"""Additional bytes at the end of a zip64 archive: a second end record, and the locator of this record."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Disk space and files allowed to one artefact. Frozen; shared by all readers of artefacts."""

    max_bytes: int = 4 << 30
    """Unpacked size of all files together; the largest wheels unpack to a third of this limit."""
    max_files: int = 200_000
    """Number of files and directories, directories without an entry of their own included."""
    max_ratio: int = 200
    """Unpacked to packed size of the whole archive. A single file may be all padding, as in many a wheel."""
    ratio_from_bytes: int = 32 << 20
    """Unpacked size up to which any ratio is allowed, because so small an archive does no harm."""
    max_manifest_bytes: int = 64 << 20


DEFAULT_LIMITS: Final = Limits()


@dataclass(frozen=True, slots=True)
class FileMark:
    """Identity and times of a local file: equal marks mean the same file with the same content."""

    device: int
    inode: int
    size: int
    modified_ns: int
    changed_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> Self:
        """The mark of the file that ``status`` describes."""
        return cls(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


class Archive:
    """A zip archive that is open for reading.

    Opening checks all that can be known without unpacking: names, links, encryption, counts and promised sizes. The
    sizes promised by headers are not believed: `chunks` counts the bytes really unpacked. A context manager, used by
    one thread. Raises ``ArchiveRefused`` for an unsafe or damaged archive, ``ArtifactError`` for an unreadable file.
    """

    def __init__(self, path: Path, *, limits: Limits = DEFAULT_LIMITS) -> None:
        self.path = path
        self.origin = str(path)
        self._limits = limits
        self._total = 0
        try:
            self._file = path.open("rb")
        except OSError as error:
            raise ArtifactError(f"cannot read {path}: {error.strerror}") from None
        try:
            self.mark = FileMark.of(os.fstat(self._file.fileno()))
            self._check_directory_size()
            with self._damage_refused():
                self._zip = zipfile.ZipFile(self._file)
            self.entries: Mapping[str, zipfile.ZipInfo] = self._checked_entries()
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._zip.close()
        self._file.close()

    def refuse(self, reason: str) -> NoReturn:
        """Raise ``ArchiveRefused`` for this archive."""
        raise ArchiveRefused(self.origin, reason) from None

    @contextlib.contextmanager
    def _damage_refused(self) -> Iterator[None]:
        try:
            yield
        except (
            zipfile.BadZipFile,
            zlib.error,
            struct.error,
            EOFError,
            OSError,
            ValueError,
            NotImplementedError,
        ) as error:
            self.refuse(f"the archive is damaged or not complete ({str(error) or type(error).__name__})")

    def _check_directory_size(self) -> None:
        """Count the entries before `zipfile` makes an object for each entry."""
        with self._damage_refused():
            # The same record as ZipFile uses, so that both readers agree on the number of entries.
            end = zipfile._EndRecData(self._file)  # type: ignore[attr-defined]  # noqa: SLF001
        if end is None:
            self.refuse("the file is no zip archive, or the end of the archive is missing")
        size, location = end[5], end[9]
        start = location - size - (_ZIP64_TAIL if end[0] == b"PK\x06\x06" else 0)
        if size > self.mark.size or start < 0:
            self.refuse("the archive is damaged or not complete (the list of entries does not fit into the archive)")
        self._file.seek(start)
        if self._file.read(size).count(_ENTRY_SIGNATURE) > self._limits.max_files:
            self.refuse(f"the archive holds more than {self._limits.max_files} entries")

    def _checked_entries(self) -> dict[str, zipfile.ZipInfo]:
        entries: dict[str, zipfile.ZipInfo] = {}
        directories: set[str] = set()
        packed = unpacked = 0
        for info in self._zip.infolist():
            name = self._checked_name(info)
            if info.orig_filename.endswith("/"):
                directories.add(name)
                continue
            if name in entries:
                self.refuse(f"the archive holds {name!r} twice")
            entries[name] = info
            packed += info.compress_size
            unpacked += info.file_size
            while (name := name.rpartition("/")[0]) and name not in directories:
                directories.add(name)
            if len(entries) + len(directories) > self._limits.max_files:
                self.refuse(f"the archive holds more than {self._limits.max_files} files and directories")
        if both := directories & entries.keys():
            self.refuse(f"the archive holds {min(both)!r} both as a file and as a directory")
        if packed > self.mark.size:
            self.refuse("entries of the archive overlap")
        self._check_total(unpacked, entries)
        return entries

    def _check_total(self, unpacked: int, entries: Mapping[str, zipfile.ZipInfo]) -> None:
        limits = self._limits
        if unpacked > limits.max_bytes:
            self.refuse(f"the archive unpacks to more than {limits.max_bytes} bytes")
        if unpacked > max(limits.ratio_from_bytes, limits.max_ratio * self.mark.size):
            largest = max(entries.values(), key=lambda info: info.file_size)
            self.refuse(
                f"the archive unpacks to more than {limits.max_ratio} times the size of the archive, most of it "
                f"{largest.filename!r}: a bomb"
            )

    def _checked_name(self, info: zipfile.ZipInfo) -> str:
        # zipfile has mended ``filename`` already; ``orig_filename`` is the name as written by the author.
        raw = info.orig_filename
        name = raw.removesuffix("/")
        if (why := path_issue(name)) is not None:
            self.refuse(f"entry {raw!r} {why}")
        kind = stat.S_IFMT(info.external_attr >> 16)
        if kind not in {0, stat.S_IFREG, stat.S_IFDIR}:
            self.refuse(f"entry {raw!r} is a {'link' if kind == stat.S_IFLNK else 'special file'}")
        if info.flag_bits & _ENCRYPTED:
            self.refuse(f"entry {raw!r} is encrypted")
        if info.compress_type not in _PLAIN_COMPRESSIONS:
            self.refuse(f"entry {raw!r} is packed by method {info.compress_type}, not by deflate")
        return name

    def read_text(self, name: str) -> str | None:
        """The text of a small file; ``None`` if there is no such entry."""
        info = self.entries.get(name)
        if info is None:
            return None
        if info.file_size > self._limits.max_manifest_bytes:
            self.refuse(f"{name} of the archive is larger than {self._limits.max_manifest_bytes} bytes")
        try:
            return b"".join(self._inflate(name)).decode()
        except UnicodeDecodeError:
            self.refuse(f"{name} of the archive is no UTF-8 text")

    def chunks(self, name: str) -> Iterator[bytes]:
        """The content of an entry in pieces. All calls together count against the limits."""
        for piece in self._inflate(name):
            self._total += len(piece)
            self._check_total(self._total, self.entries)
            yield piece

    def _inflate(self, name: str) -> Iterator[bytes]:
        info, size = self.entries[name], 0
        with self._damage_refused(), self._zip.open(info) as file:
            while piece := file.read(CHUNK):
                size += len(piece)
                yield piece
        if size != info.file_size:
            self.refuse(f"the archive is damaged or not complete ({name!r} ends early)")


def digest_of(path: Path) -> tuple[str, FileMark]:
    """The SHA-256 of a file's bytes, and the mark of the file. Raises ``ArtifactError`` if the file cannot be read."""
    try:
        with path.open("rb", buffering=0) as file:
            mark = FileMark.of(os.fstat(file.fileno()))
            return hashlib.file_digest(file, "sha256").hexdigest(), mark
    except OSError as error:
        raise ArtifactError(f"cannot read {path}: {error.strerror}") from None


def write_archive(path: Path, files: Mapping[str, bytes], *, upon: Path | None = None) -> int:
    """Write a zip of ``files`` in the given order and return the size of the zip in bytes.

    ``upon`` is a zip with further files, copied to the front as packed. Equal files give equal bytes. The zip appears
    whole or not at all. Raises ``OSError``.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with os.fdopen(handle, "w+b") as file:
            if upon is not None:
                with upon.open("rb") as front:
                    shutil.copyfileobj(front, file, CHUNK)
            with zipfile.ZipFile(file, "a", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
                for name, data in files.items():
                    info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
                    info.create_system = 3
                    info.external_attr = (stat.S_IFREG | 0o644) << 16
                    info.compress_type = zipfile.ZIP_DEFLATED if data else zipfile.ZIP_STORED
                    archive.writestr(info, data)
        os.chmod(temporary, 0o644)  # noqa: PTH101 - mkstemp returns a text path
        os.replace(temporary, path)  # noqa: PTH105 - the same
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)  # noqa: PTH108 - the same
        raise
    return path.stat().st_size
