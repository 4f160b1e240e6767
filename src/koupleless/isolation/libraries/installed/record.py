"""Record: one installed distribution, read from its RECORD and the files beside. No table is parsed."""

from __future__ import annotations

import functools
import json
import os
import re
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote, urlsplit

from packaging.utils import canonicalize_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from importlib.metadata import Distribution

_SUFFIXES: Final = (".py", ".pyc", ".so", ".pyd")
_EXTENSION: Final = re.compile("(" + "|".join(re.escape(suffix) for suffix in EXTENSION_SUFFIXES) + ")(,|$)")


class Record:
    """One distribution. Immutable but for remembered answers."""

    def __init__(self, name: str, distribution: Distribution) -> None:
        self.name = name
        self.distribution = distribution
        text = distribution.read_text("RECORD") or distribution.read_text("installed-files.txt") or ""
        lines = [line for line in text.splitlines() if "__pycache__/" not in line and not line.startswith(("..", "/"))]
        self._text = "\n".join(lines)  # one text: a base has twenty thousand lines, and asks for few of them again
        self.tops = {module_part(file_of(line)) for line in lines} - {""}
        """Top-level names of the Python modules."""
        compiled = [file_of(line) for line in self.lines_of_extensions()]
        self.is_extended = any(map(module_part, compiled))
        """Whether there are extension modules."""
        self.is_compiled = self.is_extended and not _is_sourced(compiled, lines)
        """Whether there are extension modules, and no source to be executed instead."""

    @property
    def lines(self) -> list[str]:
        """The lines about files in the directory of the installation, without bytecode."""
        return self._text.splitlines()

    def lines_of_extensions(self) -> list[str]:
        """Return the lines about extension modules."""
        return [line for line in self.lines if _EXTENSION.search(line)]

    def files(self) -> Iterator[str]:
        """Yield all files, as relative paths."""
        return map(file_of, self.lines)

    def modules(self) -> Iterator[str]:
        """Yield the source files of Python modules, as relative paths."""
        return (file for file in self.files() if file.endswith(".py") and module_part(file))

    @functools.cached_property
    def place(self) -> str:
        """The directory of the installation."""
        return os.path.normpath(str(self.distribution.locate_file("")))

    def text_of(self, file: str) -> str:
        """Return the text of a file. Raises ``OSError``."""
        return Path(self.place, file).read_text("utf-8", "replace")

    def metadata(self) -> str:
        """Return the text of the metadata; empty if there is none."""
        return self.distribution.read_text("METADATA") or self.distribution.read_text("PKG-INFO") or ""

    def console_scripts(self) -> Iterator[tuple[str, str]]:
        """Yield the commands: the name, and the function as ``module:function``."""
        text = self.distribution.read_text("entry_points.txt")
        if text and "console_scripts" in text:
            for entry in self.distribution.entry_points.select(group="console_scripts"):
                yield entry.name, entry.value.partition("[")[0].strip()

    def project(self) -> str:
        """Return the directory of the project of an editable installation, as a prefix of paths; else empty."""
        text = self.distribution.read_text("direct_url.json")
        if not text:
            return ""
        try:
            data = json.loads(text)
        except ValueError:
            return ""
        if not (isinstance(data, dict) and isinstance(data.get("dir_info"), dict) and data["dir_info"].get("editable")):
            return ""
        return os.path.join(unquote(urlsplit(str(data.get("url", ""))).path), "")  # noqa: PTH118 - for startswith


def identity_of(distribution: Distribution) -> tuple[str, str]:
    """Return normalised name and version; from the directory's name where possible, for metadata is slow to read."""
    path = getattr(distribution, "_path", None)
    stem, dot, suffix = getattr(path, "name", "").rpartition(".")
    name, dash, version = stem.partition("-")
    if dot and suffix == "dist-info" and dash:
        return canonicalize_name(name), version
    try:
        return canonicalize_name(distribution.metadata["Name"] or ""), distribution.version or ""
    except (OSError, UnicodeDecodeError, KeyError):
        return "", ""


def file_of(line: str) -> str:
    """Return the file in a line of a RECORD."""
    return line.partition(",")[0].strip('"')


def module_part(file: str) -> str:
    """Return the top-level Python module to which a file of a RECORD belongs; empty for metadata and data."""
    head, slash, _ = file.partition("/")
    if head.endswith((".dist-info", ".egg-info", ".data")):
        return ""
    if slash:
        return head if head.isidentifier() and head != "__pycache__" else ""
    stem, dot, _ = head.partition(".")
    if not dot or not head.endswith(_SUFFIXES):
        return ""
    # Files beside a package, as compilers write them, are imported by C code, and a name may be no identifier: mypyc
    # takes a digest.
    return stem if stem.isidentifier() or head.endswith(tuple(EXTENSION_SUFFIXES)) else ""


def module_name(file: str) -> str:
    """Return the name of the Python module in a source file of a RECORD."""
    return file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def _is_sourced(extensions: Iterable[str], lines: Iterable[str]) -> bool:
    """Tell whether mypyc has made each extension module of a RECORD, and the source lies beside each.

    Extension modules made together by mypyc refer to each other by one library, with a name ending in ``__mypyc``.
    """
    stems = {file.partition(".")[0] for file in extensions}
    made = {stem for stem in stems if stem.endswith("__mypyc")}
    return bool(made) and {*map(file_of, lines)}.issuperset(f"{stem}.py" for stem in stems - made)
