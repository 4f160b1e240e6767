"""``arkctl new``: projects from the templates."""

from __future__ import annotations

import keyword
import re
import string
import sys
from importlib import resources
from typing import TYPE_CHECKING, Final

from koupleless.biz import parse_name
from koupleless.errors import KouplelessError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from importlib.resources.abc import Traversable
    from pathlib import Path

_ENDING: Final = ".tmpl"
_PACKAGE: Final = "package"
"""The directory of a template that gets the name of the project's package."""
_TAKEN: Final = ("tests", "koupleless", "starlette")
"""Names used, or imported, by the projects beside the package."""


class ProjectRefused(KouplelessError):
    """A project cannot be created in the directory, or under the name. Nothing was written."""


def create(kind: str, directory: Path, *, name: str | None = None) -> list[str]:
    """Write a project of ``kind`` (``module`` or ``base``) into ``directory``, which must be new or empty.

    The project is named like the directory, unless ``name`` is given. Returns lines for the user. Raises
    ``ProjectRefused`` and ``InvalidIdentity`` before the first file is written.
    """
    directory = directory.absolute()
    name = parse_name(name or directory.name)
    package = _package_name(name)
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise ProjectRefused(f"{directory} is there already and not an empty directory")
    words = {"name": name, _PACKAGE: package}
    files = {
        directory / path: string.Template(source.read_text(encoding="utf-8")).substitute(words)
        for path, source in _files(resources.files("koupleless.cli") / "templates" / kind, package)
    }
    try:
        for path, text in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ProjectRefused(f"{error.filename} cannot be written: {error.strerror}") from error
    first = "arkctl deploy" if kind == "module" else f"arkctl serve {package}.main:app"
    return [f"created the {kind} {name}; go on with:", f"  cd {directory}", f"  {first}"]


def _files(template: Traversable, package: str, below: str = "") -> Iterator[tuple[str, Traversable]]:
    for entry in sorted(template.iterdir(), key=lambda entry: entry.name):
        if entry.is_dir():
            inner = package if entry.name == _PACKAGE else entry.name
            yield from _files(entry, package, f"{below}{inner}/")
        elif entry.name.endswith(_ENDING):
            yield f"{below}{entry.name.removesuffix(_ENDING)}", entry


def _package_name(name: str) -> str:
    """The import name for a project: other characters than letters and digits become ``_``.

    Raises ``ProjectRefused`` for a name that is taken.
    """
    package = re.sub(r"\W+", "_", name.lower(), flags=re.ASCII).strip("_")
    if not package or package[0].isdigit():
        package = f"app_{package}"
    if keyword.iskeyword(package):
        meaning = "a word of the Python language"
    elif package in sys.stdlib_module_names:
        meaning = "a module of the standard library"
    elif package in _TAKEN:
        meaning = "a package that the project itself needs"
    else:
        return package
    raise ProjectRefused(f"{name} would need a package {package}, which is {meaning}; for example --name {name}-module")
