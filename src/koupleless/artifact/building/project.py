"""The project of an author: the facts in ``pyproject.toml`` about the biz, checked."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from packaging.specifiers import InvalidSpecifier, SpecifierSet

from koupleless.artifact.building.options import Options
from koupleless.artifact.reading.common_keys import (
    check_common_keys,
    check_env,
    check_env_file,
    check_isolation,
    check_libraries,
    check_requirements,
    normal_web_path,
    path_issue,
)
from koupleless.artifact.reading.table import Table
from koupleless.artifact.reading.texts import read_toml
from koupleless.biz import DEFAULT_PRIORITY, BizId, Isolation
from koupleless.errors import ArtifactError, ManifestInvalid

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

PYPROJECT: Final = "pyproject.toml"
REQUIREMENTS: Final = "requirements.txt"
TABLE: Final = "tool.koupleless.module"

_VERSION: Final = re.compile(
    r"""^(?:__version__|VERSION|version)(?:\s*:[^=\n]+)?\s*=\s*["']([^"']+)["']""", re.MULTILINE
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """The checked facts of a module project. Immutable."""

    root: Path
    id: BizId
    entry: str
    web_context_path: str
    strips_path: bool = False
    """Whether the application sees request paths without the context path."""
    scopes_cookies: bool = False
    """Whether cookies of the application for ``/`` are set for the context path."""
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
    env: Mapping[str, str] = field(default_factory=dict)
    """Variables of the environment of the biz."""
    env_file: str = ""
    """The relative path of a file of further variables; empty for none."""
    packs_env_file: bool = False
    """Whether the file of variables, which may hold secrets, becomes a part of the artefact."""
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    distribution: tuple[str, str] | None = None
    """Name and version for the project's own metadata at run time; ``None`` for none."""
    entry_points: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


def read_project(root: Path, options: Options = Options()) -> Project:
    """Read the ``pyproject.toml`` of ``root``. Raises ``ManifestInvalid`` with all mistakes, or ``ArtifactError``.

    Without such a file, entry and name have to be among the ``options``; requirements are those of the
    ``requirements.txt``, if there is one.
    """
    try:
        document = _load(root / PYPROJECT)
    except FileNotFoundError:
        if not (options.entry and options.name and root.is_dir()):
            raise ArtifactError(
                f"{root} is no project: there is no {PYPROJECT}; name the application with --entry and the module with "
                f"--name, or write the file with arkctl init {root}"
            ) from None
        document = {
            "tool": {"koupleless": {"module": {"version": "1.0.0", "requirements": read_requirements_file(root)}}}
        }
    return parse_project(document, root=root, origin=str(root / PYPROJECT), options=options)


def read_requirements_file(root: Path) -> list[str]:
    """Return the requirements of the project's ``requirements.txt``, in the order of the file; empty without a file.

    Raises ``ArtifactError`` for a line with an option of pip, such as ``-r``, which is not followed.
    """
    path = root / REQUIREMENTS
    try:
        lines = path.read_text("utf-8").splitlines()
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        raise ArtifactError(f"cannot read {path}: {error}") from None
    found = []
    for number, line in enumerate(lines, 1):
        text = re.sub(r"(^|\s)#.*", "", line).strip()
        if text.startswith("-") or text.endswith("\\"):
            raise ArtifactError(
                f"{path}, line {number}: options of pip are not read; list the requirements in {PYPROJECT} instead"
            )
        if text:
            found.append(text)
    return found


def _load(path: Path) -> dict[str, Any]:
    try:
        return read_toml(path.read_text("utf-8"))
    except ValueError as error:
        raise ManifestInvalid(str(path), [f"the file is no TOML: {error}"]) from None
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(path) from None
    except OSError as error:
        raise ArtifactError(f"cannot read {path}: {error.strerror}") from None


def parse_project(
    document: Mapping[str, Any], *, root: Path, origin: str, options: Options, default_entry: str | None = None
) -> Project:
    """Read the tables ``[project]`` and ``[tool.koupleless.module]`` of ``document``; keys of the second table win.

    A file of the project is read only where the version is dynamic. Raises ``ManifestInvalid`` with all mistakes.
    """
    issues: list[str] = []
    module = Table(_inner(document, "tool", "koupleless", "module"), issues, where=TABLE)
    project = Table(_inner(document, "project"), issues, where="project")
    own = {key: module.text(key) for key in ("name", "version", "entry", "web-context-path")}
    named = project.text("name")
    entry = options.entry or own["entry"] or default_entry
    released = project.text("version") or _dynamic_version(root, document, entry)
    version = options.version or own["version"] or released
    if version is None and "version" in project.texts("dynamic"):
        issues.append(f"the version is dynamic and cannot be read without building; set version in [{TABLE}]")
        version = "0"
    if entry is None:
        issues.append(
            f'entry is missing; set entry = "package.module:callable" in [{TABLE}], or name the entry with --entry'
        )
        entry = "missing"
    keys = check_common_keys(
        issues,
        name=options.name or own["name"] or named,
        version=version,
        entry=entry,
        web_context_path=options.web_context_path or own["web-context-path"],
        deny_imports=module.texts("deny-imports"),
        declared_libraries=module.texts("declared-libraries"),
        own=module.texts("own"),
        shared=module.texts("shared"),
    )
    bring = check_libraries("bring", module.texts("bring"), issues)
    only_here = module.texts("requirements")
    requirements = check_requirements(only_here if "requirements" in module else project.texts("dependencies"), issues)
    priority = module.number("priority", DEFAULT_PRIORITY)
    is_declared_mode = module.flag("declared-mode") or bool(keys.declared_libraries)
    strips_path, scopes_cookies = module.flag("strip-path"), module.flag("scope-cookies")
    isolation = check_isolation(module.text("isolation"), issues)
    env = check_env(module.mapping("env"), issues)
    env_file = check_env_file(module.text("env-file"), issues)
    packs_env_file = module.flag("pack-env-file")
    if options.pack_env_file is not None:
        packs_env_file = options.pack_env_file
    if packs_env_file and not env_file:
        issues.append(f"no file of variables can be packed: there is no env-file in [{TABLE}]")
    include, exclude = (_patterns(module, key) for key in ("include", "exclude"))
    _check_python(project.text("requires-python"), issues)
    module.refuse_the_rest()
    if issues or keys.id is None:
        raise ManifestInvalid(origin, issues)
    return Project(
        root=root,
        id=keys.id,
        entry=keys.entry,
        web_context_path=normal_web_path(keys.web_context_path) or "/",
        strips_path=strips_path,
        scopes_cookies=scopes_cookies,
        priority=priority,
        declared_libraries=keys.declared_libraries,
        is_declared_mode=is_declared_mode,
        deny_imports=keys.deny_imports,
        own=keys.own,
        shared=keys.shared,
        bring=bring,
        isolation=isolation,
        requirements=requirements,
        env=env,
        env_file=env_file,
        packs_env_file=packs_env_file,
        include=include,
        exclude=exclude,
        distribution=(named, released or str(keys.id.version)) if named else None,
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
        issues.append(f"the project requires Python {text}, and Python {running} builds")


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
