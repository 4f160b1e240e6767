"""Large private dependencies in the store: apart from the artefact that brought them, as its next version does, too."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from koupleless.artifact.manifest import Manifest
from koupleless.biz import BizId

if TYPE_CHECKING:
    from pathlib import Path

LIB: Final = "lib"
"""The directory of an artefact for private dependencies."""
LIBRARIES: Final = "libraries"
"""The start of the names of entries with private dependencies; the digest of the files follows."""
LARGE_BYTES: Final = 1 << 20
"""Unpacked size from which private dependencies are kept apart: two entries take longer to open than one."""
_SHOWN: Final = 12


def take_libraries(tree: Path, written: dict[str, str]) -> dict[str, str]:
    """Take the files below ``lib`` out of ``written`` (relative path -> SHA-256), and return them by paths below.

    Returns nothing for small ones, which stay with the artefact. Raises ``OSError``.
    """
    inside = f"{LIB}/"
    names = [name for name in written if name.startswith(inside)]
    if sum((tree / name).stat().st_size for name in names) < LARGE_BYTES:
        return {}
    return {name.removeprefix(inside): written.pop(name) for name in names}


def libraries_manifest(digest: str) -> Manifest:
    """The manifest of an entry with private dependencies, to be listed beside those of artefacts."""
    return Manifest(id=BizId.of(LIBRARIES, digest[:_SHOWN]), entry=LIB, web_context_path="/")
