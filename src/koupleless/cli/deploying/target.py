"""The target of a deployment: a project, a file, an artefact or a URL, and the artefact made of the target."""

from __future__ import annotations

import dataclasses
import enum
import time
import urllib.parse
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from koupleless.artifact.building.options import Options
from koupleless.biz import BizId
from koupleless.errors import ArtifactError

if TYPE_CHECKING:
    from koupleless.artifact.build import Built
    from koupleless.artifact.manifest import Manifest

_ARTEFACT_ENDINGS: Final = (".zip", ".jar", ".whl")


class TargetKind(enum.Enum):
    """The kind of a deployment target."""

    URL = "url"
    ARTEFACT = "artefact"
    PROJECT = "project"
    FILE = "file"


@dataclass(frozen=True, slots=True)
class DeployTarget:
    """The project, file, artefact or URL named by the user."""

    text: str
    kind: TargetKind
    path: Path = field(default_factory=Path)
    """Absolute path; without a meaning for a URL."""

    @property
    def is_built(self) -> bool:
        """Whether a base can install the target without a build."""
        return self.kind in (TargetKind.URL, TargetKind.ARTEFACT)

    def is_plain_wheel(self, options: Options) -> bool:
        """Whether the target is a wheel, and ``options`` name its application, so that an artefact is to be built."""
        return self.kind is TargetKind.ARTEFACT and self.path.suffix == ".whl" and options.entry is not None

    @classmethod
    def of(cls, text: str, *, sub: str | None = None) -> DeployTarget:
        """Find the target named by ``text``. Raises ``ArtifactError`` if nothing deployable is there."""
        if text.startswith("file://"):
            text = urllib.parse.unquote(urllib.parse.urlsplit(text).path)
        elif "://" in text:
            return cls(text, TargetKind.URL)
        path = Path(text).absolute()
        if not path.exists():
            raise ArtifactError(f"there is no {text}")
        if path.is_file():
            if path.suffix == ".py":
                return cls(text, TargetKind.FILE, path)
            if path.suffix.lower() in _ARTEFACT_ENDINGS:
                return cls(text, TargetKind.ARTEFACT, path)
            raise ArtifactError(f"{text} is no artefact (.zip, .jar, .whl), no .py file and no project directory")
        if not sub and ((path / "biz.toml").is_file() or (path / "META-INF" / "MANIFEST.MF").is_file()):
            return cls(text, TargetKind.ARTEFACT, path)
        return cls(text, TargetKind.PROJECT, _member(path, sub))


def _member(root: Path, sub: str | None) -> Path:
    """The project at ``root``: the directory itself, the only member of a workspace, or ``sub``."""
    if sub is not None:
        if not (root / sub / "pyproject.toml").is_file():
            raise ArtifactError(f"--sub {sub}: there is no project in {root / sub}")
        return root / sub
    project = root / "pyproject.toml"
    if project.is_file() and "project" in _toml(project):
        return root
    members = sorted(
        path.parent for path in root.glob("*/pyproject.toml") if "koupleless" in _toml(path).get("tool", {})
    )
    if len(members) == 1:
        return members[0]
    if members:
        names = ", ".join(str(member.relative_to(root)) for member in members)
        raise ArtifactError(f"{root} has several modules ({names}): say which with --sub")
    return root  # the builder reports the mistakes of the project


def _toml(path: Path) -> dict[str, Any]:
    import tomllib  # noqa: PLC0415 - not every deployment has a project to read

    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path} cannot be read: {error}") from error


def build_target(target: DeployTarget | None, options: Options) -> Built:
    """Build ``target`` with ``options``.

    Without a target, the first requirement names the application in the package index. Raises ``ArtifactError``.
    """
    from koupleless.artifact import build  # noqa: PLC0415 - heavy

    if target is None:
        application, *further = options.requirements
        if not options.entry:
            raise ArtifactError(f"which object of {application} is the application? Pass --entry")
        rest = dataclasses.replace(options, requirements=tuple(further))
        return build.build_requirement(application, entry=options.entry, options=rest)
    if target.is_plain_wheel(options):
        return build.build_wheel(target.path, options)
    if target.is_built:
        raise ArtifactError(f"{target.text} is built already")
    return build.build(target.path, options)


@dataclass(frozen=True, slots=True, kw_only=True)
class Artefact:
    """An artefact that a base can install now."""

    path: Path | None
    """The path of the artefact; ``None`` for a URL."""
    identity: BizId | None
    """Name and version of the biz; ``None`` for a URL."""
    env_file: Path | None = None
    """The file of variables of the project, if the artefact names the file and does not have it inside."""
    build_ms: float = 0.0

    def project_envs(self) -> dict[str, str]:
        """The variables in the file of the project; empty without a file. Raises ``SettingsError``."""
        from koupleless.envfiles import read_env_file  # noqa: PLC0415 - not every project has one

        try:
            return {} if self.env_file is None else read_env_file(self.env_file)
        except FileNotFoundError:
            return {}


def prepare_artefact(
    target: DeployTarget, options: Options = Options(), *, scratch: Path, no_build: bool = False
) -> Artefact:
    """Build ``target`` into ``scratch`` unless built already, and read the identity.

    ``no_build`` takes the artefact that an earlier build left in ``dist``. Raises ``ArtifactError``.
    """
    if target.kind is TargetKind.URL:
        identity = BizId.of(options.name, options.version) if options.name and options.version else None
        return Artefact(path=None, identity=identity)
    begin = time.perf_counter()
    if (target.is_built and not target.is_plain_wheel(options)) or no_build:
        if options.name or options.version or options.entry:
            raise ArtifactError("an artefact has its name, version and entry inside: build it again to change them")
        from koupleless.artifact.source import read_manifest, source_for  # noqa: PLC0415 - heavy

        path = target.path if target.is_built else _built_before(target.path)
        manifest = read_manifest(source_for(path))
        return Artefact(path=path, identity=manifest.id, env_file=_env_file(target, manifest))
    result = build_target(target, dataclasses.replace(options, out=scratch))
    return Artefact(
        path=result.path,
        identity=result.manifest.id,
        env_file=_env_file(target, result.manifest),
        build_ms=ms_since(begin),
    )


def _env_file(target: DeployTarget, manifest: Manifest) -> Path | None:
    if target.is_built or not manifest.env_file or manifest.env_file in manifest.files:
        return None
    return (target.path if target.path.is_dir() else target.path.parent) / manifest.env_file


def _built_before(path: Path) -> Path:
    directory = (path if path.is_dir() else path.parent) / "dist"
    found = sorted(directory.glob("*-ark-biz.*"))
    if len(found) != 1:
        listed = ", ".join(each.name for each in found) or "nothing"
        raise ArtifactError(f"--no-build: one artefact is expected in {directory}, there is {listed}")
    return found[0]


def ms_since(begin: float) -> float:
    """Milliseconds since ``begin``, a value of `time.perf_counter`."""
    return (time.perf_counter() - begin) * 1000
