"""The project of an author: the facts in ``pyproject.toml`` about the biz, and the files to be packed.

No build backend runs: a biz consists of packages and data files, which are found by their places in the project.
"""

from __future__ import annotations

import fnmatch
import os
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Final

from packaging.specifiers import InvalidSpecifier, SpecifierSet

from koupleless.artifact.manifest import (
    Table,
    check_face,
    check_isolation,
    check_libraries,
    check_requirements,
    normal_web_path,
    path_issue,
)
from koupleless.artifact.texts import read_toml
from koupleless.biz import DEFAULT_PRIORITY, BizId, Isolation
from koupleless.errors import ArtifactError, BuildFailed, ManifestInvalid

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

PYPROJECT: Final = "pyproject.toml"
TABLE: Final = "tool.koupleless.module"

_VERSION: Final = re.compile(
    r"""^(?:__version__|VERSION|version)(?:\s*:[^=\n]+)?\s*=\s*["']([^"']+)["']""", re.MULTILINE
)
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
_CONFIG: Final = "config"
_ENVIRONMENT_MARK: Final = "pyvenv.cfg"


@dataclass(frozen=True, slots=True)
class Overrides:
    """Values given by the caller in place of the project's; ``None`` keeps the value of the project."""

    name: str | None = None
    version: str | None = None
    entry: str | None = None
    web_context_path: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """The checked facts of a module project. Immutable."""

    root: Path
    id: BizId
    entry: str
    web_context_path: str
    strips_path: bool = False
    """Whether the application sees request paths without the context path."""
    priority: int = DEFAULT_PRIORITY
    declared_libraries: tuple[str, ...] = ()
    is_declared_mode: bool = False
    """Whether the biz may take from a base only the libraries listed or required by the project."""
    deny_imports: tuple[str, ...] = ()
    own: tuple[str, ...] = ()
    shared: tuple[str, ...] = ()
    bring: tuple[str, ...] = ()
    """Normalised names of distributions packed into the artefact even if the base provides them."""
    isolation: Isolation = Isolation.NAMESPACE
    requirements: tuple[str, ...] = ()
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    distribution: tuple[str, str] | None = None
    """Name and version for the project's own metadata at run time; ``None`` for none."""
    entry_points: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


def has_module_table(root: Path) -> bool:
    """Whether the directory is a module project. Raises ``ArtifactError`` for an unreadable ``pyproject.toml``."""
    try:
        document = _load(root / PYPROJECT)
    except FileNotFoundError:
        return False
    return "module" in _inner(document, "tool", "koupleless")


def read_project(root: Path, overrides: Overrides = Overrides()) -> Project:
    """Read the ``pyproject.toml`` of ``root``. Raises ``ManifestInvalid`` with all mistakes, or ``ArtifactError``."""
    try:
        document = _load(root / PYPROJECT)
    except FileNotFoundError:
        raise ArtifactError(f"{root} is no project: it has no {PYPROJECT}") from None
    return parse_project(document, root=root, origin=str(root / PYPROJECT), overrides=overrides)


def _load(path: Path) -> dict[str, Any]:
    try:
        return read_toml(path.read_text("utf-8"))
    except ValueError as error:
        raise ManifestInvalid(str(path), [f"it is no TOML: {error}"]) from None
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(path) from None
    except OSError as error:
        raise ArtifactError(f"cannot read {path}: {error.strerror}") from None


def parse_project(
    document: Mapping[str, Any], *, root: Path, origin: str, overrides: Overrides, default_entry: str | None = None
) -> Project:
    """Read the tables ``[project]`` and ``[tool.koupleless.module]`` of ``document``; keys of the second table win.

    A file of the project is read only where the version is dynamic. Raises ``ManifestInvalid`` with all mistakes.
    """
    issues: list[str] = []
    module = Table(_inner(document, "tool", "koupleless", "module"), issues, where=TABLE)
    project = Table(_inner(document, "project"), issues, where="project")
    own = {key: module.text(key) for key in ("name", "version", "entry", "web-context-path")}
    named = project.text("name")
    entry = overrides.entry or own["entry"] or default_entry
    released = project.text("version") or _dynamic_version(root, document, entry)
    version = overrides.version or own["version"] or released
    if version is None and "version" in project.texts("dynamic"):
        issues.append(f"the version is dynamic and cannot be read without building; set version in [{TABLE}]")
        version = "0"
    if entry is None:
        issues.append(f'entry is missing; set entry = "package.module:callable" in [{TABLE}], or name it with --entry')
        entry = "missing"
    face = check_face(
        issues,
        name=overrides.name or own["name"] or named,
        version=version,
        entry=entry,
        web_context_path=overrides.web_context_path or own["web-context-path"],
        deny_imports=module.texts("deny-imports"),
        declared_libraries=module.texts("declared-libraries"),
        own=module.texts("own"),
        shared=module.texts("shared"),
    )
    bring = check_libraries("bring", module.texts("bring"), issues)
    only_here = module.texts("requirements")
    requirements = check_requirements(only_here if "requirements" in module else project.texts("dependencies"), issues)
    priority = module.number("priority", DEFAULT_PRIORITY)
    is_declared_mode = module.flag("declared-mode") or bool(face.declared_libraries)
    strips_path = module.flag("strip-path")
    isolation = check_isolation(module.text("isolation"), issues)
    include, exclude = (_patterns(module, key) for key in ("include", "exclude"))
    _check_python(project.text("requires-python"), issues)
    module.refuse_the_rest()
    if issues or face.id is None:
        raise ManifestInvalid(origin, issues)
    return Project(
        root=root,
        id=face.id,
        entry=face.entry,
        web_context_path=normal_web_path(face.web_context_path) or "/",
        strips_path=strips_path,
        priority=priority,
        declared_libraries=face.declared_libraries,
        is_declared_mode=is_declared_mode,
        deny_imports=face.deny_imports,
        own=face.own,
        shared=face.shared,
        bring=bring,
        isolation=isolation,
        requirements=requirements,
        include=include,
        exclude=exclude,
        distribution=(named, released or str(face.id.version)) if named else None,
        entry_points=_entry_points(document),
    )


def _inner(values: object, *keys: str) -> Any:
    """The value under nested keys; an empty table if a key is missing."""
    for key in keys:
        values = values.get(key, {}) if isinstance(values, dict) else {}
    return values


def _patterns(module: Table, key: str) -> tuple[str, ...]:
    texts = module.texts(key)
    for text in texts:
        if (why := path_issue(text.rstrip("/"))) is not None:
            module.blame(f"{key} {text!r} {why}")
    return texts


def _check_python(text: str | None, issues: list[str]) -> None:
    if not text:
        return
    try:
        allowed = SpecifierSet(text)
    except InvalidSpecifier:
        issues.append(f"requires-python {text!r} is no version specifier")
        return
    running = ".".join(map(str, sys.version_info[:3]))
    if not allowed.contains(running, prereleases=True):
        issues.append(f"it requires Python {text} and this is {running}")


def _entry_points(document: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    groups = {
        "console_scripts": _inner(document, "project", "scripts"),
        "gui_scripts": _inner(document, "project", "gui-scripts"),
    }
    extra = _inner(document, "project", "entry-points")
    groups |= extra if isinstance(extra, dict) else {}
    return {
        group: {name: value for name, value in points.items() if isinstance(value, str)}
        for group, points in sorted(groups.items())
        if isinstance(points, dict) and points
    }


def _dynamic_version(root: Path, document: Mapping[str, Any], entry: str | None) -> str | None:
    """The version a build backend would read from the file named in ``document``, else from the entry's package."""
    attribute = _inner(document, "tool", "setuptools", "dynamic", "version", "attr") or ""
    path = _inner(document, "tool", "hatch", "version", "path")
    named = [path] if isinstance(path, str) else []
    for module in (str(attribute).rpartition(".")[0], (entry or "").partition(":")[0].partition(".")[0]):
        if module:
            inner = module.replace(".", "/")
            named += [
                f"{layout}{inner}{ending}"
                for layout in ("src/", "")
                for ending in ("/__init__.py", "/_version.py", ".py")
            ]
    for name in named:
        try:
            found = _VERSION.search((root / name).read_text("utf-8"))
        except (OSError, ValueError):
            continue
        if found:
            return found[1]
    return None


# --- which files ---------------------------------------------------------------------------------------------------


def find_files(project: Project) -> dict[str, Path]:
    """The files of the biz: place in the artefact -> file on disk, sorted.

    Included are all packages (namespace packages too) and Python modules below ``src/``, or beside ``pyproject.toml``
    if there is no ``src/``, with their data files; the ``config`` directory; and files named by ``include``. Files
    matched by ``exclude`` are left out. Raises ``BuildFailed`` if the entry's package is not found.
    """
    root = project.root
    source = root / "src" if _has_python(root / "src") else root
    found: dict[str, Path] = {}
    for top in _tops(source, is_root=source == root, entry=project.entry):
        found |= {path.relative_to(source).as_posix(): path for path in _below(top)}
    found |= {path.relative_to(root).as_posix(): path for path in _below(root / _CONFIG)}
    for pattern in project.include:
        matched = [path for match in sorted(root.glob(pattern.rstrip("/"))) for path in _below(match)]
        if not matched:
            raise BuildFailed(str(root), f"include {pattern!r} matches no file")
        found |= {_place(path, source, root): path for path in matched}
    chosen = {place: path for place, path in sorted(found.items()) if not _is_excluded(place, path, project)}
    module = project.entry.partition(":")[0].partition(".")[0]
    if f"{module}.py" not in chosen and not any(place.startswith(f"{module}/") for place in chosen):
        raise BuildFailed(
            str(root), f"the entry {project.entry} names {module}, which is neither in src/ nor in {root}"
        )
    return chosen


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
