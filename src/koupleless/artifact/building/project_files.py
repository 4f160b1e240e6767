"""The files of a project that belong to the artefact, found by their places. No build backend runs."""

from __future__ import annotations

import fnmatch
import os
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Final

from koupleless.errors import BuildFailed

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from koupleless.artifact.building.project import Project

_NOT_OURS: Final = frozenset(
    (
        *("bench", "benchmarks", "doc", "docs", "example", "examples", "test", "testing", "tests"),
        *("bin", "build", "dist", "env", "node_modules", "script", "scripts", "site-packages", "tools", "venv"),
    )
)
"""Directories beside the packages of a project that are not part of the application."""
_NOT_MODULES: Final = ("setup.py", "conftest.py", "noxfile.py", "dodo.py", "fabfile.py", "test_*.py")
_LEFTOVERS: Final = (
    "__pycache__",
    "*.pyc",
    "*.pyo",
    "*.egg-info",
    ".git",
    ".hg",
    ".svn",
    ".venv",
    ".DS_Store",
    "*_cache",
)
_BESIDE: Final = ("config", "locale", "static", "templates", "translations")
"""Directories without code beside the packages of a project that belong to the application by their usual names."""
_VARIABLES: Final = (".env", ".env.*")
"""Files of variables, which may hold secrets: part of an artefact only where a project asks for them by name."""
_SAMPLES: Final = ("*.dist", "*.example", "*.sample", "*.template")
_ENVIRONMENT_MARK: Final = "pyvenv.cfg"


def find_files(project: Project, left: list[str] | None = None) -> dict[str, Path]:
    """The files of the biz: place in the artefact -> file on disk, sorted.

    Included are all packages (namespace packages too) and Python modules below ``src/``, or beside ``pyproject.toml``
    if there is no ``src/``, with their data files; directories such as ``config`` and ``templates`` beside them; and
    files named by ``include``. Files
    matched by ``exclude`` are left out, as are files of variables (``.env``) that no key names; ``left`` gets the
    latter. Raises ``BuildFailed`` if the entry's package, or the env-file to be packed, is not found.
    """
    root = project.root
    source = source_directory(root)
    found: dict[str, Path] = {}
    for top in _tops(source, is_root=source == root, entry=project.entry):
        found |= {path.relative_to(source).as_posix(): path for path in _below(top)}
    found |= {path.relative_to(root).as_posix(): path for name in _BESIDE for path in _below(root / name)}
    secret = [path for path in (*found.values(), *sorted(root.glob(".env*"))) if holds_variables(path.name)]
    found = {place: path for place, path in found.items() if path not in secret}
    for pattern in project.include:
        matches = sorted(root.glob(pattern.rstrip("/")))
        matched = [
            path for match in matches for path in _below(match) if path == match or not holds_variables(path.name)
        ]
        if not matched:
            raise BuildFailed(str(root), f"include {pattern!r} matches no file")
        found |= {_place(path, source, root): path for path in matched}
    found |= packed_env_file(project)
    chosen = {place: path for place, path in sorted(found.items()) if not _is_excluded(place, path, project)}
    if left is not None:
        left += sorted({path.relative_to(root).as_posix() for path in secret if path not in chosen.values()})
    module = project.entry.partition(":")[0].partition(".")[0]
    if f"{module}.py" not in chosen and not any(place.startswith(f"{module}/") for place in chosen):
        raise BuildFailed(
            str(root), f"the entry {project.entry} names {module}, which is neither in src/ nor in {root}"
        )
    return chosen


def source_directory(root: Path) -> Path:
    """The directory below the root of a project from which the packages of the project are imported."""
    return root / "src" if _has_python(root / "src") else root


def packed_env_file(project: Project) -> dict[str, Path]:
    """The env-file of a project by the place in the artefact; empty unless packed. Raises ``BuildFailed``."""
    if not project.packs_env_file:
        return {}
    path = project.root / project.env_file
    if not path.is_file():
        raise BuildFailed(str(project.root), f"the env-file to be packed, {project.env_file}, is not there")
    return {project.env_file: path}


def holds_variables(name: str) -> bool:
    """Whether a file of this name holds variables that may be secrets."""
    return any(fnmatch.fnmatchcase(name, text) for text in _VARIABLES) and not any(
        fnmatch.fnmatchcase(name, text) for text in _SAMPLES
    )


def _place(path: Path, source: Path, root: Path) -> str:
    return path.relative_to(source if path.is_relative_to(source) else root).as_posix()


def _is_excluded(place: str, path: Path, project: Project) -> bool:
    spellings = {place, path.relative_to(project.root).as_posix()}
    return any(
        fnmatch.fnmatchcase(spelling, pattern) or spelling.startswith(pattern.rstrip("/") + "/")
        for pattern in project.exclude
        for spelling in spellings
    )


def _has_python(directory: Path) -> bool:
    """Whether there are importable Python files below ``directory``, at any depth.

    A package without ``__init__.py`` counts, and may hold only further packages. Directories without an importable
    name, and virtual environments, are not searched.
    """
    for _, directories, names in os.walk(directory):
        if _ENVIRONMENT_MARK in names:
            directories.clear()
        elif any(name.endswith(".py") for name in names):
            return True
        directories[:] = [name for name in directories if name.isidentifier() and not _is_leftover(name)]
    return False


def _tops(source: Path, *, is_root: bool, entry: str) -> Iterator[Path]:
    """The top-level packages and Python modules. The entry's is included under any name."""
    own = entry.partition(":")[0].partition(".")[0]
    for path in sorted(source.iterdir()):
        name = path.name
        if name in {own, f"{own}.py"}:
            yield path
        elif name.startswith(".") or _is_leftover(name):
            continue
        elif path.is_dir():
            if name.isidentifier() and not (is_root and name in _NOT_OURS) and _has_python(path):
                yield path
        elif name.endswith(".py") and not (is_root and any(fnmatch.fnmatchcase(name, text) for text in _NOT_MODULES)):
            yield path


def is_left_out(directory: Path) -> bool:
    """Whether a directory is a tool's or an environment, and nothing of a project."""
    return _is_leftover(directory.name) or directory.name in _NOT_OURS or (directory / _ENVIRONMENT_MARK).exists()


def _is_leftover(name: str) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in _LEFTOVERS)


def _below(top: Path) -> Iterator[Path]:
    """All files at or below ``top`` except leftovers of tools. A link to a directory is followed once."""
    if top.is_file():
        yield top
        return
    seen: set[str] = set()
    for parent, directories, names in os.walk(top, followlinks=True):
        real = os.path.realpath(parent)
        if real in seen:
            directories.clear()
            continue
        seen.add(real)
        directories[:] = sorted(name for name in directories if not _is_leftover(name))
        yield from (Path(parent, name) for name in sorted(names) if not _is_leftover(name))


def top_level_names(files: Mapping[str, object]) -> frozenset[str]:
    """The first components of the places (relative paths in the artefact)."""
    return frozenset(PurePosixPath(place).parts[0] for place in files)
