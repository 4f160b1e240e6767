"""``arkctl init``: the change to ``pyproject.toml`` by which an existing project becomes a module."""

from __future__ import annotations

import difflib
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from koupleless.artifact.building.project import PYPROJECT, TABLE, read_requirements_file
from koupleless.artifact.reading.texts import read_toml
from koupleless.cli.projects.applications import find_applications
from koupleless.errors import KouplelessError

if TYPE_CHECKING:
    from pathlib import Path

    from koupleless.cli.projects.applications import Candidate

_VERSION: Final = "1.0.0"
_ENV_FILE: Final = ".env"
_SHOWN: Final = 5


class NotInitialised(KouplelessError):
    """A project that cannot be made a module. Nothing was written."""


@dataclass(frozen=True, slots=True)
class Change:
    """The change to one ``pyproject.toml``, not yet made."""

    path: Path
    before: str
    after: str
    notes: tuple[str, ...]
    """Sentences about the choice."""

    @property
    def diff(self) -> str:
        """The change as a unified diff."""
        before, after = (text.splitlines(keepends=True) for text in (self.before, self.after))
        old = PYPROJECT if self.before else "/dev/null"
        return "".join(difflib.unified_diff(before, after, old, PYPROJECT)).rstrip("\n")

    def make(self) -> None:
        """Write the file. Raises ``NotInitialised`` if that fails, or if the file was changed since it was read."""
        try:
            if (self.path.read_text("utf-8") if self.path.exists() else "") != self.before:
                raise NotInitialised(f"{self.path} was changed meanwhile; try again")
            self.path.write_text(self.after, encoding="utf-8")
        except OSError as error:
            raise NotInitialised(f"{self.path} cannot be written: {error.strerror}") from None


def plan(root: Path, *, entry: str | None = None, name: str | None = None) -> Change:
    """Find the application of the project at ``root``, and the change that makes the project a module.

    ``entry`` and ``name`` are stronger than what is found. Raises ``NotInitialised`` for a project that is a module
    already, an unreadable ``pyproject.toml``, or a project without an application.
    """
    path = root / PYPROJECT
    before, document = _read(path)
    tools: Any = document.get("tool")
    koupleless = tools.get("koupleless") if isinstance(tools, dict) else None
    if isinstance(koupleless, dict) and "module" in koupleless:
        raise NotInitialised(f"{path} has the table [{TABLE}] already: the project is a module; arkctl deploy {root}")
    notes: list[str] = []
    if entry is None:
        entry = _chosen(find_applications(root), root, notes)
    lines: list[str] = []
    project = document.get("project")
    named: dict[str, str] = {}
    if not isinstance(project, dict):
        named = {"name": name or _name_of(root, document), "version": _version_of(document)}
        if not before:
            requirements = read_requirements_file(root)
            lines += ["[project]", *(f"{key} = {json.dumps(value)}" for key, value in named.items())]
            if requirements:
                lines += ["dependencies = [", *(f"    {json.dumps(one)}," for one in requirements), "]"]
            lines.append("")
            named = {}
        else:
            notes.append(f"{PYPROJECT} has no [project], so requirements of the module go into [{TABLE}] requirements")
    elif name is not None:
        named = {"name": name}
    lines += [f"[{TABLE}]", *(f"{key} = {json.dumps(value)}" for key, value in named.items())]
    lines.append(f"entry = {json.dumps(entry)}")
    if (root / _ENV_FILE).is_file():
        lines.append(f"env-file = {json.dumps(_ENV_FILE)}")
        notes.append(f"{_ENV_FILE} is read when the project is deployed from this machine, and is not packed")
    gap = "" if not before else "\n" if before.endswith("\n") else "\n\n"
    return Change(path, before, f"{before}{gap}{chr(10).join(lines)}\n", tuple(notes))


def _read(path: Path) -> tuple[str, dict[str, Any]]:
    try:
        text = path.read_text("utf-8")
        return text, read_toml(text)
    except FileNotFoundError:
        return "", {}
    except ValueError as error:
        raise NotInitialised(f"{path} is no TOML: {error}") from None
    except OSError as error:
        raise NotInitialised(f"{path} cannot be read: {error.strerror}") from None


def _chosen(found: list[Candidate], root: Path, notes: list[str]) -> str:
    if not found:
        raise NotInitialised(
            f"no application was found in {root}: none of its files assigns one to app or application, or has "
            "create_app(); name the application with --entry package.module:attribute"
        )
    first, *others = found
    notes.append(f"the application is {first.entry}: {first.why}")
    if others:
        listed = ", ".join(each.entry for each in others[:_SHOWN])
        more = f" and {len(others) - _SHOWN} more" if len(others) > _SHOWN else ""
        notes.append(f"others were found: {listed}{more}; --entry takes another")
    return first.entry


def _name_of(root: Path, document: dict[str, Any]) -> str:
    poetry = _poetry(document).get("name")
    text = poetry if isinstance(poetry, str) else root.resolve().name
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-._") or "module"


def _version_of(document: dict[str, Any]) -> str:
    version = _poetry(document).get("version")
    return version if isinstance(version, str) and version else _VERSION


def _poetry(document: dict[str, Any]) -> dict[str, Any]:
    tools = document.get("tool")
    poetry = tools.get("poetry") if isinstance(tools, dict) else None
    return poetry if isinstance(poetry, dict) else {}
