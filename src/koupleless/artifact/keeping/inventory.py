"""The inventory of a store entry: the unpacked files, to find changed files by size and time, or by digest."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from typing import TYPE_CHECKING, Final, NamedTuple, Self

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

_CODE: Final = (".py", ".pyc", ".so", ".pth")
"""Endings of code. All other files below an entry belong to the biz, which may write to them while it runs."""


class Mark(NamedTuple):
    """Size in bytes, time of change and SHA-256 of one file when the file was unpacked."""

    size: int
    modified_ns: int
    digest: str


class Inventory:
    """The files of one store entry: relative path -> mark. Immutable."""

    def __init__(self, marks: Mapping[str, Mark]) -> None:
        self.marks = marks

    @classmethod
    def of(cls, tree: Path, digests: Mapping[str, str]) -> Self:
        """Note the files below ``tree`` with known digests (relative path -> SHA-256). Raises ``OSError``."""
        marks = {}
        for name, digest in digests.items():
            status = os.stat(tree / name)  # noqa: PTH116 - hot
            marks[name] = Mark(status.st_size, status.st_mtime_ns, digest)
        return cls(marks)

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read an inventory from a file. Raises ``OSError``, and ``ValueError`` for a file with other content."""
        document = json.loads(path.read_bytes())
        try:
            return cls({str(name): Mark(*mark) for name, mark in document.items()})
        except (AttributeError, TypeError) as error:
            raise ValueError(str(error)) from None

    def write(self, path: Path) -> None:
        """Write the inventory to a file. Raises ``OSError``."""
        path.write_text(json.dumps(self.marks, separators=(",", ":")), "utf-8")

    def text_of(self, place: str, size: int, modified_ns: int) -> bytes | None:
        """The SHA-256 of a file below the tree; ``None`` for a file with another size or time than when unpacked.

        As with bytecode, which Python takes for the source's by size and time, and in full seconds.
        """
        mark = self.marks.get(place)
        if mark is None or mark.size != size or mark.modified_ns != modified_ns:
            return None
        return bytes.fromhex(mark.digest)

    def damage(self, tree: Path) -> list[str]:
        """Missing files, and code files with another size or time than when unpacked. Costs one `stat` for each."""
        root = f"{tree}/"
        found = []
        for name, mark in self.marks.items():
            try:
                status = os.stat(root + name)  # noqa: PTH116 - hot
            except OSError:
                found.append(name)
                continue
            if (status.st_size, status.st_mtime_ns) != mark[:2] and name.endswith(_CODE):
                found.append(name)
        return found

    def differences(self, tree: Path, *, code_alone: bool = False) -> list[str]:
        """Missing files, and files with other bytes than when unpacked. Reads all files, or all code."""
        names = (name for name in self.marks if not code_alone or name.endswith(_CODE))
        return [name for name in names if _digest_of(tree / name) != self.marks[name].digest]

    def written(self, tree: Path, *, with_code: bool = False) -> list[str]:
        """Files added or changed since unpacking, code only with ``with_code``.

        Bytecode, links, sockets and the like are left out. Raises ``OSError``.
        """
        found = []
        for parent, directories, names in os.walk(tree):
            if "__pycache__" in directories:
                directories.remove("__pycache__")
            for name in names:
                path = f"{parent}/{name}"
                place = path.removeprefix(f"{tree}/")
                mark = self.marks.get(place)
                status = os.lstat(path)
                is_kept = mark is not None and (
                    (status.st_size, status.st_mtime_ns) == mark[:2] or (place.endswith(_CODE) and not with_code)
                )
                if stat.S_ISREG(status.st_mode) and not is_kept:
                    found.append(place)
        return found

    def added(self, tree: Path) -> list[str]:
        """Files added or changed in a tree that was unpacked at another time: compared by content, not by time.

        Bytecode, links, sockets and the like are left out. Raises ``OSError``.
        """
        return [
            name
            for name in self.written(tree)
            if name not in self.marks or _digest_of(tree / name) != self.marks[name].digest
        ]


def _digest_of(path: Path) -> str | None:
    try:
        with path.open("rb", buffering=0) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None


def in_words(names: Iterable[str]) -> str:
    """The first name, and the number of further names."""
    first, *rest = names
    return f"{first} and {len(rest)} more" if rest else first
