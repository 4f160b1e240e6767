"""The source for a path: a zip, a wheel, or an unpacked directory. Other paths are refused with advice."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from koupleless.artifact.archive import DEFAULT_LIMITS, Limits
from koupleless.artifact.manifest import BIZ_TOML, MANIFEST_MF
from koupleless.artifact.sources.directory import DirectorySource
from koupleless.artifact.sources.wheel import WheelContent
from koupleless.artifact.sources.zipped import FileSource, ZipContent
from koupleless.errors import ArtifactError

if TYPE_CHECKING:
    from koupleless.artifact.manifest import Manifest
    from koupleless.artifact.sources.content import BizSource

ARCHIVE_ENDINGS: Final = (".zip", ".jar")
WHEEL_ENDING: Final = ".whl"


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
            raise ArtifactError(f"{path} is a project, not an artefact; build an artefact first: arkctl build {path}")
        raise ArtifactError(f"{path} holds no {BIZ_TOML} and no {MANIFEST_MF}, so the directory is no unpacked module")
    if not path.exists():
        raise ArtifactError(f"{path} does not exist")
    ending = path.suffix.lower()
    if ending == WHEEL_ENDING:
        return FileSource(path, limits=limits, read=WheelContent)
    if ending in ARCHIVE_ENDINGS:
        return FileSource(path, limits=limits, read=ZipContent)
    if ending == ".py":
        raise ArtifactError(f"{path} is a program, not an artefact; build an artefact first: arkctl build {path}")
    known = ", ".join((*ARCHIVE_ENDINGS, WHEEL_ENDING))
    raise ArtifactError(f"{path} is no artefact: the name ends with none of {known}")
