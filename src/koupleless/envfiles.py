"""Read files of variables, commonly called ``.env``, with the parser of python-dotenv. No message has a value."""

from __future__ import annotations

import importlib
import io
import os
from collections import ChainMap
from typing import TYPE_CHECKING, Final

from koupleless.errors import SettingsError

if TYPE_CHECKING:
    from pathlib import Path

MAX_BYTES: Final = 1 << 20
"""Upper bound for the size of a file of variables."""
_MAX_EXPANDED: Final = 4 * MAX_BYTES


def read_env_file(path: Path) -> dict[str, str]:
    """Return the variables in a file; a name without ``=`` is left out, and ``${NAME}`` stands for another variable.

    Other variables are those of lines above, else of the process. The parser is imported when a file is there.
    Raises ``FileNotFoundError`` without a file, ``SettingsError`` (with the file and the line) for an unreadable one.
    """
    text = _read(path)
    parser, variables = importlib.import_module("dotenv.parser"), importlib.import_module("dotenv.variables")
    found: dict[str, str] = {}
    known = ChainMap(found, os.environ)  # only read
    size = 0
    for binding in parser.parse_stream(io.StringIO(text)):
        if binding.error:
            line = binding.original.line + _lines_before(binding.original.string)
            raise SettingsError(f"cannot read {path}: line {line} is not NAME=value")
        if binding.key is None or binding.value is None:
            continue
        pieces = []
        for atom in variables.parse_variables(binding.value):
            pieces.append(atom.resolve(known))
            size += len(pieces[-1])
            if size > _MAX_EXPANDED:  # references to references can double the text on every line
                raise SettingsError(f"cannot read {path}: the values have more than {_MAX_EXPANDED} characters")
        found[binding.key] = "".join(pieces)
        if (why := variable_issue(binding.key, found[binding.key])) is not None:
            raise SettingsError(f"cannot read {path}: {why}")
    return found


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise SettingsError(f"cannot read {path}: {error.strerror}") from None
    if len(data) > MAX_BYTES:
        raise SettingsError(f"cannot read {path}: a file of variables has at most {MAX_BYTES} bytes")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise SettingsError(f"cannot read {path}: the file is no UTF-8 text") from None


def _lines_before(text: str) -> int:
    """The number of blank lines at the beginning, which the parser counts to the statement behind."""
    return text[: len(text) - len(text.lstrip())].count("\n")


def variable_issue(name: str, value: str) -> str | None:
    """The reason why no process can have a variable, as a clause without the value; ``None`` if there is none."""
    if not name or "=" in name or "\0" in name:
        return f"{name[:200]!r} is no name of a variable"
    return f"the value of {name[:200]!r} has a NUL" if "\0" in value else None
