"""Wheels as artefacts: the place of each file, the digests of ``RECORD``, and the manifest made of the metadata."""

from __future__ import annotations

import base64
import csv
import dataclasses
import email.parser
import hashlib
from typing import TYPE_CHECKING, Final

from packaging.utils import InvalidWheelFilename, parse_wheel_filename

from koupleless.artifact.archive import Archive
from koupleless.artifact.manifest import BIZ_TOML, Manifest, check_size
from koupleless.artifact.reading.common_keys import check_common_keys, check_requirements
from koupleless.artifact.reading.texts import shown
from koupleless.artifact.sources.content import read_manifests
from koupleless.errors import ManifestInvalid

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

ENTRY_POINT_GROUP: Final = "koupleless.module"


@dataclasses.dataclass(frozen=True, slots=True)
class WheelFacts:
    """A wheel as a build reads it: whichever entry the wheel names, the build has one."""

    name: str
    version: str
    requirements: tuple[str, ...]
    files: Mapping[str, bytes]
    """The place of each file in an artefact, and the content."""


def read_wheel(path: Path) -> WheelFacts:
    """Read a wheel whole. Raises ``ArchiveRefused`` for a damaged one, ``ArtifactError`` for an unreadable one."""
    with Archive(path) as archive:
        try:
            name, version, _build, _tags = parse_wheel_filename(path.name)
        except InvalidWheelFilename as error:
            archive.refuse(str(error))
        files = {
            place: b"".join(archive.chunks(entry))
            for entry in archive.entries
            if (place := _wheel_place(entry)) is not None
        }
    texts = (data.decode("utf-8", "replace") for place, data in files.items() if place.endswith(".dist-info/METADATA"))
    metadata = email.parser.Parser().parsestr(next(texts, ""), headersonly=True)
    return WheelFacts(name, str(version), tuple(metadata.get_all("Requires-Dist", [])), files)


class WheelContent:
    """The content of a wheel that names a biz in the entry-point group ``koupleless.module``, or has a ``biz.toml``.

    The code of the wheel stands in the place of the biz's own code; the digests are those of ``RECORD``.
    """

    def __init__(self, archive: Archive) -> None:
        self._archive = archive
        try:
            name, version, _build, tags = parse_wheel_filename(archive.path.name)
        except InvalidWheelFilename as error:
            archive.refuse(str(error))
        self._places = {place: name for name in archive.entries if (place := _wheel_place(name)) is not None}
        info = next((name.partition("/")[0] for name in archive.entries if name.endswith(".dist-info/METADATA")), "")
        record = archive.read_text(f"{info}/RECORD")
        if record is None:
            archive.refuse("the file is no wheel: METADATA or RECORD is missing")
        files = self._digests(record, f"{info}/RECORD")
        if BIZ_TOML in archive.entries:
            manifest = read_manifests(archive.read_text, archive.origin)
            self.manifest = manifest if manifest.files else dataclasses.replace(manifest, files=files)
            return
        metadata = email.parser.Parser().parsestr(archive.read_text(f"{info}/METADATA") or "", headersonly=True)
        issues: list[str] = []
        biz, entry = self._entry_point(archive.read_text(f"{info}/entry_points.txt") or "", issues)
        keys = check_common_keys(issues, name=biz or name, version=str(version), entry=entry, web_context_path=None)
        requirements = check_requirements(metadata.get_all("Requires-Dist", []), issues)
        if issues or keys.id is None:
            raise ManifestInvalid(archive.origin, issues)
        pythons = sorted(tag.interpreter for tag in tags)
        made = Manifest(
            id=keys.id,
            entry=keys.entry,
            web_context_path=keys.web_context_path,
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
            issues.append(
                f"the wheel names {len(found)} entry points in the group {ENTRY_POINT_GROUP} and should name one; "
                "or name the application: arkctl deploy WHEEL --entry package.module:attribute"
            )
            return None, None
        return found[0]

    def _digests(self, record: str, record_path: str) -> dict[str, str]:
        digests = {}
        try:
            rows = list(csv.reader(record.splitlines()))
        except csv.Error as error:
            self._archive.refuse(f"{record_path} cannot be read: {error}")
        for row in rows:
            algorithm, _, value = row[1].partition("=") if len(row) > 1 else ("", "", "")
            if algorithm == "sha256" and (place := _wheel_place(row[0])) is not None:
                try:
                    digests[place] = base64.urlsafe_b64decode(value + "==").hex()
                except ValueError:
                    self._archive.refuse(f"{record_path} has {shown(value)} for the SHA-256 of {shown(row[0])}")
        # RECORD cannot hold its own digest. With the actual digest listed, all other files must be in RECORD.
        digests[record_path] = hashlib.sha256(record.encode()).hexdigest()
        return digests

    def files(self) -> Iterator[tuple[str, Iterator[bytes]]]:
        """Pairs of the place in the artefact and the content in pieces, as `Content.files`."""
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
