"""Installation of a source tree and its requirements for a run of its tests, apart from the base.

There are two directories below the cache of the user, each made at most once for the same contents: the requirements,
and over them the tree itself as ``pip`` installs a tree. A tree that is no installable project is used in place. A tree
with its own distribution among the requirements is used as this distribution, from the package index: nothing is built,
and the tests share one copy with the libraries that require the distribution.
"""

from __future__ import annotations

import configparser
import contextlib
import email
import hashlib
import os
import sys
import tempfile
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from koupleless.artifact.building.pip import Pip
from koupleless.artifact.building.requirements import RUNTIME
from koupleless.errors import ArtifactError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

_PROJECT_FILES: Final = ("pyproject.toml", "setup.py", "setup.cfg")
_MADE: Final = frozenset({"__pycache__", "node_modules", "build", "dist"})
"""Directories of generated files."""


@dataclass(frozen=True, slots=True)
class Furnished:
    """The places of a tree and of the requirements."""

    tree: Path
    """The working directory of the tests, absolute."""
    paths: tuple[str, ...]
    """The first places of the search path, in this order."""


def furnish(tree: Path, requirements: Sequence[str], *, program: str | None = None) -> Furnished:
    """Install the requirements of ``tree`` and of the tests; ``program`` is a distribution to install besides.

    ``program`` is left to the requirements if one of them names the distribution. Raises ``ArtifactError`` for a tree
    that is no directory, ``BuildFailed`` with the output of pip.
    """
    tree = tree.absolute()
    if not tree.is_dir():
        raise ArtifactError(f"there is no directory {tree}")
    project = _project(tree)
    wanted = [*requirements, *([program] if program else [])]
    pip = Pip(tree.name, sys.executable)
    if "module" in project.get("tool", {}).get("koupleless", {}):
        # A module is packed by rules of its own, not by a build backend, and used in place.
        dependencies = project.get("project", {}).get("dependencies", ())
        wanted += [text for text in dependencies if not asks_for(text, RUNTIME)]  # every biz is given this very package
        return Furnished(tree, (*_in_place(tree), _installed(pip, wanted, near=tree)))
    own = _distribution(tree, project)
    if any(asks_for(text, own) for text in requirements):
        return Furnished(tree, (_installed(pip, wanted, near=tree),))
    if not _is_installable(tree, project):
        return Furnished(tree, (*_in_place(tree), _installed(pip, wanted, near=tree)))
    with_tree = [*wanted, str(tree)]
    libraries = _installed(pip, with_tree, near=tree, key=[*wanted, *_texts(tree, _PROJECT_FILES)])
    own = _installed(pip, [str(tree)], near=tree, key=[str(tree), *_stamps(tree)], alone=True)
    return Furnished(tree, (own, libraries))


def _project(tree: Path) -> Mapping[str, Any]:
    try:
        return tomllib.loads((tree / "pyproject.toml").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{tree / 'pyproject.toml'} cannot be read: {error}") from error


def _is_installable(tree: Path, project: Mapping[str, Any]) -> bool:
    """Whether a build backend could build the tree; a file with settings of tools alone does not count."""
    return (
        "project" in project or "build-system" in project or any((tree / name).is_file() for name in _PROJECT_FILES[1:])
    )


def _distribution(tree: Path, project: Mapping[str, Any]) -> str:
    """The normalised name of the distribution of the tree; empty for a tree without one."""
    settings = configparser.ConfigParser(interpolation=None)
    with contextlib.suppress(configparser.Error):
        settings.read_string("\n".join(_texts(tree, ["setup.cfg"])))
    metadata = email.message_from_string("\n".join(_texts(tree, ["PKG-INFO"])))
    told = (
        metadata.get("Name"),
        project.get("project", {}).get("name"),
        project.get("tool", {}).get("poetry", {}).get("name"),
        settings.get("metadata", "name", fallback=None),
    )
    return canonicalize_name(next(filter(None, told), ""))


def asks_for(requirement: str, name: str) -> bool:
    """Whether a requirement names a distribution; a path or a URL names none."""
    try:
        return canonicalize_name(Requirement(requirement).name) == name
    except InvalidRequirement:
        return False


def _in_place(tree: Path) -> tuple[str, ...]:
    source = tree / "src"
    return (str(source),) if source.is_dir() else (str(tree),)


def _texts(tree: Path, names: Iterable[str]) -> Iterator[str]:
    for name in names:
        with contextlib.suppress(OSError):
            yield (tree / name).read_text(encoding="utf-8", errors="replace")


def _stamps(tree: Path) -> Iterator[str]:
    """Texts of which one changes when a file of the tree does."""
    for directory, below, names in os.walk(tree):
        below[:] = sorted(name for name in below if not _is_made(name))
        for name in sorted(names):
            path = os.path.join(directory, name)  # noqa: PTH118 - thousands of them
            with contextlib.suppress(OSError):
                status = os.stat(path)  # noqa: PTH116
                yield f"{path} {status.st_size} {status.st_mtime_ns}"


def _is_made(directory: str) -> bool:
    return directory in _MADE or directory.startswith(".") or directory.endswith(".egg-info")


def _installed(
    pip: Pip, requirements: Sequence[str], *, near: Path, key: Iterable[str] = (), alone: bool = False
) -> str:
    """The directory with these requirements, installed now unless an earlier run has made the directory."""
    marks = [sys.version, sys.executable, str(alone), *(key or requirements)]
    digest = hashlib.sha256("\0".join(marks).encode()).hexdigest()[:16]
    place = cache() / f"{near.name}-{digest}"
    if place.is_dir() or not requirements:
        return str(place)
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".making-", dir=place.parent) as scratch:
        made = Path(scratch, "made")
        made.mkdir()
        pip.install_freely(requirements, made, alone=alone)
        with contextlib.suppress(OSError):  # somebody else was faster
            made.rename(place)
    return str(place)


def cache() -> Path:
    """The directory with the installations for suites, kept from one run to the next."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "koupleless", "suites")
