"""Find the names of other Python modules in the text of a library: imports without condition, and imports of C code."""

from __future__ import annotations

import re
from typing import Final

_IMPORT: Final = re.compile(
    r"^(?:from[ \t]+(\.*[\w.]*)[ \t]+import[ \t]*(?:\(([^)]*)\)|([^\n#;]*))|import[ \t]+([^\n#;]*))", re.MULTILINE
)
_TEXT: Final = re.compile(r'"""(?s:.*?)"""|\'\'\'(?s:.*?)\'\'\'')
_COMMENT: Final = re.compile(r"#[^\n]*")
_IMPORT_IN_C: Final = re.compile(r"^[ \t]*(?:from|c?import)[ \t]+(\w+)", re.MULTILINE)


def imported_for_sure(text: str, package: str) -> frozenset[str]:
    """Return the absolute names that a Python module imports when executed, under no condition and with no way around.

    Names taken out of a module by a statement are among these, since each may be a module, too. ``package`` is the
    package from which relative names start.
    """
    found: set[str] = set()
    for source, several, listed, plain in _IMPORT.findall(_TEXT.sub("", text)):
        if plain:
            found.update(_names(plain))
        elif stem := _absolute(source, package):
            found.add(stem)
            found.update(f"{stem}.{name}" for name in _names(several or listed))
    return frozenset(found)


def _names(listed: str) -> list[str]:
    """Return the names in the text behind ``import``."""
    words = [part.split() for part in _COMMENT.sub("", listed).split(",")]
    return [word[0] for word in words if word and word[0].replace(".", "").isidentifier()]


def _absolute(name: str, package: str) -> str:
    level = len(name) - len(name.lstrip("."))
    if not level:
        return name
    stems = package.split(".")
    return ".".join([*stems[: len(stems) - level + 1], name[level:]]).rstrip(".") if level <= len(stems) else ""


def imported_in_c(text: str) -> frozenset[str]:
    """Return the top-level names that the source of an extension module imports anywhere."""
    return frozenset(_IMPORT_IN_C.findall(text))
