"""Contents: digests of installed distributions, equal for equal installations.

A digest is made of the digests in RECORD; a file without one there is read. Bytecode, and metadata about the way of the
installation, say nothing about the content and are left out.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from koupleless.isolation.libraries.installed.record import Record
    from koupleless.isolation.libraries.installed.relations import Relations

_PRIVATE: Final = ("INSTALLER", "REQUESTED", "RECORD", "direct_url.json")
"""Files of metadata about the way of an installation."""


class Contents:
    """The digests of the distributions of one search path, remembered."""

    def __init__(self, records: Mapping[str, Record], versions: Mapping[str, str], relations: Relations) -> None:
        self._records = records
        self._versions = versions
        self._relations = relations
        self._known: dict[tuple[str, bool], str] = {}
        self._compiled: dict[str, str] = {}

    def of(self, name: str, *, alone: bool = False) -> str:
        """Return a digest of a distribution's files, and of its surroundings unless ``alone``."""
        known = self._known.get((name, alone))
        if known is None:
            digest = hashlib.sha256()
            for member in (name,) if alone else sorted(self._relations.surroundings(name)):
                digest.update(f"{member} {self._versions[member]}\n".encode())
                self._add(digest, member, self._records[member].lines)
            known = self._known[name, alone] = digest.hexdigest()
        return known

    def of_extensions(self, name: str) -> str:
        """Return a digest of the compiled files of a distribution with several such files; empty for any other."""
        known = self._compiled.get(name)
        if known is None:
            lines = self._records[name].lines_of_extensions() if name in self._records else []
            digest = hashlib.sha256()
            if len(lines) > 1:
                self._add(digest, name, lines)
            known = self._compiled[name] = digest.hexdigest() if len(lines) > 1 else ""
        return known

    def _add(self, digest: hashlib._Hash, name: str, lines: Iterable[str]) -> None:
        for line in sorted(lines):
            file, _, rest = line.partition(",")
            if "__pycache__" not in file and not file.endswith((".pyc", *_PRIVATE)):
                digest.update(f"{file},{rest.strip(',') or self._stamp(name, file)}\n".encode())

    def _stamp(self, name: str, file: str) -> str:
        """Return a digest of a file without one in RECORD; empty if the file cannot be read."""
        try:
            return hashlib.sha256(Path(self._records[name].place, file).read_bytes()).hexdigest()
        except OSError:
            return ""
