"""Fold the sources of a biz's environment into one mapping, when the biz is started."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from koupleless.envfiles import read_env_file

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from koupleless.artifact.manifest import Manifest
    from koupleless.state.environments import Environments

ENV_FILE: Final = ".env"
"""The name of the file of variables among the configuration of a biz at the base."""


@dataclass(frozen=True, slots=True)
class Variables:
    """The variables that come with an install."""

    given: Mapping[str, str] = field(default_factory=dict, repr=False)
    project: Mapping[str, str] | None = field(default=None, repr=False)
    """Those of the env-file of the project, which is not in the artefact; ``None`` if no project was deployed."""

    def keep(self, name: str, environments: Environments) -> None:
        """Keep these variables for later installs. Raises ``SettingsError`` if that cannot be done."""
        environments.keep(name, self.given, project=self.project)

    def folded(
        self, manifest: Manifest, code: Path, *, environments: Environments, directories: Sequence[Path]
    ) -> dict[str, str]:
        """Return the variables of a biz, without those of the process.

        Strongest first: those given with the install; kept ones; ``<name>/.env`` in the base's ``directories``, of
        which the first is the strongest; the env-file in the artefact, else of the project; the table of the manifest.
        ``code`` is the unpacked artefact. Raises ``SettingsError`` for an unreadable file.
        """
        name = manifest.id.name
        kept = environments.of(name)
        folded = dict(manifest.env)
        if manifest.env_file:
            of_project = kept.project if self.project is None else self.project
            packed = _read(code / manifest.env_file)
            folded |= of_project if packed is None else packed
        for directory in reversed(directories):
            folded |= _read(directory / name / ENV_FILE) or {}
        return {**folded, **kept.given, **self.given}


def _read(path: Path) -> dict[str, str] | None:
    try:
        return read_env_file(path)
    except FileNotFoundError:
        return None
