"""One entry of the store: the notes beside the unpacked files, and the comparison of files with their artefact."""

from __future__ import annotations

import contextlib
import dataclasses
from typing import TYPE_CHECKING, Final

from koupleless.artifact.keeping.inventory import Inventory
from koupleless.artifact.manifest import parse_biz_toml, render_biz_toml
from koupleless.errors import ArtifactError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from koupleless.artifact.manifest import Manifest

_MANIFEST: Final = "manifest.toml"
_INVENTORY: Final = "files.json"
_DAMAGED: Final = "damaged.txt"
"""The file in an entry that lists damaged files, one a line. An entry with this file is not used any more."""


@dataclasses.dataclass(frozen=True, slots=True)
class Verified:
    """The findings about one entry after all files were read."""

    digest: str
    identity: str
    """The identity of the biz; empty if the manifest cannot be read any more."""
    damaged: tuple[str, ...]
    """Missing files, and code with other bytes than the artefact's."""
    written: tuple[str, ...]
    """Other files added or changed since unpacking, most likely by the biz."""


class Entry:
    """The directory of one unpacked artefact, complete or in the making. Holds no state besides the path.

    ::

        <entry>/manifest.toml     the manifest, without the digests of files
        <entry>/files.json        the inventory, to find files changed since unpacking
        <entry>/damaged.txt       only in a damaged entry: the changed files
        <entry>/hello-1.0.0/      the files, with bytecode
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def tree(self, manifest: Manifest) -> Path:
        """The directory of the files: named by name and version of the biz, because tracebacks show the path."""
        return self.path / f"{manifest.id.name[:100]}-{manifest.id.version[:100]}"

    def describe(self, manifest: Manifest, digests: Mapping[str, str]) -> tuple[Manifest, Inventory]:
        """Write manifest and inventory, and return both as `read` will. ``digests``: relative path -> SHA-256.

        Raises ``OSError``.
        """
        inventory = Inventory.of(self.tree(manifest), digests)
        inventory.write(self.path / _INVENTORY)
        # The digests are not needed any more, and thousands of lines would slow down every later reading.
        kept = dataclasses.replace(manifest, files={})
        (self.path / _MANIFEST).write_text(render_biz_toml(kept), "utf-8")
        return kept, inventory

    def read(self) -> tuple[Manifest, Inventory] | None:
        """The manifest and the inventory; ``None`` if the entry is missing or damaged."""
        manifest = self._manifest()
        if manifest is None or (self.path / _DAMAGED).exists():
            return None
        try:
            inventory = Inventory.read(self.path / _INVENTORY)
        except (OSError, ValueError):
            return None
        return None if inventory.damage(self.tree(manifest)) else (manifest, inventory)

    def damage(self) -> list[str]:
        """The damaged files, by size and time; empty if there is no such entry."""
        if not self.path.is_dir():
            return []
        manifest = self._manifest()
        return [_MANIFEST] if manifest is None else self._damage(manifest)

    def identity(self) -> str:
        """The identity of the biz; empty if the manifest cannot be read."""
        manifest = self._manifest()
        return "" if manifest is None else str(manifest.id)

    def libraries(self) -> str:
        """The digest of the private libraries kept apart; empty without such libraries, and without a manifest."""
        manifest = self._manifest()
        return "" if manifest is None else manifest.libraries or ""

    def _manifest(self) -> Manifest | None:
        try:
            return parse_biz_toml((self.path / _MANIFEST).read_text("utf-8"), str(self.path))
        except (OSError, ArtifactError, UnicodeDecodeError):
            return None

    def _damage(self, manifest: Manifest) -> list[str]:
        try:
            known = (self.path / _DAMAGED).read_text("utf-8").splitlines()
        except OSError:
            known = []
        try:
            return known or Inventory.read(self.path / _INVENTORY).damage(self.tree(manifest))
        except (OSError, ValueError):
            return [_INVENTORY]

    def compare_code(self, tree: Path) -> list[str]:
        """Code files with other bytes than the artefact's. Reads all code, and notes a damaged entry as such."""
        try:
            found = Inventory.read(self.path / _INVENTORY).differences(tree, code_alone=True)
            self._note(found)
        except (OSError, ValueError):
            return [_INVENTORY]
        return found

    def written(self, tree: Path) -> list[str]:
        """Relative paths of files written below ``tree`` since unpacking; empty without a readable inventory.

        Bytecode, links, sockets and the like are left out. Raises ``OSError``.
        """
        try:
            return Inventory.read(self.path / _INVENTORY).written(tree, with_code=True)
        except ValueError:
            return []

    def verify(self) -> Verified:
        """Read all files, and note a damaged entry as such. Raises ``OSError`` if files cannot be listed."""
        manifest = self._manifest()
        if manifest is None:
            return Verified(self.path.name, "", (_MANIFEST,), ())
        identity, tree = str(manifest.id), self.tree(manifest)
        try:
            inventory = Inventory.read(self.path / _INVENTORY)
        except (OSError, ValueError):
            return Verified(self.path.name, identity, (_INVENTORY,), ())
        written = inventory.written(tree)
        damaged = [name for name in inventory.differences(tree) if name not in written]
        self._note(damaged)
        return Verified(self.path.name, identity, tuple(damaged), tuple(written))

    def _note(self, damaged: list[str]) -> None:
        if damaged:
            (self.path / _DAMAGED).write_text("\n".join(damaged), "utf-8")

    def take_written(self, damaged: Path) -> None:
        """Move files written by the biz from a damaged entry of the same artefact to this one. Never raises."""
        with contextlib.suppress(OSError, ValueError):
            inventory = Inventory.read(self.path / _INVENTORY)
            (tree,) = (path.name for path in self.path.iterdir() if path.is_dir())
            before, now = damaged / tree, self.path / tree
            try:
                written = Inventory.read(damaged / _INVENTORY).written(before)
            except (OSError, ValueError):
                written = inventory.added(before)
            for name in written:
                with contextlib.suppress(OSError):
                    (now / name).parent.mkdir(parents=True, exist_ok=True)
                    (before / name).replace(now / name)
