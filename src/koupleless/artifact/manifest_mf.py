"""``META-INF/MANIFEST.MF``, parsed and rendered: the manifest in the keys of the Java original, for its tools."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from koupleless.artifact.manifest import Manifest, check_size
from koupleless.artifact.reading.common_keys import check_common_keys
from koupleless.artifact.reading.table import INTEGERS
from koupleless.artifact.reading.texts import shown
from koupleless.biz import DEFAULT_PRIORITY
from koupleless.errors import ManifestInvalid

if TYPE_CHECKING:
    from collections.abc import Mapping

_MF_KEYS: Final = frozenset(
    {
        "Manifest-Version",
        "Ark-Biz-Name",
        "Ark-Biz-Version",
        "Start-Class",
        "Main-Class",
        "web-context-path",
        "priority",
        "declared-libraries",
        "deny-import-packages",
    }
)


def parse_manifest_mf(text: str, origin: str) -> Manifest:
    """Read ``META-INF/MANIFEST.MF``. The entry stands under ``Start-Class``, or else ``Main-Class``.

    Raises ``ManifestInvalid`` with all mistakes of the file.
    """
    issues: list[str] = []
    keys = manifest_keys(text)
    common = check_common_keys(
        issues,
        name=keys.get("Ark-Biz-Name"),
        version=keys.get("Ark-Biz-Version"),
        entry=keys.get("Start-Class") or keys.get("Main-Class"),
        web_context_path=keys.get("web-context-path") or None,
        deny_imports=_listed(keys.get("deny-import-packages")),
        declared_libraries=_listed(keys.get("declared-libraries")),
    )
    priority = _whole_number(keys.get("priority"))
    if priority is None:
        issues.append(f"priority = {shown(keys['priority'])} is not a whole number")
    if issues or common.id is None:
        raise ManifestInvalid(origin, issues)
    manifest = Manifest(
        id=common.id,
        entry=common.entry,
        web_context_path=common.web_context_path,
        priority=DEFAULT_PRIORITY if priority is None else priority,
        declared_libraries=common.declared_libraries,
        deny_imports=common.deny_imports,
        attributes=other_attributes(keys),
    )
    return check_size(manifest, origin)


def _whole_number(text: str | None) -> int | None:
    try:
        number = int(text or DEFAULT_PRIORITY)
    except ValueError:
        return None
    return number if number in INTEGERS else None


def _listed(text: str | None) -> tuple[str, ...]:
    return tuple(part.strip() for part in (text or "").split(",") if part.strip())


def manifest_keys(text: str) -> dict[str, str]:
    """The main section of a ``MANIFEST.MF``: folded lines are joined, lines other than ``key: value`` are skipped."""
    lines: list[list[str]] = []
    for line in text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n").split("\n"):
        if not line:
            if lines:
                break
        elif line.startswith(" ") and lines:
            lines[-1].append(line[1:])
        else:
            lines.append([line])
    pairs = ("".join(pieces).partition(":") for pieces in lines)
    return {key.strip(): value.strip() for key, colon, value in pairs if colon}


def other_attributes(keys: Mapping[str, str]) -> dict[str, str]:
    """The keys of a ``MANIFEST.MF`` without a field in `Manifest`."""
    return {key: value for key, value in keys.items() if key not in _MF_KEYS}


def render_manifest_mf(manifest: Manifest) -> str:
    """``MANIFEST.MF`` for tools of the original.

    Name and version are never folded: the Go client of the original reads both with a regular expression.
    """
    keys = {
        "Manifest-Version": "1.0",
        "Ark-Biz-Name": manifest.id.name,
        "Ark-Biz-Version": manifest.id.version,
        "Start-Class": manifest.entry,
        "web-context-path": manifest.web_context_path,
        "priority": str(manifest.priority),
        "declared-libraries": ",".join(manifest.declared_libraries),
        "deny-import-packages": ",".join(manifest.deny_imports),
        **{key: value for key, value in manifest.attributes.items() if re.fullmatch(r"[A-Za-z0-9_-]{1,68}", key)},
    }
    lines = []
    for key, value in keys.items():
        if value:
            line = f"{key}: {' '.join(value.split())}"
            lines += [line] if key.startswith("Ark-Biz-") else _folded(line)
    return "".join(f"{line}\r\n" for line in [*lines, ""])


def _folded(line: str) -> list[str]:
    """The line in pieces of at most 72 bytes, line end included, cut between characters."""
    pieces, room, current = [], 70, ""
    for character in line:
        size = len(character.encode())
        if room < size:
            pieces.append(current)
            current, room = " ", 69
        current += character
        room -= size
    return [*pieces, current]
