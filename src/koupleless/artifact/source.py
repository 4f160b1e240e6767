"""Sources of artefacts: a zip, an unpacked directory, a wheel, or memory, all read through one protocol."""

from __future__ import annotations

import base64
import contextlib
import csv
import dataclasses
import email.parser
import hashlib
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from packaging.utils import InvalidWheelFilename, parse_wheel_filename

from koupleless.artifact.archive import CHUNK, DEFAULT_LIMITS, Archive, FileMark, Limits, digest_of
from koupleless.artifact.manifest import (
    BIZ_TOML,
    MANIFEST_MF,
    MARK,
    UNLISTED,
    Manifest,
    check_face,
    check_requirements,
    check_size,
    manifest_keys,
    other_attributes,
    parse_biz_toml,
    parse_manifest_mf,
    path_issue,
)
from koupleless.artifact.texts import shown
from koupleless.errors import ArchiveRefused, ArtifactError, DigestMismatch, ManifestInvalid

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from contextlib import AbstractContextManager

ENTRY_POINT_GROUP: Final = "koupleless.module"
ARCHIVE_ENDINGS: Final = (".zip", ".jar")
WHEEL_ENDING: Final = ".whl"

_LEFTOVERS: Final = frozenset({"__pycache__", ".git", ".hg", ".svn"})
_NOT_WRITTEN: Final = UNLISTED | {MARK}
_SEALED: Final = ("koupleless/", "lib/koupleless/")


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


def read_manifest(source: BizSource) -> Manifest:
    """The manifest of an artefact. Raises as `BizSource.open` does."""
    with source.open() as content:
        return content.manifest


def source_for(path: Path, *, limits: Limits = DEFAULT_LIMITS) -> BizSource:
    """The source for an artefact on this machine: a zip (``.zip``, ``.jar``), a wheel, or an unpacked directory.

    Raises ``ArtifactError`` for any other path, with advice: a project or a ``.py`` file has to be built first.
    """
    path = Path(path)
    if path.is_dir():
        if any((path / name).is_file() for name in (BIZ_TOML, MANIFEST_MF)):
            return DirectorySource(path, limits=limits)
        if (path / "pyproject.toml").is_file():
            raise ArtifactError(f"{path} is a project, not an artefact; build it first: arkctl build {path}")
        raise ArtifactError(f"{path} holds no {BIZ_TOML} and no {MANIFEST_MF}, so it is no unpacked module")
    if not path.exists():
        raise ArtifactError(f"{path} does not exist")
    ending = path.suffix.lower()
    if ending == WHEEL_ENDING:
        return WheelSource(path, limits=limits)
    if ending in ARCHIVE_ENDINGS:
        return ZipSource(path, limits=limits)
    if ending == ".py":
        raise ArtifactError(f"{path} is a program, not an artefact; build it first: arkctl build {path}")
    known = ", ".join((*ARCHIVE_ENDINGS, WHEEL_ENDING))
    raise ArtifactError(f"{path} is no artefact: its name ends with none of {known}")


class _FileSource:
    """A source that is one file on disk."""

    def __init__(self, path: Path, *, limits: Limits = DEFAULT_LIMITS) -> None:
        self._path = path
        self._limits = limits
        self._digested: tuple[str, FileMark] | None = None

    @property
    def origin(self) -> str:
        return str(self._path)

    @property
    def mark(self) -> FileMark | None:
        try:
            return FileMark.of(self._path.stat())
        except OSError as error:
            raise ArtifactError(f"cannot read {self._path}: {error.strerror}") from None

    def digest(self) -> str:
        self._digested = digest_of(self._path)
        return self._digested[0]

    @contextlib.contextmanager
    def open(self) -> Iterator[Content]:
        with Archive(self._path, limits=self._limits) as archive:
            # The unpacked content has to be the digested content, although the file may be written at any moment.
            if self._digested is not None and archive.mark != self._digested[1]:
                raise ArtifactError(f"{self._path} was changed while it was being read; try again")
            yield self._content(archive)
            if self.mark != archive.mark:
                raise ArtifactError(f"{self._path} was changed while it was being read; try again")

    def _content(self, archive: Archive) -> Content:
        return _ZipContent(archive)


class ZipSource(_FileSource):
    """An artefact in the form written by `build`."""


class _ZipContent:
    def __init__(self, archive: Archive) -> None:
        self._archive = archive
        if BIZ_TOML not in archive.entries and any(name.endswith(".class") for name in archive.entries):
            archive.refuse("it is a module for a Java base; this base runs Python modules")
        self.manifest = _manifest_from(archive.read_text, archive.origin)

    def files(self) -> Iterator[tuple[str, Iterator[bytes]]]:
        for name in self._archive.entries:
            yield name, self._archive.chunks(name)


class WheelSource(_FileSource):
    """A wheel with a biz named in the entry-point group ``koupleless.module``, or with a ``biz.toml``."""

    def _content(self, archive: Archive) -> Content:
        return _WheelContent(archive, self._path)


class _WheelContent:
    """The code of a wheel, in the place of the biz's own code, with the digests of the wheel's ``RECORD``."""

    def __init__(self, archive: Archive, path: Path) -> None:
        self._archive = archive
        try:
            name, version, _build, tags = parse_wheel_filename(path.name)
        except InvalidWheelFilename as error:
            archive.refuse(str(error))
        self._places = {place: name for name in archive.entries if (place := _wheel_place(name)) is not None}
        info = next((name.partition("/")[0] for name in archive.entries if name.endswith(".dist-info/METADATA")), "")
        record = archive.read_text(f"{info}/RECORD")
        if record is None:
            archive.refuse("it is no wheel: METADATA or RECORD is missing")
        files = self._digests(record, f"{info}/RECORD")
        if BIZ_TOML in archive.entries:
            manifest = _manifest_from(archive.read_text, archive.origin)
            self.manifest = manifest if manifest.files else dataclasses.replace(manifest, files=files)
            return
        metadata = email.parser.Parser().parsestr(archive.read_text(f"{info}/METADATA") or "", headersonly=True)
        issues: list[str] = []
        biz, entry = self._entry_point(archive.read_text(f"{info}/entry_points.txt") or "", issues)
        face = check_face(issues, name=biz or name, version=str(version), entry=entry, web_context_path=None)
        requirements = check_requirements(metadata.get_all("Requires-Dist", []), issues)
        if issues or face.id is None:
            raise ManifestInvalid(archive.origin, issues)
        pythons = sorted(tag.interpreter for tag in tags)
        made = Manifest(
            id=face.id,
            entry=face.entry,
            web_context_path=face.web_context_path,
            python_tag="py3" if "py3" in pythons or any(tag.abi == "abi3" for tag in tags) else pythons[0],
            requirements=requirements,
            files=files,
        )
        self.manifest = check_size(made, archive.origin)

    @staticmethod
    def _entry_point(text: str, issues: list[str]) -> tuple[str | None, str | None]:
        # configparser is no choice: the time for a line grows with the square of the length.
        group = ""
        found: list[tuple[str, str]] = []
        for line in map(str.strip, text.splitlines()):
            if line.startswith("[") and line.endswith("]"):
                group = line[1:-1]
            elif not line or line.startswith(("#", ";")):
                continue
            elif not group:
                issues.append(f"entry_points.txt cannot be read: {shown(line)} stands in no group")
                return None, None
            elif group == ENTRY_POINT_GROUP:
                name, _, entry = line.partition("=")
                found.append((name.strip(), entry.partition("[")[0].strip()))
        if len(found) != 1:
            issues.append(f"it names {len(found)} entry points in the group {ENTRY_POINT_GROUP} and should name one")
            return None, None
        return found[0]

    def _digests(self, record: str, record_path: str) -> dict[str, str]:
        digests = {}
        try:
            rows = list(csv.reader(record.splitlines()))
        except csv.Error as error:
            self._archive.refuse(f"its {record_path} cannot be read: {error}")
        for row in rows:
            algorithm, _, value = row[1].partition("=") if len(row) > 1 else ("", "", "")
            if algorithm == "sha256" and (place := _wheel_place(row[0])) is not None:
                try:
                    digests[place] = base64.urlsafe_b64decode(value + "==").hex()
                except ValueError:
                    self._archive.refuse(f"its {record_path} has {shown(value)} for the SHA-256 of {shown(row[0])}")
        # RECORD cannot hold its own digest. With the actual digest listed, all other files must be in RECORD.
        digests[record_path] = hashlib.sha256(record.encode()).hexdigest()
        return digests

    def files(self) -> Iterator[tuple[str, Iterator[bytes]]]:
        for place, name in self._places.items():
            yield place, self._archive.chunks(name)


def _wheel_place(name: str) -> str | None:
    """The place of a wheel's file in the artefact; ``None`` for scripts, headers and signatures."""
    top, _, rest = name.partition("/")
    if top.endswith(".data"):
        scheme, _, inner = rest.partition("/")
        return inner if scheme in {"purelib", "platlib"} and inner else None
    if top.endswith(".dist-info") and rest in {"RECORD.jws", "RECORD.p7s"}:
        return None
    return name


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
        return _manifest_from(self._read_text, self.origin)

    def _read_text(self, name: str) -> str | None:
        path = self._path / name
        if not path.is_file():
            return None
        try:
            if path.stat().st_size > self._limits.max_manifest_bytes:
                raise ArchiveRefused(self.origin, f"its {name} is larger than {self._limits.max_manifest_bytes} bytes")
            return path.read_text("utf-8")
        except UnicodeDecodeError:
            raise ArchiveRefused(self.origin, f"its {name} is no UTF-8 text") from None
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
                raise ArchiveRefused(self.origin, f"it holds more than {self._limits.max_files} files and directories")
        if total > self._limits.max_bytes:
            raise ArchiveRefused(self.origin, f"it holds more than {self._limits.max_bytes} bytes")
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


class MemorySource:
    """An artefact in memory: relative path -> content, a manifest included."""

    mark: FileMark | None = None

    def __init__(
        self, files: Mapping[str, bytes], *, origin: str = "<memory>", limits: Limits = DEFAULT_LIMITS
    ) -> None:
        self._files = dict(sorted(files.items()))
        self._limits = limits
        self.origin = origin

    def digest(self) -> str:
        """The SHA-256 of all files, by path and content."""
        return tree_digest({name: hashlib.sha256(data).hexdigest() for name, data in self._files.items()})

    @contextlib.contextmanager
    def open(self) -> Iterator[Content]:
        """Open for reading. Raises as `BizSource.open` does."""
        for name in self._files:
            if (why := path_issue(name)) is not None:
                raise ArchiveRefused(self.origin, f"file {name!r} {why}")
        if sum(map(len, self._files.values())) > self._limits.max_bytes:
            raise ArchiveRefused(self.origin, f"it holds more than {self._limits.max_bytes} bytes")
        yield _MemoryContent(_manifest_from(self._read_text, self.origin), self._files)

    def _read_text(self, name: str) -> str | None:
        data = self._files.get(name)
        try:
            return None if data is None else data.decode()
        except UnicodeDecodeError:
            raise ArchiveRefused(self.origin, f"its {name} is no UTF-8 text") from None


class _MemoryContent:
    def __init__(self, manifest: Manifest, files: Mapping[str, bytes]) -> None:
        self.manifest = manifest
        self._files = files

    def files(self) -> Iterator[tuple[str, Iterator[bytes]]]:
        for name, data in self._files.items():
            yield name, iter((data,))


def tree_digest(digests: Mapping[str, str]) -> str:
    """One SHA-256 for a set of files: relative path -> SHA-256."""
    return hashlib.sha256("".join(f"{digests[name]}  {name}\n" for name in sorted(digests)).encode()).hexdigest()


def _manifest_from(read_text: Callable[[str], str | None], origin: str) -> Manifest:
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
                origin, "it brings its own copy of koupleless; every biz gets the base's, leave it out"
            )
        if expected and name not in expected and name not in UNLISTED:
            raise ArchiveRefused(origin, f"it holds {name!r}, which its {BIZ_TOML} does not list")
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
        raise ArchiveRefused(origin, f"it lacks {min(missing)!r}, which its {BIZ_TOML} lists")
    return {name: seen[name] for name in sorted(seen.keys() - _NOT_WRITTEN)}


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
